"""The pages: they build, their links lead somewhere, and what they show is what the suite says."""

from __future__ import annotations

import doctest
import fnmatch
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.clauses import BY_ID, CLAUSES
from conformance.merging import conclude, merged, minimise_all
from conformance.plans import PROFILES, plan
from conformance.shards import Session, run_shard
from conformance.verdict import BROKEN_STATUSES
from targets import resolve

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FAMILIES = list(dict.fromkeys(clause.family for clause in CLAUSES))
# A broken loss, and below it what the suite says: `clause: message` for each clause.
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:(?!^```).)*?^```text\n(.*?)^```$", re.M | re.S)
FOUND = re.compile(r"^([a-z_]+\.[a-z_]+): (.+)$", re.M)
BUILDABLE = importlib.util.find_spec("mkdocs") is not None


def examples() -> list[tuple[str, str, dict[str, str]]]:
    """The broken losses of the family pages: page and number, source, clause → message."""
    found = []
    for family in FAMILIES:
        text = (DOCS / "families" / f"{family}.md").read_text("utf-8")
        for k, (source, said) in enumerate(EXAMPLE.findall(text)):
            found.append((f"{family}-{k}", source, dict(FOUND.findall(said))))
    return found


def said_of(spec: str, clauses: str) -> dict[str, list[str]]:
    """What the profile quick says of each broken clause among ``clauses``, a glob."""
    target, profile = resolve(spec), PROFILES["quick"]
    session = Session(target, "cpu", 0, clauses)
    total = merged([run_shard(session, shard, profile) for shard in plan(target, profile)])
    minimise_all(session, total)
    verdict = conclude(
        target, total, device="cpu", profile="quick", seed=0, duration_s=0, selected=clauses
    )
    found: dict[str, list[str]] = {}
    for row in verdict.clauses:
        if row.status in BROKEN_STATUSES:
            found.setdefault(row.id, []).append(row.message)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_a_page_with_its_clauses_and_an_example(family: str) -> None:
    text = (DOCS / "families" / f"{family}.md").read_text("utf-8")
    assert f"<!-- clauses: {family} -->" in text
    assert EXAMPLE.search(text) or family == "cuda"  # which needs a GPU
    assert 40 <= len(text.splitlines()) <= 110


def test_no_page_is_about_a_family_that_does_not_exist() -> None:
    assert {path.stem for path in (DOCS / "families").glob("*.md")} == set(FAMILIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_no_page_names_a_clause_that_does_not_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FAMILIES)})\.[a-z_*]+)`", page.read_text("utf-8"))
    assert [n for n in named if not fnmatch.filter(BY_ID, n)] == []


@pytest.mark.parametrize(("name", "source", "said"), examples(), ids=[e[0] for e in examples()])
def test_the_suite_says_of_a_broken_example_what_its_page_says(
    name: str, source: str, said: dict[str, str], tmp_path: Path
) -> None:
    assert said
    path = tmp_path / "broken.py"
    path.write_text(source, encoding="utf-8")
    for clause, message in said.items():
        assert message in said_of(f"{path}:loss", clause).get(clause, [])
