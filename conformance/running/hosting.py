"""Start the process of an observer. Without NumPy: torch's import there takes longest of all."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Protocol

from conformance.cases.arena import Arena
from conformance.observer.forkserver import TOLD
from conformance.running import sandbox
from conformance.running.gpus import own_gpu
from conformance.running.neutral import environment, home, neutral

_SENDER = struct.Struct("3i")  # process, user and group, as the system tells
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
    ``paths``: where modules are looked for, beside the present folder. ``loss``: of which it is a
    target; empty where it says so itself. ``bwrap``: the program of the sandbox,
    empty without one; ``scratch``: the one folder of its own that can be written to there;
    ``hidden``: files that cannot be read there.
    """

    target: str
    device: str = "cpu"
    limit: float = 20.0
    python: str = ""
    place: int = 0
    paths: tuple[str, ...] = ()
    loss: str = ""
    bwrap: str = ""
    scratch: str = ""
    hidden: tuple[str, ...] = ()

    @property
    def isolation(self) -> str:
        """How far what it does is kept from everything else, as a verdict says it."""
        return "sandbox" if self.bwrap else "process"


class Ended(Protocol):
    """As much of a process as is asked for; see :class:`subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """0 where it has not begun."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises TimeoutExpired."""


class Forked:
    """An observer of a fork server, which tells of it."""

    def __init__(self, status: socket.socket) -> None:
        self._status, self._code = status, -signal.SIGKILL
        self._open, self._pid = True, 0
        status.setblocking(False)

    @property
    def pid(self) -> int:
        self._read()
        return self._pid

    def wait(self, timeout: float | None = None) -> int:
        """As that of the fork server ended, where it did not tell."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._open:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            if not ready(self._status.fileno(), select.POLLIN, left):
                raise subprocess.TimeoutExpired("an observer", timeout or 0.0)
            self._read()
        return self._code

    def _read(self) -> None:
        while self._open:
            try:
                data, came_with, *_ = self._status.recvmsg(
                    TOLD.size, socket.CMSG_SPACE(_SENDER.size)
                )
            except BlockingIOError:
                return
            if len(data) < TOLD.size:
                self._status.close()
                self._open = False
                return
            kind, number = TOLD.unpack(data)
            if kind == b"c":
                self._code = number
            else:  # what it calls itself is another number where it is in a namespace of its own
                self._pid = next((_SENDER.unpack(sender)[0] for *_, sender in came_with), number)


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
        "loss": hosting.loss,
        "device": hosting.device,
        "paths": [os.getcwd(), *hosting.paths],
        "hidden": "conformance",
        "watched": bool(hosting.bwrap),
    }


def _forked(given: tuple[int, ...], server: int) -> Forked:
    """Raises OSError where the server has ended."""
    told, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with status, contextlib.ExitStack() as otherwise:
        otherwise.callback(told.close)
        with socket.socket(fileno=os.dup(server)) as channel:
            socket.send_fds(channel, [b"o"], [*given, status.fileno()])
        otherwise.pop_all()
    return Forked(told)


class Launched:
    """A process of its own; in a sandbox, with all that is in there."""

    def __init__(self, process: subprocess.Popen[bytes], sandboxed: bool) -> None:
        self._process, self._sandboxed = process, sandboxed

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout: float | None = None) -> int:
        code = self._process.wait(timeout)
        # bwrap tells of a signal as a shell does.
        killed = self._sandboxed and code - 128 in signal.valid_signals()
        return 128 - code if killed else code

    def poll(self) -> int | None:
        """None where it has not ended."""
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()


def _launch(
    hosting: Hosting, path: str, module: list[str], descriptors: tuple[int, ...]
) -> Launched:
    """``python -m MODULE…`` beside the target, from ``path``. Raises Refused."""
    own = environment(os.environ | own_gpu(hosting.place, hosting.device, os.environ), path)
    command = [hosting.python or sys.executable, "-P", "-m", *module]
    if not hosting.bwrap:
        return _started(command, own, descriptors, False)
    shown = sandbox.needed(hosting.python, hosting.target, path, hosting.paths)
    options = sandbox.arguments(hosting.scratch, shown, hosting.hidden)
    told, tell = os.pipe()  # not on the command line, which the target can read
    try:
        os.write(tell, "".join(f"{option}\0" for option in options).encode())
        os.close(tell)
        command = [hosting.bwrap, "--args", str(told), "--", *sandbox.limited(command)]
        inside = own | sandbox.environment(hosting.scratch)
        return _started(command, inside, (*descriptors, told), True)
    finally:
        os.close(told)


def _started(
    command: list[str], own: dict[str, str], descriptors: tuple[int, ...], sandboxed: bool
) -> Launched:
    try:
        process = subprocess.Popen(
            command,
            env=own,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=_errors(),
            start_new_session=True,  # an interrupt is for whoever judges
        )
    except OSError as error:
        raise Refused(f"cannot start {command[0]}: {error.strerror}", 2) from None
    return Launched(process, sandboxed)


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
