"""torch's own losses, by their functions; they claim what the signatures of this version take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from targets.registry import register
from targets.target import CLAIMS, Target

# Before torch 2.12 the backward of torch's own raises for operands of two dtypes.
BUILTIN_CLAIMS = CLAIMS if torch.__version__ >= "2.12" else CLAIMS - {"mixed_dtype"}


def _builtin(
    name: str,
    function: Callable[..., Any],
    module: type[torch.nn.Module],
    claims: frozenset[str] = CLAIMS,
) -> Target:
    summary = f"torch.nn.{module.__name__}"
    return register(
        Target("builtin", function, claims, summary=summary, module=module, loss_of=name)
    )


BUILTIN = _builtin("mse", F.mse_loss, torch.nn.MSELoss, BUILTIN_CLAIMS)
BUILTIN_L1 = _builtin("l1", F.l1_loss, torch.nn.L1Loss)
BUILTIN_SMOOTH_L1 = _builtin("smooth_l1", F.smooth_l1_loss, torch.nn.SmoothL1Loss)
BUILTIN_HUBER = _builtin("huber", F.huber_loss, torch.nn.HuberLoss)
