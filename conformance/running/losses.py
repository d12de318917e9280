"""Calls that were lost: they ended their process or did not return. What they tell and cost.

Each costs a new process. Cases that are special in the same ways as one that was lost come last,
and where more of a kind are lost than return, no further one is called.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance.cases.case import Case
from conformance.cases.features import features
from conformance.cases.plans import plain, with_shapes, within
from conformance.judging.evidence import BadEvidence
from conformance.judging.observer import Lost, Observer

LOST_PER_KIND = 3  # calls of a kind, or of a shard's experiments, that are lost before it is left
LOST_BY_TIMEOUT = 4  # a call that times out counts as so many: each costs the whole limit
# The line between a hang and a call that is slow: what it should take by the pace of others.
LARGER = (2**9, 2**12, 2**16)  # elements of the calls that tell the pace, after a plain one
CALLS, ELEMENTS = 500, 2**21  # of an experiment: about so many, in all
SLOW = 0.25  # of the limit: a call that should take so much may be one that a busy machine held up


@dataclass(frozen=True)
class LostCall:
    """``text``: as it was announced. ``status``: crash, timeout, or unavailable where it is merely
    slow. ``how``: after "the call". ``alone``: it was lost in a fresh process, too."""

    text: str
    status: str
    how: str
    alone: bool = True


def rubbish(bad: BadEvidence) -> Lost:
    """What is not in the form of an answer is as good as none."""
    return Lost("", "crash", f"was not answered: {bad}")


def weight(lost: Iterable[LostCall]) -> int:
    """How much was lost, by these calls."""
    return sum(1 if call.status == "crash" else LOST_BY_TIMEOUT for call in lost)


@dataclass
class Kinds:
    """How many calls of each kind, by the names of what is special, were lost and returned.

    ``sure``: the kinds of which one was lost alone, in a fresh process.
    """

    lost: Counter[frozenset[str]] = field(default_factory=Counter)
    returned: Counter[frozenset[str]] = field(default_factory=Counter)
    sure: set[frozenset[str]] = field(default_factory=set)

    def lose(self, case: Case, alone: bool) -> None:
        self.lost.update({_names(case), *self.like(case)})
        if alone:
            self.sure.add(_names(case))

    def keep(self, cases: Iterable[Case]) -> None:
        if self.lost:
            self.returned.update(kind for case in cases for kind in self.like(case))

    def like(self, case: Case) -> list[frozenset[str]]:
        """The kinds of lost calls that ``case`` is of."""
        return [kind for kind in self.lost if kind <= _names(case)] if self.lost else []

    def spent(self, case: Case) -> bool:
        """Whether no further case of its kind is to be called."""
        return any(hopeless(self.lost[kind], self.returned[kind]) for kind in self.like(case))


def hopeless(lost: int, returned: int) -> bool:
    return lost >= LOST_PER_KIND and lost > returned


def _names(case: Case) -> frozenset[str]:
    return frozenset(feature.name for feature in features(case))


@dataclass(frozen=True)
class Pace:
    """Seconds that a plain call takes, and that each element adds."""

    plain: float
    element: float

    def of(self, elements: int, calls: int = 1) -> float:
        """What so many calls should take, with so many elements in all."""
        return self.plain * calls + self.element * elements

    def of_experiment(self, elements: int) -> float:
        """What many calls should take, with so many elements handed in."""
        return self.of(max(ELEMENTS, 4 * elements), CALLS)


def pace(observer: Observer) -> Pace | None:
    """Of the target in a process that has called it before; None where it hangs at small sizes."""
    claimed = observer.claimed
    case = plain(claimed.dtypes[0], claimed.reductions[0])
    case = next(within(claimed, case), case)
    try:
        known = Pace(_seconds(observer, case), 0.0)
        for n in LARGER:
            if known.of(n) >= SLOW * observer.limit:
                break  # it would be lost
            larger = with_shapes(case, (n,), (n,))
            seconds = _seconds(observer, next(within(claimed, larger), case))
            known = Pace(known.plain, max(seconds - known.plain, 0.0) / n)
    except Lost:
        return None
    return known


def _seconds(observer: Observer, case: Case) -> float:
    """What it takes where it was called before: the first one may compile."""
    observer.observe([case])
    begun = time.monotonic()
    observer.observe([case])
    return time.monotonic() - begun


def slow(lost: Lost, expected: float) -> str:
    """How a call was lost that is slow and does not hang; empty where it hangs."""
    if expected < SLOW * lost.limit:
        return ""
    times = max(2, math.ceil(2 * expected / lost.limit))
    return f"{lost.how}, and its smaller calls are as slow: raise --timeout {times}-fold"
