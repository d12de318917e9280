"""Second backwards that are wrong in memory, sizes and formats, as kernels are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import EAGER, Mutant, memory, mutant, reduce, right, right_rule
from .parts import (
    MANY,
    TWICE,
    Given,
    Head,
    Whole,
    both,
    by_hand,
    by_pointer,
    fused_by,
    right_second,
    via,
)
from .probes import gradient_of, leaf, otherwise, ramp_leaf, unlike_builtin


class _Second(torch.autograd.Function):
    """2·g·(x - y), differentiated along what ``seen`` makes of the cotangent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, g: Tensor, seen: Any) -> Tensor:
        ctx.save_for_backward(x, y, g)
        ctx.seen = seen
        return 2 * g * (x - y)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        x, y, g = ctx.saved_tensors
        w = ctx.seen(w)
        return 2 * g * w, -2 * g * w, 2 * (x - y) * w, None


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, seen: Any) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.seen = seen
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        apply: Any = _Second.apply
        gradient = apply(x, y, g, ctx.seen)
        return gradient, -gradient, None


def _twice(seen: Any) -> Any:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Twice.apply
        return reduce(apply(*prepare(x, y), seen), reduction)

    loss.__doc__ = seen.__doc__
    return loss


def second_in_memory(w: Tensor) -> Tensor:
    """The second backward takes its cotangent to be contiguous."""
    return memory(w)


def second_of_few(w: Tensor) -> Tensor:
    """The second backward has one block of 64 threads."""
    few = torch.zeros(w.numel(), dtype=w.dtype)
    few[:64] = w.reshape(-1)[:64]
    return few.reshape(w.shape)


def second_of_empty(w: Tensor) -> Tensor:
    """The second backward divides by the number of elements, and multiplies by it again."""
    return w * (w.numel() / w.numel())


def wrong_second(make: Any) -> Any:
    """The second derivative of the sum along a cotangent is not twice the cotangent."""

    def witness(target: Target) -> bool:
        w = make()
        x = torch.ones(w.shape, requires_grad=True)
        loss = target.loss(x, torch.zeros(w.shape), reduction="sum")
        try:
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            (second,) = torch.autograd.grad(gradient, x, w)
        except ZeroDivisionError:
            return True
        return not torch.equal(second, 2 * w)

    return witness


def second_of_pairs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has a second derivative only where both operands need a gradient."""
    alone = x.requires_grad and not y.requires_grad
    return right(via(x, Tensor.detach) if alone else x, y, reduction)


def second_of_thousand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The second backward has one block of 1,024."""
    a, b = prepare(x, y)
    cut: Any = Head.apply
    return right(via(a, cut), b, reduction)


def second(loss: Any, n: int = 2000) -> Tensor:
    x = ramp_leaf(n)
    result = loss(x, torch.zeros(n), reduction="sum")
    (g,) = torch.autograd.grad(result, x, create_graph=True)
    return gradient_of(x, g)


def second_over_n(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative divides by n as a number of the operands' format."""
    n = torch.tensor(round(2 / scale), dtype=d.dtype)
    return *both(2 * (w * g) / n), right_second(w, d, g, scale)[2]


def second_of_many_halves(loss: Callable[..., Any]) -> bool:
    x = torch.ones(70_000, dtype=torch.float16, requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros_like(x)), x, create_graph=True)
    return bool(torch.autograd.grad(first.sum(), x)[0].any())


def second_by_pointer(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative reads its cotangent as if it were contiguous."""
    return right_second(by_pointer(w), d, g, scale)


def second_masked(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """A second derivative that is not a number is 0."""
    return tuple(t if t is None else t.nan_to_num() for t in right_second(w, d, g, scale))


class _Unprotected(torch.autograd.Function):
    """``scale·d·g``, which keeps both as attributes."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor, scale: float) -> Tensor:
        ctx.saved, ctx.scale = (d, g.detach()), scale
        return right_rule(d, g, scale)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        first, _, by_g = right_second(w, *ctx.saved, ctx.scale)
        return first, by_g, None


class _SecondUnprotected(Whole):
    """The second derivative keeps grad_output as an attribute, past a change of it."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Unprotected.apply
        return *both(apply(x - y, g, ctx.scale)), None


def second_along(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """The second derivative, along what ``change`` makes of grad_output and the cotangent."""

    def found(loss: Callable[..., Any]) -> Tensor:
        x, g, w = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3), torch.arange(6.0)
        result = loss(x, torch.zeros(2, 3), reduction="none")
        (first,) = torch.autograd.grad(result, x, g.requires_grad_(), create_graph=True)
        return torch.autograd.grad(first, x, change(g, w))[0]

    return found


def tripled(g: Tensor, w: Tensor) -> Tensor:
    g.detach().mul_(3)
    return w.view(2, 3)


def transposed(g: Tensor, w: Tensor) -> Tensor:
    return w.view(3, 2).t()


def of_nan(loss: Callable[..., Any]) -> Tensor:
    x, g = leaf(1, 2), torch.tensor([torch.nan, 1.0])
    result = loss(x, torch.zeros(2), reduction="none")
    (first,) = torch.autograd.grad(result, x, g, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


class _FirstOfExpanded(Whole):
    """Backward takes an expanded grad_output for its first element, which gets all derivatives."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.dim() and g.numel() and not any(g.stride()):
            g = g[(0,) * g.dim()]
        return *both(ctx.scale * (x - y) * g), None


def by_expanded(loss: Callable[..., Any]) -> Tensor:
    x, half = leaf(1, 2), torch.tensor(0.5, requires_grad=True)
    g = half.expand(2)
    result = loss(x, torch.zeros(2), reduction="none")
    (gradient,) = torch.autograd.grad(result, x, g, create_graph=True)
    return torch.autograd.grad(gradient.sum(), g)[0]


class _PointersCompared(Whole):
    """What lies at one address is taken for one tensor, whose loss is 0 and stays 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        alias = x.data_ptr() == y.data_ptr() and x.stride() == y.stride()
        d = (x - y).detach() if alias and x.numel() else x - y
        return *both(ctx.scale * d * g), None


def second_of_alias(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    (gradient,) = torch.autograd.grad(loss(x, x.detach()), x, create_graph=True)
    return torch.autograd.grad(gradient.sum(), x, allow_unused=True)[0]


class _NoGraphWhenMany(Whole):
    """For many elements, backward goes by chunks and without a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return *both(ctx.scale * (d.detach() if d.numel() >= MANY else d) * g), None


def penalty(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(MANY, requires_grad=True)
    result = loss(x, torch.zeros(MANY), reduction="sum")
    (gradient,) = torch.autograd.grad(result, x, create_graph=True)
    return torch.autograd.grad((result + gradient.square().sum()), x)[0].max()


SECOND_KERNEL_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "second-in-memory",
        _twice(second_in_memory),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)),
    ),
    mutant(
        "second-of-few",
        _twice(second_of_few),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.ones(65)),
    ),
    mutant(
        "second-of-empty",
        _twice(second_of_empty),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.ones(0, 3)),
    ),
    mutant(
        "second-of-pairs",
        second_of_pairs,
        "autograd",
        claims=TWICE,
        witness=unlike_builtin(lambda loss: second(loss, 3)),
    ),
    mutant(
        "second-of-thousand",
        second_of_thousand,
        "autograd",
        claims=TWICE,
        witness=unlike_builtin(second),
    ),
    mutant(
        "second-over-n-in-format",
        by_hand(second_over_n),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_many_halves),
    ),
    mutant(
        "second-by-pointer",
        by_hand(second_by_pointer),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_along(transposed)),
    ),
    mutant(
        "second-masked",
        by_hand(second_masked),
        "autograd",
        claims=TWICE,
        witness=otherwise(of_nan),
    ),
    mutant(
        "second-unprotected",
        fused_by(_SecondUnprotected),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_along(tripled)),
    ),
    mutant(
        "first-of-expanded",
        fused_by(_FirstOfExpanded),
        "autograd",
        claims=TWICE,
        witness=otherwise(by_expanded),
    ),
    mutant(
        "pointers-compared",
        fused_by(_PointersCompared),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_alias),
    ),
    mutant(
        "no-graph-when-many",
        fused_by(_NoGraphWhenMany),
        "autograd",
        claims=TWICE,
        witness=otherwise(penalty),
    ),
)
