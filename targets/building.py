"""Where compiled libraries are kept, and one builder at a time among processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """``$LOSS_CONFORMANCE_CACHE``, or ``loss-conformance`` in the user's cache folder."""
    # The latter beside a target, where nothing is named after the suite.
    own = os.environ.get("LOSS_CONFORMANCE_CACHE") or os.environ.get("BUILT_KERNELS")
    if own:
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user) / "loss-conformance"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While it is held no other process is inside for the same ``path``.

    The system lets go of it when its process ends, however it ends. Raises OSError where the file
    cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
