"""Experiments on determinism: repeats, numbers of threads, calls at once."""

from __future__ import annotations

import itertools

import numpy as np

from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    LARGE,
    Bench,
    Messages,
    Shape,
    close,
    deviation,
    deviation_of_loss,
    deviation_of_value,
    experiment,
    same_bits,
    several,
    shared_out,
)
from conformance.judging.observer import Given
from conformance.judging.seen import Seen
from reference.formats import Floats

CALLERS = 4
# Elements; how often each thread calls; and on tensors of its own, on such that are turned
# (some copy these to a buffer), or on the same ones as the others.
AT_ONCE = ((33, 6, "own"), (2050, 6, "own"), (20_002, 24, "turned"), (33, 6, "same"))
LARGE_CALLS = 8  # of each thread, of LARGE elements
PATIENCE = 0.25  # seconds for one of them
REPEAT_THREADS = 4
MANY = 33  # more than a machine with 32 processors starts, and an array for them holds


@experiment("determinism.repeat")
def _repeat(bench: Bench) -> Messages:
    """The same tensors, five times, small and beyond what one thread or block works on.

    With several threads, whatever the observer has: an atomic sum is in order with one.
    """
    for reduction in bench.reductions:
        for n in (7, 4099, 40_009) if bench.device == "cpu" else (7, 4099, 40_009, 2**20 + 3):
            yield from _repeated(bench, n, reduction)
        if bench.claims("broadcast", "target_gradient"):
            yield from _folded(bench, reduction)
    for n, reduction in shared_out(bench, (LARGE,)):
        yield from _repeated(bench, n, reduction)


def _repeated(bench: Bench, n: int, reduction: str) -> Messages:
    x, y = _operands(bench, n)
    count = 5 if n < 10_000 else 3
    seen = _repeats(bench, x, y, reduction, count)
    for name in ("result", "gradient"):
        if _vary(seen, name, count):
            yield f"the {name} has other bits on a repeat ({reduction}, n = {n})"


def _folded(bench: Bench, reduction: str) -> Messages:
    """The gradient of a row that stands for many: a sum, which atomics may add in any order."""
    x, y = bench.tensor((999, 8), 0), bench.tensor((8,), 1).leaf()
    if _vary(_repeats(bench, x, y, reduction, 3), "gradient", 3):
        yield f"the gradient of a broadcast target has other bits on a repeat ({reduction})"


def _repeats(bench: Bench, x: Given, y: Given, reduction: str, count: int) -> Evidence:
    what = {"reduction": reduction, "count": count, "threads": REPEAT_THREADS}
    return bench.ask("determinism.repeats", x=x, y=y, **what)


def _vary(seen: Evidence, name: str, count: int) -> bool:
    first, *others = several(seen, name, count)
    return not all(same_bits(first, other) for other in others)


def _operands(bench: Bench, n: int) -> tuple[Given, Given]:
    both = bench.claims("target_gradient")
    return bench.tensor((n,), 0).leaf(), bench.tensor((n,), 1).leaf(both)


@experiment("determinism.threads")
def _threads(bench: Bench) -> Messages:
    """Large enough for torch to share the work out, which it does from 32,768 elements on.

    Small elements, and large ones on both sides of where a part may end: a sum from which one of
    these is lost, or to which it is added twice, is 2% off.
    """
    n = 40_009
    ends = _ends_of_parts(n, (2, 5), 4096)
    line = np.full(n, 1 / 16)
    line[[0, *(end - 1 for end in ends), *ends, n - 1]] = 4
    rows = np.full((13_333, 3), 1 / 16)  # some are left over with 2 threads, and with 5
    rows[[0, *_ends_of_parts(len(rows), (2, 5), 4096), -1]] = 4
    for values, reduction in shared_out(bench, (line, rows)):
        yield from _by_threads(bench, values, reduction)
    yield from _many_by_threads(bench)


def _many_by_threads(bench: Bench) -> Messages:
    """One of many elements, at the end, is most of the sum; a number of which half holds all."""
    values = np.zeros(LARGE)
    values[-1] = 128
    x, y = bench.made(values), bench.made(np.zeros(LARGE))
    for many, reduction in shared_out(bench, (5,)):
        if reduction == "none":
            continue
        for threads in (1, many):
            what = {"reduction": reduction, "threads": threads}
            seen = bench.ask("determinism.with_threads", x=x, y=y, **what)
            text = f"with {threads} threads the result of {LARGE} elements ({reduction})"
            found = list(deviation_of_value(bench, text, seen["result"], values, reduction))
            if found and threads == 1:
                break  # wrong at this size: other clauses say so
            yield from found


def _by_threads(bench: Bench, values: Floats, reduction: str) -> Messages:
    both = bench.claims("target_gradient")
    x, y = bench.made(values, needs=True), bench.made(np.zeros_like(values), needs=both)
    gradient = bench.formula.vjp(values, 1.0, reduction)
    for threads in (1, 2, 5, MANY):
        what = {"reduction": reduction, "threads": threads}
        seen = bench.ask("determinism.with_threads", x=x, y=y, **what)
        got = several(seen, "gradients", 1 + both)
        text = f"with {threads} threads the"
        result = seen["result"]
        what_of = f"{text} result ({reduction})"
        found = [*deviation_of_value(bench, what_of, result, values, reduction)]
        for name, one, sign in zip(("input", "target"), got, (1, -1), strict=False):
            what_of = f"{text} gradient of {name} ({reduction})"
            found += deviation(bench, what_of, one, sign * gradient, gradient)
        if found and threads == 1:
            return  # wrong at this size: other clauses say so
        yield from found


def _ends_of_parts(n: int, threads: tuple[int, ...], block: int) -> list[int]:
    """Where n elements may be split: evenly for each number of threads, and into blocks."""
    even = (k * part for t in threads for part in (n // t, -(-n // t)) for k in range(1, t))
    return sorted({*even, *range(block, n, block)})


@experiment("determinism.concurrent")
def _concurrent(bench: Bench) -> Messages:
    """Several Python threads at once, each on its own data, then all on the same; switching often.

    Small and larger, since some share a buffer from a size on.
    """
    yield from _handed_over(bench)
    # A sum of many elements tells little of whose they are.
    telling = "none" if "none" in bench.reductions else bench.reductions[-1]
    for reduction, (n, calls, which) in itertools.product(bench.reductions, AT_ONCE):
        if which == "turned" and reduction != telling:
            continue  # what is copied to a buffer is the same for all
        if bench.dtype == "float16" and reduction != "none":
            n = min(n, 2050)  # it has no sum of more
        shape = (2, n // 2) if which == "turned" else (n,)
        rows = 1 if which == "same" else CALLERS
        if _wrong(bench, shape, reduction, 1, 1, 1):
            continue  # wrong alone: other clauses say so
        wrong = _wrong(bench, shape, reduction, rows, CALLERS, calls)
        if wrong:
            yield (
                f"called from {CALLERS} threads at once, {wrong} of {CALLERS * calls} "
                f"results or gradients are wrong ({reduction})"
            )
    yield from _many_at_once(bench)


def _handed_over(bench: Bench) -> Messages:
    """Forward in this thread, backward in another, as torch itself does for other devices."""
    for reduction in bench.reductions:
        x, y = _operands(bench, 9)
        seen = bench.ask("determinism.handed_over", x=x, y=y, reduction=reduction)
        if not close(seen["there"], seen["here"]):
            yield f"backward in another thread gave another gradient ({reduction})"


def _wrong(bench: Bench, shape: Shape, reduction: str, rows: int, callers: int, calls: int) -> int:
    """How many of the calls of several callers at once are not what the same call gives alone."""
    x = bench.rows(shape, range(0, 2 * rows, 2)).leaf()
    y = bench.rows(shape, range(1, 2 * rows, 2)).leaf(bench.claims("target_gradient"))
    what = {"reduction": reduction, "callers": callers, "calls": calls}
    seen = bench.ask("determinism.at_once", x=x, y=y, **what)
    right = 0
    for k in range(callers):
        own, row = seen.items_of(str(k)), k % rows
        a, b = (Given(t.values[row].T, t.dtype) for t in (x, y))
        for outcome in map(own.items_of, own.items):
            if _right(bench, outcome, a, b, reduction):
                right += int(outcome.number("times"))
    return callers * calls - right


def _right(bench: Bench, outcome: Evidence, x: Given, y: Given, reduction: str) -> bool:
    """Whether a result and its gradients are those of ``x`` and ``y``."""
    result, *gradients = several(outcome, "got", 2 + bench.claims("target_gradient"))
    exact = bench.formula.vjp(x.values - y.values, 1.0, reduction)
    few, least = 16 * bench.fmt.u, bench.fmt.eta
    close_to = all(
        isinstance(got, Seen)
        and got.values.shape == exact.shape
        and np.allclose(got.values, sign * exact, rtol=few, atol=least)
        for got, sign in zip(gradients, (1, -1), strict=False)
    )
    return close_to and not any(deviation_of_loss(bench, "", result, x, y, reduction))


def _many_at_once(bench: Bench) -> Messages:
    """The result alone, of one number over and over: of many elements their sum is collected."""
    reduction = next((r for r in ("mean", "sum") if r in bench.reductions), None)
    if reduction is None or (reduction == "sum" and bench.dtype == "float16"):
        return  # float16 has no sum of so many
    if not bench.adds_everything:
        return
    found, seconds = _of_numbers(bench, reduction, 1, 1)
    if found or seconds > PATIENCE:
        return  # wrong alone: other clauses say so; or a loop in Python, which would take minutes
    yield from _of_numbers(bench, reduction, CALLERS, LARGE_CALLS)[0]


def _of_numbers(bench: Bench, reduction: str, callers: int, calls: int) -> tuple[list[str], float]:
    """What is wrong where each caller has a number of its own, and how long it took."""
    numbers = np.arange(1.0, callers + 1.0)
    what = {"reduction": reduction, "size": LARGE, "calls": calls}
    x, y = (Given(v, bench.dtype) for v in (numbers, np.zeros(1)))
    seen = bench.ask("determinism.many_at_once", x=x, y=y, **what)
    text = f"called from {CALLERS} threads at once the result of {LARGE} elements ({reduction})"
    found: list[str] = []
    for k, number in enumerate(numbers):
        times = LARGE if reduction == "sum" else 1
        exact, size = (
            np.asarray(times * f(np.full(1, number), "sum"))
            for f in (bench.formula.value, bench.formula.size)
        )
        for got in several(seen, str(k), calls):
            found += deviation(bench, text, got, exact, size, LARGE, True)
    return found, seen.number("seconds")
