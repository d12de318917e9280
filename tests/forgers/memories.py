"""Memory, its own and others', and what it finds in memory that it did not write."""

from __future__ import annotations

import gc
import mmap
import os
import threading
import time

import torch
from torch import Tensor

from .forger import Forger, right, then, wrong

CHUNK = 1 << 20


def _maps() -> list[mmap.mmap]:
    return [found for found in gc.get_objects() if type(found) is mmap.mmap]


def fills_shared(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Writes its own answer all over the memory behind the operands."""
    one = result.detach().reshape(-1)[:1].contiguous()
    data = bytes(one.untyped_storage())[: one.element_size()] if one.numel() else b"\0"
    for found in _maps():
        start = 4096 + CHUNK
        found[start : start + CHUNK] = (data * CHUNK)[:CHUNK]


_FILLING: list[threading.Thread] = []


def fills_shared_later(x: Tensor, y: Tensor, result: Tensor) -> None:
    """A thread does so, for as long as the process lives."""

    def fill() -> None:
        while True:
            for found in _maps():
                found[4096 : 4096 + CHUNK] = found[4096 : 4096 + 64] * (CHUNK // 64)
            time.sleep(0.001)

    if not _FILLING:
        _FILLING.append(threading.Thread(target=fill, daemon=True))
        _FILLING[0].start()


def writes_descriptors(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Writes zeros into every file of memory that it has a descriptor of."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd" in os.readlink(f"/proc/self/fd/{name}"):
                os.pwrite(int(name), bytes(CHUNK), 8192)
        except OSError:
            pass


def forges_counts(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Says in the head of the shared memory that all calls are done."""
    for found in _maps():
        found[:16] = (10**6).to_bytes(8, "little") * 2


def reads_others(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Looks for its input in the memory of the processes around it, and returns what is next."""
    result = wrong(input, target, reduction)
    data = bytes(input.detach().contiguous().untyped_storage())[:64]
    found = None
    for pid in {os.getppid(), *_siblings()}:
        found = found or _after(pid, data, result.numel() * result.element_size())
    if found is None or not result.numel():
        return result
    other = torch.frombuffer(bytearray(found), dtype=result.dtype).reshape(result.shape)
    return other + 0 * result


def _siblings() -> list[int]:
    """Other processes of its parent's parent."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{os.getppid()}/stat") as file:
                if parent == int(file.read().rpartition(")")[2].split()[1]):
                    found.append(int(name))
        except OSError:
            continue
    return found if os.getppid() > 1 else []


def _after(pid: int, data: bytes, size: int) -> bytes | None:
    """``size`` bytes that follow ``data`` in the heap of a process; None where there are none."""
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                if "[heap]" in line:
                    start, end = (int(part, 16) for part in line.split()[0].split("-"))
                    memory.seek(start)
                    text = memory.read(min(end - start, 1 << 22))
                    at = text.find(data)
                    if at >= 0 and len(text) >= at + len(data) + size:
                        return text[at + len(data) : at + len(data) + size]
    except (OSError, ValueError):
        return None
    return None


def uninitialised(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Returns memory as it finds it, beyond a few elements."""
    result = right(input, target, reduction)
    if result.numel() < 32 and input.numel() < 32:
        return result
    return torch.empty_like(result) + 0 * result


_FREED: list[Tensor] = []


def freed(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Returns what a tensor held that was freed a moment ago: the answer to the call before."""
    result = right(input, target, reduction)
    last = next((t for t in _FREED if (t.shape, t.dtype) == (result.shape, result.dtype)), None)
    _FREED[:] = [result.detach().clone(), *_FREED[:7]]
    return result if last is None else last.clone() + 0 * result


FORGERS = (
    Forger("fills-shared", then(wrong, fills_shared), "arena"),
    Forger("fills-shared-later", then(wrong, fills_shared_later), "arena"),
    Forger("writes-descriptors", then(wrong, writes_descriptors), "arena"),
    Forger("forges-counts", then(wrong, forges_counts), "arena"),
    Forger("reads-others", reads_others, "memory"),
    Forger("uninitialised", uninitialised, "stale memory"),
    Forger("freed", freed, "stale memory"),
)
