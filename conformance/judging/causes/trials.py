"""A failing case and its siblings, as numbers: what hypotheses predict and are tested on."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, Case, Fill, Operand
from conformance.cases.features import loss_of
from conformance.cases.plans import with_shapes
from conformance.cases.values import FORMAT_OF, elements
from conformance.judging.causes.asking import Subject
from conformance.judging.checks import judge_observation
from conformance.judging.oracle import result_dtypes
from conformance.judging.seen import Observation, Seen
from reference.formats import BINARY32, Floats, Format, round_nearest
from reference.losses.formula import Formula
from reference.reductions import divisor, unbroadcast

PLAIN = frozenset({"one", "integers", "ordinary", "zero", "negative", "constant", "ramp", "table"})
LARGEST = 2**18  # elements: larger cases are too slow to try again and again


@dataclass(frozen=True)
class Trial:
    """One run of a case, looked at for one aspect: value, gradient.input or gradient.target.

    All arrays are float64. ``x``, ``y`` have the operands' shapes, ``g`` that of the result.
    ``wrong``: not as permitted.
    """

    case: Case
    aspect: str
    observation: Observation
    wrong: bool

    @property
    def seen(self) -> Seen | None:
        """What came back; None where that was no tensor."""
        if self.is_value:
            return self.observation.value
        return self.observation.gradients.get(self.aspect.removeprefix("gradient."))

    @functools.cached_property
    def dtype(self) -> str:
        """Of the computation: the operands', promoted."""
        return result_dtypes(self.case)[0]

    @property
    def fmt(self) -> Format:
        return FORMAT_OF[self.dtype]

    @functools.cached_property
    def x(self) -> Floats:
        return self._promoted(self.case.input)

    @functools.cached_property
    def y(self) -> Floats:
        return self._promoted(self.case.target)

    def _promoted(self, operand: Operand) -> Floats:
        values = elements(operand)
        return values if operand.dtype == self.dtype else round_nearest(values, self.fmt)

    @functools.cached_property
    def g(self) -> Floats:
        shape = self.case.shape if self.reduction == "none" else ()
        return elements(self.case.grad_output.replace(shape=shape, dtype=self.dtype))

    @functools.cached_property
    def d(self) -> Floats:
        return self.rounded(self.x - self.y)

    @property
    def reduction(self) -> str:
        return self.case.reduction

    @property
    def shape(self) -> tuple[int, ...]:
        return self.case.shape

    @property
    def n(self) -> int:
        return math.prod(self.case.shape)

    @property
    def is_value(self) -> bool:
        return self.aspect == "value"

    @property
    def operand(self) -> Operand:
        """The one whose gradient is looked at."""
        found: Operand = getattr(self.case, self.aspect.removeprefix("gradient."))
        return found

    @property
    def sign(self) -> float:
        return -1.0 if self.aspect == "gradient.target" else 1.0

    def rounded(self, v: Floats, fmt: Format | None = None) -> Floats:
        return round_nearest(v, fmt or self.fmt)

    @functools.cached_property
    def formula(self) -> Formula:
        return loss_of(self.case).formula

    @functools.cached_property
    def terms(self) -> Floats:
        """What is added up."""
        return np.asarray(self.formula.value(self.d, "none"))

    def slopes_of(self, d: Floats) -> Floats:
        """The gradient of differences ``d``, but for ``grad_output``."""
        return np.asarray(self.formula.vjp(d, 1.0, "none") / divisor(self.shape, self.reduction))

    # -- from elements to what should come back

    def reduce(self, terms: Floats) -> Floats:
        """The value with these terms."""
        if self.reduction == "none":
            return terms
        total = terms.sum()
        return np.asarray(total if self.reduction == "sum" else total / max(self.n, 1))

    @property
    def scale(self) -> float:
        """What the gradient of a square is times d·g."""
        return 2.0 / max(self.n, 1) if self.reduction == "mean" else 2.0

    def fold(self, gradient: Floats) -> Floats:
        """The operand's gradient, from the input's over the broadcast shape."""
        whole = np.broadcast_to(gradient, self.shape)
        return np.asarray(self.sign * unbroadcast(whole, self.operand.shape))

    @functools.cached_property
    def right(self) -> Floats:
        if self.is_value:
            return self.reduce(self.terms)
        return self.fold(self.slopes_of(self.d) * self.g)

    @functools.cached_property
    def magnitude(self) -> Floats:
        """The right answer, had all its terms one sign: what roundings are relative to."""
        if self.is_value:
            return self.right
        return np.abs(self.fold(np.abs(self.slopes_of(self.d) * self.g)))

    @functools.cached_property
    def slack(self) -> float:
        """The relative error of a few roundings, and of a sum in a tree."""
        if self.is_value:
            terms = self.n if self.reduction != "none" else 1
            result = self.fmt
        else:
            terms = max(self.n // max(self.operand.size, 1), 1)
            result = FORMAT_OF.get(self.operand.dtype, self.fmt)
        wide = self.fmt if self.fmt.precision > BINARY32.precision else BINARY32
        return 4 * max(result.u, self.fmt.u) + 4 * wide.u * math.log2(terms + 1)

    @property
    def floor(self) -> float:
        """The absolute error of a few roundings near 0."""
        result = self.fmt if self.is_value else FORMAT_OF.get(self.operand.dtype, self.fmt)
        return 2 * max(result.eta, self.fmt.eta)

    def matches(self, predicted: Floats, magnitude: Floats | None = None) -> bool:
        """Whether what was seen is ``predicted``, but for a few roundings."""
        if self.seen is None or self.seen.values.shape != predicted.shape:
            return False
        return bool(np.all(self._alike(self.seen.values, predicted, magnitude)))

    def allows(self, predicted: Floats, magnitude: Floats | None = None) -> bool:
        """Whether the prediction holds here; of what was permitted, that it be the right answer."""
        if self.matches(predicted, magnitude):
            return True
        if self.wrong or predicted.shape != self.right.shape:
            return False
        return bool(np.all(self._alike(self.right, predicted, self.magnitude)))

    def _alike(self, seen: Floats, predicted: Floats, magnitude: Floats | None) -> Any:
        """For each element whether it is the predicted one."""
        result = self.fmt if self.is_value else FORMAT_OF.get(self.operand.dtype, self.fmt)
        with np.errstate(all="ignore"):
            predicted = round_nearest(predicted, result)
            size = np.abs(predicted) if magnitude is None else np.abs(magnitude)
            near = np.abs(seen - predicted) <= self.slack * size + self.floor
        alike = np.isnan(seen) & np.isnan(predicted) | (seen == predicted)
        return near & np.isfinite(seen) & np.isfinite(predicted) | alike

    def is_right(self) -> bool:
        return self.matches(self.right, self.magnitude)

    def tells(self) -> bool:
        """Whether it is wrong, and not by NaN alone: any accident gives that."""
        if not self.wrong or self.seen is None or self.is_right():
            return False
        if self.seen.values.shape != self.right.shape:
            return True
        differ = ~self._alike(self.seen.values, self.right, self.magnitude)
        return bool(np.any(differ & ~np.isnan(self.seen.values)))


def trials(subject: Subject, cases: Sequence[Case], aspect: str) -> list[Trial]:
    """Run each of ``cases`` and look at ``aspect``."""
    seen = subject.observe(cases)
    return [looked_at(case, one, aspect) for case, one in zip(cases, seen, strict=True)]


def looked_at(case: Case, observation: Observation, aspect: str) -> Trial:
    judgement = judge_observation(case, observation)
    wrong = any(d.aspect == aspect for d in judgement.deviations)
    return Trial(case, aspect, observation, wrong)


def siblings(case: Case) -> Iterator[Case]:
    """Cases with the same features and other elements and sizes, to tell hypotheses apart."""
    yield _refilled(case, 1, plainly=False)
    special = {case.input.fill.regime, case.target.fill.regime} - PLAIN
    for regime in ("ordinary", "tiny", "square_edge", "huge") if special else ("ordinary",):
        yield _all_of(case, regime)
    x, y = case.input.shape, case.target.shape
    if special and x == y and max(x, default=1) > 1 and not case.same:  # nothing to add up
        yield _refilled(with_shapes(case, (1,) * len(x), (1,) * len(x)), 2, plainly=False)
    if x != y:  # no operand is a single number
        yield _refilled(with_shapes(case, (*x, 3), (*y, 3)), 3, plainly=True)
    for k, grown in enumerate((case, *_grown(case))):
        yield _refilled(grown, 11 + k, plainly=True)


def _refilled(case: Case, salt: int, *, plainly: bool) -> Case:
    """Other elements; where that is a regime without telling ones, ordinary ones instead.

    Equal seeds of two operands stay equal.
    """

    def fresh(operand: Operand) -> Operand:
        fill = operand.fill
        regime = "ordinary" if plainly and fill.regime in PLAIN else fill.regime
        return operand.replace(fill=Fill(regime, fill.seed + 1000 * salt, fill.table))

    x, y, g = fresh(case.input), fresh(case.target), case.grad_output
    if x.fill == y.fill and case.input.fill != case.target.fill:
        y = y.replace(fill=Fill(y.fill.regime, y.fill.seed + 1))
    if x.fill == y.fill and plainly and x.fill.regime == "ordinary":
        y = y.replace(fill=Fill(y.fill.regime, y.fill.seed + 1))
    if g.fill.regime != "one":
        g = g.replace(fill=Fill(g.fill.regime, g.fill.seed + 1000 * salt, g.fill.table))
    return case.replace(input=x, target=x if case.same else y, grad_output=g)


def _all_of(case: Case, regime: str) -> Case:
    """With elements of ``regime``, whatever they were: so that what was special about them tells.

    Numbers that are small, but not subnormal, and large, but with finite squares, tell a threshold
    from what belongs to the format.
    """
    x = case.input.replace(fill=Fill(regime, 5001))
    y = case.target.replace(fill=Fill(regime, 5002))
    return case.replace(input=x, target=x if case.same else y)


def _grown(case: Case) -> Iterator[Case]:
    """Larger shapes of the same kind."""
    x, y = case.input.shape, case.target.shape
    if math.prod(case.shape) > LARGEST // 2 or 0 in case.shape:
        return
    small = max(case.shape, default=1) == 1
    for more, ones in ((1, small), (4, small), (2, True)):

        def bigger(shape: tuple[int, ...], more: int = more, ones: bool = ones) -> tuple[int, ...]:
            last = len(shape) - 1
            return tuple(
                n + more + (k == last) if n > 1 or (ones and x == y) else n
                for k, n in enumerate(shape)
            )

        grown = with_shapes(case, bigger(x), bigger(y))
        if case.same:
            grown = grown.replace(target=grown.input)
        if grown.shape != case.shape:
            yield grown


def trials_of(subject: Subject, case: Case, aspect: str) -> list[Trial]:
    """The case first, then its siblings, as far as the target claims them."""
    every = [case, *siblings(case)]
    if aspect != "value":  # with a grad_output that tells
        for base in every[1:]:
            if base.grad_output.fill.regime in PLAIN and base.dtype in FLOAT_DTYPES:
                fill = Fill("ordinary", base.input.fill.seed + 77)
                every.append(base.replace(grad_output=base.grad_output.replace(fill=fill)))
    chosen = dict.fromkeys(c for c in every if subject.allows(c))
    return trials(subject, list(chosen), aspect)
