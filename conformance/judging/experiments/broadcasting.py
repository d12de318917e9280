"""Experiments on broadcasting: what must raise, and what should warn."""

from __future__ import annotations

import itertools

import numpy as np

from conformance.clauses import WIDER
from conformance.judging.experiments.bench import (
    DRIFTING,
    Bench,
    Messages,
    Shape,
    brief,
    deviation,
    experiment,
)


@experiment("broadcasting.error")
def _error(bench: Bench) -> Messages:
    pairs = [((3,), (4,)), ((2, 3), (3, 2)), ((6,), (2, 3)), ((2, 3), (2, 1, 2))]
    if bench.claims("empty"):
        pairs += [((0,), (2,)), ((0, 3), (0, 4))]
    names = list(bench.reductions)
    for x, y in pairs:
        a, b = bench.tensor(x, 1), bench.tensor(y, 2)
        if _stretch(a.shape, b.shape):  # where a domain has no shapes like these
            continue
        seen = [
            bench.ask("plain.attempts", x=a.leaf(needs), y=b, reductions=names)
            for needs in (False, True)
        ]
        for reduction, attempts in itertools.product(names, seen):
            attempt = attempts.items_of(reduction)
            if "got" in attempt:
                text = f"shapes {x} and {y} ({reduction}) gave {brief(attempt['got'])}"
                yield f"{text} instead of an error"


def _stretch(x: Shape, y: Shape) -> bool:
    """Whether these broadcast."""
    return all(1 in (n, m) or n == m for n, m in zip(x[::-1], y[::-1], strict=False))


@experiment("broadcasting.warning")
def _warning(bench: Bench) -> Messages:
    x, y = bench.tensor((4, 3), 1), bench.tensor((3,), 2)
    seen = bench.ask("broadcasting.warned", x=x, y=y, reduction=bench.reductions[0])
    if not seen.listed("messages"):
        yield "sizes (4, 3) and (3,) gave no UserWarning"


@experiment("broadcasting.gradient")
def _gradient(bench: Bench) -> Messages:
    """A row for many: one large term, and thousands that are each lost beside it in its format."""
    reduction = next((r for r in ("sum", "none") if r in bench.reductions), "mean")
    n = 5 if reduction == "mean" else 3001  # each term of a mean of so many halves would underflow
    rows = np.full((n, 2), bench.fmt.u / 32)
    rows[0] = 1
    x = bench.made(np.zeros(2), needs=True)
    got = bench.ask("plain.trained", x=x, y=bench.made(rows), reduction=reduction)["gradient"]
    exact = -bench.formula.vjp(rows, 1.0, reduction).sum(axis=0)
    text = f"the gradient of an input of (2,) beside {rows.shape} ({reduction})"
    yield from deviation(bench, text, got, exact, abs(exact), len(rows))
    if bench.dtype in WIDER and bench.adds_everything:
        yield from _of_many_rows(bench, reduction)


def _of_many_rows(bench: Bench, reduction: str) -> Messages:
    """Halves have no range for the sum of so many."""
    n = DRIFTING
    row = bench.made(bench.nearest(np.full(2, 0.1), bench.dtype))
    x = bench.made(np.zeros(2), needs=True)
    seen = bench.ask("broadcasting.many_rows", x=x, row=row, rows=n, reduction=reduction)
    exact = -n * bench.formula.vjp(row.values, 1.0, "sum") / (2 * n if reduction == "mean" else 1)
    text = f"the gradient of an input of (2,) beside ({n}, 2) ({reduction})"
    yield from deviation(bench, text, seen["gradient"], exact, abs(exact), n)
