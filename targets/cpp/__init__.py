"""Losses as C++ operators for the CPU, built on first use by torch's cpp_extension."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from pathlib import Path

import torch

from targets import compiled
from targets.building import cache_folder, locked
from targets.operands import above_zero
from targets.registry import register
from targets.target import DROP_IN, Target, TargetUnavailable

LIBRARY = "loss_conformance_cpp"
SOURCE = Path(__file__).with_name("mse.cpp")
HUBER_LIBRARY = "loss_conformance_cpp_huber"
HUBER_SOURCE = Path(__file__).with_name("huber.cpp")
FLAGS = ("-O3", "-fopenmp", "-Wall")


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by the operators of mse.cpp; errors as :func:`compiled.loss`."""
    return compiled.loss(LIBRARY, input, target, reduction)


def huber(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, delta: float = 1.0
) -> torch.Tensor:
    """Huber's loss by the operators of huber.cpp; ValueError where ``delta`` is not above 0."""
    return compiled.loss(
        HUBER_LIBRARY, input, target, reduction, above_zero(delta), of=compiled.HUBER
    )


def load(source: Path, library: str) -> None:
    """Build ``source`` where it is not in the cache, and load it as the operators of ``library``.

    Of several processes one compiles and the others wait. Raises TargetUnavailable where there is
    no compiler, and with its first complaint where it refuses the source.
    """
    from torch.utils import cpp_extension

    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise TargetUnavailable(f"target cpp: no C++ compiler {compiler} on PATH")
    if not cpp_extension.is_ninja_available():
        raise TargetUnavailable("target cpp: ninja is not installed: pip install ninja")
    text = "\0".join([source.read_text(), library, compiler, torch.__version__, *FLAGS])
    name = f"{library}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder = cache_folder() / name
    try:
        with locked(folder.with_suffix(".lock")):
            folder.mkdir(exist_ok=True)
            (folder / "lock").unlink(missing_ok=True)  # of a build that was killed: nobody is here
            cpp_extension.load(
                name,
                [str(source)],
                extra_cflags=[*FLAGS, f"-DLIBRARY={library}"],
                extra_ldflags=["-fopenmp"],
                build_directory=str(folder),
                is_python_module=False,
            )
    except (OSError, RuntimeError) as error:
        lines = str(error).splitlines()
        complaint = next((line for line in lines if "error:" in line), lines[0])
        raise TargetUnavailable(f"cannot build {source.name}: {complaint.strip()}") from None


@functools.cache
def prepare() -> None:
    """Build and load the operators, once. Raises TargetUnavailable."""
    load(SOURCE, LIBRARY)


@functools.cache
def prepare_huber() -> None:
    """The same for those of huber.cpp."""
    load(HUBER_SOURCE, HUBER_LIBRARY)


compiled.define(LIBRARY)
compiled.define(HUBER_LIBRARY, compiled.HUBER)
CPP = register(
    Target(
        "cpp",
        loss,
        DROP_IN,
        summary="a C++ operator for the CPU",
        devices=("cpu",),
        prepare=prepare,
        sources=(str(SOURCE), compiled.__file__),
    )
)
HUBER = register(
    Target(
        "cpp",
        huber,
        DROP_IN,
        summary="a C++ operator for the CPU",
        devices=("cpu",),
        prepare=prepare_huber,
        sources=(str(HUBER_SOURCE), compiled.__file__),
        loss_of="huber",
    )
)
