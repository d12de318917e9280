"""Start the process of an observer. Without NumPy: torch's import there takes longest of all."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conformance.cases.arena import Arena
from conformance.running.gpus import own_gpu
from conformance.running.neighbours import HOME

HOST = "conformance.observer.host"
NEEDED = ("conformance", "targets")  # packages that an observer imports


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


@dataclass
class Started:
    """The process, and the two ends of its channel: ``requests`` to write, ``answers`` to read.

    ``home``: the folder that its interpreter finds the suite in, where that is one of its own.
    """

    process: subprocess.Popen[bytes]
    requests: int
    answers: int
    home: tempfile.TemporaryDirectory[str] | None


def start(hosting: Hosting, arena: Arena) -> Started:
    """A process that imports torch, and waits. Raises Refused where that cannot be started."""
    theirs, requests = os.pipe()
    answers, back = os.pipe()
    for descriptor in (requests, answers):
        os.set_blocking(descriptor, False)
    options = {
        "requests": theirs,
        "answers": back,
        "arena": arena.descriptor,
        "target": hosting.target,
        "device": hosting.device,
        "paths": [os.getcwd(), *hosting.paths],
    }
    home = _home() if hosting.python else None
    paths = [home.name if home else str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | own_gpu(hosting.place, hosting.device, os.environ)
    python = hosting.python or sys.executable
    try:
        process = subprocess.Popen(
            [python, "-P", "-m", HOST, json.dumps(options)],
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=(theirs, back, arena.descriptor),
            stdin=subprocess.DEVNULL,
            stdout=_errors(),
            start_new_session=True,  # an interrupt is for whoever judges
        )
    except OSError as error:
        raise Refused(f"cannot start {python}: {error.strerror}", 2) from None
    finally:
        os.close(theirs)
        os.close(back)
    return Started(process, requests, answers, home)


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


def _home() -> tempfile.TemporaryDirectory[str]:
    """Where another interpreter finds the packages that it needs of the suite, and nothing else:
    what lies beside them belongs to this one."""
    folder = tempfile.TemporaryDirectory(prefix="observed-")
    for name in NEEDED:
        Path(folder.name, name).symlink_to(HOME / name)
    return folder
