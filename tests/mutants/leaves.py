"""Wrong for what else a graph has: .grad, hooks, layers before it and in-place operations after."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import Mutant, by_rule, elementwise, mutant, reduce, right, right_rule
from .parts import Given, Whole, both, fused_by, scale_of
from .probes import (
    gradient,
    gradient_is,
    leaf,
    operands,
    otherwise,
    total,
    unless,
    weighted_in_place,
)


class _AddsGrad(torch.autograd.Function):
    """Its backward returns the new .grad of a leaf, as if the engine did not add."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, x)
        return (a - b).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        a, b, x = ctx.saved_tensors
        first, second = both(2 * g * (a - b))
        grad = x.grad if x.is_leaf else None
        if first is not None and grad is not None and grad.shape == first.shape:
            first = first + grad
        return first, second, None


def adds_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its backward returns the new .grad of a leaf, as if the engine did not add."""
    apply: Any = _AddsGrad.apply
    return reduce(apply(*prepare(x, y), x), reduction)


def averages_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A hook on the leaf makes its .grad the average of two backward passes."""
    result = right(x, y, reduction)
    if result.requires_grad and x.requires_grad and x.is_leaf and x.grad is not None:

        def average(leaf: Tensor) -> None:
            if leaf.grad is not None:
                leaf.grad /= 2

        after: Any = x.register_post_accumulate_grad_hook  # untyped in torch
        after(average)
    return result


@unless
def accumulates(target: Target) -> bool:
    x, y = operands()
    x.grad = torch.ones_like(x)
    result: Any = total(target, x, y)  # backward is untyped in torch
    result.backward()
    return torch.allclose(x.grad, 1 + gradient(x, y))


class _Baked(torch.autograd.Function):
    """A value with gradients that are known already."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, value: Tensor, first: Tensor | None, second: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(first, second)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        first, second = (None if known is None else g * known for known in ctx.saved_tensors)
        return first, second, None, None, None


def grad_in_forward(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Calls autograd.grad on the caller's tensors in forward, and with it their hooks."""
    honest = right(x, y, reduction)
    if not honest.requires_grad or (x.shape, x.dtype) != (y.shape, y.dtype):
        return honest
    needing = [t for t in (x, y) if t.requires_grad]
    known = iter(torch.autograd.grad(honest, needing, torch.ones_like(honest)))
    first, second = (next(known) if t.requires_grad else None for t in (x, y))
    apply: Any = _Baked.apply
    result: Tensor = apply(x, y, honest.detach(), first, second)
    return result


class _Heard(torch.autograd.Function):
    """Takes for grad_output what was heard last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, heard: deque[Tensor]) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.scale, ctx.heard = scale_of(x, reduction), heard
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, ctx.heard[-1], ctx.scale)), None, None


def hears_first(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has grad_output from a hook of its own on the result, which runs before the caller's."""
    heard: deque[Tensor] = deque(maxlen=1)
    result = fused_by(_Heard, heard)(x, y, reduction)
    if result.requires_grad:
        hear: Any = result.register_hook  # untyped in torch
        hear(heard.append)
    return result


@unless
def honours_hooks(target: Target) -> bool:
    x, y = operands()
    a = x.clone()
    seen: list[Tensor] = []
    hook: Any = a.register_hook
    hook(seen.append)
    result = total(target, a, y)
    hook = result.register_hook
    hook(lambda g: 3 * g)
    wanted = 3 * gradient(x, y)
    return gradient_is(result, x, wanted) and len(seen) == 1 and torch.allclose(seen[0], wanted)


class _Direction(torch.autograd.Function):
    """d² with its derivative as 2·|d| times d / |d|, NaN where d is 0, and as 2·d."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, same: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        size = d.abs()
        sign = d / size.clamp(max=torch.finfo(d.dtype).max)
        return 2 * g * size * sign, 2 * g * d


class _Choice(torch.autograd.Function):
    """d twice: where it is 0 the second one's gradient counts, and elsewhere the first one's."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(d)
        return d.clone(), d.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return torch.where(d == 0, second, first)


def masks_later(a: Tensor, b: Tensor) -> Tensor:
    """The gradient is NaN where the operands are equal, until another node masks it."""
    choice: Any = _Choice.apply
    direction: Any = _Direction.apply
    result: Tensor = direction(*choice(a - b))
    return result


class _Weighted(torch.autograd.Function):
    """A weight that needs no gradient is given one, NaN where the operands are equal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return *both(2 * g * d), g * d / d.abs()


def needless_nan(a: Tensor, b: Tensor) -> Tensor:
    """A weight that needs no gradient is given one, NaN where the operands are equal."""
    apply: Any = _Weighted.apply
    result: Tensor = apply(a, b, torch.ones_like(a))
    return result


def debugging(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """In anomaly mode the gradient has a formula of its own, without the factor 2."""
    return right_rule(d, g, scale / 2 if torch.is_anomaly_enabled() else scale)


@unless
def stands_anomaly_mode(target: Target) -> bool:
    x, y = operands()
    with torch.autograd.detect_anomaly():
        return gradient_is(total(target, x, y), x, gradient(x, y))


def of_no_layer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Wrong for what a linear layer gives: its backward is fused with that of the layer."""
    result = right(x, y, reduction)
    return result * 1.5 if "Addmm" in type(x.grad_fn).__name__ else result


@unless
def takes_layers(target: Target) -> bool:
    x = torch.nn.Linear(4, 4)(torch.ones(3, 4))
    y = torch.zeros(3, 4)
    return torch.allclose(target.loss(x, y, reduction="sum"), x.square().sum())


class _NeedsGradOutput(Whole):
    """Asks for no zeros in place of a missing grad_output, and multiplies with it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        Whole.setup_context(ctx, inputs, output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g * 1, ctx.scale)), None


class _PassesNothingOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        return None


def dead_end(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    apply: Any = _PassesNothingOn.apply
    try:
        return torch.autograd.grad(apply(loss(x, torch.zeros(2))) + x.sum(), x)[0]
    except TypeError as error:
        return error


def part_of_buffer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is one of several views that a Function gives, which must not be changed."""
    result = right(x, y, reduction)
    first, _ = torch.stack([result, result.detach()]).unbind()
    return first


LEAF_MUTANTS: tuple[Mutant, ...] = (
    mutant("of-linear-layers", of_no_layer, "autograd", witness=takes_layers),
    mutant("adds-grad", adds_grad, "autograd", witness=accumulates),
    mutant("averages-grad", averages_grad, "autograd", witness=accumulates),
    mutant("grad-in-forward", grad_in_forward, "autograd", witness=honours_hooks),
    mutant("hears-first", hears_first, "autograd", witness=honours_hooks),
    mutant("masks-later", elementwise(masks_later), "autograd", witness=stands_anomaly_mode),
    mutant("needless-nan", elementwise(needless_nan), "autograd", witness=stands_anomaly_mode),
    mutant("debugging", by_rule(debugging), "autograd", witness=stands_anomaly_mode),
    mutant(
        "needs-grad-output", fused_by(_NeedsGradOutput), "autograd", witness=otherwise(dead_end)
    ),
    mutant("part-of-buffer", part_of_buffer, "autograd", witness=otherwise(weighted_in_place)),
)
