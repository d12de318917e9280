"""Ask the reference what is permitted for a case."""

from __future__ import annotations

import functools

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, Case, Operand, promote
from conformance.cases.domain import Result
from conformance.cases.features import form_of, loss_of, result_shape
from conformance.cases.values import FORMAT_OF, elements
from reference.enclosure import (
    Enclosure,
    PermittedSet,
    concatenate,
    enclosed,
    needs_rationals,
)
from reference.formats import round_nearest
from reference.losses import Loss
from reference.losses.loss import permitted_gradient as summed_gradient
from reference.reductions import EVERYTHING, Form

CHUNK = 4096  # elements: the many temporaries of a gradient then stay in the processor's cache


def result_dtypes(case: Case) -> tuple[str, ...]:
    """The dtypes that the result may have, the builtin's first.

    The builtin broadcasts before it promotes, so dimensions play no part; ``x - y`` lets an operand
    with dimensions outweigh a 0-d one of its category (clause ``dtypes.scalar``, a ``should``).
    A target may say that it is another one.
    """
    own = _named(case.result.dtype, case.input) if case.result else ""
    if own:
        return (own,)
    x, y, both = case.input, case.target, case.dtype
    if x.dtype == y.dtype or bool(x.shape) == bool(y.shape):
        return (both,)
    outer = x.dtype if x.shape else y.dtype
    return (both, outer) if outer in FLOAT_DTYPES and outer != both else (both,)


def _named(dtype: str, x: Operand) -> str:
    """A dtype that a target speaks of; "" where that is input's, and ``x`` holds integers."""
    if dtype != "input":
        return dtype
    return x.dtype if x.dtype in FLOAT_DTYPES else ""


def grad_output(case: Case, dtype: str) -> Operand:
    """What a result of ``dtype`` is differentiated with."""
    g, shape = case.grad_output, result_shape(case)
    same = g.dtype == dtype and g.shape == shape
    return g if same else g.replace(shape=shape, dtype=dtype)


def permitted_value(case: Case, dtype: str) -> PermittedSet:
    """What the loss may be, if its dtype is ``dtype``."""
    x, y = case.input, case.target
    exact = _is_extreme(dtype, case.result, x, y)
    d = _difference(x, y, dtype, exact, case.result)
    return loss_of(case).permitted_loss(d, case.reduction, form_of(case.result))


def permitted_gradient(
    case: Case, dtype: str, operand: str, orders: int | None = None
) -> PermittedSet:
    """What the gradient of ``operand`` may be, if the result's dtype is ``dtype``.

    ``orders``: only so many of the permitted orders of operations: a subset, which costs less.
    """
    g = grad_output(case, dtype)
    loss, result = loss_of(case), case.result
    gradient = _gradient(loss, case.input, case.target, case.reduction, g, dtype, orders, result)
    wanted: Operand = getattr(case, operand)
    if operand == "target":
        gradient = -gradient
    if case.result is not None:
        gradient = _by_the_way(gradient, case, operand)
    return summed_gradient(gradient, wanted.shape, FORMAT_OF[wanted.dtype])


def _by_the_way(gradient: Enclosure, case: Case, operand: str) -> Enclosure:
    """The gradient of an operand that may be rounded first: that comes back the same way."""
    assert case.result is not None
    named = case.result.rounded[("input", "target").index(operand)]
    fmt = FORMAT_OF.get(_named(named, case.input), gradient.fmt)
    if fmt.u <= gradient.fmt.u:
        return gradient
    return gradient.hull(gradient.to(fmt).to(gradient.fmt))


def permitted_with_factor(case: Case, dtype: str, operand: str) -> PermittedSet | None:
    """The same where ``grad_output`` is a factor of the sum; None where that makes no difference.

    It does where that is one number which is not finite, and the operand is broadcast.
    """
    x, y, g = case.input, case.target, case.grad_output.replace(shape=(), dtype=dtype)
    wanted: Operand = getattr(case, operand)
    if case.reduction == "none" or result_shape(case) not in ((), (1,)):
        return None
    if not wanted.size or wanted.shape == case.shape:
        return None
    if np.isfinite(elements(g)):
        return None
    exact = _is_extreme(dtype, case.result, x, y, g)
    d, c = _difference(x, y, dtype, exact, case.result), _enclosure(g, dtype, exact)
    sign, fmt = (-1 if operand == "target" else 1), FORMAT_OF[wanted.dtype]
    return loss_of(case).permitted_with_factor(d, c, wanted.shape, fmt, sign)


@functools.lru_cache(maxsize=8)
def _gradient(
    loss: Loss,
    x: Operand,
    y: Operand,
    reduction: str,
    g: Operand,
    dtype: str,
    orders: int | None,
    result: Result | None,
) -> Enclosure:
    exact = _is_extreme(dtype, result, x, y, g)
    d, c = _difference(x, y, dtype, exact, result), _enclosure(g, dtype, exact)
    shape, n = d.shape, d.size
    form = form_of(result)
    whole = form.divided(shape)
    if form != EVERYTHING and c.shape:
        c = _spread(c, form, shape, reduction)
    if n <= CHUNK:
        return loss.vjp(d, c, reduction, whole, orders)
    d = d.reshape((n,))
    c = c.reshape((n,)) if c.shape else c
    parts = []
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        parts.append(loss.vjp(d[part], c[part] if c.shape else c, reduction, whole, orders))
    return concatenate(parts).reshape(shape)


def _is_extreme(dtype: str, result: Result | None, *operands: Operand) -> bool:
    """Whether rationals must carry what is done in ``dtype``, or in what the operands come in."""
    kinds = (operand.dtype for operand in operands if result is not None)
    wide = FORMAT_OF[functools.reduce(promote, kinds, dtype)]
    return needs_rationals(wide, *map(elements, operands))


def _spread(c: Enclosure, form: Form, shape: tuple[int, ...], reduction: str) -> Enclosure:
    """A ``grad_output`` for each element of the broadcast ``shape``."""
    places = form.spread(np.arange(c.size).reshape(c.shape), shape, reduction)
    flat = np.broadcast_to(places, shape).reshape(-1)
    return c.reshape((c.size,))[flat].reshape(shape)


@functools.lru_cache(maxsize=2)
def _difference(
    x: Operand, y: Operand, dtype: str, exact: bool, result: Result | None
) -> Enclosure:
    """x − y, for the loss and the gradient, and for one reduction after the other.

    A target whose result is narrower than its operands may go on from there in that dtype; what it
    may round before is what it says it does.
    """
    if result is None:
        return _enclosure(x, dtype, exact) - _enclosure(y, dtype, exact)
    wide = functools.reduce(promote, (x.dtype, y.dtype), dtype)
    a, b = (
        _perhaps_rounded(operand, wide, exact, _named(to, x))
        for operand, to in zip((x, y), result.rounded, strict=True)
    )
    return a - b if wide == dtype else (a - b).to(FORMAT_OF[dtype])


def _perhaps_rounded(operand: Operand, dtype: str, exact: bool, to: str) -> Enclosure:
    """The operand as it is, or rounded ``to`` another dtype."""
    plain = _enclosure(operand, dtype, exact)
    if not to:
        return plain
    nearest = round_nearest(elements(operand), FORMAT_OF[to])
    return plain.hull(enclosed(FORMAT_OF[dtype], nearest, exact))


@functools.lru_cache(maxsize=16)
def _enclosure(operand: Operand, dtype: str, exact: bool) -> Enclosure:
    return enclosed(FORMAT_OF[dtype], elements(operand), exact)
