"""From the terms of a loss to the loss: none, sum and mean, over any kind of number."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

REDUCTIONS = ("none", "sum", "mean")


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


def unbroadcast(v: Any, shape: tuple[int, ...]) -> Any:
    """``v`` summed over the dimensions along which ``shape`` was broadcast to ``v.shape``."""
    extra = len(v.shape) - len(shape)
    stretched = (k + extra for k, size in enumerate(shape) if size == 1 != v.shape[k + extra])
    axes = (*range(extra), *stretched)
    summed = v.sum(axis=axes) if axes else v
    return (summed if hasattr(summed, "reshape") else np.asarray(summed)).reshape(shape)
