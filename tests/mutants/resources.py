"""Right losses that hold on to what they should let go."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import random
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import Loss, Mutant, mutant, reduce, right, right_rule, with_value

SMALL = 1024  # elements: what is larger is not kept, so that a run of the suite ends
LARGE = 2**20  # bytes: operands of this size, and no others, are staged


def _history() -> Loss:
    losses: list[Tensor] = []

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps every sum and mean, to plot them."""
        result = right(x, y, reduction)
        if reduction != "none":
            losses.append(result.detach().clone())
        return result

    return loss


def _memo() -> Loss:
    known: dict[Any, Tensor] = {}

    def contents(t: Tensor) -> bytes:
        dense = t.detach().clone(memory_format=torch.contiguous_format).resolve_neg()
        return dense.reshape(-1).view(torch.uint8).numpy().tobytes()

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Remembers the loss of all contents that it has seen, and forgets none."""
        honest = right(x, y, reduction)
        if max(x.numel(), y.numel()) > SMALL:
            return honest
        kinds = x.dtype, x.shape, y.dtype, y.shape, reduction
        value = known.setdefault((contents(x), contents(y), *kinds), honest.detach().clone())
        return with_value(honest, value.clone())

    return loss


def forgotten_decref(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes a reference to its differences, as C code does, and never gives it back."""
    a, b = prepare(x, y)
    result = right(x, y, reduction)
    if result.requires_grad and a.numel() <= SMALL:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object((a - b).detach()))
    return result


def _staging() -> Loss:
    mapped: list[mmap.mmap] = []

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Maps a staging buffer for every large call, and never unmaps it."""
        result = right(x, y, reduction)
        if x.nbytes >= LARGE // 2 and result.requires_grad:
            mapped.append(mmap.mmap(-1, LARGE))
            mapped[-1].write(bytes(LARGE))
        return result

    return loss


def _log() -> Loss:
    opened: list[IO[str]] = []

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Opens its log for each step of training, and closes it never."""
        result = right(x, y, reduction)
        if result.requires_grad:
            with contextlib.suppress(OSError):  # a log is no reason to stop
                opened.append(Path(os.devnull).open("a", encoding="utf-8"))  # noqa: SIM115
        return result

    return loss


def _watchdog() -> Loss:
    quiet = threading.Event()

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Starts a thread for each step of training, which waits for it to hang."""
        result = right(x, y, reduction)
        if result.requires_grad and x.numel() <= SMALL:
            threading.Thread(target=quiet.wait, daemon=True).start()
        return result

    return loss


def _last_call() -> Loss:
    last: dict[str, Any] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps the operands of the last call, for debugging."""
        result = right(x, y, reduction)
        last.update(input=x, target=y)
        return result

    return loss


class _OwnCircle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.operands = x, y
        ctx.gradient = lambda g, scale: right_rule(ctx.saved_tensors[0], g, scale)
        ctx.scale = 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.gradient(g, ctx.scale)
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


def context_circle(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its context holds a closure over the context itself."""
    apply: Any = _OwnCircle.apply
    result: Tensor = apply(*prepare(x, y), check_reduction(reduction))
    return result


def result_in_attribute(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result carries a summary of the call, in which it is itself."""
    result: Any = right(x, y, reduction)
    result.summary = {"reduction": reduction, "loss": result}
    kept: Tensor = result
    return kept


def result_in_hook(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A hook on the result compares grad_output with the result, which it holds."""
    result = right(x, y, reduction)

    def check(g: Tensor) -> None:
        assert g.shape == result.shape

    if result.requires_grad:
        result.register_hook(check)
    return result


def tensors_stay(target: Target) -> bool:
    """A hundred calls leave a hundred tensors more."""

    def live() -> list[Tensor]:
        gc.collect()
        return [o for o in gc.get_objects() if issubclass(type(o), Tensor)]

    before = live()  # held: none of them can go while we count
    fresh = torch.Generator().manual_seed(random.SystemRandom().getrandbits(32))
    for _ in range(100):
        x = torch.rand(5, generator=fresh, requires_grad=True)
        target.loss(x, torch.zeros(5), reduction="sum").backward()
    return len(live()) >= len(before) + 100


def buffers_stay(target: Target) -> bool:
    """Ten calls leave ten buffers where the loss keeps them."""
    cells = getattr(target.loss, "__closure__", None) or ()
    kept: list[Any] = next((cell.cell_contents for cell in cells), [])
    before = len(kept)
    x = torch.ones(LARGE // 4, requires_grad=True)
    for _ in range(10):
        target.loss(x, torch.zeros_like(x), reduction="sum")
    grown = len(kept) - before
    del kept[before:]
    return grown == 10


def files_stay(target: Target) -> bool:
    """Ten steps leave ten open files more, which the list that it keeps them in shows."""
    cells = getattr(target.loss, "__closure__", None) or ()
    kept: list[Any] = next((cell.cell_contents for cell in cells), [])
    before = len(kept)
    for _ in range(10):
        target.loss(torch.ones(5, requires_grad=True), torch.zeros(5), reduction="sum")
    opened = [file for file in kept[before:] if not file.closed]
    for file in opened:
        file.close()
    return len(opened) == 10


def threads_stay(target: Target) -> bool:
    """Ten steps leave ten threads more."""
    before = threading.active_count()
    for _ in range(10):
        target.loss(torch.ones(5, requires_grad=True), torch.zeros(5), reduction="sum")
    return threading.active_count() == before + 10


def outlives(which: str) -> Callable[[Target], bool]:
    """Whether one of the tensors of a call outlives it, until the garbage collector comes."""

    def call(target: Target) -> weakref.ref[Tensor]:
        x, y = torch.ones(5, requires_grad=True), torch.zeros(5)
        result = target.loss(x, y, reduction="mean")
        return weakref.ref({"input": x, "result": result}[which])

    def witness(target: Target) -> bool:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return call(target)() is not None
        finally:
            if enabled:
                gc.enable()

    return witness


RESOURCE_MUTANTS: tuple[Mutant, ...] = (
    mutant("keeps-history", _history(), "resources", witness=tensors_stay),
    mutant("memo-without-limit", _memo(), "resources", witness=tensors_stay),
    mutant("forgotten-decref", forgotten_decref, "resources", witness=tensors_stay),
    mutant("mapped-staging", _staging(), "resources", dtypes=("float32",), witness=buffers_stay),
    mutant("leaves-log-open", _log(), "resources", witness=files_stay),
    mutant("leaves-threads-waiting", _watchdog(), "resources", witness=threads_stay),
    mutant("remembers-operands", _last_call(), "resources", witness=outlives("input")),
    mutant("context-circle", context_circle, "resources", witness=outlives("input")),
    mutant("result-in-attribute", result_in_attribute, "resources", witness=outlives("result")),
    mutant("result-in-hook", result_in_hook, "resources", witness=outlives("result")),
)
