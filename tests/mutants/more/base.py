"""What mutants are made of: right parts, of which each mutant replaces one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets.operands import check_reduction, prepare
from tests.mutants.mutant import Loss

Change = Callable[[Tensor], Tensor]
# (x, y, grad_output, n): the gradients of x and y, where n is 1 unless the reduction is a mean.
Gradient = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor | None, Tensor | None]]


def widened(dtype: torch.dtype) -> torch.dtype:
    """float32, or ``dtype`` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def reduce(s: Tensor, reduction: str) -> Tensor:
    """none, sum or mean of ``s``."""
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


def total(s: Tensor, sum_: Change, reduction: str) -> Tensor:
    """none, sum or mean of ``s``, with ``sum_`` for its flat elements in float32 at least."""
    if check_reduction(reduction) == "none":
        return s
    value = sum_(s.reshape(-1).to(widened(s.dtype)))
    return (value if reduction == "sum" else value / s.numel()).to(s.dtype)


def right_loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The right loss, differentiated by autograd."""
    return right_value(*prepare(x, y), reduction)


def right_value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The right loss of operands of one shape and dtype."""
    return reduce((x - y).square(), reduction)


def right_gradient(x: Tensor, y: Tensor, g: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The right gradients of operands of one shape and dtype, in float32 at least."""
    wide = widened(x.dtype)
    gradient = ((2 / n) * (x.to(wide) - y.to(wide)) * g.to(wide)).to(x.dtype)
    return gradient, -gradient


def by_hand(
    value: Loss = right_value, gradient: Gradient = right_gradient, *, doc: str | None = None
) -> Loss:
    """A loss of a forward and a backward on operands of one shape and dtype.

    Broadcasting and promotion come before it and are differentiated by autograd.
    ``doc``: the docstring; by default, that of the part which is not right.
    """

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
            ctx.save_for_backward(x, y)
            ctx.mean = reduction == "mean"
            return value(x, y, reduction)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
            x, y = ctx.saved_tensors
            first, second = gradient(x, y, g, max(x.numel(), 1) if ctx.mean else 1)
            wanted = ctx.needs_input_grad
            return first if wanted[0] else None, second if wanted[1] else None, None

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        check_reduction(reduction)
        result: Tensor = ByHand.apply(*prepare(x, y), reduction)
        return result

    loss.__doc__ = doc or (value if value is not right_value else gradient).__doc__
    return loss


def squares(change: Change) -> Loss:
    """A loss that reduces ``change`` of the flat squares; its gradient is right."""

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        s = (x - y).square()
        return reduce(change(s.reshape(-1)).reshape(s.shape), reduction)

    return by_hand(value, doc=change.__doc__)


def sums(sum_: Change) -> Loss:
    """A loss with ``sum_`` for its flat squares in float32 at least; its gradient is right."""

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return total((x - y).square(), sum_, reduction)

    return by_hand(value, doc=sum_.__doc__)


def formula(square: Change) -> Loss:
    """A loss with ``square`` for the square of the difference; autograd differentiates it."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        x, y = prepare(x, y)
        return reduce(square(x - y), reduction)

    loss.__doc__ = square.__doc__
    return loss


def viewed(view: Change) -> Loss:
    """A loss that sees both operands through ``view``; its gradient is right."""

    def value(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        shown = right_loss(view(x.detach()), view(y.detach()), reduction).detach()
        right = right_loss(x, y, reduction)
        return Replaced.apply(right, shown)  # type: ignore[no-any-return]

    value.__doc__ = view.__doc__
    return value


class Replaced(torch.autograd.Function):
    """The value of the second operand with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, right: Tensor, shown: Tensor) -> Tensor:
        return shown.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return g, None
