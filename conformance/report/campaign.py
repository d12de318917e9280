"""A campaign for people: one self-contained page, which opens at once however many kernels it has.

What is known of each kernel in a line is in the page as it is; the rest (case, script, source) is
compressed, some kernels together, and is unpacked where somebody looks. Every text may come from
strangers: the page writes it as text, and forbids itself all scripts but its own.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conformance.cases.case import Case
from conformance.clauses import BY_ID
from conformance.report.charts import Picture
from conformance.report.html import TEMPLATES, content_hash, inlined
from conformance.verdict.outcome import BROKEN, CONFORMS, OUTCOMES, WORDS, Outcome
from conformance.verdict.verdict import now

Json = dict[str, Any]
TOGETHER = 64  # kernels whose texts are compressed at once: alike ones take next to nothing
LISTED = 50_000  # kernels; all are counted
LONGEST = 20_000  # characters of one source or script
BETWEEN, SHORTEST = "\n\n\n", 40  # what is between blocks of a text; characters of one
MESSAGE = 300  # of a message
BARS, GAP = 60, 600.0  # of the plot; seconds without a kernel: nobody was at work


@dataclass(frozen=True)
class CampaignRow:
    """One kernel, and the last stage that it came to. ``begun``, ``ended``: seconds since 1970, of
    its first and its last verdict."""

    name: str
    kernel: str
    target: str
    source: str
    stage: str
    outcome: Outcome
    compiling: float
    seconds: float
    begun: float
    ended: float


@dataclass(frozen=True)
class Defect:
    """What several kernels have in common: the clause that they break, and the likely cause."""

    clause: str
    cause: str
    words: str
    count: int
    sentence: str


def page(
    rows: Sequence[CampaignRow], spec: str, commitment: str, phrases: Mapping[str, str]
) -> str:
    """The whole page. ``phrases``: what each cause means."""
    places: dict[tuple[str, str], int] = {}
    counts = Counter(_defect(row.outcome) for row in rows if row.outcome.outcome == BROKEN)
    defects: list[Defect] = []
    for (clause, cause), count in counts.most_common():
        places[clause, cause] = len(defects)
        known = BY_ID.get(clause)
        words = phrases.get(cause) or WORDS.get(cause, "")
        defects.append(Defect(clause, cause, words, count, known.sentence if known else ""))
    shown = rows[:LISTED]
    kernels = [
        [
            row.name,
            OUTCOMES.index(row.outcome.outcome),
            places.get(_defect(row.outcome), -1),
            row.stage,
            round(row.seconds, 1),
            _cut(row.outcome.message, MESSAGE),
        ]
        for row in shown
    ]
    found = Counter(row.outcome.outcome for row in rows)
    data = {"kernels": kernels, "defects": [[d.clause, d.words, d.count] for d in defects]}
    style = inlined("report.css") + inlined("campaign.css")
    script = inlined("campaign.js")
    text = (
        _environment()
        .get_template("campaign.html")
        .render(
            rows=len(rows),
            listed=len(shown),
            found={outcome: found[outcome] for outcome in OUTCOMES},
            reasons=_reasons(rows),
            defects=defects,
            spec=spec,
            commitment=commitment,
            created=now(),
            plot=throughput(rows),
            data=Markup(_embedded(data)),
            packs=[Markup(pack) for pack in _packs(shown)],
            together=TOGETHER,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src {content_hash(style)}; "
            f"script-src {content_hash(script)}; img-src data:; base-uri 'none'; "
            "form-action 'none'",
        )
    )
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def throughput(rows: Iterable[CampaignRow]) -> Markup | None:
    """Kernels an hour, as time went on; the time in which nobody was at work is left out."""
    ends = sorted(row.begun for row in rows)
    if len(ends) < 2:
        return None
    at, elapsed = [0.0], 0.0
    for before, after in itertools.pairwise(ends):
        step = after - before
        elapsed += step if step < GAP else 0.0
        at.append(elapsed)
    width = max(elapsed / BARS, 1e-9)
    counts = Counter(min(int(t / width), BARS - 1) for t in at)
    most = max(counts.values())
    rate = 3600 * len(ends) / max(elapsed, 1e-9)
    text = f"{rate:,.0f} kernels an hour on the whole, {3600 * most / width:,.0f} at most"
    picture = Picture("throughput", (640.0, 150.0), "Kernels judged an hour", text)
    for k in range(BARS):
        height = 100.0 * counts[k] / most
        picture.add("rect", "bar", x=40.0 + 10 * k, y=120.0 - height, width=8.0, height=height)
    mean = 120.0 - 100.0 * min(len(ends) / BARS / most, 1.0)
    picture.add("line", "mean", x1=38.0, x2=640.0, y1=mean, y2=mean)
    picture.add("line", "axis", x1=38.0, x2=640.0, y1=120.5, y2=120.5)
    picture.text(f"{3600 * most / width:,.0f} an hour", 40.0, 13.0)
    picture.text("0", 34.0, 124.0, "end")
    picture.text("0 min", 40.0, 140.0)
    picture.text(f"{elapsed / 60:,.0f} min", 640.0, 140.0, "end")
    return picture.markup()


def _defect(outcome: Outcome) -> tuple[str, str]:
    """The clause and the cause; the word where there is none, or where that tells more."""
    if not outcome.clause or outcome.reason in WORDS:
        return outcome.reason, outcome.reason
    return outcome.clause, outcome.cause


def _reasons(rows: Iterable[CampaignRow]) -> list[tuple[str, int, str]]:
    """By what kernels fail: a word, how many, what it means."""
    counts = Counter(r.outcome.reason for r in rows if r.outcome.outcome != CONFORMS)
    return [(word, n, WORDS.get(word, f"a clause of {word}")) for word, n in counts.most_common()]


def _packs(rows: Sequence[CampaignRow]) -> Iterator[str]:
    """First what several scripts or sources have in common, then what is to be seen of each kernel,
    so many together; compressed."""
    counts = Counter(b for r in rows for t in (r.outcome.script, r.source) for b in {*_blocks(t)})
    common = [block for block, n in counts.items() if n > 1 and len(block) > SHORTEST]
    places = {block: k for k, block in enumerate(common)}
    yield _packed(common)
    for start in range(0, len(rows), TOGETHER):
        yield _packed([_details(row, places) for row in rows[start : start + TOGETHER]])


def _packed(texts: Sequence[Any]) -> str:
    data = json.dumps(texts, ensure_ascii=True).encode()
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _blocks(text: str) -> list[str]:
    """The statements of a script: many are in others, too, and farther away than zlib looks."""
    return _cut(text, LONGEST).split(BETWEEN) if text else []


def _details(row: CampaignRow, places: Mapping[str, int]) -> Json:
    """A text is a list of its blocks, or of their places among what is in common."""
    outcome = row.outcome
    case = str(Case.from_json(outcome.case)) if outcome.case else ""
    return {
        "clause": outcome.clause,
        "dtype": outcome.dtype,
        "reason": outcome.reason,
        "message": _cut(outcome.message, LONGEST),
        "cause": outcome.explanation,
        "case": case,
        "script": [places.get(block, block) for block in _blocks(outcome.script)],
        "source": [places.get(block, block) for block in _blocks(row.source)],
        "target": row.target,
        "digest": row.kernel,
        "compiling": round(row.compiling, 2),
    }


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _embedded(data: Json) -> str:
    """JSON that no text in it can end."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
