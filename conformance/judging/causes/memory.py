"""Which elements a target reads, and how often: measured with tensors made for it.

The value's elements are told apart by impulses: where all else is 0, what one element adds says
whether it is lost, or counted twice. Strides are told by decoys: gaps and guards that hold numbers
where a case's own hold NaN, so that whoever reads them betrays from where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from conformance.cases.case import INTEGER_DTYPES, Case, Operand
from conformance.cases.features import loss_of
from conformance.cases.layouts import place
from conformance.cases.plans import with_shapes
from conformance.cases.values import FORMAT_OF
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import (
    Indices,
    Laid,
    Subject,
    answers,
    each,
    grad_output,
    length,
    positions,
    strided,
)
from conformance.judging.causes.trials import Trial, trials
from conformance.judging.seen import Seen
from reference.formats import Floats
from reference.reductions import unbroadcast

FEW = 200  # elements: of larger tensors only some are tried
HEIGHT = 16.0  # of an impulse: its square is exact in every dtype


# --- strides: who reads where


def readers(operand: Operand, other: Operand) -> Iterator[tuple[str, str, Indices]]:
    """Ways to read an operand's elements: id of the cause, in words, and the positions.

    The right one comes first, and has no words; none comes twice.
    """
    known: list[Indices] = []
    for id, text, index in _readers(operand, other):
        if not any(np.array_equal(index, other) for other in known):
            known.append(index)
            yield id, text, index


def _readers(operand: Operand, other: Operand) -> Iterator[tuple[str, str, Indices]]:
    spot, shape = place(operand.layout, operand.shape), operand.shape
    right = positions(operand)
    dense = np.arange(operand.size).reshape(shape)
    yield "", "", right
    for width in (1, 2, 4, 8, 16, 32):
        moved = spot.offset % width if width > 1 else spot.offset
        if moved:
            text = "from the storage's start" if width == 1 else f"from a multiple of {width}"
            yield "offset_ignored", f"{text}, whatever the offset", right - moved
    yield (
        "strides_ignored",
        "as if its elements lay one after the other, from the first on",
        spot.offset + dense,
    )
    yield "strides_ignored", "as if they lay side by side, from the storage's start", dense
    order = sorted(range(len(shape)), key=lambda k: spot.strides[k], reverse=True)
    yield "strides_ignored", "in the order of memory", right.transpose(order).reshape(shape)
    if shape:
        inner = spot.strides[-1] * np.arange(operand.size).reshape(shape) + spot.offset
        yield "strides_ignored", "all at the last dimension's stride", inner
        for text, strides in (
            ("with 1 for the last dimension's stride", (*spot.strides[:-1], 1)),
            ("with rows that have no gap between them", (*_dense(shape, spot.strides[-1]),)),
        ):
            yield "strides_ignored", text, strided(shape, strides, spot.offset)
    if other.shape == shape:
        strides = place(other.layout, shape).strides
        yield (
            "strides_ignored",
            "with the other operand's strides",
            strided(shape, strides, spot.offset),
        )


def _dense(shape: Sequence[int], step: int) -> list[int]:
    strides = [step] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        strides[k] = strides[k + 1] * shape[k + 1]
    return strides


def grad_output_cause(subject: Subject, first: Trial) -> Cause | None:
    """Decoys around ``grad_output``: from where does backward read it?"""
    layout = first.case.grad_output.layout
    if first.is_value or layout == "contiguous" or first.reduction != "none":
        return None
    if first.case.input.shape != first.case.target.shape or first.n > 4096 or first.case.same:
        return None
    cases = [_telling(first.case, salt) for salt in (1, 2, 3)]
    calls = [_decoys_behind(case, salt) for salt, case in enumerate(cases, 1)]
    found: dict[str, str] | None = None
    for call, got in zip(calls, answers(subject, calls, first.aspect), strict=True):
        operand, g = call.operands()["grad_output"]
        if got is None:
            return None
        ways = {
            f"{id}|{text}": text
            for id, text, index in readers(operand, operand)
            if _inside(index, g) and _near(got, first.sign * 2 * g[index], call.case)
        }
        if "|" in ways:
            return None
        same = ways.keys() if found is None else found.keys() & ways.keys()
        found = {key: ways[key] for key in same}
    ids = {key.split("|")[0] for key in found or {}}
    if not found or len(ids) > 1:
        return None
    id = {"strides_ignored": "dense_grad_output"}.get(*ids, *ids)
    return Cause(id, f"Backward reads grad_output {next(iter(found.values()))}.")


def _decoys_behind(case: Case, salt: int) -> Laid:
    """Differences of 1, and another ``grad_output`` wherever one may be read from."""
    random = np.random.Generator(np.random.PCG64(salt))
    g = random.integers(1, 12, length(grad_output(case))).astype(np.float64)
    x, y = np.zeros(length(case.input)), np.zeros(length(case.target))
    x[positions(case.input)] = 1.0
    return Laid(case, x, y, g)


def scalar_grad_output_cause(subject: Subject, first: Trial) -> Cause | None:
    """Decoys behind a ``grad_output`` of one element: are there others that count?"""
    case = first.case
    if first.is_value or first.reduction == "none" or case.input.shape != case.target.shape:
        return None
    if case.same or has_layout(case) or not case.shape:
        return None
    for n, salt in ((7, 1), (12, 2)):
        sized = with_shapes(case, (n,), (n,))
        sized = sized.replace(grad_output=sized.grad_output.replace(layout="offset"))
        if not subject.allows(sized):
            return None
        call = _decoys_behind(sized, salt)
        operand, g = call.operands()["grad_output"]
        (got,) = answers(subject, [call], first.aspect)
        read = g[place(operand.layout, operand.shape).offset :][:n]
        scale = first.sign * 2 / (n if first.reduction == "mean" else 1)
        if got is None or not _near(got, scale * read, sized):
            return None
    text = "Backward reads an element of grad_output for each of the operands': it has one."
    return Cause("scalar_grad_output", text)


def has_layout(case: Case) -> bool:
    return (case.input.layout, case.target.layout) != ("contiguous", "contiguous")


def strides_cause(subject: Subject, first: Trial) -> Cause | None:
    """Decoys in every gap: from where does the target read?"""
    case = first.case
    if not has_layout(case) or not 0 < first.n <= 4096 or case.same:
        return None
    cases = [(salt, _telling(case, salt)) for salt in (1, 2, 3)]
    calls = [_decoys(c, first.aspect, salt) for salt, c in cases if subject.allows(c)]
    if not calls or any(call.case.dtype in INTEGER_DTYPES for call in calls):
        return None
    found: dict[str, str] | None = None
    for call, got in zip(calls, answers(subject, calls, first.aspect), strict=True):
        matching = _readings(call, first.aspect, got)
        if matching is None:
            return None
        same = matching.keys() if found is None else found.keys() & matching.keys()
        found = {key: matching[key] for key in same}
    ids = {key.split("|")[0] for key in found or {}}
    if not found or len(ids) > 1:
        return None
    return Cause(ids.pop(), next(iter(found.values())))


def _telling(case: Case, salt: int) -> Case:
    """The case in a shape in which its layout matters."""

    def at_least(shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = tuple(n + (salt - 1) if n > 1 else n for n in shape)
        if all(n == 1 for n in sizes) and sizes and case.input.shape == case.target.shape:
            sizes = tuple(2 + salt for _ in sizes)
        return sizes

    return with_shapes(case, at_least(case.input.shape), at_least(case.target.shape))


def _decoys(case: Case, aspect: str, salt: int) -> Laid:
    """Another number wherever an operand may be read from."""
    random = np.random.Generator(np.random.PCG64(salt))
    sizes = length(case.input), length(case.target)
    x, y = (random.integers(1, 12, size).astype(np.float64) for size in sizes)
    return Laid(case, x, y, None if aspect == "value" else np.ones(length(grad_output(case))))


def _readings(call: Laid, aspect: str, got: Floats | None) -> dict[str, str] | None:
    """Which ways to read explain the answer; None where reading rightly does."""
    if got is None:
        return {}
    found: dict[str, str] = {}
    for cause, text, values in _predicted(call.case, aspect, call.x, call.y):
        if _near(got, values, call.case):
            if not cause:
                return None
            found.setdefault(f"{cause}|{text}", text)
    return found


def _predicted(case: Case, aspect: str, x: Floats, y: Floats) -> Iterator[tuple[str, str, Floats]]:
    both = list(readers(case.input, case.target)), list(readers(case.target, case.input))
    for a_id, a_text, a in both[0]:
        for b_id, b_text, b in both[1]:
            if (a_id and b_id and a_text != b_text) or not _inside(a, x) or not _inside(b, y):
                continue
            d = x[a] - y[b]
            who = "Each operand" if a_id and b_id else "The input" if a_id else "The target"
            text = f"{who} is read {a_text or b_text}."
            yield a_id or b_id, text, _result(case, aspect, d)
    d = x[positions(case.input)] - y[positions(case.target)]
    if aspect == "value" and case.reduction == "none" and case.input.shape == case.shape:
        spot = place(case.input.layout, case.shape)
        order = sorted(range(len(case.shape)), key=lambda k: spot.strides[k], reverse=True)
        squares = (
            loss_of(case)
            .formula.value(d, "none")
            .reshape([case.shape[k] for k in order])
            .transpose(np.argsort(order))
        )
        text = "The result is written in order of dimensions, into memory laid out as the input."
        yield "strides_ignored", text, squares


def _inside(index: Indices, line: Floats) -> bool:
    return bool(index.min() >= 0 and index.max() < len(line))


def _result(case: Case, aspect: str, d: Floats) -> Floats:
    formula = loss_of(case).formula
    if aspect == "value":
        return np.asarray(formula.value(d, case.reduction))
    sign = -1.0 if aspect == "gradient.target" else 1.0
    operand = case.target if sign < 0 else case.input
    return np.asarray(sign * unbroadcast(formula.vjp(d, 1.0, case.reduction), operand.shape))


def _near(got: Floats, values: Floats, case: Case) -> bool:
    if got.shape != values.shape:
        return False
    few = 8 * FORMAT_OF[case.dtype].u
    return bool(np.allclose(got, values, rtol=few, atol=few))


# --- elements: which are counted, and how often


def elements_cause(subject: Subject, every: Sequence[Trial]) -> Cause | None:
    """Lost elements, elements that count twice, lanes past the end; measured at several sizes."""
    first = every[0]
    if first.n == 0 or first.case.same:
        return None
    if first.is_value:
        past = past_end(subject, first)
        if past is not None:
            return past
    described: list[tuple[Trial, str, int]] = []
    some = False
    for t in [*every, *_longer(subject, first)] if first.n < 4096 else every[:4]:
        counted = _counted(subject, t)
        if counted is None:
            return None
        where, times = counted
        some = some or bool(np.any(times > 0.5))
        kind, k = _pattern(where, times, t.fmt.u)
        if len(where) == t.n and kind != "wrong_index":
            weights = np.ones(t.n)
            weights[where] = times
            if not _explains(t, weights):
                return None
        described.append((t, kind, k))
    odd = [(t, kind, k) for t, kind, k in described if kind]
    kinds = {kind for _, kind, _ in odd}
    if len(odd) < 2 or not described[0][1] or not some:
        return None
    kind = described[0][1]
    kept = [(t.n, k if kind else t.n) for t, kind, k in described]
    if kind == "lost_tail" and not any(k for _, _, k in odd) and not _rules(kept):
        return None  # nothing comes back at all: that says nothing of a tail
    if kinds - {kind} and kind in ("lost_tail", "lost_elements"):
        kind = "lost_elements" if kinds <= {"lost_tail", "lost_elements"} else kind
    elif kinds - {kind}:
        return None
    return Cause(kind, _sentence(kind, odd, described))


def _longer(subject: Subject, first: Trial) -> Iterator[Trial]:
    """One more trial that is longer than most vectors, and one that is longer than most blocks."""
    case = first.case
    for n in (67, 1100):
        if case.shape and case.input.shape == case.target.shape and first.n < n:
            shape = (*case.shape[:-1], n) if n < 100 else (n,)
            longer = with_shapes(case, shape, shape)
            if subject.allows(longer):
                yield from trials(subject, [longer], first.aspect)


def _explains(t: Trial, weights: Floats) -> bool:
    """Whether the trial's own answer is what these weights of its elements give."""
    weight = weights.reshape(t.shape)
    with np.errstate(all="ignore"):
        if t.is_value:
            return t.matches(t.reduce(np.broadcast_to(t.terms, t.shape) * weight))
        terms = t.slopes_of(t.d) * t.g * weight
        return t.matches(t.fold(terms), t.magnitude)


def _counted(subject: Subject, t: Trial) -> tuple[Indices, Floats] | None:
    """Indices (flat, over the broadcast shape) and how often each is counted."""
    case = t.case
    if not t.is_value or t.reduction == "none":
        x = np.zeros(length(case.input))
        x[positions(case.input)] = 4.0
        y = np.zeros(length(case.target))
        if not t.is_value and case.input.shape != case.target.shape:
            return None
        g = None if t.is_value else np.ones(length(grad_output(case)))
        got = answers(subject, [Laid(case, x, y, g)], t.aspect)[0]
        unit = 16.0 if t.is_value else t.sign * t.scale * 4.0
        if got is None or got.shape != t.shape or not np.isfinite(got).all():
            return None
        return np.arange(t.n), got.reshape(-1) / unit
    result = None
    for name, operand in (("input", case.input), ("target", case.target)):
        if operand.shape != case.shape or operand.layout in ("expanded", "overlapping"):
            continue
        tried = _indices(t.n)
        times = _impulses(subject, t, name, tried)
        found = [m for m in times if m is not None]
        if len(found) < len(times):
            return None
        edge = _edge(subject, t, name, tried, found)
        result = np.array([*tried, *edge], np.int64), np.array([*found, *edge.values()])
        if not all(map(_once, result[1])):
            return result
    return result


def _indices(n: int) -> Sequence[int]:
    if n <= FEW:
        return range(n)
    near = [2**k + j for k in range(2, n.bit_length()) for j in (-1, 0)]
    return sorted({k for k in (*range(20), *near, *range(n - 20, n), n // 2, n // 3) if k < n})


def _impulses(subject: Subject, t: Trial, name: str, tried: Sequence[int]) -> list[float | None]:
    """How often each of these elements of an operand is counted; None where it cannot be told."""
    call = Laid(t.case, np.zeros(length(t.case.input)), np.zeros(length(t.case.target)))
    places = positions(t.case.input if name == "input" else t.case.target).reshape(-1)
    found = subject.ask(
        "impulses",
        call=call.told(),
        of=name,
        places=[int(places[k]) for k in tried],
        height=HEIGHT,
        mode=subject.mode,
        **call.handed(),
    )
    unit = HEIGHT * HEIGHT / (t.n if t.reduction == "mean" else 1)
    return [_number(got, unit) for got in each(found, "results", len(tried))]


def _number(got: Any, unit: float) -> float | None:
    if not isinstance(got, Seen) or got.values.shape != () or not np.isfinite(got.values):
        return None
    return float(got.values) / unit


def _edge(
    subject: Subject, t: Trial, name: str, tried: Sequence[int], times: list[float]
) -> dict[int, float]:
    """Where, of two neighbours that were tried, one is counted once and the other not: between."""
    found: dict[int, float] = {}
    for j in range(1, len(tried)):
        low, high = tried[j - 1], tried[j]
        a, b = times[j - 1], times[j]
        while high - low > 1 and _once(a) != _once(b):
            middle = (low + high) // 2
            (m,) = _impulses(subject, t, name, [middle])
            if m is None:
                break
            found[middle] = m
            low, high, a, b = (middle, high, m, b) if _once(m) == _once(a) else (low, middle, a, m)
        if len(found) > 60:
            break
    return found


def _once(times: float) -> bool:
    return abs(times - 1) < 0.2


def _pattern(where: Indices, times: Floats, u: float) -> tuple[str, int]:
    """The kind of defect, and the first index that has it."""
    order = np.argsort(where)
    where, times = where[order], times[order]
    whole = np.rint(times)
    lost, more = whole == 0, whole > 1
    if np.abs(times - whole).max() > 8 * u or whole.min() < 0 or whole.max() > 4:
        return "", -1
    if lost.any() and more.any():  # where none counts once, it is a sample that is scaled up
        return ("wrong_index", int(where[lost][0])) if (whole == 1).any() else ("", -1)
    if more.any():
        return ("counted_twice", int(where[more][0])) if (whole == 1).any() else ("", -1)
    if not lost.any():
        return "", -1
    k = int(where[lost][0])
    return ("lost_tail" if lost[where >= k].all() else "lost_elements"), k


def _sentence(
    kind: str, odd: Sequence[tuple[Trial, str, int]], every: Sequence[tuple[Trial, str, int]]
) -> str:
    t, _, k = max(odd, key=lambda o: (o[2] > 0, o[0].n))
    if kind == "lost_tail":
        rule = _rule([(t.n, k if kind else t.n) for t, kind, k in every])
        return f"Elements from index {k} on are lost (of {t.n}){rule}."
    if kind == "lost_elements":
        return f"Elements are lost: of {t.n} the one at index {k} is the first that does not count."
    if kind == "counted_twice":
        return f"Elements are counted twice: of {t.n} the one at index {k} is the first."
    return f"Of {t.n} elements the one at index {k} does not count, and another one does twice."


def _rule(kept: Sequence[tuple[int, int]]) -> str:
    """How many of n elements are kept, where one rule says it."""
    fitting = _rules(kept)
    if not fitting and len({k for n, k in kept if k < n}) == 1:
        return ": it stops there, whatever the size"
    return fitting[0] if len(fitting) == 1 else ""


def _rules(kept: Sequence[tuple[int, int]]) -> list[str]:
    """The rules, in words, by which k of n elements are kept."""
    rules: list[tuple[str, Callable[[int], int]]] = [
        (": the last one of any number", lambda n: n - 1),
    ]
    for m in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        text = f": the tail past the last whole group of {m}"
        rules.append((text, lambda n, m=m: n - n % m))  # type: ignore[misc]
    return [text for text, rule in rules if all(rule(n) == k for n, k in kept)]


def past_end(subject: Subject, first: Trial) -> Cause | None:
    """Zeros everywhere, and numbers behind the end: what is there should not count."""
    case = first.case
    if case.input.shape != case.target.shape or case.reduction == "none" or not case.input.shape:
        return None
    tried = [(n, behind) for n in (1, 2, 3, 5, 6, 8, 16, 33, 64) for behind in (0.0, 4.0)]
    calls = [_filled_behind(case, n, behind) for n, behind in tried]
    seen: dict[float, list[tuple[int, float]]] = {0.0: [], 4.0: []}
    for (n, behind), got in zip(tried, answers(subject, calls, "value"), strict=True):
        if got is None or got.shape != () or not np.isfinite(got):
            return None
        seen[behind].append((n, float(got) * (n if case.reduction == "mean" else 1)))
    for behind, pairs in seen.items():
        if all(v == 0 for _, v in pairs):
            continue
        for width in (2, 4, 8, 16, 32, 64, 128, 256):
            for most in (width, 1):  # lanes that add something, each of them or one
                counted = [(min(-n % width, most), v) for n, v in pairs]
                unit = next((v / count for count, v in counted if count), 0.0)
                if unit and all(
                    math.isclose(v, unit * count, rel_tol=0.02) for count, v in counted
                ):
                    text = f"Lanes past the end count, up to a whole vector of {width}"
                    tail = "with what lies behind the tensor" if behind else "though they are empty"
                    return Cause("past_end", f"{text}, {tail}.")
    return None


def _filled_behind(case: Case, n: int, behind: float) -> Laid:
    """A case of ``n`` zeros, with another number behind those of the input."""
    sized = case.replace(
        input=Operand((n,), case.input.dtype), target=Operand((n,), case.target.dtype)
    )
    x = np.zeros(length(sized.input))
    x[n:] = behind
    return Laid(sized, x, np.zeros(length(sized.target)))
