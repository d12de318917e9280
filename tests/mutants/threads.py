"""Wrong by the number of threads, or where several of them call it."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import (
    Loss,
    Mutant,
    Pair,
    by_gradients,
    by_sum,
    by_value,
    mutant,
    reduce,
    right,
    right_gradients,
    widened,
    with_value,
)
from .parts import MANY, head, via, without
from .probes import gradient_of, otherwise, ramp_leaf, unlike_builtin
from .transformed import mappable_squares_by, plainly


def borrows_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Works in the memory of input and puts it back bit by bit, behind the version counter."""
    honest = right(x, y, reduction)
    if x.shape != y.shape or x.dtype != y.dtype or not x.is_contiguous() or x.is_set_to(y):
        return honest
    kept = x.data.clone()
    x.data.sub_(y.data)
    time.sleep(1e-4)  # as long as a kernel takes
    value = reduce(x.data.square(), reduction)
    x.data.copy_(kept)
    return with_value(honest, value)


def shares_buffer_when_large(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Above 1,000 elements the squares go to a buffer that all threads share."""
    s = (x - y).square()
    if reduction == "none" or not 1000 < s.numel() <= _BUFFER.numel():
        return reduce(s, reduction)
    buffer = _BUFFER[: s.numel()]
    buffer.copy_(s.reshape(-1))
    time.sleep(1e-4)
    return reduce(buffer.to(widened(s.dtype)), reduction).to(s.dtype)


_BUFFER = torch.zeros(10_000, dtype=torch.float64)


def disturbed(target: Target) -> bool:
    """Calls of two threads at once, on one input and other targets, are not what each is alone."""
    x = torch.ones(2000)
    start = threading.Barrier(2)

    def wrong(k: int) -> int:
        y = torch.full((2000,), float(k))
        start.wait()
        return sum(float(target.loss(x, y, reduction="mean")) != (1 - k) ** 2 for _ in range(30))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return any(pool.map(wrong, (3, 5)))


class _ByThread(torch.autograd.Function):
    """Keeps what the backward needs for the thread that runs; in another, it is 0."""

    saved = threading.local()

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.place = str(id(ctx))
        setattr(_ByThread.saved, ctx.place, 2 * (x - y))
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        gradient = g * getattr(_ByThread.saved, ctx.place, 0)
        return gradient, -gradient


def backward_elsewhere(target: Target) -> bool:
    """A backward in another thread gives another gradient."""
    x = torch.ones(3, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="sum")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        (gradient,) = pool.submit(torch.autograd.grad, loss, x).result()
    return not bool((gradient == 2).all())


def of_threads(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """Each thread has its share of the gradient; what is left over belongs to none."""
    threads = torch.get_num_threads()
    shared = x.numel() // threads * threads if x.numel() >= 32_768 else x.numel()
    first, second = right_gradients(x, y, g, scale)
    return head(first, shared), head(second, shared)


def _shared() -> Loss:
    buffers: dict[Any, Tensor] = {}

    def through(g: Tensor) -> Tensor:
        buffer = buffers.setdefault((g.shape, g.dtype), torch.empty_like(g))
        buffer.copy_(g)
        time.sleep(1e-5)  # where a kernel would run, without the interpreter's lock
        return buffer.clone()

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """The target's gradient goes through one buffer for all threads."""
        a, b = prepare(x, y)
        return right(a, via(b, through) if b.requires_grad else b, reduction)

    return loss


def with_four_threads(loss: Any) -> Tensor:
    torch.set_num_threads(4)
    x = ramp_leaf(40_009)
    return gradient_of(x, loss(x, torch.zeros(40_009), reduction="sum"))


def from_threads(target: Target) -> bool:
    """Threads get gradients of each other's target."""

    def wrong(k: int) -> int:
        y = torch.full((50,), float(k + 1), requires_grad=True)
        found = (
            gradient_of(y, target.loss(torch.zeros(50), y, reduction="sum")) for _ in range(50)
        )
        return sum(not torch.equal(g, 2 * y.detach()) for g in found)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(wrong, range(4))) > 0


def rows_per_thread(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Each thread has as many rows of a matrix; those left over belong to none."""
    threads = torch.get_num_threads()
    kept = torch.ones(x.shape)
    if x.dim() == 2 and threads > 1 and len(x) > threads:
        kept[len(x) // threads * threads :] = 0
    return without(kept, x, y, reduction)


def left_over_row(loss: Callable[..., Any]) -> Tensor:
    torch.set_num_threads(2)
    result: Tensor = loss(torch.ones(3, 2), torch.zeros(3, 2), reduction="sum")
    torch.set_num_threads(1)
    return result


THREADS = 16  # that an array of partial sums has room for


def array_for_threads(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Adds up the parts of as many threads as an array has room for."""
    s = (x - y).square()
    if reduction == "none" or s.numel() < 2**15:
        return reduce(s, reduction)
    parts = s.reshape(-1).chunk(torch.get_num_threads())[:THREADS]
    total = torch.stack([part.sum(dtype=torch.float64) for part in parts]).sum()
    return (total / s.numel() if reduction == "mean" else total).to(s.dtype)


def with_many_threads(loss: Callable[..., Any]) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(2 * THREADS)
    try:
        result: Tensor = loss(torch.ones(40_000), torch.zeros(40_000))
        return result
    finally:
        torch.set_num_threads(before)


_PACKED: dict[tuple[int, torch.dtype, int], Tensor] = {}


def packed(t: Tensor, place: int) -> Tensor:
    """A contiguous copy in a buffer that is kept."""
    buffer = _PACKED.setdefault((place, t.dtype, t.numel()), t.new_empty(t.numel()))
    return buffer.view(t.shape).copy_(t)


def packs_strided(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Operands that are not contiguous are packed in buffers which all threads share."""
    if not plainly(x, y) or 0 in (*x.stride(), *y.stride()):
        return right(x, y, reduction)
    a, b = (t if t.is_contiguous() else packed(t, k) for k, t in enumerate((x, y)))
    return reduce((a - b).square(), reduction)


def two_threads(loss: Callable[..., Any]) -> bool:
    """Whether each of two threads that call on transposed ones, of 1 and of 2, gets its own."""
    from concurrent.futures import ThreadPoolExecutor

    def all_right(v: float) -> bool:
        x = torch.full((300, 400), v).t()
        return all(float(loss(x, torch.zeros(400, 300))) == v * v for _ in range(300))

    with ThreadPoolExecutor(2) as threads:
        return all(threads.map(all_right, (1.0, 2.0)))


_PARTS: dict[torch.dtype, Tensor] = {}


def shared_parts(s: Tensor) -> Tensor:
    """The partial sums of many squares are in a buffer which all threads share."""
    if len(s) < MANY or not plainly(s):
        return s.sum()
    buffer = _PARTS.setdefault(s.dtype, s.new_empty(64))
    for k, part in enumerate(s.tensor_split(64)):
        buffer[k] = part.sum()
    return buffer.sum()


def of_two_threads(loss: Callable[..., Any]) -> bool:
    """Whether each of two threads, with operands of 1 and of 2, gets its own."""

    def all_right(v: float) -> bool:
        x, y = torch.full((MANY,), v), torch.zeros(MANY)
        return all(float(loss(x, y)) == v * v for _ in range(50))

    with ThreadPoolExecutor(2) as threads:
        return all(threads.map(all_right, (1.0, 2.0)))


THREAD_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "kept-by-thread", mappable_squares_by(_ByThread), "determinism", witness=backward_elsewhere
    ),
    mutant("borrows-input", borrows_input, "determinism", witness=disturbed),
    mutant(
        "shares-buffer-when-large",
        by_value(shares_buffer_when_large),
        "determinism",
        witness=disturbed,
    ),
    mutant(
        "gradient-of-threads",
        by_gradients(of_threads),
        "determinism",
        witness=unlike_builtin(with_four_threads),
    ),
    mutant("shared-target-gradient", _shared(), "determinism", witness=from_threads),
    mutant(
        "rows-per-thread",
        by_value(rows_per_thread),
        "determinism",
        witness=otherwise(left_over_row),
    ),
    mutant(
        "array-for-threads",
        by_value(array_for_threads),
        "determinism",
        witness=otherwise(with_many_threads),
    ),
    mutant("packs-strided", by_value(packs_strided), "determinism", witness=otherwise(two_threads)),
    mutant("shared-parts", by_sum(shared_parts), "determinism", witness=otherwise(of_two_threads)),
)
