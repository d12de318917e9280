"""A campaign that is killed, whenever, and begun again ends as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conformance.running.campaign.ledger import Circumstances, Ledger
from tests.running.campaign.samples import RIGHT, folder, kernel, wrong
from tests.running.test_kills import alive, until

pytestmark = pytest.mark.full

TEXTS = {f"times-{n}": wrong(n) for n in range(2, 9)} | {
    "ends": kernel("os._exit(3)"),
    "no-module": "import no_such_module\n",
    "no-gradient": RIGHT.replace("(input, ", "(input.detach(), "),
}
KILLS = 4


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "conformance", "campaign", str(source), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--seed", "5", "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def content(out: Path) -> dict[tuple[str, str], Any]:
    """What the ledger says, but for times and who judged."""
    with Ledger(out) as ledger:
        rows = ledger._file.execute("select distinct spec, suite, seed, environment from verdicts")
        (own,) = [Circumstances(*row) for row in rows]
        names = {one.digest: one.name for one in ledger.kernels()}
        return {
            (names[e.kernel], e.stage): e.outcome.to_json() | {"script": bool(e.outcome.script)}
            for e in ledger.entries(own)
        }


def verdicts(out: Path) -> int:
    """How many there are, while somebody writes."""
    path = out / "ledger.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as file:
        try:
            return int(file.execute("select count(*) from verdicts").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_killed_at_random_moments_it_ends_with_an_equal_ledger(tmp_path: Path) -> None:
    source = folder(tmp_path / "kernels", TEXTS)
    assert start(source, tmp_path / "whole").wait() == 1
    killed, chance, had = tmp_path / "killed", random.Random(3), 0
    for turn in range(KILLS):
        process = start(source, killed)
        end = time.monotonic() + 240
        while verdicts(killed) <= had and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(chance.random())
        own = children(process.pid) if process.poll() is None else []
        if turn % 2 and own:  # a worker: the controller goes on
            os.kill(chance.choice(own), signal.SIGKILL)
            time.sleep(chance.random())
        workers = children(process.pid) if process.poll() is None else []
        process.kill()
        process.wait()
        until(lambda: not any(map(alive, workers)))  # noqa: B023  it is called at once
        now = verdicts(killed)
        assert now >= had, "a verdict was lost"
        had = now
    assert start(source, killed).wait() == 1
    found, expected = content(killed), content(tmp_path / "whole")
    assert found == expected
    again = json.loads((killed / "results.jsonl").read_text().splitlines()[0])
    assert again["correct"] == 0
