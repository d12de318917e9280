"""A campaign for machines: JSON lines, Parquet, JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from conformance.report.campaign import CampaignRow
from conformance.report.exports import printable
from conformance.verdict.outcome import BROKEN, CONFORMS

Json = dict[str, Any]


def line(row: CampaignRow) -> Json:
    """One kernel: ``correct`` (1, 0, or null where nothing was found out), ``reason`` in one word,
    and what else is known of it."""
    outcome = row.outcome
    return {
        "name": row.name,
        "kernel": row.kernel,
        "correct": outcome.correct,
        "reason": outcome.reason,
        "outcome": outcome.outcome,
        "stage": row.stage,
        "clause": outcome.clause or None,
        "dtype": outcome.dtype or None,
        "cause": outcome.cause or None,
        "message": outcome.message or None,
        "case": json.dumps(outcome.case) if outcome.case else None,
        "script": outcome.script or None,
        "compiling_s": round(row.compiling, 3),
        "seconds": round(row.seconds, 3),
        "ended": row.ended,
    }


def jsonl(rows: Iterable[CampaignRow]) -> str:
    return "".join(json.dumps(line(row)) + "\n" for row in rows)


def write_parquet(path: Path, rows: Sequence[CampaignRow]) -> bool:
    """Whether it could be: it takes pyarrow. Raises OSError."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return False
    texts = ("name", "kernel", "reason", "outcome", "stage", "clause", "dtype", "cause", "message")
    fields = [(name, pa.string()) for name in (*texts, "case", "script")]
    fields += [(name, pa.float64()) for name in ("compiling_s", "seconds", "ended")]
    schema = pa.schema([*fields, ("correct", pa.int8())])
    parquet.write_table(pa.Table.from_pylist([line(row) for row in rows], schema), path)
    return True


def junit(rows: Sequence[CampaignRow], spec: str) -> str:
    """A test case for each kernel: broken is a failure, unclear an error."""
    broken = sum(row.outcome.outcome == BROKEN for row in rows)
    unclear = sum(row.outcome.correct is None for row in rows)
    suite = ElementTree.Element(
        "testsuite",
        name=f"campaign against {spec}",
        tests=str(len(rows)),
        failures=str(broken),
        errors=str(unclear),
        time=f"{sum(row.seconds for row in rows):.3f}",
    )
    for row in rows:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"campaign.{row.stage}",
            name=printable(row.name),
            time=f"{row.seconds:.3f}",
        )
        if row.outcome.outcome != CONFORMS:
            kind = "failure" if row.outcome.outcome == BROKEN else "error"
            told = f"{row.outcome.clause or row.outcome.reason}: {row.outcome.message}"
            found = ElementTree.SubElement(case, kind, message=printable(told))
            found.text = printable(row.outcome.script)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
