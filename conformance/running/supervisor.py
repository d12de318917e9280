"""Run the shards of a target in worker processes, and lose nothing when one dies.

The supervisor never imports torch, nor anything of the target. A worker that crashes, or that stays
in one call for longer than the limit, is replaced; the call is recorded, and the shard is run again
without it.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.clauses import BY_ID, selects
from conformance.observer.devices import own_gpu
from conformance.running import memory
from conformance.running.box import BlackBox
from conformance.running.neighbours import HOME
from conformance.running.progress import Progress, share
from conformance.verdict.verdict import BROKEN_STATUSES
from conformance.verdict.waivers import Rechecked, Waiver

WORKER = "conformance.running.worker"
LOST_PER_SHARD = 3  # calls that may crash before the rest of a shard is given up
LOST_PER_RUN = 20  # and before the rest of the run is: the verdict is clear by then
LOST_BY_TIMEOUT = 4  # a call that times out counts as so many: each costs the whole limit
START_LIMIT = 300.0  # seconds for a worker to import torch and the target
FIRST_CALL = 3  # times the limit for a worker's first call, which may have to compile something
POLL = 0.1  # seconds between two looks at a worker: a process can fill some 0.5 GiB meanwhile


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
    """One worker process, in one of the run's places. ``limit``: seconds for each call, and
    ``first`` for its first.

    It imports torch at once, and the target when it is told to (:meth:`open`).
    """

    def __init__(self, options: dict[str, Any], limit: float, first: float, place: int) -> None:
        handle, name = tempfile.mkstemp(prefix="loss-conformance-", suffix=".box")
        os.close(handle)
        os.unlink(name)
        self.box, self.place = BlackBox(Path(name)), place
        self.limit, self.first = limit, first
        self.hello: dict[str, Any] = {}
        # The worker imports the very package that this is, not one in the present folder.
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "conformance.running.worker",
                json.dumps(options | {"box": name}),
            ],
            env=os.environ
            | own_gpu(place, options["device"], os.environ)
            | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def open(self) -> None:
        """Import the target; ``hello`` then tells of it. Raises WorkerRefused."""
        try:
            self._send({"do": "open"})
            self.hello = self._receive(START_LIMIT)
        except Died as died:
            raise WorkerRefused(
                f"the target's process {died.how} while it was imported", 2
            ) from None
        finally:
            self.box.path.unlink(missing_ok=True)  # the worker does it, unless it ends too soon
        if "error" in self.hello:
            self.close()
            raise WorkerRefused(self.hello["error"], self.hello["status"])

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """The answer to ``task``. Raises Died."""
        self._send(task)
        return self._receive(None)

    def close(self) -> None:
        """End the process, if it has not ended, and release its pipes."""
        if self.process.poll() is None and not self._ended_by_itself():
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _ended_by_itself(self) -> bool:
        """Whether its output has ended: then it is about to, and its own status tells how."""
        assert self.process.stdout is not None
        try:
            ready = select.select([self.process.stdout], [], [], 0)[0]
            self.process.wait(1 if ready else 0)
        except (subprocess.TimeoutExpired, ValueError):
            return False
        return True

    def _send(self, task: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: _receive says how
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()

    def _receive(self, limit: float | None) -> dict[str, Any]:
        assert self.process.stdout is not None
        began = time.monotonic()
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], POLL)
            seconds, call = self.box.read()
            if ready:
                line = self.process.stdout.readline()
                if line:
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                self.close()
                raise Died(call, "crash", self.box.reason() or _how(self.process.returncode))
            patience = _share(call) * (self.limit if self.box.ended() else self.first)
            if seconds > patience or (limit and time.monotonic() - began > limit):
                self.close()
                raise Died(call, "timeout", f"did not return within {patience:g} s")
            if call and memory.exhausted_by(self.process.pid):
                self.close()
                raise Died(call, "crash", "was ended: it left the machine almost no memory")


# An experiment is several calls; those of later profiles compile, or move gigabytes.
_SHARES = {"quick": 2, "default": 4, "release": 30}


def _share(call: str) -> int:
    """How many times the limit of a call this one, as written in the box, may take."""
    if not call.startswith("experiment "):
        return 1
    return _SHARES[BY_ID[call.split(" ")[1]].profile]


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
    observed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    waivers: Sequence[Waiver] = ()
    name: str = ""
    planned: list[list[Any]] = field(default_factory=list)
    done: list[list[Any]] = field(default_factory=list)
    began: float = 0.0
    shrinking: int = 0

    def progress(self) -> Progress:
        """How far it is; at any moment, from any thread."""
        failing = {
            row["clause"]: None
            for result in list(self.results)
            for row in result["findings"]
            if row["status"] in BROKEN_STATUSES
            and BY_ID[row["clause"]].level == "must"
            and selects(self.options["clause"], row["clause"])
            and not any(w.covers(row["clause"], row["dtype"]) for w in self.waivers)
        }
        return Progress(
            target=self.name,
            share=share([phase for phase, _ in self.done], [phase for phase, _ in self.planned]),
            seconds=time.monotonic() - self.began,
            cases=sum(result["cases"] for result in list(self.results)),
            failing=tuple(failing),
            lost=len(self.lost),
            shrinking=self.shrinking,
        )

    def replay(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """For each broken row of a verdict, ``messages``: what deviates now.

        ``unable``: why it cannot be told. Raises WorkerRefused.
        """
        with self._workplace():
            worker = self._start()
            for row in rows:
                task = {"clause": row["id"], "dtype": row["dtype"]}
                try:
                    case = row["counterexample"]["case"]
                    yield worker.ask(task | {"do": "replay", "case": case})
                except Died as died:
                    yield {"messages": [f"the call {died.how}"]}
                    worker = self._start(worker.place)

    def smoke(self) -> list[str]:
        """What is wrong with the adapter. Raises WorkerRefused."""
        with self._workplace():
            try:
                found: list[str] = self._start().ask({"do": "smoke"})["problems"]
            except Died as died:
                return [f"{died.call or 'the target'}: the call {died.how}"]
            return found

    def verdict(self, started: Callable[[str, str], None]) -> dict[str, Any]:
        """Run everything; the verdict as JSON. Raises WorkerRefused.

        ``started`` is called with the target's name and source before its first case.
        """
        start = time.monotonic()
        with self._workplace():
            first, *others = [self._launch(place) for place in range(self.jobs)]
            first.open()  # alone: a target may build a library while it is imported
            name, source = first.hello["ready"], first.hello["source"]
            started(name, source)
            self.waivers = [
                w for w in self.waivers if w.concerns(name, source, self.options["device"])
            ]
            self.name, self.planned = name, first.hello["shards"]
            self.began = time.monotonic()
            tasks: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
            for shard in self.planned:
                tasks.put(shard)
            threads = [
                threading.Thread(target=self._help, args=(tasks, worker), daemon=True)
                for worker in others
            ]
            for thread in threads:
                thread.start()
            last = self._serve(first, tasks)
            for thread in threads:
                thread.join()
            return self._conclude(last, start)

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[None]:
        """In the end, whatever happened, no worker is left."""
        try:
            yield
        finally:
            for worker in self.workers:
                worker.close()

    def _launch(self, place: int) -> Worker:
        """A worker, which is not patient once a call was lost: what hangs does so again."""
        first = self.limit * (1 if self.lost else FIRST_CALL)
        worker = Worker(self.options, self.limit, first, place)
        self.workers.append(worker)
        return worker

    def _start(self, place: int = 0) -> Worker:
        worker = self._launch(place)
        worker.open()
        return worker

    def _help(self, tasks: queue.SimpleQueue[list[Any]], worker: Worker) -> None:
        """Another worker, in a thread of its own; without it the first one does its work."""
        try:
            worker.open()
            self._serve(worker, tasks).close()
        except WorkerRefused as error:
            self.gave_up.append(f"a worker could not be started again: {error}")

    def _serve(self, worker: Worker, tasks: queue.SimpleQueue[list[Any]]) -> Worker:
        """Run shards until there are none; the worker that is alive at the end."""
        while True:
            try:
                shard = tasks.get_nowait()
            except queue.Empty:
                return worker
            if self._lost_enough():
                self.gave_up.append(f"{shard[0]}-{shard[1]}: too many calls were lost before it")
            else:
                worker = self._run_shard(worker, shard)
            self.done.append(shard)

    def _lost_enough(self) -> bool:
        timeouts = sum(status == "timeout" for _, status, _ in self.lost)
        return len(self.lost) + (LOST_BY_TIMEOUT - 1) * timeouts >= LOST_PER_RUN

    def _run_shard(self, worker: Worker, shard: list[Any]) -> Worker:
        """Run one shard to the end, without the calls that kill; the worker that is alive then."""
        skip: list[str] = []
        name = f"{shard[0]}-{shard[1]}"
        while True:
            try:
                result = worker.ask({"do": "shard", "shard": shard, "skip": skip})
                self.observed[name] = result.pop("observed")
                self.results.append(result)
                return worker
            except Died as died:
                worker = self._start(worker.place)
                if not died.call:
                    self.gave_up.append(f"{name}: the worker {died.how} outside a call")
                    return worker
                self.lost.append((died.call, died.status, died.how))
                skip.append(died.call)
                if len(skip) >= LOST_PER_SHARD or self._lost_enough():
                    self.gave_up.append(
                        f"{name}: {len(skip)} calls were lost, the rest is left out"
                    )
                    return worker

    def _conclude(self, worker: Worker, start: float) -> dict[str, Any]:
        """Merge all results, make counterexamples smaller and explain them, recheck waivers, get
        the verdict."""
        task: dict[str, Any] = {"results": self.results, "lost": self.lost}
        smaller = []
        findings = worker.ask(task | {"do": "merge"})["findings"]
        for k, finding in enumerate(findings):
            self.shrinking = len(findings) - k
            try:
                smaller.append(worker.ask({"do": "minimise", "finding": finding}))
            except Died as died:
                worker = self._start(worker.place)
                if died.call:
                    self.lost.append((died.call, died.status, died.how))
                continue
            try:
                smaller[-1] = worker.ask({"do": "explain", "finding": smaller[-1]})
            except Died:  # then there is no cause to tell
                worker = self._start(worker.place)
        rechecked = []
        for waiver in self.waivers:
            if selects(self.options["clause"], waiver.clause):
                try:
                    rechecked.append(worker.ask({"do": "recheck", "waiver": waiver.to_json()}))
                except Died as died:
                    worker = self._start(worker.place)
                    message = f"the call {died.how}"
                    rechecked.append(Rechecked(waiver, died.status, 1, message).to_json())
        return worker.ask(
            task
            | {
                "do": "conclude",
                "rechecked": rechecked,
                "minimised": smaller,
                "ended": not self.gave_up,
                "duration_s": time.monotonic() - start,
            }
        )
