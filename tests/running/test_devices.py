"""Devices and memory, as far as they can be tested without a GPU."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.cases.profiles import PROFILES
from conformance.observer.devices import DeviceLost, check_alive
from conformance.pytest.reaching import opened
from conformance.running import gpus, memory
from conformance.running.gpus import own_gpu
from conformance.running.hosting import Hosting
from conformance.running.inprocess import judged
from conformance.running.run import run_shard
from conformance.running.shards import Shard
from conformance.running.supervisor import Run
from targets import Target
from tests.sessions import session_on


@pytest.mark.parametrize(
    ("worker", "visible", "expected"),
    [
        (0, "0,1,2", "0,1,2"),
        (1, "0,1,2", "1,2,0"),
        (4, "0,1,2", "1,2,0"),
        (1, "5, 3", "3,5"),
        (1, "GPU-a,GPU-b,-1,GPU-c", "GPU-b,GPU-a"),
    ],
)
def test_each_worker_has_another_gpu_of_those_the_caller_sees_first(
    worker: int, visible: str, expected: str
) -> None:
    assert own_gpu(worker, "cuda", {gpus.VISIBLE: visible}) == {gpus.VISIBLE: expected}


@pytest.mark.parametrize("visible", ["", "-1", "0", "MIG-1"])
def test_with_one_gpu_or_none_nothing_is_changed(visible: str) -> None:
    assert own_gpu(1, "cuda", {gpus.VISIBLE: visible}) == {}


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_device_that_is_named_is_left_to_the_caller(device: str) -> None:
    assert own_gpu(1, device, {gpus.VISIBLE: "0,1"}) == {}


def test_where_the_caller_says_nothing_the_installed_gpus_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == "nvidia-smi"
        return subprocess.CompletedProcess(command, 0, "GPU-a\nGPU-b\n")

    monkeypatch.setattr(subprocess, "run", found)
    assert own_gpu(1, "cuda", {}) == {gpus.VISIBLE: "GPU-b,GPU-a"}


def test_without_a_driver_there_is_nothing_to_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(command: list[str], **_: Any) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    assert own_gpu(1, "cuda", {}) == {}


def broken_after(errors: int) -> Any:
    """``torch.cuda.synchronize`` as it is where so many calls of it fail."""
    left = [errors]

    def synchronize(device: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    return synchronize


def test_an_error_that_is_told_once_leaves_the_device_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", broken_after(1))
    check_alive("cuda")


def test_an_error_that_stays_is_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", broken_after(99))
    with pytest.raises(DeviceLost, match="left cuda unusable: CUDA error: an illegal memory acc"):
        check_alive("cuda")


LOST = """
import torch
from trainloop import desk  # the observer, as it is called beside a target

def lost(device):
    if wild:
        raise desk.DeviceLost("left cuda unusable: CUDA error: misaligned address")

wild = False
desk.check_alive = lost

def loss(x, y, reduction="mean"):
    global wild
    wild = wild or (x.shape == (31,) and x.dtype == torch.float16 and reduction == "sum")
    return torch.nn.functional.mse_loss(x, y, reduction=reduction)
"""


def test_a_lost_device_is_a_crash_with_its_case_and_the_rest_is_judged_in_a_fresh_worker(
    tmp_path: Path,
) -> None:
    """Once a wild pointer was read, no later call in that process can succeed."""
    (tmp_path / "mine.py").write_text(LOST)
    setting = {"device": "cpu", "profile": "quick", "seed": 0, "clause": "value.*"}
    verdict = Run(setting, 1, Hosting(f"{tmp_path / 'mine.py'}:loss")).verdict(
        started=lambda *names: None
    )
    crashes = [row for row in verdict["clauses"] if row["status"] == "crash"]
    assert crashes
    assert not verdict["conforms"]
    for row in crashes:
        assert (
            "left cuda unusable: CUDA error: misaligned address" in row["counterexample"]["message"]
        )
    assert any(row["counterexample"]["case"] for row in crashes)
    assert verdict["examples"] > 400
    assert {row["status"] for row in verdict["clauses"]} >= {"pass", "crash"}


def test_without_a_wall_a_lost_device_ends_the_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.observer.desk.check_alive", check_lost)
    session = session_on(Target("mine", torch.nn.functional.mse_loss))
    with pytest.raises(DeviceLost):
        run_shard(session, Shard("examples", 0), PROFILES["quick"])


def check_lost(device: str) -> None:
    raise DeviceLost("left it")


GREEDY = """
import torch

def loss(x, y, reduction="mean"):
    if x.shape == (31,) and reduction == "sum":
        held = []
        while True:
            held.append(torch.ones(2**24))
    return torch.nn.functional.mse_loss(x, y, reduction=reduction)
"""


@pytest.mark.full
def test_a_call_that_allocates_without_end_is_ended_and_the_rest_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are set so that the machine is left in peace."""
    real = memory.resident
    monkeypatch.setattr(memory, "exhausted_by", lambda pid: real(pid) > 2**30)
    (tmp_path / "mine.py").write_text(GREEDY)
    with contextlib.closing(opened(Hosting(f"{tmp_path / 'mine.py'}:loss", limit=60.0))) as mine:
        verdict = judged(mine, "quick", 0, clauses="value.*").to_json()
    crashes = [row for row in verdict["clauses"] if row["status"] == "crash"]
    assert {row["counterexample"]["message"] for row in crashes} == {
        "the call was ended: it left the machine almost no memory"
    }
    assert crashes[0]["counterexample"]["case"]["input"]["shape"] == [31]


def test_memory_is_exhausted_by_a_large_process_on_a_full_machine_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib = 2**30
    monkeypatch.setattr(memory, "total", lambda: 16 * gib)
    for left, held, expected in (
        (gib // 2, 3 * gib, True),
        (gib // 2, gib, False),
        (4 * gib, 9 * gib, False),
        (memory.UNKNOWN, 9 * gib, False),
    ):
        monkeypatch.setattr(memory, "available", lambda left=left: left)
        monkeypatch.setattr(memory, "resident", lambda pid, held=held: held)
        assert memory.exhausted_by(2**30) is expected  # which has started none
