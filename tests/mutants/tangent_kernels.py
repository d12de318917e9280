"""Tangents that are wrong in memory, sizes and formats, as kernels are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import EAGER, Loss, Mutant, Witness, mutant, reduce, right, widened
from .parts import AWKWARD, FORWARD, Head, Whole, by_pointer, by_tangent, fused_by, running_sum
from .probes import otherwise, ramp, tangent_of, unlike_builtin


def tangent_of_thousand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The tangent has one block of 1,024."""
    a, b = prepare(x, y)
    level: int = torch.autograd.forward_ad._current_level
    cut: Any = Head.apply
    return right(cut(a) if level >= 0 else a, b, reduction)


def tangent(loss: Any) -> Tensor:
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        x = forward.make_dual(ramp(2000), ramp(2000))
        result: Tensor = forward.unpack_dual(loss(x, torch.zeros(2000), reduction="sum")).tangent
    return result


class _TangentOfSum(Whole):
    """The tangent of a mean is a sum over n: too narrow for float16."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        t = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "mean" and t.numel():
            return t.sum() / t.numel()
        return reduce(t, ctx.reduction)


def tangent_by_pointer(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent of an operand is read as if it were contiguous."""
    return 2 * (x - y) * (by_pointer(dx) - by_pointer(dy))


def tangent_of_transpose(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, t = torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(2, 3).t()
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(3, 2))
        tangent: Tensor = forward.unpack_dual(result).tangent
    return tangent


class _InTangent(Whole):
    """The tangent of the result is computed in the memory of the input's."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        own = t_x.is_contiguous() and not t_x._is_zerotensor()
        t = t_x.sub_(t_y) if own else t_x - t_y
        return reduce(2 * (x - y) * t, ctx.reduction)


def tangent_after(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, y, t, u = (torch.full((2,), float(k)) for k in range(4))
    with forward.dual_level():
        loss(forward.make_dual(x, t), forward.make_dual(y, u))
    return t


class _RunningTangent(Whole):
    """The tangent of a sum and a mean is one running sum."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        terms = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "none" or not terms.numel():
            return reduce(terms, ctx.reduction)
        wide = terms.to(widened(terms.dtype))
        total = running_sum(wide.reshape(-1))
        return (total if ctx.reduction == "sum" else total / terms.numel()).to(terms.dtype)


def of_tangent(loss: Callable[..., Any]) -> bool:
    """Whether the tangent is right to 1 part in 10,000."""
    n = 2**20
    x, t = torch.full((n,), AWKWARD), torch.ones(n)
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(n), reduction="sum")
        tangent = forward.unpack_dual(result).tangent
    return bool((tangent / (2 * n * AWKWARD) - 1).abs() < 1e-4)


class _Tangent(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, tangent: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.tangent = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: Any) -> Tensor:
        return ctx.tangent(t)


def beside(tangent: Callable[[Tensor, Tensor], Tensor], *kinds: torch.dtype) -> Loss:
    """A loss that is right, but whose floating operand has another tangent beside these kinds."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Tangent.apply
        if y.dtype in kinds and x.is_floating_point():
            return right(apply(x, lambda t: tangent(t, y)), y, reduction)
        if x.dtype in kinds and y.is_floating_point():
            return right(x, apply(y, lambda t: tangent(t, x)), reduction)
        return right(x, y, reduction)

    loss.__doc__ = tangent.__doc__
    return loss


def no_tangent(t: Tensor, other: Tensor) -> Tensor:
    """Beside an int64 operand the tangent is 0."""
    return torch.zeros_like(t)


def tangent_of_flags(t: Tensor, other: Tensor) -> Tensor:
    """Beside bools the tangent is only that of what is true."""
    return t * other


def tangent_in_bytes(t: Tensor, other: Tensor) -> Tensor:
    """Beside bytes the tangent has no fraction."""
    return t.trunc()


def tangent_beside(dtype: torch.dtype) -> Callable[[Callable[..., Any]], Any]:
    def tangent(loss: Callable[..., Any]) -> Any:
        forward: Any = fwad
        with forward.dual_level():
            x = forward.make_dual(torch.tensor([3.0, 1.0]), torch.tensor([1.5, 1.0]))
            return forward.unpack_dual(loss(x, torch.tensor([1, 0]).to(dtype))).tangent

    return tangent


def wrong_tangent(dtype: torch.dtype) -> Witness:
    """Neither refused, as torch's own does, nor that of the formula."""

    def wrong(target: Target) -> bool:
        found = tangent_beside(dtype)(target.loss)
        return abs(float(found) - float(tangent_beside(torch.float32)(target.loss))) > 1e-5

    return wrong


TANGENT_KERNEL_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "tangent-of-thousand",
        tangent_of_thousand,
        "autograd",
        claims=EAGER | {"forward_ad"},
        witness=unlike_builtin(tangent),
    ),
    mutant(
        "tangent-of-sum",
        fused_by(_TangentOfSum),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of(5000, 8.0)),
    ),
    mutant(
        "tangent-by-pointer",
        by_tangent(tangent_by_pointer),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of_transpose),
    ),
    mutant(
        "in-tangent",
        fused_by(_InTangent),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_after),
    ),
    mutant(
        "running-tangent",
        fused_by(_RunningTangent),
        "autograd",
        claims=FORWARD,
        witness=lambda target: not of_tangent(target.loss),
    ),
    mutant(
        "no-tangent",
        beside(no_tangent, torch.int64),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.int64),
    ),
    mutant(
        "tangent-of-flags",
        beside(tangent_of_flags, torch.bool),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.bool),
    ),
    mutant(
        "tangent-in-bytes",
        beside(tangent_in_bytes, torch.uint8, torch.int8),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.uint8),
    ),
)
