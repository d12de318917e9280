"""Causes that one run does not show: state between calls, derivatives of derivatives, modes.

Each family of clauses has its few calls, made with tensors of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as fwad

from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.cases.plans import derive, plain, with_dtypes, with_shapes
from conformance.cases.values import FORMAT_OF
from conformance.judging.attribution import Finding
from conformance.judging.causes.cause import Cause
from conformance.judging.causes.trials import Subject, trial
from conformance.judging.oracle import result_dtypes
from conformance.observer.observation import call
from conformance.observer.state import (
    Settings,
    as_loaded,
    fresh_randomness,
    unusual_settings,
    world,
    world_changes,
)
from conformance.observer.tensors import DTYPES, make, to_numpy
from reference import mse
from reference.formats import Floats

Test = Callable[[Subject, Finding], Cause | None]


def explain_calls(subject: Subject, finding: Finding) -> Cause | None:
    """By the clause: what its few calls tell."""
    tests = _TESTS.get(finding.clause) or _TESTS.get(finding.clause.partition(".")[0] + ".*", ())
    for test in tests:
        cause = test(subject, finding)
        if cause is not None:
            return cause
    return None


# --- tensors and calls


def eighths(n: int, salt: int) -> Floats:
    """Numbers that every dtype holds, none of them 0, and no two differences alike in sum."""
    random = np.random.Generator(np.random.PCG64(derive("cause", n, salt)))
    return np.asarray(random.integers(1, 25, n) * random.choice([-1.0, 1.0], n) / 8)


def made(values: Floats, dtype: str, device: str, needs: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=DTYPES[dtype], device=device).requires_grad_(needs)


def loss(subject: Subject, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Any:
    with subject.calling(plain("float32", reduction)):
        return call(subject.target, x, y, reduction)


def is_near(got: Any, wanted: Floats, dtype: str) -> bool:
    """Equal but for a few roundings."""
    if not isinstance(got, torch.Tensor) or tuple(got.shape) != np.shape(wanted):
        return False
    few = 4 * FORMAT_OF[dtype].u
    return bool(np.allclose(to_numpy(got), wanted, rtol=few, atol=few * 1e-3))


def reductions(subject: Subject) -> tuple[str, ...]:
    return subject.target.reductions


def dtype_of(subject: Subject, finding: Finding) -> str:
    return finding.dtype if finding.dtype in FLOAT_DTYPES else subject.target.dtypes[0]


# --- state between calls


def stale(subject: Subject, finding: Finding) -> Cause | None:
    """Several calls on shapes that nothing else has used."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for number, reduction in enumerate(reductions(subject)):
        n = 41 + 2 * number
        values = [(eighths(n, 2 * k), eighths(n, 2 * k + 1)) for k in range(4)]
        rights = [np.asarray(mse.loss(x, y, reduction)) for x, y in values]

        def tensors(k: int) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = values[k]  # noqa: B023
            return made(x, dtype, device), made(y, dtype, device)

        def given_again(got: Any, old: int, new: int) -> bool:
            """Whether the answer for the pair ``old`` came for the pair ``new``."""
            if not is_near(got, rights[old], dtype):  # noqa: B023
                return False
            return not is_near(got, rights[new], dtype)  # noqa: B023

        a, b = tensors(0), tensors(1)
        first = loss(subject, *a, reduction)
        if given_again(loss(subject, *b, reduction), 0, 1):
            text = "It gives the last answer again for other tensors of the same shape: a cache."
            return Cause("stale_cache", text)
        thrice = [loss(subject, *tensors(2), reduction) for _ in range(3)]
        start = to_numpy(thrice[0]) if isinstance(thrice[0], torch.Tensor) else rights[2]
        steps = [start + k * rights[2] for k in (1, 2)]
        grows = np.all(np.abs(rights[2]) > 0.1 * np.abs(start))
        if grows and all(is_near(v, s, dtype) for v, s in zip(thrice[1:], steps, strict=True)):
            text = "Every call adds its answer to those before: the accumulator is not cleared."
            return Cause("accumulates", text)
        if not is_near(first, rights[0], dtype):
            continue
        loss(subject, *a, reduction)
        with torch.no_grad():
            for old, new in zip(a, tensors(3), strict=True):
                old.copy_(new)
        if given_again(loss(subject, *a, reduction), 0, 3):
            text = "It gives the last answer again for the same tensors with new contents: a cache."
            return Cause("stale_cache", text)
        for old, new in zip(a, tensors(1), strict=True):
            old.data.copy_(new)
        if given_again(loss(subject, *a, reduction), 3, 1):
            text = (
                "It gives the last answer again for contents that changed through .data: a cache."
            )
            return Cause("stale_cache", text)
        order = np.roll(np.arange(n), 1)
        x, y = values[2]
        loss(subject, *tensors(2), reduction)
        moved = made(x[order], dtype, device), made(y, dtype, device)
        again = loss(subject, *moved, reduction)
        other = np.isclose(mse.loss(x[order], y, reduction), rights[2], rtol=0.1)
        if reduction != "none" and not other and is_near(again, rights[2], dtype):
            text = "It gives the last answer again for the same elements in another order."
            return Cause("stale_cache", text)
    return _kept_reduction(subject, dtype) or _kept_count(subject, dtype)


def _kept_reduction(subject: Subject, dtype: str) -> Cause | None:
    device = subject.runner.device
    for number, first in enumerate(reductions(subject)):
        for other in reductions(subject):
            n = 53 + 2 * number
            x, y = eighths(n, 1), eighths(n, 2)
            a, b = made(x, dtype, device), made(y, dtype, device)
            before = loss(subject, a, b, first)
            after = loss(subject, a, b, other)
            kept = np.asarray(mse.loss(x, y, first))
            if other != first and is_near(before, kept, dtype) and is_near(after, kept, dtype):
                n += 10
                x, y = eighths(n, 1), eighths(n, 2)
                a, b = made(x, dtype, device), made(y, dtype, device)
                fresh = loss(subject, a, b, other)
                if is_near(fresh, np.asarray(mse.loss(x, y, other)), dtype):
                    text = f"The reduction of the first call on a shape ({first}) is kept for all."
                    return Cause("stale_cache", text)
    return None


def _kept_count(subject: Subject, dtype: str) -> Cause | None:
    if "mean" not in reductions(subject):
        return None
    counts = []
    for n in (47, 61, 83):
        x, y = eighths(n, 1), eighths(n, 2)
        device = subject.runner.device
        got = loss(subject, made(x, dtype, device), made(y, dtype, device), "mean")
        if not isinstance(got, torch.Tensor) or got.shape != () or not float(got):
            return None
        counts.append(float(np.sum((x - y) ** 2)) / float(got))
    few = 32 * FORMAT_OF[dtype].u
    if counts[0] > 1.5 and all(math.isclose(c, counts[0], rel_tol=few) for c in counts):
        text = f"The mean is divided by {counts[0]:.4g} whatever n is: a count of an earlier call."
        return Cause("stale_cache", text)
    return None


def reused(subject: Subject, finding: Finding) -> Cause | None:
    """What was kept of one call, after another."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        kept: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        for k in range(3):
            x = made(eighths(19, 2 * k), dtype, device, True)
            y = made(eighths(19, 2 * k + 1), dtype, device, True)
            result = loss(subject, x, y, reduction)
            given = torch.autograd.grad(result, (x, y), torch.ones_like(result), allow_unused=True)
            names = ("result", "gradient of input", "gradient of target")
            for name, tensor in zip(names, (result, *given), strict=True):
                if tensor is not None:
                    kept.append((name, tensor.detach(), tensor.detach().clone()))
        for name, now, then in kept:
            if not torch.equal(now, then):
                text = f"Every {name} of one shape lies in the same memory, which calls reuse."
                return Cause("result_reused", text)
    return None


def another_graph(subject: Subject, finding: Finding) -> Cause | None:
    """Two forwards, then the backward of the first: whose gradient is it?"""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        pairs = [(eighths(23, 2 * k), eighths(23, 2 * k + 1)) for k in range(3)]
        leaves = [tuple(made(v, dtype, device, True) for v in pair) for pair in pairs]
        results = [loss(subject, x, y, reduction) for x, y in leaves]
        scale = 2 / 23 if reduction == "mean" else 2.0
        order = (1, 0, 2)
        for k in order:
            given = torch.autograd.grad(results[k], leaves[k][0], torch.ones_like(results[k]))[0]
            own = scale * (pairs[k][0] - pairs[k][1])
            others = [scale * (x - y) for j, (x, y) in enumerate(pairs) if j != k]
            if not is_near(given, own, dtype) and any(is_near(given, o, dtype) for o in others):
                text = "What backward needs is kept outside the graph: another call overwrites it."
                return Cause("state_kept", text)
    return None


def twice(subject: Subject, finding: Finding) -> Cause | None:
    """A graph that is walked twice, with a grad_output that tells."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        x, y = eighths(5, 1), eighths(5, 2)
        a, b = made(x, dtype, device, True), made(y, dtype, device, True)
        result = loss(subject, a, b, reduction)
        g = torch.full_like(result, 4.0)
        right = 4 * (2 / 5 if reduction == "mean" else 2.0) * (x - y)
        first, second = (
            torch.autograd.grad(result, a, g, retain_graph=True)[0].detach().clone()
            for _ in range(2)
        )
        if not is_near(first, right, dtype) or is_near(second, right, dtype):
            continue
        if is_near(second, 2 * right, dtype):
            text = "A second backward adds to the first one's gradient: its buffer is not cleared."
            return Cause("accumulates", text)
        ratio = to_numpy(second) / right
        if np.allclose(ratio, ratio[0], rtol=0.02):
            text = (
                f"The first backward changes what is saved: the second gives {ratio[0]:.4g} "
                "times its gradient."
            )
            return Cause("state_kept", text)
    return None


def adds_grad(subject: Subject, finding: Finding) -> Cause | None:
    """A gradient that has .grad in it already."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        x, y = eighths(5, 1), eighths(5, 2)
        a, b = made(x, dtype, device, True), made(y, dtype, device)
        a.grad = made(eighths(5, 3), dtype, device)
        result = loss(subject, a, b, reduction)
        (given,) = torch.autograd.grad(result, a, torch.ones_like(result))
        right = (2 / 5 if reduction == "mean" else 2.0) * (x - y)
        if is_near(given, right + eighths(5, 3), dtype) and not is_near(given, right, dtype):
            return Cause("accumulates", "The gradient has .grad added to it, which autograd adds.")
    return None


def late(subject: Subject, finding: Finding) -> Cause | None:
    """An operand changes between forward and backward."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        for changed, name in enumerate(("input", "target")):
            values = [eighths(5, 1), eighths(5, 2)]
            leaves = [made(v, dtype, device, True) for v in values]
            copies = [t.clone() for t in leaves]
            result = loss(subject, copies[0], copies[1], reduction)
            with torch.no_grad():
                copies[changed].mul_(3)
            try:
                given = torch.autograd.grad(result, leaves[0], torch.ones_like(result))[0]
            except RuntimeError:
                continue
            scale = 2 / 5 if reduction == "mean" else 2.0
            right = scale * (values[0] - values[1])
            values[changed] = 3 * values[changed]
            late = scale * (values[0] - values[1])
            if is_near(given, late, dtype) and not is_near(given, right, dtype):
                text = f"Backward reads {name} as it is then, not as forward saw it."
                return Cause("operand_not_saved", text)
    return None


# --- what a call changes


def changed_operand(subject: Subject, finding: Finding) -> Cause | None:
    """Which tensor, and where in its memory."""
    cases = [finding.case] if finding.case else []
    for case in cases:
        if case.mode != "grad":
            continue
        for name, text in _changes(subject, case):
            return Cause("changes_operand", f"The call {text} {name}.")
    name = next((n for n in ("grad_output", "input", "target") if n in finding.message), "")
    if finding.aspect == "purity.attributes" and finding.case is not None:
        seen = subject.observe(finding.case)
        if name in seen.attributes:
            text = f"The call changes requires_grad, .grad, memory, strides or dtype of {name}."
            return Cause("changes_operand", text)
    if finding.clause == "purity.attributes" and finding.case is None:
        return _attributes(subject, finding)
    return None


def _changes(subject: Subject, case: Case) -> Iterator[tuple[str, str]]:
    device = subject.runner.device
    x = make(case.input, device, case.needs[0])
    y = x if case.same else make(case.target, device, case.needs[1])
    before = [(t.buffer.detach().clone(), t.tensor._version) for t in (x, y)]
    result = loss(subject, x.tensor, y.tensor, case.reduction)
    found = [("input", x, *before[0]), ("target", y, *before[1])]
    if case.differentiated and isinstance(result, torch.Tensor) and result.requires_grad:
        g = make(case.grad_output.replace(shape=tuple(result.shape), dtype=case.dtype), device)
        if g.tensor.dtype == result.dtype:
            found.append(("grad_output", g, g.buffer.detach().clone(), g.tensor._version))
            leaves = [t.tensor for t in (x, y) if t.tensor.requires_grad]
            torch.autograd.grad(result, leaves, g.tensor, allow_unused=True)
    for name, t, old, version in found:
        now = t.buffer.detach()
        differ = ~((now == old) | (now != now) & (old != old))
        if differ.any():
            where = int(differ.reshape(-1).nonzero()[0])
            inside = torch.zeros_like(now, dtype=torch.bool)
            inside.as_strided(t.tensor.shape, t.tensor.stride(), t.tensor.storage_offset()).fill_(
                True
            )
            if bool((differ & inside).any()):
                yield name, f"overwrites {int((differ & inside).sum())} element(s) of"
            elif where < t.tensor.storage_offset():
                yield name, "writes in front of the memory of"
            elif bool(inside[where:].any()):
                yield name, "writes into the gaps between the elements of"
            else:
                yield name, "writes behind the end of"
        elif t.tensor._version != version:
            yield name, "writes in place to, and puts it back,"


def _attributes(subject: Subject, finding: Finding) -> Cause | None:
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        x, y = made(eighths(4, 1), dtype, device, True), made(eighths(4, 2), dtype, device)
        x.grad = kept = torch.ones_like(x)
        loss(subject, x, y, reduction)
        if y.requires_grad or not x.requires_grad:
            name = "target" if y.requires_grad else "input"
            return Cause("changes_operand", f"The call changes requires_grad of {name}.")
        if x.grad is not kept:
            return Cause("changes_operand", "The call replaces .grad of input.")
        if y.grad is not None:
            return Cause("changes_operand", "The call gives target a .grad.")
    return None


def settings(subject: Subject, finding: Finding) -> Cause | None:
    """What of the world is another one after a call, as it usually is and as it seldom is."""
    dtype, worlds = dtype_of(subject, finding), (_warning_numpy, unusual_settings, as_loaded)
    for world_of, reduction in itertools.product(worlds, reductions(subject)):
        with fresh_randomness(7), world_of():
            changed = _changed(subject, dtype, reduction)
        if changed:
            return Cause("leaves_settings", f"A call changes {changed[0]}.")
    return None


def _warning_numpy() -> contextlib.AbstractContextManager[object]:
    return np.errstate(all="warn")


def _changed(subject: Subject, dtype: str, reduction: str) -> list[str]:
    """What a call, and then its backward, changes of the world as it is now."""
    x, y = (made(eighths(9, k), dtype, subject.runner.device, True) for k in (1, 2))
    before, known = world(), Settings.now()
    with subject.runner.in_box(plain(dtype, reduction).key):
        result = call(subject.target, x, y, reduction)
    changed = known.changes()
    if isinstance(result, torch.Tensor) and result.requires_grad:
        torch.autograd.grad(result, x, torch.ones_like(result))
    return changed + known.changes() + world_changes(before)


# --- dtypes


def result_dtype(subject: Subject, finding: Finding) -> Cause | None:
    """By which rule the dtype of the result is another one."""
    if finding.case is None:
        return _dimensions_decide(subject, finding)
    own = finding.case
    pairs = [(own.input.dtype, own.target.dtype)]
    pairs += [(a, b) for a in subject.target.dtypes for b in subject.target.dtypes]
    seen: list[tuple[str, str, str, str]] = []
    for a, b in dict.fromkeys(pairs):
        case = with_dtypes(own, a, b)
        if subject.allows(case):
            value = subject.observe(case).value
            if value is not None:
                seen.append((a, b, result_dtypes(case)[0], value.dtype))
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


def _dimensions_decide(subject: Subject, finding: Finding) -> Cause | None:
    device = subject.runner.device
    for scalar, vector in (("float64", "float32"), ("float32", "bfloat16")):
        if {scalar, vector} <= set(subject.target.dtypes):
            x = made(np.ones(()), scalar, device)
            got = loss(subject, x, made(np.ones(3), vector, device), reductions(subject)[0])
            if isinstance(got, torch.Tensor) and got.dtype == DTYPES[vector]:
                text = "A 0-d operand does not widen the dtype of one with dimensions."
                return Cause("wrong_dtype", text)
    return None


def unneeded(subject: Subject, finding: Finding) -> Cause | None:
    if finding.case is not None and subject.observe(finding.case).requires_grad:
        text = "The result requires a gradient though no operand does."
        return Cause("unneeded_gradient", text)
    return None


def incompatible(subject: Subject, finding: Finding) -> Cause | None:
    """Shapes that do not broadcast, and yet an answer: which?"""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for shapes in (((3,), (4,)), ((2, 6), (3, 4))):
        x, y = (eighths(math.prod(s), k).reshape(s) for k, s in enumerate(shapes))
        for reduction in reductions(subject):
            try:
                got = loss(subject, made(x, dtype, device), made(y, dtype, device), reduction)
            except Exception:  # as it should
                continue
            a, b = x.reshape(-1), y.reshape(-1)
            n = min(a.size, b.size)
            answers = [
                ("compared each with each", a[:, None], b),
                ("cut to the smaller one's size", a[:n], b[:n]),
            ]
            if a.size == b.size:
                answers = [("taken in order, as if they had one shape", a, b)]
            for text, p, q in answers:
                right = np.asarray(mse.loss(p, q, reduction))
                shaped = right.reshape(got.shape) if right.size == got.numel() else right
                if is_near(got, shaped, dtype):
                    text = f"Operands of shapes that do not fit are {text}."
                    return Cause("broadcast_wrong", text)
    return None


# --- derivatives of derivatives, and tangents


def _judged(got: Any, right: Floats, ones: Floats, n: int, dtype: str, what: str) -> Cause | None:
    """What is wrong with a derivative. ``ones``: what it were, with a grad_output of 1."""
    if is_near(got, right, dtype):
        return None
    if got is None or is_near(got, np.zeros_like(right), dtype):
        return Cause("second_derivative_missing", f"{what} is cut off: it is None or 0.")
    if not isinstance(got, torch.Tensor) or tuple(got.shape) != right.shape:
        return None
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


def second(subject: Subject, finding: Finding) -> Cause | None:
    """The derivatives of the gradient of input along a cotangent, by each that it depends on."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    found: list[Cause | None] = []
    n = 7
    for reduction, leaf in ((r, leaf) for leaf in (True, False) for r in reductions(subject)):
        x, y, w = eighths(n, 1), eighths(n, 2), eighths(n, 3)
        g = eighths(n, 4) if reduction == "none" else eighths(1, 4).reshape(())
        leaves = [made(v, dtype, device, True) for v in (x, y, g)]
        used = leaves if leaf else [1 * t for t in leaves]
        result = loss(subject, used[0], used[1], reduction)
        try:
            (first,) = torch.autograd.grad(result, used[0], used[2], create_graph=True)
        except RuntimeError:
            continue
        scale = 2 / n if reduction == "mean" else 2.0
        third = scale * (x - y) * w
        rights = (
            (scale * g * w * np.ones(n), scale * w * np.ones(n)),
            (-scale * g * w * np.ones(n), -scale * w * np.ones(n)),
            (third if reduction == "none" else np.asarray(third.sum()),) * 2,
        )
        names = ("by input", "by target", "by grad_output")
        claimed = (True, "target_gradient" in subject.target.claims, True)
        for name, source, (right, ones), wanted in zip(names, leaves, rights, claimed, strict=True):
            if not wanted:
                continue
            what = f"The second derivative {name}" + (
                "" if leaf else " of operands that are no leaves"
            )
            try:
                (got,) = torch.autograd.grad(
                    first, source, made(w, dtype, device), retain_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                if "does not require grad" in str(error):
                    return Cause("second_derivative_missing", f"{what} is cut off: no graph.")
                continue
            found.append(_judged(got, right, ones, n if reduction == "mean" else 1, dtype, what))
    return _only(found)


def _only(found: Sequence[Cause | None]) -> Cause | None:
    """The first, where all mean the same."""
    causes = [c for c in found if c is not None]
    if {c.id for c in causes} == {"constant_factor", "missing_count"}:  # 2 in one, 2/n in another
        causes = [c for c in causes if c.id == "missing_count"]
    return causes[0] if causes and len({c.id for c in causes}) == 1 else None


def tangent(subject: Subject, finding: Finding) -> Cause | None:
    """Tangents along either operand, in forward mode and by torch.func."""
    dtype, n = dtype_of(subject, finding), 7
    found: list[Cause | None] = []
    for reduction in reductions(subject):
        x, y, t = eighths(n, 1), eighths(n, 2), eighths(n, 3)
        for k, name in enumerate(("input", "target")):
            along = [t if j == k else np.zeros(n) for j in range(2)]
            right = np.asarray(mse.jvp(x - y, along[0] - along[1], reduction))
            got = _tangent(subject, (x, y), along, reduction, dtype, "transforms" in finding.clause)
            if got is None or is_near(got, np.zeros_like(right), dtype):
                text = f"The tangent of {name} is ignored."
                found.append(Cause("no_tangent", text))
            else:
                what = f"The tangent along {name}"
                count = n if reduction == "mean" else 1
                found.append(_judged(got, right, right, count, dtype, what))
    return _only(found)


def _tangent(
    subject: Subject,
    values: tuple[Floats, Floats],
    along: Sequence[Floats],
    reduction: str,
    dtype: str,
    functional: bool,
) -> Any:
    device = subject.runner.device
    operands = [made(v, dtype, device) for v in values]
    tangents = [made(v, dtype, device) for v in along]
    if functional:

        def function(a: torch.Tensor, b: torch.Tensor) -> Any:
            return call(subject.target, a, b, reduction)

        return torch.func.jvp(function, tuple(operands), tuple(tangents))[1]
    forward: Any = fwad
    with forward.dual_level():
        duals = [forward.make_dual(v, t) for v, t in zip(operands, tangents, strict=True)]
        return forward.unpack_dual(loss(subject, duals[0], duals[1], reduction)).tangent


def functional(subject: Subject, finding: Finding) -> Cause | None:
    """torch.func.vjp by either operand, with a cotangent that tells."""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    n, found = 7, []
    for reduction in reductions(subject):
        x, y = eighths(n, 1), eighths(n, 2)
        g = eighths(n, 4) if reduction == "none" else eighths(1, 4).reshape(())

        def function(a: torch.Tensor, b: torch.Tensor, reduction: str = reduction) -> Any:
            return call(subject.target, a, b, reduction)

        pull = torch.func.vjp(function, made(x, dtype, device), made(y, dtype, device))[1]
        given = pull(made(g, dtype, device))
        scale = 2 / n if reduction == "mean" else 2.0
        for name, sign, got in (("input", 1, given[0]), ("target", -1, given[1])):
            right = sign * scale * (x - y) * g
            what = f"Under torch.func the gradient by {name}"
            cause = _judged(got, right, sign * scale * (x - y), n, dtype, what)
            if cause is not None and cause.id == "second_derivative_missing":
                cause = Cause("no_gradient", f"{what} is 0: it is taken for a constant.")
            found.append(cause)
    return _only(found)


def hessian(subject: Subject, finding: Finding) -> Cause | None:
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):

        def total(a: torch.Tensor, b: torch.Tensor, reduction: str = reduction) -> Any:
            return call(subject.target, a, b, reduction).sum()

        x, y = made(eighths(4, 1), dtype, device), made(eighths(4, 2), dtype, device)
        got = torch.func.jacrev(torch.func.jacrev(total))(x, y)
        if not bool(got.any()):
            text = "Under torch.func the second derivative is cut off: it is 0."
            return Cause("second_derivative_missing", text)
    return None


def mapped(subject: Subject, finding: Finding) -> Cause | None:
    """vmap over a batch: the mean of each sample."""
    if "mean" not in reductions(subject):
        return None
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for batch in (3, 5):
        x, y = (eighths(4 * batch, k).reshape(batch, 4) for k in (1, 2))

        def mean(a: torch.Tensor, b: torch.Tensor) -> Any:
            return call(subject.target, a, b, "mean")

        got = torch.func.vmap(mean)(made(x, dtype, device), made(y, dtype, device))
        if not is_near(got, ((x - y) ** 2).mean(1) / batch, dtype):
            return None
    return Cause("wrong_count", "Under vmap a mean is divided by the size of the whole batch.")


def detached(subject: Subject, finding: Finding) -> Cause | None:
    """Operands that are products: does a gradient come through?"""
    dtype, device = dtype_of(subject, finding), subject.runner.device
    for reduction in reductions(subject):
        x, y = made(eighths(5, 1), dtype, device, True), made(eighths(5, 2), dtype, device)
        result = loss(subject, 2 * x, y, reduction)
        cut = not result.requires_grad
        if not cut:
            (got,) = torch.autograd.grad(result, x, torch.ones_like(result), allow_unused=True)
            cut = got is None or not bool(got.any())
        if cut:
            text = "No gradient reaches what the input is made of, where it is no leaf."
            return Cause("no_gradient", text)
    return None


# --- modes: the same questions as of a plain call, inside


def within_mode(context: Callable[[], Any], where: str, sizes: Sequence[int] = (5,)) -> Test:
    """A test that explains the plain case inside a mode in which alone it is wrong."""

    def test(subject: Subject, finding: Finding) -> Cause | None:
        inside = replace(subject, context=context)
        cause = _plainly(inside, dtype_of(subject, finding), sizes)
        if cause is None or not where:
            return cause
        return Cause(cause.id, f"{where}: {cause.text[0].lower()}{cause.text[1:]}")

    return test


def _plainly(subject: Subject, dtype: str, sizes: Sequence[int]) -> Cause | None:
    from conformance.judging.causes import explain_case  # it calls this module

    for n in sizes:
        for reduction in reductions(subject):
            case = with_shapes(plain(dtype, reduction), (n,), (n,))
            for aspect in ("value", "gradient.input", "gradient.target"):
                if subject.allows(case) and trial(subject, case, aspect).wrong:
                    found = explain_case(subject, Finding(aspect, dtype, "", case, aspect))
                    if found is not None:
                        return found
    return None


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _anomaly() -> Any:
    return torch.autograd.detect_anomaly(check_nan=False)


def of_module(
    prepare: Callable[[Any], Any], where: str
) -> Callable[[Subject, Finding], Cause | None]:
    """A test that explains the plain case of the target's module, after ``prepare``."""

    def test(subject: Subject, finding: Finding) -> Cause | None:
        make_module = subject.target.module
        if make_module is None:
            return None

        def called(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> Any:
            module = make_module(reduction=reduction)
            prepared = prepare(module)
            return (module if prepared is None else prepared)(x, y)

        inside = replace(subject, target=replace(subject.target, loss=called))
        cause = _plainly(inside, dtype_of(subject, finding), (5,))
        if cause is None:
            return None
        return Cause(cause.id, f"{where}: {cause.text[0].lower()}{cause.text[1:]}")

    return test


def without_data(subject: Subject, finding: Finding) -> Cause | None:
    """Shape and dtype of what comes back for tensors without data."""
    for reduction in reductions(subject):
        for dtype in subject.target.dtypes:
            x, y = (torch.empty(2, 3, dtype=DTYPES[dtype], device="meta") for _ in range(2))
            context = contextlib.nullcontext
            if finding.clause == "transforms.fake":
                from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

                context = FakeTensorMode  # type: ignore[assignment]
            with context():
                if finding.clause == "transforms.fake":
                    x, y = (torch.empty(2, 3, dtype=DTYPES[dtype]) for _ in range(2))
                got = call(subject.target, x, y, reduction)
            shape = (2, 3) if reduction == "none" else ()
            if not isinstance(got, torch.Tensor):
                return None
            if got.dtype != DTYPES[dtype]:
                name = str(got.dtype).removeprefix("torch.")
                text = f"Without data the result is {name} for {dtype}."
                return Cause("wrong_dtype", text)
            if tuple(got.shape) != shape and got.numel() == math.prod(shape):
                text = f"Without data the result has shape {tuple(got.shape)}, not {shape}."
                return Cause("result_shape", text)
    return None


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
    "autograd.anomaly": (within_mode(_anomaly, "In anomaly mode"),),
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
    "transforms.deterministic_mode": (within_mode(_deterministic, "In deterministic mode"),),
    "determinism.threads": (within_mode(_threads, "With 5 threads", (40_009,)),),
    "module.value": (of_module(lambda m: None, "Called as a module"),),
    "module.mode": (of_module(lambda m: m.eval(), "In evaluation mode"),),
}
