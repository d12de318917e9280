"""A verdict for people to read, in a terminal or as plain text. Works on its JSON, without torch.

Everything is laid out for a width in columns, so that a failure never takes more than a screen,
whatever the target says.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.clauses import BY_ID
from conformance.report.suggestions import suggestions
from conformance.verdict.provenance import LIBRARY, used
from conformance.verdict.verdict import BROKEN_STATUSES, broken_rows, reasons_of

Json = dict[str, Any]

DTYPES = ("float64", "float32", "float16", "bfloat16")
WIDTH = 100  # columns of plain text
SCREEN = 24  # lines: no failure takes more
WHOLE = 8  # broken clauses that are all shown in full
FIRST = 5  # where there are more, so many are
_LESS = "What it is not meant to support, its Target need not claim (see loss-conformance init):"
_LABEL = 13  # columns before the text of a failure's lines
_WIDE_TABLE = 76  # columns


def render(verdict: Json, sentences: dict[str, str], folder: Path | None = None) -> str:
    """The whole report as plain text; see :func:`report`. Its last line is never folded."""
    body = Group(*_spaced(_parts(verdict, sentences, folder, WIDTH)))
    return f"{plain(body)}{conclusion(verdict)}\n"


def plain(renderable: RenderableType, width: int = WIDTH) -> str:
    """Without colour or trailing blanks."""
    console = Console(
        file=io.StringIO(), width=width, color_system=None, force_terminal=False, _environ={}
    )
    with console.capture() as captured:
        console.print(renderable, end="")
    return "\n".join(line.rstrip() for line in captured.get().split("\n"))


def report(
    verdict: Json, sentences: dict[str, str], folder: Path | None, width: int
) -> RenderableType:
    """The whole report: header, table of families, failures, and the last line that says it all.

    ``sentences``: of each clause, by its id. ``folder``: where the target's report is written, if
    it is. ``width``: in columns.
    """
    style = "green" if verdict["conforms"] else "red" if broken_rows(verdict) else "yellow"
    last = Text(conclusion(verdict), f"bold {style}")
    return Group(*_spaced(_parts(verdict, sentences, folder, width)), last)


def _parts(
    verdict: Json, sentences: dict[str, str], folder: Path | None, width: int
) -> Iterator[RenderableType]:
    yield header(verdict)
    if verdict["clauses"]:
        yield _grid(verdict["clauses"], width)
    yield from _broken(verdict, sentences, folder, width)
    yield from _others(verdict["clauses"])
    if found := suggestions(verdict):
        yield Text("\n".join([_LESS, *(f"  {_clean(line)}" for line in found)]))


def _spaced(parts: Iterable[RenderableType]) -> Iterator[RenderableType]:
    """Each with an empty line after it."""
    for part in parts:
        yield part
        yield Text()


def header(verdict: Json) -> Text:
    """What was judged, and with what."""
    versions = ", ".join(f"{k} {v}" for k, v in verdict["environment"].items() if k != "platform")
    text = Text.assemble(
        (_clean(verdict["target"]), "bold"),
        f" on {verdict['device']} against {verdict['spec']} (loss-conformance {verdict['suite']}, "
        f"profile {verdict['profile']}, seed {seed_of(verdict)})",
    )
    if "nonce" in verdict.get("commitment", {}):
        text.append(f"\nSHA-256 of the seed, a space and {verdict['commitment']['nonce']} is ")
        text.append(verdict["commitment"]["sha256"])
    if versions:
        text.append(f"\n{versions}")
    if own := used(verdict.get("made_of", {"operators": [], "kernels": []}), LIBRARY):
        text.append(f"\nmade of torch's own loss: {_clean(', '.join(own))}")
    if tried := verdict.get("attempted"):
        text.append(f"\nthe sandbox kept it from this: {_clean(', '.join(tried))}")
    return text


def seed_of(verdict: Json) -> str:
    return "secret" if verdict["seed"] is None else str(verdict["seed"])


# -- the table ---------------------------------------------------------------------------------


def table(rows: list[Json]) -> str:
    """The table as plain text."""
    return plain(_grid(rows, WIDTH)).rstrip("\n")


def _grid(rows: list[Json], width: int) -> RenderableType:
    """Family × dtype: how many clauses pass, and the worst share of the permitted error.

    A line for each family, or where that is too wide one for each family and dtype.
    """
    cells: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for row in rows:
        cells[(row["id"].split(".")[0], row["dtype"])].append(row)
    families = list(dict.fromkeys(family for family, _ in cells))
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("family")
    if width >= _WIDE_TABLE:
        for dtype in DTYPES:
            grid.add_column(dtype, justify="right", min_width=13)
        for family in families:
            grid.add_row(family, *(_cell(cells.get((family, dtype), [])) for dtype in DTYPES))
    else:
        grid.add_column("dtype")
        grid.add_column("", justify="right")
        for family, dtype in cells:
            grid.add_row(family, dtype, _cell(cells[(family, dtype)]))
    legend = "(clauses that pass / apply; worst error as a share of what is permitted)"
    return Group(grid, Text(legend, "dim"))


def _cell(rows: list[Json]) -> Text:
    applied = [r for r in rows if r["status"] not in ("unclaimed", "not_in_profile")]
    if not applied:
        return Text(rows[0]["status"].replace("_", " ") if rows else "-", "dim")
    good = [r for r in applied if r["status"] == "pass"]
    musts = [r for r in applied if r["status"] in BROKEN_STATUSES and r["level"] == "must"]
    worst = [r["worst"] for r in good if r["worst"] is not None]
    share = f" {max(worst):.2f}" if worst and not musts else ""
    style = "red" if musts else "green" if len(good) == len(applied) else "yellow"
    return Text(f"{'FAIL ' if musts else ''}{len(good)}/{len(applied)}{share}", style)


# -- the failures ------------------------------------------------------------------------------


def failures(rows: list[Json], sentences: dict[str, str]) -> list[str]:
    """A block of plain text for each broken clause among ``rows``; see :func:`_block`."""
    groups = _by_clause(rows).items()
    return [
        plain(Group(*_block(clause, group, sentences, None, WIDTH))).rstrip("\n")
        for clause, group in groups
    ]


def _by_clause(rows: Iterable[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        found[row["id"]].append(row)
    return found


def _broken(
    verdict: Json, sentences: dict[str, str], folder: Path | None, width: int
) -> Iterator[RenderableType]:
    """The broken clauses: in full, and past a certain number in a line each.

    Those that are broken for one reason are one: the clause that tells it best, with the others.
    """
    causes = reasons_of(verdict)
    for level, title in (("must", "Broken"), ("should", "Not as it should be (no failure)")):
        every = _by_clause(broken_rows(verdict, level))
        groups = [(c, group) for c, group in every.items() if "because" not in group[0]]
        if not groups:
            continue
        whole = len(groups) if len(groups) <= WHOLE else FIRST
        style = _STYLES[level]
        yield Text(f"{title}: {_clauses(len(every), len(groups))}", style)
        for clause, group in groups[:whole]:
            lines = _block(clause, group, sentences, folder, width - 2, causes.get(clause))
            yield Group(*(Text.assemble("  ", line) for line in lines))
        if groups[whole:]:
            where = f"in {folder / 'verdict.json'}" if folder else "with --report DIR"
            yield Group(
                Text(f"The other {len(groups) - whole}, in full {where}:", style),
                *(_line(clause, group, width) for clause, group in groups[whole:]),
            )


_STYLES = {"must": "bold red", "should": "yellow"}


def _clauses(n: int, reasons: int) -> str:
    found = f"{n} clause{'s' * (n != 1)}"
    return found if reasons == n else f"{found}, for {reasons} reason{'s' * (reasons != 1)}"


def _block(
    clause: str,
    group: list[Json],
    sentences: dict[str, str],
    folder: Path | None,
    width: int,
    cause: Json | None = None,
) -> list[Text]:
    """A broken clause on one screen: what it says, the simplest case, got against permitted.

    ``cause``: the reason, and which others are broken for it. The script is shown if it fits, lines
    and all; else the block says where it is.
    """
    first = min(group, key=lambda r: _size(r["counterexample"]["case"]))
    found = first["counterexample"]
    got, _, permitted = found["message"].partition(", permitted: ")
    reason, *others = (cause["text"], *cause["clauses"][1:]) if cause else ("",)
    fields = [
        ("reason", reason, 2),
        ("breaks too", ", ".join(others), 3),
        ("claimed", " and ".join(sorted(_claims(clause))), 2),
        ("found", got, 6),
        ("permitted", permitted, 4),
        ("case", _case_text(found["case"]) if found["case"] else "", 4),
        ("likely", found.get("cause", {}).get("text", ""), 3),
    ]
    head = Text.assemble((clause, _STYLES[first["level"]]), f"  {_statuses(group)}")
    sentence = Text(_clean(sentences.get(clause, "")), "italic")
    lines = _fold(head, width, 2) + (_fold(sentence, width, 2) if sentence else [])
    for label, text, most in fields:
        lines += _field(label, Text(_clean(text)), width, most) if text else []
    script = found["script"].strip("\n").split("\n") if found["script"] else []
    if script and fits(script, width - 4, SCREEN - 2 - len(lines)):
        lines += [Text("  script", "bold"), *(Text(f"    {line}") for line in script)]
    elif script:
        lines += _field("script", Text(_where(clause, folder)), width, 3)
    return lines


def _claims(clause: str) -> frozenset[str]:
    """What a target claims for the clause to apply; none of one that this version does not know."""
    return BY_ID[clause].claims if clause in BY_ID else frozenset()


def _statuses(group: list[Json]) -> str:
    """``fail: float64, float32; crash: float16``."""
    dtypes: dict[str, list[str]] = defaultdict(list)
    for row in group:
        dtypes[row["status"]].append(row["dtype"])
    return "; ".join(f"{status}: {', '.join(which)}" for status, which in dtypes.items())


def fits(script: list[str], width: int, height: int) -> bool:
    """Whether these lines can be shown, and copied, as they are."""
    clean = all(line.isprintable() for line in script)
    return clean and len(script) <= height and max(map(len, script)) <= width


def _where(clause: str, folder: Path | None) -> str:
    return f"python {folder / 'repro' / clause}.py" if folder else "add --report DIR to get one"


def _field(label: str, text: Text, width: int, most: int) -> list[Text]:
    """``text`` in at most so many lines, behind its label."""
    folded = _fold(text, width - _LABEL, most)
    labels = [f"  {label:{_LABEL - 2}}", *[" " * _LABEL] * (len(folded) - 1)]
    return [Text.assemble((a, "bold"), b) for a, b in zip(labels, folded, strict=True)]


def _fold(text: Text, width: int, most: int) -> list[Text]:
    """``text`` in lines of this width; what is beyond ``most`` lines is cut off."""
    # A screen's worth of text is enough to fill these lines: the rest need not be laid out.
    lines = list(text[: width * (most + 1)].wrap(_MEASURE, max(width, 8), overflow="fold"))
    for line in lines:
        line.rstrip()
    if len(lines) > most:
        last = lines[most - 1]
        last.truncate(max(width, 8) - 2)
        last.append(" …")
    return lines[:most]


_MEASURE = Console(file=io.StringIO(), color_system=None, force_terminal=False, _environ={})


def _line(clause: str, group: list[Json], width: int) -> Text:
    """A broken clause in one line."""
    message = _clean(group[0]["counterexample"]["message"])
    text = Text.assemble("  ", (clause, _STYLES[group[0]["level"]]), f"  {_statuses(group)}")
    text.append(f"  {message}")
    text.truncate(width, overflow="ellipsis")
    return text


def _clean(text: str) -> str:
    """In one line, without what would steer a terminal or cannot be encoded."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _size(case: Json | None) -> int:
    return len(str(case)) if case else 0


def _case_text(case: Json) -> str:
    def operand(o: Json) -> str:
        return f"{o['dtype']}{o['shape']} {filling(o)}"

    def filling(o: Json) -> str:
        layout = "" if o["layout"] == "contiguous" else f"{o['layout']} "
        return f"{layout}{o['fill']['regime']}"

    target = "the input itself" if case["same"] else operand(case["target"])
    text = f"reduction={case['reduction']!r}, input {operand(case['input'])}, target {target}"
    if case["mode"] != "grad":
        text += f", mode {case['mode']}"
    elif any(case["needs"]):
        text += f", grad_output {filling(case['grad_output'])}"
    return text


# -- the rest ----------------------------------------------------------------------------------


def _others(rows: list[Json]) -> Iterator[RenderableType]:
    """What is waived, and what was not judged."""
    waived = [r for r in rows if r["status"] == "waived"]
    if waived:
        yield Group(Text("Waived:", "bold"), *map(_waived, waived))
    without: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        if row["status"] == "unavailable":
            without[row.get("message", "")].append(row)
    for why, which in without.items():
        title = f"Not judged, since {_clean(why)}" if why else "Without evidence"
        yield Text.assemble((f"{title}: ", "bold"), _cells(which))


def _waived(row: Json) -> Text:
    waiver = row["waiver"]
    link = f", {waiver['link']}" if waiver["link"] else ""
    reason = f"{row['id']} {row['dtype']} until {waiver['expires']}: {waiver['reason']}{link}"
    return Text(f"  {_clean(reason)}\n    {_clean(row['counterexample']['message'])}")


def _cells(rows: list[Json]) -> str:
    """A dozen of them by name; more by their families, with their numbers."""
    if len(rows) <= 12:
        return ", ".join(f"{r['id']} {r['dtype']}" for r in rows)
    families: dict[str, int] = defaultdict(int)
    for row in rows:
        families[row["id"].partition(".")[0]] += 1
    return ", ".join(f"{n} of {family}" for family, n in families.items())


def conclusion(verdict: Json) -> str:
    """The one line that says it all."""
    rows = verdict["clauses"]
    target = _clean(verdict["target"])
    if not rows:
        return f"{target} INCOMPLETE: the run did not end"
    cells = sum(1 for r in rows if r["examples"])
    ran = f"{verdict['examples']} cases, {cells} cells, {verdict['duration_s']:.1f} s"
    unclaimed = sorted({r["id"] for r in rows if r["status"] == "unclaimed"})
    only = "" if verdict["selected"] == "*" else f" as far as {verdict['selected']!r} goes"
    part = verdict.get("domain", "full")
    only += "" if part == "full" else f" for {part}"
    note = f"; {len(unclaimed)} clauses unclaimed for some dtype" if unclaimed else ""
    waived = sorted({r["id"] for r in rows if r["status"] == "waived"})
    note += f"; waived: {', '.join(waived)}" if waived else ""
    broken = sorted({r["id"] for r in broken_rows(verdict)})
    if broken:
        told = sorted({r["id"] for r in broken_rows(verdict) if "because" not in r})
        more = f" and {len(told) - 12} more" if len(told) > 12 else ""
        rest = len(broken) - len(told)
        more += f", for the same reason{'s' * (len(told) > 1)} {rest} more" if rest else ""
        return f"{target} DOES NOT CONFORM: {', '.join(told[:12])}{more} ({ran}{note})"
    if not verdict["complete"]:
        return f"{target} INCOMPLETE: a required cell has no evidence ({ran}{note})"
    return f"{target} CONFORMS{only} ({ran}{note})"
