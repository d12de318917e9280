"""Experiments on broadcasting: what must raise, and what should warn."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import torch

from conformance.clauses import WIDER
from conformance.observer.protocols.bench import (
    DRIFTING,
    Bench,
    Messages,
    brief,
    deviation,
    experiment,
    gradients,
)
from conformance.observer.tensors import to_numpy


@experiment("broadcasting.error")
def _broadcasting_error(bench: Bench) -> Messages:
    pairs = [((3,), (4,)), ((2, 3), (3, 2)), ((6,), (2, 3)), ((2, 3), (2, 1, 2))]
    if bench.claims("empty"):
        pairs += [((0,), (2,)), ((0, 3), (0, 4))]
    for (x, y), reduction, needs in itertools.product(pairs, bench.reductions, (False, True)):
        a, b = bench.tensor(x, 1).requires_grad_(needs), bench.tensor(y, 2)
        try:
            result = bench.loss(a, b, reduction)
        except Exception:
            continue
        yield f"shapes {x} and {y} ({reduction}) gave {brief(result)} instead of an error"


@experiment("broadcasting.warning")
def _broadcasting_warning(bench: Bench) -> Messages:
    x, y = bench.tensor((4, 3), 1), bench.tensor((3,), 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench.loss(x, y, bench.reductions[0])
    if not any(issubclass(w.category, UserWarning) for w in caught):
        yield "sizes (4, 3) and (3,) gave no UserWarning"


@experiment("broadcasting.gradient")
def _broadcasting_gradient(bench: Bench) -> Messages:
    """A row for many: one large term, and thousands that are each lost beside it in its format."""
    reduction = next((r for r in ("sum", "none") if r in bench.reductions), "mean")
    n = 5 if reduction == "mean" else 3001  # each term of a mean of so many halves would underflow
    rows = np.full((n, 2), torch.finfo(getattr(torch, bench.dtype)).eps / 64)
    rows[0] = 1
    x = bench.made(np.zeros(2), needs=True)
    (got,) = gradients(bench.loss(x, bench.made(rows), reduction), x)
    exact = -2 * rows.sum(axis=0) / (rows.size if reduction == "mean" else 1)
    text = f"the gradient of an input of (2,) beside {rows.shape} ({reduction})"
    yield from deviation(bench, text, got, exact, abs(exact), len(rows))
    if bench.dtype in WIDER:
        yield from _of_many_rows(bench, reduction)


def _of_many_rows(bench: Bench, reduction: str) -> Messages:
    """Halves have no range for the sum of so many."""
    n = DRIFTING
    row = torch.full((2,), 0.1, dtype=getattr(torch, bench.dtype), device=bench.device)
    x = bench.made(np.zeros(2), needs=True)
    (got,) = gradients(bench.loss(x, row.expand(n, 2), reduction), x)
    exact = -2 * n * to_numpy(row) / (2 * n if reduction == "mean" else 1)
    text = f"the gradient of an input of (2,) beside ({n}, 2) ({reduction})"
    yield from deviation(bench, text, got, exact, abs(exact), n)
