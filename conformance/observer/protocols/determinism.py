"""Protocols on determinism: repeats, numbers of threads, calls at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    T,
    Unavailable,
    fresh,
    gradients,
    protocol,
)


@contextlib.contextmanager
def _threads_of_torch(number: int) -> Iterator[None]:
    """While inside, torch shares the work of one operator among ``number`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@protocol
def repeats(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, count: int, threads: int
) -> Evidence:
    """Each ``result`` of a call on the same tensors, and each ``gradient``.

    Of the first operand that needs one.
    """
    wanted = x if x.requires_grad else y
    results: list[Tensor] = []
    found: list[Tensor] = []
    with _threads_of_torch(threads):
        for _ in range(count):
            result = kit.loss(x, y, reduction)
            results.append(result)
            found += gradients(result, wanted)
    return {"result": results, "gradient": found}


@protocol
def with_threads(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, threads: int) -> Evidence:
    """The ``result``, and the ``gradients`` of whichever operand needs one."""
    with _threads_of_torch(threads):
        result = kit.loss(x, y, reduction)
        found = gradients(result, x, y) if x.requires_grad else ()
    return {"result": result, "gradients": found}


@protocol
def handed_over(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The gradient by a backward in another thread than the forward (``there``), and ``here``.

    As torch itself does for other devices.
    """
    ones = torch.ones_like(kit.loss(x, y, reduction))
    here = torch.autograd.grad(kit.loss(x, y, reduction), x, ones)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        result = kit.loss(x, y, reduction)
        there = pool.submit(torch.autograd.grad, result, x, ones).result()
    return {"here": here[0], "there": there[0]}


@protocol
def at_once(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, callers: int, calls: int
) -> Evidence:
    """By the number of each of several ``callers`` at once, what its ``calls`` gave.

    A caller has a row of the operands for its own, as far as there are any. One that is a matrix is
    turned, so that its rows do not lie one after the other: some copy these to a buffer.
    """
    rows = [[fresh(t[k].mT if t.dim() > 2 else t[k]) for t in (x, y)] for k in range(len(x))]

    def call(start: threading.Barrier, k: int) -> Evidence:
        own, other = rows[k % len(rows)]
        start.wait()
        return _outcomes(kit, own, other, reduction, calls)

    return _called(call, callers)


def _outcomes(kit: Kit, x: Tensor, y: Tensor, reduction: str, calls: int) -> Evidence:
    """By number each kind of outcome: result and gradients (``got``), and its ``times``."""
    found: list[Evidence] = []
    for _ in range(calls):
        result = kit.loss(x, y, reduction)
        got = [result, *gradients(result, x, y)]
        known = next((one for one in found if all(map(_same, one["got"], got))), None)
        if known:
            known["times"] += 1
        else:
            found.append({"got": [t.detach().clone() for t in got], "times": 1})
    return {str(k): one for k, one in enumerate(found)}


def _same(a: Tensor, b: Tensor) -> bool:
    """Of one dtype, shape and elements; NaN is NaN."""
    kinds = [(t.dtype, t.shape) for t in (a, b)]
    return kinds[0] == kinds[1] and torch.allclose(a, b, 0, 0, equal_nan=True)


@protocol
def many_at_once(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, size: int, calls: int
) -> Evidence:
    """The results of as many callers at once as ``x`` has numbers, and the ``seconds`` of it all.

    The input is a caller's number, ``size`` times; the target is ``y`` as often.
    """
    began, other = time.monotonic(), y.repeat(size)

    def call(start: threading.Barrier, k: int) -> list[Tensor]:
        own = x[k].repeat(size)
        start.wait()
        return [kit.loss(own, other, reduction).detach() for _ in range(calls)]

    return _called(call, len(x)) | {"seconds": time.monotonic() - began}


def _called(call: Callable[[threading.Barrier, int], Any], callers: int) -> Evidence:
    """By their numbers, what ``call`` gives each of several threads.

    It waits at the barrier for the others. A caller that is alone is this thread.
    """
    begun = functools.partial(call, threading.Barrier(callers))
    if callers == 1:
        return {"0": begun(0)}
    with _switching_often(), concurrent.futures.ThreadPoolExecutor(callers) as pool:
        found = _all(pool.map(begun, range(callers)))
    return {str(k): one for k, one in enumerate(found)}


@contextlib.contextmanager
def _switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _all(found: Iterator[T]) -> list[T]:
    """Unavailable where Triton's interpreter fails, which no kernel can help."""
    try:
        return list(found)
    except Exception as error:
        if type(error).__name__ != "InterpreterError":
            raise
        reason = "Triton's interpreter takes one launch at a time: lock it (docs/compiled.md)"
        raise Unavailable(reason) from error
