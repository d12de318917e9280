"""Squares that are wrong for some values only."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import Mutant, elementwise, mutant, reduce, right, with_value


def flushes_subnormals(x: Tensor, y: Tensor) -> Tensor:
    """A subnormal difference counts as 0."""
    d = x - y
    return torch.where(d.abs() < torch.finfo(d.dtype).tiny, d * 0, d).square()


def clamps(x: Tensor, y: Tensor) -> Tensor:
    """Differences are clamped to [-100, 100]."""
    return (x - y).clamp(-100, 100).square()


def adds_epsilon(x: Tensor, y: Tensor) -> Tensor:
    """An epsilon is added to each square."""
    return (x - y).square() + 1e-8


def root_and_back(x: Tensor, y: Tensor) -> Tensor:
    """The square of sqrt(d² + eps)."""
    return ((x - y).square() + 1e-12).sqrt().square()


def wrong_where_negative(x: Tensor, y: Tensor) -> Tensor:
    """A negative difference is taken for 0, as if by relu."""
    return (x - y).relu().square()


def huber(x: Tensor, y: Tensor) -> Tensor:
    """Linear beyond 1."""
    d = x - y
    return torch.where(d.abs() <= 1, d.square(), 2 * d.abs() - 1)


def ignores_tiny(x: Tensor, y: Tensor) -> Tensor:
    """Differences under 1e-6 count as 0."""
    d = x - y
    return torch.where(d.abs() < 1e-6, d * 0, d).square()


def inexact(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The value is off by one part in 10,000; the gradient is right."""
    honest = right(x, y, reduction)
    return with_value(honest, honest.detach() * 1.0001)


def narrow_inside(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float64 operands are computed in float32."""
    a, b = prepare(x, y)
    if a.dtype != torch.float64:
        return reduce((a - b).square(), reduction)
    return reduce((a.float() - b.float()).square(), reduction).double()


def infinity_is_large(x: Tensor, y: Tensor) -> Tensor:
    """Infinite squares become the largest number."""
    s = (x - y).square()
    return torch.where(s == torch.inf, torch.full_like(s, torch.finfo(s.dtype).max), s)


def nan_is_zero(x: Tensor, y: Tensor) -> Tensor:
    """NaN counts as 0."""
    s = (x - y).square()
    return torch.where(s.isnan(), torch.zeros_like(s), s)


NUMERIC_MUTANTS: tuple[Mutant, ...] = (
    # Its square underflows in every format: only the gradient shows it.
    mutant("flushes-subnormals", elementwise(flushes_subnormals), "gradient"),
    mutant("clamps", elementwise(clamps), "value", "gradient"),
    mutant("adds-epsilon", elementwise(adds_epsilon), "value"),
    mutant("root-and-back", elementwise(root_and_back), "value", "gradient"),
    mutant("wrong-where-negative", elementwise(wrong_where_negative), "value", "gradient"),
    mutant("huber", elementwise(huber), "value", "gradient"),
    mutant("ignores-tiny", elementwise(ignores_tiny), "value", "gradient"),
    mutant("inexact", inexact, "value", dtypes=("float64", "float32")),
    mutant("narrow-inside", narrow_inside, "value", "gradient", dtypes=("float64",)),
    mutant("infinity-is-large", elementwise(infinity_is_large), "value"),
    mutant("nan-is-zero", elementwise(nan_is_zero), "value"),
)
