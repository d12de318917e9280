"""Broken l1, smooth_l1 and huber losses: defects that any loss can have, made for each from one
source, and those of pieces, kinks and parameters.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare
from tests.right.losses import NAMES, TERMS, TORCH, ByHand, named, slope

from .mutant import Mutant, memory, reduce

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

# --- pieces and kinks: terms, differentiated by autograd unless a rule is given


def tie_up(d: Tensor) -> Tensor:
    """At a tie the slope is 1."""
    return torch.where(d >= 0, d, -d)


def tie_down(d: Tensor) -> Tensor:
    """At a tie the slope is −1."""
    return torch.where(d > 0, d, -d)


def root_of_square(d: Tensor) -> Tensor:
    """√(d²): at a tie the gradient is NaN, and squares overflow."""
    return d.square().sqrt()


def root_of_more(d: Tensor) -> Tensor:
    """√(d² + 10⁻⁶) is never 0."""
    return (d.square() + 1e-6).sqrt()


def signed(d: Tensor) -> Tensor:
    """The difference itself."""
    return d


def squared(d: Tensor) -> Tensor:
    """mse in its place."""
    return d.square()


def one_sided(d: Tensor) -> Tensor:
    """max(d, 0)."""
    return F.relu(d)


def smooth_near_zero(d: Tensor) -> Tensor:
    """Rounded off below 1/64."""
    size = d.abs()
    return torch.where(size < 2**-6, size.square() * 2**5 + 2**-7, size)


L1_TERMS = (
    tie_up,
    tie_down,
    root_of_square,
    root_of_more,
    signed,
    squared,
    one_sided,
    smooth_near_zero,
)


def signed_threshold(d: Tensor, limit: float) -> Tensor:
    """The threshold is on the signed difference: what is far below counts as near."""
    return torch.where(d < limit, d * d / 2, limit * (d.abs() - limit / 2))


def no_offset(d: Tensor, limit: float) -> Tensor:
    """The linear piece does not meet the other one."""
    return torch.where(d.abs() <= limit, d * d / 2, limit * d.abs())


def no_half(d: Tensor, limit: float) -> Tensor:
    """d² for d²/2 inside."""
    return torch.where(d.abs() <= limit, d * d, limit * (d.abs() - limit / 2))


def threshold_one(d: Tensor, limit: float) -> Tensor:
    """The threshold is 1, whatever the parameter."""
    return torch.where(d.abs() <= 1, d * d / 2, limit * (d.abs() - limit / 2))


def threshold_squared(d: Tensor, limit: float) -> Tensor:
    """d² is compared with the parameter."""
    return torch.where(d * d <= limit, d * d / 2, limit * (d.abs() - limit / 2))


def quadratic_everywhere(d: Tensor, limit: float) -> Tensor:
    """Never leaves the quadratic piece."""
    return d * d / 2


def linear_everywhere(d: Tensor, limit: float) -> Tensor:
    """Knows the linear piece alone."""
    return limit * (d.abs() - limit / 2)


def truncated(d: Tensor, limit: float) -> Tensor:
    """The parameter is an integer."""
    whole = float(max(int(limit), 1)) if math.isfinite(limit) else limit
    return TERMS["huber"](d, whole)


def log_cosh(d: Tensor, limit: float) -> Tensor:
    """log cosh d, which is near it."""
    return d.abs() + F.softplus(-2 * d.abs()) - math.log(2.0)


def pseudo(d: Tensor, limit: float) -> Tensor:
    """δ²·(√(1 + (d/δ)²) − 1), the pseudo-Huber loss."""
    return limit**2 * ((1 + (d / limit).square()).sqrt() - 1)


def squares_clipped(d: Tensor, limit: float) -> Tensor:
    """The square of the clipped difference: constant beyond."""
    return d.clamp(-limit, limit).square() / 2


def strict_zero(d: Tensor, limit: float) -> Tensor:
    """On the kink the value is 0."""
    linear = limit * (d.abs() - limit / 2)
    return torch.where(d.abs() < limit, d * d / 2, torch.where(d.abs() > limit, linear, 0 * d))


def far_lost(d: Tensor, limit: float) -> Tensor:
    """From 16 times the threshold on it is constant, as an outlier is left out."""
    return TERMS["huber"](d.clamp(-16 * limit, 16 * limit), limit)


PIECES = (
    signed_threshold,
    no_offset,
    no_half,
    threshold_one,
    threshold_squared,
    quadratic_everywhere,
    linear_everywhere,
    truncated,
    log_cosh,
    pseudo,
    squares_clipped,
    strict_zero,
    far_lost,
)


def kink_slope_lost(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """On the kink there is no gradient: neither comparison holds."""
    return torch.where(d.abs() == limit, torch.zeros_like(d), slope(loss, d, limit) * g)


def clipped_at_one(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Clipped at 1, whatever the parameter."""
    return d.clamp(-1, 1) * g


def other_branch(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """The gradient of the wrong piece for what lies beyond twice the threshold."""
    inside = d if loss == "huber" else d / limit
    return torch.where(d.abs() > 2 * limit, inside, slope(loss, d, limit)) * g


def signed_slope(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """The threshold is on the signed difference in backward alone."""
    inside = d if loss == "huber" else d / limit
    return torch.where(d < limit, inside, slope(loss, d, limit)) * g


def default_slope(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Backward is not handed the parameter."""
    return slope(loss, d, 1.0) * g


PIECE_RULES = (kink_slope_lost, clipped_at_one, other_branch, signed_slope, default_slope)

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


def _mutant(loss: str, name: str, function: Loss, families: tuple[str, ...], doc: str) -> Mutant:
    name = f"{loss}-{name.replace('_', '-')}"
    own = NAMES[loss]
    parameters = () if own is None else (own,)
    target = Target(
        name, function, EAGER, summary=doc.partition("\n")[0], loss_of=loss, parameters=parameters
    )
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


def _every() -> Iterator[Mutant]:
    for loss in NAMES:
        for value, families in VALUES:
            yield _mutant(loss, value.__name__, _valued(loss, value), families, value.__doc__ or "")
        for rule in RULES:
            yield _mutant(
                loss, rule.__name__, _of_rule(loss, rule), ("gradient",), rule.__doc__ or ""
            )
    for term in L1_TERMS:
        yield _mutant(
            "l1", term.__name__, _of_term("l1", term), ("value", "gradient"), term.__doc__ or ""
        )
    for loss, piece in itertools.product(("smooth_l1", "huber"), PIECES):
        families = ("value", "gradient")
        yield _mutant(loss, piece.__name__, _of_term(loss, piece), families, piece.__doc__ or "")
    for loss, rule in itertools.product(("smooth_l1", "huber"), PIECE_RULES):
        if (loss, rule) != ("smooth_l1", clipped_at_one):
            yield _mutant(
                loss, rule.__name__, _of_rule(loss, rule), ("gradient",), rule.__doc__ or ""
            )
    for loss, value in itertools.product(("smooth_l1", "huber"), LIMITS):
        families = ("value", "gradient", "errors")
        yield _mutant(
            loss, f"limit-{value.__name__}", _valued(loss, value), families, value.__doc__ or ""
        )
    for loss in ("smooth_l1", "huber"):
        yield _mutant(
            loss, "limit-of-first-call", _valued(loss, _First()), ("value",), _First.__doc__ or ""
        )


# --- that each is wrong, beside torch's own


def _outcome(function: Any, x: Tensor, y: Tensor, g: Tensor, **given: Any) -> list[Tensor | None]:
    """The value and both gradients."""
    a, b = (
        t.detach().as_strided(t.shape, t.stride()).requires_grad_(t.requires_grad) for t in (x, y)
    )
    result = function(a, b, **given)
    needed = [t for t in (a, b) if t.requires_grad]
    by = g.expand(result.shape).to(result.dtype) if g.dim() <= result.dim() else g.sum()
    return [result, *torch.autograd.grad(result, needed, by, allow_unused=True)]


def _probes() -> Iterator[tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    on_kinks = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 0.1, -0.1, 100.0, 0.001, -20.0])
    yield on_kinks, torch.zeros(12)
    yield torch.randn(4, 5) * 3, torch.randn(4, 5)
    yield (torch.randn(5, 4) * 3).t(), torch.randn(4, 5)
    yield torch.randn(2, 3), torch.randn(3)
    yield torch.tensor([1.0, math.nan, 2.0]), torch.zeros(3)
    yield torch.randn(1500), torch.randn(1500)
    yield torch.full((16,), 1e4).half(), torch.zeros(16).half()


def differs(target: Target) -> bool:
    """Whether it is not torch's own, coarsely: an error, a dtype, or a number."""
    own = NAMES[target.loss_of]
    limits = [None] if own is None else [None, 0.5, 3.0, 0.01, math.inf, -1.0]
    for (x, y), reduction, limit in itertools.product(_probes(), ("none", "sum", "mean"), limits):
        given: dict[str, Any] = {"reduction": reduction} | ({str(own): limit} if limit else {})
        for needs in ((True, True), (False, True)):
            a, b = (t.detach().requires_grad_(n) for t, n in zip((x, y), needs, strict=True))
            g = torch.linspace(0.5, 2, max(x.numel(), 1), dtype=x.dtype).reshape(x.shape)
            if x.shape != y.shape or reduction != "none":
                g = torch.tensor(0.75, dtype=x.dtype)
            if limit == math.inf and not (x.isfinite().all() and x.abs().max() < 1e3):
                continue  # where infinity is free
            seen = [_or_error(f, a, b, g, **given) for f in (target.loss, TORCH[target.loss_of])]
            if x.isnan().any():  # of which the gradient is free
                seen = [one and one[:1] for one in seen]
            if not _same(*seen):
                return True
    return False


def _or_error(function: Any, *operands: Tensor, **given: Any) -> list[Tensor | None] | None:
    try:
        return _outcome(function, *operands, **given)
    except (ValueError, RuntimeError):
        return None


def _same(one: list[Tensor | None] | None, other: list[Tensor | None] | None) -> bool:
    if one is None or other is None:
        return one is other
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
        elif (
            a.dtype != b.dtype
            or a.shape != b.shape
            or not torch.allclose(
                a, b, 1e-2 if a.dtype == torch.half else 1e-4, 1e-6, equal_nan=True
            )
        ):
            return False
    return True


LOSS_MUTANTS: tuple[Mutant, ...] = tuple(_every())
