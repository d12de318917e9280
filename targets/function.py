"""An ``autograd.Function`` with a hand-made backward, and conforms.

It works on operands of one shape and dtype; broadcasting and promotion come before it as
differentiable operations, so autograd itself casts and sums the gradients back, and the reduction
comes after it, so that halves are accumulated in float32.
"""

from __future__ import annotations

from typing import Any

import torch

from targets.operands import check_reduction, prepare
from targets.registry import register
from targets.target import DROP_IN, Target


class SquaredDifference(torch.autograd.Function):
    """s = (x - y)² elementwise, for x and y of one shape and dtype.

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
        # 2·g first: 2·d would overflow where the gradient itself, with its 1/n in g, does not.
        gradient = 2 * g * (x - y)
        return (
            gradient if ctx.needs_input_grad[0] else None,
            -gradient if ctx.needs_input_grad[1] else None,
        )


class SquaredDifferenceForward(SquaredDifference):
    """The same with forward-mode AD: apart, since torch.compile refuses a Function with ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        x, y = ctx.saved_tensors
        tangent: torch.Tensor = 2 * (x - y) * (dx - dy)
        return tangent


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by :class:`SquaredDifference`."""
    x, y = prepare(input, target)
    check_reduction(reduction)
    compiling = torch.compiler.is_compiling()
    function: Any = SquaredDifference if compiling else SquaredDifferenceForward
    s: torch.Tensor = function.apply(x, y)
    if reduction == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


FUNCTION = register(Target("function", loss, DROP_IN, summary="an autograd.Function, by hand"))
