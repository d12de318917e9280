"""Operators that are registered with torch, scripted or compiled."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from targets import DROP_IN, Target

from .common import TRACED, TWICE, by, reduce


@custom_op("right_losses::square_difference", mutates_args=())
def square_difference(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square()


@custom_op("right_losses::mse", mutates_args=())
def fused(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return reduce((x - y).square(), reduction)


@custom_op("right_losses::mse_backward", mutates_args=())
def fused_backward(g: Tensor, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return 2 / max(x.numel(), 1) * (x - y) * g if reduction == "mean" else 2 * (x - y) * g


def _register() -> Any:
    """Gradients, and shapes for tracing, of which two do not look at the devices.

    The library lives as long as what is returned.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.reduction = inputs[2] if len(inputs) == 3 else "none"

    def plain_backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return 2 * g * (x - y), 2 * g * (y - x)

    def with_operator(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        gradient = fused_backward(g, *ctx.saved_tensors, ctx.reduction)
        return gradient, -gradient, None

    square_difference.register_fake(lambda x, y: x - y)
    square_difference.register_autograd(plain_backward, setup_context=save)
    fused.register_fake(
        lambda x, y, reduction: torch.empty_like(x) if reduction == "none" else x.new_empty(())
    )
    fused.register_autograd(with_operator, setup_context=save)
    fused_backward.register_fake(lambda g, x, y, reduction: torch.empty_like(x))
    new_library: Any = torch.library.Library
    library = new_library("right_losses", "FRAGMENT")
    library.define("composite(Tensor x, Tensor y, str reduction) -> Tensor")
    library.impl("composite", _formula, "CompositeImplicitAutograd")
    library.impl("composite", _formula, "FuncTorchBatchedDecomposition")
    return library


def _formula(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return reduce((x - y).square(), reduction)


def custom_difference(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The square of the difference is an operator, the reduction is torch's."""
    return reduce(square_difference(x, y), reduction)


def composite(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """An operator that is made of torch's own, which therefore know how to transform it."""
    result: Tensor = torch.ops.right_losses.composite(x, y, reduction)
    return result


def script_formula(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    s = torch.square(x - y)
    if reduction == "none":
        return s
    if reduction == "sum":
        return s.sum()
    return s.mean()


def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(script_formula)


_LIBRARY = _register()

RIGHT_OPERATORS: tuple[Target, ...] = (
    Target("custom-difference", by(custom_difference), TWICE | TRACED),
    # Its backward is an operator without a derivative.
    Target("custom-fused", by(fused), TRACED),
    Target("composite", by(composite), DROP_IN),
    Target("scripted", by(scripted()), DROP_IN),
    # Slow to compile; one graph for all sizes. No other backend lets a graph be retained.
    Target("compiled", by(torch.compile(_formula, backend="eager", dynamic=True)), DROP_IN),
)
