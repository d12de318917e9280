"""verdict.schema.json holds every verdict, and refuses what is none."""

from __future__ import annotations

import copy
import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import conformance
from conformance.cases.case import FLOAT_DTYPES, INTEGER_DTYPES
from conformance.judging.checks import BEYOND, SHOWN
from conformance.judging.measures import FAMILIES
from tests.pages import verdict
from tests.sampling import VERDICTS, only

pytestmark = VERDICTS
Json = dict[str, Any]
SCHEMA: Json = json.loads(
    (Path(conformance.__file__).parent / "verdict" / "verdict.schema.json").read_text(
        encoding="utf-8"
    )
)
VALIDATOR = Draft202012Validator(SCHEMA)


def problems(data: Json) -> list[str]:
    return [f"{list(e.absolute_path)}: {e.message}" for e in VALIDATOR.iter_errors(data)]


def check(folder: Path, *arguments: str) -> Path:
    """Run the command in ``folder``; the path of the one verdict that it leaves."""
    command = [sys.executable, "-m", "conformance", "check", *arguments]
    common = ["--profile", "quick", "--jobs", "1", "--report", str(folder / "out")]
    subprocess.run([*command, *common], cwd=folder, capture_output=True, check=False)
    (path,) = (folder / "out").glob("*/verdict.json")
    return path


def read(path: Path) -> Json:
    data: Json = json.loads(path.read_text(encoding="utf-8"))
    return data


def test_it_is_a_schema_with_a_name_of_its_own() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (
        SCHEMA["$id"] == f"urn:loss-conformance:verdict:{SCHEMA['properties']['schema']['const']}"
    )


def test_it_is_strict_everywhere() -> None:
    def objects(node: Any) -> list[Json]:
        if isinstance(node, list):
            return [found for part in node for found in objects(part)]
        if not isinstance(node, dict):
            return []
        own = [node] if node.get("type") == "object" else []
        return own + [found for part in node.values() for found in objects(part)]

    found = objects(SCHEMA)
    assert len(found) > 8
    assert all("additionalProperties" in node for node in found)


def test_its_lists_are_those_of_the_code() -> None:
    defs = SCHEMA["$defs"]
    assert defs["operand"]["properties"]["dtype"]["enum"] == [*FLOAT_DTYPES, *INTEGER_DTYPES]
    families = list(dict.fromkeys(FAMILIES.values()))
    assert defs["cell"]["properties"]["layout"]["enum"] == families
    assert defs["where"]["properties"]["wrong"]["maxItems"] == SHOWN
    assert defs["error"]["properties"]["worst"]["maximum"] == BEYOND


@only(
    ["builtin", "tutorial-function"],
    "name",
    ["builtin", "tutorial-function", "tail_loss", "raising_loss"],
)
def test_verdicts_conform_to_it(name: str) -> None:
    data = verdict(name)
    assert problems(data) == []
    statuses = {row["status"] for row in data["clauses"]}
    assert ("fail" in statuses) == (not data["conforms"])
    for row in data["clauses"]:
        assert ("worst_case" in row) == (row["worst"] is not None)


@pytest.mark.full
def test_a_crash_an_incomplete_and_a_waived_verdict_conform_to_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, torch\nimport torch.nn.functional as F\n"
        "def crashing(x, y, reduction='mean'):\n"
        "    if (x.shape, x.dtype) == ((2, 3), torch.float32): os._exit(9)\n"
        "    return F.mse_loss(x, y, reduction=reduction)\n"
        "def halved(x, y, reduction='mean'):\n"
        "    return F.mse_loss(x, y, reduction=reduction) / 2\n"
    )
    clause = ("--clause", "value.mean")
    crash = read(check(tmp_path, "mine.py:crashing", *clause))
    assert problems(crash) == []
    assert "crash" in {row["status"] for row in crash["clauses"]}
    assert not crash["complete"] or not crash["conforms"]

    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text((tmp_path / "mine.py").read_text())
    broken = check(other, "mine.py:halved", *clause)
    expires = str(datetime.date.today() + datetime.timedelta(days=30))
    waive = ["waive", str(broken), "value.mean", "--reason", "known", "--expires", expires]
    subprocess.run([sys.executable, "-m", "conformance", *waive], cwd=other, check=True)
    waived = read(check(other, "mine.py:halved", *clause))
    assert problems(waived) == []
    assert "waived" in {row["status"] for row in waived["clauses"]}


def test_a_run_that_was_killed_leaves_a_verdict_that_conforms_to_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def loss(x, y, reduction='mean'):\n"
        "    os.kill(os.getppid(), 9)\n"
        "    return ((x - y) ** 2).mean()\n"
    )
    data = read(check(tmp_path, "mine.py:loss"))
    assert problems(data) == []
    assert (data["complete"], data["conforms"], data["clauses"]) == (False, False, [])


def row(data: Json, status: str) -> Json:
    found: Json = next(r for r in data["clauses"] if r["status"] == status)
    return found


MUTILATIONS: dict[str, Callable[[Json], Any]] = {
    "a key less": lambda v: v.pop("seed"),
    "no digest": lambda v: v.pop("digest"),
    "a key more": lambda v: v.update(note="fine"),
    "another version": lambda v: v.update(schema=2),
    "a seed that is text": lambda v: v.update(seed="0"),
    "no such profile": lambda v: v.update(profile="fast"),
    "a digest that is cut": lambda v: v.update(digest=v["digest"][:10]),
    "another form of time": lambda v: v.update(created="yesterday"),
    "complete without rows": lambda v: v.update(clauses=[]),
    "complete without versions": lambda v: v.update(environment={}),
    "it conforms, though a must is broken": lambda v: v.update(conforms=True),
    "it conforms, though incomplete": lambda v: v.update(conforms=True, complete=False, clauses=[]),
    "no such status": lambda v: row(v, "pass").update(status="passed"),
    "no such level": lambda v: row(v, "pass").update(level="may"),
    "no such dtype": lambda v: row(v, "pass").update(dtype="float8"),
    "a row with a key more": lambda v: row(v, "pass").update(color="green"),
    "a pass without an example": lambda v: row(v, "pass").update(examples=0),
    "a pass with a counterexample": lambda v: row(v, "pass").update(
        counterexample=row(v, "fail")["counterexample"]
    ),
    "a pass beyond what is permitted": lambda v: row(v, "pass").update(worst=1.5),
    "a failure without a counterexample": lambda v: row(v, "fail").pop("counterexample"),
    "a waived row without its waiver": lambda v: row(v, "fail").update(status="waived"),
    "an unclaimed row with examples": lambda v: row(v, "unclaimed").update(examples=3),
    "an odd clause": lambda v: row(v, "pass").update(id="Value Mean"),
    "a place outside": lambda v: row(v, "fail")["counterexample"].update(
        where={"of": "result", "shape": [3], "wrong": [-1], "count": 1}
    ),
    "half a cause": lambda v: row(v, "fail")["counterexample"].update(cause={"id": "x"}),
    "an error below zero": lambda v: v["accuracy"][0].update(worst=-1),
    "a cell without examples": lambda v: v["coverage"][0].update(examples=0),
    "no such path": lambda v: v["coverage"][0].update(path="sideways"),
}


@pytest.mark.parametrize("how", MUTILATIONS)
def test_what_is_no_verdict_is_refused(how: str) -> None:
    data = copy.deepcopy(verdict("tutorial-function"))
    assert problems(data) == []
    MUTILATIONS[how](data)
    assert problems(data)
