"""Permitted sets by counting roundings: for tangents and second derivatives.

Where the order of operations is free (autograd, a hand-made rule and a transform each choose their
own), the a priori bound says all there is to say: a sum of products in which every term passes
through k roundings is off by no more than γ_k·Σ|terms|, whatever the order (Higham, *Accuracy and
Stability of Numerical Algorithms*, lemma 3.1), as long as nothing overflows; below the smallest
normal number a rounding is off by up to η/2 instead. One of a quotient that is doubled and one of
the result make 2·η at most; the terms of a sum are to be normal numbers, or its accumulator wide.
"""

from __future__ import annotations

import numpy as np

from reference.enclosure import PermittedSet, depth, gamma
from reference.formats import Floats, Format

# Each factor rounded once (x - y, 2/n, w_x - w_y), four products or quotients, a cast, the rounding
# of a sum and of its further dimensions, and the reference's own roundings.
ROUNDINGS = 12


def counted(fmt: Format, value: Floats, magnitude: Floats, terms: int = 1) -> PermittedSet:
    """All within :func:`slack` of ``value``.

    ``value``: the formula in float64, on operands that ``fmt`` holds. Shapes: all the same.
    """
    wide = slack(fmt.u, fmt.accumulator.u, fmt.eta, magnitude, terms)
    return PermittedSet(value - wide, value + wide, None)


def slack(u: float, u_sum: float, eta: float, magnitude: Floats, terms: int = 1) -> Floats:
    """How far a result may be off: γ·``magnitude``, of its shape, and 2·η.

    ``magnitude``: the formula on the absolute values of its factors. ``terms``: how many products
    are added to make one element. ``u``, ``u_sum``: the unit roundoffs of the format and of the
    accumulator, which is binary32 for halves. ``eta``: the format's smallest subnormal; a
    magnitude of 0 takes none of it, since nothing rounds there.
    """
    relative = gamma(ROUNDINGS, u) + gamma(depth(terms, u_sum), u_sum)
    return np.asarray(relative * magnitude + np.where(magnitude == 0, 0.0, 2 * eta))
