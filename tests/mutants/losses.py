"""Broken l1, smooth_l1 and huber losses: defects that any loss can have, made for each from one
source, and those of parameters; those of pieces and kinks are in ``pieces.py``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare
from tests.right.losses import NAMES, TORCH, ByHand, named, slope

from .loss_probes import differs
from .mutant import Mutant, memory, reduce
from .pieces import L1_TERMS, PIECE_RULES, PIECES, clipped_at_one
from .signatures import SIGNATURE_MUTANTS

# Values, gradients and shapes in eager mode, so that none is rejected for what it does not claim.
EAGER = frozenset({"broadcast", "empty", "target_gradient"})
Loss = Callable[..., Tensor]  # of the parameter, both operands and the reduction
Value = Callable[[str, float, Tensor, Tensor, str], Tensor]
Rule = Callable[[str, Tensor, Tensor, float], Tensor]


def right(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The builtin."""
    name = NAMES[loss]
    given = {} if name is None else {name: limit}
    return TORCH[loss](x, y, reduction=reduction, **given)


def terms(loss: str, limit: float, x: Tensor, y: Tensor) -> Tensor:
    return right(loss, limit, x, y, "none")


# --- of any loss: values


def sum_for_mean(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Forgets to divide."""
    return right(loss, limit, x, y, "sum" if reduction == "mean" else reduction)


def batch_for_mean(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Divides a mean by the batch."""
    s = terms(loss, limit, x, y)
    return (
        s.sum() / s.shape[0]
        if reduction == "mean" and s.dim() > 1 and s.numel()
        else reduce(s, reduction)
    )


def tail_lost(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Sums whole vectors of eight."""
    s = terms(loss, limit, x, y)
    if check_reduction(reduction) == "none" or s.numel() < 8:
        return reduce(s, reduction)
    total = s.reshape(-1)[: s.numel() // 8 * 8].sum()
    return total / s.numel() if reduction == "mean" else total


def strides_ignored(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Reads input by pointer and length."""
    honest = right(loss, limit, x, y, reduction)
    raw = x if x.is_contiguous() else memory(x)
    seen = right(loss, limit, raw.detach(), y.detach(), reduction)
    return honest + (seen - honest.detach()) if not x.is_contiguous() else honest


def nan_masked(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """NaN counts as nothing."""
    return reduce(torch.nan_to_num(terms(loss, limit, x, y), nan=0.0, posinf=math.inf), reduction)


def sums_in_half(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A mean is the sum, rounded to the format, over n."""
    s = terms(loss, limit, x, y)
    if check_reduction(reduction) != "mean" or not s.numel():
        return reduce(s, reduction)
    return s.sum() / s.numel()


def needs_change_it(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Where target needs a gradient a mean is a sum."""
    wrong = reduction == "mean" and y.requires_grad and not x.requires_grad
    return right(loss, limit, x, y, "sum" if wrong else reduction)


def by_target(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Divides by the size of target."""
    if reduction == "mean" and y.numel():
        return right(loss, limit, x, y, "sum") / y.numel()
    return right(loss, limit, x, y, reduction)


def dtype_kept(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A sum of halves is returned in float32."""
    result = right(loss, limit, x, y, reduction)
    return (
        result.float()
        if result.dtype in (torch.float16, torch.bfloat16) and reduction == "sum"
        else result
    )


def large_rounded(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """From 1,024 elements on operands are read in half."""
    if x.numel() < 1024 or x.dtype not in (torch.float32, torch.float64):
        return right(loss, limit, x, y, reduction)
    return right(loss, limit, x.bfloat16().to(x.dtype), y, reduction)


VALUES: tuple[tuple[Value, tuple[str, ...]], ...] = (
    (sum_for_mean, ("value", "gradient")),
    (batch_for_mean, ("value",)),
    (tail_lost, ("value", "gradient")),
    (strides_ignored, ("layout",)),
    (nan_masked, ("value",)),
    (sums_in_half, ("value",)),
    (needs_change_it, ("value",)),
    (by_target, ("broadcasting",)),
    (dtype_kept, ("dtypes",)),
    (large_rounded, ("value",)),
)


# --- of any loss: gradients, of the elementwise part


def grad_output_ones(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Takes grad_output for 1, as a backward that forgets its argument."""
    return slope(loss, d, limit)


def grad_output_first(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Takes the first element of grad_output for all."""
    return slope(loss, d, limit) * (g.reshape(-1)[0] if g.numel() else g)


def opposite(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Of the opposite sign."""
    return -slope(loss, d, limit) * g


def of_magnitude(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """The slope of a magnitude: never negative."""
    return slope(loss, d, limit).abs() * g


def doubled(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Twice what it should be, as of a square."""
    return 2 * slope(loss, d, limit) * g


def detached_where_small(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Below 1/4 there is none."""
    return torch.where(d.abs() < 0.25, torch.zeros_like(d), slope(loss, d, limit) * g)


RULES: tuple[Rule, ...] = (
    grad_output_ones,
    grad_output_first,
    opposite,
    of_magnitude,
    doubled,
    detached_where_small,
)

# --- parameters


def ignored(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The default, whatever was passed."""
    return right(loss, 1.0, x, y, reduction)


def swapped(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The other of the two losses: off by the factor that the parameter is."""
    other = "huber" if loss == "smooth_l1" else "smooth_l1"
    return right(other, max(limit, 1e-3), x, y, reduction)


def unchecked(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Whatever the parameter is, its magnitude counts."""
    return right(loss, abs(limit) or (0.0 if loss == "smooth_l1" else 1.0), x, y, reduction)


def zero_clamped(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A small parameter is 1/10."""
    return right(loss, max(limit, 0.1) if limit > 0 else limit, x, y, reduction)


def infinity_refused(loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Raises for an infinite parameter."""
    if math.isinf(limit):
        raise ValueError("the parameter must be finite")
    return right(loss, limit, x, y, reduction)


class _First:
    """Keeps the parameter of its first call for each shape, as a graph that burnt it in."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], float] = {}

    def __call__(self, loss: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return right(loss, self.known.setdefault(tuple(x.shape), limit), x, y, reduction)


LIMITS: tuple[Value, ...] = (ignored, swapped, unchecked, zero_clamped, infinity_refused)

# --- the bank


def _of_loss(loss: str, idea: Any, function: Loss, *families: str, prefix: str = "") -> Mutant:
    """A mutant named for its idea, whose docstring says it."""
    own, what = NAMES[loss], (idea.__doc__ or "").partition("\n")[0]
    name = f"{loss}-{prefix}{idea.__name__.lower().strip('_').replace('_', '-')}"
    parameters = () if own is None else (own,)
    target = Target(name, function, EAGER, summary=what, loss_of=loss, parameters=parameters)
    return Mutant(target, frozenset(families), differs)


def _valued(loss: str, value: Any) -> Loss:
    """A loss with this value, which is differentiated by autograd."""
    limited: Any = functools.partial(_with_limit, loss, value)
    return named(loss, functools.partial(limited, 1.0), limited)


def _with_limit(
    loss: str, value: Value, limit: float, x: Tensor, y: Tensor, reduction: str = "mean"
) -> Tensor:
    return value(loss, limit, x, y, reduction)


def _of_term(loss: str, term: Callable[..., Tensor]) -> Loss:
    """A loss with this term; of smooth_l1 over β, as huber's is."""

    def value(_: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y)
        if loss == "l1":
            return reduce(term(a - b), check_reduction(reduction))
        if not (limit > 0 and math.isfinite(limit)):  # and errors, as the builtin has them
            return right(loss, limit, x, y, reduction)
        s = term(a - b, limit)
        return reduce(s / limit if loss == "smooth_l1" else s, check_reduction(reduction))

    return _valued(loss, value)


def _of_rule(loss: str, rule: Rule) -> Loss:
    """The same by a rule of the gradient; of parameters at a limit, the builtin's."""

    def value(_: str, limit: float, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        if not (limit > 0 and math.isfinite(limit)):
            return right(loss, limit, x, y, reduction)
        a, b = prepare(x, y)
        apply: Any = ByHand.apply
        return reduce(apply(a, b, loss, limit, rule), check_reduction(reduction))

    return _valued(loss, value)


PIECEWISE = ("smooth_l1", "huber")


def _every() -> Iterator[Mutant]:
    for loss in NAMES:
        for value, families in VALUES:
            yield _of_loss(loss, value, _valued(loss, value), *families)
        for rule in RULES:
            yield _of_loss(loss, rule, _of_rule(loss, rule), "gradient")
    for term in L1_TERMS:
        yield _of_loss("l1", term, _of_term("l1", term), "value", "gradient")
    for loss, piece in itertools.product(PIECEWISE, PIECES):
        yield _of_loss(loss, piece, _of_term(loss, piece), "value", "gradient")
    for loss, rule in itertools.product(PIECEWISE, PIECE_RULES):
        if (loss, rule) != ("smooth_l1", clipped_at_one):  # there it is right
            yield _of_loss(loss, rule, _of_rule(loss, rule), "gradient")
    for loss, limit in itertools.product(PIECEWISE, LIMITS):
        families = ("value", "gradient", "errors")
        yield _of_loss(loss, limit, _valued(loss, limit), *families, prefix="limit-")
    for loss in PIECEWISE:
        yield _of_loss(loss, _First, _valued(loss, _First()), "value", prefix="limit-of-")


LOSS_MUTANTS: tuple[Mutant, ...] = (*_every(), *SIGNATURE_MUTANTS)
