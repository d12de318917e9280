"""Make a counterexample smaller while it still breaks the same clause.

One way for the cases of every phase: greedy, over an explicit list of simplifications, so that it
is the same in every process and needs no replay of what Hypothesis drew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from conformance.cases.case import Case, Fill, Operand
from conformance.cases.features import features, keep_only
from conformance.cases.plans import with_reduction, with_shapes

ATTEMPTS = 300
SMALL = 4096  # elements: simpler cases up to here are tried several at a time
TOGETHER = 8


def minimise(
    case: Case,
    first_failing: Callable[[list[Case]], Case | None],
    until: float,
    attempts: int = ATTEMPTS,
) -> Case:
    """A case no more complex than ``case`` that fails as it does; after so many tries the best.

    ``first_failing``: the first of some cases that does. ``until``: the time (``time.monotonic()``)
    after which no more is tried.
    """
    tried = {case}
    progress = True
    while progress:
        progress = False
        for some in _together(_simplifications(case), tried):
            if len(tried) > attempts or time.monotonic() > until:
                return case
            simpler = first_failing(some)
            if simpler is not None:
                case, progress = simpler, True
                break
    return case


def _together(cases: Iterator[Case], tried: set[Case]) -> Iterator[list[Case]]:
    """Those that are new, large ones one by one and small ones several at a time."""
    some: list[Case] = []
    for case in cases:
        if case in tried:
            continue
        tried.add(case)
        some.append(case)
        if len(some) == TOGETHER or math.prod(case.shape) > SMALL:
            yield some
            some = []
    if some:
        yield some


def _simplifications(case: Case) -> Iterator[Case]:
    """Simpler cases, the boldest first."""
    present = features(case)
    for k in range(len(present)):
        yield keep_only(case, present[:k] + present[k + 1 :])
    for x, y in _smaller_shapes(case):
        yield with_shapes(case, x, y)
    for operand in ("input", "target", "grad_output"):
        for simpler in _simpler_operands(getattr(case, operand)):
            changed = case.replace(**{operand: simpler})
            yield changed.replace(target=changed.input) if case.same else changed
    for needs in ((True, False), (False, True)):
        if case.needs == (True, True):
            yield case.replace(needs=needs)
    if case.reduction == "mean":
        yield with_reduction(case, "sum")


def _smaller_shapes(case: Case) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    x, y = case.input.shape, case.target.shape
    rank = max(len(x), len(y))
    # Drop one broadcast dimension from both, or make it smaller in both.
    for k in range(rank):
        yield _without(x, rank - k), _without(y, rank - k)
    for k in range(rank, 0, -1):
        n = max(_size(x, k), _size(y, k))
        for smaller in sorted({1, 2, 3, n // 16, n // 2, n * 3 // 4, n - 1}):
            if 0 < smaller < n:
                yield _resized(x, k, smaller), _resized(y, k, smaller)


def _size(shape: tuple[int, ...], from_end: int) -> int:
    return shape[-from_end] if from_end <= len(shape) else 1


def _without(shape: tuple[int, ...], from_end: int) -> tuple[int, ...]:
    if from_end > len(shape):
        return shape
    where = len(shape) - from_end
    return shape[:where] + shape[where + 1 :]


def _resized(shape: tuple[int, ...], from_end: int, n: int) -> tuple[int, ...]:
    if from_end > len(shape) or shape[-from_end] <= 1:
        return shape
    where = len(shape) - from_end
    return (*shape[:where], n, *shape[where + 1 :])


def _simpler_operands(operand: Operand) -> Iterator[Operand]:
    for regime in ("one", "integers", "ordinary"):
        if regime == operand.fill.regime:
            break
        yield operand.replace(fill=Fill(regime, operand.fill.seed % 10))
    if operand.fill.seed > 9:
        for seed in range(4):
            yield operand.replace(fill=Fill(operand.fill.regime, seed, operand.fill.table))
    if operand.layout != "contiguous":
        for layout in ("contiguous", "strided"):
            if layout != operand.layout:
                yield operand.replace(layout=layout)
