"""What is kept for backward is lost, stale or of another call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import Mutant, mutant, reduce, right_gradients, right_rule
from .parts import RING, TURN, Given, Whole, both, fused_by, scale_of, squares_by
from .probes import (
    changed,
    gradient,
    gradient_is,
    gradient_of,
    leaf,
    operands,
    otherwise,
    raises_or_is_right,
    ramp_leaf,
    total,
    unless,
    unlike_builtin,
    weighted_in_place,
)
from .transformed import mappable_squares_by


class _KeepsOperands(torch.autograd.Function):
    """Keeps its operands as attributes, past autograd's check of versions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.x, ctx.y = x, y
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * (ctx.x - ctx.y))


class _SavesData(torch.autograd.Function):
    """Saves .data of its operands, which counts versions apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x.data, y.data)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g * (x - y))


_LAST = threading.local()


class _OnClass(torch.autograd.Function):
    """What backward needs is kept on the class: the last call's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if any(ctx.needs_input_grad):
            _LAST.d = d
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * _LAST.d)


class _OnStack(torch.autograd.Function):
    """What backward needs is the top of a stack: right in the reverse order of forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if any(ctx.needs_input_grad):
            if not hasattr(_LAST, "stack"):
                _LAST.stack = deque(maxlen=4)
            _LAST.stack.append(d)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * _LAST.stack.pop())


class _InWorkspace(torch.autograd.Function):
    """Every call writes d into the same memory, and saves a view of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if torch.is_inference_mode_enabled():
            return d.square()
        space = getattr(_LAST, "space", None)
        if space is None or space.numel() < d.numel() or space.dtype != d.dtype:
            space = _LAST.space = torch.empty(d.numel(), dtype=d.dtype, device=d.device)
        kept = space[: d.numel()].view(d.shape).copy_(d)
        ctx.save_for_backward(kept.data)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


@unless
def tells_graphs_apart(target: Target) -> bool:
    pairs = [operands(k) for k in range(2)]
    results = [total(target, *pair) for pair in pairs]
    return all(
        gradient_is(result, pair[0], gradient(*pair))
        for result, pair in zip(results, pairs, strict=True)
    )


class _ScaleOnClass(torch.autograd.Function):
    """Keeps 2/n on the class: it is that of the last call."""

    scale = 2.0

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        _ScaleOnClass.scale = 2 / max(x.numel(), 1) if reduction == "mean" else 2.0
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        return *right_gradients(x, y, g, _ScaleOnClass.scale), None


def class_scale(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps 2/n on the class: it is that of the last call."""
    apply: Any = _ScaleOnClass.apply
    result: Tensor = apply(*prepare(x, y), check_reduction(reduction))
    return result


def mean_before_sum(loss: Any) -> Tensor:
    x, other = ramp_leaf(6), ramp_leaf(4)
    mean = loss(x, torch.zeros(6), reduction="mean")
    loss(other, torch.zeros(4), reduction="sum")
    return gradient_of(x, mean)


class _ConstantOnContext(torch.autograd.Function):
    """Saves a target that needs no gradient as an attribute: it is only a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.both = ctx.needs_input_grad[1]
        ctx.save_for_backward(*((x, y) if ctx.both else (x,)))
        ctx.y = None if ctx.both else y
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors if ctx.both else (*ctx.saved_tensors, ctx.y)
        gradient = 2 * (x - y) * g
        return gradient, -gradient


def target_changed(loss: Callable[..., Any]) -> bool:
    x, y = leaf(1, 2), torch.zeros(2)
    result = loss(x, y)
    y.add_(1)
    return raises_or_is_right(result, x)


_hooks: Any = torch.autograd.graph.saved_tensors_hooks  # untyped in torch


class _KeepsScaleOnSaved(Whole):
    """Notes the scale on the tensor that it saves, which a hook may hand back as a copy."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        d = inputs[0] - inputs[1]
        d.scale = scale_of(d, inputs[2])
        ctx.save_for_backward(d)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, g, getattr(d, "scale", 2.0))), None


def saved_elsewhere(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    with _hooks(lambda t: t.detach().clone(), lambda t: t):
        result = loss(x, torch.zeros(2))
    return torch.autograd.grad(result, x)[0]


_SCALE: dict[str, float] = {}


class _LastExpandedScale(torch.autograd.Function):
    """Where an operand is expanded, n is that of the last call where one was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.reduction, ctx.scale = reduction, scale_of(x, reduction)
        ctx.expanded = x.numel() > 1 and 0 in (*x.stride(), *y.stride())
        if ctx.expanded:
            _SCALE[reduction] = ctx.scale
        ctx.save_for_backward(x, y)
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        scale = _SCALE[ctx.reduction] if ctx.expanded else ctx.scale
        return *both(right_rule(x - y, g, scale)), None


def two_rows_alive(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(3, 2))
    loss(x, torch.zeros(9, 2))
    return torch.autograd.grad(result, x)[0]


_SCALES = [0.0] * RING


class _RingOfScales(Whole):
    """2/n goes round in 256 places."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        Whole.setup_context(ctx, inputs, output)
        ctx.place = next(TURN) % RING
        _SCALES[ctx.place] = ctx.scale

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g, _SCALES[ctx.place])), None


def many_alive(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(2))
    alive = [loss(leaf(1, 2, 3), torch.zeros(3)) for _ in range(RING)]
    assert alive
    return torch.autograd.grad(result, x)[0]


class _SavesResult(torch.autograd.Function):
    """Saves its squares and the sign of each difference, so that no change of them is allowed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        result = reduce(d.square(), reduction)
        ctx.save_for_backward(d, result)
        ctx.scale = scale_of(x, reduction)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        d, _ = ctx.saved_tensors
        return *both(right_rule(d, g, ctx.scale)), None


class _Skips(torch.autograd.Function):
    """Leaves the gradient out where the result was made 0 in place: it has kept that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.scale = scale_of(x, reduction)
        result = reduce(d.square(), reduction)
        ctx.kept = result.detach()  # the same memory, and no check of its version
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        (d,) = ctx.saved_tensors
        gradient = right_rule(d, g, ctx.scale)
        zero = torch.zeros_like(gradient)
        return *both(torch.where((ctx.kept == 0) & (ctx.kept._version > 0), zero, gradient)), None


def zeroed_then_added(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1.0, 2.0, 3.0)
    losses = loss(x, torch.zeros(3), reduction="none")
    losses -= losses.detach().clone()
    losses.sum().backward()
    assert x.grad is not None
    return x.grad


SAVED_MUTANTS: tuple[Mutant, ...] = (
    mutant("keeps-operands", squares_by(_KeepsOperands), "autograd", witness=changed),
    mutant("saves-data", squares_by(_SavesData), "autograd", witness=changed),
    mutant("on-class", squares_by(_OnClass), "autograd", witness=tells_graphs_apart),
    mutant("on-stack", squares_by(_OnStack), "autograd", witness=tells_graphs_apart),
    mutant("in-workspace", squares_by(_InWorkspace), "autograd", witness=tells_graphs_apart),
    mutant("scale-on-class", class_scale, "autograd", witness=unlike_builtin(mean_before_sum)),
    mutant(
        "constant-on-context",
        mappable_squares_by(_ConstantOnContext),
        "autograd",
        witness=otherwise(target_changed),
    ),
    mutant(
        "scale-on-saved",
        fused_by(_KeepsScaleOnSaved),
        "autograd",
        witness=otherwise(saved_elsewhere),
    ),
    mutant(
        "last-expanded-scale",
        fused_by(_LastExpandedScale),
        "autograd",
        witness=otherwise(two_rows_alive),
    ),
    mutant("ring-of-scales", fused_by(_RingOfScales), "autograd", witness=otherwise(many_alive)),
    mutant(
        "saves-squares", fused_by(_SavesResult), "autograd", witness=otherwise(weighted_in_place)
    ),
    mutant("skips", fused_by(_Skips), "autograd", witness=otherwise(zeroed_then_added)),
)
