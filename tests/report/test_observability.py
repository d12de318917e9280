"""``check --observe``: every case in Hypothesis's format of observations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

Json = dict[str, Any]
TEXT = {"type": "string"}
# As Hypothesis documents a test case.
PROPERTIES: Json = {
    "type": {"const": "test_case"},
    "status": {"enum": ["passed", "failed", "gave_up"]},
    "status_reason": TEXT,
    "representation": TEXT,
    "arguments": {"type": "object"},
    "how_generated": {"type": ["string", "null"]},
    "features": {"type": "object"},
    "coverage": {"type": ["object", "null"]},
    "timing": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    "metadata": {"type": "object"},
    "property": TEXT,
    "run_start": {"type": "number"},
}
TEST_CASE = Draft202012Validator(
    {
        "type": "object",
        "properties": PROPERTIES,
        "required": [*PROPERTIES],
        "additionalProperties": False,
    }
)


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", "check", *arguments]
    common = ["--profile", "quick", "--clause", "value.mean"]
    return subprocess.run(
        [*command, *common], cwd=folder, capture_output=True, text=True, check=False
    )


def observed(folder: Path, target: str, *more: str) -> list[Json]:
    check(folder, target, "--report", "out", "--observe", *more)
    (path,) = (folder / "out").glob("*/observations.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def essence(line: Json) -> Json:
    return {k: v for k, v in line.items() if k not in ("run_start", "timing")}


@pytest.mark.full
def test_every_case_is_written_down_the_same_with_any_number_of_jobs(tmp_path: Path) -> None:
    lines = observed(tmp_path, "tutorial-module", "--jobs", "1")
    verdict = json.loads((tmp_path / "out" / "tutorial-module" / "verdict.json").read_text())
    assert len(lines) == verdict["examples"] > 0
    assert not [e.message for line in lines for e in TEST_CASE.iter_errors(line)]
    assert len({line["run_start"] for line in lines}) == 1
    features = {"dtype", "reduction", "layout", "regime", "n", "path", "share"}
    assert all(set(line["features"]) == features for line in lines)
    again = observed(tmp_path, "tutorial-module", "--jobs", "2")
    assert [*map(essence, again)] == [*map(essence, lines)]


def test_a_case_that_deviates_and_one_that_is_left_out_say_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, torch\n"
        "import torch.nn.functional as F\n"
        "def loss(x, y, reduction='mean'):\n"
        "    if (x.shape, x.dtype, reduction) == ((3,), torch.float16, 'sum'): os._exit(9)\n"
        "    return F.mse_loss(x, y, reduction=reduction) * (2 if reduction == 'mean' else 1)\n"
    )
    check(tmp_path, "mine.py:loss", "--report", "out", "--observe", "--clause", "value.*")
    lines = [
        json.loads(line)
        for line in (tmp_path / "out/loss/observations.jsonl").read_text("utf-8").splitlines()
    ]
    assert not [e.message for line in lines for e in TEST_CASE.iter_errors(line)]
    by_status = {line["status"]: line for line in lines}
    assert "value: result is" in by_status["failed"]["status_reason"]
    assert by_status["failed"]["features"]["share"] > 1
    assert by_status["passed"]["status_reason"] == ""
    assert by_status["gave_up"]["status_reason"] == "left out: it ended its process"


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    check(tmp_path, "builtin", "--report", "out")
    assert not list(tmp_path.rglob("observations.jsonl"))
    refused = check(tmp_path, "builtin", "--observe")
    assert refused.returncode == 2
    assert "--report DIR" in refused.stderr
