"""Right implementations that take a weight, the deprecated form or tensor subclasses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from targets import Target
from targets.operands import check_reduction, prepare
from tests.right.common import EAGER, FORMULA, reduce, widened
from tests.right.losses import NAMES, TORCH

OWN = TORCH | {"mse": F.mse_loss}
PARAMETER = NAMES | {"mse": None}
WEIGHTED = ("mse", "l1", "huber")  # of which the first two divide by Σw
LEGACY = ("mse", "l1", "smooth_l1")
# A weighted loss, of its name, the parameter, both operands, the weight and the reduction.
Weighted = Callable[[str, float, Tensor, Tensor, Tensor, str], Tensor]
# One in the deprecated form, of its name, the operands, ``size_average``, ``reduce`` and reduction.
Legacy = Callable[[str, Tensor, Tensor, Any, Any, Any], Tensor]
Plain = Callable[[str, Tensor, Tensor, str], Tensor]


def own(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str, **given: Any) -> Tensor:
    """torch's."""
    name = PARAMETER[loss]
    return OWN[loss](x, y, reduction=reduction, **given | ({} if name is None else {name: limit}))


def terms(loss: str, limit: float, x: Tensor, y: Tensor) -> Tensor:
    return own(loss, limit, x, y, "none")


def checked_weight(x: Tensor, w: Tensor) -> Tensor:
    """``w`` itself. Raises ValueError where it is of another size than ``x``."""
    if w.shape != x.shape:
        raise ValueError(f"a weight of {tuple(w.shape)} for an input of {tuple(x.shape)}")
    return w


def over(loss: str, s: Tensor, w: Tensor) -> Any:
    """What a mean is over."""
    return s.numel() if loss == "huber" else w.sum()


def weighted(loss: str, value: Weighted) -> Callable[..., Tensor]:
    """A loss that takes a weight by keyword; without one it is torch's."""

    def loss_of(limit: float, x: Tensor, y: Tensor, w: Tensor | None, reduction: str) -> Tensor:
        if w is None:
            return own(loss, limit, x, y, reduction)
        return value(loss, limit, x, y, w, check_reduction(reduction))

    def plain(
        x: Tensor, y: Tensor, reduction: str = "mean", *, weight: Tensor | None = None
    ) -> Tensor:
        return loss_of(1.0, x, y, weight, reduction)

    def with_delta(
        x: Tensor,
        y: Tensor,
        reduction: str = "mean",
        *,
        delta: float = 1.0,
        weight: Tensor | None = None,
    ) -> Tensor:
        return loss_of(delta, x, y, weight, reduction)

    return with_delta if loss == "huber" else plain


def deprecated(loss: str, value: Legacy) -> Callable[..., Tensor]:
    """A loss in the deprecated form, as torch has it; its default parameter alone."""

    def function(
        x: Tensor,
        y: Tensor,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> Tensor:
        return value(loss, x, y, size_average, reduce, reduction)

    return function


def of_operands(loss: str, value: Plain) -> Callable[..., Tensor]:
    """A loss with its default parameter alone."""

    def function(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return value(loss, x, y, reduction)

    return function


# --- weights


def products(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Σ wℓ, and one quotient."""
    s = terms(loss, limit, x, y) * checked_weight(x, w)
    if reduction == "none":
        return s
    return s.sum() / (over(loss, s, w) if reduction == "mean" else 1)


def shares(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Each term by its share of all weights."""
    s = terms(loss, limit, x, y)
    v = checked_weight(x, w) if w.is_floating_point() else checked_weight(x, w).to(s.dtype)
    if reduction != "mean" or not s.numel():
        return products(loss, limit, x, y, w, reduction)
    return (s * (v / over(loss, s, v))).sum()


def in_double(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """In float64, and rounded once."""
    kinds = (x.dtype, y.dtype) + ((w.dtype,) if w.is_floating_point() else ())
    dtype = kinds[0]
    for kind in kinds[1:]:
        dtype = torch.promote_types(dtype, kind)
    return products(loss, limit, x.double(), y.double(), w.double(), reduction).to(dtype)


def by_rows(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """Adds up one dimension after the other, the weights as well."""
    s = terms(loss, limit, x, y) * checked_weight(x, w)
    if reduction == "none" or s.dim() < 2 or x.shape != s.shape:
        return products(loss, limit, x, y, w, reduction)
    total = widened(s).flatten(1).sum(1).sum()
    if reduction == "mean":
        total = total / (s.numel() if loss == "huber" else widened(w).flatten(1).sum(1).sum())
    return total.to(s.dtype)


class WeightedTerms(torch.autograd.Function):
    """w·ℓ of tensors of one shape and dtype, with ℓ′ handed in: both factors by hand."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, w: Tensor, s: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(w, s, slope)
        return s * w

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        w, s, slope = ctx.saved_tensors
        return w * slope * g, s * g, None, None


def by_hand(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """A Function with the gradient of each factor; the quotient is autograd's."""
    a, b = prepare(x, y)
    wide = torch.promote_types(a.dtype, w.dtype)
    a, b, v = a.to(wide), b.to(wide), checked_weight(x, w).to(wide).expand(a.shape)
    leaf, zero = (a - b).detach().requires_grad_(), torch.zeros_like(a)
    with torch.enable_grad():
        s = terms(loss, limit, leaf, zero)
        (slope,) = torch.autograd.grad(s.sum(), leaf)
    apply: Any = WeightedTerms.apply
    products_: Tensor = apply(a - b, v, s.detach(), slope)
    if reduction == "none":
        return products_
    return products_.sum() / (over(loss, products_, w) if reduction == "mean" else 1)


def handed_on(loss: str, limit: float, x: Tensor, y: Tensor, w: Tensor, reduction: str) -> Tensor:
    """To torch's own."""
    return own(loss, limit, x, y, reduction, weight=w)


WEIGHTS: tuple[Weighted, ...] = (products, shares, in_double, by_rows, by_hand, handed_on)


# --- the deprecated form


def passed_on(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """To torch's own."""
    return OWN[loss](x, y, size_average, reduce, reduction)


def translated(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """To a reduction, once; a text in the wrong place is refused."""
    if isinstance(size_average, str):
        raise TypeError("size_average is no reduction")
    if size_average is not None or reduce is not None:
        warnings.warn("size_average and reduce are deprecated", stacklevel=3)
        mean = size_average is None or size_average
        reduction = "none" if reduce is not None and not reduce else "mean" if mean else "sum"
    return OWN[loss](x, y, reduction=reduction)


LEGACIES: tuple[Legacy, ...] = (passed_on, translated)


# --- tensor subclasses


def by_formula(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Operation by operation, each of which is dispatched."""
    d = x - y
    size = d.abs()
    s = {"mse": d * d, "l1": size}.get(loss)
    if s is None:
        s = torch.where(size < 1, 0.5 * d * d, size - 0.5)
    return reduce(s, reduction)


def as_one_call(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Dispatches by itself, and takes no subclass further."""
    if has_torch_function((x, y)):
        result: Tensor = handle_torch_function(as_one_call, (x, y), loss, x, y, reduction)
        return result
    return OWN[loss](x, y, reduction=reduction)


SUBCLASSES: tuple[tuple[Plain, frozenset[str]], ...] = (
    (by_formula, FORMULA - {"mixed_dtype", "broadcast"}),
    (as_one_call, EAGER),
)


def _name(loss: str, idea: Any) -> str:
    return f"{loss}-{idea.__name__.replace('_', '-')}"


RIGHT_WEIGHTED = tuple(
    Target(f"{_name(loss, value)}-weights", weighted(loss, value), EAGER, loss_of=loss)
    for loss in WEIGHTED
    for value in WEIGHTS
)
RIGHT_LEGACY = tuple(
    Target(f"{_name(loss, value)}-legacy", deprecated(loss, value), EAGER, loss_of=loss)
    for loss in LEGACY
    for value in LEGACIES
)
RIGHT_SUBCLASSED = tuple(
    Target(_name(loss, value), of_operands(loss, value), claims | {"subclass"}, loss_of=loss)
    for loss in PARAMETER
    for value, claims in SUBCLASSES
)
RIGHT_SIGNATURES: tuple[Target, ...] = (*RIGHT_WEIGHTED, *RIGHT_LEGACY, *RIGHT_SUBCLASSED)
