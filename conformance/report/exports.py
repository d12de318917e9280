"""A verdict in other forms: HTML, JUnit XML, Markdown, a badge, and annotations for GitHub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from conformance.clauses import sentence_of
from conformance.report.text import conclusion, table
from conformance.verdict.verdict import BROKEN_STATUSES, broken_rows, reasons_of

Json = dict[str, Any]


def export(folder: Path, verdict: Json) -> None:
    """Write report.html, junit.xml, summary.md and badge.json beside it. Raises OSError."""
    from conformance.report.html import page  # Jinja is slow to import, and nothing else needs it

    (folder / "report.html").write_text(page([verdict]), encoding="utf-8")
    (folder / "junit.xml").write_text(junit(verdict), encoding="utf-8")
    (folder / "summary.md").write_text(summary(verdict), encoding="utf-8")
    (folder / "badge.json").write_text(json.dumps(badge(verdict)) + "\n", encoding="utf-8")


def write_observations(folder: Path, shards: Mapping[str, Iterable[Json]]) -> None:
    """Write observations.jsonl, shard by shard in the order of their names. Raises OSError."""
    with (folder / "observations.jsonl").open("w", encoding="utf-8") as file:
        for name in sorted(shards):
            file.writelines(json.dumps(line) + "\n" for line in shards[name])


def withdraw(folder: Path) -> None:
    """Remove what an earlier run wrote beside its verdict. Raises OSError."""
    written = ("report.html", "junit.xml", "summary.md", "badge.json", "observations.jsonl")
    for name in (*written, "verdict.dsse.json"):
        (folder / name).unlink(missing_ok=True)
    for script in folder.glob("repro/*.py"):
        script.unlink()


def junit(verdict: Json) -> str:
    """A test suite with a test case for each clause and dtype.

    A broken ``must`` is a failure, the first of those that are broken for one reason; what has no
    evidence is an error; all other broken ones, a waived and an unclaimed row are skipped, with the
    reason.
    """
    rows, causes = verdict["clauses"], reasons_of(verdict)
    outcomes = [_outcome(row, causes) for row in rows]
    suite = ElementTree.Element(
        "testsuite",
        name=f"{verdict['target']} on {verdict['device']}",
        tests=str(len(rows)),
        failures=str(sum(kind == "failure" for kind, _ in outcomes)),
        errors=str(sum(kind == "error" for kind, _ in outcomes)),
        skipped=str(sum(kind == "skipped" for kind, _ in outcomes)),
        time=f"{verdict['duration_s']:.3f}",
        timestamp=verdict["created"],
    )
    for row, (kind, message) in zip(rows, outcomes, strict=True):
        name = f"{row['id']}[{row['dtype']}]"
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"conformance.{verdict['target']}", name=name
        )
        if kind:
            found = ElementTree.SubElement(case, kind, message=printable(message))
            found.text = printable(row.get("counterexample", {}).get("script", ""))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _outcome(row: Json, causes: Mapping[str, Json]) -> tuple[str, str]:
    """The element of JUnit for a row, empty for a pass, and its message."""
    message = row.get("counterexample", row).get("message", "")
    if "because" in row:
        return "skipped", f"broken for the reason of {row['because']}: {message}"
    others = causes.get(row["id"], {"clauses": []})["clauses"][1:]
    if others and row["status"] in BROKEN_STATUSES:
        reason = causes[row["id"]]["text"]
        message += f" ({reason} It breaks too: {', '.join(others)})"
    if row["status"] == "pass":
        return "", ""
    if row["status"] in BROKEN_STATUSES and row["level"] == "must":
        return "failure", f"{row['status']}: {message}"
    if row["status"] == "unavailable":
        return "error", message or "no evidence"
    return "skipped", f"{row['status'].replace('_', ' ')}: {message}".rstrip(": ")


def printable(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def summary(verdict: Json) -> str:
    """For people, in Markdown: what was found, the table, and a line for each broken clause."""
    mark = "✅" if verdict["conforms"] else "❌" if broken_rows(verdict) else "⚠️"
    lines = [
        f"### {mark} {_cell(conclusion(verdict))}",
        "",
        "```",
        table(verdict["clauses"]),
        "```",
    ]
    if broken := broken_rows(verdict):
        lines += ["", "| clause | dtype | found |", "|---|---|---|"]
        causes = reasons_of(verdict)
        lines += [
            f"| `{r['id']}` | {r['dtype']} | {_cell(r['counterexample']['message'])}"
            f"{_covered(causes.get(r['id']))} |"
            for r in broken
            if "because" not in r
        ]
    return "\n".join(lines) + "\n"


def _covered(cause: Json | None) -> str:
    """What else is broken for the same reason."""
    if cause is None or len(cause["clauses"]) < 2:
        return ""
    others = ", ".join(f"`{clause}`" for clause in cause["clauses"][1:])
    return f"<br>{_cell(cause['text'])} It breaks too: {others}"


def _cell(text: str) -> str:
    """``text`` as one cell of a table in Markdown."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def badge(verdict: Json) -> Json:
    """The endpoint format of shields.io."""
    conforms, broken = verdict["conforms"], {r["id"] for r in broken_rows(verdict)}
    part = "" if verdict.get("domain", "full") == "full" else f" for {verdict['domain']}"
    message = f"conforms{part}" if conforms else f"{len(broken)} broken" if broken else "incomplete"
    color = "brightgreen" if conforms else "red" if broken else "yellow"
    label = f"{verdict['spec']}: {verdict['target']}"
    return {"schemaVersion": 1, "label": label, "message": message, "color": color}


def announce(verdict: Json, environ: Mapping[str, str]) -> None:
    """In a GitHub workflow: annotations on standard output, and the summary of the job."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in workflow_commands(verdict):
        print(line)
    if path := environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(summary(verdict) + "\n")


def workflow_commands(verdict: Json) -> Iterator[str]:
    """A workflow command for each broken clause, its dtypes together."""
    told = (r["id"] for r in broken_rows(verdict) if "because" not in r)
    for clause in dict.fromkeys(told):
        rows = [r for r in broken_rows(verdict) if r["id"] == clause]
        dtypes = ", ".join(r["dtype"] for r in rows)
        message = f"{sentence_of(clause)} {rows[0]['counterexample']['message']}"
        title = _escaped(f"{verdict['target']} breaks {clause} ({dtypes})")
        title = title.replace(":", "%3A").replace(",", "%2C")
        yield f"::error title={title}::{_escaped(message)}"


def _escaped(text: str) -> str:
    """As workflow commands want it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
