"""Wrong from a size on: what is past one grid, or where threads and vectors share the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import (
    Loss,
    Mutant,
    by_gradients,
    by_rule,
    by_squares,
    by_sum,
    by_value,
    mutant,
    reduce,
    right_rule,
    widened,
)
from .parts import GRID, MANY, Given, both, head, without
from .probes import otherwise, ramp, when_large
from .witnesses import wrong_value


def grid_rows(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One block for each row of a matrix, and no more than 65,535 blocks."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() == 2:
        s[65_535:] = 0
    return reduce(s, reduction).to(x.dtype)


def row_in_one_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A row is one block, and a block has no more than 32,768 elements."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() == 2:
        s[:, 32_768:] = 0
    return reduce(s, reduction).to(x.dtype)


def sum_in_blocks(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A sum has 4096 blocks of 1024 elements at most; a mean goes through another kernel."""
    s = (x - y).square().to(widened(x.dtype)).contiguous()
    if reduction == "sum":
        s.view(-1)[2**22 :] = 0
    return reduce(s, reduction).to(x.dtype)


def _last(rows: int, columns: int) -> Any:
    """Made when called: so large a tensor would start torch's threads while this is imported."""

    def make() -> tuple[Tensor, Tensor]:
        x = torch.zeros(rows, columns)
        x[-1, -1] = 1
        return x, torch.zeros_like(x)

    return make


def past_grid(odd: Callable[[Tensor, Tensor], bool], doc: str) -> Loss:
    """A kernel for ``odd`` operands that one launch must reach the whole of."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y)
        s = (a - b).square()
        return reduce(head(s, GRID) if odd(x, y) else s, reduction)

    loss.__doc__ = doc
    return loss


def rounds_of_one_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One block makes at most 48 rounds of 1,024; only far larger operands have more blocks."""
    kept = torch.ones(x.numel())
    if x.numel() <= 58_112:  # what shared memory holds
        kept[48 * 1024 :] = 0
    return without(kept.reshape(x.shape), x, y, reduction)


def two_rows_a_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Rows of a multiple of 256 elements go two to a block: an odd last one is lost."""
    kept = torch.ones(x.shape)
    if x.dim() > 1 and x.numel() and x.shape[-1] % 256 == 0:
        rows = kept.reshape(-1, x.shape[-1])
        rows[len(rows) // 2 * 2 :] = 0
    return without(kept, x, y, reduction)


def half_in_vectors(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Given:
    """Of many halves with an expanded grad_output the last few, less than a vector, get none."""
    gradient = right_rule(x - y, g, scale)
    n = gradient.numel()
    if x.itemsize == 2 and g.dim() and not g.is_contiguous() and n > 4096:
        gradient.view(-1)[n - n % 8 :] = 0
    return both(gradient)


def last_of_many(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(4099, dtype=torch.bfloat16, requires_grad=True)
    return torch.autograd.grad(loss(x, torch.zeros_like(x), reduction="none").sum(), x)[0][-1]


BLOCKED = 8192  # elements, from which a loss for many takes another path
SHARED = 32_768  # from which torch shares the work out among threads


def compensated(s: Tensor) -> Tensor:
    """Many squares are added up in 64 compensated rows, which make NaN of an infinity."""
    if s.numel() < BLOCKED or s.numel() % 64:
        return s.sum()
    total, lost = s.new_zeros(64), s.new_zeros(64)
    for block in s.view(-1, 64).flip(0).unbind():
        term = block - lost
        new = total + term
        total, lost = new, (new - total) - term
    return total.sum()


def flushed_when_shared(s: Tensor) -> Tensor:
    """Threads that share the work flush subnormal squares to zero."""
    tiny = torch.finfo(s.dtype).smallest_normal
    return torch.where(s < tiny, torch.zeros_like(s), s) if s.numel() >= SHARED else s


def gradient_flushed(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Threads that share the work flush subnormal gradients of float32 to zero."""
    gradient = right_rule(d, g, scale)
    if d.dtype != torch.float32 or d.numel() < SHARED:
        return gradient
    tiny = torch.finfo(d.dtype).smallest_normal
    return torch.where(gradient.abs() < tiny, torch.zeros_like(gradient), gradient)


def gradient_of_many(loss: Callable[..., Any]) -> Tensor:
    x = torch.full((SHARED,), 2.0**-129, requires_grad=True)
    result = loss(x, torch.zeros(SHARED), reduction="sum")
    return torch.autograd.grad(result, x)[0].max()


def one_of_many(x: float, n: int) -> Callable[[Callable[..., Any]], Tensor]:
    def result(loss: Callable[..., Any]) -> Tensor:
        values = torch.zeros(n)
        values[n // 2] = x
        found: Tensor = loss(values, torch.zeros(n), reduction="none" if x < 1 else "sum")
        return found.max()

    return result


def compensated_when_many(s: Tensor) -> Tensor:
    """Many squares are added up in 64 compensated rows, which make NaN of an infinity."""
    if len(s) < MANY:
        return s.sum()
    whole = len(s) // 64 * 64
    return compensated(s[:whole]) + s[whole:].sum()


def zeros_skipped(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Of many elements, those whose grad_output is 0 get a gradient of 0, infinite ones too."""
    gradient = right_rule(d, g, scale)
    if d.numel() < 8192 or not g.dim():
        return gradient
    return torch.where(g == 0, torch.zeros_like(gradient), gradient)


def masked(loss: Callable[..., Any]) -> Tensor:
    x = torch.full((8192,), torch.inf, requires_grad=True)
    result = loss(x, torch.zeros(8192), reduction="none")
    return torch.autograd.grad(result, x, torch.zeros(8192))[0][0]


BLOCK_MUTANTS: tuple[Mutant, ...] = (
    mutant("grid-rows", by_value(grid_rows), "value", witness=wrong_value(_last(65_536, 1), "sum")),
    mutant(
        "row-in-one-block",
        by_value(row_in_one_block),
        "value",
        witness=wrong_value(_last(1, 32_769), "sum"),
    ),
    mutant(
        "sum-in-blocks",
        by_value(sum_in_blocks),
        "value",
        witness=wrong_value(_last(2**11 + 1, 2**11), "sum"),
    ),
    mutant(
        "large-strided",
        past_grid(
            lambda x, y: not (x.is_contiguous() and y.is_contiguous()),
            "Of operands that are not contiguous it reaches one grid.",
        ),
        "layout",
        witness=when_large(ramp(300, 400).t(), torch.zeros(400, 300)),
    ),
    mutant(
        "large-mixed",
        past_grid(lambda x, y: x.dtype != y.dtype, "Of two dtypes it reaches one grid."),
        "dtypes",
        witness=when_large(ramp(100_000), torch.zeros(100_000).bfloat16()),
    ),
    mutant(
        "large-broadcast",
        past_grid(lambda x, y: x.shape != y.shape, "Of two shapes it reaches one grid."),
        "broadcasting",
        witness=when_large(ramp(2000, 64), torch.zeros(64)),
    ),
    mutant(
        "rounds-of-one-block",
        by_value(rounds_of_one_block),
        "value",
        witness=wrong_value(lambda: (torch.ones(50_000), torch.zeros(50_000)), "sum"),
    ),
    mutant(
        "two-rows-a-block",
        by_value(two_rows_a_block),
        "value",
        witness=wrong_value(lambda: (torch.ones(3, 768), torch.zeros(3, 768)), "sum"),
    ),
    mutant(
        "halves-in-vectors",
        by_gradients(half_in_vectors),
        "gradient",
        witness=otherwise(last_of_many),
    ),
    mutant(
        "compensated-rows",
        by_sum(compensated),
        "value",
        witness=otherwise(one_of_many(torch.inf, 2 * BLOCKED)),
    ),
    mutant(
        "flushed-when-shared",
        by_squares(flushed_when_shared),
        "value",
        witness=otherwise(one_of_many(2.0**-65, SHARED)),
    ),
    mutant(
        "gradient-flushed-when-shared",
        by_rule(gradient_flushed),
        "gradient",
        witness=otherwise(gradient_of_many),
    ),
    mutant(
        "compensated-when-many",
        by_sum(compensated_when_many),
        "value",
        witness=otherwise(one_of_many(torch.inf, MANY)),
    ),
    mutant("zeros-skipped", by_rule(zeros_skipped), "gradient", witness=otherwise(masked)),
)
