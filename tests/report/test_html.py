"""The HTML report as text: complete, escaped, self-contained, small. test_browser.py opens it."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conformance.clauses import CLAUSES
from conformance.cli import main
from conformance.report.charts import accuracy_chart, coverage_map, where_picture, where_words
from conformance.report.html import KINDS, SCRIPT, SCRIPTS, TEMPLATES, message_parts, page, reasons
from conformance.verdict.verdict import digest, write_verdict
from tests.pages import LOSSES, verdict
from tests.sampling import VERDICTS

Json = dict[str, Any]
pytestmark = VERDICTS
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements of a page with their text: (tag, attributes, text inside, path of tags)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.found: list[tuple[str, dict[str, str], str]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append((tag, {k: v or "" for k, v in attrs}, []))
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        name, attributes, text = self.open.pop()
        assert name == tag, (name, tag)
        self.found.append((name, attributes, "".join(text)))

    def handle_data(self, data: str) -> None:
        for *_, text in self.open:
            text.append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        return [
            (attributes, text)
            for name, attributes, text in self.found
            if name == tag and all(attributes.get(k) == v for k, v in wanted.items())
        ]

    def texts(self, tag: str, **wanted: str) -> list[str]:
        return [" ".join(text.split()) for _, text in self.all(tag, **wanted)]


def broken() -> Json:
    return copy.deepcopy(verdict("tutorial-function"))


def first_broken(data: Json) -> Json:
    row: Json = next(r for r in data["clauses"] if r["status"] == "fail" and r["level"] == "must")
    return row


def test_the_verdict_comes_first() -> None:
    seen = Page(page([broken()]))
    assert seen.texts("h1") == ["✗ tutorial-function does not conform"]
    assert seen.texts("title")[0] == "tutorial-function does not conform · loss-conformance"
    several = Page(page([broken(), verdict("builtin")]))
    assert several.texts("h1") == ["1 of 2 verdicts conform"]
    assert "✓ builtin conforms" in several.texts("h2")


def test_the_matrix_has_a_row_for_each_clause_and_a_column_for_each_dtype_and_verdict() -> None:
    verdicts = [broken(), verdict("builtin")]
    seen = Page(page(verdicts))
    clauses = {r["id"] for v in verdicts for r in v["clauses"]}
    rows = [a["data-clause"] for a, _ in seen.all("tr") if "data-clause" in a]
    assert len(rows) == len(set(rows))
    assert set(rows) == clauses
    order = [c.id for c in CLAUSES]
    assert rows == sorted(rows, key=order.index)
    assert seen.texts("th", scope="colgroup") == ["tutorial-function", "builtin"]
    assert seen.texts("abbr") == ["f64", "f32", "f16", "bf16"] * 2
    assert len(seen.all("th", scope="row")) == len(clauses)


def test_the_cells_say_what_the_verdict_says() -> None:
    data = broken()
    text = page([data])
    table = re.search(r"<table.*</table>", text, re.S)
    assert table
    for status in ("fail", "pass", "unclaimed", "not_in_profile", "unavailable"):
        rows = [r for r in data["clauses"] if r["status"] == status and r["level"] == "must"]
        cells = re.findall(rf'<td class="{status}[ "].*?aria-label="(.*?)"', table.group())
        musts = {r["id"] for r in rows}
        others = [r for r in data["clauses"] if r["status"] == status and r["id"] not in musts]
        if status == "fail":
            others = []  # a broken should has a sign of its own
        assert len(cells) == len(rows) + len(others) > 0
        assert set(cells) == {KINDS[status].words}


def test_a_broken_clause_has_its_sentence_reason_message_case_and_script() -> None:
    data = broken()
    row = first_broken(data)
    seen = Page(page([data]))
    ((_, text),) = seen.all("details", id=f"v0-{row['id']}")
    clause = next(c for c in CLAUSES if c.id == row["id"])
    for part in (clause.sentence, reasons()[clause.id], "permitted", "reduction='mean'"):
        assert part in text
    ((_, script),) = seen.all("pre", id=f"v0-{row['id']}-script")
    scripts = [r["counterexample"]["script"] for r in data["clauses"] if r["id"] == row["id"]]
    assert script in scripts
    assert script


def test_a_likely_cause_is_told() -> None:
    data = broken()
    for row in data["clauses"]:
        row.get("counterexample", {}).pop("cause", None)
    assert "Likely cause" not in page([data])
    first_broken(data)["counterexample"]["cause"] = {"id": "x", "text": "The sum is too narrow."}
    assert "Likely cause: The sum is too narrow." in page([data])


def test_every_clause_has_a_reason() -> None:
    assert set(reasons()) == {c.id for c in CLAUSES}


def test_a_passing_clause_has_its_worst_case_and_share() -> None:
    data = verdict("builtin")
    row = next(r for r in data["clauses"] if r["id"] == "value.mean" and r["worst"])
    text = next(t for a, t in Page(page([data])).all("details", id="c-value.mean"))
    assert re.search(r"worst error \d\.\d\d of what is permitted, in ", text)
    assert "worst case reduction='mean', input" in text
    assert row["dtype"] in text


def test_every_link_leads_somewhere_and_every_id_is_there_once() -> None:
    seen = Page(page([broken(), verdict("builtin"), broken()]))
    ids = [a["id"] for _, a, _ in seen.found if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for a, _ in seen.all("a")}
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    named = [a[k] for _, a, _ in seen.found for k in ("aria-labelledby", "data-copy") if k in a]
    assert set(named) <= set(ids)


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\0\ud800"


def test_what_strangers_say_is_only_text() -> None:
    data = broken()
    data |= {"target": EVIL, "source": EVIL, "device": EVIL, "commit": EVIL}
    data["environment"] = {EVIL: EVIL}
    for row in data["clauses"]:
        if "counterexample" in row:
            found = row["counterexample"]
            found |= {"message": EVIL, "script": EVIL, "cause": {"id": EVIL, "text": EVIL}}
            found["where"] = {"of": EVIL, "shape": [3], "wrong": [1], "count": 1}
        elif row["status"] == "unavailable":
            row["message"] = EVIL
    text = page([data])
    seen = Page(text)
    assert len(seen.all("script")) == 1
    assert not seen.all("img")
    assert not [a for _, a, _ in seen.found if any(k.startswith("on") for k in a)]
    assert "alert(1)" in text
    text.encode()  # a lone surrogate would not be written


def test_it_asks_nothing_of_any_network_and_runs_no_script_but_its_own() -> None:
    text = page([broken()])
    seen = Page(text)
    ((policy, _),) = seen.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")
    for tag in ("style", "script"):
        ((_, inside),) = seen.all(tag)
        hashed = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{hashed}'" in policy["content"]
    assert not seen.all("link", rel="stylesheet")
    assert not [a for _, a, _ in seen.found if "src" in a or "style" in a]
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", text)


@pytest.mark.full
def test_five_targets_take_less_than_a_megabyte() -> None:
    names = ["builtin", "tutorial-function", "tutorial-module", *LOSSES]
    text = page([verdict(name) for name in names])
    assert len(text.encode()) < 1_000_000
    assert all(name.replace("_", "-") in text for name in names)


def test_scripts_are_there_once_and_as_long_as_there_is_room() -> None:
    data = broken()
    rows = [r for r in data["clauses"] if "counterexample" in r]
    for row in rows:
        row["counterexample"]["script"] = f"# {row['id']} {row['dtype']}\n" + "x" * (SCRIPT - 100)
    seen = Page(page([data] * 5))
    texts = [t for a, t in seen.all("pre") if a["id"].endswith("-script")]
    assert 0 < len(texts) < 5 * len({r["id"] for r in rows})
    assert sum(map(len, texts)) <= SCRIPTS
    assert "see verdict.json" in page([data] * 5)
    rows[0]["counterexample"]["script"] = "x" * (SCRIPT + 1)
    assert f"The script has {SCRIPT + 1:,} characters: see verdict.json." in page([data])


def test_a_run_that_was_cut_short_says_so() -> None:
    data = broken() | {"clauses": [], "conforms": False, "complete": False}
    data |= {"environment": {}, "accuracy": [], "coverage": [], "cases": "", "fingerprint": ""}
    text = page([data])
    assert Page(text).texts("h1") == ["? tutorial-function is incomplete"]
    assert "The run was cut short, or has not ended yet" in text


def test_a_verdict_without_the_newer_keys_is_shown() -> None:
    data = {k: v for k, v in broken().items() if k not in ("accuracy", "coverage")}
    for row in data["clauses"]:
        row.get("counterexample", {}).pop("where", None)
    text = page([data])
    assert "Nothing was measured." in text
    assert "No case ran." in text


def test_waivers_and_what_was_not_judged_are_told() -> None:
    data = broken()
    waiver = {"reason": "the sum is ours", "link": "tracker/7", "expires": "2030-01-31"}
    first_broken(data).update(status="waived", waiver=waiver)
    text = page([data])
    assert "until 2030-01-31: the sum is ours (tracker/7)" in text
    assert "a plain value or gradient is wrong already: " in text


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            "result[0, 1] is 0.0 (0x0p+0), permitted: 25.0 (0x1.9p+4) or nan (1 of 6 elements)",
            ("result[0, 1]", "0.0 (0x0p+0)", "25.0 (0x1.9p+4) or nan", "1 of 6 elements"),
        ),
        ("result is inf, permitted: 2.0 (0x1p+1)", ("result", "inf", "2.0 (0x1p+1)", "")),
        ("backward raised ZeroDivisionError: division by zero", ("", "", "", "")),
    ],
)
def test_a_message_is_taken_apart(message: str, parts: tuple[str, ...]) -> None:
    found = message_parts(message)
    assert (found["of"], found["got"], found["permitted"], found["count"]) == parts


def test_the_command_makes_a_page_from_verdicts_made_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, device in (("tutorial-function", "cpu"), ("tutorial-function", "cuda")):
        data = copy.deepcopy(verdict(name)) | {"device": device}
        paths.append(tmp_path / f"{device}.json")
        write_verdict(paths[-1], data | {"digest": digest(data)})
    out = tmp_path / "side.html"
    assert main(["report", *map(str, paths), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    heads = Page(out.read_text()).texts("th", scope="colgroup")
    assert heads == ["tutorial-functioncpu", "tutorial-functioncuda"]
    paths[0].write_text(paths[0].read_text().replace('"cpu"', '"cuda"'))
    assert main(["report", str(paths[0]), "--out", str(out)]) == 2
    assert "it was edited" in capsys.readouterr().err


# Colours: text on what it lies on, in both schemes and in print.

PAIRS = [
    ("ink", "paper"),
    ("ink", "surface"),
    ("muted", "paper"),
    ("muted", "surface"),
    ("link", "paper"),
    ("bad", "paper"),
    ("calm", "paper"),
    *((tone, f"{tone}-soft") for tone in ("good", "bad", "warn", "calm")),
    *(("ink", f"{tone}-soft") for tone in ("good", "bad", "warn")),
    ("ink", "heat1"),
    ("ink", "heat2"),
    *(("on-heat", f"heat{level}") for level in (4, 5)),
]


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_texts_stand_out_in_light_dark_and_print() -> None:
    style = (TEMPLATES / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(blocks) == 3
    light = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[0]))
    for block in blocks:
        colours = light | dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        poor = {p: contrast(colours[p[0]], colours[p[1]]) for p in PAIRS}
        assert not {p: ratio for p, ratio in poor.items() if ratio < 4.5}
    assert contrast("#777777", "#ffffff") < 4.5 < contrast("#767676", "#ffffff")


# Pictures.


def error(bin: int, worst: float, aspect: str = "value", axis: str = "size") -> Json:
    return {"aspect": aspect, "dtype": "float32", "axis": axis, "bin": bin, "worst": worst}


def path_of(svg: str, css: str) -> str:
    match = re.search(rf'<path class="{css}" d="(.*?)"', svg)
    assert match, svg
    return match.group(1)


def test_errors_inside_are_marks_and_those_outside_are_crosses() -> None:
    rows = [error(0, 0.25), error(4, 1.0), error(8, 1.5), error(4, 0.0, "gradient")]
    svg = accuracy_chart(rows, "float32", "size")
    assert svg is not None
    marks = re.findall(r"M([\d.]+),([\d.]+)h0", path_of(svg, "mark value"))
    (x0, y0), (x4, y4) = [(float(x), float(y)) for x, y in marks]
    assert x0 < x4
    assert y0 > y4  # a larger error stands higher
    crosses = re.findall(r"M([\d.]+),([\d.]+)l5,5", path_of(svg, "outside value"))
    assert len(crosses) == 1
    assert float(crosses[0][0]) > x4
    assert float(crosses[0][1]) < y4
    assert "value: 3 bins, the worst at 2 to the power 8, outside of it" in svg
    assert accuracy_chart(rows, "float16", "size") is None
    assert accuracy_chart(rows, "float32", "exponent") is None


def where(shape: list[int], wrong: list[int], count: int | None = None) -> Json:
    return {"of": "result", "shape": shape, "wrong": wrong, "count": count or len(wrong)}


def test_a_small_tensor_is_a_grid_with_its_wrong_elements_filled() -> None:
    svg = where_picture(where([2, 3], [1, 5]))
    assert svg is not None
    assert path_of(svg, "wrong") == "M19,1h18v18h-18zM37,19h18v18h-18z"
    assert "2 of 6 elements of the result, of shape (2, 3): 1, 5 in row-major order" in svg


def test_a_large_tensor_is_a_strip() -> None:
    svg = where_picture(where([1600], [0, 1595, 1599]))
    assert svg is not None
    assert path_of(svg, "wrong").count("M") == 2  # the last two share a slot
    assert "0, 1595, 1599" in svg
    assert where_picture(where([], [0])) is None


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (where([9], [2, 3, 4, 7]), "4 of 9 elements of the result, of shape (9,): 2–4, 7"),
        (where([2], [0, 1]), "Every element of the result, of shape (2,)"),
        (where([5000], [3, 4000], 900), "900 of 5,000 elements of the result, of shape (5000,): "
         "from 3 to 4000"),
    ],
)  # fmt: skip
def test_where_in_words(place: Json, words: str) -> None:
    assert where_words(place).startswith(words)


def test_the_map_has_every_cell_filled_or_empty() -> None:
    cell = {"dtype": "float32", "reduction": "mean", "layout": "permuted", "path": "both"}
    svg = coverage_map([cell | {"examples": 300}], ["float32"])
    assert svg is not None
    assert path_of(svg, "level0").count("M") == 6 * 6 - 1
    assert path_of(svg, "level5").count("M") == 1
    assert ">300</text>" in svg
    assert "1 of 36 cells were run, with up to 300 examples." in svg
    assert coverage_map([], ["float32"]) is None
