"""The gradient of an operand that was broadcast, folded wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import EAGER, Mutant, mutant, right
from .parts import AWKWARD, Given, head, via
from .probes import gradient_of, leaf, otherwise, ramp_leaf, unlike_builtin
from .transformed import plainly


def fold_first_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row is the sum over the first 4,096 rows that it stands for."""
    a, b = prepare(x, y)
    if x.shape != y.shape and b.dim() == 2:
        b = via(b, lambda g: head(g, 4096 * g.shape[1]))
    return right(a, b, reduction)


def fold_of_rows(loss: Any) -> Tensor:
    y = ramp_leaf(8)
    return gradient_of(y, loss(torch.zeros(5000, 8), y, reduction="sum"))


class HalfSums(torch.autograd.Function):
    """Expands rows; their gradient is added up in blocks, and the blocks in the rows' format."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = t.shape
        return t.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        lead = g.dim() - len(ctx.shape)
        if not lead or not g.numel():
            return g.sum_to_size(ctx.shape), None
        rows = g.sum_to_size((*g.shape[:lead], *ctx.shape)).reshape(-1, *ctx.shape)
        total = torch.zeros_like(rows[0])
        for block in rows.split(16):
            total = total + block.sum(0)
        return total, None


def half_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row of halves is added up in halves, 16 rows at a time."""
    a, b = prepare(x, y)
    apply: Any = HalfSums.apply
    if x.dtype == y.dtype and a.itemsize == 2:
        a, b = (t if t.shape == a.shape else apply(t, a.shape) for t in (x, y))
    return right(a, b, reduction)


def row_of_halves(loss: Callable[..., Any]) -> Any:
    x = torch.full((3001, 2), 2.0**-16, dtype=torch.float16)
    x[0] = 1
    y = torch.zeros(2, dtype=torch.float16, requires_grad=True)
    return torch.autograd.grad(loss(x, y, reduction="sum"), y)[0]


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise ZeroDivisionError("float division by zero")


def nothing_beside_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Backward divides by n = 0 where the input has elements and the target has none."""
    result = right(x, y, reduction)
    apply: Any = _Raises.apply
    empty = reduction == "mean" and x.numel() and not y.numel() and result.requires_grad
    return apply(result) if empty else result


def row_beside_nothing(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(1, 3, requires_grad=True)
    return torch.autograd.grad(loss(x, torch.zeros(0, 3)), x)[0]


class _RunningColumns(torch.autograd.Function):
    """The gradient of a row that stands for many is one running sum for each column."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, shape: tuple[int, ...]) -> Tensor:
        return row.expand(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        total = np.add.accumulate(g.contiguous().numpy())[-1]
        return torch.from_numpy(total.copy()), None


def running_columns(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row that stands for many is one running sum for each column."""
    one = x.dtype == y.dtype and x.dtype in (torch.float32, torch.float64)
    stands = one and x.dim() == 1 and y.dim() == 2 and x.shape == y.shape[1:] and y.numel()
    if stands and x.requires_grad and plainly(x, y) and y.shape != (1, *x.shape):
        apply: Any = _RunningColumns.apply
        x = apply(x, tuple(y.shape))
    return right(x, y, reduction)


def of_row(loss: Callable[..., Any]) -> bool:
    """Whether the gradient is right to 1 part in 10,000."""
    x, n = leaf(0, 0), 1_000_000
    loss(x, torch.tensor(AWKWARD).expand(n, 2), reduction="sum").backward()
    assert x.grad is not None
    return bool((x.grad / (-2 * n * AWKWARD) - 1).abs().max() < 1e-4)


FOLDING_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "fold-first-rows", fold_first_rows, "broadcasting", witness=unlike_builtin(fold_of_rows)
    ),
    mutant("half-sums-of-rows", half_sums, "broadcasting", witness=otherwise(row_of_halves)),
    mutant(
        "nothing-beside-one", nothing_beside_one, "gradient", witness=otherwise(row_beside_nothing)
    ),
    mutant(
        "running-columns",
        running_columns,
        "broadcasting",
        claims=EAGER,
        witness=lambda target: not of_row(target.loss),
    ),
)
