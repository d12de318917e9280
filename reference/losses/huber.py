"""Huber's loss: ℓ(d) = d²/2 where |d| ≤ δ, else δ·(|d| − δ/2); δ times smooth_l1 with β = δ.

ℓ′(d) is d and δ·sign(d), which meet in |d| = δ; ℓ″(d) is 1 and 0, either in |d| = δ. For δ = ∞ it
is half of mse.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from reference.losses.formula import Formula
from reference.losses.loss import Loss, Parameter
from reference.orders import Mean, halves, products
from reference.pieces import like, paired, sign, untaken, where

DELTA = Parameter(
    "delta", 1.0, tried=(0.5, 3.0, 0.1, 2.0**-8, 100.0, math.inf), refused=(0.0, -1.0, math.nan)
)


def term(d: Any, delta: float) -> Any:
    if math.isinf(delta):
        return d**2 / 2
    size, limit = abs(d), like(d, delta)
    return where(size <= limit, d**2 / 2, limit * (size - limit / 2))


def terms(d: Any, delta: float) -> Iterator[Any]:
    """Of each piece the orders in use; those of δ·smooth_l1 and of clamp(|d|, δ) among them."""
    size = abs(d)
    squared = d**2 / 2, (size / 2) * size
    if math.isinf(delta):
        yield from squared
        return
    limit = like(d, delta)
    inside = (*squared, d**2 / 2 / limit * limit)
    outside = (
        limit * (size - limit / 2),
        limit * size - limit * limit / 2,
        limit * limit / 2 + limit * (size - limit),
    )
    for one, other in paired(inside, outside):
        yield where(size <= limit, one, other)


def slope(d: Any, delta: float) -> Any:
    if math.isinf(delta):
        return d * 1
    limit = like(d, delta)
    return where(abs(d) <= limit, d, sign(d) * limit)


def curvature(d: Any, delta: float) -> Any:
    return where(abs(d) <= delta, 1.0, 0.0)


def term_size(d: Any, delta: float) -> Any:
    if math.isinf(delta):
        return d**2 / 2
    limit = like(d, delta)
    return where(abs(d) <= limit, d**2 / 2, limit * (abs(d) + limit / 2))


def slope_size(d: Any, delta: float) -> Any:
    return abs(slope(d, delta))


def vjp_orders(d: Any, g: Any, mean: Mean | None, delta: float) -> Iterator[Any]:
    """d·g and δ·sign(d)·g, over n where there is a ``mean``."""
    if math.isinf(delta):
        yield from itertools.chain(products(d, g, mean), halves(d, g, mean))
        return
    limit = like(d, delta)
    of_smooth = products(d, g, mean, (lambda v: v / limit * limit,))
    inside = itertools.chain(products(d, g, mean), halves(d, g, mean), of_smooth)
    outside = products(sign(d), g, mean, (lambda v: v * limit,))
    for one, other in paired(inside, outside):
        yield untaken(where(abs(d) <= limit, one, other), d)


def kinks(delta: float) -> tuple[float, ...]:
    return () if math.isinf(delta) else (delta,)


FORMULA = Formula(
    term, slope, curvature, term_size, slope_size, kinks, (DELTA.default,), weight="elements"
)
LOSS = Loss(
    "huber",
    "huber_loss",
    "HuberLoss",
    FORMULA,
    terms,
    vjp_orders,
    (DELTA,),
    unclaimed=frozenset({"mixed_dtype"}),
)
