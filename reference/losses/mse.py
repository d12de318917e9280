"""The mean squared error: ℓ(d) = d², ℓ′(d) = 2d, ℓ″(d) = 2."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any

from reference.losses.formula import Formula
from reference.losses.loss import Loss
from reference.orders import Mean
from reference.reductions import steps


def term(d: Any) -> Any:
    return d**2


def terms(d: Any) -> Iterator[Any]:
    yield term(d)


def slope(d: Any) -> Any:
    return 2 * d


def curvature(d: Any) -> Any:
    return 2 * (d * 0 + 1)


def slope_size(d: Any) -> Any:
    return 2 * abs(d)


def vjp_orders(d: Any, g: Any, mean: Mean | None) -> Iterator[Any]:
    """2·d·g, over n where there is a ``mean``."""
    if mean is None:
        yield (2 * d) * g
        yield (2 * g) * d
        yield 2 * (g * d)  # g·d + g·d: both operands of d·d are d
        return
    yield from _in_use(d, g, mean)
    for *outer, inner in steps(mean.shape):  # a mean of means
        part = Mean(mean.shape, inner, mean.ratio)
        yield from _in_use(d, functools.reduce(operator.truediv, outer, g), part)
    yield from _rare(d, g, mean.n)


def _in_use(d: Any, g: Any, mean: Mean) -> Iterator[Any]:
    """(2/n)·d·g in the six orders in use, the builtin's first."""
    n, two_over_n = mean.n, mean.ratio(2, mean.n)
    yield (two_over_n * d) * g  # torch's builtin
    yield (two_over_n * g) * d
    yield (g / n) * (2 * d)  # mean, then pow
    yield 2 * ((g / n) * d)  # mean, then d·d
    yield ((2 * d) * g) / n  # as textbooks write it
    yield ((2 * d) / n) * g


def _rare(d: Any, g: Any, n: Any) -> Iterator[Any]:
    """Of (2/n)·d·g, with underflows and overflows of their own."""
    yield 2 * ((d / n) * g)
    yield ((2 * g) / n) * d
    yield ((2 * g) * d) / n


FORMULA = Formula(
    term, slope, curvature, term_size=term, slope_size=slope_size, degree=2, weight="weights"
)
LOSS = Loss("mse", "mse_loss", "MSELoss", FORMULA, terms, vjp_orders, legacy=True)
