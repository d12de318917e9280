"""Permitted sets by counting roundings: for tangents and second derivatives.

Where the order of operations is free (autograd, a hand-made rule and a transform each choose their
own), the a priori bound says all there is to say: a sum of products in which every term passes
through k roundings is off by no more than γ_k·Σ|terms|, whatever the order (Higham, *Accuracy and
Stability of Numerical Algorithms*, lemma 3.1), as long as nothing over- or underflows.
"""

from __future__ import annotations

from reference.enclosure import PermittedSet, depth, gamma
from reference.formats import Floats, Format

# Each factor rounded once (x - y, 2/n, w_x - w_y), four products or quotients, a cast, the rounding
# of a sum and of its further dimensions, and the reference's own roundings.
ROUNDINGS = 12


def counted(fmt: Format, value: Floats, magnitude: Floats, terms: int = 1) -> PermittedSet:
    """All within γ·``magnitude`` of ``value``.

    ``value``: the formula in float64, on operands that ``fmt`` holds. ``magnitude``: the same
    formula on the absolute values of its factors. ``terms``: how many products are added to make
    one element; a sum of halves is accumulated in binary32. Shapes: all the same.
    """
    relative = gamma(ROUNDINGS, fmt.u) + gamma(depth(terms), fmt.accumulator.u)
    slack = relative * magnitude
    return PermittedSet(value - slack, value + slack, None)
