"""What mutants share that are wrong in a derivative, or from a size on: right Functions, claims."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets.operands import check_reduction, prepare

from .mutant import EAGER, Loss, elementwise, memory, reduce, right_rule, widened

Given = tuple[Tensor | None, ...]  # by a backward
TWICE = EAGER | {"double_backward"}
FORWARD = EAGER | {"forward_ad"}


def squares_by(function: Any) -> Loss:
    """A loss whose squares are those of a Function of two operands."""
    return elementwise(function.apply, function.__doc__)


def fused_by(function: Any, *options: Any, doc: str | None = None) -> Loss:
    """A loss that is one Function of two operands, the reduction and options."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result: Tensor = function.apply(*prepare(x, y), check_reduction(reduction), *options)
        return result

    loss.__doc__ = doc or function.__doc__
    return loss


def scale_of(x: Tensor, reduction: str) -> float:
    return 2 / max(x.numel(), 1) if reduction == "mean" else 2.0


def both(gradient: Tensor) -> tuple[Tensor, Tensor]:
    return gradient, -gradient


# Of w (the cotangent of the gradient), d, grad_output and 2/n (or 2): what the derivatives of the
# gradient by input, target and grad_output are along w.
Second = Callable[[Tensor, Tensor, Tensor, float], Given]


class Gradient(torch.autograd.Function):
    """The gradient, whose derivatives are by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, g: Tensor, scale: float, second: Second) -> Tensor:
        ctx.save_for_backward(x, y, g)
        ctx.scale, ctx.second = scale, second
        return right_rule(x - y, g, scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, w: Tensor) -> Given:
        x, y, g = ctx.saved_tensors
        return *ctx.second(w, x - y, g, ctx.scale), None, None


class ByHand(torch.autograd.Function):
    """Backward is a Function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, second: Second) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale, ctx.second = scale_of(x, reduction), second
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        apply: Any = Gradient.apply
        return *both(apply(*ctx.saved_tensors, g, ctx.scale, ctx.second)), None, None


def right_second(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    return *both(right_rule(w, g, scale)), (scale * d * w).sum_to_size(g.shape)


def by_hand(second: Second) -> Loss:
    return fused_by(ByHand, second, doc=second.__doc__)


Tangent = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Forward(torch.autograd.Function):
    """Squares whose tangent is by hand, of the operands and theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, tangent: Tangent) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)
        ctx.tangent = tangent
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(2 * g * (x - y)), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor, _: None) -> Tensor:
        tangent: Tensor = ctx.tangent(*ctx.saved_tensors, dx, dy)
        return tangent


def by_tangent(tangent: Tangent) -> Loss:
    def squares(a: Tensor, b: Tensor) -> Tensor:
        apply: Any = Forward.apply
        result: Tensor = apply(a, b, tangent)
        return result

    return elementwise(squares, tangent.__doc__)


def known_orders(x: Tensor) -> Tensor:
    """Knows rows, columns and channels_last; memory in another order it reads as rows."""
    order = sorted(range(x.dim()), key=lambda k: -x.stride(k))
    known = (list(range(x.dim())), list(range(x.dim()))[::-1], [0, *range(2, x.dim()), 1])
    dense = x.permute(order).is_contiguous()
    return memory(x) if x.dim() > 2 and dense and order not in known else x


def eight_strides(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Has room for eight strides; of a ninth dimension it sees the first element."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() > 8:
        s = s[..., :1].expand(s.shape)
    return reduce(s, reduction).to(x.dtype)


Change = Callable[[Tensor], Tensor]
GRID = 65_536  # elements that one launch reaches


class Via(torch.autograd.Function):
    """The identity, with ``change`` for its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Change) -> Tensor:
        ctx.change = change
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.change(g), None


def via(x: Tensor, change: Change) -> Tensor:
    """``x``, whose gradient passes through ``change``."""
    apply: Any = Via.apply
    result: Tensor = apply(x, change)
    return result


def head(v: Tensor, n: int) -> Tensor:
    """What lies past the first ``n`` elements is 0."""
    flat = v.reshape(-1)
    return torch.cat([flat[:n], torch.zeros_like(flat[n:])]).reshape(v.shape)


class Head(torch.autograd.Function):
    """The identity, whose derivatives of both modes have one block of 1,024."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return head(g, 1024)

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return head(t, 1024)


def without(kept: Tensor, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Only the squares for which ``kept``, of their shape, is 1."""
    return reduce((x - y).square() * kept.to(x.dtype), reduction)


class Whole(torch.autograd.Function):
    """The loss of operands of one shape and dtype, all of it right."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduce((x - y).square(), reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.reduction = inputs
        ctx.scale = scale_of(x, ctx.reduction)
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(ctx.scale * (x - y) * g), None

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        return reduce(2 * (x - y) * (t_x - t_y), ctx.reduction)


def by_pointer(t: Tensor) -> Tensor:
    """What a kernel sees that takes a dense tensor for a contiguous one."""
    whole = t.numel() and t.untyped_storage().nbytes() == t.nbytes and not t.storage_offset()
    return t.as_strided(t.shape, torch.empty(t.shape).stride()) if whole else t


TURN = itertools.count()
RING = 256
MANY = 2**18  # elements, from which another path is taken
AWKWARD = 1.1  # adding it up in one accumulator drifts


def running_sum(s: Tensor) -> Tensor:
    """In one accumulator of its own dtype; torch's cumsum has a wider one."""
    return torch.from_numpy(np.add.accumulate(s.numpy())[-1:].copy())[0]
