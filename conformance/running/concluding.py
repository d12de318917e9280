"""From what the shards of a run found to its verdict; in which order they came plays no part."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy

from conformance.cases.case import FLOAT_DTYPES
from conformance.cases.domain import FULL
from conformance.clauses import CLAUSES, Clause
from conformance.judging.findings import Finding, Row, ShardResult
from conformance.judging.measures import accuracy_rows, coverage_rows
from conformance.judging.permitted_shown import shown
from conformance.judging.reasons import Reason
from conformance.report.scripts import script
from conformance.running.session import Session
from conformance.verdict import provenance
from conformance.verdict.provenance import MadeOf
from conformance.verdict.verdict import BROKEN_STATUSES, ClauseResult, Verdict, now, revision
from conformance.verdict.waivers import Rechecked, applied, today


def conclude(
    session: Session,
    total: ShardResult,
    *,
    profile: str,
    duration_s: float,
    ended: bool = True,
    interrupted: bool = False,
    rechecked: Sequence[Rechecked] = (),
    reasons: Sequence[Reason] = (),
    commitment: dict[str, str] | None = None,
    made: Mapping[str, MadeOf] | None = None,
    forbidden: Sequence[str] = (),
    attempted: Sequence[str] = (),
) -> Verdict:
    """The verdict: a row for each selected clause, for each dtype it speaks of.

    ``rechecked``: the waivers of this target, whose cases have run again. ``reasons``: for which
    clauses fail. ``commitment``: to the seed, where that was secret. ``made``: what it is made of,
    by dtype; ``forbidden``: patterns of what it is not to run. ``attempted``: what a sandbox kept
    it from.
    """
    target, device = session.target, session.device
    written: set[str] = set()

    def show(finding: Finding) -> str:
        """The script; of an experiment, which is long, for the first dtype alone."""
        if finding.case is None and finding.status != "unavailable":
            if finding.clause in written:
                return ""
            written.add(finding.clause)
        return script(target, finding, shown(finding), device, session.seed)

    rows = [
        _row(session, clause, dtype, profile, total, show)
        for clause in CLAUSES
        if session.wants(clause.id) and clause.is_about(device)
        for dtype in FLOAT_DTYPES
        if dtype in clause.dtypes_for(target) or (clause.id, dtype) in total.findings
    ]
    rows += provenance.rows(made or {}, forbidden) if forbidden else []
    whole = provenance.together((made or {}).values())
    clauses, causes = _with_reasons(applied(rows, rechecked, today()), reasons)
    return Verdict(
        target=target.name,
        device=device,
        profile=profile,
        seed=session.seed,
        clauses=clauses,
        causes=causes,
        examples=total.cases,
        duration_s=duration_s,
        cases=total.digest,
        fingerprint=target.fingerprint,
        source=target.source,
        selected=session.selected,
        ended=ended and not total.gave_up,
        interrupted=interrupted,
        accuracy=accuracy_rows(total.accuracy),
        coverage=coverage_rows(total.coverage),
        environment=_environment(session.observer.environment),
        commit=revision(),
        domain=target.domain.words(),
        spec=target.specification.title,
        created=now(),
        commitment=commitment,
        isolation=session.observer.isolation,
        made_of=whole.to_json() if whole else None,
        forbidden=tuple(forbidden),
        attempted=tuple(attempted),
    )


def _with_reasons(
    rows: Sequence[ClauseResult], reasons: Sequence[Reason]
) -> tuple[tuple[ClauseResult, ...], list[dict[str, Any]]]:
    """The rows, each of which names the clause that tells of its reason; and the reasons, of what
    is broken with all waivers taken into account."""
    broken = {row.id for row in rows if row.status in BROKEN_STATUSES}
    heads, causes = dict[str, str](), list[dict[str, Any]]()
    for reason in reasons:
        clauses = [clause for clause in reason.clauses if clause in broken]
        heads |= dict.fromkeys(clauses[1:], *clauses[:1])
        likely = {r.cause["text"]: None for r in rows if r.id in clauses[:1] and r.cause}
        if clauses:
            text = reason.text if len(clauses) > 1 else ""
            causes.append({"text": text, "likely": next(iter(likely), ""), "clauses": clauses})
    named = {clause for reason in reasons for clause in reason.clauses}
    stale = dict.fromkeys(row.id for row in rows if row.id in broken - named)
    causes += [{"text": "", "likely": "", "clauses": [clause]} for clause in stale]
    found = tuple(
        replace(row, because=heads[row.id])
        if row.id in heads and row.status in BROKEN_STATUSES
        else row
        for row in rows
    )
    return found, causes


def _environment(beside_the_target: dict[str, str]) -> dict[str, str]:
    """With the NumPy that computes what is permitted; and its Python, where that is another one."""
    found = beside_the_target | {"numpy": numpy.__version__}
    own = platform.python_version()
    return found if found.get("python") == own else found | {"judge": f"python {own}"}


def _row(
    session: Session,
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
            clause.level_for(session.target.specification),
            finding.status,
            dtype,
            examples if finding.status == "unavailable" else max(examples, 1),
            message=finding.message,
            case=finding.case.to_json() if finding.case else None,
            script=show(finding),
            where=finding.where.to_json() if finding.where else None,
            self_reported=clause.self_reported,
            cause=asdict(finding.cause) if finding.cause else None,
        )
    if examples:
        worst = total.worst.get(row)
        return ClauseResult(
            clause.id,
            clause.level_for(session.target.specification),
            "pass",
            dtype,
            examples,
            worst=worst[0] if worst else None,
            case=worst[1].to_json() if worst else None,
            self_reported=clause.self_reported,
        )
    if not clause.applies(session.target, dtype):
        status = "unclaimed"
    elif not clause.runs_in(profile):
        status = "not_in_profile"
    else:  # of a part of all inputs not every clause speaks
        status = "unavailable" if session.target.domain == FULL else "unclaimed"
    level = clause.level_for(session.target.specification)
    return ClauseResult(clause.id, level, status, dtype, self_reported=clause.self_reported)
