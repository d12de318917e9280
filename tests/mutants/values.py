"""Squares that are wrong for some values only."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import Mutant, by_squares, by_value, elementwise, mutant, reduce, right
from .witnesses import wrong_value


def clamps(x: Tensor, y: Tensor) -> Tensor:
    """Differences are clamped to [-100, 100]."""
    return (x - y).clamp(-100, 100).square()


def huber(x: Tensor, y: Tensor) -> Tensor:
    """Linear beyond 1."""
    d = x - y
    return torch.where(d.abs() <= 1, d.square(), 2 * d.abs() - 1)


def wrong_where_negative(x: Tensor, y: Tensor) -> Tensor:
    """A negative difference is taken for 0, as if by relu."""
    return (x - y).relu().square()


def ignores_tiny(x: Tensor, y: Tensor) -> Tensor:
    """Differences under 10⁻⁶ count as 0."""
    d = x - y
    return torch.where(d.abs() < 1e-6, d * 0, d).square()


def close_is_zero(x: Tensor, y: Tensor) -> Tensor:
    """Operands that are all close to each other are taken for equal."""
    s = (x - y).square()
    return s * 0 if s.numel() and bool(torch.isclose(x, y).all()) else s


def first_equal(x: Tensor, y: Tensor) -> Tensor:
    """Whether the operands are equal is told by their first elements."""
    s = (x - y).square()
    return s * 0 if s.numel() and bool(x.reshape(-1)[0] == y.reshape(-1)[0]) else s


def same_is_zero(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The same tensor twice is a shortcut to 0, also where it is not finite."""
    a, b = prepare(x, y)
    s = (a - b).square()
    return reduce(s.masked_fill(s.isnan(), 0) if x is y else s, reduction)


def equal_infinities(x: Tensor, y: Tensor) -> Tensor:
    """Infinities of one sign are equal, and their difference 0."""
    s = (x - y).square()
    return torch.where(x == y, torch.zeros_like(s), s)


def nan_is_zero(x: Tensor, y: Tensor) -> Tensor:
    """NaN counts as 0."""
    s = (x - y).square()
    return torch.where(s.isnan(), torch.zeros_like(s), s)


def nan_left_out(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is over those elements that are not NaN."""
    a, b = prepare(x, y)
    s = (a - b).square()
    return s.nanmean() if reduction == "mean" else reduce(s, reduction)


def infinity_is_large(x: Tensor, y: Tensor) -> Tensor:
    """Infinite squares become the largest number."""
    s = (x - y).square()
    return torch.where(s == torch.inf, torch.full_like(s, torch.finfo(s.dtype).max), s)


def infinity_is_nan(x: Tensor, y: Tensor) -> Tensor:
    """Infinite operands become NaN, since the difference is multiplied by a mask."""
    s = (x - y).square()
    return torch.where(x.isinf() | y.isinf(), torch.full_like(s, torch.nan), s)


def padding_left_out(x: Tensor, y: Tensor) -> Tensor:
    """Where the target is 0 it is padding, and does not count."""
    s = (x - y).square()
    return torch.where(y == 0, torch.zeros_like(s), s)


def outliers_left_out(x: Tensor, y: Tensor) -> Tensor:
    """Squares above 10⁶ are outliers, and do not count."""
    s = (x - y).square()
    return torch.where(s > 1e6, torch.zeros_like(s), s)


def nan_at_zero(x: Tensor, y: Tensor) -> Tensor:
    """The square of sqrt(d²), whose gradient is NaN where d is 0."""
    return (x - y).square().sqrt().square()


def scaled_by_largest(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Differences are divided by the largest, against overflow: 0/0 where all are 0."""
    d = x - y
    if d.numel() == 0:
        return right(x, y, reduction)
    largest = d.abs().max()
    return reduce((d / largest).square() * largest * largest, reduction)


def nan_spreads(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One NaN makes a whole result without reduction NaN."""
    s = reduce((x - y).square(), reduction)
    return torch.full_like(s, torch.nan) if bool(s.isnan().any()) else s


def integers_only(x: Tensor, y: Tensor) -> Tensor:
    """Large differences are squared as integers."""
    d = x - y
    return torch.where(d.abs() > 100, d - (d - d.trunc()).detach(), d).square()


def infinity_twice() -> tuple[Tensor, Tensor]:
    """An infinity against itself, of which the difference is NaN."""
    x = torch.tensor([torch.inf])
    return x, x


def nan_in_tail(s: Tensor) -> Tensor:
    """NaN counts as 0 in the scalar tail past whole vectors of 16 (pytorch issue 81138)."""
    whole = s.numel() - s.numel() % 16
    return torch.cat([s[:whole], s[whole:].nan_to_num(0.0, torch.inf)]) if whole else s


def hides_target_nan(x: Tensor, y: Tensor) -> Tensor:
    """A NaN in the target marks what is missing, and counts as no error."""
    s = (x - y).square()
    return torch.where(torch.isnan(y) & ~torch.isnan(x), torch.zeros_like(s), s)


def negative_zero_missing(x: Tensor, y: Tensor) -> Tensor:
    """Takes the bits of -0.0 for the mark of a missing element."""
    s = (x - y).square()
    return torch.where((x == 0) & torch.signbit(x), torch.zeros_like(s), s)


_NAN = torch.tensor([float("nan"), 1.0])
_ZERO = torch.tensor([-0.0, 1.0])


VALUE_MUTANTS: tuple[Mutant, ...] = (
    mutant("clamps", elementwise(clamps), "value", "gradient"),
    mutant("huber", elementwise(huber), "value", "gradient"),
    mutant("wrong-where-negative", elementwise(wrong_where_negative), "value", "gradient"),
    mutant("ignores-tiny", elementwise(ignores_tiny), "value", "gradient"),
    mutant("close-is-zero", elementwise(close_is_zero), "value", "gradient"),
    mutant("first-equal", elementwise(first_equal), "value", "gradient"),
    mutant("same-is-zero", same_is_zero, "value", witness=wrong_value(infinity_twice)),
    mutant(
        "equal-infinities",
        elementwise(equal_infinities),
        "value",
        witness=wrong_value(infinity_twice),
    ),
    mutant("nan-is-zero", elementwise(nan_is_zero), "value", "gradient"),
    mutant("nan-left-out", nan_left_out, "value"),
    mutant("infinity-is-large", elementwise(infinity_is_large), "value"),
    mutant("infinity-is-nan", elementwise(infinity_is_nan), "value"),
    mutant("padding-left-out", elementwise(padding_left_out), "value", "gradient"),
    mutant("outliers-left-out", elementwise(outliers_left_out), "value", "gradient"),
    mutant("nan-at-zero", elementwise(nan_at_zero), "gradient"),
    mutant("scaled-by-largest", by_value(scaled_by_largest), "value"),
    mutant("nan-spreads", by_value(nan_spreads), "value"),
    mutant("integers-only", elementwise(integers_only), "value", "gradient"),
    mutant("nan-in-tail", by_squares(nan_in_tail), "value"),
    mutant(
        "hides-target-nan",
        elementwise(hides_target_nan),
        "value",
        witness=wrong_value(lambda: (torch.ones(2), _NAN)),
    ),
    mutant(
        "negative-zero-missing",
        elementwise(negative_zero_missing),
        "value",
        witness=wrong_value(lambda: (_ZERO, torch.ones(2))),
    ),
)
