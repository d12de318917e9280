"""After the run: make counterexamples smaller, and tell their likely causes, within a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from conformance.cases.case import Case
from conformance.cases.features import clause_of, features
from conformance.cases.plans import within
from conformance.clauses import selects
from conformance.judging.causes.explain import explain
from conformance.judging.checks import ASPECTS, Deviation, Judgement
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import EXPERIMENTS, run_experiment
from conformance.judging.findings import INTERMITTENT, REPEAT, Finding, ShardResult
from conformance.judging.minimise import minimise
from conformance.judging.observer import Lost, Unavailable
from conformance.judging.repeats import COUNTED
from conformance.running.budgets import EXPLAINING, Budget
from conformance.running.experimenting import told
from conformance.running.session import Session


def to_explain(total: ShardResult, selected: str = "*") -> list[Finding]:
    """One finding of each clause, one with a case before others: the rest stay as they are."""
    chosen: dict[str, Finding] = {}
    for finding in sorted(total.findings.values(), key=lambda f: f.case is None):
        if finding.is_intermittent:
            continue  # what does not come again cannot be made smaller
        if finding.status == "fail" and selects(selected, finding.clause):
            chosen.setdefault(finding.clause, finding)
    return [chosen[clause] for clause in sorted(chosen)]


def explain_all(session: Session, total: ShardResult) -> None:
    """Make the cases of these findings smaller and tell their likely causes.

    Where the time does not do, ``total`` remarks it: the counterexample is the smallest so far.
    """
    found = to_explain(total, session.selected)
    for verb, step in (("made smaller", minimised), ("explained", explained)):
        budget = Budget(EXPLAINING)
        for k, seconds in enumerate(budget.shares(len(found))):
            until = time.monotonic() + seconds
            found[k] = step(session, found[k], until)
            budget.spent += time.monotonic() >= until
        total.remarks += budget.remark(verb, len(found))
    for finding in found:
        total.findings[(finding.clause, finding.dtype)] = finding


def minimised(session: Session, finding: Finding, until: float) -> Finding:
    """The same finding with a smaller case, as far as that is found by then."""
    if finding.case is None or finding.status != "fail":
        return finding
    last = Deviation(finding.aspect, finding.message, finding.where)

    def first_failing(cases: list[Case]) -> Case | None:
        nonlocal last
        asked = [case for case in cases if _comparable(session, finding, case)]
        for case, judgement in zip(asked, session.run_all(asked), strict=True):
            deviation = _same(finding, case, judgement)
            if deviation is not None:
                last = deviation
                return case
        return None

    case = minimise(finding.case, first_failing, until)
    return replace(finding, message=last.message, case=case, where=last.where)


def _comparable(session: Session, finding: Finding, case: Case) -> bool:
    """Whether it is no more special, of the same dtype, and claimed."""
    assert finding.case is not None
    if len(features(case)) > len(features(finding.case)) or case.dtype != finding.dtype:
        return False
    return list(within(session.target, case)) == [case]


def _same(finding: Finding, case: Case, judgement: Judgement) -> Deviation | None:
    """The deviation of ``case`` that breaks the same clause in the same way."""
    present = features(case)
    for deviation in judgement.deviations:
        if deviation.aspect == finding.aspect:
            clause = clause_of(deviation.aspect, case, present[0] if present else None)
            if finding.aspect not in ASPECTS or clause == finding.clause:
                return deviation
    return None


def explained(session: Session, finding: Finding, until: float) -> Finding:
    """The same finding with its likely cause, where that can be told by then."""
    try:
        return replace(finding, cause=explain(session.observer, finding, until))
    except Lost:  # then there is no cause to tell
        return finding


def replayed(session: Session, clause: str, dtype: str, case: Case | None) -> Iterable[str]:
    """What deviates when ``case``, or the experiment of ``clause``, runs now.

    Raises Unavailable where an experiment cannot run here, and Lost.
    """
    if case is not None:
        before = len(session.lost)
        runs = COUNTED if clause in (INTERMITTENT, REPEAT) else 1
        judged = session.repeat(case, runs)
        said = Counter(f"{d.aspect}: {d.message}" for one in judged for d in one.deviations)
        often = {text: f" (in {n} of {runs} calls)" if runs > 1 else "" for text, n in said.items()}
        found = [text + times for text, times in often.items()]
        return [*found, *(f"the call {lost.how}" for lost in session.lost[before:])]
    if clause not in EXPERIMENTS:
        raise Unavailable(f"there is no experiment on {clause}")
    try:
        with session.limited(clause):
            messages, error = run_experiment(clause, session.bench(clause, dtype))
    except Lost as lost:
        return [f"the call {lost.how}"]
    except BadEvidence as bad:
        return [str(bad)]
    return told(messages, error)
