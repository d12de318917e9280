"""State that should not be: caches, shared memory, operands written to, settings changed."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets import Target

from .mutant import (
    Loss,
    Mutant,
    Pair,
    by_gradients,
    by_rule,
    by_value,
    first_element,
    held,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    with_value,
)
from .witnesses import changes, differs_after, restored

Key = Callable[[Tensor, Tensor], Hashable]

# --- caches


def _cached(key: Key) -> Loss:
    """Gives the last value again where ``key``, reduction, dtypes and shapes are the last one's."""
    last: dict[str, Any] = {"key": None, "value": None}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        now = (key(x, y), reduction, x.dtype, y.dtype, x.shape, y.shape)
        if now != last["key"]:
            last.update(key=now, value=honest.detach().clone())
        return with_value(honest, last["value"].clone())

    loss.__doc__ = key.__doc__
    return loss


def by_address(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same addresses."""
    return x.data_ptr(), y.data_ptr()


def by_shape(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same shapes."""
    return None


def by_version(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same addresses and version counters, which .data leaves."""
    return x.data_ptr(), y.data_ptr(), x._version, y._version


def by_total(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for operands of the same sums, as after a permutation."""
    return float(x.double().sum()), float(y.double().sum())


def by_object(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input remembers the value; new contents make no difference."""
    result = right(x, y, reduction)
    values: dict[Any, Tensor] = x.__dict__.setdefault("_values", {})
    value = values.setdefault((id(y), reduction), result.detach().clone())
    return with_value(result, value.clone())


def every_other_call() -> Loss:
    last: dict[Hashable, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Every other call on a shape gives the last value again."""
        key = (x.shape, x.dtype, reduction)
        return (
            last.pop(key) if key in last else last.setdefault(key, right(x, y, reduction)).clone()
        )

    return by_value(value)


def compiled_reduction() -> Loss:
    compiled: dict[Hashable, str] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Kernels are kept by dtype and shape: the first reduction is compiled into them."""
        key = (x.dtype, y.dtype, x.shape, y.shape)
        return right(x, y, compiled.setdefault(key, reduction))

    return loss


def remembered_count() -> Loss:
    counts: dict[Hashable, int] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """n is remembered by the number of dimensions."""
        n = x.numel()
        first = counts.setdefault((x.dim(), x.dtype), n)
        result = right(x, y, reduction)
        return result * (n / first) if reduction == "mean" and n and first else result

    return by_value(value)


def first_call_wrong() -> Loss:
    seen: set[Hashable] = set()

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """The first call on a shape returns before the kernel that it compiles has run."""
        result = right(x, y, reduction)
        key = (x.shape, x.dtype, reduction)
        first = key not in seen
        seen.add(key)
        return torch.zeros_like(result) if first else result

    return by_value(value)


# --- memory that is used again


def same_buffer() -> Loss:
    buffers: dict[Hashable, Tensor] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Every result of one shape and dtype is written into the same memory."""
        honest = right(x, y, reduction)
        key = honest.shape, honest.dtype
        if key not in buffers:
            buffers.clear()
            buffers[key] = torch.empty_like(honest)
        return with_value(honest, buffers[key].copy_(honest.detach()))

    return loss


def reused_gradient() -> Loss:
    buffers: dict[Hashable, Tensor] = {}

    def gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
        """Gradients of the input of one shape lie in one buffer."""
        first, second = right_gradients(x, y, g, scale)
        buffer = buffers.setdefault((first.shape, first.dtype), torch.empty_like(first))
        return buffer.copy_(first).detach(), second

    return by_gradients(gradients)


def reused_by_thread() -> Loss:
    own = threading.local()

    def gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
        """Each thread has one buffer for gradients of one shape, but for a second backward."""
        first, second = right_gradients(x, y, g, scale)
        buffers = vars(own)
        before, buffers["input"] = buffers.get("input"), x.data_ptr()
        if before == x.data_ptr():
            return first, second
        buffer = buffers.setdefault(f"{first.shape} {first.dtype}", torch.empty_like(first))
        return buffer.copy_(first).detach(), second

    return by_gradients(gradients)


class _LastForward(torch.autograd.Function):
    saved: tuple[Tensor, float]

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        _LastForward.saved = d, 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        ctx.shape = d.shape
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        d, scale = _LastForward.saved
        if d.shape != ctx.shape:
            raise RuntimeError("saved for another shape")
        gradient = right_rule(d, g, scale)
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


def saves_on_class(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """What the backward needs is saved on the class, where the next forward overwrites it."""
    right(x.detach(), y.detach(), reduction)
    a, b = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
    dtype = torch.promote_types(x.dtype, y.dtype)
    apply: Any = _LastForward.apply
    result: Tensor = apply(a.to(dtype), b.to(dtype), reduction)
    return result


def accumulates() -> Loss:
    totals: dict[Hashable, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """The accumulator is not cleared between calls on one shape."""
        key = (x.shape, x.dtype, reduction)
        totals[key] = totals.get(key, 0) + right(x, y, reduction)
        return totals[key]

    return by_value(value)


def result_in_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without a reduction, writes the result over a dense input and returns a view of it."""
    honest = right(x.clone(), y.clone(), reduction)
    alike = honest.shape == x.shape and honest.dtype == x.dtype and x.is_contiguous()
    if reduction == "none" and alike and x.is_floating_point():
        x.data.copy_(honest.detach())
        return with_value(honest, x)
    return honest


# --- writes


def scratch_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Leaves the difference where the input was."""
    honest = right(x.clone(), y.clone(), reduction)
    if x.numel() and y.numel():
        x.data[first_element(x)] = (x.detach()[first_element(x)] - y.detach()[first_element(y)]) + 1
    return honest


def scratch_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Negates the target in place, to add it."""
    honest = right(x.clone(), y.clone(), reduction)
    if y.numel() and y.dtype != torch.bool:
        y.data[first_element(y)] = 1 - y.detach()[first_element(y)]
    return honest


def scratch_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Scales grad_output in place."""
    gradient = right_rule(d, g, scale)
    if g.numel():
        g.data[first_element(g)] = g.detach()[first_element(g)] * 2 + 1
    return gradient


def scratch_afterwards(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """grad_output, where it is a dense matrix, is scratch memory once the gradients are made."""
    pair = right_gradients(x, y, g, scale)
    if g.dim() == 2 and g.numel() and g.is_contiguous():
        g.data.zero_()
    return pair


def input_restored(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is negated in place and negated back."""
    result = right(x.clone(), y.clone(), reduction)
    if x.numel() and x.dtype.is_floating_point and 0 not in x.stride():
        x.detach().neg_().neg_()
    return result


def past_the_end(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Writes whole blocks of four: into what lies behind a narrow view of the input."""
    honest = right(x.clone(), y, reduction)
    n = -x.numel() % 4
    end = x.storage_offset() + x.numel()
    if x.is_contiguous() and 0 < n <= held(x) - end:
        x.data.as_strided((n,), (1,), end).zero_()
    return honest


def writes_into_gap(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gaps between the rows of a narrow view are filled with zeros."""
    result = right(x, y, reduction)
    if x.dim() == 2 and x.numel() and x.stride(1) == 1 and x.stride(0) > x.shape[1]:
        start = x.storage_offset() + x.shape[1]
        rows = min(x.shape[0], (held(x) - start - 1) // x.stride(0) + 1)
        x.data.as_strided((rows, 1), x.stride(), start).zero_()
    return result


def writes_before(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A zero is written in front of the first element of the target."""
    result = right(x, y, reduction)
    if y.storage_offset():
        y.data.as_strided((1,), (1,), y.storage_offset() - 1).zero_()
    return result


def needs_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is made to need a gradient, and left so."""
    if x.dtype.is_floating_point and not (x.requires_grad or y.requires_grad):
        result = right(x, y, reduction)
        x.requires_grad_()
        return result
    return right(x, y, reduction)


# --- settings


def _leaving(effect: Callable[[], object]) -> Loss:
    """The right loss, and then ``effect``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        effect()
        return honest

    loss.__doc__ = effect.__doc__
    return loss


def default_dtype() -> None:
    """Changes the default dtype."""
    torch.set_default_dtype(torch.float64)


def grad_mode() -> None:
    """Leaves gradients off."""
    torch.set_grad_enabled(False)


def threads() -> None:
    """Changes the number of threads."""
    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)


def deterministic() -> None:
    """Deterministic algorithms are demanded afterwards."""
    torch.use_deterministic_algorithms(True, warn_only=True)


def anomaly() -> None:
    """Leaves anomaly detection on."""
    torch.autograd.set_detect_anomaly(True, check_nan=False)


def matmul_precision() -> None:
    """Lets all matrix products of float32 be coarse."""
    torch.set_float32_matmul_precision("medium")


def draws() -> None:
    """Draws a random number."""
    torch.rand(1)


def seed() -> None:
    """Sets the seed."""
    torch.manual_seed(0)


def numpy_draws() -> None:
    """Draws a random number from NumPy's global generator."""
    np.random.random()


def python_draws() -> None:
    """Draws a random number from Python's global generator."""
    random.random()


def filters() -> None:
    """Silences warnings for good."""
    warnings.filterwarnings("ignore", message=f"loss {len(warnings.filters)}")


def numpy_errors() -> None:
    """Silences NumPy's floating-point warnings for good."""
    np.seterr(all="ignore")


def float32_by_default() -> None:
    """Sets the default dtype that most programs have already."""
    torch.set_default_dtype(torch.float32)


def gradients_on() -> None:
    """Turns gradients on, whether or not its caller had turned them off."""
    torch.set_grad_enabled(True)


def autocast_off() -> None:
    """Turns autocast off, for the rest of its caller's block too."""
    torch.set_autocast_enabled("cpu", False)


def _packing() -> object:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def saves_itself() -> None:
    """Drops its caller's hooks on what is saved, such as those that move it to the host."""
    if _packing():
        torch._C._autograd._pop_saved_tensors_default_hooks()


def two_threads() -> None:
    """Sets a number of threads that suits the machine of its author."""
    torch.set_num_threads(2)


def printing() -> None:
    """Has tensors printed with more digits, as its author likes it."""
    torch.set_printoptions(precision=8)


def autotuning() -> None:
    """Lets cuDNN look for the fastest convolution."""
    torch.backends.cudnn.benchmark = True


def environment() -> None:
    """Sets an environment variable that makes cuBLAS reproducible."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def log_level() -> None:
    """Has everything logged that is for information."""
    logging.getLogger().setLevel(logging.INFO)


def flushed() -> None:
    """Has subnormal numbers flushed to zero from now on."""
    torch.set_flush_denormal(True)


def interruptible() -> None:
    """Makes itself interruptible from the keyboard."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- witnesses


def stale_after_data(target: Target) -> bool:
    """New contents, written through .data, give the old value."""
    x = torch.ones(3)
    target.loss(x, torch.zeros(3), reduction="sum")
    y = torch.zeros(3)
    before = float(target.loss(x, y, reduction="sum"))
    x.data.fill_(2)
    return float(target.loss(x, y, reduction="sum")) == before


def gradient_overwritten(target: Target) -> bool:
    """A gradient that was kept changes with a later one."""
    kept: list[Tensor] = []
    for value in (1.0, 2.0):
        x = torch.full((3,), value, requires_grad=True)
        kept += torch.autograd.grad(target.loss(x, torch.zeros(3), reduction="sum"), x)
    return torch.equal(*kept)


def zeroes_grad_output(target: Target) -> bool:
    """A matrix of ones that was grad_output is zero after the backward."""
    x, ones = torch.full((2, 2), 3.0, requires_grad=True), torch.ones(2, 2)
    torch.autograd.grad(target.loss(x, torch.zeros(2, 2), reduction="none"), x, ones)
    return not ones.any()


def wrong_after_another_forward(target: Target) -> bool:
    """A gradient is that of another forward, which came between."""
    x = torch.full((3,), 2.0, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="sum")
    target.loss(torch.ones(3), torch.zeros(3), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient.tolist() != [4.0] * 3


def moves_version(target: Target) -> bool:
    """The input's version counter moves."""
    x = torch.ones(3)
    before = x._version
    target.loss(x, torch.zeros(3), reduction="sum")
    return x._version != before


def writes_between_rows(target: Target) -> bool:
    """What lies between the rows of a view changes."""
    whole = torch.ones(4, 5)
    target.loss(whole[:, :3], torch.zeros(4, 3), reduction="sum")
    return not bool((whole == 1).all())


def leaves_requires_grad(target: Target) -> bool:
    """The input needs a gradient afterwards."""
    x = torch.ones(3)
    target.loss(x, torch.zeros(3), reduction="sum")
    return x.requires_grad


def _leaves(name: str, effect: Callable[[], object], read: Callable[[], object]) -> Mutant:
    return mutant(name, _leaving(effect), "purity", witness=changes(read))


def _sets(
    name: str,
    effect: Callable[[], object],
    read: Callable[[], object],
    prepare: Callable[[], object],
) -> Mutant:
    """A mutant whose effect is none unless ``prepare`` chose another value before."""
    changed = changes(read)

    def witness(target: Target) -> bool:
        with restored():
            prepare()
            return changed(target)

    return mutant(name, _leaving(effect), "purity", witness=witness)


def _flushes() -> bool:
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0


def _numpy_state() -> str:
    return repr(np.random.get_state())


STATE_MUTANTS: tuple[Mutant, ...] = (
    mutant("cache-address", _cached(by_address), "purity"),
    mutant("cache-shape", _cached(by_shape), "purity", "value"),
    mutant("cache-version", _cached(by_version), "purity", witness=stale_after_data),
    mutant(
        "cache-total",
        _cached(by_total),
        "purity",
        "metamorphic",
        witness=differs_after(
            lambda: (torch.tensor([1.0, 2]), torch.tensor([1.0, 1])),
            lambda: (torch.tensor([2.0, 1]), torch.tensor([0.0, 2])),
        ),
    ),
    mutant("cache-by-object", by_object, "purity"),
    mutant("every-other-call", every_other_call(), "purity", "value"),
    mutant("compiled-reduction", compiled_reduction(), "purity", "value"),
    mutant("remembered-count", remembered_count(), "purity", "value"),
    mutant("first-call-wrong", first_call_wrong(), "purity", "value"),
    mutant("same-buffer", same_buffer(), "purity"),
    mutant("reused-gradient", reused_gradient(), "purity", witness=gradient_overwritten),
    mutant(
        "saves-on-class", saves_on_class, "purity", "autograd", witness=wrong_after_another_forward
    ),
    mutant("reused-by-thread", reused_by_thread(), "purity", witness=gradient_overwritten),
    mutant("accumulates", accumulates(), "purity", "value"),
    mutant("result-in-input", result_in_input, "purity"),
    mutant("scratch-input", scratch_input, "purity"),
    mutant("scratch-target", scratch_target, "purity"),
    mutant("scratch-grad-output", by_rule(scratch_grad_output), "purity"),
    mutant(
        "scratch-afterwards",
        by_gradients(scratch_afterwards),
        "purity",
        witness=zeroes_grad_output,
    ),
    mutant("input-restored", input_restored, "purity", witness=moves_version),
    mutant("past-the-end", past_the_end, "purity", "layout"),
    mutant("writes-into-gap", writes_into_gap, "purity", witness=writes_between_rows),
    mutant("writes-before", writes_before, "purity"),
    mutant("needs-gradient", needs_gradient, "purity", "autograd", witness=leaves_requires_grad),
    _leaves("leaves-dtype", default_dtype, torch.get_default_dtype),
    _leaves("leaves-no-grad", grad_mode, torch.is_grad_enabled),
    _leaves("leaves-threads", threads, torch.get_num_threads),
    _leaves("leaves-deterministic", deterministic, torch.are_deterministic_algorithms_enabled),
    _leaves("leaves-anomaly", anomaly, torch.is_anomaly_enabled),
    _leaves("leaves-matmul-precision", matmul_precision, torch.get_float32_matmul_precision),
    _leaves("leaves-random", draws, lambda: torch.get_rng_state().tolist()),
    _leaves("leaves-seed", seed, lambda: torch.get_rng_state().tolist()),
    _leaves("leaves-numpy-state", numpy_draws, _numpy_state),
    _leaves("leaves-python-state", python_draws, random.getstate),
    _leaves("leaves-filters", filters, lambda: len(warnings.filters)),
    _leaves("leaves-numpy-errors", numpy_errors, np.geterr),
    _leaves("leaves-printing", printing, lambda: repr(torch.tensor([0.1]))),
    _leaves("leaves-autotuning", autotuning, lambda: torch.backends.cudnn.benchmark),
    _leaves("leaves-environment", environment, lambda: dict(os.environ)),
    _leaves("leaves-log-level", log_level, lambda: logging.root.level),
    _leaves("leaves-flushed", flushed, _flushes),
    _leaves("leaves-interruptible", interruptible, lambda: signal.getsignal(signal.SIGINT)),
    _sets(
        "sets-dtype",
        float32_by_default,
        torch.get_default_dtype,
        lambda: torch.set_default_dtype(torch.float64),
    ),
    _sets(
        "sets-grad-mode",
        gradients_on,
        torch.is_grad_enabled,
        lambda: torch.set_grad_enabled(False),
    ),
    _sets(
        "leaves-autocast-off",
        autocast_off,
        lambda: torch.is_autocast_enabled("cpu"),
        lambda: torch.set_autocast_enabled("cpu", True),
    ),
    _sets(
        "drops-saving-hooks",
        saves_itself,
        _packing,
        lambda: torch._C._autograd._push_saved_tensors_default_hooks(abs, abs),
    ),
    _sets("sets-threads", two_threads, torch.get_num_threads, lambda: torch.set_num_threads(3)),
)
