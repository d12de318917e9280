"""What other programs read: JUnit XML, Markdown, a badge, annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from conformance.report.exports import announce, badge, export, junit, summary, workflow_commands
from tests.pages import verdict
from tests.sampling import VERDICTS

pytestmark = VERDICTS
Json = dict[str, Any]


@pytest.fixture(scope="module")
def broken() -> Json:
    return verdict("tutorial-module")


def row(verdict: Json, clause: str, **changes: Any) -> Json:
    """A copy of ``verdict`` with one row of ``clause`` changed."""
    copy: Json = json.loads(json.dumps(verdict))
    next(r for r in copy["clauses"] if r["id"] == clause).update(changes)
    return copy


def test_junit_counts_what_it_holds(broken: Json) -> None:
    suite = ElementTree.fromstring(junit(row(broken, "value.size", status="unavailable")))
    assert suite.tag == "testsuite"
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(suite.get(plural, "")) == len(suite.findall(f"testcase/{kind}")) > 0
    assert int(suite.get("tests", "")) == len(suite.findall("testcase")) == len(broken["clauses"])
    failure = suite.find("testcase[@name='value.mean_overflow[float16]']/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("fail: result is inf, permitted")
    assert "import torch" in (failure.text or "")


def test_junit_holds_what_a_target_may_say(broken: Json) -> None:
    said = {"message": "a \x00 <b> & \ud800 ]]>", "case": None, "script": "\x1b[0m"}
    verdict = row(broken, "value.size", status="crash", counterexample=said)
    assert len(ElementTree.fromstring(junit(verdict)).findall("testcase/failure")) == 6


def test_the_summary_says_what_was_found(broken: Json) -> None:
    text = summary(broken)
    assert text.startswith(
        "### ❌ tutorial-module DOES NOT CONFORM: dtypes.unsupported, value.mean\\_overflow"
    )
    assert "| `value.mean_overflow` | float16 | result is inf, permitted" in text
    said = {"message": "a | b\n`c`", "case": None, "script": ""}
    odd = summary(row(broken, "value.size", status="crash", counterexample=said))
    assert "| a \\| b \\`c\\` |" in odd


def test_the_badge(broken: Json) -> None:
    assert badge(broken)["message"] == "2 broken"
    assert badge(broken)["color"] == "red"
    assert badge(broken | {"conforms": True})["message"] == "conforms"
    assert badge(broken | {"clauses": []}) == {
        "schemaVersion": 1,
        "label": "mse 1.0: tutorial-module",
        "message": "incomplete",
        "color": "yellow",
    }


def test_an_annotation_is_one_line(broken: Json) -> None:
    said = {"message": "50% wrong\nand ::more::", "case": None, "script": ""}
    verdict = row(broken, "value.size", status="crash", counterexample=said)
    lines = list(workflow_commands(verdict))
    assert len(lines) == 3
    assert all(line.startswith("::error title=tutorial-module breaks ") for line in lines)
    assert any("50%25 wrong%0Aand ::more::" in line for line in lines)


def test_only_a_workflow_is_told(broken: Json, tmp_path: Path, capsys: Any) -> None:
    announce(broken, {})
    assert not capsys.readouterr().out
    path = tmp_path / "summary"
    announce(broken, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(path)})
    assert capsys.readouterr().out.count("::error") == 2
    assert path.read_text().startswith("### ❌")


def test_all_of_them_lie_beside_the_verdict(broken: Json, tmp_path: Path) -> None:
    export(tmp_path, broken)
    assert {p.name for p in tmp_path.iterdir()} == {
        "report.html",
        "junit.xml",
        "summary.md",
        "badge.json",
    }
