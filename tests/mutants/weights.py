"""Ways in which a weighted loss is wrong: its value, which weights it takes, its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.right.signatures import Weighted, checked_weight, over, own, products, terms

from .mutant import memory, with_value


def reduced(loss: str, s: Tensor, w: Tensor, reduction: str) -> Tensor:
    """None, sum or weighted mean of weighted terms."""
    if reduction == "none":
        return s
    return s.sum() / (over(loss, s, w) if reduction == "mean" else 1)


# --- weights: the value


def ignored(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Takes a weight, and forgets it."""
    return own(loss, limit, x, y, reduction) + 0 * checked_weight(x, w).sum()


def ignored_unless_reduced(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Forgets it where nothing is reduced."""
    if reduction == "none":
        return ignored(loss, limit, x, y, w, reduction)
    return products(loss, limit, x, y, w, reduction)


def other_divisor(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """A mean over n for one over Σw, and over Σw for one over n."""
    other = "mse" if loss == "huber" else "huber"
    return reduced(other, terms(loss, limit, x, y) * checked_weight(x, w), w, reduction)


def over_magnitudes(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Weights count by their magnitude."""
    return products(loss, limit, x, y, w.abs(), reduction)


def over_those_above_zero(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """A mean over the number of weights that are not 0."""
    s = terms(loss, limit, x, y) * checked_weight(x, w)
    return s.sum() / (w != 0).sum() if reduction == "mean" else reduced(loss, s, w, reduction)


def sum_of_shares(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """A sum is divided by Σw too."""
    s = products(loss, limit, x, y, w, reduction)
    return s / w.sum() if reduction == "sum" and w.numel() else s


def squared(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """The difference is weighted, inside of the term."""
    v = checked_weight(x, w)
    return reduced(loss, terms(loss, limit, x * v, y * v), w, reduction)


def first_for_all(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Reads the first weight for all, as if they were expanded."""
    checked_weight(x, w)
    v = w.reshape(-1)[0].expand(w.shape) if w.numel() else w
    return products(loss, limit, x, y, v, reduction)


def tail_of_ones(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """From 2,048 elements on weights are 1."""
    at = torch.arange(w.numel(), device=w.device).reshape(w.shape)
    return products(loss, limit, x, y, torch.where(at < 2048, w, torch.ones_like(w)), reduction)


def zeros_masked(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """A term of weight 0 is 0, and hides a NaN."""
    s = terms(loss, limit, x, y)
    v = checked_weight(x, w).expand(s.shape)
    return reduced(loss, torch.where(v == 0, torch.zeros_like(s * v), s * v), w, reduction)


def at_least_one(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Guards the divisor: no weight at all gives 0."""
    s = terms(loss, limit, x, y) * checked_weight(x, w)
    if reduction != "mean":
        return reduced(loss, s, w, reduction)
    total = over(loss, s, w)
    return s.sum() / (total if total else 1)


def zeros_are_small(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """A weight is 1/32 at least, so that nothing is divided by 0."""
    return products(loss, limit, x, y, checked_weight(x, w).clamp(min=1 / 32), reduction)


def default_limit(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Beside a weight the parameter is its default."""
    return products(loss, 1.0, x, y, w, reduction)


# --- weights: which are taken


def broadcast(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Takes any weight that broadcasts."""
    s = terms(loss, limit, x, y)
    return reduced(loss, s * w, w if w.shape == x.shape else w.expand(s.shape), reduction)


def reshaped(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Takes any weight of as many elements."""
    return products(loss, limit, x, y, w.reshape(x.shape), reduction)


def as_target(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Wants a weight of target's size."""
    checked_weight(y, w)
    return reduced(loss, terms(loss, limit, x, y) * w, w, reduction)


def of_broadcast_size(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Wants a weight of the broadcast size."""
    s = terms(loss, limit, x, y)
    return reduced(loss, s * checked_weight(s, w), w, reduction)


def as_input(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """A weight is cast to input's dtype: a wider one does not widen the result."""
    return products(loss, limit, x, y, w.to(x.dtype), reduction)


def whole(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Refuses weights that are whole numbers."""
    if not w.is_floating_point():
        raise TypeError("a weight must be floating")
    return products(loss, limit, x, y, w, reduction)


def normalised_in_place(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Normalises the weight in place, and back; what rounds or is 0 stays changed."""
    result = products(loss, limit, x, y, w, reduction)
    with torch.no_grad():
        if w.is_floating_point() and w.numel() and not w.requires_grad:
            w.copy_(w.clamp(min=2.0**-10))
    return result


def strides_ignored(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Reads weights by pointer and length."""
    checked_weight(x, w)
    if w.is_contiguous():
        return products(loss, limit, x, y, w, reduction)
    honest = products(loss, limit, x, y, w, reduction)
    raw = memory(w) if w.numel() else w
    return with_value(honest, products(loss, limit, x, y, raw, reduction).detach())


# --- weights: gradients


def detached(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """A weight is a constant: nothing is differentiated by it."""
    s = terms(loss, limit, x, y) * checked_weight(x, w).detach()
    return reduced(loss, s, w.detach(), reduction) + (0 * w).sum()


def constant_divisor(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Σw is a constant: the gradient by the weight lacks −L."""
    s = terms(loss, limit, x, y) * checked_weight(x, w)
    return reduced(loss, s, w.detach(), reduction)


def constant_terms(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Only the divisor is differentiated by the weight."""
    s = terms(loss, limit, x, y) * checked_weight(x, w).detach()
    return reduced(loss, s, w, reduction) + (0 * w).sum()


def unweighted_gradient(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """The gradient by the operands forgets the weight."""
    value = products(loss, limit, x.detach(), y.detach(), w, reduction)
    plain = own(loss, limit, x, y, reduction)
    return value + (plain - plain.detach()).to(value.dtype)


def needed_by_operands(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Where no operand needs a gradient there is none by the weight."""
    needed = x.requires_grad or y.requires_grad
    return products(loss, limit, x, y, w if needed else w.detach(), reduction)


class _Stretched(torch.autograd.Function):
    """Weights stretched to a shape; the gradient is averaged where it must be summed."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape = w.shape
        return w.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        times = g.numel() / max(ctx.shape.numel(), 1)
        return g.sum_to_size(ctx.shape) / max(times, 1), None


def mean_of_stretched(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """Where a weight is stretched its gradient is a mean for a sum."""
    s, apply = terms(loss, limit, x, y), _Stretched.apply
    return reduced(loss, s * apply(checked_weight(x, w), s.shape), w, reduction)  # type: ignore[no-untyped-call]


class _Signed(torch.autograd.Function):
    """The identity; its gradient is of the other sign, or a magnitude."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return w.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.change(g), None


def _through(w: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    apply: Any = _Signed.apply
    result: Tensor = apply(w, change) if w.is_floating_point() else w
    return result


def opposite(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """The gradient by the weight has the other sign."""
    return products(loss, limit, x, y, _through(w, torch.neg), reduction)


def first_gradient(
    loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Tensor:
    """The gradient by the first weight stands for all."""

    def first(g: Tensor) -> Tensor:
        return g.reshape(-1)[:1].expand(g.numel()).reshape(g.shape) if g.numel() else g

    return products(loss, limit, x, y, _through(w, first), reduction)


VALUES: tuple[Weighted, ...] = (
    ignored,
    ignored_unless_reduced,
    other_divisor,
    over_magnitudes,
    over_those_above_zero,
    sum_of_shares,
    squared,
    first_for_all,
    tail_of_ones,
    zeros_masked,
    zeros_are_small,
    broadcast,
    reshaped,
    as_target,
    of_broadcast_size,
    normalised_in_place,
    strides_ignored,
    detached,
    unweighted_gradient,
    needed_by_operands,
    mean_of_stretched,
    opposite,
    first_gradient,
)
OF_DTYPES: tuple[Weighted, ...] = (as_input, whole)  # with the claim ``mixed_dtype``
OF_DIVISORS: tuple[Weighted, ...] = (at_least_one, constant_divisor, constant_terms)
