"""Which GPU an observer uses: told by its environment, before torch looks at it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"


def own_gpu(place: int, device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of the ``place``-th observer.

    Each is given another of the GPUs that the caller sees as its first, ``cuda:0``; the others
    follow it, for clauses that take two. Nothing where the caller names one, as ``cuda:1``.
    """
    if device != "cuda":
        return {}
    told = environment.get(VISIBLE)
    names = _installed() if told is None else (name.strip() for name in told.split(","))
    # CUDA itself reads the list up to the first entry that is none.
    gpus = list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    if len(gpus) < 2:
        return {}
    first = place % len(gpus)
    return {VISIBLE: ",".join(gpus[first:] + gpus[:first])}


def _installed() -> Iterable[str]:
    """The names of all GPUs, which do not depend on an order; none where that cannot be told."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return found.stdout.split()
