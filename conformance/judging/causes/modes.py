"""Causes that show inside a mode alone, in a module, or for tensors without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from conformance.cases.plans import plain, with_shapes
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject
from conformance.judging.causes.run import explain_run
from conformance.judging.causes.trials import looked_at
from conformance.judging.checks import ASPECTS
from conformance.judging.findings import Finding

Test = Callable[[Subject, Finding], Cause | None]


def within_mode(mode: str, where: str, sizes: Sequence[int] = (5,)) -> Test:
    """A test that explains the plain case inside a mode (see ``Subject``) where it is wrong."""

    def test(subject: Subject, finding: Finding) -> Cause | None:
        inside = replace(subject, mode=mode)
        cause = _plainly(inside, subject.dtype_of(finding), sizes)
        if cause is None:
            return None
        return Cause(cause.id, f"{where}: {cause.text[0].lower()}{cause.text[1:]}")

    return test


def _plainly(subject: Subject, dtype: str, sizes: Sequence[int]) -> Cause | None:
    """The first cause that is told of a plain case of these sizes."""
    whole = (with_shapes(plain(dtype, r), (n,), (n,)) for n in sizes for r in subject.reductions)
    cases = [case for case in whole if subject.allows(case)]
    for case, seen in zip(cases, subject.observe(cases), strict=True):
        for aspect in ASPECTS:
            if looked_at(case, seen, aspect).wrong:
                found = explain_run(subject, case, aspect)
                if found is not None:
                    return found
    return None


def without_data(subject: Subject, finding: Finding) -> Cause | None:
    """Shape and dtype of what comes back for tensors without data."""
    fake, shape = finding.clause == "transforms.fake", (2, 3)
    for reduction in subject.reductions:
        right = shape if reduction == "none" else ()
        for dtype in subject.target.dtypes:
            asked = {"shape": shape, "dtype": dtype, "fake": fake, "reduction": reduction}
            got = subject.ask("without_data", **asked)
            if "dtype" not in got:
                return None
            if got.text("dtype") != dtype:
                text = f"Without data the result is {got.text('dtype')} for {dtype}."
                return Cause("wrong_dtype", text)
            same = got.text("shape") == str(right)
            if not same and got.number("count") == math.prod(right):
                text = f"Without data the result has shape {got.text('shape')}, not {right}."
                return Cause("result_shape", text)
    return None
