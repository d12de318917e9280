"""The mean squared error and its gradient: the formulas, written once, over any kind of number.

The kinds: object arrays of :class:`fractions.Fraction` (exact), float64 arrays, and
:class:`~reference.enclosure.Enclosure` (permitted sets). They share ``-``, ``*``, ``/ int``,
``2 *``, ``** 2``, ``.sum(axis)`` and ``.shape``; the constant 2/n is made by the ``ratio`` that is
passed in: ``Fraction``, ``operator.truediv`` or :func:`reference.enclosure.ratio`.

With d = x − y over the broadcast shape, n its number of elements, and g the ``grad_output``:

    none: L = d²          sum: L = Σ d²         mean: L = (Σ d²) / n
    gᵀ ∂L/∂x = 2·d·g      2·d·g                 2·d·g / n            and ∂L/∂y = −∂L/∂x,

summed over the dimensions along which x (or y) was broadcast. Tangents and second derivatives,
whose order of operations is free, are judged by :mod:`reference.bounds`.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reference import enclosure
from reference.enclosure import NAN, VOID, Enclosure, PermittedSet
from reference.formats import Format

Ratio = Callable[[int, int], Any]
REDUCTIONS = ("none", "sum", "mean")


def loss(x: Any, y: Any, reduction: str = "mean") -> Any:
    """The loss of ``x`` against ``y`` (broadcastable arrays of one kind), unrounded at the end.

    Shape: the broadcast shape for ``none``, else 0-d. The mean of nothing is 0/0: undefined, so
    callers handle a mean of size 0 (NaN, clause ``value.empty``).
    """
    return loss_of(x - y, reduction)


def loss_of(d: Any, reduction: str) -> Any:
    """The loss, where ``d`` is x − y: one difference serves the loss and its gradients."""
    return reduced(d**2, reduction)


def reduced(s: Any, reduction: str, axis: tuple[int, ...] | None = None) -> Any:
    """The loss, where ``s`` holds the squares; of ``axis``, if the others count losses."""
    if reduction == "none":
        return s
    n = math.prod(s.shape if axis is None else (s.shape[k] for k in axis))
    return s.sum(axis=axis) if reduction == "sum" else s.sum(axis=axis) / n


def vjp_orders(
    d: Any,
    g: Any,
    reduction: str,
    ratio: Ratio,
    whole: tuple[int, ...] | None = None,
    n: Any = None,
) -> Iterator[Any]:
    """gᵀ ∂L/∂x over the broadcast shape, in every order of operations that is permitted.

    All are equal as rationals; they differ in rounding, and in where they over- or underflow.
    ``d``: x − y. ``g``: ``grad_output``, broadcastable to d. ``whole``: the broadcast shape, where
    d is a part of it. ``n``: its number of elements, where d holds those of many losses, for each
    its own; of orders that divide by n at once, which come first. Clause ``gradient.input``.
    """
    if reduction != "mean":
        yield (2 * d) * g
        yield (2 * g) * d
        yield 2 * (g * d)  # g·d + g·d: both operands of d·d are d
        return
    shape = d.shape if whole is None else whole
    yield from _mean_orders(d, g, max(math.prod(shape), 1) if n is None else n, ratio)
    for *outer, inner in steps(shape):  # a mean of means
        yield from _mean_orders(d, functools.reduce(operator.truediv, outer, g), inner, ratio)
    yield from _rare_orders(d, g, max(math.prod(shape), 1))


def _mean_orders(d: Any, g: Any, n: int, ratio: Ratio) -> Iterator[Any]:
    """(2/n)·d·g in the six orders in use, the builtin's first."""
    yield (ratio(2, n) * d) * g  # torch's builtin
    yield (ratio(2, n) * g) * d
    yield (g / n) * (2 * d)  # mean, then pow
    yield 2 * ((g / n) * d)  # mean, then d·d
    yield ((2 * d) * g) / n  # as textbooks write it
    yield ((2 * d) / n) * g


def _rare_orders(d: Any, g: Any, n: int) -> Iterator[Any]:
    """Of (2/n)·d·g, with underflows and overflows of their own."""
    yield 2 * ((d / n) * g)
    yield ((2 * g) / n) * d
    yield ((2 * g) * d) / n


def steps(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The factors of n by which a mean in several steps divides, the last step's first.

    Over some dimensions and then over the rest, or over one dimension after the other. All are
    larger than 1; empty where no two dimensions are.
    """
    n = math.prod(shape)
    sizes = [size for size in shape if size > 1]
    chosen = (itertools.combinations(sizes, k) for k in range(1, len(sizes)))
    last = {math.prod(some) for some in itertools.chain.from_iterable(chosen)}
    one_by_one = [tuple(sizes), tuple(sizes[::-1])] if len(sizes) > 2 else []
    return [*((b, n // b) for b in sorted(last)), *one_by_one] if n else []


def jvp(d: Any, t: Any, reduction: str) -> Any:
    """∂L/∂x·t_x + ∂L/∂y·t_y, where ``d`` is x − y and ``t`` is t_x − t_y, of one shape.

    Shape: that of d for ``none``, else 0-d. Clauses ``autograd.forward``, ``transforms.jvp``.
    """
    v = 2 * d * t
    if reduction == "none":
        return v
    return v.sum() if reduction == "sum" else v.sum() / max(math.prod(v.shape), 1)


def second_vjp(d: Any, g: Any, w: Any, reduction: str) -> tuple[Any, Any]:
    """The vjp of the gradient: what ``w``, a cotangent of ∂L/∂x, gives for x and for ``g``.

    The gradient 2·d·g/n is linear in d and in g, so these are 2·w·g/n, with d's shape, and the jvp
    along w. A cotangent of ∂L/∂y counts negative, and what y receives is the negative of what x
    does. Clause ``autograd.double_backward``.
    """
    v = 2 * w * g
    if reduction == "mean":
        v = v / max(math.prod(d.shape), 1)
    return v, jvp(d, w, reduction)


def unbroadcast(v: Any, shape: tuple[int, ...]) -> Any:
    """``v`` summed over the dimensions along which ``shape`` was broadcast to ``v.shape``."""
    extra = len(v.shape) - len(shape)
    stretched = (k + extra for k, size in enumerate(shape) if size == 1 != v.shape[k + extra])
    axes = (*range(extra), *stretched)
    summed = v.sum(axis=axes) if axes else v
    return (summed if hasattr(summed, "reshape") else np.asarray(summed)).reshape(shape)


def permitted_loss(d: Enclosure, reduction: str) -> PermittedSet:
    """What the loss may be in the format of the operands, where ``d`` is x − y."""
    if reduction == "mean" and 0 in d.shape:
        nothing = np.zeros(())
        return PermittedSet(nothing, nothing, np.uint8(NAN | VOID) * np.ones((), np.uint8))
    return loss_of(d, reduction).rounded(d.fmt)  # type: ignore[no-any-return]


def vjp(
    d: Enclosure,
    g: Enclosure,
    reduction: str,
    whole: tuple[int, ...] | None = None,
    orders: int | None = None,
    n: Any = None,
) -> Enclosure:
    """The hull of all permitted orders of gᵀ ∂L/∂x (of the first ``orders``), over d's shape."""
    ratio = functools.partial(_ratio, d.fmt, d.exact)
    every = itertools.islice(vjp_orders(d, g, reduction, ratio, whole, n), orders)
    hull: Enclosure = functools.reduce(Enclosure.hull, every)
    return hull


def permitted_gradient(gradient: Enclosure, shape: tuple[int, ...], fmt: Format) -> PermittedSet:
    """What the gradient of an operand of ``shape`` and format ``fmt`` may be.

    ``gradient``: over the broadcast shape, in the result's format. Where that differs from the
    operand's, it is the hull of cast-then-sum, which autograd does, and sum-then-cast; and either
    of the two halves, since (x − y)·(x − y) leads to an operand on two paths, each with its cast.
    """
    summed = unbroadcast(gradient, shape)
    if fmt is gradient.fmt:
        return summed.rounded(fmt)  # type: ignore[no-any-return]
    if summed.terms == 1:
        return summed.cast(fmt).rounded(fmt)  # type: ignore[no-any-return]
    cast = unbroadcast(gradient.cast(fmt), shape)
    return summed.to(gradient.fmt).cast(fmt).hull(cast.to(fmt)).rounded(fmt)  # type: ignore[no-any-return]


def permitted_with_factor(
    d: Enclosure, g: Enclosure, shape: tuple[int, ...], fmt: Format
) -> PermittedSet:
    """The same where ``g``, one number that is not finite, is a factor of the sum, not its terms.

    2/n changes nothing then. ``d``: x − y, or y − x for the target.
    """
    return (unbroadcast(d, shape).to(d.fmt) * g).rounded(fmt)  # type: ignore[no-any-return]


def _ratio(fmt: Format, exact: bool, p: int, q: Any) -> Enclosure:
    make = enclosure.ratios if isinstance(q, np.ndarray) else enclosure.ratio
    return make(fmt, p, q, exact)
