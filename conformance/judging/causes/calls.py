"""Causes that one run of a case does not show: which tests each clause has, and those of dtypes.

Each family of clauses has its few calls, made with tensors of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from conformance.cases.plans import with_dtypes
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject, eighths, is_near
from conformance.judging.causes.derivatives import (
    detached,
    functional,
    hessian,
    mapped,
    second,
    tangent,
)
from conformance.judging.causes.modes import Test, within_mode, without_data
from conformance.judging.causes.state import (
    adds_grad,
    another_graph,
    changed_operand,
    late,
    results,
    reused,
    settings,
    stale,
    twice,
)
from conformance.judging.findings import Finding
from conformance.judging.observer import Given, Raised
from conformance.judging.oracle import result_dtypes
from conformance.judging.seen import Seen
from reference.formats import Floats


def explain_calls(subject: Subject, finding: Finding) -> Cause | None:
    """By the clause: what its few calls tell."""
    tests = _TESTS.get(finding.clause) or _TESTS.get(finding.clause.partition(".")[0] + ".*", ())
    for test in tests:
        cause = test(subject, finding)
        if cause is not None:
            return cause
    return None


def result_dtype(subject: Subject, finding: Finding) -> Cause | None:
    """By which rule the dtype of the result is another one."""
    if finding.case is None:
        return _dimensions_decide(subject)
    own = finding.case
    pairs = [(own.input.dtype, own.target.dtype)]
    pairs += [(a, b) for a in subject.target.dtypes for b in subject.target.dtypes]
    cases = [with_dtypes(own, a, b) for a, b in dict.fromkeys(pairs)]
    cases = [case for case in cases if subject.allows(case)]
    seen = [
        (case.input.dtype, case.target.dtype, result_dtypes(case)[0], one.value.dtype)
        for case, one in zip(cases, subject.observe(cases), strict=True)
        if one.value is not None
    ]
    if not seen or seen[0][2] == seen[0][3]:
        return None
    rules: tuple[tuple[str, Callable[[str, str, str], str]], ...] = (
        ("always float32", lambda a, b, both: "float32"),
        ("always float64", lambda a, b, both: "float64"),
        ("the input's", lambda a, b, both: a),
        ("the target's", lambda a, b, both: b),
        (
            "that of a float32 accumulator",
            lambda a, b, both: both if both == "float64" else "float32",
        ),
    )
    fitting = [
        name for name, rule in rules if all(rule(a, b, both) == got for a, b, both, got in seen)
    ]
    a, b, both, got = seen[0]
    text = f"The dtype of the result is {got} for {a} and {b}, not {both}"
    if len(fitting) == 1:
        text += f": it is {fitting[0]}"
    return Cause("wrong_dtype", f"{text}.")


def _dimensions_decide(subject: Subject) -> Cause | None:
    for scalar, vector in (("float64", "float32"), ("float32", "bfloat16")):
        if {scalar, vector} <= set(subject.target.dtypes):
            x, y = Given(np.ones(()), scalar), Given(np.ones(3), vector)
            found = subject.ask("results", calls=[(0, subject.reductions[0])], x0=x, y0=y)
            (got,) = found.listed("results")
            if isinstance(got, Seen) and got.dtype == vector:
                text = "A 0-d operand does not widen the dtype of one with dimensions."
                return Cause("wrong_dtype", text)
    return None


def unneeded(subject: Subject, finding: Finding) -> Cause | None:
    if finding.case is not None and subject.observe([finding.case])[0].requires_grad:
        text = "The result requires a gradient though no operand does."
        return Cause("unneeded_gradient", text)
    return None


def incompatible(subject: Subject, finding: Finding) -> Cause | None:
    """Shapes that do not broadcast, and yet an answer: which?"""
    dtype = subject.dtype_of(finding)
    for shapes in (((3,), (4,)), ((2, 6), (3, 4))):
        x, y = (eighths(math.prod(s), k).reshape(s) for k, s in enumerate(shapes))
        for reduction in subject.reductions:
            try:
                (got,) = results(subject, [(x, y)], [(0, reduction)], dtype)
            except Raised:  # as it should
                continue
            for text, a, b in _combined(x.reshape(-1), y.reshape(-1)):
                right = np.asarray(subject.formula.value(a - b, reduction))
                if isinstance(got, Seen) and right.size == got.values.size:
                    right = right.reshape(got.values.shape)
                if is_near(got, right, dtype):
                    text = f"Operands of shapes that do not fit are {text}."
                    return Cause("broadcast_wrong", text)
    return None


def _combined(a: Floats, b: Floats) -> list[tuple[str, Floats, Floats]]:
    """Ways to bring these elements together, in words."""
    if a.size == b.size:
        return [("taken in order, as if they had one shape", a, b)]
    n = min(a.size, b.size)
    return [
        ("compared each with each", a[:, None], b),
        ("cut to the smaller one's size", a[:n], b[:n]),
    ]


_TESTS: dict[str, tuple[Test, ...]] = {
    "value.*": (stale,),
    "value.large": (),
    "gradient.unneeded": (unneeded,),
    "metamorphic.*": (stale,),
    "purity.repeat": (stale,),
    "purity.result": (reused, another_graph),
    "purity.inputs": (changed_operand,),
    "purity.grad_output": (changed_operand,),
    "purity.attributes": (changed_operand,),
    "purity.state": (settings,),
    "broadcasting.error": (incompatible,),
    "dtypes.result": (result_dtype,),
    "dtypes.scalar": (result_dtype,),
    "autograd.interleaved": (another_graph,),
    "autograd.retain": (twice,),
    "autograd.accumulate": (adds_grad,),
    "autograd.inplace": (late,),
    "autograd.nonleaf": (detached,),
    "autograd.anomaly": (within_mode("anomaly", "In anomaly mode"),),
    "autograd.double_backward": (second,),
    "autograd.grad_output_derivative": (second,),
    "autograd.composed": (second,),
    "autograd.forward": (tangent,),
    "transforms.jvp": (tangent,),
    "transforms.grad": (functional,),
    "transforms.vjp": (functional,),
    "transforms.hessian": (hessian,),
    "transforms.vmap": (mapped,),
    "transforms.meta": (without_data,),
    "transforms.fake": (without_data,),
    "transforms.deterministic_mode": (within_mode("deterministic", "In deterministic mode"),),
    "determinism.threads": (within_mode("threads", "With 5 threads", (40_009,)),),
    "module.value": (within_mode("module", "Called as a module"),),
    "module.mode": (within_mode("evaluation", "In evaluation mode"),),
}
