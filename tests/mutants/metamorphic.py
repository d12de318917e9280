"""Values inside the permitted set that change where the operands change places."""

from __future__ import annotations

import torch
from torch import Tensor

from targets import Target

from .mutant import Mutant, by_value, mutant, reduce


def sorts_differences(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Adds the squares in the order of the differences, from negative to positive."""
    d = x - y
    if reduction != "none":
        d = d.reshape(-1).sort().values
    return reduce(d.square(), reduction)


def wide_above_zero(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Positive differences take a branch of their own, which computes in float64."""
    d = x - y
    wide = (x.double() - y.double()).square().to(x.dtype)
    return reduce(torch.where(d > 0, wide, d.square()), reduction)


def rounds_down(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Rounds the differences of bfloat16 by cutting off bits, towards minus infinity."""
    nearest = x - y
    if x.dtype == torch.bfloat16:
        above = nearest.double() > x.double() - y.double()
        down = torch.full_like(nearest, -torch.inf)
        nearest = torch.where(above, torch.nextafter(nearest, down), nearest)
    return reduce(nearest.square(), reduction)


def asymmetric(target: Target) -> bool:
    """Of many pairs of operands, some give another value in the other order."""
    random_bits = torch.Generator().manual_seed(0)
    for _ in range(50):
        for dtype in (torch.float32, torch.bfloat16):
            x, y = torch.randn(2, 67, generator=random_bits).to(dtype)
            values = target.loss(x, y, reduction="sum"), target.loss(y, x, reduction="sum")
            if not torch.equal(*values):
                return True
    return False


METAMORPHIC_MUTANTS: tuple[Mutant, ...] = (
    mutant("sorts-differences", by_value(sorts_differences), "metamorphic", witness=asymmetric),
    mutant("wide-above-zero", by_value(wide_above_zero), "metamorphic", witness=asymmetric),
    mutant("rounds-down", by_value(rounds_down), "metamorphic", witness=asymmetric),
)
