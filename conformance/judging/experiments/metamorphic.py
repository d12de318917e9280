"""Experiments on relations between calls: bits that symmetry and scaling leave alone.

Relations that hold within the permitted set (permutation, concatenation, mean·n = sum, linearity
in ``grad_output``) follow from the clauses on value and gradient, and are not asked again.
"""

from __future__ import annotations

import itertools

import numpy as np

from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    eighths,
    experiment,
    same_bits,
)
from conformance.judging.observer import Outside
from conformance.judging.seen import Seen

SIZES = (6, 67)
PAIRS = 6


@experiment("metamorphic.symmetry")
def _symmetry(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        for n, k in itertools.product(SIZES, range(PAIRS)):
            x, y = bench.tensor((n,), 2 * k), bench.tensor((n,), 2 * k + 1)
            if not same_bits(bench.loss(x, y, reduction), bench.loss(y, x, reduction)):
                yield f"L(x, y) and L(y, x) differ in bits ({reduction}, n = {n})"


@experiment("metamorphic.scaling")
def _scaling(bench: Bench) -> Messages:
    degree = bench.formula.degree or 0
    for reduction in bench.reductions:
        for n in SIZES:
            x, y = (eighths(bench, (n,), k) for k in (1, 2))
            plainly = bench.loss(bench.made(x), bench.made(y), reduction)
            for factor in (0.5, 2.0):
                scaled = bench.loss(bench.made(factor * x), bench.made(factor * y), reduction)
                if not same_bits(scaled, _times(plainly, factor**degree)):
                    text = f"L({factor}·x, {factor}·y) is not {factor**degree}·L(x, y) to the bit"
                    yield f"{text} ({reduction}, n = {n})"


def _times(seen: object, factor: float) -> object:
    """Exact: the factor is a power of two, and nothing is near an end of its format."""
    return Seen(factor * seen.values, seen.dtype, seen.device) if isinstance(seen, Seen) else seen


@experiment("metamorphic.negation")
def _negation(bench: Bench) -> Messages:
    result = bench.target.domain.result
    if result is not None and any(result.rounded):
        raise Outside("a gradient that is rounded on its way is no negative to the bit")
    for reduction in bench.reductions:
        for n in SIZES:
            x, y = bench.tensor((n,), 1).leaf(), bench.tensor((n,), 2).leaf()
            found = bench.ask("plain.both", x=x, y=y, reduction=reduction).tensors("gradients")
            if len(found) != 2:
                yield f"the result cannot be trained through ({reduction}, n = {n})"
                continue
            g_x, g_y = found
            if not np.array_equal(g_x.values, -g_y.values, equal_nan=True):
                yield f"∂L/∂y is not -∂L/∂x to the bit ({reduction}, n = {n})"
