"""The pages: they build, their links lead somewhere, and what they show is what the suite says."""

from __future__ import annotations

import argparse
import doctest
import fnmatch
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import cli
from conformance.cases.case import Case, Operand
from conformance.cases.profiles import PROFILES
from conformance.clauses import BY_ID, CLAUSES
from conformance.judging.experiments import run_experiment
from conformance.judging.findings import merged
from conformance.report.text import conclusion, render
from conformance.running.concluding import conclude
from conformance.running.explaining import explain_all
from conformance.running.inprocess import judge
from conformance.running.run import run_shard
from conformance.running.shards import plan
from conformance.verdict.verdict import BROKEN_STATUSES, ClauseResult, Verdict
from targets import resolve
from targets.target import CLAIMS
from tests.bank import defects, right_ones
from tests.pages import verdict
from tests.report.test_report import normalised
from tests.sampling import VERDICTS, every
from tests.sessions import session_on

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FAMILIES = list(dict.fromkeys(clause.family for clause in CLAUSES))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A broken loss, and below it what the suite says: `clause: message` for each clause.
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:(?!^```).)*?^```text\n(.*?)^```$", re.M | re.S)
FOUND = re.compile(r"^([a-z_]+\.[a-z_]+): (.+)$", re.MULTILINE)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@functools.cache
def verdict_on(spec: str, clauses: str = "*") -> Verdict:
    """In profile quick, as far as ``clauses``, a glob, goes."""
    session, profile = session_on(spec, selected=clauses), PROFILES["quick"]
    total = merged([run_shard(session, shard, profile) for shard in plan(session.target, profile)])
    explain_all(session, total)
    return conclude(session, total, profile="quick", duration_s=0)


def broken(verdict: Verdict) -> dict[str, list[ClauseResult]]:
    """Its broken rows, must and should, by clause."""
    found: dict[str, list[ClauseResult]] = {}
    for row in verdict.clauses:
        if row.status in BROKEN_STATUSES:
            found.setdefault(row.id, []).append(row)
    return found


# -- the pages themselves ----------------------------------------------------------------------


def test_each_family_has_a_page_and_no_page_is_about_another() -> None:
    assert {path.stem for path in (DOCS / "families").glob("*.md")} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_page_has_its_clauses_and_an_example(family: str) -> None:
    text = text_of(f"families/{family}.md")
    assert f"\n<!-- clauses: {family} -->\n" in text
    assert EXAMPLE.search(text) or family == "cuda"  # which takes a GPU
    assert 40 <= len(text.splitlines()) <= 110


def test_the_table_of_claims_says_which_clauses_ask_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\|([^|]+)\|$", text_of("registering.md"), re.MULTILINE)
    told = {claim: set(re.findall(r"`([\w.]+)`", clauses)) for claim, clauses in rows}
    assert told == {n: {c.id for c in CLAUSES if n in c.claims} for n in CLAIMS}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_no_page_names_a_clause_that_does_not_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FAMILIES)})\.[a-z_*]+)`", page.read_text("utf-8"))
    assert [name for name in named if not fnmatch.filter(BY_ID, name)] == []


# -- what they show ----------------------------------------------------------------------------


FEW = ("grad_output", "autograd", "module", "errors")  # what the fast run takes
# The broken losses of the family pages: family, source, clause → message.
EXAMPLES = [
    pytest.param(
        family,
        source,
        dict(FOUND.findall(said)),
        id=family,
        marks=() if family in FEW else pytest.mark.full,
    )
    for family in FAMILIES
    for source, said in EXAMPLE.findall(text_of(f"families/{family}.md"))
]


@pytest.mark.parametrize(("family", "source", "said"), EXAMPLES)
def test_the_suite_says_of_a_broken_example_what_its_page_says(
    family: str, source: str, said: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source, encoding="utf-8")
    found = broken(verdict_on(f"{path}:loss", f"{family}.*"))
    assert said
    for clause, message in said.items():
        messages = [row.message for row in found.get(clause, [])]
        if message.endswith(" …"):
            messages = [f"{m[: len(message) - 2]} …" for m in messages]
        assert message in messages


def test_the_suite_says_of_a_weighted_loss_what_its_page_says(tmp_path: Path) -> None:
    _, _, text = text_of("losses.md").partition("## Weights and flags\n")
    source, said = EXAMPLE.findall(text)[0]
    path = tmp_path / "broken.py"
    path.write_text(source, encoding="utf-8")
    session = session_on(resolve(f"{path}:loss", "huber"))
    told = dict(FOUND.findall(said))
    found = {clause: run_experiment(clause, session.bench(clause, "float64")) for clause in told}
    assert told
    assert found == {clause: ([message], None) for clause, message in told.items()}


@pytest.mark.parametrize("page", ["tutorial.md", "oracle.md"])
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page: str) -> None:
    """Its Python blocks one after the other; those with a prompt as doctests."""
    names: dict[str, Any] = {}
    runner, tried = doctest.DocTestRunner(), 0
    for language, source in FENCED.findall(text_of(page)):
        if language == "python" and ">>>" in source:
            test = doctest.DocTestParser().get_doctest(source, {}, page, None, None)
            test.globs = names
            tried += runner.run(test, clear_globs=False).attempted
        elif language == "python":
            exec(compile(source, page, "exec"), names)
    assert tried
    assert runner.failures == 0


def in_one_line(text: str) -> str:
    """Without seconds and versions."""
    return " ".join(normalised(text).split())


@VERDICTS
def test_the_first_verdict_is_what_the_command_prints() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    command = "$ loss-conformance check tutorial-function --profile quick\n"
    (shown,) = (s for _, s in FENCED.findall(readme) if s.startswith(command))
    shown = shown.removeprefix(command).removesuffix("$ echo $?\n1\n")
    found = verdict("tutorial-function")
    printed = in_one_line(render(found, {c.id: c.sentence for c in CLAUSES}))
    parts = [in_one_line(part) for part in shown.split("…\n")]
    assert [part for part in parts if part not in printed] == []
    assert [printed.index(part) for part in parts] == sorted(printed.index(p) for p in parts)
    assert in_one_line(conclusion(found)) in in_one_line(text_of("reading.md"))


@VERDICTS
def test_the_pages_say_how_many_cases_quick_has() -> None:
    found = verdict("builtin")
    assert in_one_line(conclusion(found)) in in_one_line(text_of("tutorial.md"))
    assert f"| `quick` | {found['examples']:,} |" in text_of("power.md")


def test_the_first_page_of_the_repository_is_short_and_counts_what_there_is() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) < 150
    (broken_ones, right) = (int(n) for n in re.findall(r"on\s+more\s+than\s+(\d+)", readme))
    assert 0.8 < broken_ones / sum(d.mutants for d in defects()) < 1
    assert 0.8 < right / right_ones() < 1


@VERDICTS
@pytest.mark.parametrize("name", ["tutorial-module", "tutorial-function"])
def test_the_tutorial_shows_what_is_broken(name: str) -> None:
    blocks = [source for language, source in FENCED.findall(text_of("tutorial.md"))]
    (shown,) = (b for b in blocks if b.startswith(f"$ loss-conformance check {name} "))
    words = " ".join(shown.split())
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in verdict(name)["clauses"]:
        if row["status"] in BROKEN_STATUSES:
            rows_of.setdefault(row["id"], []).append(row)
    failures = {clause for clause, rows in rows_of.items() if rows[0]["level"] == "must"}
    assert f"{name} DOES NOT CONFORM: {', '.join(sorted(failures))}" in words
    for clause, rows in rows_of.items():
        if clause in failures or name == "tutorial-function":
            assert f"{clause} fail: {', '.join(row['dtype'] for row in rows)} " in words
            parts = [row["counterexample"]["message"].split(", permitted: ") for row in rows]
            assert any(all(" ".join(p.split()) in words for p in part) for part in parts), clause


@pytest.mark.full
def test_the_tutorial_ends_in_losses_that_conform(tmp_path: Path) -> None:
    sources = [s for language, s in FENCED.findall(text_of("tutorial.md")) if language == "python"]
    path = tmp_path / "mended.py"
    path.write_text(next(s for s in sources if "mended = Target(" in s), encoding="utf-8")
    for attribute in ("mended", "MendedModule"):
        found = judge(f"{path}:{attribute}", profile="quick")
        assert found.conforms, [row.id for row in found.failures]


def test_the_first_page_says_what_is_wrong_with_its_example(tmp_path: Path) -> None:
    ((_, source),) = (b for b in FENCED.findall(text_of("index.md")) if b[0] == "python")
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    assert set(broken(verdict_on(f"{path}:loss", "errors.*"))) == {"errors.reduction"}


def judged_interpreted(source: str, clauses: str, folder: Path) -> dict[str, Any]:
    """The verdict on a Triton kernel that claims what init would have it claim."""
    claims = frozenset({"target_gradient", "empty", "broadcast", "mixed_dtype"})
    mine = f"from targets import Target\nmine = Target('mine', loss, {claims!r}, ('mean',))\n"
    (folder / "mine.py").write_text(f"{source}\n{mine}", encoding="utf-8")
    command = [sys.executable, "-m", "conformance", "check", "mine.py:mine", "--profile", "quick"]
    options = ["--clause", clauses, "--timeout", "120", "--report", "out"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, check=False
    )
    found: dict[str, Any] = json.loads((folder / "out" / "mine" / "verdict.json").read_text())
    return found


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton")
def test_the_kernel_of_its_page_is_wrong_as_told_and_mended(tmp_path: Path) -> None:
    first, mended = (
        s for kind, s in FENCED.findall(text_of("kernel_author.md")) if kind == "python"
    )
    clauses = "value.mean,value.mean_overflow,value.empty,broadcasting.value"
    rows = judged_interpreted(first, clauses, tmp_path)["clauses"]
    wrong = {row["id"] for row in rows if row["status"] in BROKEN_STATUSES}
    assert wrong == {"value.mean", "value.mean_overflow", "value.empty", "broadcasting.value"}
    halves = {row["dtype"] for row in rows if row["id"] == "value.mean" and row["id"] in wrong}
    assert "bfloat16" in halves
    assert judged_interpreted(mended, f"{clauses},gradient.*,dtypes.*", tmp_path)["conforms"]


@VERDICTS
def test_the_loop_over_verdicts_prints_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (s for kind, s in FENCED.findall(text_of("generated.md")) if kind == "python")
    folder = tmp_path / "out" / "one"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(json.dumps(verdict("tutorial-function")))
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "generated.md", "exec"), {})
    assert capsys.readouterr().out.startswith("tutorial-function False broadcasting.")


def keys_of_a_verdict() -> set[str]:
    """Of a verdict with every kind of row that there is, and of its schema where there is one."""
    case = Case(Operand((1,)), Operand((1,))).to_json()
    waiver = {"reason": "", "link": "", "expires": ""}
    rows = (
        ClauseResult("value.sum", "must", "waived", "float32", case=case, waiver=waiver),
        ClauseResult("value.sum", "must", "unavailable", "float32", message="no"),
    )
    verdict = Verdict("mine", "cpu", "quick", 0, rows, 1, 1.0, environment={"torch": "2"})
    schema = ROOT / "conformance" / "verdict" / "verdict.schema.json"
    described = json.loads(schema.read_text("utf-8")) if schema.exists() else {}
    return {*keys_in(verdict.to_json()), *properties_in(described)}


def keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list | tuple):
            yield from keys_in(inner)


def properties_in(schema: Any) -> Iterator[str]:
    """The keys that a JSON Schema knows."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            yield from properties_in(inner)


def test_every_key_of_a_verdict_is_described() -> None:
    text = text_of("verdict_json.md")
    keys = keys_of_a_verdict()
    assert len(keys) > 30
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_every_environment_variable_is_described() -> None:
    read = re.compile(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"")
    sources = [p for name in ("conformance", "targets") for p in (ROOT / name).rglob("*.py")]
    names = {m[1] for p in sources for m in read.finditer(p.read_text("utf-8"))}
    assert {"CXX", "TRITON_INTERPRET"} <= names
    assert [
        n for n in sorted(names - {"PYTHONPATH"}) if f"`{n}`" not in text_of("command.md")
    ] == []


# -- building them -----------------------------------------------------------------------------


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@functools.cache
def skipped(folder: str, names: tuple[str, ...]) -> set[str]:
    """What a copy of the project for building its pages can do without."""
    hidden = {n for n in names if n.startswith(".") or n.endswith(".egg-info")}
    return hidden | ({"__pycache__", "site", "build"} & set(names))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, to break its pages."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: skipped(folder, tuple(names)))
    return copy


def test_the_pages_build_and_ask_no_other_server(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {p.name: p.read_text("utf-8") for p in (tmp_path / "site").rglob("*.html")}
    commands = next(
        a.choices for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    for command in commands:
        assert f"usage: loss-conformance {command} " in pages["command.html"]
    for clause in CLAUSES:
        assert f'id="{clause.id}"' in pages[f"{clause.family}.html"]
        assert f'families/{clause.family}.html#{clause.id}"' in pages["spec.html"]


@every(
    5,
    "file, added, complaint",
    [
        ("docs/reading.md", "[a page](nowhere.md)", "nowhere.md"),
        ("docs/reading.md", "[an anchor](tutorial.md#nowhere)", "#nowhere"),
        ("docs/reading.md", "[a file](../targets/nowhere.py)", "nowhere.py"),
        ("docs/reading.md", "![a picture](images/nowhere.png)", "nowhere.png"),
        ("docs/reading.md", '<img src="https://example.org/a.png">', "asks another server"),
        ("docs/reading.md", "`value.nowhere`", "does not exist: value.nowhere"),
        ("docs/families/value.md", "\n<!-- clauses: nowhere -->\n", "nothing generates"),
        ("README.md", "[a page](docs/nowhere.md)", "nowhere.md"),
        ("README.md", "[a part](#nowhere)", "#nowhere"),
        ("README.md", "[a file](tests/nowhere)", "nowhere"),
        ("CONTRIBUTING.md", "[a page](docs/tutorial.md#nowhere)", "#nowhere"),
    ],
)
def test_the_build_fails_on_what_leads_nowhere(
    project: Path, file: str, added: str, complaint: str
) -> None:
    path = project / file
    path.write_text(f"{path.read_text('utf-8')}\n{added}\n", encoding="utf-8")
    done = build(project, project / "site")
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_page_that_nobody_can_find_is_an_error(project: Path) -> None:
    (project / "docs" / "lost.md").write_text("# Lost\n")
    done = build(project, project / "site")
    assert done.returncode != 0
    assert "lost.md" in done.stderr
