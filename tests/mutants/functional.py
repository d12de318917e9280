"""Wrong under torch.func: grad, vjp, jvp, jacobians and hessians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare

from .mutant import (
    Mutant,
    Pair,
    by_gradients,
    elementwise,
    mutant,
    right,
    right_gradients,
    right_rule,
)
from .parts import Given, both, fused_by
from .probes import NAN, data, gradient, otherwise, summed, unless
from .transformed import FUNCTORCH, Mappable, in_mode, masked, transforming


class _OfOne(Mappable):
    """Under torch.func the cotangent is taken to be 1."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, torch.ones_like(g), ctx.scale)), None


def of_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func the cotangent is taken to be 1."""
    function: Any = _OfOne if transforming() else Mappable
    return fused_by(function)(x, y, reduction)


def old_forward(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """A Function whose forward has the context too, which torch.func refuses."""
    return right_gradients(x, y, g, scale)


def raw_pointer(a: Tensor, b: Tensor) -> Tensor:
    """Asks for the alignment of its operands' memory."""
    d = a - b
    return d.square() if (a.data_ptr() | b.data_ptr()) % 16 else d * d


def peels_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func the target is taken out of its wrapper: data, not a variable."""
    internals: Any = torch._C._functorch
    if internals.is_functorch_wrapped_tensor(y):
        y = internals.get_unwrapped(y)
    return right(x, y, reduction)


@unless
def has_grad(target: Target) -> bool:
    x, y = data()
    return all(
        torch.allclose(torch.func.grad(summed(target), k)(x, y), wanted)
        for k, wanted in enumerate(both(gradient(x, y)))
    )


@unless
def has_vjp(target: Target) -> bool:
    x, y = data()
    pull = torch.func.vjp(summed(target), x, y)[1]
    return torch.allclose(pull(torch.tensor(3.0, dtype=x.dtype))[0], 3 * gradient(x, y))


def kept_narrow(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    prepare(x, y)
    return right(x, y.to(x.dtype), reduction) if x.is_floating_point() else right(x, y, reduction)


def pulled(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Any]:
    def found(loss: Callable[..., Any]) -> Any:
        result: Any = torch.func.vjp(lambda x: loss(x, y), x)[0]
        return result.dtype, result

    return found


_THIRD = torch.full((2,), 1 / 3, dtype=torch.float64)


FUNCTIONAL_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "old-forward", by_gradients(old_forward), "transforms", claims=FUNCTORCH, witness=has_grad
    ),
    mutant(
        "raw-pointer", elementwise(raw_pointer), "transforms", claims=FUNCTORCH, witness=has_grad
    ),
    mutant("peels-target", peels_target, "transforms", claims=FUNCTORCH, witness=has_grad),
    mutant("of-one", of_one, "transforms", claims=FUNCTORCH, witness=has_vjp),
    mutant(
        "functional-masks-nan",
        in_mode(transforming, masked, "Under torch.func a NaN counts as 0."),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(pulled(NAN, torch.zeros(2))),
    ),
    mutant(
        "functional-keeps-narrow",
        in_mode(transforming, kept_narrow, "Under torch.func the target takes the input's dtype."),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(pulled(torch.ones(2), _THIRD)),
    ),
)
