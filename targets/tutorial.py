"""The tutorial's Module and Function: right on its one example, and both defective.

They are kept as they are taught, as material: what they get wrong is what the suite is for. The
tutorial concludes that they agree with the builtin, so they claim what it does, for the mean.
"""

from __future__ import annotations

from typing import Any

import torch

from targets.registry import register
from targets.target import CLAIMS, DROP_IN, Target


class TutorialModule(torch.nn.Module):
    """Square the difference, add up, divide: the sum of a float16 tensor overflows on the way.

    The tutorial's has no reduction to choose; the parameter is there for the module clauses.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        squared = (input - target) ** 2
        return squared.sum() / squared.numel()


class TutorialFunction(torch.autograd.Function):
    """The factor is taken from the input's size, and the target gets no gradient."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(input, target)
        squared = (input - target) ** 2
        return squared.sum() / squared.numel()

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        input, target = ctx.saved_tensors
        return 2 / input.numel() * (input - target) * grad_output, None


def module_loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The loss of :class:`TutorialModule`, whatever the reduction."""
    result: torch.Tensor = TutorialModule()(input, target)
    return result


def function_loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """The loss of :class:`TutorialFunction`, whatever the reduction."""
    apply: Any = TutorialFunction.apply
    result: torch.Tensor = apply(input, target)
    return result


TUTORIAL_MODULE = register(
    Target(
        "tutorial-module",
        module_loss,
        CLAIMS,
        ("mean",),
        summary="the tutorial's nn.Module",
        module=TutorialModule,
    )
)
TUTORIAL_FUNCTION = register(
    Target(
        "tutorial-function", function_loss, DROP_IN, ("mean",), summary="the tutorial's Function"
    )
)
