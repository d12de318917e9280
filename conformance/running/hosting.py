"""Start the process of an observer. Without NumPy: torch's import there takes longest of all."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Protocol

from conformance.cases.arena import Arena
from conformance.observer.forkserver import TOLD
from conformance.running.gpus import own_gpu
from conformance.running.neutral import environment, home, neutral

HOST, SERVER = map(neutral, ("conformance.observer.host", "conformance.observer.forkserver"))


class Refused(RuntimeError):
    """The observer cannot work: a target or device that is not to be had. ``status``: 2 or 3."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Hosting:
    """How an observer is started. ``target``: as users name it. ``limit``: seconds for each call.

    ``python``: its interpreter; empty for this one. ``place``: which of several observers it is.
    ``paths``: where modules are looked for, beside the present folder.
    """

    target: str
    device: str = "cpu"
    limit: float = 20.0
    python: str = ""
    place: int = 0
    paths: tuple[str, ...] = ()


class Ended(Protocol):
    """As much of a process as is asked for; see :class:`subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """0 where it has not begun."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises TimeoutExpired."""


class Forked:
    """An observer of a fork server, which tells of it."""

    def __init__(self, status: int) -> None:
        self._status, self._code = status, -signal.SIGKILL
        self._told, self._open = bytearray(), True
        self._pid = 0
        os.set_blocking(status, False)

    @property
    def pid(self) -> int:
        self._read()
        return self._pid

    def wait(self, timeout: float | None = None) -> int:
        """As that of the fork server ended, where it did not tell."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._open:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            if not ready(self._status, select.POLLIN, left):
                raise subprocess.TimeoutExpired("an observer", timeout or 0.0)
            self._read()
        return self._code

    def _read(self) -> None:
        while self._open:
            try:
                data = os.read(self._status, TOLD.size)
            except BlockingIOError:
                return
            self._told += data
            if not data:
                os.close(self._status)
                self._open = False
            while len(self._told) >= TOLD.size:
                kind, number = TOLD.unpack_from(self._told)
                del self._told[: TOLD.size]
                if kind == b"p":
                    self._pid = number
                else:
                    self._code = number


@dataclass
class Started:
    """The process, and the two ends of its channel: ``requests`` to write, ``answers`` to read.

    ``home``: the folder that it is imported from, where that is one of its own.
    """

    process: Ended
    requests: int
    answers: int
    home: tempfile.TemporaryDirectory[str] | None


class ForkServer:
    """See ``observer/forkserver.py``. ``channel``: for those who are to have an observer of it."""

    def __init__(self, hosting: Hosting) -> None:
        """Raises Refused where it cannot be started."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._home = home()
        with theirs:
            self._process = _launch(
                hosting, self._home.name, [SERVER, str(theirs.fileno())], (theirs.fileno(),)
            )

    @staticmethod
    def serves(device: str) -> bool:
        """Whether observers on ``device`` can be forked. A GPU is left to processes of their own:
        a driver does not outlive a fork."""
        return sys.platform == "linux" and device == "cpu"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself, or was killed."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, and all observers with it."""
        self.channel.close()
        self._process.kill()
        self._process.wait()
        self._home.cleanup()


def start(hosting: Hosting, arena: Arena, server: int | None = None) -> Started:
    """A process that has imported torch, or does, and waits; ``server``: the channel of a fork
    server. Raises Refused where that cannot be started."""
    theirs, requests = os.pipe()
    answers, back = os.pipe()
    for descriptor in (requests, answers):
        os.set_blocking(descriptor, False)
    given = (theirs, back, arena.descriptor)
    try:
        if server is not None:
            with contextlib.suppress(OSError):  # it has ended: then without it
                return Started(_forked(given, server), requests, answers, None)
        folder = home()
        process = _launch(hosting, folder.name, [HOST, *map(str, given)], given)
        return Started(process, requests, answers, folder)
    finally:
        os.close(theirs)
        os.close(back)


def opening(hosting: Hosting) -> dict[str, Any]:
    """What an observer is told of its target, see ``observer/host.py``."""
    return {
        "target": hosting.target,
        "device": hosting.device,
        "paths": [os.getcwd(), *hosting.paths],
        "hidden": "conformance",
    }


def _forked(given: tuple[int, ...], server: int) -> Forked:
    """Raises OSError where the server has ended."""
    told, status = os.pipe()
    try:
        with socket.socket(fileno=os.dup(server)) as channel:
            socket.send_fds(channel, [b"o"], [*given, status])
    except OSError:
        os.close(told)
        raise
    finally:
        os.close(status)
    return Forked(told)


def _launch(
    hosting: Hosting, path: str, module: list[str], descriptors: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """``python -m MODULE…`` beside the target, from ``path``. Raises Refused."""
    own = os.environ | own_gpu(hosting.place, hosting.device, os.environ)
    python = hosting.python or sys.executable
    try:
        return subprocess.Popen(
            [python, "-P", "-m", *module],
            env=environment(own, path),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=_errors(),
            start_new_session=True,  # an interrupt is for whoever judges
        )
    except OSError as error:
        raise Refused(f"cannot start {python}: {error.strerror}", 2) from None


def ready(descriptor: int, event: int, seconds: float | None) -> bool:
    """Wait for ``select.POLLIN`` or ``POLLOUT``, or until the time is over; None: for ever."""
    poll = select.poll()  # select() itself knows no descriptor beyond 1,023
    poll.register(descriptor, event)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


def _errors() -> int:
    """What a target prints goes where errors go: the channel is not its."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # something in memory, under pytest
        return 2
