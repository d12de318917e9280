"""Does a deviation come again on its own case? Where it does not, no other clause is accused.

A loss that is wrong in one call of forty is wrong on cases of every kind, and none of what is
special about them matters. The same holds where a result depends on what was called before. How
often the very same call is wrong is then all that can be said: ``determinism.intermittent``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from conformance.cases.case import Case
from conformance.judging.checks import ASPECTS, Deviation, Judgement
from conformance.judging.findings import INTERMITTENT, Finding

Repeat = Callable[[Case, int], Sequence[Judgement]]
# A deviation accuses its clause where it comes in each of so many further calls: one that comes in
# one call of forty does so once in 10^8 times, one in every second call once in 32. Of large cases,
# which are dear, fewer do.
AGAIN, AGAIN_LARGE = 5, 2
LARGE = 2**16  # elements
# How often it comes is counted in so many calls, as far as the time does. Of one in forty that
# gives some 5, of one in a thousand none but the first: "1 of 201" is all that was seen.
COUNTED, CHUNK, SECONDS = 200, 20, 1.0
# An experiment deviates where three runs say the same, or all of six something.
ALIKE, RUNS = 3, 6


def comes_again(case: Case, deviation: Deviation, repeat: Repeat) -> bool:
    """Whether each further call of ``case`` deviates in the same aspect.

    What one call did beyond its numbers (changed an operand, say) is a fact, however seldom.
    """
    if deviation.aspect not in ASPECTS:
        return True
    count = AGAIN if math.prod(case.shape) < LARGE else AGAIN_LARGE
    return all(deviates(judgement, deviation.aspect) for judgement in repeat(case, count))


def intermittent(case: Case, deviation: Deviation, repeat: Repeat) -> Finding:
    """The finding on a deviation that did not: how often it comes in many calls of its case."""
    wrong, calls, until = 1, 1, time.monotonic() + SECONDS
    while calls <= COUNTED and time.monotonic() < until:
        judged = repeat(case, CHUNK)
        if not judged:
            break
        wrong += sum(deviates(judgement, deviation.aspect) for judgement in judged)
        calls += len(judged)
    text = f"in {wrong} of {calls} calls of the very same case {deviation.message}"
    found = Finding(INTERMITTENT, case.dtype, text, case, deviation.aspect, where=deviation.where)
    return replace(found, swings=wrong > 1)


def deviates(judgement: Judgement, aspect: str) -> bool:
    return any(deviation.aspect == aspect for deviation in judgement.deviations)


@dataclass(frozen=True)
class Runs:
    """Of an experiment that deviated: in how many ``runs`` it did so ``failed`` times."""

    failed: int
    runs: int


def run_again(run: Callable[[], str | None], first: str) -> Runs:
    """``run``: the message of another run, empty where nothing deviates and None where it cannot be
    had. ``first``: what the first run said.
    """
    said, until = [first], time.monotonic() + SECONDS
    while len(said) < RUNS and time.monotonic() < until:
        message = run()
        if message is None:
            break
        said.append(message)
        if len(said) == ALIKE and len(set(said)) == 1:
            break
    return Runs(sum(map(bool, said)), len(said))
