"""Experiments on sizes for which no array of intervals is made: the oracle is a closed form.

Of the large ones the input is one number for each row, the target is 0: the rows hold b, the last
one a spike of S, so that losing it, or counting it twice, changes the result by far more than
rounding does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from conformance.cases.arena import WIDTHS
from conformance.cases.plans import derive
from conformance.cases.values import FORMAT_OF
from conformance.judging.checks import number
from conformance.judging.experiments.bench import (
    LARGE,
    Bench,
    Messages,
    Shape,
    deviation,
    deviation_of_value,
    eighths,
    experiment,
    shared_out,
)
from conformance.judging.observer import Outside, Unavailable
from conformance.judging.seen import Seen
from reference.formats import Floats

BASE = (1 + 2**-7) / 4  # in every dtype; adding its square up in one accumulator drifts
SPIKE = 96.0
ABOVE_2_24 = (4097, 4097)  # its last row begins at element 2^24
ABOVE_2_31 = (65_537, 32_769)  # its last row begins beyond element 2^31


@experiment("value.size")
def _value_size(bench: Bench) -> Messages:
    for reduction, values in _ladder(bench):
        got = bench.ask("large.value", x=bench.made(values), reduction=reduction)["result"]
        text = f"the result of shape {values.shape} ({reduction})"
        yield from deviation_of_value(bench, text, got, values, reduction)


@experiment("gradient.size")
def _gradient_size(bench: Bench) -> Messages:
    for reduction, values in _ladder(bench):
        if bench.dtype == "float16" and reduction == "mean":
            continue  # over so many elements it is subnormal: the cases have an oracle for that
        x = bench.made(values, needs=True)
        got = bench.ask("large.gradient", x=x, g="one", reduction=reduction)["gradient"]
        exact = bench.formula.vjp(values, 1.0, reduction)
        yield from deviation(
            bench, f"the gradient of shape {values.shape} ({reduction})", got, exact, abs(exact)
        )


def _ladder(bench: Bench) -> Iterator[tuple[str, Floats]]:
    """Sizes between those of the cases, and rows of a power of two, an odd number of them.

    Where one kernel gives way to another is anywhere: seed and dtype choose the sizes, four to each
    doubling, and each reduction takes its turn. Magnitudes from 1/128 to 1/4, and 4 at the end.
    """
    part = derive(bench.seed, "ladder", bench.dtype) / 2**32
    shapes: list[Shape] = [(int(2 ** (11 + (k + part) / 4)),) for k in range(24)]
    shapes += [(3, 2**k) for k in range(5, 13)]
    for shape, reduction in zip(shapes, itertools.cycle(bench.reductions), strict=False):
        values = eighths(bench, shape, 1) / 16
        values.flat[-1] = 4
        yield reduction, values


# Elements: beyond a first threshold, and where torch shares work out. Three times a power of two,
# so that a sum of as many powers of two is a number of every dtype.
MANY = (12_288, 49_152)


@experiment("value.nonfinite")
def _value_nonfinite(bench: Bench) -> Messages:
    """One that is not finite among many: a path for large sizes may make something else of it."""
    for reduction, values in _spoiled(bench):
        exact = np.asarray(bench.formula.value(values, reduction))
        got = bench.ask("large.value", x=bench.made(values), reduction=reduction).tensor("result")
        yield from _classes_differ(f"the result ({reduction})", got, exact)


@experiment("gradient.nonfinite")
def _gradient_nonfinite(bench: Bench) -> Messages:
    for reduction, values in _spoiled(bench):
        x = bench.made(values, needs=True)
        seen = bench.ask("large.gradient", x=x, g="ones", reduction=reduction)
        got = seen.tensor("gradient")
        slope = _slope(bench, values, got)
        yield from _classes_differ(f"the gradient ({reduction})", got, slope)
        if reduction == "none" and np.isinf(values).any():  # a mask is no remedy: 0·inf is NaN
            # Of another call: not every graph can be retained.
            seen = bench.ask("large.gradient", x=x, g="zeros", reduction=reduction)
            got = seen.tensor("gradient")
            with np.errstate(invalid="ignore"):  # 0·inf
                masked = 0 * _slope(bench, values, got)
            yield from _classes_differ("the gradient for a grad_output of zeros", got, masked)


def _slope(bench: Bench, values: Floats, got: Seen) -> Floats:
    """In pieces, it may be NaN where a number is none, and of NaN is whatever was seen: no
    comparison holds."""
    slope = np.asarray(bench.formula.slope(values, *bench.formula.at))
    if bench.formula.has_kinks() and got.values.shape == slope.shape:
        free = np.isnan(values) | (np.isinf(values) & np.isnan(got.values))
        slope = np.where(free, got.values, slope)
    return slope


def _spoiled(bench: Bench) -> Iterator[tuple[str, Floats]]:
    specials = np.inf, np.nan
    many = itertools.product(itertools.product(MANY, specials), bench.reductions)
    largest = shared_out(bench, itertools.product((LARGE,), specials))
    for (n, special), reduction in itertools.chain(many, largest):
        values = np.resize(eighths(bench, (MANY[0],), 1) / 16, n)
        values[derive(bench.seed, "spoiled", n, reduction) % n] = special
        yield reduction, values


def _classes_differ(what: str, got: Seen, exact: Floats) -> Messages:
    """A message where another element is NaN, infinite or finite than in ``exact``."""
    seen = got.values
    if seen.shape != exact.shape:
        return  # clauses on every size say so
    wrong = (np.isnan(seen) != np.isnan(exact)) | (np.isposinf(seen) != np.isposinf(exact))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"[{', '.join(map(str, at))}]" if at else ""
        yield f"of many elements {what}{place} is {float(seen[at])}, not {float(exact[at])}"


@experiment("value.subnormal")
def _value_subnormal(bench: Bench) -> Messages:
    """Many subnormal squares: they are exact, and so is their sum in any order.

    A mean may divide first, and lose them all (SPEC, rule 5).
    """
    d = 2.0 ** (FORMAT_OF[bench.coarse].emin // 2 - 2)
    for n, reduction in itertools.product(MANY, bench.reductions):
        if reduction != "mean":
            x = bench.made(np.full(n, d))
            exact = np.asarray(bench.formula.value(x.values, reduction))
            got = bench.ask("large.value", x=x, reduction=reduction).tensor("result").values
            if got.shape == exact.shape and not np.array_equal(got, exact):
                term = float(bench.formula.value(x.values[:1], "sum"))
                yield (
                    f"of {n} terms {number(term)} the result ({reduction}) is "
                    f"{number(float(got.flat[0]))}, not {number(float(exact.flat[0]))}"
                )


@experiment("gradient.subnormal")
def _gradient_subnormal(bench: Bench) -> Messages:
    d = 2.0 ** (FORMAT_OF[bench.coarse].emin - 3)
    for n, reduction in itertools.product(MANY, bench.reductions):
        if reduction != "mean":
            x = bench.made(np.full(n, d), needs=True)
            seen = bench.ask("large.gradient", x=x, g="ones", reduction=reduction)
            got = seen.tensor("gradient").values
            slope = float(bench.formula.slope(np.asarray(d), *bench.formula.at))
            if got.shape == (n,) and not (got == slope).all():
                yield (
                    f"of {n} differences {number(d)} a gradient ({reduction}) is "
                    f"{number(float(got[got != slope][0]))}, not {number(slope)}"
                )


@experiment("value.large")
def _value_large(bench: Bench) -> Messages:
    yield from _value(bench, ABOVE_2_24, True, _reductions(bench))


@experiment("gradient.large")
def _gradient_large(bench: Bench) -> Messages:
    for reduction in _reductions(bench):
        yield from _gradient(bench, ABOVE_2_24, True, reduction)


@experiment("value.wide_index")
def _value_wide_index(bench: Bench) -> Messages:
    _ask_for_memory(bench, ABOVE_2_31, copies=4)
    yield from _value(bench, ABOVE_2_31, False, _reductions(bench)[:1])


@experiment("gradient.wide_index")
def _gradient_wide_index(bench: Bench) -> Messages:
    _ask_for_memory(bench, ABOVE_2_31, copies=6)
    yield from _gradient(bench, ABOVE_2_31, False, _reductions(bench)[0])


def _rows(rows: int) -> Floats:
    values = np.full((rows, 1), BASE)
    values[-1] = SPIKE
    return values


def _value(bench: Bench, shape: tuple[int, int], dense: bool, reductions: list[str]) -> Messages:
    rows = _rows(shape[0])
    x, y = bench.made(rows), bench.made(np.zeros((1, 1)))
    settings = {"width": shape[1], "dense": dense, "reductions": reductions}
    seen = bench.ask("large.results_of_rows", x=x, y=y, **settings)
    for reduction in reductions:
        times = shape[1] if reduction == "sum" else 1
        exact, size = (
            times * np.asarray(f(rows[:, 0], reduction))
            for f in (bench.formula.value, bench.formula.size)
        )
        text = f"the result for {shape[0]}×{shape[1]} elements ({reduction})"
        yield from deviation(bench, text, seen[reduction], exact, size, shape[0] * shape[1], True)


def _gradient(bench: Bench, shape: tuple[int, int], dense: bool, reduction: str) -> Messages:
    """By the column of rows: each is summed over all that it was expanded to."""
    rows = _rows(shape[0])
    x, y = bench.made(rows, needs=True), bench.made(np.zeros((1, 1)))
    settings = {"width": shape[1], "dense": dense, "g": 2.0**-10, "reduction": reduction}
    got = bench.ask("large.gradient_of_rows", x=x, y=y, **settings)["gradient"]
    n = shape[0] * shape[1] if reduction == "mean" else 1
    exact = shape[1] * bench.formula.vjp(rows, 2.0**-10 / n, "sum")
    text = f"the gradient for {shape[0]}×{shape[1]} elements ({reduction})"
    yield from deviation(bench, text, got, exact, exact, shape[1])


def _reductions(bench: Bench) -> list[str]:
    """float16 holds neither such a sum nor the gradient of such a mean. Raises Unavailable.

    Only sums of everything are known in closed form.
    """
    if not bench.adds_everything:
        raise Outside("it looks at sums and means of everything only")
    wanted = ("none",) if bench.dtype == "float16" else ("mean", "sum", "none")
    flat = ("none",) if bench.formula.form.flat else ()  # its protocols look at a column
    found = [r for r in wanted if r in bench.reductions and r not in flat]
    if found:
        return found
    raise Unavailable(f"{bench.dtype} has no range for a sum or mean of so many elements")


def _ask_for_memory(bench: Bench, shape: tuple[int, int], copies: int) -> None:
    """Raise Unavailable where ``copies`` tensors of this shape would not fit."""
    needed = shape[0] * shape[1] * WIDTHS[bench.dtype] * copies
    free = bench.ask("large.free_memory").number("bytes")
    if free < needed:
        raise Unavailable(
            f"{needed / 2**30:.0f} GiB of memory are needed, {free / 2**30:.0f} GiB are free"
        )
