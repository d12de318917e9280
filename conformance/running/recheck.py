"""Run the case of a waiver again: does the target still deviate as it says?"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from conformance.cases.case import Case
from conformance.cases.features import clause_of, features
from conformance.clauses import BY_ID
from conformance.judging.attribution import attribute
from conformance.judging.checks import ASPECTS
from conformance.observer.protocols import EXPERIMENTS, Bench, Unavailable, run_experiment
from conformance.running.shards import Session, settled
from conformance.verdict.waivers import Rechecked, Waiver

# A deviation that shows in one run of five is overlooked in fewer than one recheck of a thousand.
RUNS = 32
EXPERIMENTS_RUNS = 8  # they repeat their calls themselves


def recheck(session: Session, waiver: Waiver) -> Rechecked:
    """Run until it fails: what is waived may be flaky, and must not flicker."""
    with settled():
        if waiver.case is not None:
            return _recheck_case(session, waiver, waiver.case)
        if waiver.clause in EXPERIMENTS:
            return _recheck_experiment(session, waiver)
    reason = f"a waiver of {waiver.clause} needs its case: write it with `loss-conformance waive`"
    return Rechecked(waiver, "unavailable", 0, reason)


def recheck_all(session: Session, waivers: Iterable[Waiver]) -> list[Rechecked]:
    """Those that concern the target of ``session``, on its device, in this process."""
    name, source = session.target.name, session.target.source
    return [recheck(session, w) for w in waivers if w.concerns(name, source, session.device)]


def _recheck_case(session: Session, waiver: Waiver, case: Case) -> Rechecked:
    for run in range(1, RUNS + 1):
        message = _deviates(session, waiver.clause, case)
        if message:
            return Rechecked(waiver, "fail", run, message)
    return Rechecked(waiver, "pass", RUNS)


def _deviates(session: Session, clause: str, case: Case) -> str:
    """What deviates from ``clause`` in one run of ``case``; empty where nothing does."""
    present = features(case)
    for deviation in session.run(case).deviations:
        if deviation.aspect not in ASPECTS:
            found = {deviation.aspect}
        else:  # as its own features say, or as those that are needed for it
            found = {clause_of(deviation.aspect, case, present[0] if present else None)}
            found.add(attribute(case, deviation, session.run).clause)
        if clause in found:
            return deviation.message
    return ""


def _recheck_experiment(session: Session, waiver: Waiver) -> Rechecked:
    dtypes = [d for d in BY_ID[waiver.clause].dtypes_for(session.target) if d in waiver.dtypes]
    for run in range(1, EXPERIMENTS_RUNS + 1):
        for dtype in dtypes:
            bench = Bench(session.target, dtype, session.device, session.seed)
            text = f"experiment {waiver.clause} {dtype}"
            try:
                with session.in_box(functools.partial(str, text)):
                    messages, error = run_experiment(waiver.clause, bench)
            except Unavailable as reason:
                return Rechecked(waiver, "unavailable", run, str(reason))
            if messages or error:
                return Rechecked(waiver, "fail", run, [*messages, f"raised {error}"][0])
    return Rechecked(waiver, "pass", EXPERIMENTS_RUNS)
