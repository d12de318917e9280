"""What every experiment works with: operands, calls, and the comparison with the reference."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conformance.case import Case, Fill, Operand
from conformance.checks import number
from conformance.clauses import BY_ID
from conformance.observation import call, text_of
from conformance.oracle import permitted_value, result_dtypes
from conformance.plans import derive
from conformance.state import Settings
from conformance.tensors import DTYPE_NAMES, DTYPES, make, to_numpy
from conformance.values import FORMAT_OF
from reference.bounds import counted
from reference.enclosure import PermittedSet
from reference.formats import Floats
from targets import Target

Messages = Iterator[str]
Shape = tuple[int, ...]


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
        """The ``index``-th random tensor of this experiment."""
        fill = Fill("ordinary", derive(self.seed, "experiment", index))
        return make(Operand(shape, dtype or self.dtype, fill=fill), self.device).tensor

    def eighths(self, shape: Shape, index: int) -> Floats:
        """Random multiples of 1/8 in ±4, which every dtype holds; none is 0.

        Their differences are exact or 0, and no product of a few of them under- or overflows.
        """
        random = np.random.Generator(np.random.PCG64(derive(self.seed, "eighths", index)))
        size = random.integers(1, 33, shape) * random.choice([-1, 1], shape)
        return np.asarray(size / 8, dtype=np.float64)

    def made(self, values: Floats, *, needs: bool = False) -> torch.Tensor:
        """A tensor with these values, which the dtype holds; a leaf if it needs a gradient."""
        made = torch.tensor(values, dtype=DTYPES[self.dtype], device=self.device)
        return made.requires_grad_(needs)

    def loss(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Any:
        return call(self.target, x, y, reduction)

    def deviation(
        self, what: str, got: Any, value: Floats, magnitude: Floats, terms: int = 1
    ) -> Messages:
        """A message where ``got`` is not the tensor that :func:`reference.bounds.counted` permits.

        ``value`` and ``magnitude``: arrays of the shape that ``got`` must have.
        """
        if not isinstance(got, torch.Tensor):
            yield f"{what} is {brief(got)}, not a tensor"
        elif got.dtype != DTYPES[self.dtype] or got.shape != np.shape(value):
            yield f"{what} is {brief(got)}, not {self.dtype}{list(np.shape(value))}"
        else:
            permitted = counted(
                FORMAT_OF[self.dtype], np.asarray(value), np.asarray(magnitude), terms
            )
            wrong = np.argwhere(~permitted.contains(to_numpy(got)))
            if len(wrong):
                at = tuple(int(i) for i in wrong[0])
                place = f"[{', '.join(map(str, at))}]" if at else ""
                low, high = float(permitted.lower[at]), float(permitted.upper[at])
                yield (
                    f"{what}{place} is {number(float(to_numpy(got)[at]))}, "
                    f"permitted: {number(low)} to {number(high)}"
                )


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


def is_permitted(case: Case, result: Any) -> bool:
    """Whether ``result`` is a tensor that the reference permits as the value of ``case``."""
    if not isinstance(result, torch.Tensor):
        return False
    if DTYPE_NAMES.get(result.dtype) not in result_dtypes(case):
        return False
    values = to_numpy(result)
    shape = case.shape if case.reduction == "none" else ()
    if values.shape != shape:
        return False
    return bool(_permitted(case, DTYPE_NAMES[result.dtype]).contains(values).all())


@functools.lru_cache(maxsize=8)
def _permitted(case: Case, dtype: str) -> PermittedSet:
    return permitted_value(case, dtype)  # the same case is called again and again


def gradients(result: torch.Tensor, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The gradient of the sum of ``result`` for each operand that needs one."""
    needing = [t for t in operands if t.requires_grad]
    return torch.autograd.grad(result, needing, torch.ones_like(result))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for a few roundings, by which two calls of one target may differ.

    Only a target that claims ``deterministic`` must give the same bits (``determinism.repeat``).
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    few = 16 * torch.finfo(a.dtype).eps
    return torch.allclose(a.double(), b.double(), rtol=few, atol=0.0, equal_nan=True)


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
