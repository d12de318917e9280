"""The likely cause of a failure: hypotheses, tested on the target, and silence where none is left.

Each hypothesis predicts what the target returns if it is true. It is confirmed only where its
prediction holds on the failing case and on others, chosen to tell hypotheses apart, and the right
answer does not. Where hypotheses that mean different things survive, no cause is given.
"""

from __future__ import annotations

import numpy as np

from conformance.judging.attribution import Finding
from conformance.judging.causes.calls import explain_calls
from conformance.judging.causes.cause import CAUSES, Cause
from conformance.judging.causes.hypotheses import HYPOTHESES, cause_of, surviving
from conformance.judging.causes.memory import (
    elements_cause,
    grad_output_cause,
    has_layout,
    strides_cause,
)
from conformance.judging.causes.needs import dependence
from conformance.judging.causes.rounding import accumulator_cause
from conformance.judging.causes.trials import LARGEST, Runner, Subject, trial, trials_of
from conformance.judging.checks import ASPECTS

__all__ = ["CAUSES", "Cause", "explain"]


def explain(runner: Runner, finding: Finding) -> Cause | None:
    """The likely cause of ``finding``; None where it cannot be told.

    The target is called again, some hundred times. What it raises then tells nothing.
    """
    if finding.status != "fail":
        return None
    subject = Subject(runner, runner.target)
    try:
        with np.errstate(all="ignore"):
            known = explain_calls(subject, finding)
            if known is not None:
                return known
            if finding.aspect in ASPECTS and finding.case is not None:
                return explain_case(subject, finding)
    except KeyboardInterrupt:
        raise
    except BaseException:  # as in an observation: a loss may raise anything
        return None
    return None


def explain_case(subject: Subject, finding: Finding) -> Cause | None:
    """Of a value or gradient that is wrong in one run of a case."""
    case = finding.case
    assert case is not None
    if np.prod(case.shape) > LARGEST:
        return None
    condition, other = dependence(subject, case, finding.aspect)
    if other is not None:
        return other
    every = trials_of(subject, case, finding.aspect)
    first = every[0]
    cause = strides_cause(subject, first) if has_layout(case) else None
    cause = cause or grad_output_cause(subject, first)
    if cause is None:
        survivors = surviving(every, HYPOTHESES)
        cause = cause_of(survivors)
        of_broadcast = cause is not None and cause.id == "broadcast_gradient"
        if of_broadcast and trial(subject, case, "value").wrong:
            return None  # it may be right for that value
        if not survivors:
            cause = elements_cause(subject, every) or accumulator_cause(subject, first)
    if condition and cause is None:
        return Cause("depends_on_grad", f"It is wrong only {condition}.")
    if condition and cause is not None:
        return Cause(cause.id, f"{cause.text.rstrip('.')}; only {condition}.")
    return cause
