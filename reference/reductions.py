"""From the terms of a loss to the loss: none, sum and mean, over any kind of number."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

REDUCTIONS = ("none", "sum", "mean")
Shape = tuple[int, ...]
Span = tuple[int | None, int | None]  # some dimensions, as a slice of all


def reduced(terms: Any, reduction: str, axis: tuple[int, ...] | None = None) -> Any:
    """The loss of these ``terms``; of ``axis``, if the other dimensions count losses.

    Shape: that of the terms for ``none``, else 0-d. The mean of nothing is 0/0: undefined, so
    callers handle a mean of size 0 (NaN, clause ``value.empty``).
    """
    if reduction == "none":
        return terms
    n = math.prod(terms.shape if axis is None else (terms.shape[k] for k in axis))
    total = terms.sum(axis=axis)
    return total if reduction == "sum" else total / n


def divisor(shape: tuple[int, ...], reduction: str) -> int:
    """What a gradient over ``shape`` is divided by; 1 where there is nothing to divide."""
    return max(math.prod(shape), 1) if reduction == "mean" else 1


def steps(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The factors of n by which a mean in several steps divides, the last step's first.

    Over some dimensions and then over the rest, or over one dimension after the other. All are
    larger than 1; empty where no two dimensions are.
    """
    n = math.prod(shape)
    sizes = [size for size in shape if size > 1]
    chosen = (itertools.combinations(sizes, k) for k in range(1, len(sizes)))
    last = {math.prod(some) for some in itertools.chain.from_iterable(chosen)}
    one_by_one = [tuple(sizes), tuple(sizes[::-1])] if len(sizes) > 2 else []
    return [*((b, n // b) for b in sorted(last)), *one_by_one] if n else []


@dataclass(frozen=True)
class Form:
    """What sum and mean are taken over, and the shape of what comes out.

    ``over``: the dimensions that are added up; those that are left count losses. ``divisor``: the
    dimensions by whose sizes a mean divides, None for those that are added up. ``scalar``: the
    shape of one number. ``flat``: whether none gives one dimension.
    """

    over: Span = (0, None)
    divisor: Span | None = None
    scalar: Shape = ()
    flat: bool = False

    def summed(self, shape: Shape) -> Shape:
        """The dimensions of ``shape`` that are added up."""
        return tuple(range(len(shape)))[slice(*self.over)]

    def divided(self, shape: Shape) -> Shape:
        """The sizes by which a mean over ``shape`` divides."""
        return shape[slice(*(self.over if self.divisor is None else self.divisor))]

    def shape(self, shape: Shape, reduction: str) -> Shape:
        """That of the result, for operands that broadcast to ``shape``."""
        if reduction == "none":
            return (math.prod(shape),) if self.flat else shape
        axes = self.summed(shape)
        return tuple(n for k, n in enumerate(shape) if k not in axes) or self.scalar

    def reduced(self, terms: Any, reduction: str) -> Any:
        """As :func:`reduced`, which is this of everything."""
        if self == EVERYTHING:
            return reduced(terms, reduction)
        total = terms if reduction == "none" else terms.sum(axis=self.summed(terms.shape))
        if reduction == "mean":
            total = total / math.prod(self.divided(terms.shape))
        total = total if hasattr(total, "reshape") else np.asarray(total)
        return total.reshape(self.shape(terms.shape, reduction))

    def divide(self, v: Any, reduction: str) -> Any:
        """``v``, one factor for each term, divided as a mean does."""
        return v / divisor(self.divided(v.shape), reduction) if reduction == "mean" else v

    def spread(self, g: Any, shape: Shape, reduction: str) -> Any:
        """``g``, of the shape of the result, so that it is broadcast with the terms.

        What has another shape is already.
        """
        if self == EVERYTHING or np.shape(g) != self.shape(shape, reduction):
            return g
        if reduction == "none":
            return g.reshape(shape)
        axes = self.summed(shape)
        return g.reshape(tuple(1 if k in axes else n for k, n in enumerate(shape)))


EVERYTHING = Form()


def unbroadcast(v: Any, shape: tuple[int, ...]) -> Any:
    """``v`` summed over the dimensions along which ``shape`` was broadcast to ``v.shape``."""
    extra = len(v.shape) - len(shape)
    stretched = (k + extra for k, size in enumerate(shape) if size == 1 != v.shape[k + extra])
    axes = (*range(extra), *stretched)
    summed = v.sum(axis=axes) if axes else v
    return (summed if hasattr(summed, "reshape") else np.asarray(summed)).reshape(shape)
