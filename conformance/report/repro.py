"""The scripts of a verdict's failures as files: ``repro/<clause>.py``. Needs no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from conformance.verdict.verdict import broken_rows


def simplest(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each broken clause, must or should, the row with the simplest script."""
    rows: dict[str, dict[str, Any]] = {}
    for row in (*broken_rows(verdict), *broken_rows(verdict, "should")):
        if row["counterexample"]["script"]:
            known = rows.setdefault(row["id"], row)
            rows[row["id"]] = min(known, row, key=_size)
    return list(rows.values())


def write_scripts(folder: Path, verdict: dict[str, Any]) -> None:
    """Write them, and remove those of an earlier run. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.py"):
        path.unlink()
    for row in simplest(verdict):
        path = folder / f"{row['id']}.py"
        path.write_text(row["counterexample"]["script"], encoding="utf-8")


def _size(row: dict[str, Any]) -> float:
    """The elements of both operands; what has no case is an experiment, and comes last."""
    case = row["counterexample"]["case"]
    if case is None:
        return math.inf
    return float(sum(math.prod(case[operand]["shape"]) for operand in ("input", "target")))
