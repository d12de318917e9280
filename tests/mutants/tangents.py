"""Wrong tangents, in forward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import EAGER, Mutant, mutant, reduce, right, right_rule
from .parts import FORWARD, Given, both, by_tangent, fused_by, scale_of
from .probes import gradient, operands, otherwise, tangent_of, unless


def no_target_tangent(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent ignores target's."""
    return 2 * (x - y) * dx


def tangent_without_two(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent has no factor 2."""
    return (x - y) * (dx - dy)


def tangent_sign(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent adds target's."""
    return 2 * (x - y) * (dx + dy)


def tangent_of_primal(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent reads the input where its tangent is meant."""
    return 2 * (x - y) * (x - dy)


class _SumTangent(torch.autograd.Function):
    """The tangent of the mean is the sum's: no 1/n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.save_for_forward(x - y)
        ctx.reduction, ctx.scale = reduction, scale_of(x, reduction)
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, g, ctx.scale)), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor, _: None) -> Tensor:
        (d,) = ctx.saved_tensors
        elements: Tensor = 2 * d * (dx - dy)
        return elements if ctx.reduction == "none" else elements.sum()


@unless
def has_tangent(target: Target) -> bool:
    x, y = (t.detach() for t in operands())
    forward: Any = fwad  # untyped in torch
    with forward.dual_level():
        dx, dy = torch.arange(1.0, 5.0, dtype=x.dtype), torch.ones_like(y)
        result = target.loss(forward.make_dual(x, dx), forward.make_dual(y, dy), reduction="mean")
        got: Tensor = forward.unpack_dual(result).tangent
    return torch.allclose(got, (gradient(x, y) * (dx - dy)).mean())


class _TangentByDivision(torch.autograd.Function):
    """The tangent of a mean divides by n before it looks whether there is anything."""

    @staticmethod
    def forward(d: Tensor) -> Tensor:
        return d.square().mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_forward(*inputs)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        gradient: Tensor = 2 * d * g / max(d.numel(), 1)
        return gradient

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        tangent: Tensor = 2.0 / d.numel() * (d * t).sum()
        return tangent


def tangent_by_division(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The tangent of a mean divides by n in Python."""
    level: Any = fwad
    if level._current_level < 0 or reduction != "mean":
        return right(x, y, reduction)
    a, b = prepare(x, y)
    apply: Any = _TangentByDivision.apply
    result: Tensor = apply(a - b)
    return result


def tangent_of_nothing(loss: Callable[..., Any]) -> bool:
    forward: Any = fwad
    with forward.dual_level():
        x = forward.make_dual(torch.zeros(0), torch.zeros(0))
        return forward.unpack_dual(loss(x, torch.zeros(0))).tangent is not None


def tangent_masked(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """A tangent that is not a number is 0."""
    return torch.nan_to_num(2 * (x - y) * (dx - dy))


class _WithoutTangent(torch.autograd.Function):
    """A conversion to a wider dtype that has a gradient, and a tangent of 0."""

    @staticmethod
    def forward(t: Tensor, dtype: torch.dtype) -> Tensor:
        return t.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        t, ctx.dtype = inputs
        ctx.narrow = t.dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        return g.to(ctx.narrow), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return torch.zeros_like(tangent, dtype=ctx.dtype)


def converts_without_tangent(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of two dtypes the narrower operand is converted without its tangent."""
    both_float = x.is_floating_point() and y.is_floating_point()
    if not both_float or x.dtype == y.dtype:
        return right(x, y, reduction)
    wide = torch.promote_types(x.dtype, y.dtype)
    apply: Any = _WithoutTangent.apply
    pair = (t if t.dtype == wide or t.is_meta else apply(t, wide) for t in (x, y))
    return right(*pair, reduction)


def tangent_of_two(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, t = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(2))
        tangent: Tensor = forward.unpack_dual(result).tangent
    return tangent


TANGENT_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "no-target-tangent",
        by_tangent(no_target_tangent),
        "autograd",
        claims=FORWARD,
        witness=has_tangent,
    ),
    mutant(
        "tangent-without-two",
        by_tangent(tangent_without_two),
        "autograd",
        claims=FORWARD,
        witness=has_tangent,
    ),
    mutant(
        "tangent-sign", by_tangent(tangent_sign), "autograd", claims=FORWARD, witness=has_tangent
    ),
    mutant(
        "tangent-of-primal",
        by_tangent(tangent_of_primal),
        "autograd",
        claims=FORWARD,
        witness=has_tangent,
    ),
    mutant("sum-tangent", fused_by(_SumTangent), "autograd", claims=FORWARD, witness=has_tangent),
    mutant(
        "tangent-by-division",
        tangent_by_division,
        "autograd",
        claims=EAGER | {"forward_ad"},
        witness=otherwise(tangent_of_nothing),
    ),
    mutant(
        "tangent-masked",
        by_tangent(tangent_masked),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of(2, torch.nan)),
    ),
    mutant(
        "converts-without-tangent",
        converts_without_tangent,
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of_two),
    ),
)
