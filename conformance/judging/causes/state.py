"""Causes that lie between calls: what one call leaves behind, in the target or around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conformance.cases.case import Case, Operand
from conformance.cases.values import FORMAT_OF
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import (
    Subject,
    as_made,
    each,
    eighths,
    is_near,
    parts,
    positions,
)
from conformance.judging.findings import Finding
from conformance.judging.observer import Given
from conformance.judging.seen import Seen
from reference.formats import Floats

Pair = tuple[Floats, Floats]
AGAIN = "It gives the last answer again for"


def pairs_of(n: int, count: int) -> list[Pair]:
    """So many pairs of operands of ``n`` elements."""
    return [(eighths(n, 2 * k), eighths(n, 2 * k + 1)) for k in range(count)]


def handed(pairs: Sequence[Pair], dtype: str, needs: bool = False) -> dict[str, Given]:
    """Pairs as a protocol takes them: ``x0``, ``y0``, ``x1``, …"""
    return {
        f"{name}{k}": Given(values, dtype, needs)
        for k, pair in enumerate(pairs)
        for name, values in zip("xy", pair, strict=True)
    }


def results(
    subject: Subject, pairs: Sequence[Pair], calls: Sequence[tuple[int, str]], dtype: str
) -> list[Any]:
    """What calls give, one after the other, each on one of ``pairs`` with a reduction."""
    found = subject.ask("results", calls=calls, **handed(pairs, dtype))
    return each(found, "results", len(calls))


def right_of(subject: Subject, pair: Pair, reduction: str) -> Floats:
    return np.asarray(subject.formula.value(pair[0] - pair[1], reduction))


# --- answers that are given again, or added up


def stale(subject: Subject, finding: Finding) -> Cause | None:
    """Several calls on shapes that nothing else has used."""
    dtype = subject.dtype_of(finding)
    for number, reduction in enumerate(subject.reductions):
        cause = _stale(subject, dtype, reduction, 41 + 2 * number)
        if cause is not None:
            return cause
    return _kept_reduction(subject, dtype) or _kept_count(subject, dtype)


def _stale(subject: Subject, dtype: str, reduction: str, n: int) -> Cause | None:
    pairs = pairs_of(n, 4)
    rights = [right_of(subject, pair, reduction) for pair in pairs]

    def given_again(got: Any, old: int, new: int) -> bool:
        """Whether the answer for the pair ``old`` came for the pair ``new``."""
        return is_near(got, rights[old], dtype) and not is_near(got, rights[new], dtype)

    a, b, c, d = pairs
    calls = [(k, reduction) for k in range(5)]
    first, second, *thrice = results(subject, [a, b, c, c, c], calls, dtype)
    if given_again(second, 0, 1):
        return Cause("stale_cache", f"{AGAIN} other tensors of the same shape: a cache.")
    if _grows(thrice, rights[2], dtype):
        text = "Every call adds its answer to those before: the accumulator is not cleared."
        return Cause("accumulates", text)
    if not is_near(first, rights[0], dtype):
        return None
    changed = subject.ask("changed", reduction=reduction, **handed([a, d, b], dtype))
    _, copied, through_data = each(changed, "results", 3)
    if given_again(copied, 0, 3):
        return Cause("stale_cache", f"{AGAIN} the same tensors with new contents: a cache.")
    if given_again(through_data, 3, 1):
        return Cause("stale_cache", f"{AGAIN} contents that changed through .data: a cache.")
    if reduction != "none" and _ignores_order(subject, c, reduction, dtype):
        return Cause("stale_cache", f"{AGAIN} the same elements in another order.")
    return None


def _grows(thrice: Sequence[Any], right: Floats, dtype: str) -> bool:
    """Whether each of three answers to one question is larger than the last by the right one."""
    first = thrice[0]
    if not isinstance(first, Seen) or first.values.shape != right.shape:
        return False
    steps = [first.values + k * right for k in (1, 2)]
    grows = bool(np.all(np.abs(right) > 0.1 * np.abs(first.values)))
    return grows and all(is_near(v, s, dtype) for v, s in zip(thrice[1:], steps, strict=True))


def _ignores_order(subject: Subject, pair: Pair, reduction: str, dtype: str) -> bool:
    x, y = pair
    moved = np.roll(x, 1), y
    _, again = results(subject, [pair, moved], [(0, reduction), (1, reduction)], dtype)
    right = right_of(subject, pair, reduction)
    differs = not np.isclose(right_of(subject, moved, reduction), right, rtol=0.1)
    return differs and is_near(again, right, dtype)


def _kept_reduction(subject: Subject, dtype: str) -> Cause | None:
    for number, first in enumerate(subject.reductions):
        for other in subject.reductions:
            if other == first:
                continue
            n = 53 + 2 * number
            pair = eighths(n, 1), eighths(n, 2)
            seen = results(subject, [pair], [(0, first), (0, other)], dtype)
            if not all(is_near(got, right_of(subject, pair, first), dtype) for got in seen):
                continue
            pair = eighths(n + 10, 1), eighths(n + 10, 2)
            (fresh,) = results(subject, [pair], [(0, other)], dtype)
            if is_near(fresh, right_of(subject, pair, other), dtype):
                text = f"The reduction of the first call on a shape ({first}) is kept for all."
                return Cause("stale_cache", text)
    return None


def _kept_count(subject: Subject, dtype: str) -> Cause | None:
    if "mean" not in subject.reductions:
        return None
    pairs = [(eighths(n, 1), eighths(n, 2)) for n in (47, 61, 83)]
    counts = []
    for pair, got in zip(
        pairs, results(subject, pairs, [(k, "mean") for k in range(3)], dtype), strict=True
    ):
        if not isinstance(got, Seen) or got.values.shape != () or not float(got.values):
            return None
        counts.append(float(right_of(subject, pair, "sum")) / float(got.values))
    few = 32 * FORMAT_OF[dtype].u
    if counts[0] > 1.5 and all(math.isclose(c, counts[0], rel_tol=few) for c in counts):
        text = f"The mean is divided by {counts[0]:.4g} whatever n is: a count of an earlier call."
        return Cause("stale_cache", text)
    return None


# --- what another call, or another backward, overwrites


def reused(subject: Subject, finding: Finding) -> Cause | None:
    """What was kept of one call, after another."""
    dtype = subject.dtype_of(finding)
    for reduction in subject.reductions:
        operands = handed(pairs_of(19, 3), dtype, needs=True)
        found = subject.ask("after_others", pairs=3, reduction=reduction, **operands)
        names = ("result", "gradient of input", "gradient of target")
        for pair in each(found, "pairs", 3):
            now, then = (each(parts(pair), moment, len(names)) for moment in ("now", "then"))
            for name, *kept in zip(names, now, then, strict=True):
                if not _unchanged(*kept):
                    text = f"Every {name} of one shape lies in the same memory, which calls reuse."
                    return Cause("result_reused", text)
    return None


def _unchanged(now: Any, then: Any) -> bool:
    """Where there is a tensor at all."""
    if not (isinstance(now, Seen) and isinstance(then, Seen)):
        return True
    return np.array_equal(now.values, then.values, equal_nan=True)


def another_graph(subject: Subject, finding: Finding) -> Cause | None:
    """Several forwards, then their backwards in another order: whose gradient is it?"""
    dtype, n, order = subject.dtype_of(finding), 23, (1, 0, 2)
    for reduction in subject.reductions:
        pairs = pairs_of(n, 3)
        operands = handed(pairs, dtype, needs=True)
        found = subject.ask("interleaved", order=order, reduction=reduction, **operands)
        slopes = [slope(pair, reduction) for pair in pairs]
        for k, given in zip(order, each(found, "gradients", 3), strict=True):
            others = [other for j, other in enumerate(slopes) if j != k]
            if is_near(given, slopes[k], dtype):
                continue
            if any(is_near(given, other, dtype) for other in others):
                text = "What backward needs is kept outside the graph: another call overwrites it."
                return Cause("state_kept", text)
    return None


def slope(pair: Pair, reduction: str) -> Floats:
    """The gradient of input, with a ``grad_output`` of 1."""
    x, y = pair
    return np.asarray((2 / x.size if reduction == "mean" else 2.0) * (x - y))


def twice(subject: Subject, finding: Finding) -> Cause | None:
    """A graph that is walked twice, with a grad_output that tells."""
    dtype, factor = subject.dtype_of(finding), 4.0
    for reduction in subject.reductions:
        pair = eighths(5, 1), eighths(5, 2)
        x, y = (Given(v, dtype, True) for v in pair)
        found = subject.ask("twice", x=x, y=y, factor=factor, reduction=reduction)
        right, again = factor * slope(pair, reduction), found.items_of("second")
        if not is_near(found["first"], right, dtype):
            continue
        if "raised" in again:
            text = (
                "A second backward raises: what it needs is gone after the first, retained or not."
            )
            return Cause("saved_once", text)
        second = again["got"]
        if is_near(second, right, dtype):
            continue
        if is_near(second, 2 * right, dtype):
            text = "A second backward adds to the first one's gradient: its buffer is not cleared."
            return Cause("accumulates", text)
        if not isinstance(second, Seen) or second.values.shape != right.shape:
            continue
        ratio = second.values / right
        if np.allclose(ratio, ratio[0], rtol=0.02):
            text = (
                f"The first backward changes what is saved: the second gives {ratio[0]:.4g} "
                "times its gradient."
            )
            return Cause("state_kept", text)
    return None


def adds_grad(subject: Subject, finding: Finding) -> Cause | None:
    """A gradient of what has .grad already."""
    dtype = subject.dtype_of(finding)
    for reduction in subject.reductions:
        pair, held = (eighths(5, 1), eighths(5, 2)), eighths(5, 3)
        x, y, beside = (Given(v, dtype) for v in (*pair, held))
        found = subject.ask("beside_grad", x=x.leaf(), y=y, held=beside, reduction=reduction)
        right, given = slope(pair, reduction), found["gradient"]
        if is_near(given, right + held, dtype) and not is_near(given, right, dtype):
            return Cause("accumulates", "The gradient has .grad added to it, which autograd adds.")
    return None


def late(subject: Subject, finding: Finding) -> Cause | None:
    """An operand changes between forward and backward."""
    dtype, factor = subject.dtype_of(finding), 3.0
    for reduction, (of, name) in itertools.product(
        subject.reductions, enumerate(("input", "target"))
    ):
        pair = [eighths(5, 1), eighths(5, 2)]
        x, y = (Given(v, dtype, True) for v in pair)
        found = subject.ask("late", x=x, y=y, of=of, factor=factor, reduction=reduction)
        if "raised" in found:
            continue
        right = slope((pair[0], pair[1]), reduction)
        pair[of] = factor * pair[of]
        changed = slope((pair[0], pair[1]), reduction)
        if is_near(found["got"], changed, dtype) and not is_near(found["got"], right, dtype):
            text = f"Backward reads {name} as it is then, not as forward saw it."
            return Cause("operand_not_saved", text)
    return None


# --- what a call changes


def changed_operand(subject: Subject, finding: Finding) -> Cause | None:
    """Which tensor, and where in its memory."""
    case = finding.case
    if case is not None and case.mode == "grad":
        for text in _changes(subject, case):
            return Cause("changes_operand", f"The call {text}.")
    if finding.aspect == "purity.attributes" and case is not None:
        name = next((n for n in ("grad_output", "input", "target") if n in finding.message), "")
        if name in subject.observe([case])[0].attributes:
            text = f"The call changes requires_grad, .grad, memory, strides or dtype of {name}."
            return Cause("changes_operand", text)
    if finding.clause == "purity.attributes" and case is None:
        return _attributes(subject, finding)
    return None


def _changes(subject: Subject, case: Case) -> Iterator[str]:
    """What one call and its backward do to a tensor, in words."""
    call = as_made(case)
    found = subject.ask("left", call=call.told(), **call.handed())
    buffers, written = found.items_of("buffers"), found.listed("written")
    for name, (operand, old) in call.operands().items():
        now = buffers.tensor(name).values if name in buffers else old
        if now.shape != old.shape:
            continue
        differ = ~((now == old) | np.isnan(now) & np.isnan(old))
        if differ.any():
            yield f"{_where(operand, differ)} {name}"
        elif name in written:
            yield f"writes in place to, and puts it back, {name}"


def _where(operand: Operand, differ: np.ndarray) -> str:
    """Of a buffer in which elements are other ones than before."""
    inside = np.zeros(differ.shape, bool)
    inside[positions(operand)] = True
    first = int(np.flatnonzero(differ)[0])
    if (differ & inside).any():
        return f"overwrites {int((differ & inside).sum())} element(s) of"
    if first < int(np.argmax(inside)):
        return "writes in front of the memory of"
    if inside[first:].any():
        return "writes into the gaps between the elements of"
    return "writes behind the end of"


def _attributes(subject: Subject, finding: Finding) -> Cause | None:
    dtype = subject.dtype_of(finding)
    for reduction in subject.reductions:
        x, y = Given(eighths(4, 1), dtype, True), Given(eighths(4, 2), dtype)
        found = subject.ask("attributes", x=x, y=y, reduction=reduction)
        needs = each(found, "needs", 2)
        if needs != [True, False]:
            name = "target" if needs[1] else "input"
            return Cause("changes_operand", f"The call changes requires_grad of {name}.")
        if not found.flag("keeps"):
            return Cause("changes_operand", "The call replaces .grad of input.")
        if found.flag("gains"):
            return Cause("changes_operand", "The call gives target a .grad.")
    return None


def settings(subject: Subject, finding: Finding) -> Cause | None:
    """What of the world is another one after a call, as it usually is and as it seldom is."""
    dtype, worlds = subject.dtype_of(finding), ("usual", "unusual", "as loaded")
    for world, reduction in itertools.product(worlds, subject.reductions):
        x, y = (Given(eighths(9, k), dtype, True) for k in (1, 2))
        found = subject.ask("settings", x=x, y=y, seed=7, inside=world, reduction=reduction)
        for changed in found.listed("changed"):
            return Cause("leaves_settings", f"A call changes {changed}.")
    return None
