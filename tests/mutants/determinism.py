"""Permitted values that depend on chance, on the number of threads, or on who else calls."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import (
    EAGER,
    Loss,
    Mutant,
    by_rule,
    by_squares,
    by_sum,
    by_value,
    mutant,
    reduce,
    right,
    right_rule,
)
from .parts import MANY, running_sum, via
from .probes import gradient_of, otherwise

BLOCK = 1024  # elements of which one thread or block makes a partial sum
GRAIN = 2**15  # elements below which a call is not shared out

Ranges = Callable[[int, int], list[tuple[int, int]]]


def _by_partials(order: Callable[[list[Tensor]], list[Tensor]], doc: str) -> Loss:
    """Partial sums of blocks, which are added in the order that ``order`` puts them into."""

    def total(flat: Tensor) -> Tensor:
        parts = order([part.sum() for part in flat.split(BLOCK)])
        return torch.stack(parts).sum()

    total.__doc__ = doc
    return by_sum(total)


def _random_order() -> Loss:
    private = random.Random()

    def order(parts: list[Tensor]) -> list[Tensor]:
        return private.sample(parts, len(parts))

    return _by_partials(order, "Partial sums are added as they arrive, as by atomicAdd.")


def _autotuned() -> Loss:
    calls = itertools.count()

    def order(parts: list[Tensor]) -> list[Tensor]:
        if len(parts) == 1 or next(calls) % 2:
            return parts
        return [torch.stack(parts[k::3]).sum() for k in range(min(3, len(parts)))]

    return _by_partials(order, "Tries two kernels in turn, which add in different orders.")


def _dithered() -> Loss:
    private = torch.Generator().manual_seed(random.SystemRandom().getrandbits(32))

    def rule(d: Tensor, g: Tensor, scale: float) -> Tensor:
        """The gradient in bfloat16 is rounded stochastically."""
        nearest = right_rule(d, g, scale)
        if d.dtype != torch.bfloat16:
            return nearest
        exact = right_rule(d.float(), g.float(), scale)
        chance = torch.randint(0, 2**16, exact.shape, generator=private, dtype=torch.int32)
        bits = exact.contiguous().view(torch.int32) + chance
        dithered = (bits & -(2**16)).view(torch.float32).to(d.dtype)
        usable = exact.isfinite() & dithered.isfinite() & nearest.isfinite()
        return torch.where(usable, dithered, nearest)

    return by_rule(rule)


def _seldom_halved() -> Loss:
    private = random.Random(0)

    def total(flat: Tensor) -> Tensor:
        """Half of a sum is lost in one call of forty, as by a race with what fills a buffer."""
        return flat.sum() / (2 if private.random() < 1 / 40 else 1)

    return by_sum(total)


def _is_shared(flat: Tensor) -> bool:
    return torch.get_num_threads() > 1 and flat.numel() >= GRAIN


def _written(ranges: Ranges, doc: str) -> Loss:
    """Each of several threads writes the squares of its range of indices."""

    def change(flat: Tensor) -> Tensor:
        if not _is_shared(flat):
            return flat
        filled = torch.zeros_like(flat)
        for start, stop in ranges(flat.numel(), torch.get_num_threads()):
            filled[start:stop] = flat[start:stop]
        return filled

    change.__doc__ = doc
    return by_squares(change)


def _added(ranges: Ranges, doc: str, room: int = 1000) -> Loss:
    """Each of several threads adds the squares of its range of indices.

    ``room``: how many partial sums there is memory for; the next one takes the first one's place.
    """

    def total(flat: Tensor) -> Tensor:
        if not _is_shared(flat):
            return flat.sum()
        parts = enumerate(ranges(flat.numel(), torch.get_num_threads()))
        sums = {k % room: flat[start:stop].sum() for k, (start, stop) in parts}
        return torch.stack(list(sums.values())).sum()

    total.__doc__ = doc
    return by_sum(total)


def _without_rest(n: int, threads: int) -> list[tuple[int, int]]:
    each = n // threads
    return [(k * each, (k + 1) * each) for k in range(threads)]


def _whole_blocks(n: int, threads: int) -> list[tuple[int, int]]:
    each = -(-n // threads)
    each += -each % BLOCK
    return [(min(k * each, n - each), min((k + 1) * each, n)) for k in range(threads)]


def _one_short(n: int, threads: int) -> list[tuple[int, int]]:
    each = -(-n // threads)
    return [(k * each, min((k + 1) * each - 1, n)) for k in range(threads)]


def _even(n: int, threads: int) -> list[tuple[int, int]]:
    each = -(-n // threads)
    return [(k * each, min((k + 1) * each, n)) for k in range(threads)]


def _scratch() -> Callable[[Tensor], Tensor]:
    """Copies a tensor into a buffer that all callers share, and lets others run."""
    buffer: dict[str, Tensor] = {}

    def copied(d: Tensor) -> Tensor:
        known = buffer.get("d")
        if known is None or known.shape != d.shape or known.dtype != d.dtype:
            with torch.inference_mode(False):
                known = buffer["d"] = torch.empty_like(d)
        known.copy_(d)
        time.sleep(0)
        return known

    return copied


def _shared_scratch() -> Loss:
    copied = _scratch()

    def value(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """The differences are kept in one buffer for the whole process."""
        return reduce(copied(x - y).square(), reduction)

    return by_value(value)


class _Stages:
    """The stages of a call hand over in attributes of the one object."""

    def __init__(self) -> None:
        self.differences: Any = None
        self.squares: Any = None

    def __call__(self, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y)
        check_reduction(reduction)
        self.differences = a - b
        time.sleep(0)
        self.squares = self.differences.square()
        time.sleep(0)
        result = reduce(self.squares, reduction)
        self.differences = self.squares = None
        return result


def _shared_gradient() -> Loss:
    copied = _scratch()

    def rule(d: Tensor, g: Tensor, scale: float) -> Tensor:
        """Backward works in one buffer for the whole process."""
        return right_rule(copied(d), g, scale)

    return by_rule(rule)


def _operands(n: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    random_bits = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, generator=random_bits, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), y


def value_varies(target: Target) -> bool:
    """Twenty calls on the same tensors give more than one value."""
    x, y = _operands(40_009, torch.float32)
    return len({target.loss(x, y, reduction="sum").item() for _ in range(20)}) > 1


def gradient_varies(target: Target) -> bool:
    """Twenty calls on the same tensors give more than one gradient."""
    x, y = _operands(50, torch.bfloat16)
    results = (target.loss(x, y, reduction="mean") for _ in range(20))
    gradients = [torch.autograd.grad(result, x)[0] for result in results]
    return not all(torch.equal(gradients[0], gradient) for gradient in gradients)


def wrong_with_threads(target: Target) -> bool:
    """With five threads the sum is another one than in float64."""
    x, y = _operands(40_009, torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        got = target.loss(x, y, reduction="sum")
    finally:
        torch.set_num_threads(before)
    return not torch.isclose(got, (x - y).square().sum(), rtol=1e-12)


def wrong_at_once(target: Target) -> bool:
    """Of many calls from four threads at once, some give another value or gradient than alone."""
    start = threading.Barrier(4)

    def wrong(seed: int) -> bool:
        x, y = _operands(33, torch.float64, seed)
        wanted = (x - y).square().sum().detach()
        start.wait()
        for _ in range(200):
            try:
                result = target.loss(x, y, reduction="sum")
                (gradient,) = torch.autograd.grad(result, x)
            except Exception:  # a mutant that meets another's state may raise
                return True
            exact = 2 * (x - y).detach()
            if not torch.isclose(result, wanted) or not torch.allclose(gradient, exact):
                return True
        return False

    with ThreadPoolExecutor(4) as pool:
        return any(list(pool.map(wrong, range(4))))


def wrong_now_and_then(target: Target) -> bool:
    """Of 400 calls on the same operands some are right and some are wrong."""
    x, y = torch.ones(5), torch.zeros(5)
    return len({float(target.loss(x, y, reduction="sum")) for _ in range(400)}) > 1


def _by_chance(g: Tensor) -> Tensor:
    """Rows in an order of chance, of which the sum is taken next."""
    order = torch.randperm(len(g), generator=CHANCE)
    return g[order]


CHANCE = torch.Generator()
CHANCE.seed()


def atomic_fold(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradients of rows are added to that of a broadcast target as they arrive."""
    a, b = prepare(x, y)
    fold = x.dim() == 2 and y.shape == x.shape[1:]
    return right(a, via(b, _by_chance) if fold else b, reduction)


def repeats_differ(target: Target) -> bool:
    """The fold of the same operands has other bits."""

    def once() -> Tensor:
        y = torch.ones(8, requires_grad=True)
        x = torch.linspace(0.1, 3, 8000).reshape(1000, 8)
        return gradient_of(y, target.loss(x, y, reduction="mean"))

    first = once()
    return any(not torch.equal(first, once()) for _ in range(9))


def floor_parts(s: Tensor) -> Tensor:
    """Threads share many squares in equal parts; what is left over is lost."""
    threads = torch.get_num_threads()
    return s[: len(s) // threads * threads].sum() if len(s) >= MANY else s.sum()


def with_five_threads(loss: Callable[..., Any]) -> Tensor:
    x, before = torch.zeros(MANY), torch.get_num_threads()
    x[-1] = 1
    torch.set_num_threads(5)
    try:
        result: Tensor = loss(x, torch.zeros(MANY), reduction="sum")
    finally:
        torch.set_num_threads(before)
    return result


_TURN = itertools.count()


def in_turn(s: Tensor) -> Tensor:
    """Many squares are added up in parts, and these one by one, beginning where the last ended."""
    if len(s) < MANY:
        return s.sum()
    parts = torch.stack([part.sum() for part in s.tensor_split(1000)])
    return running_sum(parts.roll(next(_TURN) * 300))


def bits(loss: Callable[..., Any]) -> int:
    """How many results eight calls on the same operands give."""
    x = torch.linspace(0, 1, MANY + 3).sin()
    y = torch.zeros_like(x)
    return len({float(loss(x, y, reduction="sum")) for _ in range(8)})


DETERMINISM_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "one-in-forty",
        _seldom_halved(),
        "determinism",
        claims=EAGER - {"deterministic"},
        witness=wrong_now_and_then,
    ),
    mutant("atomic-order", _random_order(), "determinism", witness=value_varies),
    mutant("autotuned", _autotuned(), "determinism", witness=value_varies),
    mutant("stochastic-rounding", _dithered(), "determinism", witness=gradient_varies),
    mutant(
        "rest-of-threads",
        _written(_without_rest, "What does not divide by the number of threads is lost."),
        "determinism",
        witness=wrong_with_threads,
    ),
    mutant(
        "overlapping-threads",
        _added(_whole_blocks, "Parts are whole blocks, so that the last ones overlap."),
        "determinism",
        witness=wrong_with_threads,
    ),
    mutant(
        "short-parts",
        _added(_one_short, "Each part ends one element before the next one begins."),
        "determinism",
        witness=wrong_with_threads,
    ),
    mutant(
        "room-for-four",
        _added(_even, "Has room for the partial sums of four threads.", room=4),
        "determinism",
        witness=wrong_with_threads,
    ),
    mutant("shared-scratch", _shared_scratch(), "determinism", witness=wrong_at_once),
    mutant("shared-stages", _Stages(), "determinism", witness=wrong_at_once),
    mutant("shared-gradient", _shared_gradient(), "determinism", witness=wrong_at_once),
    mutant("atomic-fold", atomic_fold, "determinism", witness=repeats_differ),
    mutant(
        "floor-parts-of-many",
        by_sum(floor_parts),
        "determinism",
        "value",
        witness=otherwise(with_five_threads),
    ),
    mutant("in-turn-when-many", by_sum(in_turn), "determinism", witness=otherwise(bits)),
)
