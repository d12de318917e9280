"""An ``nn.Module`` that writes the formula down, and conforms."""

from __future__ import annotations

import torch

from targets.operands import check_reduction, prepare
from targets.registry import register
from targets.target import CLAIMS, Target


class MSE(torch.nn.Module):
    """The mean squared error: none, sum or mean of (input - target)².

    Autograd differentiates it; torch accumulates the mean of halves in float32, and divides before
    it rounds, so a float16 mean overflows no earlier than the builtin's.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x, y = prepare(input, target)
        s = (x - y).square()
        if self.reduction == "none":
            return s
        return s.sum() if self.reduction == "sum" else s.mean()


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The loss of a fresh :class:`MSE`."""
    result: torch.Tensor = MSE(reduction)(input, target)
    return result


MODULE = register(Target("module", loss, CLAIMS, summary="an nn.Module, by formula", module=MSE))
