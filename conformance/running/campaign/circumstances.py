"""What a verdict follows from besides its kernel: the suite as it is, and where it runs."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys

from conformance.running.neighbours import HOME
from conformance.running.options import UsageError
from conformance.verdict.verdict import suite_version

_TELLS = (
    "import importlib.metadata as m, platform as p\n"
    "print(f'python {p.python_version()}, torch {m.version(\"torch\")}')"
)


def suite() -> str:
    """Its version, and a digest of all its sources: a verdict is of the suite that gave it."""
    digest = hashlib.sha256()
    for package in ("conformance", "reference", "targets"):
        for path in sorted((HOME / package).rglob("*.py")):
            digest.update(str(path.relative_to(HOME)).encode() + b"\0" + path.read_bytes())
    return f"{suite_version()} {digest.hexdigest()[:12]}"


def environment(python: str, device: str) -> str:
    """Versions beside the target and the judge, and the kind of machine. Imports no torch."""
    from importlib.metadata import version

    beside = [python or sys.executable, "-c", _TELLS]
    try:
        done = subprocess.run(beside, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        raise UsageError(f"{beside[0]} has no torch, or cannot be started") from None
    parts = [done.stdout.strip(), f"numpy {version('numpy')}", platform.machine(), device]
    return ", ".join([*parts, *([_gpu()] if device.startswith("cuda") else [])])


def _gpu() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "a GPU"
    return "; ".join(sorted({*done.stdout.splitlines()}))
