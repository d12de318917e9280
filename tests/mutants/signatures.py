"""Broken losses that take a weight, the deprecated form or tensor subclasses: each defect is made
from one source for all losses that it makes sense for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction
from tests.right.signatures import (
    LEGACY,
    OWN,
    PARAMETER,
    WEIGHTED,
    Legacy,
    Plain,
    deprecated,
    of_operands,
    weighted,
)

from .mutant import Mutant, Witness
from .signature_probes import reads_wrongly, takes_apart, weighs_wrongly
from .weights import OF_DIVISORS, OF_DTYPES, VALUES, default_limit

EAGER = frozenset({"broadcast", "empty", "target_gradient"})


# --- the deprecated form


def by_reduction(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """Takes both, and goes by the reduction."""
    return OWN[loss](x, y, reduction=reduction)


def without_reduce(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """Forgets reduce."""
    return OWN[loss](x, y, size_average=size_average, reduction=reduction)


def without_size_average(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """Forgets size_average."""
    return OWN[loss](x, y, reduce=reduce, reduction=reduction)


def unless_named(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """A reduction that is not the default wins."""
    if reduction != "mean":
        return OWN[loss](x, y, reduction=reduction)
    return OWN[loss](x, y, size_average, reduce)


def average_first(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """size_average wins over reduce=False."""
    if size_average is not None:
        return OWN[loss](x, y, reduction="mean" if size_average else "sum")
    return OWN[loss](x, y, None, reduce, reduction)


def sum_by_default(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """reduce=True alone is a sum."""
    if reduce and size_average is None:
        return OWN[loss](x, y, reduction="sum")
    return OWN[loss](x, y, size_average, reduce, reduction)


def none_for_sum(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """size_average=False is no reduction at all."""
    if size_average is not None and not size_average:
        return OWN[loss](x, y, reduction="none")
    return OWN[loss](x, y, size_average, reduce, reduction)


def false_alone(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """0 is not False."""
    old = (None if v is None else v is not False for v in (size_average, reduce))
    return OWN[loss](x, y, *old, reduction)


def text_is_meant(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """A text in the place of size_average is taken for the reduction."""
    if isinstance(size_average, str):
        return OWN[loss](x, y, reduction=size_average)
    return OWN[loss](x, y, size_average, reduce, reduction)


def gradient_of_reduction(
    loss: str, x: Tensor, y: Tensor, size_average: Any, reduce: Any, reduction: Any
) -> Tensor:
    """The gradient goes by the reduction, which the value does not."""
    value = OWN[loss](x.detach(), y.detach(), size_average, reduce, reduction)
    other = OWN[loss](x, y, reduction=check_reduction(reduction))
    return value + (other - other.detach()) if value.shape == other.shape else value + 0 * x.sum()


LEGACIES: tuple[Legacy, ...] = (
    by_reduction,
    without_reduce,
    without_size_average,
    unless_named,
    average_first,
    sum_by_default,
    none_for_sum,
    false_alone,
    text_is_meant,
    gradient_of_reduction,
)


def reduction_third(loss: str) -> Callable[..., Tensor]:
    """The reduction is the third argument, as that of newer losses."""

    def function(
        x: Tensor,
        y: Tensor,
        reduction: Any = "mean",
        size_average: Any = None,
        reduce: Any = None,
    ) -> Tensor:
        return OWN[loss](x, y, size_average, reduce, reduction)

    return function


# --- tensor subclasses


def own_memory(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Takes a subclass for the tensor that it is one of."""
    with torch._C.DisableTorchFunctionSubclass():
        return OWN[loss](x, y, reduction=reduction)


def plain_result(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Takes the result out of its subclass."""
    return OWN[loss](x, y, reduction=reduction).as_subclass(Tensor)


def targets_memory(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Reads target's own memory."""
    with torch._C.DisableTorchFunctionSubclass():
        plain = y.as_subclass(Tensor)
    return OWN[loss](x, plain, reduction=reduction)


class _OfFunction(torch.autograd.Function):
    """Both operands are saved: their elements are differentiated, not those that they hold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, loss: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.loss = loss
        return OWN[loss](x, y, reduction="none")

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            s = OWN[ctx.loss](x, y, reduction="none")
        return *torch.autograd.grad(s, (x, y), g), None


def of_function(loss: str, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A Function gets the subclass, which is not dispatched: no gradient leads to its elements."""
    if x.shape != y.shape or x.dtype != y.dtype or check_reduction(reduction) != "none":
        return OWN[loss](x, y, reduction=reduction)
    apply: Any = _OfFunction.apply
    result: Tensor = apply(x, y, loss)
    return result


SUBCLASSES: tuple[Plain, ...] = (own_memory, plain_result, targets_memory, of_function)


# --- the bank


def _of(loss: str, idea: Any, function: Any, family: str, witness: Witness, *claims: str) -> Mutant:
    """A mutant named for its idea, whose docstring says it."""
    what = (idea.__doc__ or "").partition("\n")[0]
    name = f"{loss}-{family}-{idea.__name__.replace('_', '-')}"
    target = Target(name, function, EAGER | {family, *claims}, summary=what, loss_of=loss)
    return Mutant(target, frozenset({family}), witness)


def _every() -> Iterator[Mutant]:
    for loss in WEIGHTED:
        make = functools.partial(_of, family="weight", witness=weighs_wrongly)
        divided = OF_DIVISORS if loss != "huber" else (default_limit,)
        for value in (*VALUES, *divided):
            yield make(loss, value, weighted(loss, value))
        for value in OF_DTYPES if loss != "huber" else ():
            yield _of(loss, value, weighted(loss, value), "weight", weighs_wrongly, "mixed_dtype")
    for loss in LEGACY:
        for old in LEGACIES:
            yield _of(loss, old, deprecated(loss, old), "legacy", reads_wrongly)
        yield _of(loss, reduction_third, reduction_third(loss), "legacy", reads_wrongly)
    for loss in PARAMETER:
        for plain in SUBCLASSES:
            yield _of(loss, plain, of_operands(loss, plain), "subclass", takes_apart)


SIGNATURE_MUTANTS: tuple[Mutant, ...] = tuple(_every())
