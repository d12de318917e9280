"""How much memory the machine has left, and how much a process holds; as far as it can be told."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

UNKNOWN = -1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep() -> None:
    """Keep what is freed for what comes next: a large array by itself is mapped anew each time, and
    the kernel then fills it with zeros, which takes as long as all that is done with it."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        allocator = ctypes.CDLL(None).mallopt
        allocator(_M_MMAP_THRESHOLD, 2**30)
        allocator(_M_TRIM_THRESHOLD, 2**29)


def available() -> int:
    """Bytes that can be taken without swapping; UNKNOWN where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return UNKNOWN


def total() -> int:
    """Bytes of memory that the machine has; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def exhausted_by(pid: int) -> bool:
    """Whether the machine is about to run out of memory, and this process holds much of it, with
    those that it has started.

    The machine needs a twentieth of all, 256 MiB at least; an eighth is much.
    """
    left = available()
    if not UNKNOWN < left < max(total() // 20, 2**28):
        return False
    return sum(max(resident(member), 0) for member in family(pid)) > total() // 8


def family(pid: int) -> list[int]:
    """A process, those that it has started, and so on."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for member in found:  # which grows meanwhile
        found += children.get(member, [])
    return found


def parents() -> dict[int, int]:
    """Of each process of the machine that still runs, its parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(ValueError, OSError, IndexError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(path.parent.name)] = int(parent)
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; UNKNOWN where the system does not say."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, IndexError):
        return UNKNOWN
