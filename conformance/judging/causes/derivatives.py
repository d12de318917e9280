"""Causes that show in derivatives of derivatives, tangents, and under torch.func."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Subject, each, eighths, is_near, parts
from conformance.judging.findings import Finding
from conformance.judging.observer import Given
from conformance.judging.seen import Seen
from reference.formats import Floats

N = 7  # elements


def _judged(got: Any, right: Floats, ones: Floats, n: int, dtype: str, what: str) -> Cause | None:
    """What is wrong with a derivative. ``ones``: what it were, with a grad_output of 1."""
    if is_near(got, right, dtype):
        return None
    if got is None or is_near(got, np.zeros_like(right), dtype):
        return Cause("second_derivative_missing", f"{what} is cut off: it is None or 0.")
    for factor, id, text in (
        (-1.0, "wrong_sign", "has the wrong sign"),
        (n, "missing_count", "is not divided by n"),
        (n / 2 if n > 1 else 1, "missing_count", "has no factor 2/n"),
        (0.5, "constant_factor", "is half of what it should be"),
        (2.0, "constant_factor", "is twice what it should be"),
    ):
        if factor != 1 and is_near(got, factor * right, dtype):
            return Cause(id, f"{what} {text}.")
    if is_near(got, ones, dtype):
        return Cause("missing_grad_output", f"{what} ignores grad_output: it is what ones give.")
    return None


def _only(found: Sequence[Cause | None]) -> Cause | None:
    """The first, where all mean the same."""
    causes = [c for c in found if c is not None]
    if {c.id for c in causes} == {"constant_factor", "missing_count"}:  # 2 in one, 2/n in another
        causes = [c for c in causes if c.id == "missing_count"]
    return causes[0] if causes and len({c.id for c in causes}) == 1 else None


def _cotangent(reduction: str) -> Floats:
    return eighths(N, 4) if reduction == "none" else eighths(1, 4).reshape(())


def second(subject: Subject, finding: Finding) -> Cause | None:
    """The derivatives of the gradient of input along a cotangent, by each that it depends on."""
    dtype = subject.dtype_of(finding)
    return _only(
        [
            cause
            for leaf in (True, False)
            for reduction in subject.reductions
            for cause in _seconds(subject, dtype, reduction, leaf)
        ]
    )


def _seconds(subject: Subject, dtype: str, reduction: str, leaf: bool) -> Iterator[Cause | None]:
    x, y, w, g = *(eighths(N, k) for k in (1, 2, 3)), _cotangent(reduction)
    operands = {name: Given(v, dtype, True) for name, v in (("x", x), ("y", y), ("g", g))}
    along = Given(w, dtype)
    found = subject.ask("second", **operands, along=along, leaf=leaf, reduction=reduction)
    if "raised" in found:
        return
    scale = 2 / N if reduction == "mean" else 2.0
    by_input, third = scale * w * np.ones(N), scale * (x - y) * w
    by_g = third if reduction == "none" else np.asarray(third.sum())
    rights = ("input", g * by_input, by_input), ("target", -g * by_input, -by_input)
    for (name, right, ones), seen in zip(
        (*rights, ("grad_output", by_g, by_g)), map(parts, each(found, "by", 3)), strict=True
    ):
        if name == "target" and "target_gradient" not in subject.target.claims:
            continue
        what = f"The second derivative by {name}{'' if leaf else ' of operands that are no leaves'}"
        if "got" in seen:
            count = N if reduction == "mean" else 1
            yield _judged(seen["got"], right, ones, count, dtype, what)
        elif "does not require grad" in seen.text("raised"):
            yield Cause("second_derivative_missing", f"{what} is cut off: no graph.")


def tangent(subject: Subject, finding: Finding) -> Cause | None:
    """Tangents along either operand, in forward mode and by torch.func."""
    dtype, functional = subject.dtype_of(finding), "transforms" in finding.clause
    found: list[Cause | None] = []
    for reduction in subject.reductions:
        x, y, t = (eighths(N, k) for k in (1, 2, 3))
        for name, dx, dy in (("input", t, 0 * t), ("target", 0 * t, t)):
            right = np.asarray(subject.formula.jvp(x - y, dx - dy, reduction))
            values = {"x": x, "y": y, "dx": dx, "dy": dy}
            given = {key: Given(v, dtype) for key, v in values.items()}
            seen = subject.ask("tangent", **given, functional=functional, reduction=reduction)
            got = seen["tangent"]
            if got is None or is_near(got, np.zeros_like(right), dtype):
                found.append(Cause("no_tangent", f"The tangent of {name} is ignored."))
            else:
                count = N if reduction == "mean" else 1
                what = f"The tangent along {name}"
                found.append(_judged(got, right, right, count, dtype, what))
    return _only(found)


def functional(subject: Subject, finding: Finding) -> Cause | None:
    """torch.func.vjp by either operand, with a cotangent that tells."""
    dtype = subject.dtype_of(finding)
    found: list[Cause | None] = []
    for reduction in subject.reductions:
        x, y, g = eighths(N, 1), eighths(N, 2), _cotangent(reduction)
        given = {key: Given(v, dtype) for key, v in (("x", x), ("y", y), ("g", g))}
        seen = each(subject.ask("pulled", **given, reduction=reduction), "gradients", 2)
        scale = 2 / N if reduction == "mean" else 2.0
        for name, slope, got in zip(
            ("input", "target"), (scale * (x - y), -scale * (x - y)), seen, strict=True
        ):
            what = f"Under torch.func the gradient by {name}"
            cause = _judged(got, slope * g, slope, N, dtype, what)
            if cause is not None and cause.id == "second_derivative_missing":
                cause = Cause("no_gradient", f"{what} is 0: it is taken for a constant.")
            found.append(cause)
    return _only(found)


def hessian(subject: Subject, finding: Finding) -> Cause | None:
    """By torch.func, of the sum."""
    dtype = subject.dtype_of(finding)
    for reduction in subject.reductions:
        x, y = (Given(eighths(4, k), dtype) for k in (1, 2))
        got = subject.ask("hessian", x=x, y=y, reduction=reduction)["hessian"]
        if isinstance(got, Seen) and not got.values.any():
            text = "Under torch.func the second derivative is cut off: it is 0."
            return Cause("second_derivative_missing", text)
    return None


def mapped(subject: Subject, finding: Finding) -> Cause | None:
    """vmap over a batch: the mean of each sample."""
    if "mean" not in subject.reductions:
        return None
    dtype = subject.dtype_of(finding)
    for batch in (3, 5):
        x, y = (eighths(4 * batch, k).reshape(batch, 4) for k in (1, 2))
        found = subject.ask("mapped", x=Given(x, dtype), y=Given(y, dtype), reduction="mean")
        if not is_near(
            found["result"], subject.formula.value(x - y, "none").mean(1) / batch, dtype
        ):
            return None
    return Cause("wrong_count", "Under vmap a mean is divided by the size of the whole batch.")


def detached(subject: Subject, finding: Finding) -> Cause | None:
    """Operands that are products: does a gradient come through?"""
    dtype = subject.dtype_of(finding)
    for reduction in subject.reductions:
        x, y = Given(eighths(5, 1), dtype, True), Given(eighths(5, 2), dtype)
        got = subject.ask("through_product", x=x, y=y, reduction=reduction)["gradient"]
        if got is None or (isinstance(got, Seen) and not got.values.any()):
            text = "No gradient reaches what the input is made of, where it is no leaf."
            return Cause("no_gradient", text)
    return None
