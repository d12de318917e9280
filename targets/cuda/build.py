"""Compile a shared library once per source, command and compiler; safe among processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from targets.building import cache_folder, locked
from targets.target import TargetUnavailable

SOURCE = Path(__file__).with_name("mse.cu")
NVCC_FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-fPIC")
PORTABLE = (8, 0)  # where no GPU says what it is; its PTX runs on everything later


def nvcc() -> str:
    """The path of nvcc: on ``PATH`` or in ``$CUDA_HOME/bin``. Raises TargetUnavailable."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    found = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if found is None:
        raise TargetUnavailable("target cuda: no nvcc on PATH or in $CUDA_HOME/bin to compile with")
    if shutil.which("g++") is None:
        raise TargetUnavailable("target cuda: nvcc needs a host compiler, and there is no g++")
    return found


def nvcc_command(capability: tuple[int, int] = PORTABLE) -> tuple[str, ...]:
    """The command that makes a library of CUDA source for a device of this compute capability."""
    number = f"{capability[0]}{capability[1]}"
    codes = (f"arch=compute_{number},code=[sm_{number},compute_{number}]",)
    return (nvcc(), *NVCC_FLAGS, *(word for code in codes for word in ("-gencode", code)))


def build(source: Path, command: Sequence[str]) -> Path:
    """The shared library that ``command -shared source`` makes, from the cache where it is there.

    Of several processes one compiles and the others wait for it. Raises TargetUnavailable, with
    the compiler's first complaint, where it does not compile.
    """
    folder = cache_folder()
    key = hashlib.sha256(source.read_bytes())
    for part in (*command, _version(command[0])):
        key.update(b"\0" + part.encode())
    library = folder / f"{source.stem}-{key.hexdigest()[:16]}.so"
    try:
        with locked(library.with_suffix(".lock")):
            if not library.exists():
                _compile(source, command, library)
    except OSError as error:
        raise TargetUnavailable(f"cannot build {source.name}: {error}") from None
    return library


def _compile(source: Path, command: Sequence[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        whole = [*command, "-shared", str(source), "-o", str(made)]
        run = subprocess.run(whole, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = (run.stderr + run.stdout).strip().splitlines() or [f"status {run.returncode}"]
            complaint = next((line for line in lines if "error" in line), lines[0])
            raise TargetUnavailable(f"cannot build {source.name}: {complaint.strip()}")
        made.replace(library)


def _version(compiler: str) -> str:
    """What the compiler says of itself. Raises TargetUnavailable where it cannot be run."""
    try:
        return subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise TargetUnavailable(f"cannot run the compiler {compiler}: {error}") from None
