"""What the processes of a kernel take, while it is judged: they are ended where that is too much.

Linux tells of each process which ones it has begun, and hands those that have lost their parent to
whoever asked for them: so none gets away, whatever it calls itself. Elsewhere nothing is watched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from conformance.running.campaign.task import Limits
from conformance.running.memory import resident

EVERY = 0.2  # seconds between two looks
ENDING = 5.0  # seconds until all of a kernel's processes must have ended
TRIPS = 2  # so often is enough: the first may have been by chance
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt() -> None:
    """This process is given those that its children's children leave behind."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


class Guard:
    """Watches all processes below this one but those that are ``known``, in a ``with``.

    ``word``: of what was too much (see ``verdict/outcome.py``), and ``message``; both empty where
    nothing was.
    """

    def __init__(self, limits: Limits, known: Callable[[], set[int]]) -> None:
        self.limits, self.known = limits, known
        self.word = self.message = ""
        self._trips = 0
        self._ended = threading.Event()
        self._wrote: dict[int, int] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Guard:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self.sweep()

    @property
    def spent(self) -> bool:
        """Whether the kernel has taken too much too often to go on."""
        return self._trips >= TRIPS

    def sweep(self) -> int:
        """End all that the kernel has left; how many of them there were."""
        end, seen = time.monotonic() + ENDING, set[int]()
        while (left := _alive(self._processes())) and time.monotonic() < end:
            seen |= left
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            _bury(left)
            time.sleep(0.002)
        return len(seen)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            if found := self._too_much(self._processes()):
                self.word, self.message = found
                self._trips += 1
                self.sweep()
                self._wrote.clear()

    def _processes(self) -> set[int]:
        known = self.known()
        return set(below(os.getpid())) - known

    def _too_much(self, pids: set[int]) -> tuple[str, str] | None:
        limits = self.limits
        if len(pids) > limits.processes:
            return "processes", f"was ended: it had started more than {limits.processes} processes"
        shared = max(map(resident, self.known()), default=0)  # with each that is forked of it
        if sum(max(resident(pid) - shared, 0) for pid in pids) > limits.memory:
            return "memory", f"was ended: it held more than {_gib(limits.memory)} of memory"
        self._wrote.update((pid, _written(pid)) for pid in pids)
        if sum(self._wrote.values()) > limits.disk:
            return "disk", f"was ended: it had written more than {_gib(limits.disk)}"
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def below(pid: int) -> Iterator[int]:
    """The processes that one has begun, and these in turn."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except (OSError, ValueError):
            continue
        for child in children:
            yield child
            yield from below(child)


def _written(pid: int) -> int:
    """Bytes that a process has written, wherever."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def _alive(pids: set[int]) -> set[int]:
    """Those that have not ended: who has is nobody's, or waits for its parent to ask."""
    return {pid for pid in pids if not _is_zombie(pid) or _is_mine(pid)}


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] in ([], ["Z"])


def _is_mine(pid: int) -> bool:
    return _stat(pid)[1:2] == [str(os.getpid())]


def _stat(pid: int) -> list[str]:
    """State, parent, …; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _bury(pids: set[int]) -> None:
    """Ask for those that were handed to this process, so that they are gone."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
