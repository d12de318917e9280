"""What a formula in pieces takes, over any kind of number (see :mod:`reference.losses.formula`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from reference.enclosure import NAN, NEG_INF, POS_INF, VOID, Enclosure, Guard, constant


def like(d: Any, value: float) -> Any:
    """A parameter as the kind of number that ``d`` holds."""
    if isinstance(d, Enclosure):
        return constant(d.fmt, value, d.exact)
    return Fraction(value) if np.asarray(d).dtype.hasobject else value


def where(condition: Any, inside: Any, outside: Any) -> Any:
    """``inside`` where the condition holds; the hull of both where it can be either."""
    if not isinstance(condition, Guard):
        return np.where(condition, inside, outside)
    shape = condition.possible.shape
    one, other = inside.broadcast_to(shape), outside.broadcast_to(shape)
    both = one.hull(other)
    ends = np.where(condition.certain, one.ends, both.ends)
    ends = np.where(condition.possible, ends, other.ends)
    if one.flags is None and other.flags is None:
        return Enclosure(one.fmt, ends)
    first, second, either = (
        np.zeros(shape, np.uint8) if e.flags is None else e.flags for e in (one, other, both)
    )
    flags = np.where(condition.certain, first, either)
    return Enclosure(one.fmt, ends, np.where(condition.possible, flags, second).astype(np.uint8))


def untaken(v: Any, d: Any) -> Any:
    """A slope ``v`` in pieces, or NaN where 2·``d`` may be infinite.

    Autograd multiplies the piece that is not taken with 0, and 0·∞ is NaN.
    """
    if not isinstance(v, Enclosure) or (flags := (2 * d).flags) is None:
        return v
    infinite = np.broadcast_to(flags & (POS_INF | NEG_INF) != 0, v.shape)
    old = np.zeros(v.shape, np.uint8) if v.flags is None else v.flags
    return Enclosure(v.fmt, v.ends, np.where(infinite, old | NAN, old).astype(np.uint8))


def sign(d: Any) -> Any:
    """−1, 0 or 1, of which 0 at 0 alone; of NaN either NaN or 0: torch's kernels differ."""
    if not isinstance(d, Enclosure):
        array = np.asarray(d)
        if array.dtype.hasobject:
            unit: Any = Fraction(1)
            return (array > 0) * unit - (array < 0) * unit
        return np.sign(array)
    one: Any = Fraction(1) if d.exact else 1.0
    ends = (d.ends > 0) * one - (d.ends < 0) * one
    if d.flags is None:
        return Enclosure(d.fmt, ends)
    void = d.flags & VOID != 0
    up, down = d.flags & POS_INF != 0, d.flags & NEG_INF != 0
    infinite = np.stack([np.where(down, 1, -1), np.where(up, 1, -1)])  # what infinities have
    either = np.maximum(ends, np.where(up | down, infinite, ends))
    ends = np.where(void & (up | down), infinite, either)
    nan = d.flags & NAN != 0
    ends = np.where(nan, np.where(void & ~(up | down), 0 * one, np.maximum(ends, 0 * one)), ends)
    return Enclosure(d.fmt, ends, (d.flags & NAN).astype(np.uint8))


def paired(inside: Iterable[Any], outside: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Both side by side; the last of the shorter one again and again."""
    one = other = None
    for first, second in itertools.zip_longest(inside, outside):
        one, other = (one if first is None else first), (other if second is None else second)
        yield one, other
