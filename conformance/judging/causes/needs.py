"""Whether a defect depends on which operands need a gradient, or on the grad mode."""

from __future__ import annotations

import dataclasses

from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject
from conformance.judging.causes.trials import Trial, trials

Way = tuple[bool, bool, str]
_WAYS: tuple[Way, ...] = (
    (True, True, "grad"),
    (True, False, "grad"),
    (False, True, "grad"),
    (False, False, "grad"),
    (True, True, "no_grad"),
)
# Where the value is wrong, among the ways above, in words.
_CONDITIONS: dict[frozenset[int], str] = {
    frozenset({0, 2}): "where the target needs a gradient",
    frozenset({0, 1}): "where the input needs a gradient",
    frozenset({0}): "where both operands need a gradient",
    frozenset({1}): "where the input alone needs a gradient",
    frozenset({2}): "where the target alone needs a gradient",
    frozenset({3}): "where neither operand needs a gradient",
    frozenset({4}): "where gradients are switched off",
    frozenset({3, 4}): "where no gradient is needed",
    frozenset({0, 2, 4}): "where the target requires a gradient",
    frozenset({0, 1, 4}): "where the input requires a gradient",
    frozenset({0, 4}): "where both operands require a gradient",
    frozenset({0, 1, 2, 4}): "where an operand requires a gradient",
    frozenset({0, 1, 2}): "where a gradient is needed",
    frozenset({1, 2}): "where one operand alone needs a gradient",
}


def dependence(subject: Subject, case: Case, aspect: str) -> tuple[str, Cause | None]:
    """The condition under which ``aspect`` is wrong, empty if it always is; and a cause that
    needs no further test."""
    if case.same:
        return "", _missing(trials(subject, [case], aspect)[0])
    ways = _allowed(subject, case, aspect)
    cases = list(ways.values())
    *tried, own = trials(subject, [*cases, *cases[::-1], case], aspect)
    first, again = tried[: len(cases)], tried[len(cases) :][::-1]
    if any(t.wrong != other.wrong for t, other in zip(first, again, strict=True)):
        return "", None  # it depends on the order of calls
    outcomes = dict(zip(ways, first, strict=True))
    wrong = frozenset(k for k, t in outcomes.items() if t.wrong)
    right = frozenset(outcomes) - wrong
    fitting = {
        text for ways, text in _CONDITIONS.items() if wrong <= ways and not right & ways and wrong
    }
    condition = ""
    if right and wrong:
        condition = _CONDITIONS.get(wrong, "") or (fitting.pop() if len(fitting) == 1 else "")
    cause = _missing(own)
    if cause is not None and condition:
        cause = dataclasses.replace(cause, text=f"{cause.text.rstrip('.')}, only {condition}.")
    if cause is None and condition and own.wrong and own.seen is None:
        cause = Cause("depends_on_grad", f"It raises only {condition}.")
    return condition, cause


def _allowed(subject: Subject, case: Case, aspect: str) -> dict[int, Case]:
    """The ways above, as far as the target claims them and ``aspect`` is there."""
    found: dict[int, Case] = {}
    for k, (x, y, mode) in enumerate(_WAYS):
        needs = x and case.input.dtype in FLOAT_DTYPES, y and case.target.dtype in FLOAT_DTYPES
        way = case.replace(needs=needs, mode=mode)
        wanted = aspect.partition(".")[2]
        if needs != (x, y) or (wanted and wanted not in way.differentiated):
            continue
        if subject.allows(way):
            found[k] = way
    return found


def _missing(t: Trial) -> Cause | None:
    """The gradient is None, or the result has no graph."""
    if t.is_value or t.seen is not None or not t.wrong:
        return None
    observation = t.observation
    if observation.value is None or observation.raised_backward is not None:
        return None
    name = t.aspect.partition(".")[2]
    if not observation.requires_grad:
        return Cause("no_gradient", "The result is cut off from its operands: it has no grad_fn.")
    return Cause("no_gradient", f"No gradient reaches {name}: it is None.")
