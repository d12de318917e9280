"""The engine of one machine: processes, each of which judges one kernel at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from conformance.running.campaign.engine import Died, Event, Judged
from conformance.running.campaign.stages import STAGES
from conformance.running.campaign.task import Answer, Setting, Task
from conformance.running.neighbours import HOME

WORKER = "conformance.running.campaign.worker"
STARTING = 300.0  # seconds to import torch
# Beyond all limits of its own: whoever judges hangs, which is no kernel's right.
SPARE = 120.0


class Local:
    """So many ``places``; a worker that has ended is started anew for the next task.

    ``scratch``: a folder for their temporary files, of which in the end nothing is left.
    """

    def __init__(self, setting: Setting, places: int, scratch: Path) -> None:
        self._setting, self._places = setting, places
        self._scratch = scratch.resolve()
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a run that was killed
        self._scratch.mkdir(parents=True)
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}  # by the descriptor of their answers
        for place in range(places):  # at once: importing torch takes longest of all
            self._idle.append(_Worker(setting, place, self._scratch))

    @property
    def room(self) -> int:
        return self._places - len(self._busy)

    def submit(self, task: Task) -> None:
        worker = self._idle.pop()
        worker.begin(task, _limit(self._setting, task))
        self._busy[worker.descriptor] = worker

    def wait(self, seconds: float) -> list[Event]:
        poll = select.poll()
        for descriptor in self._busy:
            poll.register(descriptor, select.POLLIN)
        spoke = {descriptor for descriptor, _ in poll.poll(1000 * seconds)}
        events: list[Event] = []
        for descriptor, worker in [*self._busy.items()]:
            event = worker.heard() if descriptor in spoke else worker.late()
            if event is not None:
                del self._busy[descriptor]
                if isinstance(event, Died):
                    worker = _Worker(self._setting, worker.place, self._scratch)
                self._idle.append(worker)
                events.append(event)
        return events

    def close(self) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.end()
        shutil.rmtree(self._scratch, ignore_errors=True)


class _Worker:
    """One process, and the task that it has in hand."""

    def __init__(self, setting: Setting, place: int, scratch: Path) -> None:
        self.place = place
        self._task: Task | None = None
        self._end, self._left = 0.0, b""
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(scratch)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        own = setting.to_json()
        own["hosting"] |= {"place": place}
        self._write(own)

    @property
    def descriptor(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def begin(self, task: Task, limit: float) -> None:
        self._task, self._end = task, time.monotonic() + limit
        self._write(task.to_json())

    def heard(self) -> Event | None:
        """What it said, once that is whole."""
        assert self._task is not None
        data = os.read(self.descriptor, 1 << 20)
        self._left += data
        if not data:
            return Died(self._task, self.end())
        if b"\n" not in self._left:
            return None
        line, _, self._left = self._left.partition(b"\n")
        return Judged(self._task, Answer.from_json(json.loads(line)))

    def late(self) -> Event | None:
        """Its end, where its time is over."""
        if self._task is None or time.monotonic() < self._end:
            return None
        self.end()
        return Died(self._task, "did not answer")

    def end(self) -> str:
        """End it, where it has not ended; how it did."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        return _how(code)

    def _write(self, line: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: that is heard of
            self._process.stdin.write((json.dumps(line) + "\n").encode())
            self._process.stdin.flush()


def _limit(setting: Setting, task: Task) -> float:
    stage = STAGES[task.stage]
    return STARTING + setting.limits.compiling + stage.seconds + 2 * stage.explaining + SPARE


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with status {code}"
