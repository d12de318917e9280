"""What a target is made of, in its verdict: names of operators and kernels; what is forbidden."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.clauses import FORBIDDEN
from conformance.verdict.verdict import ClauseResult

# The operators of torch's own losses.
LIBRARY = ("aten::*_loss*", "aten::*cross_entropy*", "aten::kl_div*")


@dataclass(frozen=True)
class MadeOf:
    """What it ran in one dtype, and how many of its calls ``returned`` meanwhile.

    ``unknown``: why that cannot be said; empty where it can.
    """

    operators: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    returned: int = 0
    unknown: str = ""

    def to_json(self) -> dict[str, list[str]]:
        return {"operators": [*self.operators], "kernels": [*self.kernels]}


def together(parts: Iterable[MadeOf]) -> MadeOf | None:
    """Of all dtypes; None where none could be looked at."""
    known = [part for part in parts if part.returned]
    if not known:
        return None
    return MadeOf(
        tuple(sorted({name for part in known for name in part.operators})),
        tuple(sorted({name for part in known for name in part.kernels})),
        sum(part.returned for part in known),
    )


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of ``names`` that one of ``patterns``, as of files, is of."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def used(made_of: Mapping[str, Any], patterns: Sequence[str]) -> list[str]:
    """What of that which a verdict's JSON says it is made of matches."""
    return matching((*made_of["operators"], *made_of["kernels"]), patterns)


def rows(parts: Mapping[str, MadeOf], patterns: Sequence[str]) -> list[ClauseResult]:
    """Of the clause on what is forbidden, for each dtype."""
    return [_row(dtype, part, patterns) for dtype, part in parts.items()]


def _row(dtype: str, part: MadeOf, patterns: Sequence[str]) -> ClauseResult:
    found = matching((*part.operators, *part.kernels), patterns)
    status, message = "pass", ""
    if found:
        status = "fail"
        message = f"ran {', '.join(found)}, permitted: none of {', '.join(patterns)}"
    elif not part.returned:
        status, message = "unavailable", part.unknown or "no call returned"
    return ClauseResult(
        FORBIDDEN.id,
        FORBIDDEN.level,
        status,
        dtype,
        part.returned,
        message=message,
        self_reported=True,
    )
