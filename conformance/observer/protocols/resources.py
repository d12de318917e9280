"""Experiments on resources: what a call holds on to, and for how long."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import resource
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from conformance.observer.protocols.bench import Bench, Messages, experiment
from conformance.running import memory

CALLS = 24
ROUNDS = 3
LARGE = 2**20  # bytes of an operand: well above what an allocator keeps in reserve
PATIENCE = 1.0  # seconds for a call on it


@experiment("resources.memory")
def _memory(bench: Bench) -> Messages:
    """Tensors that live on after calls on ever new operands: Python's, then the process's pages."""
    losses = _losses(bench)
    for loss in losses:  # what compiles keeps something of the first of each kind
        _calls(bench, loss, 4, (5,))
        _calls_in_vain(bench, loss, 4)
    gc.freeze()  # what is there now: only what comes after is looked at, and quickly
    try:
        for loss in losses:
            _calls(bench, loss, CALLS, (5,))
        grown = _live()
        for loss in losses:
            _calls_in_vain(bench, loss, CALLS)
        further = _live() - grown
    finally:
        gc.unfreeze()
    yield from _handles(bench)
    if grown >= CALLS // 2:
        yield f"{CALLS * len(losses)} calls left {grown} tensors alive"
    if further >= CALLS // 2:
        yield f"{CALLS} calls without a backward, and {CALLS} that raise, left {further} alive"
    yield from _pages(bench)


def _losses(bench: Bench) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """The loss with each reduction and, where there is one, a module with each."""
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [
        functools.partial(bench.loss, reduction=r) for r in bench.reductions
    ]
    make = bench.target.module if bench.claims("module") else None
    return losses if make is None else [*losses, *(make(reduction=r) for r in bench.reductions)]


def _calls(
    bench: Bench, loss: Callable[[Tensor, Tensor], Tensor], count: int, shape: tuple[int, ...]
) -> None:
    for k in range(count):
        x, y = bench.tensor(shape, 2 * k).requires_grad_(), bench.tensor(shape, 2 * k + 1)
        result = loss(x, y)
        torch.autograd.grad(result, x, torch.ones_like(result))


def _calls_in_vain(bench: Bench, loss: Callable[[Tensor, Tensor], Tensor], count: int) -> None:
    """Calls that no backward follows, and calls on shapes that do not go together."""
    for k in range(count):
        x, y = bench.tensor((5,), 2 * k).requires_grad_(), bench.tensor((5,), 2 * k + 1)
        with torch.set_grad_enabled(bool(k % 2)):
            loss(x, y)
        with contextlib.suppress(Exception):
            loss(x, y[:2])


def _handles(bench: Bench) -> Messages:
    """Threads and open files, of which a process may have some thousands."""
    before = _open_handles()
    for reduction in bench.reductions:
        _calls(bench, functools.partial(bench.loss, reduction=reduction), CALLS, (5,))
    for what, now in _open_handles().items():
        if now - before[what] >= CALLS // 2:
            yield f"{CALLS * len(bench.reductions)} calls left {now - before[what]} {what}"


def _open_handles() -> dict[str, int]:
    """How many of each kind this process has; nothing where the system does not say (no Linux)."""
    folders = {"open files": Path("/proc/self/fd"), "threads": Path("/proc/self/task")}
    return {k: len(list(f.iterdir())) for k, f in folders.items() if f.is_dir()}


def _live() -> int:
    gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


def _pages(bench: Bench) -> Messages:
    """Memory that no Python object holds, kept by C++ code: it grows in every round of calls.

    Each call has a size of its own, since some keep a buffer for each; every other has no gradient.
    """
    reduction, size = bench.reductions[-1], LARGE
    memory.trim()
    began = time.monotonic()
    _repeated(bench, reduction, size, range(2))
    if time.monotonic() - began > PATIENCE:  # a loop in Python: it would take minutes
        size //= 16
    grown = []
    for k in range(ROUNDS):
        before = _resident(bench.device)
        _repeated(bench, reduction, size, range(2 + k * CALLS, 2 + (k + 1) * CALLS))
        grown.append(_resident(bench.device) - before)
        if grown[-1] < CALLS * size // 4:
            return
    yield (
        f"{ROUNDS} rounds of {CALLS} calls on {size >> 10} KiB each took "
        f"{min(grown) >> 10} KiB or more ({reduction})"
    )


def _repeated(bench: Bench, reduction: str, size: int, numbers: range) -> None:
    """Calls on operands of ``size`` bytes, and of as many elements fewer as the call's number."""
    dtype = getattr(torch, bench.dtype)
    ones = torch.ones(size // dtype.itemsize, dtype=dtype, device=bench.device)
    zeros = torch.zeros_like(ones)
    for k in numbers:
        x, y = ones[k:].requires_grad_(bool(k % 2)), zeros[k:]
        with torch.set_grad_enabled(bool(k % 2)):
            result = bench.loss(x, y, reduction)
        if k % 2:
            torch.autograd.grad(result, x, torch.ones_like(result))


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


@experiment("resources.cycle")
def _cycle(bench: Bench) -> Messages:
    """Without the garbage collector: what goes out of scope is freed at once."""
    calls = itertools.product(bench.reductions, ((5, False), (1030, False), (5, True)))
    for reduction, (n, twice) in calls:
        if twice and not bench.claims("double_backward"):
            continue
        enabled = gc.isenabled()
        gc.disable()
        try:
            forgotten = _forgotten(bench, reduction, n, twice)
            held = [name for name, ref in forgotten if ref() is not None]
        finally:
            if enabled:
                gc.enable()
        if held:
            yield f"{' and '.join(held)} is still held after the result is gone ({reduction})"


def _forgotten(
    bench: Bench, reduction: str, n: int, twice: bool
) -> list[tuple[str, weakref.ref[Tensor]]]:
    """Weak references to the tensors of a call that nobody holds any more.

    ``twice``: with a graph of the gradient too.
    """
    x, y = bench.tensor((n,), 1).requires_grad_(), bench.tensor((n,), 2)
    result = bench.loss(x, y, reduction)
    ones = torch.ones_like(result)
    (gradient,) = torch.autograd.grad(result, x, ones, create_graph=twice)
    named = (("input", x), ("target", y), ("the result", result), ("the gradient", gradient))
    return [(name, weakref.ref(t)) for name, t in named]


@experiment("resources.saved")
def _saved(bench: Bench) -> Messages:
    """The builtin saves both operands; one tensor more is a fair price for a fused kernel."""
    for reduction in bench.reductions:
        x, y = bench.tensor((40,), 1).requires_grad_(), bench.tensor((40,), 2)
        y.requires_grad_(bench.claims("target_gradient"))
        sizes: dict[int, int] = {}

        def pack(t: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[t.untyped_storage().data_ptr()] = t.numel() * t.itemsize
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            result = bench.loss(x, y, reduction)
        permitted = 3 * x.numel() * x.itemsize
        if sum(sizes.values()) > permitted:
            saved = sum(sizes.values())
            yield f"saves {saved} bytes for backward; the builtin and one tensor more: {permitted}"
        del result
