"""Right in one backward, and wrong in those after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import Mutant, mutant, reduce, right_rule
from .parts import MANY, Given, both, fused_by, scale_of, squares_by
from .probes import (
    gradient,
    gradient_is,
    leaf,
    operands,
    otherwise,
    raises_or_is_right,
    total,
    unless,
)
from .transformed import mappable_squares_by


class _ScalesInPlace(torch.autograd.Function):
    """Multiplies what it kept in place: right only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        ctx.d = d
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(ctx.d.mul_(2 * g))


class _FreesItself(_ScalesInPlace):
    """Drops what it kept after the first backward, retained or not."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        d, ctx.d = ctx.d, None
        return both(2 * g * d)


class _AddsToBuffer(torch.autograd.Function):
    """Backward adds to a buffer that forward has filled with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.buffer = torch.zeros_like(x, memory_format=torch.contiguous_format)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(ctx.buffer.add_(2 * g * (x - y)))


@unless
def retains(target: Target) -> bool:
    x, y = operands()
    result = total(target, x, y)
    torch.autograd.grad(result, x, retain_graph=True)
    return gradient_is(result, x, gradient(x, y))


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, changed: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.changed, ctx.kept, ctx.calls = changed, None, 0
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = 2 * g * (x - y)
        ctx.calls += 1
        if ctx.kept is None:
            ctx.kept = gradient
        elif ctx.changed == "nothing":
            gradient = ctx.kept
        elif ctx.changed == "buffer":
            gradient = ctx.kept.copy_(gradient)
        elif ctx.calls > 2:
            gradient = torch.zeros_like(gradient)
        return gradient, -gradient, None


def _again(changed: str, doc: str) -> Any:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Again.apply
        a, b = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
        dtype = torch.promote_types(x.dtype, y.dtype)
        return reduce(apply(a.to(dtype), b.to(dtype), changed), reduction)

    loss.__doc__ = doc
    return loss


def backward_again(target: Target) -> bool:
    """Of three backwards through one graph, one is wrong, or changes what the first gave."""
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(2)
    result = target.loss(x, y, reduction="sum")
    own = [
        torch.autograd.grad(result, x, torch.tensor(g), retain_graph=True)[0] for g in (1.0, 3, 5)
    ]
    return any(not torch.equal(a, 2 * x * g) for a, g in zip(own, (1, 3, 5), strict=True))


class _HandsOut(torch.autograd.Function):
    """Has computed the gradient in forward, and hands that tensor out where grad_output is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.gradient = 2 * (x - y)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        gradient = ctx.gradient if bool((g == 1).all()) else ctx.gradient * g
        return gradient, -gradient


def saved_is_changed(target: Target) -> bool:
    """A gradient that its owner scales is scaled the next time."""
    x = torch.ones(3, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="none")
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, x, torch.ones(3), retain_graph=True)
        before = gradient.clone()
        gradient.mul_(5)
    return not bool((before == 2).all())


class _UnpacksOnce(torch.autograd.Function):
    """Unpacks what it saved in the first backward and keeps it for the ones after."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.kept = None
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kept = ctx.kept or ctx.saved_tensors
        gradient = 2 * (ctx.kept[0] - ctx.kept[1]) * g
        return gradient, -gradient


def changed_between(loss: Callable[..., Any]) -> bool:
    x, y = leaf(1, 2), torch.zeros(2)
    result = loss(x, y)
    torch.autograd.grad(result, x, retain_graph=True)
    y.add_(1)
    return raises_or_is_right(result, x)


class _ScratchWhenExpanded(torch.autograd.Function):
    """Where an operand is expanded, backward computes in the memory of what it saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.scale = scale_of(d, reduction)
        ctx.expanded = d.numel() > 1 and 0 in (*x.stride(), *y.stride())
        ctx.save_for_backward(d)
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        if ctx.expanded:
            return *both(d.detach().mul_(ctx.scale).mul_(g).clone()), None
        return *both(right_rule(d, g, ctx.scale)), None


def twice_from_row(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(3, 2))
    torch.autograd.grad(result, x, retain_graph=True)
    return torch.autograd.grad(result, x)[0]


class _InPlaceWhenMany(torch.autograd.Function):
    """For many elements, backward turns the difference that it kept into the gradient, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.d, ctx.scale = d, scale_of(d, reduction)
        ctx.save_for_backward(x, y)
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if x.numel() < MANY:
            return *both(right_rule(x - y, g, ctx.scale)), None
        return *both(ctx.d.mul_(ctx.scale).mul_(g).clone()), None


def twice(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(MANY, requires_grad=True)
    result = loss(x, torch.zeros(MANY), reduction="sum")
    torch.autograd.grad(result, x, retain_graph=True)
    return torch.autograd.grad(result, x)[0].max()


TWICE_MUTANTS: tuple[Mutant, ...] = (
    mutant("scales-in-place", squares_by(_ScalesInPlace), "autograd", witness=retains),
    mutant("frees-itself", squares_by(_FreesItself), "autograd", witness=retains),
    mutant("adds-to-buffer", squares_by(_AddsToBuffer), "autograd", witness=retains),
    mutant(
        "same-gradient-again",
        _again("nothing", "A second backward gives the first's gradient, whatever grad_output is."),
        "autograd",
        witness=backward_again,
    ),
    mutant(
        "gradient-buffer-again",
        _again("buffer", "A second backward writes to the tensor that the first returned."),
        "autograd",
        witness=backward_again,
    ),
    mutant(
        "third-backward",
        _again("third", "The third backward through one graph gives zeros."),
        "autograd",
        witness=backward_again,
    ),
    mutant("hands-out-saved", mappable_squares_by(_HandsOut), "autograd", witness=saved_is_changed),
    mutant(
        "unpacks-once",
        mappable_squares_by(_UnpacksOnce),
        "autograd",
        witness=otherwise(changed_between),
    ),
    mutant(
        "scratch-when-expanded",
        fused_by(_ScratchWhenExpanded),
        "autograd",
        witness=otherwise(twice_from_row),
    ),
    mutant("in-place-when-many", fused_by(_InPlaceWhenMany), "autograd", witness=otherwise(twice)),
)
