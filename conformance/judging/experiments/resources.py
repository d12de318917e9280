"""Experiments on resources: what a call holds on to, and for how long."""

from __future__ import annotations

import itertools
import math
from typing import Any

from conformance.cases.arena import WIDTHS
from conformance.judging.experiments.bench import Bench, Messages, experiment

CALLS = 24
ROUNDS = 3
LARGE = 2**20  # bytes of an operand: well above what an allocator keeps in reserve
PATIENCE = 1.0  # seconds for a call on it
KEPT = 2  # results whose memory is looked at
# Bytes of an operand whose memory goes back to the system when it is freed. What is smaller may lie
# between others, and what is free be too small for the next: a process grows for that, too.
MAPPED = 34 * 2**20
SIZES = (2**12, 2**14, 2**16)  # elements: the builtin is vectorised from the first on
SLOWER = 1000.0  # times the builtin's time
QUADRATIC = 10.0  # times the time for four times the size: halfway from 4 to 16, as factors go
TELLING = 0.005  # seconds: a shorter call's time says nothing of how it grows
HANDLES = ("open files", "threads")  # of which a process may have some thousands


@experiment("resources.memory")
def _memory(bench: Bench) -> Messages:
    """Tensors that live on after calls on ever new operands: Python's, then the process's pages."""
    module = bench.claims("module")
    operands: dict[str, Any] = {
        "x": bench.rows((5,), range(0, 2 * CALLS, 2)).leaf(),
        "y": bench.rows((5,), range(1, 2 * CALLS, 2)),
        "reductions": list(bench.reductions),
    }
    left = bench.ask("resources.tensors_left", module=module, **operands)
    handles = bench.ask("resources.handles_left", **operands)
    count = CALLS * len(bench.reductions)
    for what in HANDLES:
        if what in handles and handles.number(what) >= CALLS // 2:
            yield f"{count} calls left {handles[what]} {what}"
    if left.number("trained") >= CALLS // 2:
        yield f"{count * (1 + module)} calls left {left['trained']} tensors alive"
    if left.number("in_vain") >= CALLS // 2:
        alive = f"left {left['in_vain']} alive"
        yield f"{CALLS} calls without a backward, and {CALLS} that raise, {alive}"
    yield from _pages(bench)


def _pages(bench: Bench) -> Messages:
    """Memory that no Python object holds, kept by C++ code: it grows in every round of calls."""
    reduction, size = bench.reductions[-1], LARGE
    what = {"dtype": bench.dtype, "reduction": reduction}
    first = bench.ask("resources.pages", size=size, calls=[0, 2], trimmed=True, **what)
    if first.number("seconds") > PATIENCE:  # a loop in Python: it would take minutes
        size //= 16
    grown: list[int] = []
    for k in range(ROUNDS):
        calls = [2 + k * CALLS, 2 + (k + 1) * CALLS]
        seen = bench.ask("resources.pages", size=size, calls=calls, trimmed=False, **what)
        grown.append(int(seen.number("grown")))
        if grown[-1] < CALLS * size // 4:
            return
    yield (
        f"{ROUNDS} rounds of {CALLS} calls on {size >> 10} KiB each took "
        f"{min(grown) >> 10} KiB or more ({reduction})"
    )


@experiment("resources.cycle")
def _cycle(bench: Bench) -> Messages:
    """Without the garbage collector: what goes out of scope is freed at once.

    Of a call, and of one whose gradient has a graph too.
    """
    calls = itertools.product(bench.reductions, ((5, False), (1030, False), (5, True)))
    for reduction, (n, twice) in calls:
        if twice and not bench.claims("double_backward"):
            continue
        x, y = bench.tensor((n,), 1).leaf(), bench.tensor((n,), 2)
        seen = bench.ask("resources.held", x=x, y=y, reduction=reduction, twice=twice)
        held = [str(name) for name in seen.listed("names")]
        if held:
            yield f"{' and '.join(held)} is still held after the result is gone ({reduction})"


@experiment("resources.saved")
def _saved(bench: Bench) -> Messages:
    """The builtin saves both operands; one tensor more is a fair price for a fused kernel."""
    for reduction in bench.reductions:
        x, y = bench.tensor((40,), 1).leaf(), bench.tensor((40,), 2)
        y = y.leaf(bench.claims("target_gradient"))
        seen = bench.ask("resources.saved", x=x, y=y, reduction=reduction)
        saved, permitted = int(seen.number("bytes")), 3 * x.values.size * WIDTHS[bench.dtype]
        if saved > permitted:
            yield f"saves {saved} bytes for backward; the builtin and one tensor more: {permitted}"


@experiment("resources.released")
def _released(bench: Bench) -> Messages:
    """Operands that a result outlives, then the process's pages, for what nobody has a name of."""
    for reduction in bench.reductions:
        x, y = bench.tensor((1030,), 1).leaf(), bench.tensor((1030,), 2)
        seen = bench.ask("resources.kept_after_backward", x=x, y=y, reduction=reduction)
        names = [str(name) for name in seen.listed("names")]
        if names:
            yield f"after backward the result holds on to {' and '.join(names)} ({reduction})"
    reduction = bench.reductions[-1]
    what = {"dtype": bench.dtype, "reduction": reduction}
    first = bench.ask("resources.pages_of_results", size=LARGE, calls=2, rounds=0, **what)
    if first.number("seconds") > PATIENCE:
        return  # a loop in Python: it would take minutes
    seen = bench.ask("resources.pages_of_results", size=MAPPED, calls=KEPT, rounds=1, **what)
    results = math.prod(bench.result_shape((MAPPED,), reduction))
    own = KEPT * MAPPED if results > 1 else 0
    least = min(int(n) for n in seen.listed("grown")) - own
    if least >= KEPT * MAPPED // 2:
        yield (
            f"{KEPT} results on {MAPPED >> 20} MiB each hold {least >> 20} MiB after their "
            f"backward ({reduction})"
        )


@experiment("resources.time")
def _time(bench: Bench) -> Messages:
    """By ratios in one run: to the builtin's time, and to that of a smaller size."""
    reduction = bench.reductions[-1]
    what = {"dtype": bench.dtype, "reduction": reduction, "patience": PATIENCE}
    torchs = bench.target.function
    seen = bench.ask("resources.seconds", sizes=list(SIZES), torchs=torchs, **what)
    if seen.flag("interpreted"):
        return
    own, builtin = ([float(t) for t in seen.listed(name)] for name in ("own", "torchs"))
    for size, seconds, others in zip(SIZES, own, builtin, strict=False):
        slower = seconds / max(others, 1e-7)
        if slower >= SLOWER:
            yield f"{size} elements take {slower:.0f} times as long as the builtin ({reduction})"
    for k in range(1, len(own)):
        if own[k - 1] >= TELLING and own[k] >= QUADRATIC * own[k - 1]:
            times = f"{own[k] / own[k - 1]:.0f} times as long as {SIZES[k - 1]}"
            yield f"{SIZES[k]} elements take {times} ({reduction})"
