"""A process that has imported torch, and forks observers: another one starts in milliseconds.

``python -m conformance.observer.forkserver CHANNEL``, the number of a socket. A message there holds
the options of an observer (see ``host.py``) and brings its descriptors: ``requests``, ``answers``,
``arena``, and ``status``, on which is told of it: ``p`` and its process id, then, when it has
ended, ``c`` and its exit status. Nothing of a target runs here: no observer owes another anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
from typing import Any

from conformance.observer import host

TOLD = struct.Struct("<cq")
LONGEST = 1 << 20  # bytes of a message
BROUGHT = ("requests", "answers", "arena", "status")
Json = dict[str, Any]


def main() -> int:
    host.offer_to_the_system()
    host.die_with_parent()
    channel = socket.socket(fileno=int(sys.argv[1]))
    missing = host.import_torch()
    wakes, wake = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}  # for each that runs, where to tell of its end
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    waiting.register(wakes, select.POLLIN)
    while True:
        if wakes in dict(waiting.poll()):
            with contextlib.suppress(BlockingIOError):
                os.read(wakes, 1 << 10)
            _bury(children)
            continue
        data, brought, *_ = socket.recv_fds(channel, LONGEST, len(BROUGHT))
        if not data:
            return 0
        child = os.fork()
        if child == 0:
            _forget(channel, [wakes, wake, *children.values()])
            _introduce(brought[-1])
            options = json.loads(data) | dict(zip(BROUGHT, brought, strict=True))
            return host.observe(options, missing)
        children[child] = brought[-1]
        for descriptor in brought[:-1]:
            os.close(descriptor)


def _bury(children: dict[int, int]) -> None:
    """Tell of all that have ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = children.pop(pid)
        with contextlib.suppress(OSError):  # nobody asks any more
            os.write(told, TOLD.pack(b"c", os.waitstatus_to_exitcode(status)))
        os.close(told)


def _forget(channel: socket.socket, descriptors: list[int]) -> None:
    """What is the server's own is not its child's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel.close()
    for descriptor in descriptors:
        os.close(descriptor)


def _introduce(status: int) -> None:
    """A process like one that was started by itself."""
    os.setsid()  # an interrupt is for whoever judges
    random.seed()
    with contextlib.suppress(OSError):
        os.write(status, TOLD.pack(b"p", os.getpid()))
    os.close(status)


if __name__ == "__main__":
    sys.exit(main())
