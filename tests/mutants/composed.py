"""Wrong where transforms are composed: jacobians, hessians, tangents, batches of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import Loss, Mutant, mutant, reduce, right, right_rule
from .parts import Given, Whole, both, fused_by, via
from .probes import (
    data,
    gradient,
    operands,
    otherwise,
    ramp,
    ramp_leaf,
    summed,
    total,
    unless,
    unlike_builtin,
)
from .transformed import (
    FUNCTORCH,
    INTERNALS,
    Mappable,
    Square,
    fronted,
    mappable_squares_by,
    transforming,
)


class _Derived(Square):
    """Under torch.func it has no tangent."""


class _AsksForZeros(Square):
    """Backward has a short cut for a grad_output that is 0 everywhere."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        if not g.any():
            return both(0 * d)
        return both(2 * g * d)


def under_transforms(function: Any, doc: str | None = None) -> Loss:
    """A loss that has a Function for torch.func, and is right without."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if not transforming():
            return right(x, y, reduction)
        return reduce(function.apply(*prepare(x, y)), reduction)

    loss.__doc__ = doc or function.__doc__
    return loss


class _TakesItem(Mappable):
    """Backward takes grad_output out of its tensor where that has one element."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.numel() == 1:
            return *both(ctx.scale * (x - y) * g.item()), None
        return *both(right_rule(x - y, g, ctx.scale)), None


class _Tangent(Square):
    """Under torch.func the tangent ignores target's."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        tangent: Tensor = 2 * (x - y) * dx
        return tangent


class _SavesResult(torch.autograd.Function):
    """Under torch.func d is a second result, which has no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        d = x - y
        return d.square(), d

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


def saves_result(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func d is a second result, which has no derivative."""
    if not transforming():
        return right(x, y, reduction)
    apply: Any = _SavesResult.apply
    return reduce(apply(*prepare(x, y))[0], reduction)


class _Scaled(torch.autograd.Function):
    """2·g·d, with derivatives by hand that have a short cut for a cotangent of zeros."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, d: Tensor) -> Tensor:
        return 2 * g * d

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        g, d = ctx.saved_tensors
        if not w.any():
            return w, w
        return 2 * w * d, 2 * w * g


class _AsksTwice(Square):
    """The second derivative has a short cut for a cotangent of zeros."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Scaled.apply
        return both(apply(g, x - y))


class _Unbatched(_Scaled):
    """2·g·d, without a rule for vmap."""

    generate_vmap_rule = False


class _BackwardWithoutRule(Square):
    """Backward is a Function without a rule for vmap."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Unbatched.apply
        return both(apply(g, x - y))


class _MeanCotangent(_Scaled):
    """2·g·d, whose rule for vmap gives what has no batch dimension, as d has none."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, d: Tensor) -> tuple[Tensor, int | None]:
        a, b = fronted(g, in_dims[0]), fronted(d, in_dims[1])
        if in_dims[1] is None:
            return 2 * a.mean(0) * d, None
        return 2 * a * b, 0


class _MixesCotangents(Square):
    """Backward's rule for vmap averages the cotangents where the operands are no batch."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _MeanCotangent.apply
        return both(apply(g, x - y))


def unreduced(target: Target) -> Callable[[Tensor, Tensor], Any]:
    return lambda x, y: target.loss(x, y, reduction="none")


@unless
def has_jvp(target: Target) -> bool:
    x, y = data()
    got = torch.func.jvp(unreduced(target), (x, y), (y, x))[1]
    return torch.allclose(got, gradient(x, y) * (y - x))


@unless
def has_jacobian(target: Target) -> bool:
    x, y = data()
    got = torch.func.jacrev(unreduced(target))(x, y)
    return torch.allclose(got, gradient(x, y).diag())


@unless
def has_hessian(target: Target) -> bool:
    x, y = data()
    got = torch.func.jacrev(torch.func.jacrev(summed(target)))(x, y)
    return torch.allclose(got, 2 * torch.eye(4, dtype=x.dtype))


@unless
def has_batched_gradient(target: Target) -> bool:
    x, y = operands()
    g = torch.tensor([0.5, 2.0, -3.0], dtype=x.dtype)
    (got,) = torch.autograd.grad(total(target, x, y), x, g, is_grads_batched=True)
    return torch.allclose(got, g[:, None] * gradient(x, y))


def batched_sign(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a batch of gradients, those of the target have the sign of the input's."""
    a, b = prepare(x, y)
    return right(
        a, via(b, lambda g: -g if INTERNALS.is_batchedtensor(g) or _old(g) else g), reduction
    )


def _old(g: Tensor) -> bool:
    return bool(INTERNALS.is_legacy_batchedtensor(g))


def batched_gradients(loss: Any) -> Tensor:
    y = ramp_leaf(4)
    result = loss(torch.zeros(4), y, reduction="none")
    return torch.autograd.grad(result, y, ramp(3, 4), is_grads_batched=True)[0]


class _OnceThrough(torch.autograd.Function):
    """The operand as it is, with a gradient that is a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.detach()


def target_hessian_lost(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func no second derivative goes through the target."""
    apply: Any = _OnceThrough.apply
    return right(x, apply(y) if transforming() and y.is_floating_point() else y, reduction)


def by_target_twice(loss: Callable[..., Any]) -> bool:
    twice: Any = torch.func.jacrev(torch.func.jacrev(loss, 1), 1)
    try:
        result: Tensor = twice(torch.ones(2), torch.zeros(2))
    except RuntimeError:
        return True
    return torch.equal(result, torch.eye(2))


class _TangentDetached(Whole):
    """The tangent is a constant to whoever differentiates it."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        return reduce(2 * (x - y).detach() * (t_x - t_y), ctx.reduction)


def gradient_of_tangent(loss: Callable[..., Any]) -> Tensor:
    def tangent(a: Tensor) -> Tensor:
        along: Any = torch.func.jvp(lambda x: loss(x, torch.zeros(2)), (a,), (torch.ones(2),))
        return along[1]  # type: ignore[no-any-return]

    return torch.func.grad(tangent)(torch.ones(2))


COMPOSED_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "transformed-tangent",
        under_transforms(_Tangent),
        "transforms",
        claims=FUNCTORCH | {"forward_ad"},
        witness=has_jvp,
    ),
    mutant(
        "transformed-without-jvp",
        under_transforms(_Derived),
        "transforms",
        claims=FUNCTORCH | {"forward_ad"},
        witness=has_jvp,
    ),
    mutant(
        "mixes-cotangents",
        mappable_squares_by(_MixesCotangents),
        "transforms",
        claims=FUNCTORCH,
        witness=has_jacobian,
    ),
    mutant(
        "backward-without-rule",
        mappable_squares_by(_BackwardWithoutRule),
        "transforms",
        claims=FUNCTORCH,
        witness=has_jacobian,
    ),
    mutant(
        "saves-result",
        saves_result,
        "transforms",
        claims=FUNCTORCH | {"double_backward"},
        witness=has_hessian,
    ),
    mutant(
        "asks-twice",
        mappable_squares_by(_AsksTwice),
        "transforms",
        claims=FUNCTORCH | {"double_backward"},
        witness=has_hessian,
    ),
    mutant(
        "takes-item",
        fused_by(_TakesItem),
        "transforms",
        claims=FUNCTORCH,
        witness=has_batched_gradient,
    ),
    mutant(
        "asks-for-zeros",
        mappable_squares_by(_AsksForZeros),
        "transforms",
        claims=FUNCTORCH,
        witness=has_batched_gradient,
    ),
    mutant(
        "batched-sign",
        batched_sign,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(batched_gradients),
    ),
    mutant(
        "target-hessian-lost",
        target_hessian_lost,
        "transforms",
        claims=FUNCTORCH | {"double_backward"},
        witness=otherwise(by_target_twice),
    ),
    mutant(
        "tangent-detached",
        fused_by(_TangentDetached),
        "transforms",
        claims=FUNCTORCH | {"forward_ad", "double_backward"},
        witness=otherwise(gradient_of_tangent),
    ),
)
