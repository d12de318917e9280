"""The kernels of targets/cuda compiled for the host, as targets that the suite judges here."""

from __future__ import annotations

import functools
from pathlib import Path

from targets import compiled
from targets.cuda import LIBRARY, loss
from targets.cuda.build import SOURCE, build
from targets.cuda.kernels import Kernels
from targets.target import DROP_IN, Target

HOST = ("g++", "-x", "c++", "-DHOST_EMULATION", "-std=c++17", "-O2")
WARNINGS = ("-fPIC", "-Wall", "-Wextra", "-Werror")


def emulated(source: Path = SOURCE) -> Target:
    """The CUDA target over the kernels of ``source``, run in loops on the host.

    Once in a process: the operators have one implementation for each device.
    """
    kernels = functools.cache(lambda: Kernels.load(build(source, (*HOST, *WARNINGS))))
    compiled.implement(LIBRARY, "cpu", kernels)
    return Target("emulated", loss, DROP_IN, devices=("cpu",), prepare=kernels)
