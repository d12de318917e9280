"""Which clause a deviation belongs to: the simplest case that still shows it decides.

A case mixes features. When its value or gradient is wrong, the plain case is run, then the case
itself with no feature, with each one alone, and with each pair; the first of these that is wrong in
the same way names the clause.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.features import Feature, clause_of, features, keep_only
from conformance.cases.plans import plain, within
from conformance.judging.checks import ASPECTS, Deviation, Judgement
from conformance.judging.findings import Finding

Rerun = Callable[[Case], Judgement]


def attribute(case: Case, deviation: Deviation, rerun: Rerun, claimed: Claimed) -> Finding:
    """The finding for a deviation on ``case``: its clause and the simplest case that shows it.

    Of cases that the target ``claimed``.
    """
    if deviation.aspect not in ASPECTS:
        return Finding(deviation.aspect, case.dtype, deviation.message, case, deviation.aspect)
    present = features(case)
    candidates = ((), _plain(case)), *_simpler(case, present)
    for kept, simpler in ((k, one) for k, every in candidates for one in within(claimed, every)):
        for other in rerun(simpler).deviations:
            if other.aspect == deviation.aspect:
                clause = clause_of(other.aspect, simpler, kept[0] if kept else None)
                return Finding(
                    clause, case.dtype, other.message, simpler, other.aspect, where=other.where
                )
    clause = clause_of(deviation.aspect, case, present[0] if present else None)
    return Finding(
        clause, case.dtype, deviation.message, case, deviation.aspect, where=deviation.where
    )


def _plain(case: Case) -> Case:
    """The plain case of the same dtype and reduction: its elements are known to tell."""
    return plain(case.dtype, case.reduction).replace(needs=(True, case.needs[1]))


def _simpler(
    case: Case, present: tuple[Feature, ...]
) -> Iterator[tuple[tuple[Feature, ...], Case]]:
    for count in range(min(len(present), 3)):
        for kept in itertools.combinations(present, count):
            simpler = keep_only(case, kept)
            if features(simpler) == kept:
                yield kept, simpler
