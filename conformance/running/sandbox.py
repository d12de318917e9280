"""Where a target can only compute: bubblewrap, where it can be had. It is never installed.

Inside there is no network and no other process; files can be read, and written only where nobody
else looks: in a scratch folder of the run, for what compilers keep, and in a small ``/tmp``.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from conformance.running import memory

LEVELS = ("auto", "bwrap", "none")
# Emptied, since sockets of others lie there; what a run needs of them is shown again.
MASKED = ("/tmp", "/run")
IN_MEMORY = 1 << 30  # bytes of /tmp, and of /dev/shm
FILE = 1 << 32  # bytes of a file
PROCESSES = 4096  # with their threads
CROWD = 1024  # processes
LEFT = 1 << 30  # bytes of a disk
DEVICES = ("/dev/nvidia*", "/dev/dxg", "/dev/kfd", "/dev/dri")
# What compilers keep, and where: each library has a variable of its own for it.
CACHES = {
    "XDG_CACHE_HOME": "",
    "BUILT_KERNELS": "built",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "CUPY_CACHE_DIR": "cupy",
    "NUMBA_CACHE_DIR": "numba",
}
# Parts of /proc that are the machine's, and not a namespace's: root may write there without any
# capability, and bwrap itself leaves them alone then.
_OF_THE_MACHINE = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
_BASE = (
    *("--unshare-all", "--die-with-parent", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *(w for part in _OF_THE_MACHINE for w in ("--ro-bind-try", *[f"/proc/{part}"] * 2)),
)


def why_not() -> str:
    """Why there is no sandbox here; empty where there is one."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "there is no bwrap on the path: install bubblewrap"
    command = [bwrap, *_BASE, "--", shutil.which("true") or "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap does not work here: {error}"
    complaint = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
    return "" if done.returncode == 0 else f"bwrap does not work here: {complaint[-1]}"


def arguments(scratch: str, shown: Iterable[str], hidden: Iterable[str]) -> list[str]:
    """The options of bwrap. ``shown``: folders that are needed, wherever they lie; ``hidden``:
    files that are not to be read."""
    options = [*_BASE]
    for path in sorted(device for pattern in DEVICES for device in glob.glob(pattern)):
        options += ["--dev-bind", path, path]
    masked = [place for place in MASKED if Path(place).is_dir() and not Path(place).is_symlink()]
    for place in (*masked, "/dev/shm"):
        options += ["--size", str(IN_MEMORY), "--perms", "1777", "--tmpfs", place]
    for folder in _masked(shown):
        options += ["--ro-bind", folder, folder]
    options += ["--bind", scratch, scratch, "--remount-ro", "/dev"]
    options += ["--remount-ro", "/run"] if "/run" in masked else []
    for file in hidden:
        options += ["--ro-bind", "/dev/null", str(Path(file).resolve())]
    return options


def _masked(folders: Iterable[str]) -> list[str]:
    """Those that lie where others are not seen, outer ones first."""
    found = {str(Path(folder).resolve()) for folder in folders if folder}
    return sorted(f for f in found if Path(f).is_dir() and f.startswith(MASKED))


def needed(python: str, target: str, home: str, paths: Iterable[str]) -> Iterator[str]:
    """The folders of interpreter, target and modules. ``home``: that of the observer's sources."""
    yield from (os.getcwd(), home, str(Path(home, "targets").resolve()), *paths)
    place = target if target.endswith(".py") else target.rpartition(":")[0]
    if place.endswith(".py"):
        yield str(Path(place).parent)
    yield str(Path(python or sys.executable).parent.parent)
    if not python:
        yield from (sys.prefix, sys.base_prefix, *sys.path)
    yield from os.environ.get("PYTHONPATH", "").split(os.pathsep)


def limited(command: Sequence[str]) -> list[str]:
    """``command`` with limits on files and processes, where the machine has the program for it."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        return [*command]
    limits = (f"--fsize={FILE}", f"--nproc={PROCESSES}", "--core=0")
    return [prlimit, *limits, "--", *command]


def environment(scratch: str) -> dict[str, str]:
    """What to add to that of a process inside."""
    caches = {name: str(Path(scratch, place)) for name, place in CACHES.items()}
    return caches | {"TMPDIR": "/tmp"}


# -- what no limit of the system holds for root -------------------------------------------------


def crowded(pid: int, before: int) -> bool:
    """Whether a process outside has more than :data:`CROWD` of them inside. ``before``: how many
    tasks the machine had then: only where there are as many more the processes are counted."""
    return tasks() > before + CROWD and len(memory.family(root_of(pid))) > CROWD


def tasks() -> int:
    """Of the whole machine, threads as well; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return 0


def root_of(pid: int) -> int:
    """The first process of the namespace that ``pid`` is in: with it all others end."""
    at = pid
    while at > 1:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{at}/status").read_text().splitlines()
        )
        numbers = status["NSpid"].split()
        if len(numbers) == 1:
            return pid  # it is outside, as bwrap itself, and ends those inside with it
        if numbers[-1] == "1":
            return at
        at = int(status["PPid"])
    return pid


def end(pid: int) -> None:
    """End all that is inside, with ``pid``."""
    with contextlib.suppress(OSError):
        os.kill(root_of(pid), signal.SIGKILL)


def lineage(pid: int) -> tuple[int, frozenset[int]]:
    """The first process of the namespace that ``pid`` is in, and all between them, with it."""
    root, known = root_of(pid), {pid}
    parents = memory.parents()
    while pid in parents and pid != root:
        pid = parents[pid]
        known.add(pid)
    return root, frozenset(known)


def left(root: int, known: frozenset[int], seconds: float) -> int:
    """How many processes nobody inside waits for, once helpers that end by themselves have had so
    long for it. ``root``, ``known``: see :func:`lineage`."""
    until = time.monotonic() + seconds
    while True:
        found = [p for p, parent in memory.parents().items() if parent == root and p not in known]
        if not found or time.monotonic() > until:
            return len(found)
        time.sleep(0.05)


def overflowing(scratch: str) -> bool:
    """Whether the machine has almost no disk left, and much of it is used by ``scratch``."""
    disk = shutil.disk_usage(scratch)
    return disk.free < max(disk.total // 20, LEFT) and _size(scratch) > LEFT


def empty(scratch: str) -> None:
    for path in Path(scratch).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _size(folder: str) -> int:
    found = 0
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            found += path.lstat().st_blocks * 512
    return found
