"""A verdict comes whatever the target does with time; cut short, it has what was found so far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sampling import only

SLOW = """
import time
import torch

def loss(input, target, reduction="mean"):
    time.sleep(0.015)
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)
"""


def _heard() -> None:
    """A shell has what it runs in the background ignore an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@only([6.0], "after", [1.0, 6.0, 12.0])
def test_an_interrupt_leaves_a_verdict_with_what_was_found(after: float, tmp_path: Path) -> None:
    wrong = SLOW.replace("reduction=reduction)", "reduction=reduction) * 1.01")
    (tmp_path / "slow.py").write_text(wrong)
    command = [sys.executable, "-m", "conformance", "check", "slow.py:loss", "--report", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heard,
    )
    verdict = tmp_path / "out" / "loss" / "verdict.json"
    end = time.monotonic() + 120
    while not verdict.exists():  # it has begun
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(after)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    found = json.loads(verdict.read_text())
    assert found["interrupted"], errors
    assert not found["complete"]
    assert "Traceback" not in output + errors
    assert process.returncode == (1 if "fail" in {r["status"] for r in found["clauses"]} else 3)
    if after > 5:
        assert "value.mean" in {r["id"] for r in found["clauses"] if r["status"] == "fail"}


LATE = """
import torch

def loss(input, target, reduction="mean"):
    value = torch.nn.functional.mse_loss(input, target, reduction=reduction)
    late = input.dtype == torch.float16 and input.numel() >= 65_520
    return value * 1.01 if late else value
"""


@pytest.mark.full
def test_what_is_wrong_from_a_large_size_on_has_its_smallest_case(tmp_path: Path) -> None:
    """Each try is dear there: the steps after the run end within their budgets."""
    (tmp_path / "late.py").write_text(LATE)
    command = [sys.executable, "-m", "conformance", "check", "late.py:loss", "--report", "out"]
    options = ["--profile", "quick", "--clause", "value.*,gradient.*"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    rows = {r["id"]: r for r in verdict["clauses"] if r["status"] == "fail"}
    assert "value.size" in rows
    case = rows["value.size"]["counterexample"]["case"]
    assert (case["input"]["shape"], case["input"]["dtype"]) == ([65_520], "float16")
