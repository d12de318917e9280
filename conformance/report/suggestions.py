"""What a target might claim instead, where its loss raises for what it claims to support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.clauses import BY_ID
from conformance.verdict.verdict import broken_rows
from targets.target import CLAIMS, DTYPES, REDUCTIONS

Json = dict[str, Any]
PLAIN = {f"value.{reduction}": reduction for reduction in REDUCTIONS}
# Claims whose cases others are tried with: what lacks one of these may raise for all of them.
BASIC = frozenset({"broadcast", "empty", "mixed_dtype", "target_gradient"})
UNSUPPORTED = ("raised ", "no gradient for ")  # what a loss says of what it does not support


def suggestions(verdict: Json) -> list[str]:
    """Fields of its ``Target``, each with what was seen; empty where nothing raises.

    A loss that is wrong is not helped by claiming less: only where all that is broken of a dtype, a
    reduction or a claim is that it raises, that is what may be left out.
    """
    rows = verdict["clauses"]
    plain = [row for row in rows if row["id"] in PLAIN]
    dtypes = _raising(plain, lambda row: str(row["dtype"]), DTYPES)
    judged = {row["dtype"] for row in plain if _ran(row)}
    if dtypes >= judged:  # nothing works: it is not that it supports less
        return []
    plain = [row for row in plain if row["dtype"] not in dtypes]
    reductions = _raising(plain, lambda row: PLAIN[row["id"]], REDUCTIONS)
    found = []
    if dtypes:
        kept = [d for d in DTYPES if d in judged - dtypes]
        found.append(f"dtypes={_tuple(kept)}: it raises for {_list(dtypes, DTYPES)}")
    asked = {PLAIN[row["id"]] for row in plain if _ran(row)}
    if reductions and reductions < asked:
        kept = [r for r in REDUCTIONS if r in asked - reductions]
        found.append(f"reductions={_tuple(kept)}: it raises for {_list(reductions, REDUCTIONS)}")
    others = [row for row in broken_rows(verdict) if row["dtype"] not in dtypes]
    basic = _claims(others, BASIC - {"mixed_dtype"} if dtypes else BASIC)
    return [*found, *basic] if found or basic else _claims(others, CLAIMS - BASIC)


def _claims(broken: list[Json], among: frozenset[str]) -> list[str]:
    """Those to leave out: of which every broken clause that asks for nothing else raises."""
    seen = {
        claim: [row for row in broken if BY_ID[row["id"]].claims == {claim}]
        for claim in sorted(among)
    }
    dropped = [c for c, rows in seen.items() if rows and all(_unsupported(row) for row in rows)]
    if not dropped:
        return []
    said = "; ".join(f"{c}: {_message(seen[c][0]).splitlines()[0]}" for c in dropped)
    names = ", ".join(f'"{claim}"' for claim in dropped)
    return [f"claims=DROP_IN - {{{names}}}: {said}"]


def _raising(rows: list[Json], of: Callable[[Json], str], known: tuple[str, ...]) -> set[str]:
    """Those of ``known`` of which there are rows that ran, and every one of these raises."""
    groups = {value: [r for r in rows if of(r) == value and _ran(r)] for value in known}
    return {value for value, own in groups.items() if own and all(map(_unsupported, own))}


def _ran(row: Json) -> bool:
    return row["status"] in ("pass", "fail", "crash", "timeout", "waived")


def _unsupported(row: Json) -> bool:
    message = _message(row)
    return row["status"] == "fail" and any(words in message for words in UNSUPPORTED)


def _message(row: Json) -> str:
    return str(row.get("counterexample", {}).get("message", ""))


def _tuple(values: list[str]) -> str:
    inside = ", ".join(f'"{value}"' for value in values)
    return f"({inside}{',' * (len(values) == 1)})"


def _list(values: set[str], order: tuple[str, ...]) -> str:
    return " and ".join(value for value in order if value in values)
