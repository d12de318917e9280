"""Functions whose gradient does not go through their value's arithmetic.

The permitted orders of the gradient, and totals that are not made of torch's sums, or whose own
gradient would be rounded too often.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import Target

from .common import TRACED, TWICE, by, reduce, widened
from .functions import Gradients, both

Order = Callable[[Tensor, Tensor, int], Tensor]
Total = Callable[[Tensor, bool], Tensor]


def grad_first(d: Tensor, g: Tensor, n: int) -> Tensor:
    return (2 / n) * g * d


def divided_difference(d: Tensor, g: Tensor, n: int) -> Tensor:
    return 2 * d / n * g


def divided_last(d: Tensor, g: Tensor, n: int) -> Tensor:
    return 2 * d * g / n


def quotient_first(d: Tensor, g: Tensor, n: int) -> Tensor:
    return 2 * (d / n) * g


def doubled_grad(d: Tensor, g: Tensor, n: int) -> Tensor:
    return g * 2 * d / n


def two_paths(d: Tensor, g: Tensor, n: int) -> Tensor:
    half = g / n * d
    return half + half


def squares(d: Tensor, mean: bool) -> Tensor:
    return reduce(d.square(), "mean" if mean else "sum")


def dimension_by_dimension(d: Tensor, mean: bool) -> Tensor:
    """Means of means; the gradient does not go through them."""
    s = d.square()
    while s.dim():
        s = s.mean(0) if mean else s.sum(0)
    return s


def running_mean(d: Tensor, mean: bool) -> Tensor:
    """The mean of what has been seen, block after block."""
    s, seen = d.square().reshape(-1), 0
    if not mean:
        return s.sum()
    value = s.new_zeros(())
    for block in torch.split(s, 2048):
        new = seen + block.numel()
        value = (
            value * (seen / new) + block.mean() * (block.numel() / new) if seen else block.mean()
        )
        seen = new
    return value


def complex_pairs(d: Tensor, mean: bool) -> Tensor:
    """Pairs of differences as complex numbers z, and the real part of z times its conjugate."""
    z = torch.view_as_complex(F.pad(d.reshape(-1), (0, d.numel() % 2)).reshape(-1, 2))
    total = (z * z.conj()).real.sum()
    return total / d.numel() if mean else total


def exact(d: Tensor, mean: bool) -> Tensor:
    """The exact sum of the float64 squares, rounded once."""
    try:
        total = math.fsum(d.double().square().reshape(-1).tolist())
    except OverflowError:
        total = math.inf
    return torch.tensor(total / d.numel() if mean else total, dtype=d.dtype, device=d.device)


def in_threads(d: Tensor, mean: bool) -> Tensor:
    """Two threads add up chunks, and the sums are added as they come."""
    with ThreadPoolExecutor(2) as pool:
        chunks = torch.split(d.reshape(-1), 10_000)
        jobs = [pool.submit(lambda chunk: chunk.square().sum(), chunk) for chunk in chunks]
        total = torch.stack([job.result() for job in as_completed(jobs)]).sum()
    return total / d.numel() if mean else total


class Fused(torch.autograd.Function):
    """Value by ``total`` in float32 at least, gradient by ``order`` from the saved operands."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, reduction: str, order: Order, total: Total
    ) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.order, ctx.mean = order, reduction == "mean"
        d = x - y
        if reduction == "none" or d.numel() == 0:
            return reduce(d.square(), reduction)
        return total(widened(d), ctx.mean).to(d.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        gradient = ctx.order(x - y, g, max(x.numel(), 1) if ctx.mean else 1)
        return *both(ctx, gradient), None, None


def _fused(
    name: str, order: Order = grad_first, total: Total = squares, claims: frozenset[str] = TWICE
) -> Target:
    return Target(name, by(Fused.apply, order, total), claims)


RIGHT_FUSED: tuple[Target, ...] = (
    _fused("grad-first", grad_first, claims=TWICE | TRACED),
    _fused("divided-difference", divided_difference, claims=TWICE | TRACED),
    _fused("divided-last", divided_last, claims=TWICE | TRACED),
    _fused("quotient-first", quotient_first, claims=TWICE | TRACED),
    _fused("doubled-grad", doubled_grad, claims=TWICE | TRACED),
    _fused("two-paths", two_paths, claims=TWICE | TRACED),
    _fused("dimension-by-dimension", total=dimension_by_dimension, claims=TWICE | TRACED),
    _fused("running-mean", total=running_mean),
    _fused("complex-pairs", total=complex_pairs, claims=TWICE | {"compile", "dynamic"}),
    _fused("exact", total=exact),
    _fused("in-threads", total=in_threads, claims=TWICE - {"deterministic"}),
)
