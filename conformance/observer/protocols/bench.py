"""What every experiment works with: operands, calls, and the comparison with the reference.

The script of a broken clause holds a copy of its experiment, of this file's :class:`Bench` and of
whatever else they refer to (see ``bundle.py``): the less that is, the easier it is to read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from conformance.cases.plans import derive
from conformance.clauses import BY_ID, WIDER
from conformance.judging.checks import number
from conformance.observer.observation import text_of
from conformance.observer.state import Settings
from conformance.observer.tensors import to_numpy
from reference import mse
from reference.bounds import slack
from reference.formats import Floats

if TYPE_CHECKING:
    from targets import Target

T = TypeVar("T")
Messages = Iterator[str]
Shape = tuple[int, ...]
LARGE = 2**18 + 3  # elements: from so many on some take another path, or share work out
DRIFTING = 2**20 + 3  # one awkward number so many times in one running sum: see SPEC, rule 4
_EIGHTHS = np.array([sign * n / 8 for sign in (-1, 1) for n in range(1, 33)])
_POWERS = np.array([sign * 2.0**exponent for exponent in range(-2, 3) for sign in (-1, 1)])


class Unavailable(Exception):
    """An experiment that cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Bench:
    """One target, one dtype, one device, one seed."""

    target: Target
    dtype: str
    device: str
    seed: int

    @property
    def reductions(self) -> tuple[str, ...]:
        return self.target.reductions

    def claims(self, *names: str) -> bool:
        return self.target.claims.issuperset(names)

    def tensor(self, shape: Shape, index: int, dtype: str | None = None) -> torch.Tensor:
        """The ``index``-th random tensor of this experiment: magnitudes from 1/4 to 8."""
        bits = self.bits(shape, "tensor", index)
        # The lowest bits give the sign and the exponent, the highest the significand.
        values = (1 + (bits >> 11) * 2.0**-53) * _POWERS[bits % 10]
        return torch.tensor(values, device=self.device).to(getattr(torch, dtype or self.dtype))

    def bits(self, shape: Shape, *place: object) -> Any:
        """Random numbers of 64 bits, in an array."""
        generator = np.random.PCG64(derive(self.seed, *place))
        return np.asarray(generator.random_raw(math.prod(shape))).reshape(shape)

    def made(self, values: Floats, *, needs: bool = False) -> torch.Tensor:
        """A tensor with these values, which the dtype holds; a leaf if it needs a gradient."""
        dtype = getattr(torch, self.dtype)
        return torch.tensor(values, dtype=dtype, device=self.device).requires_grad_(needs)

    def loss(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Any:
        return self.target.loss(x, y, reduction=reduction)


EXPERIMENTS: dict[str, Callable[[Bench], Messages]] = {}


def experiment(
    clause: str,
) -> Callable[[Callable[[Bench], Messages]], Callable[[Bench], Messages]]:
    """Register a function as the experiment of ``clause``."""
    assert clause in BY_ID, clause

    def add(function: Callable[[Bench], Messages]) -> Callable[[Bench], Messages]:
        assert clause not in EXPERIMENTS, clause
        EXPERIMENTS[clause] = function
        return function

    return add


def run_experiment(clause: str, bench: Bench) -> tuple[list[str], str | None]:
    """The first deviation that the experiment of ``clause`` meets, and what it raised, as text.

    Raises Unavailable where it cannot run here.
    """
    settings = Settings.now()
    try:
        return list(itertools.islice(EXPERIMENTS[clause](bench), 1)), None
    except (KeyboardInterrupt, Unavailable):
        raise
    except BaseException as error:
        return [], text_of(error)
    finally:
        settings.changes()


def deviation(
    bench: Bench, what: str, got: Any, value: Floats, magnitude: Floats, terms: int = 1
) -> Messages:
    """A message where ``got`` is no tensor within :func:`reference.bounds.slack` of ``value``.

    ``value`` and ``magnitude``: arrays of the shape that ``got`` must have.
    """
    dtype, shape = getattr(torch, bench.dtype), np.shape(value)
    if not isinstance(got, torch.Tensor):
        yield f"{what} is {brief(got)}, not a tensor"
    elif got.dtype != dtype or got.shape != shape:
        yield f"{what} is {brief(got)}, not {bench.dtype}{list(shape)}"
    else:
        u = torch.finfo(dtype).eps / 2
        wide = slack(u, min(u, 2.0**-24), smallest(dtype), magnitude, terms)
        low, high, seen = value - wide, value + wide, to_numpy(got)
        wrong = np.argwhere(~((low <= seen) & (seen <= high)))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            place = f"[{', '.join(map(str, at))}]" if at else ""
            yield (
                f"{what}{place} is {number(float(seen[at]))}, "
                f"permitted: {number(float(low[at]))} to {number(float(high[at]))}"
            )


def deviation_of_loss(
    bench: Bench, what: str, got: Any, x: torch.Tensor, y: torch.Tensor, reduction: str
) -> Messages:
    """A message where ``got`` is not the loss of ``x`` and ``y``, of one shape."""
    exact = np.asarray(mse.loss(to_numpy(x), to_numpy(y), reduction))
    yield from deviation(bench, what, got, exact, exact, x.numel())


def deviation_of_both(
    bench: Bench,
    where: str,
    result: Any,
    gradient: Any,
    x: Floats,
    y: Floats,
    reduction: str,
) -> Messages:
    """A message where these are not the loss of ``x`` and ``y``, of one shape, and its gradient.

    By input, with a ``grad_output`` of 1.
    """
    exact = np.asarray(mse.loss(x, y, reduction))
    yield from deviation(bench, f"{where} the result ({reduction})", result, exact, exact, x.size)
    slope = 2 * (x - y) / (x.size if reduction == "mean" else 1)
    yield from deviation(bench, f"{where} the gradient ({reduction})", gradient, slope, abs(slope))


def two_dtypes(bench: Bench) -> list[tuple[str, str]]:
    """This dtype after a narrower one, and before it; none where such pairs are not claimed."""
    narrow = next((d for d in ("bfloat16", "float16") if d in bench.target.dtypes), None)
    if not narrow or bench.dtype not in WIDER or not bench.claims("mixed_dtype"):
        return []
    return [(narrow, bench.dtype), (bench.dtype, narrow)]


def narrower(bench: Bench, kinds: tuple[str, str]) -> Bench:
    """For what two dtypes give in the accuracy of the one that this dtype is wider than."""
    return replace(bench, dtype=next(kind for kind in kinds if kind != bench.dtype))


def shared_out(bench: Bench, every: Iterable[T]) -> Iterator[tuple[T, str]]:
    """Each of ``every`` with each reduction, this dtype's part of what is slow: the dtypes of the
    target take turns, and no dtype meets one reduction alone.
    """
    dtypes = bench.target.dtypes
    turns = math.lcm(len(dtypes), len(bench.reductions))
    for k, pair in enumerate(itertools.product(every, bench.reductions)):
        if dtypes[(k + k // turns) % len(dtypes)] == bench.dtype:
            yield pair


def eighths(bench: Bench, shape: Shape, index: int) -> Floats:
    """Random multiples of 1/8 in ±4, which every dtype holds; none is 0.

    Their differences are exact or 0, and no product of a few of them under- or overflows.
    """
    return np.asarray(_EIGHTHS[bench.bits(shape, "eighths", index) & 63])


def gradients(result: torch.Tensor, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The gradient of the sum of ``result`` for each operand that needs one."""
    needing = [t for t in operands if t.requires_grad]
    return torch.autograd.grad(result, needing, torch.ones_like(result))


def close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype | None = None) -> bool:
    """Equal but for a few roundings, to ``dtype`` or their own, by which two calls may differ.

    Only a target that claims ``deterministic`` must give the same bits (``determinism.repeat``).
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if torch.equal(a, b):  # as nearly always, and in a tenth of the time
        return True
    rounded = dtype or a.dtype
    few, least = 16 * torch.finfo(rounded).eps, smallest(rounded)
    return torch.allclose(a.double(), b.double(), rtol=few, atol=least, equal_nan=True)


def smallest(dtype: torch.dtype) -> float:
    """η, the smallest subnormal number: below the normal ones a rounding is off by up to half."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal dtype, shape and elements; NaN equals NaN, and the sign of zero is free."""
    return a.dtype == b.dtype and torch.equal(a.detach().nan_to_num(7), b.detach().nan_to_num(7))


def brief(value: Any) -> str:
    """A value in a few words, for messages."""
    if not isinstance(value, torch.Tensor):
        return str(value) if not callable(value) else getattr(value, "__qualname__", repr(value))
    kind = str(value.dtype).removeprefix("torch.")
    if value.numel() == 1 and not value.is_complex() and value.device.type != "meta":
        return f"{kind} {number(float(value))}"
    return f"{kind}{list(value.shape)}"
