"""The same seed gives the same cases and the same verdict, wherever and however it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance import judge
from tests.pages import verdict
from tests.sampling import VERDICTS, only

pytestmark = VERDICTS
TARGET = "tutorial-function"
COMMANDS = {
    "one job": ["conformance", "check", TARGET, "--profile", "quick", "--jobs", "1", "--report"],
    "two jobs": ["conformance", "check", TARGET, "--profile", "quick", "--jobs", "2", "--report"],
    "pytest": ["pytest", "--pyargs", "conformance", "--target", TARGET, "-n", "0",
               "--conformance-profile", "quick", "--conformance-report"],
    "pytest, two workers": ["pytest", "--pyargs", "conformance", "--target", TARGET, "-n", "2",
                            "--conformance-profile", "quick", "--conformance-report"],
}  # fmt: skip


def essence(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict without when and where it was made, what only processes tell, and the digest."""
    circumstances = ("duration_s", "created", "commit", "digest", "isolation", "made_of")
    return {k: v for k, v in verdict.items() if k not in circumstances}


@pytest.fixture(scope="module")
def in_process() -> dict[str, Any]:
    return essence(verdict(TARGET))


@only([("two jobs", "1")], "how, ci", zip(COMMANDS, ["", "1", "", "1"], strict=True))
def test_the_same_seed_gives_the_same_verdict(
    how: str, ci: str, in_process: dict[str, Any], tmp_path: Path
) -> None:
    variables = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTEST_ADDOPTS")}
    variables |= {"CI": ci} if ci else {}  # Hypothesis has a profile for it
    # A local module full of constants: Hypothesis would mix them into what it draws.
    (tmp_path / "conftest.py").write_text("import constants_here\n")
    (tmp_path / "constants_here.py").write_text("NUMBERS = [17, 23, 29, 4711, 3.25, 'word']\n")
    command = [sys.executable, "-m", *COMMANDS[how], str(tmp_path / "out")]
    subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, check=False)
    found = json.loads((tmp_path / "out" / TARGET / "verdict.json").read_text())
    assert essence(found) == in_process


@pytest.mark.full
def test_another_seed_gives_other_cases(in_process: dict[str, Any]) -> None:
    other = judge(TARGET, profile="quick", seed=1)
    assert other.cases != in_process["cases"]
    assert {f.clause for f in other.failures} == {
        row["id"]
        for row in in_process["clauses"]
        if row["status"] == "fail" and row["level"] == "must"
    }


@pytest.mark.full
def test_judging_twice_in_one_process_gives_the_same_verdict(in_process: dict[str, Any]) -> None:
    again = json.loads(json.dumps(judge(TARGET, profile="quick").to_json()))
    assert essence(again) == in_process
