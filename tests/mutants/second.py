"""Wrong second and third derivatives: their formula, and which graph they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import Mutant, mutant, reduce, right, right_rule
from .parts import TWICE, Given, Whole, both, by_hand, fused_by, right_second, scale_of, squares_by
from .probes import gradient, leaf, operands, otherwise, total, unless
from .transformed import mappable_squares_by


class _SavesDifference(torch.autograd.Function):
    """Saves d, a constant in the second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        return d.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


class _Saving(torch.autograd.Function):
    """The squares; saves both operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()


class _NoGrad(_Saving):
    """Computes the gradient without a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        with torch.no_grad():
            return both(2 * g * (x - y))


class _ConstantGradOutput(_Saving):
    """Detaches grad_output."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g.detach() * (x - y))


class _Magnitude(_Saving):
    """The gradient as sign(d)·|d|, whose own derivative is 0 where d is 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return both(2 * g * torch.copysign(d.abs(), d.detach()))


class _ComputedGradOutput(torch.autograd.Function):
    """Detaches a grad_output that is no leaf."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g if g.is_leaf else g.detach(), ctx.scale)), None


def leaves_twice(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Second derivatives for leaves alone: of other inputs d is saved."""
    squares: Any = _SavesDifference.apply
    if x.is_leaf:
        return right(x, y, reduction)
    return reduce(squares(*prepare(x, y)), reduction)


def unscaled_second(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No 2/n in the second derivative."""
    return *both(w * g), right_second(w, d, g, scale)[2]


def second_sign(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative by target has input's sign."""
    first, _, third = right_second(w, d, g, scale)
    return first, first, third


def no_second_target(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No second derivative by target."""
    first, _, third = right_second(w, d, g, scale)
    return first, None, third


def second_of_one(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative takes grad_output to be 1."""
    _, _, third = right_second(w, d, g, scale)
    return *both(right_rule(w, torch.ones_like(g), scale)), third


def forgets_cotangent(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The derivative by grad_output is the gradient, not its product with the cotangent."""
    return *right_second(w, d, g, scale)[:2], (scale * d).sum_to_size(g.shape)


def unscaled_third(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No 2/n in the derivative by grad_output."""
    return *right_second(w, d, g, scale)[:2], (d * w).sum_to_size(g.shape)


def _second(target: Target, k: int, wanted: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether the derivative of x's gradient times ``w``, by x, y or g, is as ``wanted``."""
    x, y = operands()
    g = torch.tensor(3.0, dtype=x.dtype, requires_grad=True)
    w = torch.tensor([1.0, 2.0, -3.0, 0.5], dtype=x.dtype)
    (first,) = torch.autograd.grad(total(target, x, y), x, g, create_graph=True)
    (got,) = torch.autograd.grad(first, (x, y, g)[k], w)
    return torch.allclose(got, wanted(w, gradient(x, y)))


@unless
def has_second(target: Target) -> bool:
    return _second(target, 0, lambda w, _: 6 * w) and _second(target, 1, lambda w, _: -6 * w)


@unless
def has_derivative_by_g(target: Target) -> bool:
    return _second(target, 2, lambda w, first: (w * first).sum())


@unless
def composes(target: Target) -> bool:
    """The Hessian of L² and of L(x², y), with a right one of L itself, by finite differences."""
    x, y = operands()

    def of_squares(x: Tensor) -> Tensor:
        return total(target, x.square(), y.detach()).square()

    return torch.autograd.gradgradcheck(of_squares, x, raise_exception=False)


class _NoThird(torch.autograd.Function):
    """The derivative of the gradient, computed where no further one is recorded."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(d, g)
        return 2 * d * g

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, Tensor]:
        d, g = ctx.saved_tensors
        with torch.no_grad():
            return 2 * w * g, 2 * w * d


class _OnlyTwice(torch.autograd.Function):
    """Its second derivative is a constant: there is no third one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        apply: Any = _NoThird.apply
        gradient = apply(x - y, g)
        return gradient, -gradient


def third(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    (one,) = torch.autograd.grad(loss(x * x, torch.zeros(2)), x, create_graph=True)
    (two,) = torch.autograd.grad(one.sum(), x, create_graph=True)
    return torch.autograd.grad(two.sum(), x)[0]


class _CastOnce(torch.autograd.Function):
    """A cast with a backward that detaches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        return x.to(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g.detach().to(ctx.dtype), None


def casts_without_second(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Casts the narrower of two operands so that there is no second derivative."""
    if x.is_floating_point() and y.is_floating_point() and x.dtype != y.dtype:
        wide, cast = torch.promote_types(x.dtype, y.dtype), _CastOnce.apply
        made: list[Any] = [t if t.dtype == wide else cast(t, wide) for t in (x, y)]
        x, y = made
    return right(x, y, reduction)


def second_of_two_dtypes(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros(2)), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


class _KeepsDifference(Whole):
    """The difference of the first backward serves the later ones, as a constant."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        if not hasattr(ctx, "d"):
            x, y = ctx.saved_tensors
            ctx.d, ctx.versions = x - y, (x._version, y._version)
        if ctx.versions != tuple(t._version for t in ctx.saved_tensors):
            raise RuntimeError("an operand changed")
        return *both(ctx.scale * ctx.d * g), None


def second_after_first(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(2))
    torch.autograd.grad(result, x, retain_graph=True)
    (first,) = torch.autograd.grad(result, x, create_graph=True)
    return torch.autograd.grad(first.sum(), x, allow_unused=True)[0]


class _SkipsOne(Whole):
    """Does not multiply with a grad_output of 1."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = ctx.scale * (x - y)
        return *both(d if g.dim() == 0 and float(g.detach()) == 1 else d * g), None


def by_factor_of_one(loss: Callable[..., Any]) -> Any:
    x, g = leaf(1, 2), torch.ones((), requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros(2)), x, g, create_graph=True)
    return torch.autograd.grad(first.sum(), g, allow_unused=True)[0]


SECOND_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "keeps-difference",
        squares_by(_SavesDifference),
        "autograd",
        claims=TWICE,
        witness=has_second,
    ),
    mutant("no-graph", squares_by(_NoGrad), "autograd", claims=TWICE, witness=has_second),
    mutant("magnitude", squares_by(_Magnitude), "autograd", claims=TWICE, witness=has_second),
    mutant(
        "unscaled-second", by_hand(unscaled_second), "autograd", claims=TWICE, witness=has_second
    ),
    mutant("second-sign", by_hand(second_sign), "autograd", claims=TWICE, witness=has_second),
    mutant(
        "no-second-target", by_hand(no_second_target), "autograd", claims=TWICE, witness=has_second
    ),
    mutant("second-of-one", by_hand(second_of_one), "autograd", claims=TWICE, witness=has_second),
    mutant(
        "constant-grad-output",
        squares_by(_ConstantGradOutput),
        "autograd",
        claims=TWICE,
        witness=has_derivative_by_g,
    ),
    mutant(
        "forgets-cotangent",
        by_hand(forgets_cotangent),
        "autograd",
        claims=TWICE,
        witness=has_derivative_by_g,
    ),
    mutant(
        "unscaled-third",
        by_hand(unscaled_third),
        "autograd",
        claims=TWICE,
        witness=has_derivative_by_g,
    ),
    mutant(
        "computed-grad-output",
        fused_by(_ComputedGradOutput),
        "autograd",
        claims=TWICE,
        witness=composes,
    ),
    mutant("leaves-twice", leaves_twice, "autograd", claims=TWICE, witness=composes),
    mutant(
        "no-third",
        mappable_squares_by(_OnlyTwice),
        "autograd",
        claims=TWICE,
        witness=otherwise(third),
    ),
    mutant(
        "casts-without-second",
        casts_without_second,
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_two_dtypes),
    ),
    mutant(
        "difference-of-first-backward",
        fused_by(_KeepsDifference),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_after_first),
    ),
    mutant(
        "skips-factor-of-one",
        fused_by(_SkipsOne),
        "autograd",
        claims=TWICE,
        witness=otherwise(by_factor_of_one),
    ),
)
