"""A loss with a weight w for each element of input, over rationals or float64 arrays.

With ℓ over the broadcast shape, and w stretched to it as input is:

    none: L = w·ℓ      sum: L = Σ w·ℓ      mean: L = (Σ w·ℓ) / W
    gᵀ ∂L/∂x = w·ℓ′·g       w·ℓ′·g              w·ℓ′·g / W
    gᵀ ∂L/∂w = ℓ·g          ℓ·g                 ℓ·g / n, or (ℓ − L)·g / W,

each summed to its operand's shape. W is n, the number of elements of the broadcast shape, or Σw:
the loss says which (:class:`~reference.losses.formula.Formula`, ``weight``). That sum is over the
elements of w, so each counts once, however often input is stretched.

``…_size`` bound the error of any order of operations, as :mod:`reference.bounds` counts it: the
formula on magnitudes. A quotient by Σw has the error of that sum as well, which is relative to
Σ|w|: so the magnitude is larger by Σ|w|/|Σw|, which is 1 for weights of one sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.losses.formula import Formula
from reference.reductions import unbroadcast


@dataclass(frozen=True)
class Weighted:
    """``d``: x − y over the broadcast shape; ``w``: the weights, of input's shape."""

    formula: Formula
    d: Any
    w: Any
    reduction: str

    def value(self) -> Any:
        return self._reduced(self._term() * self.w) / self._divisor()

    def size(self) -> Any:
        return self._reduced(self._term_size() * abs(self.w)) * self._scale()

    def vjp(self, g: Any) -> Any:
        """gᵀ ∂L/∂x over the broadcast shape."""
        return self.formula.vjp(self.d, g * self.w, "sum") / self._divisor()

    def vjp_size(self, g: Any) -> Any:
        return self.formula.vjp_size(self.d, g * self.w, "sum") * self._scale()

    def weight_vjp(self, g: Any) -> Any:
        """gᵀ ∂L/∂w, of w's shape."""
        counted = self._summed(self._term() * g)
        if self._by_weights():
            counted = counted - self.value() * g
        return counted / self._divisor()

    def weight_vjp_size(self, g: Any) -> Any:
        """That of both terms of ℓ − L, which cancel."""
        counted = self._summed(self._term_size() * abs(g))
        if self._by_weights():
            counted = counted + self.size() * abs(g)
        return counted * self._scale()

    def _by_weights(self) -> bool:
        return self.reduction == "mean" and self.formula.weight == "weights"

    def _divisor(self) -> Any:
        if self._by_weights():
            return self.w.sum()
        return math.prod(self.d.shape) if self.reduction == "mean" else 1

    def _scale(self) -> Any:
        """One over the divisor, in magnitude, and what the error of that adds."""
        scale = 1 / abs(self._divisor())
        return scale * (1 + abs(self.w).sum() * scale) if self._by_weights() else scale

    def _term(self) -> Any:
        return self.formula.value(self.d, "none")

    def _term_size(self) -> Any:
        return self.formula.size(self.d, "none")

    def _reduced(self, terms: Any) -> Any:
        return terms if self.reduction == "none" else np.asarray(terms.sum())

    def _summed(self, v: Any) -> Any:
        """To the shape of w; ``v`` may be one number for all elements."""
        return unbroadcast(np.broadcast_to(v, self.d.shape), self.w.shape)
