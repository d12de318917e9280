"""Experiments on relations between calls: bits that symmetry and scaling leave alone.

Relations that hold within the permitted set (permutation, concatenation, mean·n = sum, linearity
in ``grad_output``) follow from the clauses on value and gradient, and are not asked again.
"""

from __future__ import annotations

import itertools

import torch

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    eighths,
    experiment,
    same_bits,
)

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
    for reduction in bench.reductions:
        for n in SIZES:
            x, y = (bench.made(eighths(bench, (n,), k)) for k in (1, 2))
            for factor in (0.5, 2.0):
                scaled = bench.loss(factor * x, factor * y, reduction)
                if not same_bits(scaled, factor * factor * bench.loss(x, y, reduction)):
                    text = f"L({factor}·x, {factor}·y) is not {factor * factor}·L(x, y) to the bit"
                    yield f"{text} ({reduction}, n = {n})"


@experiment("metamorphic.negation")
def _negation(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        for n in SIZES:
            x = bench.tensor((n,), 1).requires_grad_()
            y = bench.tensor((n,), 2).requires_grad_()
            result = bench.loss(x, y, reduction)
            g_x, g_y = torch.autograd.grad(result, (x, y), torch.ones_like(result))
            if not same_bits(g_x, -g_y):
                yield f"∂L/∂y is not -∂L/∂x to the bit ({reduction}, n = {n})"
