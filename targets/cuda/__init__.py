"""The loss as a compiled CUDA kernel: mse.cu, built with nvcc on first use."""

from __future__ import annotations

import functools

import torch

from targets import compiled
from targets.cuda.build import SOURCE, build, nvcc_command
from targets.cuda.kernels import Kernels
from targets.registry import register
from targets.target import DROP_IN, Target, TargetUnavailable

LIBRARY = "loss_conformance_cuda"


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by the kernels of mse.cu; errors as :func:`compiled.loss`."""
    return compiled.loss(LIBRARY, input, target, reduction)


@functools.cache
def kernels() -> Kernels:
    """The kernels for the GPU of this process. Raises TargetUnavailable where they cannot be."""
    if torch.version.cuda is None:
        raise TargetUnavailable(f"target cuda: torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise TargetUnavailable("target cuda: torch sees no CUDA device")
    library = build(SOURCE, nvcc_command(torch.cuda.get_device_capability()))
    try:
        return Kernels.load(library)
    except OSError as error:
        raise TargetUnavailable(f"target cuda: {error}") from None


compiled.define(LIBRARY)
compiled.implement(LIBRARY, "cuda", kernels)
CUDA = register(
    Target(
        "cuda",
        loss,
        DROP_IN,
        summary="a fused CUDA kernel, forward and backward",
        devices=("cuda",),
        prepare=kernels,
        sources=(str(SOURCE), compiled.__file__),
    )
)
