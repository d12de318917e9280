"""Broken sums and means."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from targets.operands import check_reduction, prepare

from .mutant import Mutant, mutant, reduce, right, with_value


def _squares(x: Tensor, y: Tensor) -> Tensor:
    a, b = prepare(x, y)
    return (a - b).square()


def half_factor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A stray factor ½, as other frameworks define it."""
    return right(x, y, reduction) / 2


def unbiased(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by n - 1."""
    s = _squares(x, y)
    return (
        s.sum() / (s.numel() - 1) if reduction == "mean" and s.numel() > 1 else reduce(s, reduction)
    )


def batch_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by the batch size only."""
    s = _squares(x, y)
    return s.sum() / s.shape[0] if reduction == "mean" and s.dim() else reduce(s, reduction)


def sum_for_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Forgets to divide."""
    return right(x, y, "sum" if reduction == "mean" else reduction)


def mean_for_sum(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Knows no sum."""
    return right(x, y, "mean" if reduction == "sum" else reduction)


def none_reduced(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes none to be the mean."""
    return right(x, y, "mean" if reduction == "none" else reduction)


def empty_is_zero(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of nothing is 0, by a guard against division by zero."""
    s = _squares(x, y)
    return s.sum() if s.numel() == 0 and reduction == "mean" else reduce(s, reduction)


def half_overflow(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean as the rounded sum divided by n, which overflows in float16."""
    s = _squares(x, y)
    return (
        s.sum() / max(s.numel(), 1) if reduction == "mean" and s.numel() else reduce(s, reduction)
    )


def expanded_square(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """x² - 2xy + y², which cancels."""
    a, b = prepare(x, y)
    return with_value(right(x, y, reduction), reduce(a * a - 2 * a * b + b * b, reduction))


def serial_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One running sum in float32, as in a kernel with one accumulator."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none" or s.dtype == torch.float64 or s.numel() == 0:
        return reduce(s, reduction)
    with np.errstate(all="ignore"):
        total = np.add.accumulate(s.detach().float().reshape(-1).numpy(), dtype=np.float32)[-1]
    if reduction == "mean":
        total /= np.float32(s.numel())
    return with_value(reduce(s, reduction), torch.tensor(float(total)).to(s.dtype))


def half_accumulator(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Accumulates halves in their own format, in 64 lanes."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none" or s.itemsize > 2 or s.numel() == 0:
        return reduce(s, reduction)
    flat = s.detach().reshape(-1)
    lanes = torch.nn.functional.pad(flat, (0, -flat.numel() % 64)).reshape(-1, 64)
    while len(lanes) > 1:  # pairs of rows: exact in no step, but quick
        if len(lanes) % 2:
            lanes = torch.cat([lanes, torch.zeros_like(lanes[:1])])
        lanes = lanes[0::2] + lanes[1::2]
    total = lanes[0, 0]
    for lane in lanes[0, 1:]:
        total = total + lane
    return with_value(reduce(s, reduction), total / s.numel() if reduction == "mean" else total)


def sampled(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of the first 4,096 elements for the mean of all."""
    s = _squares(x, y)
    return s.reshape(-1)[:4096].mean() if reduction == "mean" else reduce(s, reduction)


REDUCTION_MUTANTS: tuple[Mutant, ...] = (
    mutant("half-factor", half_factor, "value", "gradient"),
    mutant("unbiased", unbiased, "value", "gradient"),
    mutant("batch-mean", batch_mean, "value", "gradient"),
    mutant("sum-for-mean", sum_for_mean, "value", "gradient"),
    mutant("mean-for-sum", mean_for_sum, "value", "gradient"),
    mutant("none-reduced", none_reduced, "value"),
    mutant("empty-is-zero", empty_is_zero, "value"),
    mutant("half-overflow", half_overflow, "value"),
    mutant("expanded-square", expanded_square, "value"),
    mutant("serial-float32", serial_float32, "value"),
    mutant("half-accumulator", half_accumulator, "value"),
    mutant("sampled", sampled, "value", "gradient"),
)
