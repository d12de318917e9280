"""Modules, callable objects, and what else users wrap a formula in."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.nn.modules.loss import _Loss
from torch.utils.checkpoint import checkpoint

from targets import DROP_IN, Target
from targets.operands import check_reduction, prepare

from .common import FORMULA, Loss, by, reduce


class Module(torch.nn.Module):
    """As a user writes one who has read nn.MSELoss."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return reduce(torch.square(input - target), self.reduction)


class Subclass(torch.nn.MSELoss):
    """The builtin's class with a formula of its own, which divides after a float32 sum."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        x, y = prepare(input, target)
        s = (x - y) * (x - y)
        if check_reduction(self.reduction) == "none":
            return s
        total = s.sum(dtype=torch.promote_types(s.dtype, torch.float32))
        return (total / s.numel() if self.reduction == "mean" else total).to(s.dtype)


class Weighted(_Loss):
    """torch's base class of losses, with a weight of one in a buffer."""

    weight: Tensor

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=check_reduction(reduction))
        self.register_buffer("weight", torch.ones(()), persistent=False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        x, y = prepare(input, target)
        return reduce(self.weight.to(x) * (x - y).pow(2), self.reduction)


def fresh(module: Any) -> Loss:
    """The loss of a new ``module``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result: Tensor = module(reduction=reduction)(x, y)
        return result

    return loss


def powered(exponent: int, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A family of losses, of which a partial application is the one."""
    x, y = prepare(x, y)
    return reduce((x - y) ** exponent, reduction)


def checkpointed(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Backward computes the formula again."""

    def formula(a: Tensor, b: Tensor) -> Tensor:
        return reduce((a - b).square(), reduction)

    result: Tensor = checkpoint(formula, x, y, use_reentrant=False, preserve_rng_state=False)
    return result


def offloaded(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """What autograd saves is copied, as to the memory of the host."""
    with save_on_cpu():
        return reduce((x - y).square(), reduction)


RIGHT_MODULES: tuple[Target, ...] = (
    Target("own-module", fresh(Module), FORMULA | {"module"}, module=Module),
    Target("subclass", fresh(Subclass), DROP_IN | {"module"}, module=Subclass),
    Target("buffer", fresh(Weighted), DROP_IN | {"module"}, module=Weighted),
    # With dynamic shapes torch.compile makes a symbol of the 2, and fails on it.
    Target("partial", functools.partial(powered, 2), DROP_IN - {"compile"}),
    # torch.func supports no hooks on saved tensors.
    Target("checkpointed", by(checkpointed), DROP_IN - {"functorch"}),
    Target("offloaded", by(offloaded), DROP_IN - {"functorch", "compile"}),
)
