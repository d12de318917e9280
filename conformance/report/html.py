"""Verdicts as one self-contained HTML page: works from a file, asks nothing of any network.

What a verdict holds may come from strangers: every text goes through Jinja's escaping, and the page
forbids itself all scripts but its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conformance.cases.case import FLOAT_DTYPES, Case, cost
from conformance.clauses import BY_ID
from conformance.report.charts import accuracy_chart, coverage_map, where_picture, where_words
from conformance.report.text import seed_of
from conformance.verdict.verdict import BROKEN_STATUSES, broken_rows, reasons_of

Json = dict[str, Any]

SCRIPTS = 250_000  # characters of scripts in a page, shared out between its verdicts
SCRIPT = 12_000  # of one script
MESSAGE = 400  # of one message
WIDE = 8  # columns of the matrix, up to which its cells have room for figures

TEMPLATES = Path(__file__).parent / "templates"
HOME = Path(__file__).parents[2]  # of this project's own packages
SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}
STATES = {
    "conforms": "conforms",
    "broken": "does not conform",
    "incomplete": "is incomplete",
}


@dataclass(frozen=True)
class Kind:
    """What a cell of the matrix can be: its sign there, and in words."""

    key: str
    sign: str
    words: str


KINDS = {
    kind.key: kind
    for kind in (
        Kind("fail", "✗", "broken"),
        Kind("crash", "†", "crashed"),
        Kind("timeout", "…", "timed out"),
        Kind("stale", "≠", "stale waiver"),
        Kind("should", "⚠\ufe0e", "broken should"),
        Kind("waived", "~", "waived"),
        Kind("unavailable", "?", "not judged"),
        Kind("pass", "✓", "passed"),
        Kind("unclaimed", "–", "not claimed"),
        Kind("not_in_profile", "·", "not in this profile"),
    )
}


def kind_of(row: Json) -> Kind:
    """A broken ``should`` is a kind of its own: it changes nothing."""
    lenient = row["level"] == "should" and row["status"] in BROKEN_STATUSES
    return KINDS["should" if lenient else row["status"]]


@dataclass(frozen=True)
class Broken:
    """A clause that a target breaks, in all its dtypes. ``first``: the row of the simplest case."""

    id: str
    kind: Kind
    rows: tuple[Json, ...]
    first: Json
    script: str
    note: str  # why there is no script
    reason: str = ""
    covers: tuple[str, ...] = ()  # the other clauses that are broken for that

    @property
    def found(self) -> Json:
        found: Json = self.first["counterexample"]
        return found

    @property
    def parts(self) -> dict[str, str]:
        return message_parts(self.found["message"])

    @property
    def picture(self) -> Markup | None:
        return where_picture(self.found["where"]) if self.found.get("where") else None

    @property
    def where(self) -> str:
        """Which elements are wrong; empty where there is but one."""
        where = self.found.get("where")
        return where_words(where) if where and math.prod(where["shape"]) > 1 else ""

    @property
    def others(self) -> dict[tuple[str, str], list[str]]:
        """The other dtypes, by their status and message."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row is not self.first:
                key = (row["status"], row["counterexample"]["message"])
                found.setdefault(key, []).append(row["dtype"])
        return found


@dataclass(frozen=True)
class Column:
    """One column of the matrix: a verdict and a dtype."""

    view: int
    dtype: str
    rows: dict[str, Json]  # by clause

    @property
    def short(self) -> str:
        return SHORT.get(self.dtype, self.dtype)


class View:
    """One verdict as the page shows it."""

    def __init__(self, verdict: Json, index: int, scripts: int, name_device: bool) -> None:
        self.verdict, self.index, self.slug = verdict, index, f"v{index}"
        self.name = verdict["target"]
        self.device = verdict["device"] if name_device else ""
        self.rows: list[Json] = verdict["clauses"]
        broken = broken_rows(verdict)
        self.state = "conforms" if verdict["conforms"] else "broken" if broken else "incomplete"
        self.title = STATES[self.state]
        told = [r for r in broken + broken_rows(verdict, "should") if "because" not in r]
        causes = reasons_of(verdict)
        self.broken = [
            replace(b, reason=causes[b.id]["text"], covers=tuple(causes[b.id]["clauses"][1:]))
            if b.id in causes
            else b
            for b in _broken(told, scripts)
        ]
        self.breaks = len({r["id"] for r in broken})
        self.musts = [b for b in self.broken if b.kind.key != "should"]
        self.shoulds = [b for b in self.broken if b.kind.key == "should"]
        self.waived = [r for r in self.rows if r["status"] == "waived"]
        self.dtypes = [d for d in FLOAT_DTYPES if any(r["dtype"] == d for r in self.rows)]
        self.columns = [
            Column(index, d, {r["id"]: r for r in self.rows if r["dtype"] == d})
            for d in self.dtypes
        ]

    @property
    def judged(self) -> int:
        """How many clauses have evidence in some dtype."""
        return len({r["id"] for r in self.rows if r["examples"]})

    @property
    def reasons(self) -> list[tuple[str, list[str]]]:
        """What was not judged, by the reason."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row["status"] == "unavailable":
                found.setdefault(row.get("message", ""), []).append(f"{row['id']} {row['dtype']}")
        return list(found.items())

    @property
    def command(self) -> str:
        """What repeats the run."""
        verdict = self.verdict
        words = ["loss-conformance", "check", verdict["source"] or verdict["target"]]
        words += ["--profile", verdict["profile"], "--seed", seed_of(verdict)]
        words += [] if verdict["device"] == "cpu" else ["--device", verdict["device"]]
        words += [] if verdict["selected"] == "*" else ["--clause", verdict["selected"]]
        return shlex.join(words)

    @property
    def accuracy(self) -> list[tuple[str, list[Markup]]]:
        """For each axis its charts, a dtype each."""
        rows = self.verdict.get("accuracy", [])
        found = []
        for axis, words in (("size", "number of elements"), ("exponent", "largest |x − y|")):
            charts = [accuracy_chart(rows, dtype, axis) for dtype in FLOAT_DTYPES]
            found.append((words, [chart for chart in charts if chart is not None]))
        return [(words, charts) for words, charts in found if charts]

    @property
    def coverage(self) -> Markup | None:
        return coverage_map(self.verdict.get("coverage", []), self.dtypes)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a reader needs to tell this run from another."""
        v = self.verdict
        known = [
            ("target", v["target"]),
            ("source", v["source"]),
            ("fingerprint", v["fingerprint"][:16]),
            ("device", v["device"]),
            ("profile", v["profile"]),
            ("seed", seed_of(v)),
            ("committed to by", v.get("commitment", {}).get("sha256", "")[:16]),
            ("clauses", "" if v["selected"] == "*" else v["selected"]),
            ("domain", "" if v.get("domain", "full") == "full" else v["domain"]),
            ("isolation", v.get("isolation", "")),
            ("tried in the sandbox", ", ".join(v.get("attempted", []))),
            ("made of", ", ".join(name for part in v.get("made_of", {}).values() for name in part)),
            ("forbidden", ", ".join(v.get("forbidden", []))),
            ("cases", f"{v['examples']:,} in {v['duration_s']:.1f} s"),
            ("cases' digest", v["cases"][:16]),
            *v["environment"].items(),
            ("spec", v["spec"]),
            ("loss-conformance", v["suite"]),
            ("commit", v["commit"]),
            ("made", v["created"]),
        ]
        return [(name, text) for name, text in known if text]


def _broken(rows: Sequence[Json], scripts: int) -> Iterator[Broken]:
    """A block for each broken clause; scripts as long as there is room for them."""
    for id in dict.fromkeys(r["id"] for r in rows):
        group = tuple(r for r in rows if r["id"] == id)
        first = min(group, key=_simplicity)
        script, note = first["counterexample"]["script"], ""
        if len(script) > min(SCRIPT, scripts):
            script, note = "", f"The script has {len(script):,} characters: see verdict.json."
        scripts -= len(script)
        yield Broken(id, kind_of(first), group, first, script, note)


def _simplicity(row: Json) -> tuple[Any, ...]:
    case = _case(row["counterexample"]["case"])
    return (case is None, cost(case) if case else ())


def _case(data: Json | None) -> Case | None:
    return Case.from_json(data) if data else None


_MESSAGE = re.compile(
    r"(?P<of>.+) is (?P<got>.+?), permitted: (?P<permitted>.+?)(?: \((?P<count>\d+ of .*)\))?"
)


def message_parts(message: str) -> dict[str, str]:
    """``of``, ``got`` and ``permitted``; all empty where the message says something else."""
    match = _MESSAGE.fullmatch(message)
    return match.groupdict("") if match else dict.fromkeys(_MESSAGE.groupindex, "")


@dataclass(frozen=True)
class ClauseView:
    """A clause over all columns."""

    id: str
    level: str
    sentence: str
    why: str
    cells: tuple[Json | None, ...]

    @property
    def kinds(self) -> list[Kind]:
        """Those of its cells, the most serious first."""
        present = {kind_of(row).key for row in self.cells if row}
        return [kind for key, kind in KINDS.items() if key in present]


@dataclass(frozen=True)
class Evidence:
    """What one verdict says of a clause: a line of text, and the worst passing case."""

    view: View
    words: str
    broken: bool
    case: str
    told: str  # the clause by which that is told: itself, or that of the same reason


def _evidence(clause: ClauseView, columns: Sequence[Column], view: View) -> Evidence | None:
    """None where ``view`` has no row for the clause."""
    pairs = zip(columns, clause.cells, strict=True)
    rows = [row for column, row in pairs if row and column.view == view.index]
    if not rows:
        return None
    dtypes: dict[Kind, list[str]] = {}
    for row in rows:
        dtypes.setdefault(kind_of(row), []).append(row["dtype"])
    words = ", ".join(f"{kind.words} in {', '.join(found)}" for kind, found in dtypes.items())
    measured = [r for r in rows if r["worst"] is not None]
    told = next((r["because"] for r in rows if "because" in r), clause.id)
    if not measured:
        return Evidence(view, words, any("counterexample" in r for r in rows), "", told)
    worst = max(measured, key=lambda r: float(r["worst"]))
    words += f"; worst error {worst['worst']:.2f} of what is permitted, in {worst['dtype']}"
    case = str(_case(worst["worst_case"])) if "worst_case" in worst else ""
    return Evidence(view, words, any("counterexample" in r for r in rows), case, told)


@functools.cache
def reasons() -> dict[str, str]:
    """Why each clause is there, from SPEC.md."""
    text = (HOME / "reference" / "SPEC.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| (?:must|should) \| .+? \| (.+?) \|$", text, re.M)
    return dict(rows)


def _families(columns: Sequence[Column]) -> list[tuple[str, list[ClauseView]]]:
    """All clauses that some column has a row for, in the order of the verdicts, by family."""
    found: dict[str, list[ClauseView]] = {}
    order = {id: place for place, id in enumerate(BY_ID)}
    ids = dict.fromkeys(id for column in columns for id in column.rows)
    for id in sorted(ids, key=lambda id: order.get(id, len(order))):
        cells = tuple(column.rows.get(id) for column in columns)
        level = next(row["level"] for row in cells if row)
        sentence = BY_ID[id].sentence if id in BY_ID else ""
        clause = ClauseView(id, level, sentence, reasons().get(id, ""), cells)
        found.setdefault(id.partition(".")[0], []).append(clause)
    return list(found.items())


def page(verdicts: Sequence[Json]) -> str:
    """The page for these verdicts, side by side."""
    devices = {v["device"] for v in verdicts}
    share = SCRIPTS // max(len(verdicts), 1)
    views = [View(v, i, share, len(devices) > 1) for i, v in enumerate(verdicts)]
    columns = [column for view in views for column in view.columns]
    families = _families(columns)
    by_id = {clause.id: clause for _, group in families for clause in group}

    def evidence(clause: ClauseView) -> list[Evidence]:
        found = (_evidence(clause, columns, view) for view in views)
        return [line for line in found if line is not None]

    counts = Counter(kind.key for clause in by_id.values() for kind in clause.kinds)
    style, script = (inlined(name) for name in ("report.css", "report.js"))
    text = (
        _environment()
        .get_template("report.html")
        .render(
            views=views,
            columns=columns,
            families=families,
            by_id=by_id,
            evidence=evidence,
            clauses=sum(len(group) for _, group in families),
            kinds=[(kind, counts[key]) for key, kind in KINDS.items() if counts[key]],
            wide=len(columns) <= WIDE,
            title=_title(views),
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src {content_hash(style)}; "
            f"script-src {content_hash(script)}; img-src data:; "
            "base-uri 'none'; form-action 'none'",
        )
    )
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()  # what a target said


def _title(views: Sequence[View]) -> str:
    if len(views) == 1:
        return f"{views[0].name} {views[0].title}"
    good = sum(view.state == "conforms" for view in views)
    return f"{good} of {len(views)} verdicts conform"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = kind_of
    environment.filters["case"] = lambda data: str(_case(data)) if data else ""
    environment.filters["short"] = lambda dtype: SHORT.get(dtype, dtype)
    environment.filters["cut"] = _cut
    return environment


def _cut(text: str, length: int = MESSAGE) -> str:
    return text if len(text) <= length else text[:length] + " …"


@functools.cache
def inlined(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """As a Content-Security-Policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
