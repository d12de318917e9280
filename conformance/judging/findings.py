"""What was found, as data: broken clauses, and all that a shard of the plan told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from conformance.cases.case import Case, cost
from conformance.cases.features import clause_of, features
from conformance.clauses import BLOCKED
from conformance.judging.cause import Cause
from conformance.judging.checks import Where
from conformance.judging.measures import Bin, Cell

Row = tuple[str, str]  # clause id, dtype
EXPERIMENT = "experiment "  # how the text of a call begins that is no case
# What a call that is wrong now and then breaks; of those that claim it, the second one too.
INTERMITTENT, REPEAT = "determinism.intermittent", "determinism.repeat"


@dataclass(frozen=True)
class Finding:
    """A broken clause, and the case that shows it.

    ``aspect``: of the deviation (see checks.py). ``status``: fail, crash, timeout or unavailable.
    ``where``: the wrong elements, where there are any. ``cause``: the likely one, where it could be
    told. ``swings``: the very same call was right and wrong in turn, and more than once.
    """

    clause: str
    dtype: str
    message: str
    case: Case | None
    aspect: str = ""
    status: str = "fail"
    where: Where | None = None
    cause: Cause | None = None
    swings: bool = False

    @property
    def is_intermittent(self) -> bool:
        """Whether it is about a call that deviates now and then only."""
        return self.clause == INTERMITTENT or (self.clause == REPEAT and self.case is not None)

    def to_json(self) -> dict[str, Any]:
        data = {k: v for k, v in asdict(self).items() if k not in ("case", "where")}
        return data | {
            "case": self.case.to_json() if self.case else None,
            "where": self.where.to_json() if self.where else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        case = Case.from_json(data["case"]) if data["case"] else None
        where = Where.from_json(data["where"]) if data["where"] else None
        cause = Cause(**data["cause"]) if data["cause"] else None
        names = ("clause", "dtype", "message", "aspect", "status", "swings")
        plain_ones = {k: data[k] for k in names}
        return cls(**plain_ones, case=case, where=where, cause=cause)


def lost_call(text: str, status: str, how: str, alone: bool = True) -> Finding:
    """The finding for a call (as it was announced) that ended its process or did not return.

    ``alone``: so it did in a fresh process; if not, an earlier call may be to blame for it.
    """
    message = f"the call {how}"
    if text.startswith(EXPERIMENT):
        _, clause, dtype = text.split(" ")
        return Finding(clause if alone else INTERMITTENT, dtype, message, None, clause, status)
    case = Case.from_json(json.loads(text))
    present = features(case)
    clause = clause_of("value", case, present[0] if present else None)
    return Finding(clause if alone else INTERMITTENT, case.dtype, message, case, "value", status)


@dataclass
class ShardResult:
    """What a shard found. ``tally``: examples per clause and dtype. ``worst``: share and case.

    ``accuracy``: the worst error in each bin. ``coverage``: the cases that ran in each cell.
    ``gave_up``: what was left out, and why, in words. ``remarks``: what else is to be said.
    """

    shard: str
    cases: int = 0
    digest: str = ""
    tally: dict[Row, int] = field(default_factory=dict)
    worst: dict[Row, tuple[float, Case]] = field(default_factory=dict)
    findings: dict[Row, Finding] = field(default_factory=dict)
    accuracy: dict[Bin, float] = field(default_factory=dict)
    coverage: dict[Cell, int] = field(default_factory=dict)
    gave_up: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "cases": self.cases,
            "digest": self.digest,
            "tally": [[*row, n] for row, n in self.tally.items()],
            "worst": [[*row, share, case.to_json()] for row, (share, case) in self.worst.items()],
            "findings": [finding.to_json() for finding in self.findings.values()],
            "accuracy": [[*place, worst] for place, worst in self.accuracy.items()],
            "coverage": [[*cell, n] for cell, n in self.coverage.items()],
            "gave_up": self.gave_up,
            "remarks": self.remarks,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShardResult:
        found = [Finding.from_json(f) for f in data["findings"]]
        return cls(
            data["shard"],
            data["cases"],
            data["digest"],
            {(c, d): n for c, d, n in data["tally"]},
            {(c, d): (share, Case.from_json(case)) for c, d, share, case in data["worst"]},
            {(f.clause, f.dtype): f for f in found},
            {(a, d, axis, i): worst for a, d, axis, i, worst in data["accuracy"]},
            {(d, r, layout, path): n for d, r, layout, path, n in data["coverage"]},
            data["gave_up"],
            data["remarks"],
        )

    def add(self, finding: Finding) -> None:
        """Keep the simplest finding of each row; one without a case yields to one with."""
        row = (finding.clause, finding.dtype)
        known = self.findings.get(row)
        if known is None or _order(finding) < _order(known):
            self.findings[row] = finding

    def count(self, row: Row) -> None:
        self.tally[row] = self.tally.get(row, 0) + 1


def _order(finding: Finding) -> tuple[Any, ...]:
    unclear = finding.status == "unavailable"  # what was found out goes before what was not
    return (
        unclear,
        finding.case is None,
        cost(finding.case) if finding.case else (),
        finding.message,
    )


def merged(results: Iterable[ShardResult]) -> ShardResult:
    """All results as one: counts added, the worst shares and the simplest findings kept."""
    total = ShardResult("all")
    hasher = hashlib.sha256()
    for result in sorted(results, key=lambda r: r.shard):
        total.cases += result.cases
        total.gave_up += result.gave_up
        total.remarks += result.remarks
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
    if any(finding.swings for finding in total.findings.values()):
        total.findings = {row: _blocked(finding) for row, finding in total.findings.items()}
    return total


def _blocked(finding: Finding) -> Finding:
    """Where the same call is right and wrong in turn, experiments, of many calls, tell nothing."""
    if finding.status != "fail" or finding.case is not None or finding.clause == INTERMITTENT:
        return finding
    return replace(finding, message=BLOCKED, status="unavailable")
