"""An ``autograd.Function`` with a hand-made backward, and conforms.

It works on operands of one shape and dtype; broadcasting and promotion come before it as
differentiable operations, so autograd itself sums and casts the gradients back.
"""

from __future__ import annotations

from typing import Any

import torch

from targets.operands import check_reduction, prepare
from targets.registry import register
from targets.target import DROP_IN, Target


class SquaredDifference(torch.autograd.Function):
    """s = (x − y)² elementwise, for x and y of one shape and dtype.

    Its derivatives are ordinary differentiable operations on the saved operands: so the second
    derivative comes from autograd, and ``vmap`` is derived by torch.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = 2 * (x - y) * g
        return (
            gradient if ctx.needs_input_grad[0] else None,
            -gradient if ctx.needs_input_grad[1] else None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor | None, dy: torch.Tensor | None) -> torch.Tensor:
        x, y = ctx.saved_tensors
        if dx is None:
            dx = torch.zeros_like(x)
        if dy is None:
            dy = torch.zeros_like(y)
        return 2 * (x - y) * (dx - dy)


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by :class:`SquaredDifference`."""
    check_reduction(reduction)
    x, y = prepare(input, target)
    s: torch.Tensor = SquaredDifference.apply(x, y)  # type: ignore[no-untyped-call]
    if reduction == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


FUNCTION = register(Target("function", loss, DROP_IN, summary="an autograd.Function, by hand"))
