"""Experiments on tangents in forward mode, which are compared with the reference's own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.cases.case import INTEGER_DTYPES
from conformance.clauses import WIDER
from conformance.judging.experiments.bench import (
    DRIFTING,
    Bench,
    Messages,
    brief,
    deviation,
    eighths,
    experiment,
    narrower,
    two_dtypes,
)
from conformance.judging.experiments.derivatives import (
    NAMES,
    SMALL,
    differentiable,
    rounded,
    shapes_tried,
    values_tried,
)
from conformance.judging.observer import Given, Raised
from conformance.judging.seen import Seen
from reference.formats import Floats


@experiment("autograd.forward")
def _forward(bench: Bench) -> Messages:
    """Tangents of input, of target and of both, in forward mode."""
    for reduction in bench.reductions:
        for shapes in shapes_tried(bench, empty=True):
            x, y = values_tried(bench, shapes)
            t_x, t_y = eighths(bench, shapes[0], 4), eighths(bench, shapes[1], 5)
            yield from _tangent(bench, reduction, x, y, t_x=t_x)
            if bench.claims("target_gradient"):
                yield from _tangent(bench, reduction, x, y, t_y=t_y)
                yield from _tangent(bench, reduction, x, y, t_x=t_x, t_y=t_y)
        yield from _extreme_tangents(bench, reduction)
        yield from _tangents_kept(bench, reduction)
        for kinds in two_dtypes(bench):
            yield from _tangent_of_two_dtypes(bench, kinds, reduction)
    if bench.claims("mixed_dtype"):
        for kind, reduction in zip(INTEGER_DTYPES, itertools.cycle(bench.reductions)):
            yield from _tangent_beside(bench, kind, reduction)
    totals = [reduction for reduction in ("sum", "mean") if reduction in bench.reductions]
    if bench.dtype in WIDER and totals and bench.adds_everything:
        yield from _tangent_of_many(bench, totals[0])


def _tangent(
    bench: Bench,
    reduction: str,
    x: Floats,
    y: Floats,
    *,
    t_x: Floats | None = None,
    t_y: Floats | None = None,
) -> Messages:
    d = x - y
    along = {"input": t_x, "target": t_y}
    got = _tangent_of(bench, reduction, bench.made(x), bench.made(y), **_made(bench, t_x, t_y))
    names = " and ".join(name for name, t in along.items() if t is not None)
    what = f"the tangent along {names} ({reduction}, {x.shape} and {y.shape})"
    if got is None:
        yield f"{what} is missing"
        return
    if not d.size and reduction == "mean" and isinstance(got, Seen):  # 0/0 is NaN or 0 here
        got = Seen(np.nan_to_num(got.values), got.dtype, got.device)
    t_x = np.zeros_like(x) if t_x is None else t_x
    t_y = np.zeros_like(y) if t_y is None else t_y
    exact = np.asarray(bench.formula.jvp(d, t_x - t_y, reduction))
    bound = np.asarray(bench.formula.jvp_size(d, abs(t_x) + abs(t_y), reduction))
    yield from deviation(bench, what, got, exact, bound, d.size, True)


def _made(bench: Bench, t_x: Floats | None, t_y: Floats | None) -> dict[str, Given]:
    tangents = {"t_x": t_x, "t_y": t_y}
    return {name: bench.made(t) for name, t in tangents.items() if t is not None}


def _tangent_of(bench: Bench, reduction: str, x: Given, y: Given, **tangents: Given) -> Any:
    seen = bench.ask("tangents.tangent", x=x, y=y, reduction=reduction, **tangents)
    return seen["tangent"]


def _tangent_of_many(bench: Bench, reduction: str) -> Messages:
    """Halves have no range for the sum of so many."""
    one = bench.nearest(np.full(1, 0.1), bench.dtype)
    x = np.full(DRIFTING, one)
    settings = {"count": x.size, "reduction": reduction}
    seen = bench.ask("tangents.tangent_of_many", one=bench.made(one), **settings)
    exact = np.asarray(bench.formula.jvp(x, x, reduction))
    bound = np.asarray(bench.formula.jvp_size(x, x, reduction))
    what = f"the tangent along input ({reduction}, {x.shape} and {x.shape})"
    yield from deviation(bench, what, seen["tangent"], exact, bound, x.size, True)


def _tangent_of_two_dtypes(bench: Bench, kinds: tuple[str, str], reduction: str) -> Messages:
    """In the wider dtype, to the accuracy of the narrower, which the builtin computes it in."""
    rough = narrower(bench, kinds)
    values = values_tried(bench, SMALL)
    tangents = eighths(bench, (2, 3), 4), eighths(bench, (2, 3), 5)
    benches = [replace(bench, dtype=kind) for kind in kinds]
    x, y = (b.made(v) for b, v in zip(benches, values, strict=True))
    for name in differentiable(bench):
        k = NAMES.index(name)
        along = {("t_x", "t_y")[k]: benches[k].made(tangents[k])}
        got = _tangent_of(bench, reduction, x, y, **along)
        d, t = values[0] - values[1], (-1) ** k * tangents[k]
        text = f"the tangent along {name}, operands {kinds[0]} and {kinds[1]} ({reduction})"
        exact = np.asarray(bench.formula.jvp(d, t, reduction))
        bound = np.asarray(bench.formula.jvp_size(d, t, reduction))
        if not isinstance(got, Seen) or got.dtype != bench.dtype:
            yield f"{text} is {brief(got)}"
            return
        yield from deviation(rough, text, rounded(got, rough), exact, bound, d.size)


def _tangent_beside(bench: Bench, kind: str, reduction: str) -> Messages:
    """Beside an integer operand, which has none: right, or refused, as torch's own is."""
    x, t = eighths(bench, (5,), 1), eighths(bench, (5,), 4)
    numbers = np.array([0.0, 1.0, 1.0, 0.0, 1.0] if kind == "bool" else [0.0, 1.0, 2.0, 3.0, 5.0])
    floating, whole, tangent = bench.made(x), Given(numbers, kind), bench.made(t)
    for name in differentiable(bench):
        first = name == "input"
        operands = (floating, whole) if first else (whole, floating)
        try:
            got = _tangent_of(bench, reduction, *operands, **{"t_x" if first else "t_y": tangent})
        except Raised:
            continue
        what = f"the tangent along {name} beside {kind} ({reduction})"
        exact = np.asarray(bench.formula.jvp(x - numbers, t, reduction))
        bound = np.asarray(bench.formula.jvp_size(x - numbers, t, reduction))
        yield from deviation(bench, what, got, exact, bound, 5)


def _tangents_kept(bench: Bench, reduction: str) -> Messages:
    """The tangents are the caller's, as the operands are."""
    x, y, t_x, t_y = (bench.made(eighths(bench, (5,), k)) for k in range(4))
    tangents = {"t_x": t_x, "t_y": t_y} if bench.claims("target_gradient") else {"t_x": t_x}
    seen = bench.ask("tangents.tangent", x=x, y=y, reduction=reduction, **tangents)
    after = [t for t in seen.listed("along") if t is not None]
    for one, kept in zip(after, tangents.values(), strict=True):
        if not np.array_equal(one.values, kept.values):
            yield f"a call wrote to the tangents of its operands ({reduction})"


def _extreme_tangents(bench: Bench, reduction: str) -> Messages:
    """A sum beyond float16, of which the mean is not; one element that is not a number."""
    if reduction == "mean":
        zero = np.zeros(5000)
        operands = {"x": bench.made(zero + 8), "y": bench.made(zero)}
        plain = bench.ask("plain.loss", **operands, reduction="mean").tensor("result")
        # Where the value overflows as well, that says so already.
        if np.isfinite(plain.values).all():
            yield from _tangent(bench, reduction, zero + 8, zero, t_x=zero + 1)
    x, t = eighths(bench, (5,), 1), eighths(bench, (5,), 4)
    x[2] = np.nan
    operands = {"x": bench.made(x), "y": bench.made(np.zeros(5)), "t_x": bench.made(t)}
    got = _tangent_of(bench, reduction, **operands)
    hidden = np.isnan(bench.formula.jvp(x, t, reduction))
    if bench.formula.has_kinks() and isinstance(got, Seen):
        return  # of NaN the slope is NaN or 0: no comparison holds
    if not isinstance(got, Seen) or not np.array_equal(np.isnan(got.values), hidden):
        yield f"the tangent hides that an element of input is NaN ({reduction})"
