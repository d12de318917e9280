"""The smooth absolute error: ℓ(d) = d²/(2β) where |d| < β, else |d| − β/2.

ℓ′(d) is d/β and sign(d), which meet in |d| = β; ℓ″(d) is 1/β and 0, either in |d| = β. Where β = 0
it is l1, for β = ∞ it is 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from reference.losses import l1
from reference.losses.formula import Formula
from reference.losses.loss import Loss, Parameter
from reference.orders import Mean, halves, products
from reference.pieces import like, paired, sign, untaken, where

BETA = Parameter(
    "beta", 1.0, tried=(0.5, 3.0, 0.1, 2.0**-8, 100.0, 0.0, math.inf), refused=(-1.0, math.nan)
)


def term(d: Any, beta: float) -> Any:
    if beta == 0:
        return abs(d)
    if math.isinf(beta):
        return d * d * like(d, 0.0)
    size, b = abs(d), like(d, beta)
    return where(size <= b, d**2 / (2 * b), size - b / 2)


def terms(d: Any, beta: float) -> Iterator[Any]:
    """Of each piece the orders in use; those of huber / β and of clamp(|d|, β) among them."""
    if beta == 0 or math.isinf(beta):
        yield term(d, beta)
        return
    size, b = abs(d), like(d, beta)
    half, linear = like(d, 0.5), size - b / 2
    inside = (d**2 / 2 / b, d**2 / b / 2, (size / 2) * (size / b), d**2 * (half / b))
    outside = (linear, b * linear / b, b * b / 2 / b + (size - b))
    for one, other in paired(inside, outside):
        yield where(size <= b, one, other)


def slope(d: Any, beta: float) -> Any:
    if beta == 0:
        return sign(d)
    if math.isinf(beta):
        return d * like(d, 0.0)
    b = like(d, beta)
    return where(abs(d) <= b, d / b, sign(d))


def curvature(d: Any, beta: float) -> Any:
    if beta == 0 or math.isinf(beta):
        return d * 0
    b = like(d, beta)
    return where(abs(d) <= b, 1 / b, 0.0)


def term_size(d: Any, beta: float) -> Any:
    if beta == 0 or math.isinf(beta):
        return term(d, beta)
    b = like(d, beta)
    return where(abs(d) <= b, d**2 / (2 * b), abs(d) + b / 2)


def slope_size(d: Any, beta: float) -> Any:
    return abs(slope(d, beta))


def vjp_orders(d: Any, g: Any, mean: Mean | None, beta: float) -> Iterator[Any]:
    """d·g/β and sign(d)·g, over n where there is a ``mean``."""
    if beta == 0:
        yield from l1.vjp_orders(d, g, mean)
        return
    if math.isinf(beta):
        yield (d * like(d, 0.0)) * g
        return
    b = like(d, beta)
    inverse = like(d, 1.0) / b
    over = (lambda v: v / b, lambda v: v * inverse)
    inside = itertools.chain(products(d, g, mean, over), halves(d, g, mean, over))
    plain, of_huber = (products(g, sign(d), mean, how) for how in ((), (lambda v: v / b * b,)))
    for one, other in paired(inside, itertools.chain(plain, of_huber)):
        yield untaken(where(abs(d) <= b, one, other), d)


def kinks(beta: float) -> tuple[float, ...]:
    return (beta,)


FORMULA = Formula(term, slope, curvature, term_size, slope_size, kinks, (BETA.default,))
LOSS = Loss(
    "smooth_l1",
    "smooth_l1_loss",
    "SmoothL1Loss",
    FORMULA,
    terms,
    vjp_orders,
    (BETA,),
    legacy=True,
)
