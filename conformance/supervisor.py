"""Run the shards of a target in worker processes, and lose nothing when one dies.

The supervisor never imports torch, nor anything of the target. A worker that crashes, or that stays
in one call for longer than the limit, is replaced; the call is recorded, and the shard is run again
without it.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.box import BlackBox
from conformance.neighbours import HOME

LOST_PER_SHARD = 3  # calls that may crash before the rest of a shard is given up
START_LIMIT = 300.0  # seconds for a worker to import torch and the target


class WorkerRefused(Exception):
    """The worker cannot work: a target or device that is not to be had. ``status``: 2 or 3."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Died(Exception):
    """The worker ended in the middle of a task. ``status``: crash or timeout."""

    call: str
    status: str
    how: str


class Worker:
    """One worker process. ``limit``: seconds for each call of the target."""

    def __init__(self, options: dict[str, Any], folder: Path, limit: float) -> None:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".box")
        os.close(handle)
        os.unlink(name)
        self.box, self.limit = BlackBox(Path(name)), limit
        # The worker imports the very package that this is, not one in the present folder.
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "conformance.worker", json.dumps(options | {"box": name})],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        try:
            self.hello = self._receive(START_LIMIT)
        except Died as died:
            raise WorkerRefused(
                f"the target's process {died.how} while it was imported", 2
            ) from None
        if "error" in self.hello:
            self.close()
            raise WorkerRefused(self.hello["error"], self.hello["status"])

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``task``. Raises Died."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: _receive says how
        return self._receive(None)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _receive(self, limit: float | None) -> dict[str, Any]:
        assert self.process.stdout is not None
        began = time.monotonic()
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], 0.2)
            seconds, call = self.box.read()
            if ready:
                line = self.process.stdout.readline()
                if line:
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                self.process.wait()
                raise Died(call, "crash", _how(self.process.returncode))
            if seconds > self.limit or (limit and time.monotonic() - began > limit):
                self.close()
                raise Died(call, "timeout", f"did not return within {self.limit:g} s")


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with status {code}"


@dataclass
class Run:
    """The run of one target: results so far, lost calls, and whether anything was given up."""

    options: dict[str, Any]
    jobs: int
    limit: float
    results: list[dict[str, Any]] = field(default_factory=list)
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)

    def replay(self, cases: list[dict[str, Any]]) -> list[list[str]]:
        """What deviates in each case now. Raises WorkerRefused."""
        found: list[list[str]] = []
        with tempfile.TemporaryDirectory(prefix="loss-conformance-") as name:
            self.folder = Path(name)
            worker = self._start()
            for case in cases:
                try:
                    found.append(worker.ask({"do": "replay", "case": case})["messages"])
                except Died as died:
                    found.append([f"the call {died.how}"])
                    worker.close()
                    worker = self._start()
            worker.close()
        return found

    def verdict(self, started: Callable[[str], None]) -> dict[str, Any]:
        """Run everything; the verdict as JSON. Raises WorkerRefused.

        ``started`` is called with the target's name before its first case.
        """
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="loss-conformance-") as name:
            self.folder = Path(name)
            first = self._start()
            started(first.hello["ready"])
            tasks: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
            for shard in first.hello["shards"]:
                tasks.put(shard)
            others = [
                threading.Thread(target=self._serve, args=(None, tasks), daemon=True)
                for _ in range(self.jobs - 1)
            ]
            for thread in others:
                thread.start()
            first = self._serve(first, tasks)
            for thread in others:
                thread.join()
            try:
                return self._conclude(first, start)
            finally:
                self.last.close()

    def _start(self) -> Worker:
        return Worker(self.options, self.folder, self.limit)

    def _serve(self, worker: Worker | None, tasks: queue.SimpleQueue[list[Any]]) -> Worker:
        mine = worker or self._start()
        try:
            while True:
                try:
                    shard = tasks.get_nowait()
                except queue.Empty:
                    return mine
                mine = self._run_shard(mine, shard)
        finally:
            if worker is None:
                mine.close()

    def _run_shard(self, worker: Worker, shard: list[Any]) -> Worker:
        skip: list[str] = []
        while True:
            try:
                self.results.append(worker.ask({"do": "shard", "shard": shard, "skip": skip}))
                return worker
            except Died as died:
                worker.close()
                worker = self._start()
                if not died.call:
                    self.gave_up.append(
                        f"{shard[0]}-{shard[1]}: the worker {died.how} outside a call"
                    )
                    return worker
                self.lost.append((died.call, died.status, died.how))
                skip.append(died.call)
                if len(skip) >= LOST_PER_SHARD:
                    self.gave_up.append(f"{shard[0]}-{shard[1]}: {len(skip)} calls were lost")
                    return worker

    def _conclude(self, worker: Worker, start: float) -> dict[str, Any]:
        self.last = worker
        task: dict[str, Any] = {"results": self.results, "lost": self.lost}
        found = worker.ask(task | {"do": "merge"})["findings"]
        smaller = []
        for finding in found:
            try:
                smaller.append(self.last.ask({"do": "minimise", "finding": finding}))
            except Died as died:
                self.last.close()
                self.last = self._start()
                if died.call:
                    self.lost.append((died.call, died.status, died.how))
        return self.last.ask(
            task
            | {
                "do": "conclude",
                "lost": self.lost,
                "minimised": smaller,
                "ended": not self.gave_up or bool(self.lost),
                "duration_s": time.monotonic() - start,
            }
        )
