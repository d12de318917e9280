"""torch's own ``nn.MSELoss``."""

from __future__ import annotations

import torch

from targets.registry import register
from targets.target import CLAIMS, Target


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The loss of a fresh ``nn.MSELoss``."""
    result: torch.Tensor = torch.nn.MSELoss(reduction=reduction)(input, target)
    return result


# Before torch 2.12 the backward of torch's own raises for operands of two dtypes.
BUILTIN_CLAIMS = CLAIMS if torch.__version__ >= "2.12" else CLAIMS - {"mixed_dtype"}
BUILTIN = register(
    Target("builtin", loss, BUILTIN_CLAIMS, summary="torch.nn.MSELoss", module=torch.nn.MSELoss)
)
