"""The run of one target: workers judge its shards, and what they found becomes a verdict.

The supervisor imports neither torch nor NumPy nor anything of the target; nor do its workers, each
of which has an observer of its own beside the target.
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
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.clauses import BY_ID, selects
from conformance.report.progress import Progress, share
from conformance.running.budgets import EXPLAINING, Budget
from conformance.running.hosting import ForkServer, Hosting, Refused, ready
from conformance.running.neighbours import HOME
from conformance.verdict.verdict import BROKEN_STATUSES
from conformance.verdict.waivers import Waiver

WORKER = "conformance.running.worker"
START_LIMIT = 330.0  # seconds for an observer to import torch and the target
STOPPING = 5.0  # seconds that a worker which was told to stop may take to answer
Json = dict[str, Any]


class WorkerLost(Exception):
    """A worker ended between two answers. The message says how."""


class Worker:
    """One process that judges, in one of the run's places. Its observer starts at once, and
    imports the target when it is told to (:meth:`open`)."""

    def __init__(self, options: Json, hosting: Hosting, server: int | None) -> None:
        """``server``: the channel of a fork server for its observer, where there is one."""
        self.hello: Json = {}
        self._asked, self._left = False, b""  # whether an answer is due; what came of it
        # The worker imports the very package that this is, not one in the present folder.
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=() if server is None else (server,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._write(options | {"hosting": vars(hosting), "server": server})

    def open(self) -> None:
        """Import the target; ``hello`` then tells of it. Raises Refused and WorkerLost."""
        self._send({"do": "open"})
        self.hello = self.answer(START_LIMIT)
        if "error" in self.hello:
            self.close()
            raise Refused(self.hello["error"], self.hello["status"])

    def ask(self, task: Json) -> Json:
        """The answer to ``task``, which has limits of its own. Raises WorkerLost."""
        self._send(task)
        return self.answer(None)

    def answer(self, limit: float | None) -> Json:
        """To the last task. Raises WorkerLost where there is none, or none in time.

        An interrupt loses nothing: it can be asked for again.
        """
        assert self.process.stdout is not None
        end = None if limit is None else time.monotonic() + limit
        while b"\n" not in self._left:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            if not ready(self.process.stdout.fileno(), select.POLLIN, left):
                self.close()
                raise WorkerLost("did not answer")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                self.close()
                raise WorkerLost(_how(self.process.returncode))
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        self._asked = False
        found: Json = json.loads(line)
        return found

    @property
    def asked(self) -> bool:
        """Whether an answer is due."""
        return self._asked

    def stop(self) -> None:
        """Answer the task in hand with what was found until now."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the process, if it has not ended, and release its pipes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # it then ends its observer, and itself
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _send(self, task: Json) -> None:
        self._asked = True
        self._write(task)

    def _write(self, line: Json) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: answer() says how
            self.process.stdin.write((json.dumps(line) + "\n").encode())
            self.process.stdin.flush()


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with status {code}"


@dataclass
class Run:
    """The run of one target: results so far, lost calls, and whether anything was given up.

    ``hosting``: how its observers are started.
    """

    options: Json
    jobs: int
    hosting: Hosting
    results: list[Json] = field(default_factory=list)
    observed: dict[str, list[Json]] = field(default_factory=dict)
    gave_up: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    attempted: set[str] = field(default_factory=set)
    workers: list[Worker] = field(default_factory=list)
    waivers: Sequence[Waiver] = ()
    name: str = ""
    should: Sequence[str] = ()
    planned: list[list[Any]] = field(default_factory=list)
    done: list[list[Any]] = field(default_factory=list)
    began: float = 0.0
    shrinking: int = 0
    lost: int = 0
    lost_weight: int = 0
    stopped: bool = False
    server: ForkServer | None = None

    def progress(self) -> Progress:
        """How far it is; at any moment, from any thread."""
        failing = {
            row["clause"]: None
            for result in list(self.results)
            for row in result["findings"]
            if row["status"] in BROKEN_STATUSES
            and BY_ID[row["clause"]].level == "must"
            and row["clause"] not in self.should
            and selects(self.options["clause"], row["clause"])
            and not any(w.covers(row["clause"], row["dtype"]) for w in self.waivers)
        }
        return Progress(
            target=self.name,
            share=share([phase for phase, _ in self.done], [phase for phase, _ in self.planned]),
            seconds=time.monotonic() - self.began,
            cases=sum(result["cases"] for result in list(self.results)),
            failing=tuple(failing),
            lost=self.lost,
            shrinking=self.shrinking,
        )

    def replay(self, rows: list[Json]) -> Iterator[Json]:
        """For each broken row of a verdict, ``messages``: what deviates now.

        ``unable``: why it cannot be told. Raises Refused and WorkerLost.
        """
        with self._workplace():
            worker = self._launch(0)
            worker.open()
            for row in rows:
                task = {"clause": row["id"], "dtype": row["dtype"]}
                yield worker.ask(task | {"do": "replay", "case": row["counterexample"]["case"]})

    def smoke(self) -> list[str]:
        """What is wrong with the adapter. Raises Refused and WorkerLost."""
        problems: list[str] = self._asked({"do": "smoke"})["problems"]
        return problems

    def tried(self) -> Json:
        """What the target supports, see ``trying.py``. Raises Refused and WorkerLost."""
        return self._asked({"do": "try"})

    def _asked(self, task: Json) -> Json:
        """The answer of one worker that does nothing else."""
        with self._workplace():
            worker = self._launch(0)
            worker.open()
            return worker.ask(task)

    def verdict(self, started: Callable[[str, str, str], None]) -> Json:
        """Run everything; the verdict as JSON. Raises Refused and WorkerLost.

        ``started`` is called with the target's name, source and specification before its first
        case. An interrupt ends the run: the verdict then says so, with what was found until then.
        """
        start = time.monotonic()
        with self._workplace():
            first, *others = [self._launch(place) for place in range(self.jobs)]
            first.open()  # alone: a target may build a library while it is imported
            name, source = first.hello["ready"], first.hello["source"]
            started(name, source, first.hello["spec"])
            self.waivers = [
                w for w in self.waivers if w.concerns(name, source, self.options["device"])
            ]
            self.name, self.planned = name, first.hello["shards"]
            self.should = first.hello["should"]
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
            explained: list[Json] = []
            reasons: list[Json] = []
            rechecked: list[Json] = []
            try:
                self._serve(first, tasks)
                for thread in threads:
                    thread.join()
                explained = self._explained(first, explained)
                reasons = self._reasons(first, explained)
                rechecked = self._rechecked(first)
            except KeyboardInterrupt:
                self._stop(first, threads)
            return first.ask(
                {
                    "do": "conclude",
                    "results": self.results,
                    "explained": explained,
                    "reasons": reasons,
                    "rechecked": rechecked,
                    "tried": sorted(self.attempted),
                    "ended": not (self.gave_up or self.stopped),
                    "interrupted": self.stopped,
                    "duration_s": time.monotonic() - start,
                }
            )

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[None]:
        """In the end, whatever happened, no worker is left, nor an observer."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            if self.hosting.bwrap:
                self.hosting = replace(self.hosting, scratch=scratch)
            if ForkServer.serves(self.hosting.device):
                self.server = ForkServer(self.hosting)
            try:
                yield
            finally:
                for worker in self.workers:
                    worker.close()
                if self.server is not None:
                    self.server.close()

    def _launch(self, place: int) -> Worker:
        server = self.server.channel.fileno() if self.server else None
        worker = Worker(self.options, replace(self.hosting, place=place), server)
        self.workers.append(worker)
        return worker

    def _help(self, tasks: queue.SimpleQueue[list[Any]], worker: Worker) -> None:
        """Another worker, in a thread of its own; without it the first one does its work."""
        try:
            worker.open()
            self._serve(worker, tasks)
            worker.close()
        except Refused as refused:
            self.gave_up.append(f"another observer could not be started: {refused}")
        except WorkerLost as lost:
            self.gave_up.append(f"a worker {lost}")

    def _serve(self, worker: Worker, tasks: queue.SimpleQueue[list[Any]]) -> None:
        """Run shards until there are none."""
        while not self.stopped:
            try:
                shard = tasks.get_nowait()
            except queue.Empty:
                return
            task = {"do": "shard", "shard": shard, "lost": self.lost_weight}
            self._take(shard, worker.ask(task))

    def _take(self, shard: list[Any], answer: Json) -> None:
        result = answer["result"]
        self.observed[f"{shard[0]}-{shard[1]}"] = answer["observed"]
        self.results.append(result)
        self.gave_up += result["gave_up"]
        self.remarks += result["remarks"]
        self.lost += answer["lost"][0]
        self.lost_weight += answer["lost"][1]
        self.attempted.update(answer["tried"])
        self.done.append(shard)

    def _stop(self, first: Worker, threads: Sequence[threading.Thread]) -> None:
        """Interrupted: take what every worker has found."""
        self.stopped = True
        for worker in self.workers:
            worker.stop()
        for thread in threads:
            thread.join(STOPPING)
        if first.asked:
            answer = first.answer(STOPPING)
            if "result" in answer:
                self._take(["interrupted", 0], answer)

    def _explained(self, worker: Worker, found: list[Json]) -> list[Json]:
        """One finding of each broken clause, made smaller and with its likely cause, in time."""
        found += worker.ask({"do": "merge", "results": self.results})["findings"]
        for verb, do in (("made smaller", "minimise"), ("explained", "explain")):
            budget = Budget(EXPLAINING)
            for k, seconds in enumerate(budget.shares(len(found))):
                self.shrinking = len(found) - k
                task = {"do": do, "finding": found[k], "seconds": seconds}
                answer = worker.ask(task)
                found[k] = answer["finding"]
                budget.spent += answer["spent"]
            self.remarks += budget.remark(verb, len(found))
        return found

    def _reasons(self, worker: Worker, explained: list[Json]) -> list[Json]:
        if not any(result["findings"] for result in self.results):
            return []
        task = {"do": "reason", "results": self.results, "explained": explained}
        found: list[Json] = worker.ask(task)["reasons"]
        return found

    def _rechecked(self, worker: Worker) -> list[Json]:
        if not self.waivers:
            return []
        waivers = [waiver.to_json() for waiver in self.waivers]
        found: list[Json] = worker.ask({"do": "recheck", "waivers": waivers})["rechecked"]
        return found
