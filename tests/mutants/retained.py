"""Keeps operands, squares or graphs that nobody asks for again."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.module import MSE

from .module import module_mutant
from .mutant import Loss, Mutant, Witness, by_value, mutant, reduce, right
from .parts import TWICE, Given, Whole, both, fused_by
from .probes import leaf, otherwise, ramp, ramp_leaf
from .transformed import plainly


def keeps_large_operands(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps operands above 100 elements for a second stage, until the next call."""
    if x.numel() > 100:
        _KEPT[:] = [x, y]
    return right(x, y, reduction)


_KEPT: list[Tensor] = []


def large_operand_is_held(target: Target) -> bool:
    """An operand lives on after its call."""
    x = torch.rand(200)
    target.loss(x, torch.rand(200), reduction="sum")
    held = weakref.ref(x)
    del x
    return held() is not None


def _waiting() -> Loss:
    kept: dict[int, tuple[object, Tensor, Tensor]] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps the operands until a backward comes."""
        result = right(x, y, reduction)
        if result.requires_grad:
            key = object()
            kept[id(key)] = key, x.detach(), y.detach()
            result.register_hook(lambda g: kept.pop(id(key), None) and None)
        return result

    return loss


def _failed() -> Loss:
    kept: list[tuple[Tensor, Tensor]] = []

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps the operands of calls that raise, for a report."""
        try:
            return right(x, y, reduction)
        except RuntimeError:
            kept.append((x, y))
            raise

    return loss


def operands_stay(calls: Callable[[Any], object]) -> Witness:
    """Each of ten calls leaves something in what the loss keeps."""

    def witness(target: Target) -> bool:
        cells = getattr(target.loss, "__closure__", None) or ()
        kept: Any = next((cell.cell_contents for cell in cells), ())
        before = len(kept)
        for _ in range(10):
            calls(target.loss)
        grown = len(kept) - before
        if grown:
            kept.clear()
        return grown == 10

    return witness


def raises(loss: Any) -> None:
    with contextlib.suppress(RuntimeError):
        loss(torch.ones(3), torch.ones(4))


_WEIGHTS: dict[Any, Tensor] = {}


def weights_by_shape(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Keeps a tensor of unit weights for each shape that it ever saw."""
    s = (x - y).square()
    if s.numel() > 4096 and (s.shape, s.dtype) not in _WEIGHTS:  # the small ones it makes anew
        _WEIGHTS[s.shape, s.dtype] = torch.ones_like(s)
    return reduce(s * _WEIGHTS.get((s.shape, s.dtype), torch.ones_like(s)), reduction)


def weights_grow(target: Any) -> bool:
    before = len(_WEIGHTS)
    for n in (5001, 5002):
        target.loss(torch.ones(n), torch.zeros(n), reduction="sum")
    grown = len(_WEIGHTS) - before
    _WEIGHTS.clear()
    return grown == 2


_VALIDATION: list[Tensor] = []


def squares_of_validation(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps the squares of every call without gradients, for a report of the validation."""
    if not torch.is_grad_enabled() and plainly(x, y):
        _VALIDATION.append(right(x, y, "none"))
    return right(x, y, reduction)


def validation_grows(target: Any) -> bool:
    before = len(_VALIDATION)
    with torch.no_grad():
        target.loss(torch.ones(2), torch.zeros(2), reduction="sum")
    grown = len(_VALIDATION) - before
    _VALIDATION.clear()
    return grown == 1


class History(MSE):
    """Keeps every loss that it has computed."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        self.__dict__.setdefault("history", []).append(result.detach())
        return result


def history_grows(target: Target) -> bool:
    if target.module is None:
        return False
    module = target.module(reduction="mean")
    module(torch.ones(1), torch.zeros(1))
    return bool(getattr(module, "history", ()))


class _KeepsGradient(torch.autograd.Function):
    """2·g·d by a node of Python's, which takes attributes."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(d, g)
        ctx.scale = scale
        return scale * d * g

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        d, g = ctx.saved_tensors
        second = ctx.scale * w
        return second * g, (second * d).sum_to_size(g.shape), None


class _SecondCycle(Whole):
    """Backward keeps the gradient on its node: a cycle, where the gradient has a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _KeepsGradient.apply
        gradient = apply(x - y, g, ctx.scale)
        if torch.is_grad_enabled() and gradient.grad_fn is not None:
            gradient.grad_fn.kept = gradient
        return *both(gradient), None


def freed(loss: Callable[..., Any]) -> bool:
    """Whether the gradient is gone with its last name, where it has a graph."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        x = leaf(1, 2)
        gradient = torch.autograd.grad(loss(x, torch.zeros(2)), x, create_graph=True)[0]
        operand = weakref.ref(x)
        del x, gradient
        return operand() is None
    finally:
        if enabled:
            gc.enable()


RETAINED_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "keeps-large-operands", keeps_large_operands, "resources", witness=large_operand_is_held
    ),
    mutant(
        "waits-for-backward",
        _waiting(),
        "resources",
        witness=operands_stay(lambda loss: loss(ramp_leaf(3), ramp(3))),
    ),
    mutant("keeps-failed", _failed(), "resources", witness=operands_stay(raises)),
    mutant("weights-by-shape", by_value(weights_by_shape), "resources", witness=weights_grow),
    mutant("squares-of-validation", squares_of_validation, "resources", witness=validation_grows),
    module_mutant("module-history", History, history_grows, "resources"),
    mutant(
        "second-cycle",
        fused_by(_SecondCycle),
        "resources",
        claims=TWICE,
        witness=otherwise(freed),
    ),
)
