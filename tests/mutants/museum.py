"""Real defects of real implementations, each with its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets.operands import prepare

from .autograd import fused_by, scale_of
from .mutant import (
    Mutant,
    Pair,
    by_gradients,
    by_rule,
    by_squares,
    memory,
    mutant,
    reduce,
    right,
    right_rule,
    with_value,
)
from .overlooked import otherwise


def needing_target_reduces(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is the mean where the target needs a gradient (pytorch issue 10009)."""
    return right(x, y, "mean" if reduction == "none" and y.requires_grad else reduction)


def needing_target_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where the target needs a gradient (pytorch issues 11149, 43228).

    The same in pytorch issue 10148.
    """
    return right(x, y, "sum" if reduction == "mean" and y.requires_grad else reduction)


def zero_target(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The target's gradient is zeros (pytorch pull 3876)."""
    return torch.zeros_like(d)


def flattens(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Operands of as many elements are taken for equal shapes (pytorch issue 4938)."""
    same = x.shape != y.shape and x.numel() == y.numel()
    return right(x, y.reshape(x.shape) if same else y, reduction)


def refused_without_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sizes that differ raise where nothing needs a gradient (pytorch issue 12129)."""
    if x.shape != y.shape and not (x.requires_grad or y.requires_grad):
        raise RuntimeError("input and target shapes do not match")
    return right(x, y, reduction)


def refused_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sizes that differ raise where the target needs a gradient (pytorch issue 33787)."""
    if y.requires_grad and x.shape != y.shape:
        raise RuntimeError("the sizes differ")
    return right(x, y, reduction)


def half_overflow(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean divides a sum that overflowed in float16 (pytorch issue 12115, chainer 6702)."""
    a, b = prepare(x, y)
    s = (a - b).square()
    return s.sum() / s.numel() if reduction == "mean" else reduce(s, reduction)


def mixed_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Two floating dtypes raise (pytorch issue 187553)."""
    if x.dtype.is_floating_point and y.dtype.is_floating_point and x.dtype != y.dtype:
        raise RuntimeError(f"expected one dtype, not {x.dtype} and {y.dtype}")
    return right(x, y, reduction)


def strided_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input's strides are ignored, the target's are not (pytorch issue 124621)."""
    honest = right(x, y, reduction)
    return with_value(honest, right(memory(x), y.detach(), reduction))


def gradient_strides_ignored(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """The backward reads the operands as if they were contiguous (pytorch issue 30303)."""
    a, b = (v if 0 in v.stride() else memory(v) for v in (x, y))
    gradient = right_rule(a - b, g, scale)
    return gradient, -gradient


def nan_in_tail(s: Tensor) -> Tensor:
    """NaN counts as 0 in the scalar tail past whole vectors of 16 (pytorch issue 81138)."""
    whole = s.numel() - s.numel() % 16
    return torch.cat([s[:whole], s[whole:].nan_to_num(0.0, torch.inf)]) if whole else s


def nothing_reduced(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean reduces nothing (keras-core issue 8)."""
    return right(x, y, "none" if reduction == "mean" else reduction)


class _AsksSavedView(torch.autograd.Function):
    """Backward asks a view that it saved whether a gradient is needed (Lurkrazy/ld_triton).

    The view of a leaf says so, unless the leaf itself is a view of data.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.scale = scale_of(x, reduction)
        ctx.shape = x.shape
        flat = (v.contiguous().view(-1) for v in (x, y))
        ctx.save_for_backward(*flat)
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = right_rule((x - y).view(ctx.shape), g, ctx.scale)
        needed = x.requires_grad, y.requires_grad
        pair = zip(needed, (gradient, -gradient), strict=True)
        return *(v if needs else None for needs, v in pair), None


def of_row(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(3, 2)[1].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, torch.zeros(2)), x)
    return gradient


MUSEUM_MUTANTS: tuple[Mutant, ...] = (
    mutant("needing-target-reduces", needing_target_reduces, "value", "gradient"),
    mutant("needing-target-sums", needing_target_sums, "value", "gradient"),
    mutant("target-zeros", by_rule(right_rule, zero_target), "gradient"),
    mutant("flattens", flattens, "broadcasting", "errors"),
    mutant("refused-without-gradient", refused_without_gradient, "broadcasting"),
    mutant("refused-with-gradient", refused_with_gradient, "broadcasting"),
    mutant("half-overflow", half_overflow, "value"),
    mutant("mixed-refused", mixed_refused, "dtypes"),
    mutant("strided-input", strided_input, "layout"),
    mutant("gradient-strides-ignored", by_gradients(gradient_strides_ignored), "layout"),
    mutant("nan-in-tail", by_squares(nan_in_tail), "value"),
    mutant("nothing-reduced", nothing_reduced, "value"),
    mutant("asks-saved-view", fused_by(_AsksSavedView), "layout", witness=otherwise(of_row)),
)
