"""A loss as formulas of d = x − y, written once, over any kind of number.

The kinds: object arrays of :class:`fractions.Fraction` (exact), float64 arrays, and
:class:`~reference.enclosure.Enclosure` (permitted sets). They share ``-``, ``*``, ``/ int``,
``2 *``, ``** 2``, ``abs``, ``<=``, ``.sum(axis)`` and ``.shape``; :mod:`reference.pieces` has what
else a formula in pieces takes.

With d over the broadcast shape, n its number of elements, ℓ the term, g the ``grad_output``:

    none: L = ℓ(d)            sum: L = Σ ℓ(d)       mean: L = (Σ ℓ(d)) / n
    gᵀ ∂L/∂x = ℓ′(d)·g             ℓ′(d)·g               ℓ′(d)·g / n        and ∂L/∂y = −∂L/∂x,

summed over the dimensions along which x (or y) was broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reference.reductions import EVERYTHING, Form, divisor

Elementwise = Callable[..., Any]
ANYTHING = 2.0**60  # so large a magnitude that its roundings are more than any number in use


def nowhere(*parameters: float) -> tuple[float, ...]:
    """The kinks of a term that is smooth."""
    return ()


@dataclass(frozen=True)
class Formula:
    """Term, slope and curvature: functions of d and of the parameters, whose values are ``at``.

    ``term_size``, ``slope_size``: the same on the magnitudes of whatever is added up, by which the
    error of any order of operations is bounded (:mod:`reference.bounds`). ``kinks``: the |d|, by
    the parameters, at which slope or curvature jump. ``degree``: k, where ℓ(2d) is 2ᵏ·ℓ(d).
    ``weight``: what a weighted mean is over, the sum of the ``weights`` or the number of
    ``elements``; empty where the loss takes no weight (see ``weighted.py``).
    ``form``: what is added up; a ``g`` below has the shape of what comes out.
    """

    term: Elementwise
    slope: Elementwise
    curvature: Elementwise
    term_size: Elementwise
    slope_size: Elementwise
    kinks: Callable[..., tuple[float, ...]] = nowhere
    at: tuple[float, ...] = ()
    degree: int | None = None
    weight: str = ""
    form: Form = EVERYTHING

    def given(self, at: tuple[float, ...]) -> Formula:
        """At other values of the parameters."""
        return replace(self, at=at)

    def has_kinks(self) -> bool:
        return bool(self.kinks(*self.at))

    def value(self, d: Any, reduction: str) -> Any:
        """The loss, unrounded at the end."""
        return self.form.reduced(self.term(d, *self.at), reduction)

    def size(self, d: Any, reduction: str) -> Any:
        """The loss of magnitudes."""
        return self.form.reduced(self.term_size(d, *self.at), reduction)

    def vjp(self, d: Any, g: Any, reduction: str) -> Any:
        """gᵀ ∂L/∂x over the shape of d. Clause ``gradient.input``."""
        v = self.slope(d, *self.at) * self.form.spread(g, d.shape, reduction)
        return self.form.divide(v, reduction)

    def jvp(self, d: Any, t: Any, reduction: str) -> Any:
        """∂L/∂x·t_x + ∂L/∂y·t_y, where ``t`` is t_x − t_y, of d's shape.

        Shape: that of d for ``none``, else 0-d. Clauses ``autograd.forward``, ``transforms.jvp``.
        """
        return self._total(self.slope(d, *self.at) * t, reduction)

    def vjp_size(self, d: Any, g: Any, reduction: str) -> Any:
        """The vjp of magnitudes."""
        v = self.slope_size(d, *self.at) * abs(self.form.spread(g, d.shape, reduction))
        return self.form.divide(v, reduction)

    def jvp_size(self, d: Any, t: Any, reduction: str) -> Any:
        """The jvp of magnitudes."""
        return self._total(self.slope_size(d, *self.at) * abs(t), reduction)

    def second_vjp(self, d: Any, g: Any, w: Any, reduction: str) -> tuple[Any, Any]:
        """The vjp of the gradient: what ``w``, a cotangent of ∂L/∂x, gives for x and for ``g``.

        That is ℓ″(d)·w·g (/ n), with d's shape, and the jvp along w. A cotangent of ∂L/∂y counts
        negative, and what y receives is the negative of what x does. Clause
        ``autograd.double_backward``.
        """
        v = self.curvature(d, *self.at) * w * self.form.spread(g, d.shape, reduction)
        return self.form.divide(v, reduction), self.jvp(d, w, reduction)

    def second_vjp_size(self, d: Any, g: Any, w: Any, reduction: str) -> tuple[Any, Any]:
        """The same of magnitudes; where the curvature jumps anything is permitted."""
        size = abs(self.curvature(d, *self.at))
        for kink in self.kinks(*self.at):
            size = np.where(abs(d) == kink, ANYTHING, size)
        v = size * abs(w) * abs(self.form.spread(g, d.shape, reduction))
        return self.form.divide(v, reduction), self.jvp_size(d, w, reduction)

    def _total(self, v: Any, reduction: str) -> Any:
        """The terms ``v`` added up; a mean of nothing is 0 here."""
        total = self.form.reduced(v, "none" if reduction == "none" else "sum")
        if reduction != "mean":
            return total
        return total / divisor(self.form.divided(v.shape), reduction)
