"""The cause of a value or gradient that is wrong in one run of a case."""

from __future__ import annotations

import math

from conformance.cases.case import Case
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject
from conformance.judging.causes.hypotheses import HYPOTHESES, cause_of, surviving
from conformance.judging.causes.memory import (
    elements_cause,
    grad_output_cause,
    has_layout,
    scalar_grad_output_cause,
    strides_cause,
)
from conformance.judging.causes.needs import dependence
from conformance.judging.causes.rounding import accumulator_cause
from conformance.judging.causes.trials import LARGEST, trials, trials_of


def explain_run(subject: Subject, case: Case, aspect: str) -> Cause | None:
    """``aspect``: value, gradient.input or gradient.target, which is wrong in this case."""
    if math.prod(case.shape) > LARGEST:
        return None
    condition, other = dependence(subject, case, aspect)
    if other is not None:
        return other
    cause = _cause(subject, case, aspect)
    of_broadcast = cause is not None and cause.id == "broadcast_gradient"
    if of_broadcast and trials(subject, [case], "value")[0].wrong:
        return None  # it may be right for that value
    if condition and cause is None:
        return Cause("depends_on_grad", f"It is wrong only {condition}.")
    if condition and cause is not None:
        return Cause(cause.id, f"{cause.text.rstrip('.')}; only {condition}.")
    return cause


def _cause(subject: Subject, case: Case, aspect: str) -> Cause | None:
    """Whatever the condition."""
    every = trials_of(subject, case, aspect)
    if not every:
        return None
    first = every[0]
    cause = strides_cause(subject, first) if has_layout(case) else None
    cause = cause or grad_output_cause(subject, first) or scalar_grad_output_cause(subject, first)
    if cause is not None:
        return cause
    survivors = surviving(every, HYPOTHESES)
    if survivors:
        return cause_of(survivors)
    return elements_cause(subject, every) or accumulator_cause(subject, first)
