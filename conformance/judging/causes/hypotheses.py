"""Hypotheses on a wrong value or gradient: each says what the target would have returned.

A hypothesis looks at a trial and yields variants: what the answer is if it is true. Where it has a
parameter (a factor, a bound), the first trial gives it, and the others must confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.cases.case import FLOAT_DTYPES
from conformance.cases.layouts import place
from conformance.cases.values import elements, in_buffer
from conformance.judging.cause import Cause
from conformance.judging.causes.trials import Trial
from reference.formats import BFLOAT16, BINARY16, BINARY32, Floats, Format, round_nearest

TF32 = Format("tf32", 11, -126, 127)
NAMES = {
    BINARY32: "float32",
    BINARY16: "float16",
    BFLOAT16: "bfloat16",
    TF32: "10 bits, as in TF32",
}


@dataclass(frozen=True)
class Variant:
    """One form of a hypothesis. ``key``: the same in every trial. ``values``: what it predicts.

    ``magnitude``: what roundings are relative to, where that is not ``values``.
    ``parameter``: what the first trial told of it.
    """

    id: str
    key: str
    text: str
    values: Floats
    magnitude: Floats | None = None
    parameter: float | None = None


Hypothesis = Callable[[Trial, float | None], Iterator[Variant]]


def surviving(trials: Sequence[Trial], hypotheses: Sequence[Hypothesis]) -> list[Variant]:
    """The variants that predict every trial, of which two at least are wrong."""
    first, *others = trials
    found = []
    for hypothesis in hypotheses:
        for variant in hypothesis(first, None):
            if not first.matches(variant.values, variant.magnitude):
                continue
            if first.tells() + _support(variant, hypothesis, others) >= 2:
                found.append(variant)
    return found


def _support(variant: Variant, hypothesis: Hypothesis, others: Sequence[Trial]) -> int:
    """How many of the other trials are wrong as predicted; far below 0 where one is not."""
    count = 0
    for trial in others:
        same = (v for v in hypothesis(trial, variant.parameter) if v.key == variant.key)
        if not any(trial.allows(v.values, v.magnitude) for v in same):
            return -len(others)
        count += trial.tells()
    return count


def cause_of(variants: Sequence[Variant]) -> Cause | None:
    """What the survivors agree on; None where they do not."""
    if not variants or len({v.id for v in variants}) > 1:
        return None
    return Cause(variants[0].id, variants[0].text)


def what(t: Trial) -> str:
    """The subject of a sentence."""
    if not t.is_value:
        return f"The gradient of {t.aspect.removeprefix('gradient.')}"
    return {"none": "Every element", "sum": "The sum", "mean": "The mean"}[t.reduction]


def figure(v: float) -> str:
    """A factor or bound in a few digits, as a fraction where it is one."""
    if not math.isfinite(v):
        return str(v)
    for q in (1, 2, 3, 4, 8, 16):
        if v and abs(v * q - round(v * q)) < 1e-6 * abs(v * q):
            p = round(v * q)
            return str(p) if q == 1 else f"{p}/{q}"
    return f"{v:.6g}"


# --- factors and counts


def constant_factor(t: Trial, fitted: float | None) -> Iterator[Variant]:
    factor = _ratio(t) if fitted is None else fitted
    if factor is None or abs(factor - 1) < 8 * t.slack or factor == -1:
        return
    if fitted is None and factor == 0:
        return
    text = f"{what(t)} is {figure(factor)} times what it should be: a stray factor."
    yield Variant(
        "constant_factor",
        "factor",
        text,
        factor * t.right,
        abs(factor) * t.magnitude,
        factor,
    )


def _ratio(t: Trial) -> float | None:
    """By how much all that was seen is too large, where that is one factor."""
    if t.seen is None or t.seen.values.shape != t.right.shape:
        return None
    usable = np.isfinite(t.right) & (t.right != 0) & np.isfinite(t.seen.values)
    if not usable.any():
        return None
    largest = np.argmax(np.where(usable, np.abs(t.right), 0))
    return float(t.seen.values.flat[largest] / t.right.flat[largest])


def missing_count(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.reduction == "mean":
        text = f"{what(t)} is not divided by n: it is n times too large (here n = {t.n})."
        yield Variant("missing_count", "n", text, t.right * t.n, t.magnitude * t.n)


def missing_scale(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.reduction == "mean" and not t.is_value:
        text = f"{what(t)} lacks its factor 2/n: it is (x − y) times grad_output."
        yield Variant("missing_scale", "2/n", text, t.right * t.n / 2, t.magnitude * t.n / 2)


def mean_of_means(t: Trial, _: float | None) -> Iterator[Variant]:
    """By parts of a fixed size, or so many parts, along the first dimension or all elements."""
    if t.reduction != "mean" or not t.n or not t.shape:
        return
    terms = np.broadcast_to(t.d * t.d if t.is_value else t.scale * t.d * t.g, t.shape)
    for along, count in (("elements", t.n), ("rows", t.shape[0])):
        for name, size in _part_sizes(count, along):
            starts = np.arange(count) // size
            share = count / (np.bincount(starts)[starts] * (starts[-1] + 1))
            weight = share.reshape(
                t.shape if along == "elements" else (-1,) + (1,) * (t.d.ndim - 1)
            )
            text = f"It is the mean of the means of {name}, of which the last is smaller."
            if t.is_value:
                values, magnitude = np.asarray((terms * weight).mean()), None
            else:
                values, magnitude = t.fold(terms * weight), t.magnitude * share.max()
            yield Variant("mean_of_means", name, text, values, magnitude)


def _part_sizes(count: int, along: str) -> Iterator[tuple[str, int]]:
    for size in (2, 3, 4, 8, 10, 16, 32, 64, 100, 128, 256, 512, 1000, 1024, 4096):
        yield f"every {size} {along}", size
    for parts in (2, 3, 4, 8, 16, 32):
        yield f"{parts} parts of the {along}", -(-count // parts)


def extra_count(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.reduction != "mean" and t.n:
        text = f"{what(t)} is divided by n (here {t.n}), which only a mean should be."
        yield Variant("extra_count", "n", text, t.right / t.n, t.magnitude / t.n)


def wrong_count(t: Trial, fitted: float | None) -> Iterator[Variant]:
    if t.reduction != "mean" or not t.n or not t.shape:
        return
    for name, count in _counts(t):
        if count and count != t.n:
            text = f"{what(t)} is divided by {name} (here {figure(count)}), not by n = {t.n}."
            factor = t.n / count
            yield Variant("wrong_count", name, text, t.right * factor, t.magnitude * factor)
        elif count:
            yield Variant("wrong_count", name, "", t.right, t.magnitude)
    ratio = _ratio(t)
    more = fitted if fitted is not None else t.n / ratio - t.n if ratio else None
    if more is not None and t.n + more > 0 and abs(more) < 16:
        text = f"{what(t)} is divided by n + {figure(more)}, not by n."
        text = text.replace("+ -", "− ")
        factor = t.n / (t.n + more)
        yield Variant(
            "wrong_count", "n + c", text, t.right * factor, t.magnitude * factor, float(more)
        )


def _counts(t: Trial) -> Iterator[tuple[str, float]]:
    x, y = t.case.input, t.case.target
    yield "the size of the input", x.size
    yield "the size of the target", y.size
    if not t.is_value:
        yield "the size of the operand itself", t.operand.size
    if t.shape:
        yield "the batch size", t.shape[0]
        yield "the size of the last dimension", t.shape[-1]
    if len(t.shape) > 1:
        yield "the size without the batch", t.n // max(t.shape[0], 1)
    for width in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        yield f"n rounded up to a multiple of {width}", t.n + -t.n % width
    for fmt in dict.fromkeys((t.fmt, BINARY16, BFLOAT16)):
        if fmt.precision < 24:
            yield f"n rounded to {NAMES[fmt]}", float(round_nearest(t.n, fmt))
            reciprocal = float(round_nearest(1 / t.n, fmt))
            if reciprocal:
                yield f"n, by 1/n rounded to {NAMES[fmt]}", 1 / reciprocal
    for name, operand in (("input", x), ("target", y)):
        yield f"the size of the {name}'s storage", place(operand.layout, operand.shape).length


# --- shape of the result


def reduced(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.is_value and t.reduction == "none" and t.n:
        squares = t.terms
        for name, value in (("mean", squares.mean()), ("sum", squares.sum())):
            text = f"Without a reduction the result is the {name} of all elements."
            yield Variant("reduced", name, text, np.asarray(value))


def not_reduced(t: Trial, _: float | None) -> Iterator[Variant]:
    if not t.is_value or t.reduction == "none" or not t.n:
        return
    squares = t.terms
    text = f"The {t.reduction} is not reduced: it is the elements, in shape {t.shape}."
    yield Variant("not_reduced", "elements", text, squares)
    if t.reduction == "mean":
        text = "The mean is not reduced: it is the elements, each divided by n."
        yield Variant("not_reduced", "divided", text, squares / t.n)
    for axis, name in ((0, "first"), (-1, "last")):
        if t.shape:
            text = f"The {t.reduction} is taken over the {name} dimension alone."
            part = squares.mean(axis) if t.reduction == "mean" else squares.sum(axis)
            yield Variant("not_reduced", name, text, np.asarray(part))


def result_shape(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.is_value and t.seen is not None and t.seen.values.size == t.right.size:
        shape = t.seen.values.shape
        text = f"The elements are right, but in shape {shape}, not {t.right.shape}."
        yield Variant("result_shape", "shape", text, t.right.reshape(shape))


# --- formulas: of d, x, y the term instead of d², and its derivative by d


def _huber(d: Floats) -> Floats:
    return np.where(np.abs(d) <= 1, d * d, 2 * np.abs(d) - 1)


Formula = tuple[str, Callable[[Floats, Floats, Floats], Floats], Callable[[Floats], Floats] | None]
FORMULAS: tuple[Formula, ...] = (
    ("|x − y|", lambda d, x, y: np.abs(d), np.sign),
    ("x − y", lambda d, x, y: d, np.ones_like),
    ("the root of |x − y|", lambda d, x, y: np.sqrt(np.abs(d)), None),
    ("|x − y|³", lambda d, x, y: np.abs(d) ** 3, lambda d: 3 * d * np.abs(d)),
    ("(x − y)⁴", lambda d, x, y: d**4, lambda d: 4 * d**3),
    ("x² − y²", lambda d, x, y: x * x - y * y, None),
    ("|x² − y²|", lambda d, x, y: np.abs(x * x - y * y), None),
    ("(x + y)²", lambda d, x, y: (x + y) ** 2, None),
    ("max(x − y, 0)²", lambda d, x, y: np.maximum(d, 0) ** 2, lambda d: 2 * np.maximum(d, 0)),
    ("min(x − y, 0)²", lambda d, x, y: np.minimum(d, 0) ** 2, lambda d: 2 * np.minimum(d, 0)),
    ("linear beyond 1 (Huber)", lambda d, x, y: _huber(d), lambda d: 2 * np.clip(d, -1, 1)),
    (
        "half as much and linear beyond 1 (smooth L1)",
        lambda d, x, y: _huber(d) / 2,
        lambda d: np.clip(d, -1, 1),
    ),
    ("log cosh(x − y)", lambda d, x, y: np.logaddexp(d, -d) - math.log(2), np.tanh),
    ("(exp(x) − exp(y))²", lambda d, x, y: (np.exp(x) - np.exp(y)) ** 2, None),
    ("(log(1 + x) − log(1 + y))²", lambda d, x, y: (np.log1p(x) - np.log1p(y)) ** 2, None),
)


def other_formula(t: Trial, _: float | None) -> Iterator[Variant]:
    if {t.case.input.dtype, t.case.target.dtype} - set(FLOAT_DTYPES):
        return  # what is wrong with integers alone is no formula
    with np.errstate(all="ignore"):
        if t.is_value:
            yield from _other_values(t)
        else:
            yield from _other_gradients(t)


def _other_values(t: Trial) -> Iterator[Variant]:
    for name, term, _ in FORMULAS:
        squares = np.broadcast_to(term(t.d, t.x, t.y), t.shape)
        text = f"{what(t)} is made of {name}, not of (x − y)²."
        size = t.reduce(np.abs(squares))
        yield Variant("other_formula", name, text, t.reduce(squares), size)
    if t.reduction != "none":
        text = f"{what(t)} is a root: it is the square root of what it should be."
        yield Variant("other_formula", "root", text, np.sqrt(t.right))
        if len(t.shape) > 1 and t.n:
            rows = np.sqrt(t.terms.reshape(t.shape[0], -1).sum(1))
            text = "It adds up the Euclidean distances of rows, not their squares."
            total = rows.sum() if t.reduction == "sum" else rows.mean()
            yield Variant("other_formula", "rows", text, np.asarray(total))


def _other_gradients(t: Trial) -> Iterator[Variant]:
    for name, _, derivative in FORMULAS:
        if derivative is not None:
            terms = derivative(t.d) * t.scale / 2 * t.g
            text = f"{what(t)} is that of {name}, not of (x − y)²."
            yield Variant("other_formula", name, text, t.fold(terms), np.abs(t.fold(np.abs(terms))))
    for name, terms in (
        ("|grad_output|", t.slopes_of(t.d) * np.abs(t.g)),
        ("|x − y|", np.abs(t.slopes_of(t.d)) * t.g),
    ):
        text = f"{what(t)} has lost a sign: it is made with {name}."
        values = t.fold(terms)
        yield Variant("other_formula", f"{name} in gradient", text, values, t.magnitude)
    if t.reduction != "none" and t.n:
        root = np.sqrt(t.reduce(t.terms))
        text = f"{what(t)} is that of the root of the {t.reduction}."
        yield Variant("other_formula", "root", text, t.right / (2 * root), t.magnitude / (2 * root))


def constant_added(t: Trial, fitted: float | None) -> Iterator[Variant]:
    if not t.is_value or t.seen is None or t.seen.values.shape != t.right.shape or not t.n:
        return
    terms = t.n if t.reduction == "sum" else 1
    if fitted is None:
        smallest = np.argmin(np.where(np.isfinite(t.right), np.abs(t.right), np.inf))
        fitted = float((t.seen.values - t.right).flat[smallest]) / terms
        if not np.isfinite(fitted) or fitted <= 0:
            return
    text = f"{fitted:.6g} is added to every square."
    yield Variant("constant_added", "epsilon", text, t.right + fitted * terms, None, fitted)


# --- arithmetic


def cancellation(t: Trial, _: float | None) -> Iterator[Variant]:
    with np.errstate(all="ignore"):
        for fmt in dict.fromkeys((t.fmt, t.fmt.accumulator)):
            x, y = t.x, t.y

            def r(v: Floats, fmt: Format = fmt) -> Floats:
                return round_nearest(v, fmt)

            if not t.is_value:
                terms = r(r(t.scale * x * t.g) - r(t.scale * y * t.g))
                text = f"{what(t)} is 2·x·g − 2·y·g, computed apart: the difference cancels."
                yield Variant("cancellation", fmt.name, text, t.fold(terms))
                continue
            xx, xy, yy = r(x * x), r(r(2 * x) * y), r(y * y)
            for name, terms in (
                ("x² − 2xy + y²", r(r(xx - xy) + yy)),
                ("x² + y² − 2xy", r(r(xx + yy) - xy)),
                ("(x² − xy) − (xy − y²)", r(r(xx - r(x * y)) - r(r(x * y) - yy))),
            ):
                text = f"The square is computed as {name}, which cancels where x ≈ y."
                size = t.reduce(np.abs(terms))
                yield Variant("cancellation", name + fmt.name, text, t.reduce(terms), size)


def intermediate_range(t: Trial, _: float | None) -> Iterator[Variant]:
    with np.errstate(all="ignore"):
        d, r = t.d, t.rounded
        if not t.is_value:
            text = "The gradient is made from the loss, d²/d: d² over- or underflows."
            terms = t.scale * t.g * r(r(d * d) / d)
            size = np.abs(t.fold(np.abs(terms)))
            yield Variant("intermediate_range", "loss", text, t.fold(terms), size)
            return
        for k in (2.0, 4.0):
            text = f"The square is ({k:g}·d)²/{k * k:g}, and ({k:g}·d)² overflows."
            squares = r(r(r(k * d) ** 2) / (k * k))
            yield Variant("intermediate_range", f"{k:g}", text, t.reduce(squares))
        if t.reduction == "mean" and t.n:
            text = f"Every square is divided by n in {t.dtype} before it is added: it underflows."
            yield Variant("intermediate_range", "terms", text, np.asarray(r(r(d * d) / t.n).sum()))
            text = f"It adds (d/√n)² in {t.dtype}, which underflows."
            parts = r(r(d / math.sqrt(t.n)) ** 2)
            yield Variant("intermediate_range", "root n", text, np.asarray(parts.sum()))


def narrow_dtype(t: Trial, _: float | None) -> Iterator[Variant]:
    with np.errstate(all="ignore"):
        for fmt in (BINARY32, TF32, BINARY16, BFLOAT16):
            if fmt.precision < t.fmt.precision or fmt.emax < t.fmt.emax:
                yield from _in_format(t, fmt)


def _in_format(t: Trial, fmt: Format) -> Iterator[Variant]:
    def r(v: Floats) -> Floats:
        return t.rounded(round_nearest(v, fmt))

    def cut(v: Floats) -> Floats:  # towards zero
        unit = np.ldexp(1.0, np.frexp(v)[1] - fmt.precision)
        return np.where(np.isfinite(v), np.trunc(v / unit) * unit, v)

    x, y = elements(t.case.input), elements(t.case.target)
    name = NAMES[fmt]
    stages: list[tuple[str, Floats, Floats]] = [
        ("the operands are", t.rounded(r(x) - r(y)), t.g),
        ("the input is", t.rounded(r(x) - t.y), t.g),
        ("the target is", t.rounded(t.x - r(y)), t.g),
        ("operands and difference are", r(r(x) - r(y)), t.g),
        ("the difference is", r(t.d), t.g),
        ("the difference is cut and", cut(t.d), t.g),
    ]
    if not t.is_value:
        stages += [
            ("grad_output is", t.d, r(t.g)),
            ("operands and grad_output are", r(t.d), r(t.g)),
        ]
    for stage, d, g in stages:
        text = f"Computed too coarsely: {stage} rounded to {name}."
        if t.is_value:
            yield Variant("narrow_dtype", stage + name, text, t.reduce(d * d))
        else:
            terms = t.slopes_of(d) * g
            yield Variant(
                "narrow_dtype", stage + name, text, t.fold(terms), np.abs(t.fold(np.abs(terms)))
            )
            coarse = f"{what(t)} is computed in {name}."
            values = t.fold(r(terms))
            yield Variant("narrow_dtype", stage + name + "result", coarse, values)
    if t.is_value:
        text = f"Computed too coarsely: the squares are rounded to {name}."
        yield Variant("narrow_dtype", "squares" + name, text, t.reduce(r(t.terms)))
        d = r(r(x) - r(y))
        text = f"It is computed in {name}."
        yield Variant("narrow_dtype", "all" + name, text, r(t.reduce(r(d * d))))
    text = f"{what(t)} is rounded to {name}."
    yield Variant("narrow_dtype", "result" + name, text, r(t.right))


def narrow_accumulator(t: Trial, _: float | None) -> Iterator[Variant]:
    with np.errstate(all="ignore"):
        if t.is_value and t.reduction == "mean" and t.n:
            total = t.rounded(t.terms.sum())
            text = f"The sum overflows in {t.dtype} before it is divided by n: too narrow for it."
            if np.isinf(total):
                yield Variant("narrow_accumulator", "overflow", text, total / t.n)
            else:
                yield Variant("narrow_accumulator", "overflow", "", t.right)


def flushed_subnormals(t: Trial, _: float | None) -> Iterator[Variant]:
    tiny = t.fmt.tiny

    def flush(v: Floats) -> Floats:
        return np.where(np.abs(v) < tiny, 0.0, v)

    parts = [
        ("operands", t.rounded(flush(t.x) - flush(t.y))),
        ("differences", flush(t.d)),
        ("operands and differences", flush(t.rounded(flush(t.x) - flush(t.y)))),
    ]
    with np.errstate(all="ignore"):
        for name, d in parts:
            text = f"Subnormal {name} are taken for 0."
            if t.is_value:
                yield Variant("flushed_subnormals", name, text, t.reduce(d * d))
            else:
                terms = t.slopes_of(d) * t.g
                yield Variant("flushed_subnormals", name, text, t.fold(terms))
        text = "Subnormal results are flushed to 0."
        if t.is_value:
            squares = flush(t.rounded(t.terms))
            yield Variant("flushed_subnormals", "squares", text, t.reduce(squares))
        else:
            yield Variant("flushed_subnormals", "results", text, flush(t.right))
            own = t.x if t.sign > 0 else t.y
            values = np.where((np.abs(own) < tiny) & (own != 0), 0.0, t.right)
            text = "Where the operand is subnormal it is taken for 0, and has no gradient."
            yield Variant("flushed_subnormals", "operand", text, values)


def clamped(t: Trial, fitted: float | None) -> Iterator[Variant]:
    """The bound: what no element goes beyond; for a sum, one of the round ones."""
    if t.seen is None or t.seen.values.shape != t.right.shape or not t.seen.values.size:
        return
    largest = float(np.abs(t.seen.values).max())
    bounds = [fitted] if fitted is not None else [largest, 1.0, 10.0, 100.0, 1e3, 1e4, 1e6]
    with np.errstate(all="ignore"):
        for c in dict.fromkeys(bounds):
            if not 0 < c < t.fmt.omega / 2:
                continue
            if not t.is_value:
                text = f"{what(t)} is clipped to ±{figure(c)}."
                yield Variant("clamped", "result", text, np.clip(t.right, -c, c), None, c)
                terms = t.slopes_of(np.clip(t.d, -c, c)) * t.g
                text = f"Differences are limited to ±{figure(c)}."
                size = np.abs(t.fold(np.abs(terms)))
                yield Variant("clamped", "d", text, t.fold(terms), size, c)
                continue
            d = np.clip(t.d, -c, c)
            text = f"Differences are limited to ±{figure(c)}."
            yield Variant("clamped", "d", text, t.reduce(d * d), None, c)
            text = f"Squares are limited to {figure(c)}."
            yield Variant("clamped", "s", text, t.reduce(np.minimum(t.terms, c)), None, c)


def nonfinite_masked(t: Trial, _: float | None) -> Iterator[Variant]:
    with np.errstate(all="ignore"):
        if t.is_value:
            yield from _masked_value(t)
        else:
            yield from _masked_gradient(t)


def _masked_value(t: Trial) -> Iterator[Variant]:
    s = t.rounded(t.terms)
    omega = t.fmt.omega
    x, y = (np.nan_to_num(v, nan=0.0, posinf=np.inf, neginf=-np.inf) for v in (t.x, t.y))
    bounded = [np.nan_to_num(v, nan=np.nan, posinf=omega, neginf=-omega) for v in (t.x, t.y)]
    for name, squares in (
        ("NaN counts as 0", np.where(np.isnan(s), 0.0, s)),
        ("NaN in an operand counts as 0", t.rounded((x - y) ** 2)),
        ("infinite squares become the largest number", np.where(np.isposinf(s), omega, s)),
        ("infinite squares count as 0", np.where(np.isposinf(s), 0.0, s)),
        ("what is not finite counts as 0", np.where(np.isfinite(s), s, 0.0)),
        ("equal infinities count as equal: their difference is 0", np.where(t.x == t.y, 0.0, s)),
        ("infinite operands become the largest number", (bounded[0] - bounded[1]) ** 2),
    ):
        text = f"{name[0].upper()}{name[1:]}."
        yield Variant("nonfinite_masked", name, text, t.reduce(np.broadcast_to(squares, t.shape)))
    if t.reduction == "mean" and t.n:
        kept = s[~np.isnan(s)]
        mean = np.asarray(kept.mean() if kept.size else np.nan)
        text = "The mean leaves out what is NaN, and divides by how many are left."
        yield Variant("nonfinite_masked", "nanmean", text, mean)


def _masked_gradient(t: Trial) -> Iterator[Variant]:
    terms = t.rounded(t.slopes_of(t.d) * t.g)
    omega = t.fmt.omega
    g = np.broadcast_to(t.g, t.shape)
    finite = np.nan_to_num(t.g, nan=0.0, posinf=0.0, neginf=0.0)
    for name, changed in (
        ("a NaN in the gradient becomes 0", np.where(np.isnan(terms), 0.0, terms)),
        ("an infinite gradient becomes the largest number", np.clip(terms, -omega, omega)),
        ("what is not finite in the gradient becomes 0", np.where(np.isfinite(terms), terms, 0.0)),
        ("NaN and infinities in grad_output count as 0", t.slopes_of(t.d) * finite),
        ("where grad_output is 0 the gradient is 0, be d infinite", np.where(g == 0, 0.0, terms)),
        ("where x = y the gradient is 0, be they infinite", np.where(t.x == t.y, 0.0, terms)),
        ("a NaN difference has no gradient", np.where(np.isnan(t.d), 0.0, terms)),
        ("an infinite difference has no gradient", np.where(np.isinf(t.d), 0.0, terms)),
    ):
        text = f"{name[0].upper()}{name[1:]}."
        yield Variant("nonfinite_masked", name, text, t.fold(changed))


# --- gradients


def wrong_sign(t: Trial, _: float | None) -> Iterator[Variant]:
    if not t.is_value:
        text = f"{what(t)} has the wrong sign."
        yield Variant("wrong_sign", "sign", text, -t.right, t.magnitude)


def zero_gradient(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.is_value:
        return
    own = t.x if t.sign > 0 else t.y
    small = np.abs(own) < t.fmt.tiny, np.abs(t.right) < 2.0**20 * t.fmt.tiny
    if not np.all(small[0] & (own != 0)) and not small[1].all() and np.isfinite(t.right).any():
        text = f"{what(t)} is 0 everywhere: nothing flows back."
        yield Variant("no_gradient", "zero", text, np.zeros(t.operand.shape))


def grad_output_taken(t: Trial, _: float | None) -> Iterator[Variant]:
    """Taken for 1; for one of its elements; or read as if dense."""
    if t.is_value or (t.case.grad_output.fill.regime == "one" and t.reduction != "none"):
        if not t.is_value:  # nothing to tell apart, and nothing to contradict
            for key in ("one", "twice", "first", "mean", "row", "column", "pointer"):
                yield Variant("missing_grad_output", key, "", t.right, t.magnitude)
        return
    d = np.broadcast_to(t.d, t.shape)

    def made(id: str, key: str, text: str, g: Floats) -> Variant:
        with np.errstate(all="ignore"):
            terms = t.slopes_of(d) * g
        return Variant(id, key, text, t.fold(terms), np.abs(t.fold(np.abs(terms))))

    ones = np.ones(())
    yield made(
        "missing_grad_output", "one", f"{what(t)} ignores grad_output: it is what ones give.", ones
    )
    text = f"{what(t)} is multiplied by grad_output twice."
    yield made("repeated_grad_output", "twice", text, t.g * t.g)
    if t.g.ndim and t.g.size:
        for key, name, g in (
            ("first", "its first element", t.g.flat[0] * ones),
            ("mean", "its mean", t.g.mean() * ones),
            ("row", "the first element of each row", t.g[..., :1]),
            ("column", "its first row", t.g[:1]),
        ):
            text = f"Of grad_output, {name} is taken for all of it."
            yield made("collapsed_grad_output", key, text, np.broadcast_to(g, t.shape))
        operand = t.case.grad_output.replace(shape=t.shape, dtype=t.dtype)
        line = in_buffer(elements(operand), operand.layout)[0]
        first = place(operand.layout, operand.shape).offset
        if first + t.n <= len(line):
            text = "grad_output is read as if its elements lay one after the other."
            g = line[first : first + t.n].reshape(t.shape)
            yield made("dense_grad_output", "pointer", text, g)


def broadcast_gradient(t: Trial, _: float | None) -> Iterator[Variant]:
    if t.is_value or not t.n or t.operand.shape == t.shape:
        return
    shape, whole = t.operand.shape, np.broadcast_to(t.slopes_of(t.d) * t.g, t.shape) * t.sign
    sizes = (1,) * (len(t.shape) - len(shape)) + shape
    axes = tuple(k for k, n in enumerate(sizes) if n != t.shape[k])
    kept = whole.sum(axes, keepdims=True)
    count = t.n // max(math.prod(shape), 1)
    head = f"{what(t)}, a broadcast operand, is"

    def slices(where: int) -> Floats:
        part = np.asarray(whole)
        for k in axes:
            part = part.take([where], axis=k)
        return part.reshape(shape)

    def later(where: int) -> Floats:
        """Summed over the first broadcast dimension, and one slice of the others."""
        part = whole
        for k in axes[1:]:
            part = part.take([where], axis=k)
        return np.asarray(part.sum(axes[:1] or None, keepdims=True).reshape(shape))

    def leading(where: int) -> Floats:
        """Summed over the dimensions that are missing, and one slice of those of size 1."""
        missing = tuple(range(len(t.shape) - len(shape)))
        part = whole.sum(missing, keepdims=True) if missing else whole
        for k in axes:
            if k not in missing:
                part = part.take([where], axis=k)
        return part.reshape(shape)

    found = [
        ("averaged over the broadcast dimensions, not summed", kept.reshape(shape) / count),
        ("not summed over the broadcast dimensions: the first slice counts", slices(0)),
        ("not summed over the broadcast dimensions: the last slice counts", slices(-1)),
        (
            "cut to the operand's size, not summed",
            whole.reshape(-1)[: math.prod(shape)].reshape(shape),
        ),
        ("summed over the first broadcast dimension alone", later(0)),
        ("summed over the first broadcast dimension alone, the last slice of others", later(-1)),
        ("summed over missing dimensions alone, the first slice of others", leading(0)),
        (
            "summed over missing dimensions alone, not those of size 1 (the last counts)",
            leading(-1),
        ),
    ]
    if t.shape:
        for axis, name in ((0, "first"), (-1, "last")):
            folded = whole.sum(axis)
            if folded.size == math.prod(shape) and whole.size != folded.size:
                found.append(
                    (
                        f"summed over the {name} dimension, whichever was broadcast",
                        folded.reshape(shape),
                    )
                )
            else:
                found.append(
                    (f"summed over the {name} dimension, whichever was broadcast", t.right)
                )
    for name, values in found:
        yield Variant("broadcast_gradient", name, f"{head} {name}.", values, t.magnitude)


# --- broadcasting


def broadcast_wrong(t: Trial, _: float | None) -> Iterator[Variant]:
    """How operands of different shapes may be brought together wrongly, in the value."""
    x, y = t.x, t.y
    if not t.is_value or x.shape == y.shape or not x.size or not y.size:
        return
    small, large = sorted((x, y), key=lambda v: v.size)
    which = "input" if small is x else "target"
    with np.errstate(all="ignore"):
        tiled = np.resize(small.reshape(-1), large.size).reshape(large.shape)
        text = f"The smaller {which} is repeated in order of memory, not broadcast."
        yield _squares(t, "tiled", text, tiled, large)
        repeated = np.repeat(small.reshape(-1), -(-large.size // small.size))[: large.size]
        text = f"Each element of the smaller {which} is repeated in a row, not broadcast."
        yield _squares(t, "repeated", text, repeated.reshape(large.shape), large)
        dims = max(x.ndim, y.ndim)
        a, b = (v.reshape((*v.shape, *(1,) * (dims - v.ndim))) for v in (x, y))
        sizes = zip(a.shape, b.shape, strict=True)
        if all(pair[0] == pair[1] or 1 in pair for pair in sizes):
            text = "Shapes of different lengths are aligned on the left, not on the right."
            yield _squares(t, "left", text, a, b)
        else:
            yield _squares(t, "left", "", x, y)
        n = min(x.size, y.size)
        text = f"Only the first {n} elements of each operand are compared: the smaller one's size."
        yield _squares(t, "cut", text, x.reshape(-1)[:n], y.reshape(-1)[:n])
        for name, operand in (("input", x), ("target", y)):
            part = np.broadcast_to(t.d, t.shape)
            for k, size in enumerate(operand.shape[::-1], start=1):
                if size == 1:
                    part = part.take([0], axis=-k)
            text = f"Only the part of the result that has the {name}'s shape is computed."
            yield _squares(t, f"shape of {name}", text, part, np.zeros(()))


def _squares(t: Trial, key: str, text: str, a: Floats, b: Floats) -> Variant:
    squares = (a - b) ** 2
    if t.reduction != "none":
        squares = np.asarray(squares.sum() if t.reduction == "sum" else squares.mean())
    return Variant("broadcast_wrong", key, text, squares)


HYPOTHESES: tuple[Hypothesis, ...] = (
    constant_factor,
    missing_count,
    missing_scale,
    mean_of_means,
    extra_count,
    wrong_count,
    reduced,
    not_reduced,
    result_shape,
    other_formula,
    constant_added,
    cancellation,
    intermediate_range,
    narrow_dtype,
    narrow_accumulator,
    flushed_subnormals,
    clamped,
    nonfinite_masked,
    wrong_sign,
    zero_gradient,
    grad_output_taken,
    broadcast_gradient,
    broadcast_wrong,
)
