"""Experiments on determinism: repeats, numbers of threads, calls at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from conformance.observer.protocols.bench import (
    LARGE,
    Bench,
    Messages,
    T,
    Unavailable,
    close,
    deviation,
    deviation_of_loss,
    experiment,
    gradients,
    same_bits,
    shared_out,
    smallest,
)
from reference import mse
from reference.formats import Floats

CALLERS = 4
# Elements; how often each thread calls; and on tensors of its own, on such that are turned
# (some copy these to a buffer), or on the same ones as the others.
AT_ONCE = ((33, 6, "own"), (2050, 6, "own"), (20_002, 24, "turned"), (33, 6, "same"))
LARGE_CALLS = 8  # of each thread, of LARGE elements
PATIENCE = 0.25  # seconds for one of them
REPEAT_THREADS = 4
MANY = 33  # more than a machine with 32 processors starts, and an array for them holds


@contextlib.contextmanager
def _threads_of_torch(number: int) -> Iterator[None]:
    """While inside, torch shares the work of one operator among ``number`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _operands(bench: Bench, n: int, k: int = 0) -> tuple[Tensor, Tensor]:
    x, y = bench.tensor((n,), 2 * k), bench.tensor((n,), 2 * k + 1)
    return x.requires_grad_(), y.requires_grad_(bench.claims("target_gradient"))


@experiment("determinism.repeat")
def _repeat(bench: Bench) -> Messages:
    """The same tensors, five times, small and beyond what one thread or block works on.

    With several threads, whatever the worker has: an atomic sum is in order with one.
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
    results = []
    with _threads_of_torch(REPEAT_THREADS):
        for _ in range(5 if n < 10_000 else 3):
            result = bench.loss(x, y, reduction)
            gradient = torch.autograd.grad(result, x, torch.ones_like(result))[0]
            results.append((result, gradient))
    first, *others = results
    for what, k in (("result", 0), ("gradient", 1)):
        if any(not same_bits(first[k], other[k]) for other in others):
            yield f"the {what} has other bits on a repeat ({reduction}, n = {n})"


def _folded(bench: Bench, reduction: str) -> Messages:
    """The gradient of a row that stands for many: a sum, which atomics may add in any order."""
    x, y = bench.tensor((999, 8), 0), bench.tensor((8,), 1).requires_grad_()
    found: list[Tensor] = []
    with _threads_of_torch(REPEAT_THREADS):
        for _ in range(3):
            result = bench.loss(x, y, reduction)
            found += torch.autograd.grad(result, y, torch.ones_like(result))
    if not all(same_bits(found[0], other) for other in found):
        yield f"the gradient of a broadcast target has other bits on a repeat ({reduction})"


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
    for several, reduction in shared_out(bench, (5,)):
        if reduction == "none":
            continue
        exact = np.asarray(mse.loss(values, np.zeros(LARGE), reduction))
        for threads in (1, several):
            with _threads_of_torch(threads):
                result = bench.loss(x, y, reduction)
            text = f"with {threads} threads the result of {LARGE} elements ({reduction})"
            found = list(deviation(bench, text, result, exact, exact, LARGE))
            if found and threads == 1:
                break  # wrong at this size: other clauses say so
            yield from found


def _by_threads(bench: Bench, values: Floats, reduction: str) -> Messages:
    n, both = values.size, bench.claims("target_gradient")
    x, y = bench.made(values, needs=True), bench.made(np.zeros_like(values), needs=both)
    exact = np.asarray(mse.loss(values, np.zeros_like(values), reduction))
    gradient = 2 * values / (n if reduction == "mean" else 1)
    for threads in (1, 2, 5, MANY):
        with _threads_of_torch(threads):
            result = bench.loss(x, y, reduction)
            got = gradients(result, x, y)
        text = f"with {threads} threads the"
        found = [*deviation(bench, f"{text} result ({reduction})", result, exact, exact, n)]
        for name, one, sign in zip(("input", "target"), got, (1, -1), strict=False):
            what = f"{text} gradient of {name} ({reduction})"
            found += deviation(bench, what, one, sign * gradient, gradient)
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
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reduction, (n, calls, which) in itertools.product(bench.reductions, AT_ONCE):
            if which == "turned" and reduction != telling:
                continue  # what is copied to a buffer is the same for all
            start = threading.Barrier(CALLERS)
            if bench.dtype == "float16" and reduction != "none":
                n = min(n, 2050)  # it has no sum of more
            operands = [_operands(bench, n, k) for k in range(CALLERS)]
            if which == "same":
                operands = operands[:1] * CALLERS
            if which == "turned":
                operands = [(_turned(x), _turned(y)) for x, y in operands]
            if _one_caller(bench, reduction, threading.Barrier(1), 1, operands[0]):
                continue  # wrong alone: other clauses say so
            call = functools.partial(_one_caller, bench, reduction, start, calls)
            with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
                wrong = _judged(pool.map(call, operands))
            if any(wrong):
                yield (
                    f"called from {CALLERS} threads at once, {sum(wrong)} of {CALLERS * calls} "
                    f"results or gradients are wrong ({reduction})"
                )
        yield from _many_at_once(bench)
    finally:
        sys.setswitchinterval(interval)


def _many_at_once(bench: Bench) -> Messages:
    """The result alone, of one number over and over: of many elements their sum is collected."""
    reduction = next((r for r in ("mean", "sum") if r in bench.reductions), None)
    if reduction is None or (reduction == "sum" and bench.dtype == "float16"):
        return  # float16 has no sum of so many
    what = f"called from {CALLERS} threads at once the result of {LARGE} elements ({reduction})"
    y = bench.made(np.zeros(LARGE))

    def called(start: threading.Barrier, calls: int, k: int) -> list[str]:
        x = bench.made(np.full(LARGE, 1.0 + k))
        exact = np.asarray((1.0 + k) ** 2 * (LARGE if reduction == "sum" else 1))
        start.wait()
        results = [bench.loss(x, y, reduction).detach() for _ in range(calls)]
        return [m for got in results for m in deviation(bench, what, got, exact, exact, LARGE)]

    began = time.monotonic()
    if called(threading.Barrier(1), 1, 0):
        return  # wrong alone: other clauses say so
    if time.monotonic() - began > PATIENCE:
        return  # a loop in Python: so many calls would take minutes
    call = functools.partial(called, threading.Barrier(CALLERS), LARGE_CALLS)
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        yield from itertools.chain(*_judged(pool.map(call, range(CALLERS))))


def _turned(t: Tensor) -> Tensor:
    """A matrix of the same elements whose rows do not lie one after the other."""
    return t.detach().view(2, -1).t().requires_grad_(t.requires_grad)


def _judged(found: Iterator[T]) -> list[T]:
    """All of them; Unavailable where Triton's interpreter fails, which no kernel can help."""
    try:
        return list(found)
    except Exception as error:
        if type(error).__name__ != "InterpreterError":
            raise
        reason = "Triton's interpreter takes one launch at a time: lock it (docs/compiled.md)"
        raise Unavailable(reason) from error


def _handed_over(bench: Bench) -> Messages:
    """Forward in this thread, backward in another, as torch itself does for other devices."""
    for reduction in bench.reductions:
        x, y = _operands(bench, 9, 0)
        ones = torch.ones_like(bench.loss(x, y, reduction))
        (wanted,) = torch.autograd.grad(bench.loss(x, y, reduction), x, ones)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            result = bench.loss(x, y, reduction)
            (got,) = pool.submit(torch.autograd.grad, result, x, ones).result()
        if not close(got, wanted):
            yield f"backward in another thread gave another gradient ({reduction})"


def _one_caller(
    bench: Bench,
    reduction: str,
    start: threading.Barrier,
    calls: int,
    operands: tuple[Tensor, Tensor],
) -> int:
    """How many of one thread's calls are not what the same call gives alone."""
    x, y = operands
    exact = 2 * (x.detach().double() - y.detach().double())
    exact = exact / x.numel() if reduction == "mean" else exact
    start.wait()
    wrong = 0
    for _ in range(calls):
        result = bench.loss(x, y, reduction)
        few, least = 8 * torch.finfo(x.dtype).eps, smallest(x.dtype)
        right = all(
            torch.allclose(got.double(), sign * exact, rtol=few, atol=least)
            for got, sign in zip(gradients(result, x, y), (1, -1), strict=False)
        )
        wrong += not right or any(deviation_of_loss(bench, "", result, x, y, reduction))
    return wrong
