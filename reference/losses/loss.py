"""A loss: what it is called, its formulas, its parameters, and the orders that are permitted."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reference import enclosure
from reference.enclosure import NAN, VOID, Enclosure, PermittedSet
from reference.formats import Format
from reference.losses.formula import Formula
from reference.orders import Mean, Ratio
from reference.reductions import EVERYTHING, Form, unbroadcast

Values = tuple[tuple[str, float], ...]  # of parameters, by name


@dataclass(frozen=True)
class Parameter:
    """A parameter, passed by keyword. ``tried``: values beside its ``default``; ``refused``: such
    that a call with them must raise."""

    name: str
    default: float
    tried: tuple[float, ...]
    refused: tuple[float, ...]


@dataclass(frozen=True)
class Loss:
    """A specification.

    ``function`` of ``torch.nn.functional`` and ``module`` of ``torch.nn``: what it stands for.
    ``terms(d, *at)``: the term in every order of operations that is permitted, the builtin's first.
    ``vjp_orders(d, g, mean, *at)``: ℓ′(d)·g, over n where there is a ``mean``, likewise; those that
    take one step to divide by n come first. All orders are equal as rationals; they differ in
    rounding, and in where they over- or underflow. ``unclaimed``: what torch's own does not do, so
    that nobody is asked for it; ``should``: clauses that torch's own breaks, which are no ``must``
    for this loss. SPEC.md has the reason of each. ``legacy``: whether torch's own takes the
    deprecated ``size_average`` and ``reduce``.
    """

    name: str
    function: str
    module: str
    formula: Formula
    terms: Callable[..., Iterator[Any]]
    vjp_orders: Callable[..., Iterator[Any]]
    parameters: tuple[Parameter, ...] = ()
    unclaimed: frozenset[str] = frozenset()
    should: frozenset[str] = frozenset()
    legacy: bool = False
    version: str = "1.0"

    @property
    def title(self) -> str:
        """As verdicts name it: ``mse 1.0``."""
        return f"{self.name} {self.version}"

    def given(self, values: Values) -> Loss:
        """With other values of some parameters. Raises ValueError for one that it has not."""
        if not values:
            return self
        named = dict(values)
        at = tuple(named.pop(p.name, v) for p, v in zip(self.parameters, self.at, strict=True))
        if named:
            raise ValueError(f"{self.name} has no parameter {', '.join(named)}")
        return replace(self, formula=self.formula.given(at))

    @property
    def at(self) -> tuple[float, ...]:
        """The values of the parameters."""
        return self.formula.at

    def permitted_terms(self, d: Enclosure) -> Enclosure:
        """The hull of all permitted orders of the term."""
        hull: Enclosure = functools.reduce(Enclosure.hull, self.terms(d, *self.at))
        return hull

    def permitted_loss(self, d: Enclosure, reduction: str, form: Form = EVERYTHING) -> PermittedSet:
        """What the loss may be in the format of the operands, where ``d`` is x − y."""
        if reduction == "mean" and 0 in form.divided(d.shape):
            return of_nothing(form.shape(d.shape, reduction))
        return form.reduced(self.permitted_terms(d), reduction).rounded(d.fmt)  # type: ignore[no-any-return]

    def orders(
        self,
        d: Any,
        g: Any,
        reduction: str,
        ratio: Ratio,
        whole: tuple[int, ...] | None = None,
        n: Any = None,
    ) -> Iterator[Any]:
        """gᵀ ∂L/∂x over the broadcast shape, in every order of operations that is permitted.

        ``d``: x − y. ``g``: ``grad_output``, broadcastable to d. ``whole``: the broadcast shape,
        where d is a part of it. ``n``: its number of elements, where d holds those of many losses,
        for each its own; of orders that divide by n at once, which come first.
        """
        shape = d.shape if whole is None else whole
        count = max(math.prod(shape), 1) if n is None else n
        mean = Mean(shape, count, ratio) if reduction == "mean" else None
        return self.vjp_orders(d, g, mean, *self.at)

    def vjp(
        self,
        d: Enclosure,
        g: Enclosure,
        reduction: str,
        whole: tuple[int, ...] | None = None,
        orders: int | None = None,
        n: Any = None,
    ) -> Enclosure:
        """The hull of all permitted orders of gᵀ ∂L/∂x, or of the first ``orders``."""
        ratio = functools.partial(_ratio, d.fmt, d.exact)
        every = itertools.islice(self.orders(d, g, reduction, ratio, whole, n), orders)
        hull: Enclosure = functools.reduce(Enclosure.hull, every)
        return hull

    def permitted_with_factor(
        self, d: Enclosure, g: Enclosure, shape: tuple[int, ...], fmt: Format, sign: int
    ) -> PermittedSet:
        """The gradient where ``g``, one number that is not finite, is a factor of the sum, not of
        its terms.

        The division by n changes nothing then. ``sign``: −1 for the gradient of target.
        """
        slope = self.vjp(d, enclosure.constant(d.fmt, 1.0, d.exact), "sum", orders=1)
        summed = unbroadcast(slope if sign > 0 else -slope, shape).to(d.fmt)
        return (summed * g).rounded(fmt)  # type: ignore[no-any-return]


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


def of_nothing(shape: tuple[int, ...] = ()) -> PermittedSet:
    """The mean of nothing: NaN."""
    nothing = np.zeros(shape)
    return PermittedSet(nothing, nothing, np.uint8(NAN | VOID) * np.ones(shape, np.uint8))


def _ratio(fmt: Format, exact: bool, p: int, q: Any) -> Enclosure:
    make = enclosure.ratios if isinstance(q, np.ndarray) else enclosure.ratio
    return make(fmt, p, q, exact)
