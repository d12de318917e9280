"""A verdict as text. Works on the JSON of a verdict, so it needs no torch."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from conformance.verdict import BROKEN_STATUSES, broken_rows

DTYPES = ("float64", "float32", "float16", "bfloat16")


def render(verdict: dict[str, Any], sentences: dict[str, str]) -> str:
    """The whole report: header, table of families, failures, and the last line that says it all."""
    rows = verdict["clauses"]
    parts = [header(verdict), table(rows)]
    for level, title in (("must", "Broken"), ("should", "Not as it should be (no failure)")):
        broken = broken_rows(verdict, level)
        if broken:
            parts.append(f"{title}:\n\n" + "\n\n".join(failures(broken, sentences)))
    waived = [r for r in rows if r["status"] == "waived"]
    if waived:
        parts.append("Waived:\n\n" + "\n".join(map(_waived, waived)))
    without: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] == "unavailable":
            without[row.get("message", "")].append(f"{row['id']} {row['dtype']}")
    for why, which in without.items():
        title = f"Not judged, since {why}" if why else "Without evidence"
        parts.append(f"{title}: {', '.join(which[:12])}" + _more(which, 12))
    parts.append(conclusion(verdict))
    return "\n\n".join(parts) + "\n"


def header(verdict: dict[str, Any]) -> str:
    environment = verdict["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in environment.items() if k != "platform")
    return (
        f"{verdict['target']} on {verdict['device']} against {verdict['spec']} "
        f"(loss-conformance {verdict['suite']}, profile {verdict['profile']}, "
        f"seed {verdict['seed']})\n{versions}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Family × dtype: how many clauses pass, and the worst share of the permitted error."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[(row["id"].split(".")[0], row["dtype"])].append(row)
    families = list(dict.fromkeys(family for family, _ in cells))
    lines = [f"{'':14}" + "".join(f"{d:>18}" for d in DTYPES)]
    for family in families:
        texts = [_cell(cells.get((family, dtype), [])) for dtype in DTYPES]
        lines.append(f"{family:14}" + "".join(f"{t:>18}" for t in texts))
    lines.append("(clauses that pass / apply; worst error as a share of what is permitted)")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]]) -> str:
    applied = [r for r in rows if r["status"] not in ("unclaimed", "not_in_profile")]
    if not applied:
        return rows[0]["status"].replace("_", " ") if rows else "-"
    good = [r for r in applied if r["status"] == "pass"]
    musts = [r for r in applied if r["status"] in BROKEN_STATUSES and r["level"] == "must"]
    worst = [r["worst"] for r in good if r["worst"] is not None]
    share = f" {max(worst):.2f}" if worst and not musts else ""
    return f"{'FAIL ' if musts else ''}{len(good)}/{len(applied)}{share}"


def failures(rows: list[dict[str, Any]], sentences: dict[str, str]) -> list[str]:
    """A block for each broken clause: its sentence, the simplest case, got against permitted."""
    by_clause: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_clause[row["id"]].append(row)
    return [_block(clause, group, sentences) for clause, group in by_clause.items()]


def _block(clause: str, group: list[dict[str, Any]], sentences: dict[str, str]) -> str:
    first = min(group, key=lambda r: _size(r["counterexample"]["case"]))
    found = first["counterexample"]
    dtypes = ", ".join(r["dtype"] for r in group)
    lines = [f"  {clause} [{first['status']}: {dtypes}]  {sentences.get(clause, '')}"]
    lines.append(f"    {found['message']}")
    if found["case"]:
        lines.append(f"    case: {_case_text(found['case'])}")
    if found["script"]:
        lines += [
            "    script:",
            *(f"      {_cut(line)}" for line in found["script"].splitlines()[2:]),
        ]
    return "\n".join(lines)


def _waived(row: dict[str, Any]) -> str:
    waiver = row["waiver"]
    link = f", {waiver['link']}" if waiver["link"] else ""
    return (
        f"  {row['id']} {row['dtype']} until {waiver['expires']}: {waiver['reason']}{link}\n"
        f"    {row['counterexample']['message']}"
    )


def _size(case: dict[str, Any] | None) -> int:
    return len(str(case)) if case else 0


def _cut(line: str, width: int = 200) -> str:
    return line if len(line) <= width else line[: width - 20] + " … (see verdict.json)"


def _case_text(case: dict[str, Any]) -> str:
    def operand(o: dict[str, Any]) -> str:
        layout = "" if o["layout"] == "contiguous" else f" {o['layout']}"
        return f"{o['dtype']}{o['shape']}{layout} {o['fill']['regime']}#{o['fill']['seed']}"

    target = "the input itself" if case["same"] else operand(case["target"])
    text = f"reduction={case['reduction']!r}, input {operand(case['input'])}, target {target}"
    if case["mode"] != "grad":
        text += f", mode {case['mode']}"
    elif any(case["needs"]):
        g = case["grad_output"]
        text += f", grad_output {g['layout']} {g['fill']['regime']}#{g['fill']['seed']}"
    return text


def conclusion(verdict: dict[str, Any]) -> str:
    rows = verdict["clauses"]
    cells = sum(1 for r in rows if r["examples"])
    ran = f"{verdict['examples']} cases, {cells} cells, {verdict['duration_s']:.1f} s"
    unclaimed = sorted({r["id"] for r in rows if r["status"] == "unclaimed"})
    only = "" if verdict["selected"] == "*" else f" as far as {verdict['selected']!r} goes"
    note = f"; {len(unclaimed)} clauses unclaimed for some dtype" if unclaimed else ""
    waived = sorted({r["id"] for r in rows if r["status"] == "waived"})
    note += f"; waived: {', '.join(waived)}" if waived else ""
    broken = sorted({r["id"] for r in broken_rows(verdict)})
    if broken:
        return f"{verdict['target']} DOES NOT CONFORM: {', '.join(broken)} ({ran}{note})"
    if not verdict["complete"]:
        return f"{verdict['target']} INCOMPLETE: a required cell has no evidence ({ran}{note})"
    return f"{verdict['target']} CONFORMS{only} ({ran}{note})"


def _more(items: list[str], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""
