"""Huber's loss as an ``autograd.Function`` with a hand-made backward, and conforms.

As in ``function.py``: broadcasting and promotion come before it and the reduction after it, as
differentiable operations; it works on operands of one shape and dtype.
"""

from __future__ import annotations

from typing import Any

import torch

from targets.operands import above_zero, check_reduction, prepare
from targets.registry import register
from targets.target import DROP_IN, Target


class Huber(torch.autograd.Function):
    """ℓ(d) = d²/2 where |d| ≤ δ, else δ·(|d| − δ/2), for d = x − y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
        d = x - y
        size = d.abs()
        return torch.where(size <= delta, d * d / 2, delta * (size - delta / 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, y, ctx.delta = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = (x - y).clamp(-ctx.delta, ctx.delta) * g
        return (
            gradient if ctx.needs_input_grad[0] else None,
            -gradient if ctx.needs_input_grad[1] else None,
            None,
        )


class HuberForward(Huber):
    """The same with forward-mode AD: apart, since torch.compile refuses a Function with ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor, dy: torch.Tensor, _: None) -> torch.Tensor:
        x, y = ctx.saved_tensors
        tangent: torch.Tensor = (x - y).clamp(-ctx.delta, ctx.delta) * (dx - dy)
        return tangent


def loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, delta: float = 1.0
) -> torch.Tensor:
    """Huber's loss by :class:`Huber`. Raises ValueError where ``delta`` is not above 0."""
    x, y = prepare(input, target)
    check_reduction(reduction)
    function: Any = Huber if torch.compiler.is_compiling() else HuberForward
    s: torch.Tensor = function.apply(x, y, above_zero(delta))
    if reduction == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


HUBER = register(
    Target("function", loss, DROP_IN, summary="an autograd.Function, by hand", loss_of="huber")
)
