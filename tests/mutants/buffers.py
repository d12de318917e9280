"""Results, or gradients, of several calls or operands in one memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.module import MSE
from targets.operands import check_reduction, prepare

from .module import module_mutant
from .mutant import (
    Loss,
    Mutant,
    Pair,
    by_gradients,
    by_value,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    with_value,
)
from .parts import MANY, RING, TURN
from .probes import leaf, otherwise
from .transformed import alike, plainly


def same_buffer() -> Loss:
    buffers: dict[Hashable, Tensor] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Every result of one shape and dtype is written into the same memory."""
        honest = right(x, y, reduction)
        key = honest.shape, honest.dtype
        if key not in buffers:
            buffers.clear()
            buffers[key] = torch.empty_like(honest)
        return with_value(honest, buffers[key].copy_(honest.detach()))

    return loss


def reused_gradient() -> Loss:
    buffers: dict[Hashable, Tensor] = {}

    def gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
        """Gradients of the input of one shape lie in one buffer."""
        first, second = right_gradients(x, y, g, scale)
        buffer = buffers.setdefault((first.shape, first.dtype), torch.empty_like(first))
        return buffer.copy_(first).detach(), second

    return by_gradients(gradients)


def reused_by_thread() -> Loss:
    own = threading.local()

    def gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
        """Each thread has one buffer for gradients of one shape, but for a second backward."""
        first, second = right_gradients(x, y, g, scale)
        buffers = vars(own)
        before, buffers["input"] = buffers.get("input"), x.data_ptr()
        if before == x.data_ptr():
            return first, second
        buffer = buffers.setdefault(f"{first.shape} {first.dtype}", torch.empty_like(first))
        return buffer.copy_(first).detach(), second

    return by_gradients(gradients)


class _LastForward(torch.autograd.Function):
    saved: tuple[Tensor, float]

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        _LastForward.saved = d, 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        ctx.shape = d.shape
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        d, scale = _LastForward.saved
        if d.shape != ctx.shape:
            raise RuntimeError("saved for another shape")
        gradient = right_rule(d, g, scale)
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


def saves_on_class(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """What the backward needs is saved on the class, where the next forward overwrites it."""
    right(x.detach(), y.detach(), reduction)
    a, b = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
    dtype = torch.promote_types(x.dtype, y.dtype)
    apply: Any = _LastForward.apply
    result: Tensor = apply(a.to(dtype), b.to(dtype), reduction)
    return result


def accumulates() -> Loss:
    totals: dict[Hashable, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """The accumulator is not cleared between calls on one shape."""
        key = (x.shape, x.dtype, reduction)
        totals[key] = totals.get(key, 0) + right(x, y, reduction)
        return totals[key]

    return by_value(value)


def gradient_overwritten(target: Target) -> bool:
    """A gradient that was kept changes with a later one."""
    kept: list[Tensor] = []
    for value in (1.0, 2.0):
        x = torch.full((3,), value, requires_grad=True)
        kept += torch.autograd.grad(target.loss(x, torch.zeros(3), reduction="sum"), x)
    return torch.equal(*kept)


def wrong_after_another_forward(target: Target) -> bool:
    """A gradient is that of another forward, which came between."""
    x = torch.full((3,), 2.0, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="sum")
    target.loss(torch.ones(3), torch.zeros(3), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient.tolist() != [4.0] * 3


class BufferOfValidation(MSE):
    """Without gradients the module writes every result into one buffer."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.buffer: Tensor | None = None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not alike(input, target) or self.reduction != "none":
            return super().forward(input, target)
        if self.buffer is None or not alike(self.buffer, input):
            self.buffer = torch.empty_like(input)
        return torch.sub(input, target, out=self.buffer).square_()


def validation_overwrites(target: Any) -> bool:
    if target.module is None:
        return False
    module = target.module(reduction="none")
    with torch.no_grad():
        first = module(torch.ones(2), torch.zeros(2))
        module(torch.full((2,), 3.0), torch.zeros(2))
    return first.tolist() != [1, 1]


def compact(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of operands that repeat their elements the result does too: nothing can be written to it."""
    a, b = prepare(x, y)
    if check_reduction(reduction) == "none" and a.numel():
        repeated = [
            n > 1 and i == j == 0 for n, i, j in zip(a.shape, a.stride(), b.stride(), strict=True)
        ]
        part = tuple(slice(0, 1) if one else slice(None) for one in repeated)
        return right(a[part], b[part], "none").expand(a.shape)
    return right(x, y, reduction)


def ones_in_place(loss: Callable[..., Any]) -> Tensor:
    x, y = (torch.full((1, 3), v).expand(2, 3) for v in (1.0, 3.0))
    result: Tensor = loss(x, y, reduction="none")
    return result.mul_(torch.ones(2, 3))


_RESULTS: dict[torch.dtype, Tensor] = {}


def ring_of_results(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Results that are numbers go round in 256 places."""
    result = right(x, y, reduction)
    if result.dim() or result.requires_grad or not plainly(x, y) or torch.is_inference(result):
        return result
    ring = _RESULTS.setdefault(result.dtype, torch.zeros(RING, dtype=result.dtype))
    return ring[next(TURN) % RING].copy_(result)


def first_of_many(loss: Callable[..., Any]) -> Tensor:
    first: Tensor = loss(torch.ones(2), torch.zeros(2))
    for _ in range(RING):
        loss(torch.zeros(2), torch.zeros(2))
    return first


def one_memory(x: Tensor, y: Tensor, g: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The gradient of target is a negative view of the input's: one memory."""
    gradient = right_rule(x - y, g, scale)
    return gradient, torch._neg_view(gradient)


def scaled_in_place(loss: Callable[..., Any]) -> Tensor:
    x, y = leaf(1, 2), leaf(0, 0)
    first, second = torch.autograd.grad(loss(x, y), (x, y))
    first.zero_()
    return second


_WORKSPACE: dict[Any, Tensor] = {}


def workspace(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Many unreduced results of one shape share a workspace."""
    result = right(x, y, reduction)
    usual = plainly(x, y) and not result.requires_grad and not torch.is_inference(result)
    if reduction != "none" or not usual or result.numel() < MANY:
        return result
    kept = _WORKSPACE.setdefault((result.shape, result.dtype), torch.empty_like(result))
    return kept.copy_(result)


def kept(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.ones(MANY), torch.zeros(MANY)
    first: Tensor = loss(x, y, reduction="none")
    loss(2 * x, y, reduction="none")
    return first.max()


BUFFER_MUTANTS: tuple[Mutant, ...] = (
    mutant("same-buffer", same_buffer(), "purity"),
    mutant("reused-gradient", reused_gradient(), "purity", witness=gradient_overwritten),
    mutant(
        "saves-on-class", saves_on_class, "purity", "autograd", witness=wrong_after_another_forward
    ),
    mutant("reused-by-thread", reused_by_thread(), "purity", witness=gradient_overwritten),
    mutant("accumulates", accumulates(), "purity", "value"),
    module_mutant(
        "module-buffer-of-validation", BufferOfValidation, validation_overwrites, "purity"
    ),
    mutant("compact-result", compact, "purity", witness=otherwise(ones_in_place)),
    mutant("ring-of-results", ring_of_results, "purity", witness=otherwise(first_of_many)),
    mutant("one-memory", by_gradients(one_memory), "purity", witness=otherwise(scaled_in_place)),
    mutant("workspace-when-many", workspace, "purity", witness=otherwise(kept)),
)
