"""How much memory the machine has left, and how much a process holds; as far as it can be told."""

from __future__ import annotations

import os
from pathlib import Path

UNKNOWN = -1


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
    """Whether the machine is about to run out of memory, and this process holds much of it.

    The machine needs a twentieth of all, 256 MiB at least; an eighth is much.
    """
    left = available()
    return UNKNOWN < left < max(total() // 20, 2**28) and resident(pid) > total() // 8


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; UNKNOWN where the system does not say."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, IndexError):
        return UNKNOWN
