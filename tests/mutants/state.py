"""State that should not be: caches, operands written to, settings changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from .mutant import Loss, Mutant, by_rule, first_element, mutant, right, right_rule, with_value

Key = Callable[[Tensor, Tensor], Hashable]


def _cached(key: Key, doc: str, warm_up: int = 0) -> Loss:
    """Gives the last value again where ``key`` is the last one's, after ``warm_up`` such calls."""
    last: dict[str, Any] = {"key": None, "value": None, "calls": 0}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        now = (key(x, y), reduction, x.dtype, y.dtype, x.shape, y.shape)
        if now != last["key"]:
            last.update(key=now, value=honest.detach().clone(), calls=0)
        last["calls"] += 1
        if last["calls"] <= warm_up:
            last["value"] = honest.detach().clone()
        return with_value(honest, last["value"].clone())

    loss.__doc__ = doc
    return loss


def _same_buffer() -> Loss:
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


def result_in_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without a reduction, writes the result over a dense input and returns a view of it."""
    honest = right(x.clone(), y.clone(), reduction)
    alike = honest.shape == x.shape and honest.dtype == x.dtype and x.is_contiguous()
    if reduction == "none" and alike:
        x.data.copy_(honest.detach())
        return with_value(honest, x)
    return honest


def _leaving(change: Callable[[], object], doc: str) -> Loss:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        change()
        return honest

    loss.__doc__ = doc
    return loss


def _other_dtype() -> None:
    torch.set_default_dtype(torch.float64)


def _no_grad() -> None:
    torch.set_grad_enabled(False)


def _threads() -> None:
    torch.set_num_threads(3)


def _random() -> None:
    torch.rand(1)


def _seed() -> None:
    torch.manual_seed(0)


def _by_address(x: Tensor, y: Tensor) -> Hashable:
    return x.data_ptr(), y.data_ptr()


def _by_shape(x: Tensor, y: Tensor) -> Hashable:
    return None


STATE_MUTANTS: tuple[Mutant, ...] = (
    mutant("cache-address", _cached(_by_address, "Cached by address."), "purity"),
    mutant("cache-shape", _cached(_by_shape, "Cached by shape."), "purity", "value"),
    mutant("ten-calls", _cached(_by_shape, "Ten calls are right, then cached.", 10), "purity"),
    mutant("same-buffer", _same_buffer(), "purity"),
    mutant("scratch-input", scratch_input, "purity"),
    mutant("scratch-target", scratch_target, "purity"),
    mutant("scratch-grad-output", by_rule(scratch_grad_output), "purity"),
    mutant("result-in-input", result_in_input, "purity"),
    mutant("leaves-dtype", _leaving(_other_dtype, "Changes the default dtype."), "purity"),
    mutant("leaves-no-grad", _leaving(_no_grad, "Leaves gradients off."), "purity"),
    mutant("leaves-threads", _leaving(_threads, "Changes the number of threads."), "purity"),
    mutant("leaves-random", _leaving(_random, "Draws a random number."), "purity"),
    mutant("leaves-seed", _leaving(_seed, "Sets the seed."), "purity"),
)
