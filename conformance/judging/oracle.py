"""Ask the reference what is permitted for a case."""

from __future__ import annotations

import functools

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, Case, Operand
from conformance.cases.features import loss_of
from conformance.cases.values import FORMAT_OF, elements
from reference.enclosure import (
    Enclosure,
    PermittedSet,
    concatenate,
    enclosed,
    needs_rationals,
)
from reference.losses import Loss
from reference.losses.loss import permitted_gradient as summed_gradient

CHUNK = 4096  # elements: the many temporaries of a gradient then stay in the processor's cache


def result_dtypes(case: Case) -> tuple[str, ...]:
    """The dtypes that the result may have, the builtin's first.

    The builtin broadcasts before it promotes, so dimensions play no part; ``x - y`` lets an operand
    with dimensions outweigh a 0-d one of its category (clause ``dtypes.scalar``, a ``should``).
    """
    x, y, both = case.input, case.target, case.dtype
    if x.dtype == y.dtype or bool(x.shape) == bool(y.shape):
        return (both,)
    outer = x.dtype if x.shape else y.dtype
    return (both, outer) if outer in FLOAT_DTYPES and outer != both else (both,)


def grad_output(case: Case, dtype: str) -> Operand:
    """What a result of ``dtype`` is differentiated with."""
    g, shape = case.grad_output, case.shape if case.reduction == "none" else ()
    same = g.dtype == dtype and g.shape == shape
    return g if same else g.replace(shape=shape, dtype=dtype)


def permitted_value(case: Case, dtype: str) -> PermittedSet:
    """What the loss may be, if its dtype is ``dtype``."""
    x, y = case.input, case.target
    exact = needs_rationals(FORMAT_OF[dtype], elements(x), elements(y))
    d = _difference(x, y, dtype, exact)
    return loss_of(case).permitted_loss(d, case.reduction)


def permitted_gradient(
    case: Case, dtype: str, operand: str, orders: int | None = None
) -> PermittedSet:
    """What the gradient of ``operand`` may be, if the result's dtype is ``dtype``.

    ``orders``: only so many of the permitted orders of operations: a subset, which costs less.
    """
    g = grad_output(case, dtype)
    loss = loss_of(case)
    gradient = _gradient(loss, case.input, case.target, case.reduction, g, dtype, orders)
    wanted: Operand = getattr(case, operand)
    if operand == "target":
        gradient = -gradient
    return summed_gradient(gradient, wanted.shape, FORMAT_OF[wanted.dtype])


def permitted_with_factor(case: Case, dtype: str, operand: str) -> PermittedSet | None:
    """The same where ``grad_output`` is a factor of the sum; None where that makes no difference.

    It does where that is one number which is not finite, and the operand is broadcast.
    """
    x, y, g = case.input, case.target, case.grad_output.replace(shape=(), dtype=dtype)
    wanted: Operand = getattr(case, operand)
    if case.reduction == "none" or not wanted.size or wanted.shape == case.shape:
        return None
    if np.isfinite(elements(g)):
        return None
    exact = needs_rationals(FORMAT_OF[dtype], *map(elements, (x, y, g)))
    d, c = _difference(x, y, dtype, exact), _enclosure(g, dtype, exact)
    sign, fmt = (-1 if operand == "target" else 1), FORMAT_OF[wanted.dtype]
    return loss_of(case).permitted_with_factor(d, c, wanted.shape, fmt, sign)


@functools.lru_cache(maxsize=8)
def _gradient(
    loss: Loss, x: Operand, y: Operand, reduction: str, g: Operand, dtype: str, orders: int | None
) -> Enclosure:
    exact = needs_rationals(FORMAT_OF[dtype], *map(elements, (x, y, g)))
    d, c = _difference(x, y, dtype, exact), _enclosure(g, dtype, exact)
    shape, n = d.shape, d.size
    if n <= CHUNK:
        return loss.vjp(d, c, reduction, orders=orders)
    d = d.reshape((n,))
    c = c.reshape((n,)) if c.shape else c
    parts = []
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        parts.append(loss.vjp(d[part], c[part] if c.shape else c, reduction, shape, orders))
    return concatenate(parts).reshape(shape)


@functools.lru_cache(maxsize=2)
def _difference(x: Operand, y: Operand, dtype: str, exact: bool) -> Enclosure:
    """x − y, for the loss and the gradient, and for one reduction after the other."""
    return _enclosure(x, dtype, exact) - _enclosure(y, dtype, exact)


@functools.lru_cache(maxsize=16)
def _enclosure(operand: Operand, dtype: str, exact: bool) -> Enclosure:
    return enclosed(FORMAT_OF[dtype], elements(operand), exact)
