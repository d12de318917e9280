"""torch's own losses: the modules of ``torch.nn``, made anew for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from targets.registry import register
from targets.target import CLAIMS, Target

# Before torch 2.12 the backward of torch's own raises for operands of two dtypes.
BUILTIN_CLAIMS = CLAIMS if torch.__version__ >= "2.12" else CLAIMS - {"mixed_dtype"}


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The loss of a fresh ``nn.MSELoss``."""
    result: torch.Tensor = torch.nn.MSELoss(reduction=reduction)(input, target)
    return result


BUILTIN = register(
    Target("builtin", loss, BUILTIN_CLAIMS, summary="torch.nn.MSELoss", module=torch.nn.MSELoss)
)


def l1_loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The loss of a fresh ``nn.L1Loss``."""
    result: torch.Tensor = torch.nn.L1Loss(reduction=reduction)(input, target)
    return result


def smooth_l1_loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, beta: float = 1.0
) -> torch.Tensor:
    """The loss of a fresh ``nn.SmoothL1Loss``."""
    result: torch.Tensor = torch.nn.SmoothL1Loss(reduction=reduction, beta=beta)(input, target)
    return result


def huber_loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, delta: float = 1.0
) -> torch.Tensor:
    """The loss of a fresh ``nn.HuberLoss``."""
    result: torch.Tensor = torch.nn.HuberLoss(reduction=reduction, delta=delta)(input, target)
    return result


def _builtin(name: str, function: Callable[..., Any], module: type[torch.nn.Module]) -> Target:
    summary = f"torch.nn.{module.__name__}"
    return register(
        Target("builtin", function, CLAIMS, summary=summary, module=module, loss_of=name)
    )


BUILTIN_L1 = _builtin("l1", l1_loss, torch.nn.L1Loss)
BUILTIN_SMOOTH_L1 = _builtin("smooth_l1", smooth_l1_loss, torch.nn.SmoothL1Loss)
BUILTIN_HUBER = _builtin("huber", huber_loss, torch.nn.HuberLoss)
