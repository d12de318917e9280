"""Right inside of what they say they take; outside they raise, as an assertion does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Domain, Target

from .common import EAGER, Loss, by, reduce, widened
from .functions import SavesDifference, Textbook

ONE_SHAPE = frozenset({"target_gradient", "deterministic"})


def only(takes: Callable[[Tensor], bool], loss: Loss) -> Loss:
    """``loss`` of operands that ``takes`` is true of."""

    def checked(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if not (takes(x) and takes(y)):
            raise ValueError(f"not for operands of {[*x.shape]} and {[*y.shape]}")
        return loss(x, y, reduction)

    return checked


class _Flat(torch.autograd.Function):
    """A kernel over flat memory, four elements at once; grad_output is made contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.reduction = reduction
        s = (widened(x).view(-1, 4) - widened(y).view(-1, 4)).square()
        if reduction == "none":
            return s.view(x.shape).to(x.dtype, copy=True)  # a view must not be changed in place
        total = s.sum(dim=1).sum()
        return (total / max(x.numel(), 1) if reduction == "mean" else total).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y = ctx.saved_tensors
        n = max(x.numel(), 1) if ctx.reduction == "mean" else 1
        g = g.expand(x.shape).contiguous().view(-1)
        d = widened(x).view(-1) - widened(y).view(-1)
        gradient = (2 / n * d * widened(g)).view(x.shape).to(x.dtype)
        return gradient, -gradient, None


class _Blocks(torch.autograd.Function):
    """Rows of whole warps: each warp adds up its own columns, then these sums are added."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = widened(x) - widened(y)
        ctx.save_for_backward(d.to(x.dtype))
        ctx.reduction = reduction
        if reduction == "none":
            return d.square().to(x.dtype)
        rows = d.square().view(x.shape[0], -1, 32).sum(dim=2).sum(dim=1)
        total = rows.sum()
        return (total / max(x.numel(), 1) if reduction == "mean" else total).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        (d,) = ctx.saved_tensors
        gradient = 2 * d * g
        gradient = gradient / max(d.numel(), 1) if ctx.reduction == "mean" else gradient
        return gradient, -gradient, None


def _forward_only(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of operands that need no gradient, as a metric is."""
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        raise RuntimeError("there is no backward")
    with torch.no_grad():
        return reduce((x - y).square(), reduction)


def _dense_rows(x: Tensor) -> bool:
    return x.dim() == 0 or x.shape[-1] < 2 or x.stride(-1) == 1


def _ranks(least: int, most: int, loss: Loss) -> Target:
    name = f"of-{least}-to-{most}-dimensions"
    inside = only(lambda t: least <= t.dim() <= most, loss)
    return Target(name, inside, EAGER, domain=Domain(ranks=(least, most)))


_saving, _textbook = by(SavesDifference.apply), by(Textbook.apply)

RIGHT_DOMAINS: tuple[Target, ...] = (
    _ranks(2, 2, _saving),
    _ranks(3, 3, _textbook),
    _ranks(2, 64, _textbook),
    _ranks(1, 64, _saving),
    _ranks(0, 8, _textbook),
    Target(
        "of-one-column",
        only(lambda t: t.dim() == 2 and t.shape[1] == 1, _saving),
        EAGER,
        domain=Domain(shape=(None, 1)),
    ),
    Target(
        "of-contiguous",
        only(lambda t: t.is_contiguous(), _textbook),
        EAGER,
        domain=Domain(layout="contiguous"),
    ),
    Target("of-dense-rows", only(_dense_rows, _saving), EAGER, domain=Domain(layout="dense_rows")),
    Target(
        "of-whole-vectors",
        only(lambda t: t.numel() % 4 == 0 and t.is_contiguous(), by(_Flat.apply, prepared=False)),
        ONE_SHAPE,
        domain=Domain(elements=(4, 0), layout="contiguous"),
    ),
    Target(
        "of-whole-warps",
        only(
            lambda t: t.dim() == 2 and t.shape[1] % 32 == 0 and t.shape[1] <= 1024,
            by(_Blocks.apply, prepared=False),
        ),
        ONE_SHAPE,
        domain=Domain(ranks=(2, 2), columns=(32, 1024)),
    ),
    Target(
        "of-few-elements",
        only(lambda t: t.numel() <= 65536, _textbook),
        EAGER,
        domain=Domain(elements=(1, 65536)),
    ),
    Target("of-no-gradient", _forward_only, EAGER, domain=Domain(backward=False)),
)
