"""Run the case of a waiver again: does the target still deviate as it says?"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable

from conformance.cases.case import Case
from conformance.cases.features import clause_of, features
from conformance.clauses import BY_ID
from conformance.judging.attribution import attribute
from conformance.judging.checks import ASPECTS
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import EXPERIMENTS, run_experiment
from conformance.judging.findings import INTERMITTENT, REPEAT
from conformance.judging.observer import Lost, Unavailable
from conformance.judging.repeats import COUNTED
from conformance.running.losses import Kinds
from conformance.running.session import Session
from conformance.verdict.waivers import Rechecked, Waiver

# A deviation that shows in one run of five is overlooked in fewer than one recheck of a thousand.
RUNS = 32
EXPERIMENTS_RUNS = 8  # they repeat their calls themselves
SECONDS = 60.0  # for all waivers of a target


def recheck_all(session: Session, waivers: Iterable[Waiver]) -> list[Rechecked]:
    """Those that concern the target of ``session``, on its device, and a clause that is judged."""
    name, source = session.target.name, session.target.source
    until = time.monotonic() + SECONDS
    return [
        recheck(session, waiver, until)
        for waiver in waivers
        if waiver.concerns(name, source, session.device) and session.wants(waiver.clause)
    ]


def recheck(session: Session, waiver: Waiver, until: float = math.inf) -> Rechecked:
    """Run until it fails: what is waived may be flaky, and must not flicker.

    ``until``: the time (``time.monotonic()``) after which it is not run again.
    """
    # What was lost before is to be called again here, and what is lost here is told by the waiver.
    session = dataclasses.replace(session, lost=[], kinds=Kinds())
    if waiver.case is not None:
        return _recheck_case(session, waiver, waiver.case, until)
    if waiver.clause in EXPERIMENTS:
        return _recheck_experiment(session, waiver, until)
    reason = f"a waiver of {waiver.clause} needs its case: write it with `loss-conformance waive`"
    return Rechecked(waiver, "unavailable", 0, reason)


def _recheck_case(session: Session, waiver: Waiver, case: Case, until: float) -> Rechecked:
    seldom = waiver.clause in (INTERMITTENT, REPEAT)
    runs = COUNTED if seldom else RUNS
    for run in range(1, runs + 1):
        message = _deviates(session, waiver.clause, case, seldom)
        for call in session.lost:
            return Rechecked(waiver, call.status, run, f"the call {call.how}")
        if message:
            return Rechecked(waiver, "fail", run, message)
        if time.monotonic() > until:
            return _no_time(waiver, run)
    return Rechecked(waiver, "pass", runs)


def _no_time(waiver: Waiver, runs: int) -> Rechecked:
    reason = f"its waiver could not be rechecked in {SECONDS:g} s"
    return Rechecked(waiver, "unavailable", runs, reason)


def _deviates(session: Session, clause: str, case: Case, seldom: bool) -> str:
    """What deviates from ``clause`` in one run of ``case``; empty where nothing does.

    ``seldom``: it is a clause that whatever comes now and then belongs to.
    """
    present = features(case)
    for deviation in session.run(case).deviations:
        if seldom:
            return deviation.message
        if deviation.aspect not in ASPECTS:
            found = {deviation.aspect}
        else:  # as its own features say, or as those that are needed for it
            found = {clause_of(deviation.aspect, case, present[0] if present else None)}
            found.add(attribute(case, deviation, session.run, session.target).clause)
        if clause in found:
            return deviation.message
    return ""


def _recheck_experiment(session: Session, waiver: Waiver, until: float) -> Rechecked:
    dtypes = [d for d in BY_ID[waiver.clause].dtypes_for(session.target) if d in waiver.dtypes]
    for run in range(1, EXPERIMENTS_RUNS + 1):
        for dtype in dtypes:
            try:
                with session.limited(waiver.clause):
                    bench = session.bench(waiver.clause, dtype)
                    messages, error = run_experiment(waiver.clause, bench)
            except Unavailable as reason:
                return Rechecked(waiver, "unavailable", run, str(reason))
            except Lost as lost:
                return Rechecked(waiver, lost.status, run, f"the call {lost.how}")
            except BadEvidence as bad:
                return Rechecked(waiver, "crash", run, f"the call was not answered: {bad}")
            if messages or error:
                return Rechecked(waiver, "fail", run, [*messages, f"raised {error}"][0])
        if time.monotonic() > until:
            return _no_time(waiver, run)
    return Rechecked(waiver, "pass", EXPERIMENTS_RUNS)
