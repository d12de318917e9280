"""What a run that is killed leaves says that it is incomplete; the next one starts clean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.verdict.verdict import read_verdict
from tests.sampling import only

# Says where it is, and stays there, in one case: in a sleep, or with the interpreter's lock held.
SOURCE = """
import ctypes, os, time
from pathlib import Path
import torch.nn.functional as F
from targets import Target

def waits(x, y, reduction="mean"):
    if not Path({folder!r}, "mended").exists() and tuple(x.shape) == (31,):
        Path({folder!r}, f"{{os.getpid()}}.pid").touch()
        {wait}
    return F.mse_loss(x, y, reduction=reduction)

loss = Target("loss", waits, claims=frozenset({{"target_gradient"}}), dtypes=("float32", "float16"))
"""
WAITS = {"sleeping": "time.sleep(1000)", "holding the lock": "ctypes.PyDLL(None).pause()"}
QUICK = ("--profile", "quick", "--clause", "value.mean,value.sum,value.size")


class Place:
    """A folder with a target that waits, its report, and the temporary files of the run."""

    def __init__(self, folder: Path, wait: str) -> None:
        self.folder, self.report, self.temporary = folder, folder / "out", folder / "tmp"
        self.temporary.mkdir()
        (folder / "mine.py").write_text(SOURCE.format(folder=str(folder), wait=wait))
        self.target = f"{folder / 'mine.py'}:loss"
        self.verdict = self.report / "loss" / "verdict.json"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"TMPDIR": str(self.temporary)}
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def check(self) -> subprocess.Popen[str]:
        report = ("--report", str(self.report))
        return self.start("conformance", "check", self.target, "--jobs", "2", *QUICK, *report)

    def under_pytest(self) -> subprocess.Popen[str]:
        options = ["--target", self.target, "--conformance-profile", "quick", "-n", "2", "-q"]
        report = ["--conformance-report", str(self.report), "-p", "no:cacheprovider"]
        return self.start("pytest", "--pyargs", "conformance", *options, *report)

    def waiting(self, process: subprocess.Popen[str], n: int) -> list[int]:
        """The processes that wait in the target, once there are so many."""
        pids = self.folder.glob
        until(lambda: len(list(pids("*.pid"))) >= n or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return [int(path.stem) for path in pids("*.pid")]

    def mend(self) -> None:
        (self.folder / "mended").touch()


def until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether it runs: not as a zombie, which its dead parent's parent has not asked for yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def of_an_earlier_run(folder: Path) -> None:
    """A report that conforms, and what a process leaves that is killed while it writes one."""
    (folder / "repro").mkdir(parents=True)
    for name in ("junit.xml", "summary.md", "badge.json", "repro/value.mean.py"):
        (folder / name).write_text("conforms")
    (folder / "verdict.999999999").write_text('{"conforms": true, "cla')


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def is_incomplete(place: Place) -> None:
    """The verdict is whole, and says so; and so does everything that reads it."""
    verdict = read_verdict(place.verdict)
    assert (verdict["complete"], verdict["conforms"], verdict["clauses"]) == (False, False, [])
    assert [path.name for path in place.verdict.parent.iterdir() if path.is_file()] == [
        "verdict.json"
    ]
    assert not list(place.verdict.parent.glob("repro/*"))
    gate, replay = (
        conformance("gate", str(place.verdict)),
        conformance("replay", str(place.verdict)),
    )
    assert (gate.returncode, replay.returncode) == (1, 3)
    assert gate.stdout == f"{place.verdict}: REFUSED: it is incomplete\n"
    assert replay.stderr.count("\n") == 1
    assert "the run did not end" in replay.stderr
    waive = conformance("waive", str(place.verdict), "value.mean", "--reason", "none")
    assert waive.returncode == 2
    assert "Traceback" not in gate.stderr + replay.stderr + waive.stderr


def is_whole(place: Place) -> dict[str, Any]:
    verdict = read_verdict(place.verdict)
    assert verdict["complete"]
    assert verdict["conforms"]
    assert {path.name for path in place.verdict.parent.iterdir() if path.is_file()} >= {
        "verdict.json",
        "badge.json",
    }
    assert not list(place.verdict.parent.glob("verdict.[0-9]*"))
    assert json.loads((place.verdict.parent / "badge.json").read_text())["message"] == "conforms"
    return verdict


@only(["holding the lock"], "wait", WAITS)
def test_a_killed_controller_leaves_an_incomplete_verdict_and_nothing_else(
    wait: str, tmp_path: Path
) -> None:
    place = Place(tmp_path, WAITS[wait])
    of_an_earlier_run(place.verdict.parent)
    process = place.check()
    workers = place.waiting(process, 2)
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, workers)))
    is_incomplete(place)
    assert not list(place.temporary.glob("loss-conformance*"))
    place.mend()
    again = place.check()
    output, errors = again.communicate()
    assert again.returncode == 0, output + errors
    is_whole(place)


def test_a_killed_worker_costs_its_call_and_no_more(tmp_path: Path) -> None:
    place = Place(tmp_path, WAITS["sleeping"])
    process = place.check()
    (worker, *_) = place.waiting(process, 1)
    place.mend()
    os.kill(worker, signal.SIGKILL)
    # Whoever else waits in this case is not mended by that: those are killed as they come.
    killed = {worker}
    while process.poll() is None:
        for path in tmp_path.glob("*.pid"):
            if int(path.stem) not in killed and alive(int(path.stem)):
                os.kill(int(path.stem), signal.SIGKILL)
                killed.add(int(path.stem))
        time.sleep(0.05)
    output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 1, output
    assert "the call was killed by signal 9 (SIGKILL)" in output
    verdict = read_verdict(place.verdict)
    lost = [row for row in verdict["clauses"] if row["status"] == "crash"]
    assert 0 < len(lost) <= len(killed)
    assert all(row["counterexample"]["case"]["input"]["shape"] == [31] for row in lost)
    assert {row["status"] for row in verdict["clauses"]} == {"pass", "crash"}


@pytest.mark.full
def test_a_killed_controller_of_pytest_xdist_leaves_an_incomplete_verdict(tmp_path: Path) -> None:
    place = Place(tmp_path, WAITS["sleeping"])
    of_an_earlier_run(place.verdict.parent)
    process = place.under_pytest()
    workers = place.waiting(process, 1)
    process.kill()
    process.wait()
    is_incomplete(place)
    until(lambda: not any(map(alive, workers)))
    place.mend()
    again = place.under_pytest()
    output, errors = again.communicate()
    assert again.returncode == 0, output + errors
    assert is_whole(place)["selected"] == "*"
