"""Orders of operations of a product of several factors: which comes first, and on which side."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reference.reductions import steps

Way = Callable[[Any], Any]
Ratio = Callable[[int, Any], Any]
FIRST, SECOND, AFTER = range(3)  # where a further factor goes: to one side of a product, or after


@dataclass(frozen=True)
class Mean:
    """The division by n of a gradient over ``shape``, or a part of it; None of ``n`` for each.

    ``ratio(p, n)`` makes a constant of the kind of number that is in use.
    """

    shape: tuple[int, ...]
    n: Any
    ratio: Ratio


def products(a: Any, b: Any, mean: Mean | None, further: Sequence[Way] = ()) -> Iterator[Any]:
    """a·b, over n where there is a ``mean``, and scaled in one of the ways ``further``: equal as
    rationals. First comes (a/n)·b, and scaled at the end."""
    if mean is None:
        yield from _products(a, b, [further] if further else [])
        return
    yield from _products(a, b, [_over(mean), *([further] if further else [])])
    for *outer, inner in steps(mean.shape):  # a mean of means
        rest = functools.reduce(operator.truediv, outer, b)
        part = _over(Mean(mean.shape, inner, mean.ratio))
        yield from _products(a, rest, [part, *([further] if further else [])])


def halves(a: Any, b: Any, mean: Mean | None, further: Sequence[Way] = ()) -> Iterator[Any]:
    """The same as autograd finds it: added up from two equal halves, of ½·d·d, or (½·b)·(2·a), of
    ½·d². Half of a subnormal number is rounded."""
    one_step = mean and Mean((), mean.n, mean.ratio)
    yield from (2 * v for v in products(a / 2, b, one_step, further))
    over_n = b if mean is None else b / mean.n
    yield from products(2 * a, over_n / 2, None, further)
    yield from ((2 * a) * (way(over_n) / 2) for way in further)


def _over(mean: Mean) -> tuple[Way, Way]:
    """To divide by n: by a constant, or as it is."""
    return (lambda v: v * mean.ratio(1, mean.n)), (lambda v: v / mean.n)


def _products(a: Any, b: Any, factors: Sequence[Sequence[Way]]) -> Iterator[Any]:
    """a·b with one of the ways of each of ``factors``, at every place, in every order."""
    places = [(FIRST, SECOND, AFTER), (AFTER, FIRST, SECOND)][: len(factors)]
    for chosen in itertools.product(*factors):
        for at in itertools.product(*places):
            every = [*zip(chosen, at, strict=True)]
            for order in itertools.permutations(every) if len({*at}) < len(at) else [every]:
                yield _product(a, b, order)


def _product(a: Any, b: Any, order: Sequence[tuple[Way, int]]) -> Any:
    sides = [a, b]
    for way, place in order:
        if place != AFTER:
            sides[place] = way(sides[place])
    v = sides[0] * sides[1]
    for way, place in order:
        if place == AFTER:
            v = way(v)
    return v
