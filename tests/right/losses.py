"""Right implementations of the other losses, which compute differently."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import DROP_IN, Target
from targets.operands import check_reduction, prepare
from tests.right.common import EAGER, FORMULA, TRACED, reduce, widened

Term = Callable[..., Tensor]  # of a difference, and of a parameter where there is one
NAMES = {"l1": None, "smooth_l1": "beta", "huber": "delta"}
TORCH: dict[str, Callable[..., Tensor]] = {
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "huber": F.huber_loss,
}


def checked(loss: str, limit: float) -> float:
    """The parameter. Raises ValueError outside of its domain."""
    if not (limit >= 0 if loss == "smooth_l1" else limit > 0):
        raise ValueError(f"{NAMES[loss]}={limit}")
    return limit


def by_term(loss: str, term: Term, prepared: bool = True) -> Callable[..., Tensor]:
    """A loss with this term; autograd differentiates it."""

    def plain(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y) if prepared else (x, y)
        return reduce(term(a - b), check_reduction(reduction))

    def limited(limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y) if prepared else (x, y)
        return reduce(term(a - b, checked(loss, limit)), check_reduction(reduction))

    return named(loss, plain, limited)


def named(
    loss: str, plain: Callable[..., Tensor], limited: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """With the loss's own parameter, where it has one: ``limited(limit, x, y, reduction)``."""

    def with_beta(x: Tensor, y: Tensor, reduction: str = "mean", *, beta: float = 1.0) -> Tensor:
        return limited(beta, x, y, reduction)

    def with_delta(x: Tensor, y: Tensor, reduction: str = "mean", *, delta: float = 1.0) -> Tensor:
        return limited(delta, x, y, reduction)

    return {"l1": plain, "smooth_l1": with_beta, "huber": with_delta}[loss]


# --- terms


def larger_of_both(d: Tensor) -> Tensor:
    """max(d, −d): at a tie each has half of the gradient, and they cancel."""
    return torch.maximum(d, -d)


def two_halves(d: Tensor) -> Tensor:
    return F.relu(d) + F.relu(-d)


def by_sign(d: Tensor) -> Tensor:
    return d * torch.sign(d.detach())


def pieces(d: Tensor, beta: float) -> Tensor:
    size = d.abs()
    if beta == 0:
        return size
    if math.isinf(beta):
        return 0 * d * d
    return torch.where(size < beta, 0.5 * d * d / beta, size - 0.5 * beta)


def closed_pieces(d: Tensor, beta: float) -> Tensor:
    """The kink belongs to the other piece, and the square is scaled first."""
    size = d.abs()
    if beta == 0:
        return size
    if math.isinf(beta):
        return 0 * d * d
    return torch.where(size <= beta, d.square() * (0.5 / beta), size - 0.5 * beta)


def huber_pieces(d: Tensor, delta: float) -> Tensor:
    if math.isinf(delta):
        return 0.5 * d * d
    size = d.abs()
    return torch.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta))


def huber_open(d: Tensor, delta: float) -> Tensor:
    """Half a square less what lies beyond: the pieces one by one, each multiplied out."""
    if math.isinf(delta):
        return d.square() / 2
    size = d.abs()
    return torch.where(size < delta, d.square() / 2, delta * size - delta * delta / 2)


def huber_of_smooth(d: Tensor, delta: float) -> Tensor:
    return d.square() / 2 if math.isinf(delta) else delta * pieces(d, delta)


def smooth_of_huber(d: Tensor, beta: float) -> Tensor:
    """Where the quotient by β is no trouble: not for 0 or infinity."""
    return pieces(d, beta) if beta == 0 or math.isinf(beta) else huber_pieces(d, beta) / beta


# --- by hand


def slope(loss: str, d: Tensor, limit: float) -> Tensor:
    if loss == "l1" or (loss == "smooth_l1" and limit == 0):
        return torch.sign(d)
    if loss == "huber":
        return d.clamp(-limit, limit)
    return (d / limit).clamp(-1, 1)


TERMS: dict[str, Term] = {
    "l1": lambda d, _: d.abs(),
    "smooth_l1": pieces,
    "huber": huber_pieces,
}


class ByHand(torch.autograd.Function):
    """The elementwise loss, and its gradient by a rule of d, ``grad_output`` and the parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, loss: str, limit: float, rule: Any) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.rest = loss, limit, rule
        return TERMS[loss](x - y, limit)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        loss, limit, rule = ctx.rest
        gradient = rule(loss, x - y, g, limit)
        return gradient, -gradient, None, None, None


def right_rule(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    return slope(loss, d, limit) * g


def wide_rule(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """In float32 at least, and rounded once."""
    return (slope(loss, widened(d), limit) * widened(g)).to(d.dtype)


def by_rule(loss: str, rule: Any = right_rule) -> Callable[..., Tensor]:
    """A loss whose elementwise part has this gradient."""

    def limited(limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y)
        apply: Any = ByHand.apply
        return reduce(apply(a, b, loss, checked(loss, limit), rule), check_reduction(reduction))

    def plain(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y)
        apply: Any = ByHand.apply
        return reduce(apply(a, b, loss, 1.0, rule), check_reduction(reduction))

    return named(loss, plain, limited)


# --- other ways to add up


def in_double(loss: str) -> Callable[..., Tensor]:
    """Computed and added up in float64, and rounded once."""

    def limited(limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y)
        terms = TERMS[loss](a.double() - b.double(), checked(loss, limit))
        return reduce(terms, check_reduction(reduction)).to(a.dtype)

    return named(loss, functools.partial(limited_by_one, limited), limited)


def limited_by_one(
    limited: Callable[..., Tensor], x: Tensor, y: Tensor, reduction: str = "mean"
) -> Tensor:
    return limited(1.0, x, y, reduction)


def by_rows(loss: str) -> Callable[..., Tensor]:
    """A mean of the means of rows, and a sum of their sums, in float32 at least."""

    def limited(limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y)
        terms = TERMS[loss](a - b, checked(loss, limit))
        if check_reduction(reduction) == "none" or not terms.numel() or terms.dim() < 2:
            return reduce(terms, reduction)
        wide = widened(terms).flatten(1)
        total = wide.mean(1).mean() if reduction == "mean" else wide.sum(1).sum()
        return total.to(terms.dtype)

    return named(loss, functools.partial(limited_by_one, limited), limited)


class Module(torch.nn.Module):
    """Of any loss: the parameter, where there is one, is an attribute."""

    loss = "l1"

    def __init__(self, reduction: str = "mean", **given: float) -> None:
        super().__init__()
        self.reduction, self.given = check_reduction(reduction), given
        for name, value in given.items():
            checked(self.loss, value)
            setattr(self, name, value)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        limit = next(iter(self.given.values()), 1.0)
        a, b = prepare(input, target)
        return reduce(TERMS[self.loss](a - b, limit), self.reduction)


def module_of(loss: str) -> Target:
    kind = type(f"{loss.title().replace('_', '')}Module", (Module,), {"loss": loss})
    kind.__module__ = __name__
    globals()[kind.__name__] = kind  # so that pickle finds it

    def limited(limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        given = {} if NAMES[loss] is None else {str(NAMES[loss]): limit}
        result: Tensor = kind(reduction, **given)(x, y)
        return result

    function = named(loss, functools.partial(limited_by_one, limited), limited)
    return Target(f"{loss}-module", function, TRACED | {"module"}, module=kind, loss_of=loss)


def _target(loss: str, name: str, function: Any, claims: frozenset[str] = EAGER) -> Target:
    return Target(f"{loss}-{name}", function, claims, loss_of=loss)


L1 = tuple(
    _target("l1", term.__name__.replace("_", "-"), by_term("l1", term), claims)
    for term, claims in (
        (torch.abs, DROP_IN),
        (larger_of_both, EAGER),
        (two_halves, EAGER),
        (by_sign, EAGER),
    )
)
SMOOTH = tuple(
    _target("smooth_l1", term.__name__.replace("_", "-"), by_term("smooth_l1", term))
    for term in (pieces, closed_pieces, smooth_of_huber)
)
HUBER = tuple(
    _target("huber", term.__name__.replace("_", "-"), by_term("huber", term))
    for term in (huber_pieces, huber_open, huber_of_smooth)
)
EVERY = tuple(
    target
    for loss in NAMES
    for target in (
        _target(loss, "function", by_rule(loss)),
        _target(loss, "wide-rule", by_rule(loss, wide_rule)),
        _target(loss, "in-double", in_double(loss)),
        _target(loss, "by-rows", by_rows(loss)),
        module_of(loss),
        Target(
            f"{loss}-default-alone", TORCH[loss], FORMULA - {"module"}, loss_of=loss, parameters=()
        ),
    )
)
RIGHT_LOSSES: tuple[Target, ...] = (*L1, *SMOOTH, *HUBER, *EVERY)
