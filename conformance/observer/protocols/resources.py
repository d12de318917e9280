"""Protocols on resources: what a call holds on to, and for how long."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import resource
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, fresh, gradients, protocol
from conformance.observer.tensors import DTYPES

Loss = Callable[[Tensor, Tensor], Tensor]
FIRST = 4  # calls, since what compiles keeps something of the first of each kind


@protocol
def tensors_left(
    kit: Kit, *, x: Tensor, y: Tensor, reductions: list[str], module: bool
) -> Evidence:
    """How many tensors live on: after calls on each row (``trained``), and after such ``in_vain``.

    Of the loss with each reduction and, where there is a ``module``, of one with each.
    """
    losses: list[Loss] = [functools.partial(kit.loss, reduction=r) for r in reductions]
    if module:
        losses += [kit.module(r) for r in reductions]
    for loss in losses:
        _calls(loss, x[:FIRST], y[:FIRST])
        _calls_in_vain(loss, x[:FIRST], y[:FIRST])
    gc.freeze()  # what is there now: only what comes after is looked at, and quickly
    try:
        for loss in losses:
            _calls(loss, x, y)
        trained = _live()
        for loss in losses:
            _calls_in_vain(loss, x, y)
        return {"trained": trained, "in_vain": _live() - trained}
    finally:
        gc.unfreeze()


def _calls(loss: Loss, x: Tensor, y: Tensor) -> None:
    for k in range(len(x)):
        a, b = fresh(x[k]), fresh(y[k])
        gradients(loss(a, b), a)


def _calls_in_vain(loss: Loss, x: Tensor, y: Tensor) -> None:
    """Calls that no backward follows, and calls on shapes that do not go together."""
    for k in range(len(x)):
        a, b = fresh(x[k]), fresh(y[k])
        with torch.set_grad_enabled(bool(k % 2)):
            loss(a, b)
        with contextlib.suppress(Exception):
            loss(a, b[:2])


def _live() -> int:
    gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


@protocol
def handles_left(kit: Kit, *, x: Tensor, y: Tensor, reductions: list[str]) -> Evidence:
    """How many handles of each kind calls on each row leave, which a process has some thousands of.

    Nothing where the system does not say (no Linux).
    """
    before = _open_handles()
    for reduction in reductions:
        _calls(functools.partial(kit.loss, reduction=reduction), x, y)
    return {what: now - before[what] for what, now in _open_handles().items()}


def _open_handles() -> dict[str, int]:
    folders = {"open files": Path("/proc/self/fd"), "threads": Path("/proc/self/task")}
    return {k: len(list(f.iterdir())) for k, f in folders.items() if f.is_dir()}


@protocol
def pages(
    kit: Kit, *, dtype: str, size: int, reduction: str, calls: list[int], trimmed: bool
) -> Evidence:
    """By how many bytes the process has ``grown`` after calls on ``size`` bytes; the ``seconds``.

    ``calls``: the first one's number, and the number after the last one's. Each has a size of its
    own, since some keep a buffer for each: as many elements fewer as its number. Every other has no
    gradient. ``trimmed``: after :func:`_trim`.
    """
    if trimmed:
        _trim()
    before, began = _resident(kit.device), time.monotonic()
    _repeated(kit, DTYPES[dtype], size, reduction, range(*calls))
    seconds = time.monotonic() - began
    return {"grown": _resident(kit.device) - before, "seconds": seconds}


def _repeated(kit: Kit, dtype: torch.dtype, size: int, reduction: str, numbers: range) -> None:
    ones = torch.ones(size // dtype.itemsize, dtype=dtype, device=kit.device)
    zeros = torch.zeros_like(ones)
    for k in numbers:
        x, y = ones[k:].requires_grad_(bool(k % 2)), zeros[k:]
        with torch.set_grad_enabled(bool(k % 2)):
            result = kit.loss(x, y, reduction)
        if k % 2:
            torch.autograd.grad(result, x, torch.ones_like(result))


def _trim() -> None:
    """Return to the system what the C library keeps of freed memory: it would hide what is new."""
    with contextlib.suppress(OSError, AttributeError):  # another library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident(device: str) -> int:
    """Bytes of the process that are in memory, or that are allocated on a device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the peak, which a leak raises in every round as well
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@protocol
def held(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, twice: bool) -> Evidence:
    """``names`` of the tensors of a call that are still there when nobody holds them any more.

    Without the garbage collector: what goes out of scope is freed at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        forgotten = _forgotten(kit, x, y, reduction, twice)
        return {"names": [name for name, ref in forgotten if ref() is not None]}
    finally:
        if enabled:
            gc.enable()


def _forgotten(
    kit: Kit, x: Tensor, y: Tensor, reduction: str, twice: bool
) -> list[tuple[str, weakref.ref[Tensor]]]:
    """Weak references to the tensors of a call. ``twice``: with a graph of the gradient too."""
    x, y = fresh(x), fresh(y)  # those that were handed in are held by others
    result = kit.loss(x, y, reduction)
    (gradient,) = gradients(result, x, create_graph=twice)
    named = (("input", x), ("target", y), ("the result", result), ("the gradient", gradient))
    return [(name, weakref.ref(t)) for name, t in named]


@protocol
def kept_after_backward(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``names`` of the operands, which are no leaves, that a result holds on to after its backward.

    Without the garbage collector, as in :func:`held`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        _result, forgotten = _walked(kit, x, y, reduction)  # which lives until the end of this
        return {"names": [name for name, ref in forgotten if ref() is not None]}
    finally:
        if enabled:
            gc.enable()


def _walked(
    kit: Kit, x: Tensor, y: Tensor, reduction: str
) -> tuple[Tensor, list[tuple[str, weakref.ref[Tensor]]]]:
    """A result after its backward, and weak references to the operands, which are out of scope."""
    leaf = fresh(x)
    a, b = leaf.clone(), y.detach().clone()
    result = kit.loss(a, b, reduction)
    torch.autograd.grad(result, leaf, torch.ones_like(result))
    return result, [("input", weakref.ref(a)), ("target", weakref.ref(b))]


@protocol
def pages_of_results(
    kit: Kit, *, dtype: str, size: int, reduction: str, calls: int, rounds: int
) -> Evidence:
    """By how many bytes the process has ``grown`` after each round of calls on ``size`` bytes; the
    ``seconds`` of two calls before.

    All results are kept, and each has had its backward. The operands are the same in all calls.
    """
    count = size // DTYPES[dtype].itemsize
    x = torch.ones(count, dtype=DTYPES[dtype], device=kit.device, requires_grad=True)
    y = torch.zeros_like(x, requires_grad=False)
    results, grown, seconds = list[Tensor](), list[int](), 0.0
    while len(grown) <= rounds:
        _trim()
        before, began = _resident(kit.device), time.monotonic()
        for _ in range(calls):
            result = kit.loss(x, y, reduction)
            torch.autograd.grad(result, x, torch.ones_like(result))
            results.append(result)
        seconds = seconds or time.monotonic() - began
        _trim()
        grown.append(_resident(kit.device) - before)
    return {"grown": grown[1:], "seconds": seconds}


@protocol
def seconds(
    kit: Kit, *, dtype: str, sizes: list[int], reduction: str, torchs: str, patience: float
) -> Evidence:
    """The ``own`` and ``torchs`` seconds of a call on each of ``sizes``, the shortest of a few.

    It ends before a size for which ``patience`` would not do. ``interpreted``: whether kernels run
    in an interpreter, for debugging.
    """
    own, others = list[float](), list[float]()
    builtin = getattr(torch.nn.functional, torchs)
    for size in sizes:
        if own and own[-1] * size / sizes[len(own) - 1] > patience:
            break
        x = torch.ones(size, dtype=DTYPES[dtype], device=kit.device)
        y = torch.zeros_like(x)
        calls = (lambda: kit.loss(x, y, reduction), lambda: builtin(x, y, reduction=reduction))  # noqa: B023
        for call, times in zip(calls, (own, others), strict=True):
            times.append(min(_seconds(call, kit.device) for _ in range(5)))
    interpreted = "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") == "1"
    return {"own": own, "torchs": others, "interpreted": interpreted}


def _seconds(call: Callable[[], Any], device: str) -> float:
    began = time.perf_counter()
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


@protocol
def saved(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """How many ``bytes`` a call saves for its backward, each memory once."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.numel() * t.itemsize
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = kit.loss(x, y, reduction)
    found = {"bytes": sum(sizes.values())}
    del result
    return found
