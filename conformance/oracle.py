"""Ask the reference what is permitted for a case."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from conformance.case import FLOAT_DTYPES, Case, Operand, promote
from conformance.values import FORMAT_OF, elements
from reference import mse
from reference.enclosure import Enclosure, PermittedSet, concatenate, enclose

CHUNK = 4096  # elements: the many temporaries of a gradient then stay in the processor's cache


def result_dtypes(case: Case) -> tuple[str, ...]:
    """The dtypes that the result may have, the builtin's first.

    The builtin broadcasts before it promotes, so dimensions play no part; ``x - y`` lets an operand
    with dimensions outweigh a 0-d one of its category (clause ``dtypes.scalar``, a ``should``).
    """
    x, y = case.input, case.target
    both = promote(x.dtype, y.dtype)
    if bool(x.shape) == bool(y.shape):
        return (both,)
    outer = x.dtype if x.shape else y.dtype
    return (both, outer) if outer in FLOAT_DTYPES and outer != both else (both,)


def permitted_value(case: Case, dtype: str) -> PermittedSet:
    """What the loss may be, if its dtype is ``dtype``."""
    x, y, _ = _operands(case.input, case.target, None, dtype)
    return mse.permitted_loss(x, y, case.reduction)


def permitted_gradient(
    case: Case, dtype: str, operand: str, orders: int | None = None
) -> PermittedSet:
    """What the gradient of ``operand`` may be, if the result's dtype is ``dtype``.

    ``orders``: only so many of the permitted orders of operations: a subset, which costs less.
    """
    g = case.grad_output.replace(shape=case.shape if case.reduction == "none" else (), dtype=dtype)
    gradient = _gradient(case.input, case.target, case.reduction, g, dtype, orders)
    wanted: Operand = getattr(case, operand)
    if operand == "target":
        gradient = -gradient
    return mse.permitted_gradient(gradient, wanted.shape, FORMAT_OF[wanted.dtype])


@functools.lru_cache(maxsize=4)
def _gradient(
    x: Operand, y: Operand, reduction: str, g: Operand, dtype: str, orders: int | None
) -> Enclosure:
    shape = np.broadcast_shapes(x.shape, y.shape)
    a, b, c = _operands(x, y, g, dtype)
    if math.prod(shape) <= CHUNK or not x.shape == y.shape == shape:
        gradient = mse.vjp(a - b, c, reduction, orders=orders)
        return gradient if gradient.shape == shape else gradient.broadcast_to(shape)
    n = math.prod(shape)
    a, b = a.reshape((n,)), b.reshape((n,))
    c = c.reshape((n,)) if c.shape else c
    parts = []
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        g_part = c[part] if c.shape else c
        parts.append(mse.vjp(a[part] - b[part], g_part, reduction, shape, orders))
    return concatenate(parts).reshape(shape)


@functools.lru_cache(maxsize=16)
def _operands(x: Operand, y: Operand, g: Operand | None, dtype: str) -> tuple[Any, ...]:
    fmt = FORMAT_OF[dtype]
    arrays = [elements(o) for o in (x, y, g) if o is not None]
    made = enclose(fmt, *arrays)
    return (*made, None) if g is None else tuple(made)
