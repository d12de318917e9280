"""Ask a target again why its clauses fail, within a time: see ``judging/reasons.py``."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable

from conformance.cases.features import keep_only
from conformance.cases.plans import reseeded, within
from conformance.judging.checks import ASPECTS
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import EXPERIMENTS, run_experiment
from conformance.judging.findings import Finding
from conformance.judging.observer import Lost, Unavailable
from conformance.judging.reasons import Question, Reason, reasons
from conformance.judging.repeats import deviates
from conformance.running.losses import Kinds
from conformance.running.session import LEFT_OUT, Session

OTHERS = 24  # plain cases with other numbers
REASONING = 60.0  # seconds for all of a target's clauses


def reasoned(session: Session, findings: Iterable[Finding]) -> list[Reason]:
    """For which reasons the clauses of these findings fail; what is asked no more after a time
    stands for itself."""
    session = dataclasses.replace(session, lost=[], kinds=Kinds())
    until = time.monotonic() + REASONING
    known: dict[tuple[tuple[Question, ...], str, str], bool] = {}

    def holds(asked: tuple[Question, ...], finding: Finding) -> bool:
        key = (asked, finding.clause, finding.dtype)
        if key not in known:
            in_time = time.monotonic() < until and not session.lost_enough()
            askable = in_time and session.target.domain.result is None  # torch's own has no other
            known[key] = askable and _holds(session, asked, finding)
        return known[key]

    @functools.cache
    def plainly(finding: Finding) -> bool:
        return time.monotonic() < until and _plainly(session, finding)

    return reasons(findings, session.target.reductions, holds, plainly)


def _plainly(session: Session, finding: Finding) -> bool:
    """Whether what is wrong in its case is so with nothing special, for some other numbers."""
    if finding.case is None or finding.aspect not in ASPECTS:
        return False
    plain = keep_only(finding.case, ())
    others = (reseeded(plain, seed) for seed in range(OTHERS))
    cases = [inside for case in others for inside in within(session.target, case)]
    return any(deviates(judged, finding.aspect) for judged in session.run_all(cases))


def _holds(session: Session, asked: tuple[Question, ...], finding: Finding) -> bool:
    """Whether the clause holds where the calls that these questions are about are torch's own."""
    function = session.target.function
    with session.observer.standing_in([question.to_json(function) for question in asked]):
        if finding.case is not None:
            judgement = session.run(finding.case)
            if judgement is LEFT_OUT:
                return False
            aspect = finding.aspect if finding.aspect in ASPECTS else finding.clause
            return not deviates(judgement, aspect)
        if finding.clause not in EXPERIMENTS:
            return False
        try:
            with session.limited(finding.clause):
                bench = session.bench(finding.clause, finding.dtype)
                messages, error = run_experiment(finding.clause, bench)
        except Lost as lost:
            session.note(lost, bench.announced)
            return False
        except (BadEvidence, Unavailable):
            return False
        return not messages and not error
