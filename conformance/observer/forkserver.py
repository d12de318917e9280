"""A process that has imported torch, and forks observers: another one starts in milliseconds.

``python -m conformance.observer.forkserver CHANNEL``, the number of a socket. A message there is
the start of an observer and brings its descriptors: requests, answers and arena (see ``host.py``),
and one on which is told of it: ``p`` and its process id, then, when it has ended, ``c`` and its
exit status. Nothing of a target runs here: no observer owes another anything.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import select
import signal
import socket
import struct
import sys

from conformance.observer import host

TOLD = struct.Struct("<cq")
BROUGHT = 4  # descriptors


def main() -> int:
    host.offer_to_the_system()
    host.die_with_parent()
    channel = socket.socket(fileno=int(sys.argv[1]))
    missing = host.import_torch()
    if not missing:
        _import_own()  # once, and not in each observer
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
        data, brought, *_ = socket.recv_fds(channel, 1, BROUGHT)
        if not data:
            return 0
        child = os.fork()
        if child == 0:
            _forget(channel, [wakes, wake, *children.values()])
            requests, answers, arena, status = brought
            _introduce(status)
            return host.serve(requests, answers, arena, missing)
        children[child] = brought[-1]
        for descriptor in brought[:-1]:
            os.close(descriptor)


def _import_own() -> None:
    from conformance.observer import description, desk, protocols  # noqa: F401  they need torch

    for found in pkgutil.iter_modules(protocols.__path__, protocols.__name__ + "."):
        importlib.import_module(found.name)


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
