"""From the results of shards to a verdict; in which order they came plays no part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from conformance.cases.case import FLOAT_DTYPES
from conformance.clauses import CLAUSES, Clause, selects
from conformance.judging.attribution import Finding
from conformance.judging.measures import accuracy_rows, coverage_rows
from conformance.report.scripts import script
from conformance.running.shards import Row, Session, ShardResult, explained, minimised
from conformance.verdict.verdict import ClauseResult, Verdict, environment, now, revision
from conformance.verdict.waivers import Rechecked, applied, today
from targets import Target, fingerprint


def merged(results: Iterable[ShardResult]) -> ShardResult:
    """All results as one: counts added, the worst shares and the simplest findings kept."""
    total = ShardResult("all")
    hasher = hashlib.sha256()
    for result in sorted(results, key=lambda r: r.shard):
        total.cases += result.cases
        hasher.update(result.digest.encode())
        for row, n in result.tally.items():
            total.tally[row] = total.tally.get(row, 0) + n
        for row, worst in result.worst.items():
            if row not in total.worst or worst[0] > total.worst[row][0]:
                total.worst[row] = worst
        for place, error in result.accuracy.items():
            total.accuracy[place] = max(error, total.accuracy.get(place, 0.0))
        for cell, n in result.coverage.items():
            total.coverage[cell] = total.coverage.get(cell, 0) + n
        for finding in result.findings.values():
            total.add(finding)
    total.digest = hasher.hexdigest()
    return total


def to_explain(total: ShardResult, selected: str = "*") -> list[Finding]:
    """One finding of each clause, one with a case before others: the rest stay as they are."""
    chosen: dict[str, Finding] = {}
    for finding in sorted(total.findings.values(), key=lambda f: f.case is None):
        if finding.status == "fail" and selects(selected, finding.clause):
            chosen.setdefault(finding.clause, finding)
    return [chosen[clause] for clause in sorted(chosen)]


def explain_all(session: Session, total: ShardResult) -> None:
    """Make the cases of these findings smaller and tell their likely causes, in this process."""
    for finding in to_explain(total, session.selected):
        smaller = explained(session, minimised(session, finding))
        total.findings[(smaller.clause, smaller.dtype)] = smaller


def conclude(
    target: Target,
    total: ShardResult,
    *,
    device: str,
    profile: str,
    seed: int,
    duration_s: float,
    selected: str = "*",
    ended: bool = True,
    rechecked: Sequence[Rechecked] = (),
) -> Verdict:
    """The verdict: a row for each clause that matches ``selected``, for each dtype it speaks of.

    ``rechecked``: the waivers of this target, whose cases have run again.
    """
    shown: set[str] = set()

    def show(finding: Finding) -> str:
        """The script; of an experiment, which is long, for the first dtype alone."""
        if finding.case is None and finding.status != "unavailable":
            if finding.clause in shown:
                return ""
            shown.add(finding.clause)
        return script(target, finding, device, seed)

    rows = [
        _row(target, clause, dtype, profile, total, show)
        for clause in CLAUSES
        if selects(selected, clause.id) and clause.is_about(device)
        for dtype in FLOAT_DTYPES
        if dtype in clause.dtypes_for(target) or (clause.id, dtype) in total.findings
    ]
    return Verdict(
        target=target.name,
        device=device,
        profile=profile,
        seed=seed,
        clauses=applied(rows, rechecked, today()),
        examples=total.cases,
        duration_s=duration_s,
        cases=total.digest,
        fingerprint=fingerprint(target),
        source=target.source,
        selected=selected,
        ended=ended,
        accuracy=accuracy_rows(total.accuracy),
        coverage=coverage_rows(total.coverage),
        environment=environment(),
        commit=revision(),
        created=now(),
    )


def _row(
    target: Target,
    clause: Clause,
    dtype: str,
    profile: str,
    total: ShardResult,
    show: Callable[[Finding], str],
) -> ClauseResult:
    row: Row = (clause.id, dtype)
    finding, examples = total.findings.get(row), total.tally.get(row, 0)
    if finding is not None:
        return ClauseResult(
            clause.id,
            clause.level,
            finding.status,
            dtype,
            examples if finding.status == "unavailable" else max(examples, 1),
            message=finding.message,
            case=finding.case.to_json() if finding.case else None,
            script=show(finding),
            where=finding.where.to_json() if finding.where else None,
            cause=asdict(finding.cause) if finding.cause else None,
        )
    if examples:
        worst = total.worst.get(row)
        return ClauseResult(
            clause.id,
            clause.level,
            "pass",
            dtype,
            examples,
            worst=worst[0] if worst else None,
            case=worst[1].to_json() if worst else None,
        )
    status = "unavailable" if clause.runs_in(profile) else "not_in_profile"
    status = status if clause.applies(target, dtype) else "unclaimed"
    return ClauseResult(clause.id, clause.level, status, dtype)
