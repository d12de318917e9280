"""What the shipped implementations do with their operands first, as the builtin does."""

from __future__ import annotations

import warnings
from typing import Any

import torch

REDUCTIONS = ("none", "sum", "mean")


def check_reduction(reduction: str) -> str:
    """``reduction`` itself; raises ValueError for one that is not known."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction!r} is not a valid value for reduction: use none, sum or mean")
    return reduction


def above_zero(delta: float) -> float:
    """``delta`` itself; raises ValueError where it is not above 0."""
    if not delta > 0:
        raise ValueError(f"delta must be above 0, not {delta}")
    return delta


def prepare(input: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both operands with the broadcast shape and the promoted dtype.

    Broadcasting comes first, so that 0-d operands take part in promotion. Warns where the sizes
    differ. Raises RuntimeError where the shapes do not broadcast, and where no operand is floating
    or one is complex.
    """
    # Dynamo cannot trace a warning; the builtin gives none in a compiled graph either.
    if input.shape != target.shape and not torch.compiler.is_compiling():
        warnings.warn(
            f"target size {tuple(target.shape)} differs from input size {tuple(input.shape)}: "
            "they are broadcast, which is rarely meant",
            stacklevel=3,
        )
    dtype = torch.promote_types(input.dtype, target.dtype)
    if not dtype.is_floating_point:
        raise RuntimeError(f"mean squared error needs a real floating dtype, not {dtype}")
    broadcast: Any = torch.broadcast_tensors  # untyped in torch
    x, y = broadcast(input, target)
    half = dtype in (torch.float16, torch.bfloat16)
    if half and x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        dtype = torch.float32
    return x.to(dtype), y.to(dtype)
