"""The loss by the compiled kernels, with its derivatives."""

from __future__ import annotations

from typing import Any

import torch

from targets.cuda.operators import mse, mse_gradient
from targets.operands import check_reduction, prepare

Gradients = tuple[torch.Tensor | None, ...]


class Gradient(torch.autograd.Function):
    """``scale·g·(x - y)`` and its negative; ``g`` is of their shape or 0-d.

    Its own derivatives are ordinary differentiable operations, in float32 for halves, so that the
    sum over the elements that belongs to a 0-d ``g`` is rounded once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, scale: float, need_x: bool, need_y: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradients: tuple[torch.Tensor, torch.Tensor] = mse_gradient(g, x, y, scale, need_x, need_y)
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, y, ctx.scale, ctx.need_x, ctx.need_y = inputs
        ctx.save_for_backward(g, x, y)

    @staticmethod
    def backward(ctx: Any, along_x: torch.Tensor, along_y: torch.Tensor) -> Gradients:
        g, x, y = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        c = (along_x.to(wide) if ctx.need_x else 0) - (along_y.to(wide) if ctx.need_y else 0)
        by_g = ctx.scale * c * (x.to(wide) - y.to(wide))
        if g.dim() < x.dim():
            by_g = by_g.sum()
        by_x = (ctx.scale * g.to(wide) * c).to(x.dtype)
        return by_g.to(g.dtype), by_x, -by_x, None, None, None


class SquaredError(torch.autograd.Function):
    """The reduced squared error of x and y, of one shape and dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        value: torch.Tensor = mse(x, y, reduction)
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, y, ctx.reduction = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        scale = 2 / max(x.numel(), 1) if ctx.reduction == "mean" else 2.0
        need_x, need_y, _ = ctx.needs_input_grad
        grad_x, grad_y = Gradient.apply(g, x, y, scale, need_x, need_y)
        return grad_x if need_x else None, grad_y if need_y else None, None


class SquaredErrorForward(SquaredError):
    """The same with forward-mode AD: apart, since torch.compile refuses a Function with ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor, dy: torch.Tensor, _: None) -> torch.Tensor:
        x, y = ctx.saved_tensors
        tangent: torch.Tensor = 2 * (x - y) * (dx - dy)
        if ctx.reduction == "none":
            return tangent
        return tangent.sum() if ctx.reduction == "sum" else tangent.mean()


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by the kernels of mse.cu.

    Raises RuntimeError for operands on different devices, for shapes that do not broadcast and for
    dtypes that are not real and floating; ValueError for an unknown reduction.
    """
    if input.device != target.device:
        raise RuntimeError(f"operands on different devices: {input.device} and {target.device}")
    x, y = prepare(input, target)
    check_reduction(reduction)
    function: Any = SquaredError if torch.compiler.is_compiling() else SquaredErrorForward
    value: torch.Tensor = function.apply(x, y, reduction)
    return value
