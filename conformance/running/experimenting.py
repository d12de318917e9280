"""The experiments of a shard: in each dtype, once, and again where they deviate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from conformance.cases.plans import plain, within
from conformance.clauses import BLOCKED, BY_ID, Clause
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import EXPERIMENTS, run_experiment
from conformance.judging.findings import EXPERIMENT, INTERMITTENT, Finding, ShardResult
from conformance.judging.observer import Lost, Outside, Unavailable
from conformance.judging.repeats import comes_again, intermittent, run_again
from conformance.running.losses import hopeless, rubbish
from conformance.running.session import Session

# Families that ask what becomes of a right value and gradient: where these are wrong in a plain
# call, they have no evidence of their own.
_DERIVED = ("autograd", "transforms", "determinism", "metamorphic", "resources")


def run_experiments(session: Session, clauses: Iterable[Clause], result: ShardResult) -> None:
    """Of those of ``clauses`` that have an experiment, in each dtype that they apply to."""

    @functools.cache
    def works(dtype: str) -> bool:
        plain_cases = (plain(dtype, reduction) for reduction in session.target.reductions)
        cases = [case for whole in plain_cases for case in within(session.target, whole)]
        steady = True
        for case, judgement in zip(cases, session.run_all(cases), strict=True):
            steady &= judgement.returned
            for deviation in judgement.deviations:
                if comes_again(case, deviation, session.repeat):
                    return False
                result.add(intermittent(case, deviation, session.repeat))
        return steady

    before, ran = len(session.lost), 0
    for clause, dtype in _applicable(session, clauses):
        if session.stopped():
            return
        if session.lost_enough() or hopeless(len(session.lost) - before, ran):
            result.gave_up.append(f"{result.shard}: too many calls were lost, the rest is left out")
            return
        if clause.family in _DERIVED and not works(dtype):
            result.add(Finding(clause.id, dtype, BLOCKED, None, clause.id, "unavailable"))
        else:
            ran += _run_experiment(session, clause.id, dtype, works, result)


def _applicable(session: Session, clauses: Iterable[Clause]) -> Iterator[tuple[Clause, str]]:
    for clause in clauses:
        if clause.id not in EXPERIMENTS or not session.wants(clause.id):
            continue
        for dtype in session.target.dtypes:
            skipped = f"{EXPERIMENT}{clause.id} {dtype}" in session.skip
            about = clause.is_about(session.device) and clause.applies(session.target, dtype)
            if about and not skipped:
                yield clause, dtype


def _run_experiment(
    session: Session,
    clause: str,
    dtype: str,
    works: Callable[[str], bool],
    result: ShardResult,
) -> bool:
    """Whether it came to an end."""
    bench = session.bench(clause, dtype)
    try:
        with session.limited(clause):
            messages, error = run_experiment(clause, bench)
    except Outside:
        return True  # without a finding and without an example: unclaimed
    except Unavailable as reason:
        result.add(Finding(clause, dtype, str(reason), None, clause, "unavailable"))
        return True
    except Lost as lost:
        session.lose_experiment(lost, clause, bench)
        return False
    except BadEvidence as bad:
        session.note(rubbish(bad), bench.announced)
        return False
    if error and not works(dtype):
        result.add(Finding(clause, dtype, BLOCKED, None, clause, "unavailable"))
        return True
    result.count((clause, dtype))
    alone = bench.turn and len(session.target.dtypes) > 1
    for message in told(messages, error):
        found = _of_experiment(session, clause, dtype, message)
        text = f"seen in {dtype}, others not looked at: {found.message}"
        result.add(replace(found, message=text) if alone else found)
    return True


def told(messages: Iterable[str], error: str | None) -> list[str]:
    """What an experiment said, as it is told."""
    return [*messages, *([f"raised {error}"] if error else [])]


# What these look for is there once: what a call leaves behind is there when they run again.
_ONCE = ("purity", "resources")


def _of_experiment(session: Session, clause: str, dtype: str, message: str) -> Finding:
    """Of the clause where the experiment says so again, else of a loss that is wrong now and then.

    A broken ``should`` stays one: it is told by nothing else.
    """
    own = Finding(clause, dtype, message, None, clause)
    once = BY_ID[clause].family in _ONCE or session.level(clause) == "should"
    if once or not session.wants(INTERMITTENT):
        return own
    runs = run_again(lambda: _said(session, clause, dtype), message)
    if runs.failed == runs.runs:
        return own
    text = f"in {runs.failed} of {runs.runs} runs of what {clause} asks for {message}"
    return replace(own, clause=INTERMITTENT, message=text)


def _said(session: Session, clause: str, dtype: str) -> str | None:
    """The first deviation that an experiment meets now; None where it cannot be told."""
    try:
        with session.limited(clause):
            found = told(*run_experiment(clause, session.bench(clause, dtype)))
    except (Lost, BadEvidence, Unavailable):
        return None
    return found[0] if found else ""
