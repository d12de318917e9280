"""What a verdict comes to, in one row: whether it conforms, and in one word why not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from conformance.clauses import BY_ID, CLAUSES
from conformance.verdict.verdict import broken_rows

Json = dict[str, Any]
CONFORMS, BROKEN, INCOMPLETE = OUTCOMES = ("conforms", "broken", "incomplete")
# What is not told by a family of clauses.
WORDS = {
    "conforms": "nothing that was looked at is broken",
    "crash": "a call ended its process",
    "hang": "a call did not return",
    "memory": "it held more memory than it may",
    "disk": "it wrote more than it may",
    "processes": "it started more processes than it may",
    "import": "it cannot be imported, or compiled",
    "worker": "whoever judges it was killed, three times",
    "time": "its time was over before all was looked at",
    "unavailable": "something that it takes is not to be had here",
}
_BY_STATUS = {"crash": "crash", "timeout": "hang"}
_ORDER = {clause.id: k for k, clause in enumerate(CLAUSES)}


@dataclass(frozen=True)
class Outcome:
    """``outcome``: of :data:`OUTCOMES`. ``reason``: a key of :data:`WORDS`, or a family of clauses.

    Of what is broken: the ``clause`` that comes first in the specification, its ``dtype``, what was
    found, the likely ``cause`` and that in a sentence, the smallest ``case``, and a ``script``.
    """

    outcome: str
    reason: str
    clause: str = ""
    dtype: str = ""
    message: str = ""
    cause: str = ""
    explanation: str = ""
    case: Json | None = None
    script: str = ""

    @property
    def correct(self) -> int | None:
        """1 or 0; None where nothing was found out."""
        return {CONFORMS: 1, BROKEN: 0}.get(self.outcome)

    def printable(self) -> Outcome:
        """Without halves of characters: what a target said may be no text."""
        texts: Json = {
            name: value.encode("utf-8", "replace").decode()
            for name, value in vars(self).items()
            if isinstance(value, str)
        }
        return replace(self, **texts)

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(**data)

    @classmethod
    def of(cls, verdict: Json) -> Outcome:
        """Of a verdict's JSON, which need not be complete where something is broken."""
        broken = broken_rows(verdict)
        if broken:
            return cls._of_row(min(broken, key=_rank))
        if verdict["conforms"]:
            return cls(CONFORMS, CONFORMS)
        if verdict["interrupted"]:
            return cls(INCOMPLETE, "time", message=WORDS["time"])
        return cls(INCOMPLETE, "unavailable", message=_missing(verdict))

    @classmethod
    def _of_row(cls, row: Json) -> Outcome:
        found = row["counterexample"]
        cause = found.get("cause") or {"id": "", "text": ""}
        return cls(
            BROKEN,
            _BY_STATUS.get(row["status"], BY_ID[row["id"]].family),
            row["id"],
            row["dtype"],
            found["message"],
            cause["id"],
            cause["text"],
            found["case"],
            found["script"],
        )


def _rank(row: Json) -> tuple[Any, ...]:
    """Which is told: of the first clause, the row that is explained, or else the simplest."""
    found = row["counterexample"]
    case = found["case"]
    size = sum(math.prod(case[name]["shape"]) for name in ("input", "target")) if case else math.inf
    return _ORDER[row["id"]], "cause" not in found, not found["script"], size


def _missing(verdict: Json) -> str:
    for row in verdict["clauses"]:
        if row["status"] == "unavailable":
            return f"{row['id']} {row['dtype']}: {row.get('message') or 'no evidence'}"
    return "some calls were lost, and what was to come after them is left out"
