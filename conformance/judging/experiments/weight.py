"""Experiments on a weight for each element of input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, promote
from conformance.cases.values import FORMAT_OF
from conformance.clauses import WIDER
from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    Shape,
    brief,
    deviation,
    deviation_of_value,
    eighths,
    experiment,
    same_bits,
)
from conformance.judging.observer import Given
from conformance.judging.seen import Seen
from reference.formats import Floats, round_nearest
from reference.losses.formula import Formula
from reference.losses.weighted import Weighted
from reference.reductions import unbroadcast

SHAPES: tuple[tuple[Shape, Shape], ...] = (
    ((7,), (7,)),
    ((3, 4), (3, 4)),
    ((), ()),
    ((2, 3, 5), (2, 3, 5)),
    ((257,), (257,)),
)
SOME = 2050  # elements: more than a block has, and than halves count to
NAMES = {"x": "input", "y": "target"}
LAYOUTS = ("strided", "offset", "transposed", "expanded")
# Of operands of (2, 3), and of which input is broadcast: no other size than input's is taken.
WRONG: tuple[tuple[Shape, Shape, tuple[Shape, ...]], ...] = (
    ((2, 3), (2, 3), ((3,), (1,), (), (2, 1), (1, 3), (1, 2, 3), (6,), (3, 2), (2, 4))),
    ((3,), (2, 3), ((2, 3), (1,), (1, 3))),
    ((2, 3), (3,), ((3,), (1, 3))),
)


@dataclass(frozen=True)
class Weighing:
    """One weighted call, and what it is to give.

    ``w``: the weights as the call has them; ``given``: as they are handed over, of a dtype of their
    own; ``parameters``: those that are passed.
    """

    bench: Bench
    x: Floats
    y: Floats
    w: Floats
    reduction: str
    given: Given
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def exact(self) -> Weighted:
        return Weighted(self.formula, self.x - self.y, self.w, self.reduction)

    @property
    def formula(self) -> Formula:
        values = tuple(value for _, value in self.parameters)
        return self.bench.formula.given(values) if values else self.bench.formula

    @property
    def what(self) -> str:
        """The call, in words."""
        told = "".join(f", {name}={value}" for name, value in self.parameters)
        return f"weighted ({self.reduction}, {self.x.shape} and {self.y.shape}{told})"

    def grad_output(self) -> Floats:
        shape = (self.x - self.y).shape if self.reduction == "none" else ()
        return eighths(self.bench, shape, 3)

    def seen(self, needs: str = "", layout: str = "contiguous") -> Evidence:
        """The call, where the operands ``needs``, among x, y and w, need a gradient."""
        x, y = (
            self.bench.made(v, needs=name in needs) for name, v in (("x", self.x), ("y", self.y))
        )
        settings: dict[str, Any] = {"reduction": self.reduction, "layout": layout}
        if needs:
            settings["g"] = self.bench.made(self.grad_output())
        if self.parameters:
            settings["parameters"] = dict(self.parameters)
        return self.bench.ask(
            "weight.called", x=x, y=y, w=self.given.leaf("w" in needs), **settings
        )

    def of_value(self, seen: Evidence, bench: Bench | None = None) -> Messages:
        text = f"{self.what}: the result"
        exact, size = np.asarray(self.exact.value()), np.asarray(self.exact.size())
        terms = max(self.exact.d.size, 1)
        yield from deviation(bench or self.bench, text, seen["result"], exact, size, terms)

    def of_gradients(self, seen: Evidence, names: str, among: str = "") -> Messages:
        """By each of ``names``. ``among``: all that need one, where these are more."""
        if not seen.flag("requires_grad"):
            needed = " and ".join(NAMES.get(name, "the weight") for name in among or names)
            yield f"{self.what}: the result needs no gradient where {needed} does"
            return
        found, g = seen.items_of("gradients"), self.grad_output()
        for name in names:
            exact, size = self.gradient_by(name, g)
            text = f"{self.what}: the gradient by {NAMES.get(name, 'the weight')}"
            terms = max(self.exact.d.size, 1)
            yield from deviation(self.bench, text, found[name], exact, size, terms)

    def gradient_by(self, name: str, g: Floats) -> tuple[Floats, Floats]:
        """What the gradient by an operand or the weight is, and its magnitude."""
        if name == "w":
            return self.exact.weight_vjp(g), self.exact.weight_vjp_size(g)
        shape = self.x.shape if name == "x" else self.y.shape
        sign = -1 if name == "y" else 1
        exact, size = self.exact.vjp(g), self.exact.vjp_size(g)
        return sign * unbroadcast(exact, shape), unbroadcast(size, shape)


def weights(bench: Bench, shape: Shape, kind: str = "positive") -> Floats:
    """Multiples of 1/8 up to 4. ``zeros``: of each three one is 0; ``signed``: is -1/8.

    The positive ones among them always add up to more: the sum is no cancellation.
    """
    w = np.abs(eighths(bench, shape, 5))
    if kind != "positive":
        w.flat[1::3] = 0.0 if kind == "zeros" else -0.125
    return w


def weighing(
    bench: Bench,
    reduction: str,
    shapes: tuple[Shape, Shape],
    kind: str = "positive",
    parameters: tuple[tuple[str, float], ...] = (),
) -> Weighing:
    """Operands with one pair of equal elements."""
    x, y = eighths(bench, shapes[0], 1), eighths(bench, shapes[1], 2)
    if x.shape == y.shape and x.size > 2:
        y.flat[-1] = x.flat[-1]
    w = weights(bench, shapes[0], kind)
    return Weighing(bench, x, y, w, reduction, bench.made(w), parameters)


def tried(bench: Bench) -> Iterator[Weighing]:
    """Each shape with each reduction; other weights, and parameters, with one of them each."""
    stretched: list[tuple[Shape, Shape]] = [((2, 3), (3,)), ((3, 4), (3, 1))]
    many: list[tuple[Shape, Shape]] = [((SOME,), (SOME,))] * (bench.dtype in WIDER)
    every = [*SHAPES, *many, *stretched * bench.claims("broadcast")]
    kinds = itertools.cycle(("positive", "zeros", "signed"))
    for shapes, reduction in itertools.product(every, bench.reductions):
        if bench.inside(*shapes):
            kind = next(kinds) if shapes[0] else "positive"
            yield weighing(bench, reduction, shapes, kind)
    yield from _of_broadcast_input(bench)
    for reduction, factor in itertools.product(bench.reductions, (0.5, 3.0)):
        names = bench.target.parameters
        if names and len(names) == len(bench.formula.at):
            values = [factor * value for value in bench.formula.at]
            given = tuple(zip(names, values, strict=True))
            yield weighing(bench, reduction, SHAPES[1], parameters=given)


def _of_broadcast_input(bench: Bench) -> Iterator[Weighing]:
    """But for a mean over the weights: of that ``weight.stretched`` speaks."""
    for shapes, reduction in itertools.product(
        (((3,), (2, 3)), ((2, 1), (2, 3))), bench.reductions
    ):
        odd = reduction == "mean" and bench.formula.weight == "weights"
        if bench.claims("broadcast") and bench.inside(*shapes) and not odd:
            yield weighing(bench, reduction, shapes)


@experiment("weight.value")
def _value(bench: Bench) -> Messages:
    for one in tried(bench):
        yield from one.of_value(one.seen())
    for reduction in bench.reductions:
        x, y = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
        operands = {"x": bench.made(x), "y": bench.made(y)}
        got = bench.ask("weight.without", **operands, reduction=reduction)["result"]
        text = f"with weight=None the result ({reduction})"
        yield from deviation_of_value(bench, text, got, x - y, reduction)


def _operands(bench: Bench) -> str:
    return "xy" if bench.claims("target_gradient") else "x"


@experiment("weight.gradient")
def _gradient(bench: Bench) -> Messages:
    """Of the operands, alone and beside the weight's own."""
    names = _operands(bench)
    for one in tried(bench):
        yield from one.of_gradients(one.seen(names), names)
    for reduction, name in itertools.product(bench.reductions, names):
        one = weighing(bench, reduction, SHAPES[1])
        yield from one.of_gradients(one.seen(f"{name}w"), name, f"{name}w")


@experiment("weight.derivative")
def _derivative(bench: Bench) -> Messages:
    """Alone and beside those of the operands."""
    for one in tried(bench):
        yield from one.of_gradients(one.seen("w"), "w")
    for reduction in bench.reductions:
        one, among = weighing(bench, reduction, SHAPES[1]), f"{_operands(bench)}w"
        yield from one.of_gradients(one.seen(among), "w", among)


@experiment("weight.layout")
def _layout(bench: Bench) -> Messages:
    for reduction, layout in itertools.product(bench.reductions, LAYOUTS):
        plain = weighing(bench, reduction, SHAPES[1])
        row = plain.w[:1] if layout == "expanded" else plain.w
        w = np.broadcast_to(row, plain.w.shape)
        one = replace(plain, w=w, given=bench.made(row))
        seen = one.seen(f"{_operands(bench)}w", layout)
        for message in (*one.of_value(seen), *one.of_gradients(seen, f"{_operands(bench)}w")):
            yield f"with {layout} weights, {message}"


@experiment("weight.stretched")
def _stretched(bench: Bench) -> Messages:
    """The sum of the weights is taken before they are stretched, as torch's own does."""
    for shapes in (((3,), (2, 3)), ((2, 1), (2, 3))):
        if bench.inside(*shapes):
            one, names = weighing(bench, "mean", shapes), f"{_operands(bench)}w"
            seen = one.seen(names)
            yield from one.of_value(seen)
            yield from one.of_gradients(seen, names)


@experiment("weight.zero")
def _zero(bench: Bench) -> Messages:
    """Beside elements that are no numbers; and where all are 0."""
    for reduction in bench.reductions:
        for odd in (np.nan, np.inf):
            one = weighing(bench, reduction, ((5,), (5,)), "zeros")
            one.x[1] = odd
            yield from _of_kinds(one, f"beside {odd} with a weight of 0")
        one = weighing(bench, reduction, ((5,), (5,)))
        none = np.zeros_like(one.w)
        yield from _of_kinds(
            replace(one, w=none, given=bench.made(none)), "where all weights are 0"
        )
    if bench.claims("empty") and bench.inside((0, 3)):
        for reduction in bench.reductions:
            yield from _of_kinds(weighing(bench, reduction, ((0, 3), (0, 3))), "of nothing")


def _of_kinds(one: Weighing, when: str) -> Messages:
    """A message where NaN is not where it must be, or where what must be 0 is not."""
    with np.errstate(all="ignore"):
        exact = np.asarray(one.exact.value(), np.float64)
    got = one.seen()["result"]
    seen = got.values.reshape(exact.shape) if _fits(one.bench, got, exact) else None
    right = seen is not None and np.array_equal(np.isnan(seen), np.isnan(exact))
    if not (right and np.array_equal(seen == 0, exact == 0)):
        shown = np.array2string(exact, separator=", ")
        yield f"{when}, {one.what}: the result is {brief(got)}, not {shown}"


def _fits(bench: Bench, got: Any, exact: Floats) -> bool:
    return isinstance(got, Seen) and got.dtype == bench.dtype and got.values.size == exact.size


@experiment("weight.size")
def _size(bench: Bench) -> Messages:
    for (x, y, shapes), reduction in itertools.product(WRONG, bench.reductions):
        if (x != y and not bench.claims("broadcast")) or not bench.inside(x, y):
            continue
        operands = [bench.made(eighths(bench, shape, k)) for k, shape in enumerate((x, y), 1)]
        w = bench.made(weights(bench, (8,)))
        named = dict(zip("xyw", (*operands, w), strict=True))
        settings = {"shapes": [list(shape) for shape in shapes], "reduction": reduction}
        seen = bench.ask("weight.attempts", **named, **settings)
        for k, shape in enumerate(shapes):
            attempt = seen.items_of(str(k))
            if "got" in attempt:
                what = f"weights of {shape} for operands {x} and {y} gave {brief(attempt['got'])}"
                yield f"{what} instead of an error ({reduction})"


@experiment("weight.dtype")
def _dtype(bench: Bench) -> Messages:
    """To the accuracy of the narrower of both; a gradient by the weight has its dtype."""
    for reduction, kind in itertools.product(
        bench.reductions, (*bench.target.dtypes, "int64", "bool")
    ):
        if kind == bench.dtype:
            continue
        plain = weighing(bench, reduction, SHAPES[1])
        floating = kind in FLOAT_DTYPES
        w = plain.w if floating else np.ceil(plain.w) if kind == "int64" else plain.w * 0 + 1
        one = replace(plain, w=w, given=Given(w, kind))
        seen = one.seen("xw" if floating else "x")
        yield from _of_dtype(one, seen, kind if floating else bench.dtype)


def _of_dtype(one: Weighing, seen: Evidence, kind: str) -> Messages:
    bench, wanted = one.bench, promote(one.bench.dtype, kind)
    if wanted not in bench.target.dtypes:
        return
    when = f"with weights of {one.given.dtype}, {one.what}"
    if getattr(seen["result"], "dtype", None) != wanted:
        yield f"{when}: the result is {brief(seen['result'])}, not {wanted}"
        return
    narrow = max(bench.dtype, kind, key=lambda dtype: FORMAT_OF[dtype].u)
    rough = replace(bench, dtype=narrow)
    for message in one.of_value(Evidence({"result": rounded(seen.tensor("result"), rough)}), rough):
        yield f"with weights of {one.given.dtype}, {message}"
    found, g = seen.items_of("gradients"), one.grad_output()
    for name, own in (("x", bench.dtype), *((("w", kind),) if one.given.dtype == kind else ())):
        text = f"{when}: the gradient by {NAMES.get(name, 'the weight')}"
        got = found[name]
        if getattr(got, "dtype", None) != own:
            yield f"{text} is {brief(got)}, not {own}"
            return
        exact, size = one.gradient_by(name, g)
        yield from deviation(rough, text, rounded(got, rough), exact, size, one.exact.d.size)


def rounded(seen: Seen, rough: Bench) -> Seen:
    """The same in a narrower dtype."""
    return Seen(round_nearest(seen.values, rough.fmt), rough.dtype, seen.device)


@experiment("weight.purity")
def _purity(bench: Bench) -> Messages:
    """Nor to the operands beside it; with a backward and without."""
    for reduction, needs in itertools.product(bench.reductions, ("", f"{_operands(bench)}w")):
        one = weighing(bench, reduction, SHAPES[1], "zeros")
        kept = one.seen(needs).items_of("kept")
        for name, values in (("x", one.x), ("y", one.y), ("w", one.w)):
            before = bench.made(values)
            if not same_bits(kept[name], Seen(before.values, before.dtype, "")):
                what = NAMES.get(name, "the weight")
                yield f"a weighted call has changed {what} ({reduction})"
