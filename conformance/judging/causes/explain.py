"""Tell the likely cause of a finding, where that can be told."""

from __future__ import annotations

import numpy as np

from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject, Untold
from conformance.judging.causes.calls import explain_calls
from conformance.judging.causes.run import explain_run
from conformance.judging.checks import ASPECTS
from conformance.judging.evidence import BadEvidence
from conformance.judging.findings import Finding
from conformance.judging.observer import Observer, Raised, Unavailable


def explain(observer: Observer, finding: Finding, until: float) -> Cause | None:
    """The likely cause of ``finding``; None where it cannot be told.

    The target is called again, some hundred times, and no more after ``until``, by
    ``time.monotonic()``. What it raises then tells nothing. Raises Lost where a call ends the
    observer.
    """
    if finding.status != "fail" or observer.claimed.domain.result is not None:
        return None  # hypotheses speak of what the builtin returns
    subject = Subject(observer, until)
    try:
        with np.errstate(all="ignore"):
            known = explain_calls(subject, finding)
            if known is None and finding.aspect in ASPECTS and finding.case is not None:
                return explain_run(subject, finding.case, finding.aspect)
            return known
    except (Untold, Raised, Unavailable, BadEvidence):
        return None
