"""The absolute error: ℓ(d) = |d|, ℓ′(d) = sign(d), ℓ″(d) = 0; the slope at a tie is torch's, 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reference.losses.formula import Formula
from reference.losses.loss import Loss
from reference.orders import Mean, products
from reference.pieces import like, sign, where


def term(d: Any) -> Any:
    return abs(d)


def terms(d: Any) -> Iterator[Any]:
    yield term(d)


def slope(d: Any) -> Any:
    return sign(d)


def curvature(d: Any) -> Any:
    return d * 0


def slope_size(d: Any) -> Any:
    return abs(sign(d))


def vjp_orders(d: Any, g: Any, mean: Mean | None) -> Iterator[Any]:
    """sign(d)·g, over n where there is a ``mean``: the sign is exact, so g/n is all that rounds.

    Where a tie is left out rather than multiplied with its slope, as a mask does, 0·∞ is 0.
    """
    first, *others = products(g, sign(d), mean)
    yield first
    yield where(abs(d) <= like(d, 0.0), d, first)
    yield from others


def kinks() -> tuple[float, ...]:
    return (0.0,)


FORMULA = Formula(term, slope, curvature, term, slope_size, kinks, degree=1, weight="weights")
LOSS = Loss(
    "l1",
    "l1_loss",
    "L1Loss",
    FORMULA,
    terms,
    vjp_orders,
    should=frozenset({"dtypes.unsupported"}),
    legacy=True,
)
