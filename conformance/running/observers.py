"""Observers, and how they are reached: in a process of their own, or in this one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from conformance.cases.arena import Arena
from conformance.cases.claimed import Claimed, UnknownLoss
from conformance.clauses import BY_ID
from conformance.judging.evidence import BadEvidence
from conformance.judging.findings import EXPERIMENT
from conformance.judging.observer import Json, Lost, Observer
from conformance.observer.host import LOST_DEVICE
from conformance.running import memory, sandbox
from conformance.running.hosting import Hosting, Refused, Started, opening, ready, start

START_LIMIT = 300.0  # seconds to import torch and the target
FIRST_CALL = 3  # times the limit for an observer's first call, which may have to compile something
POLL = 0.1  # seconds between two looks: a process can fill some 0.5 GiB meanwhile
LONGEST = 1 << 24  # bytes of an answer: tensors lie in the arena
# An experiment is several calls; those of later profiles compile, or move gigabytes.
SHARES = {"quick": 2, "default": 4, "release": 30}


class Interrupted(Exception):
    """Whoever judges was told to stop."""


class InProcess(Observer):
    """In this process, for convenience and debugging: there is no wall. It ends with the target."""

    def __init__(self, target: Any, device: str) -> None:
        from conformance.observer.description import described, environment
        from conformance.observer.desk import Desk

        self.arena, self.device = Arena.new(), device
        self.claimed = Claimed.from_json(described(target))
        self.environment = environment()
        self._desk = Desk(target, device, self.arena)

    @classmethod
    def of(cls, spec: Any, device: str, loss: str = "") -> InProcess:
        """Of whatever :func:`targets.resolve` takes. Raises TargetError and DeviceUnavailable."""
        from conformance.observer.description import make_ready
        from targets import resolve

        target = resolve(spec, loss)
        make_ready(target, device)
        return cls(target, device)

    def exchange(self, request: Json, calls: Sequence[str]) -> Json:
        return self._desk.answer(request)

    def close(self) -> None:
        pass


class Process(Observer):
    """In a process of its own, started anew where a call ended it."""

    def __init__(
        self,
        hosting: Hosting,
        arena: Arena | None = None,
        started: Started | None = None,
        server: int | None = None,
    ) -> None:
        """``started``: its process, with that ``arena``, where there is one already.

        ``server``: the channel of a fork server, for further ones.
        """
        self.hosting, self.device, self.limit = hosting, hosting.device, hosting.limit
        self.isolation = hosting.isolation
        self.server = server
        self.arena = arena or Arena.new()
        self.deadline: float | None = None  # time.monotonic(): no call goes on for longer
        self.stopped: Callable[[], bool] = lambda: False
        self._patience = FIRST_CALL
        self._turn, self._left = 0, bytearray()
        self._tasks = sandbox.tasks()
        self._started: Started | None = started or start(hosting, self.arena, server)

    def open(self, limit: float = START_LIMIT) -> None:
        """Import the target, in so many seconds: ``claimed`` then tells of it. Raises Refused."""
        try:
            self._send({"do": "open"} | opening(self.hosting), limit)
            hello = self._receive([], limit)
            if "error" in hello:
                self.close()
                raise Refused(str(hello["error"]), 3 if hello.get("status") == 3 else 2)
            self.claimed = Claimed.from_json(hello["claimed"])
            self.environment = {str(k): str(v) for k, v in hello["environment"].items()}
        except Lost as lost:
            raise Refused(f"the target's process {lost.how} while it was imported", 2) from None
        except UnknownLoss as unknown:
            self.close()
            raise Refused(str(unknown), 2) from None
        except (BadEvidence, ValueError, KeyError, AttributeError) as error:
            self.close()
            raise Refused(f"the target's process does not say what it claims: {error}", 2) from None

    def exchange(self, request: Json, calls: Sequence[str]) -> Json:
        """Raises Lost, and BadEvidence for an answer that is none; the process has ended then."""
        if self._started is None:
            self._start_again()
        self.arena.clear()
        if self.hosting.bwrap:  # others may have ended since it was started
            self._tasks = min(self._tasks, sandbox.tasks())
        limit = self.hosting.limit * self._patience * _share(calls[0])
        try:
            self._send(request, limit)
            answer = self._receive(calls, limit)
        except BadEvidence:
            self.close()
            raise
        except Lost:
            self._patience = 1  # what hangs does so again
            raise
        self._patience = 1
        return answer

    def _start_again(self) -> None:
        known = self.claimed
        try:
            self._turn, self._left = 0, bytearray()
            self._started = start(self.hosting, self.arena, self.server)
            self.open()
        except Refused as refused:
            raise Lost(
                "", "crash", f"and its process could not be started again: {refused}"
            ) from None
        self.claimed = known  # what it claims does not change in the middle of a run

    @contextlib.contextmanager
    def within(self, calls: int) -> Iterator[None]:
        """See :class:`Observer`; three times that while a first call may have to compile."""
        self.deadline = time.monotonic() + calls * self.hosting.limit * self._patience
        try:
            yield
        finally:
            self.deadline = None

    def close(self) -> None:
        """End the process, with what it started."""
        started, self._started = self._started, None
        if started is None:
            return
        os.close(started.requests)  # it ends by itself where it has not begun yet
        os.close(started.answers)
        if started.process.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(started.process.pid, signal.SIGKILL)
            started.process.wait()
        if started.home is not None:
            started.home.cleanup()

    @property
    def running(self) -> bool:
        """Whether there is a process, which a further call would not have to start."""
        return self._started is not None

    @property
    def pid(self) -> int:
        return self._running.process.pid

    @property
    def _running(self) -> Started:
        assert self._started is not None, "it has ended"
        return self._started

    def _send(self, request: Json, limit: float) -> None:
        """Raises Lost where the process does not take it, BadEvidence where it spoke unasked."""
        if ready(self._running.answers, select.POLLIN, 0):
            self._read()  # at its end it has ended: _receive says how
        if self._left:
            raise BadEvidence("the observer answered though nothing was asked")
        self._turn += 1
        data = (json.dumps(request | {"turn": self._turn}) + "\n").encode()
        end = time.monotonic() + limit
        while data:
            try:
                data = data[os.write(self._running.requests, data) :]
            except BrokenPipeError:
                return  # it has ended: _receive says how
            except BlockingIOError:
                ready(self._running.requests, select.POLLOUT, POLL)
            if data and time.monotonic() > end:
                raise self._lost("", "timeout", f"took no request within {limit:g} s", limit)

    def _receive(self, calls: Sequence[str], limit: float) -> Json:
        """The answer. ``limit``: seconds for each call. Raises Lost and BadEvidence."""
        begun, since, patience = 0, time.monotonic(), limit
        while True:
            spoke = ready(self._running.answers, select.POLLIN, POLL)
            now, begun_now = time.monotonic(), self.arena.counts()[0] if calls else 0
            if begun_now != begun:  # the observer's own word, which the limits below do not trust
                begun, since = begun_now, now
                patience = limit if begun <= 1 else self.hosting.limit * _share(calls[0])
            call = calls[min(max(begun, 1), len(calls)) - 1] if calls else ""
            if spoke:
                if not self._read():
                    raise self._ended(call)
                if b"\n" in self._left:
                    return self._answer()
                if len(self._left) > LONGEST:
                    raise BadEvidence("the observer's answer is longer than any can be")
            if begun > len(calls):
                raise BadEvidence("the observer made more calls than were asked for")
            if now - since > patience:
                text = f"did not return within {patience:g} s"
                raise self._lost(call, "timeout", text, patience)
            if self.deadline is not None and now > self.deadline:
                text = "did not return within the time of all its calls"
                raise self._lost(call, "timeout", text, patience)
            if self.stopped():
                self.close()
                raise Interrupted
            self._check_limits(call)

    def _check_limits(self, call: str) -> None:
        """Raises Lost where it takes more of the machine than it may."""
        pid = self._running.process.pid
        if not pid:  # it has not begun: nothing is its own, and 0 would mean everybody
            return
        if memory.exhausted_by(pid):
            raise self._lost(call, "crash", "was ended: it left the machine almost no memory")
        if not self.hosting.bwrap:
            return
        if sandbox.crowded(pid, self._tasks):
            sandbox.end(pid)
            text = f"was ended: it had started more than {sandbox.CROWD} processes"
            raise self._lost(call, "crash", text)
        if sandbox.overflowing(self.hosting.scratch):
            lost = self._lost(call, "crash", "was ended: it left the machine almost no disk")
            sandbox.empty(self.hosting.scratch)
            raise lost

    def _read(self) -> bool:
        """Take what there is; False at the end."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._running.answers, 1 << 20)
            self._left += data
            return bool(data)
        return True

    def _answer(self) -> Json:
        line, _, self._left = self._left.partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise BadEvidence("the observer's answer is no JSON") from None
        if not isinstance(answer, dict) or answer.get("turn") != self._turn:
            raise BadEvidence("the observer's answer is to another request")
        if self._left:
            raise BadEvidence("the observer answered twice")
        return answer

    def _ended(self, call: str) -> Lost:
        """Its answers have ended: so has it, or it is about to, and its own status tells how."""
        try:
            code = self._running.process.wait(1)
        except subprocess.TimeoutExpired:
            return self._lost(call, "crash", "closed the channel of its answers")
        how = self.arena.reason() if code == LOST_DEVICE else ""
        return self._lost(call, "crash", how or _how(code))

    def _lost(self, call: str, status: str, how: str, limit: float = 0.0) -> Lost:
        self.close()
        return Lost(call, status, how, limit)


def _share(call: str) -> int:
    """How many times the limit of a call this one, as it was announced, may take."""
    if not call.startswith(EXPERIMENT):
        return 1
    return SHARES[BY_ID[call.split(" ")[1]].profile]


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with status {code}"
