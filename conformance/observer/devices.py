"""Which GPU a worker uses, and whether it still works. Imports torch only where it is asked."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"


class DeviceLost(RuntimeError):
    """A call left the device unusable: every later call in this process would fail."""


def own_gpu(worker: int, device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of the ``worker``-th process, before torch looks at it.

    Each process is given another of the GPUs that the caller sees as its first, ``cuda:0``; the
    others follow it, for clauses that take two. Nothing where the caller names one, as ``cuda:1``.
    """
    if device != "cuda":
        return {}
    told = environment.get(VISIBLE)
    names = _installed() if told is None else (name.strip() for name in told.split(","))
    # CUDA itself reads the list up to the first entry that is none.
    gpus = list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    if len(gpus) < 2:
        return {}
    first = worker % len(gpus)
    return {VISIBLE: ",".join(gpus[first:] + gpus[:first])}


def _installed() -> Iterable[str]:
    """The names of all GPUs, which do not depend on an order; none where that cannot be told."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return found.stdout.split()


def check_alive(device: str) -> None:
    """Wait for the work of ``device``. Raises DeviceLost where no later call can succeed."""
    if device == "cpu":
        return
    import torch

    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        try:  # an error of one launch is told once, one that ends the context each time
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise DeviceLost(f"left {device} unusable: {reason[0]}") from None


def poison(device: str, sizes: Iterable[int]) -> None:
    """Fill free device memory with NaN, so that a result which nobody wrote is seen.

    ``sizes``: of the next allocations, in bytes. torch's CUDA allocator hands out again what was
    freed; that of the CPU does not do so dependably, and is left alone.
    """
    if device == "cpu":
        return
    import torch

    held = [
        torch.full((size,), -1, dtype=torch.int8, device=device)  # all bits set: NaN in each format
        for size in sizes
        for _ in range(3)
        if size
    ]
    del held
