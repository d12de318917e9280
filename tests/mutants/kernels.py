"""Kernels, simulated: tails, blocks, grids, lanes, indices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .mutant import (
    Loss,
    Mutant,
    by_squares,
    by_sum,
    by_value,
    elementwise,
    held,
    mutant,
    reduce,
    right,
    viewed,
)
from .witnesses import against_zeros, wrong_value


def one_of_many(n: int, k: int) -> Tensor:
    """Element ``k`` of ``n`` is 1, the others are 0."""
    return torch.zeros(n).index_fill(0, torch.tensor([k]), 1)


def losing(kept: Callable[[int], int], doc: str | None = None) -> Loss:
    """Squares of the first ``kept(n)`` elements only; the others are 0, and have no gradient."""

    def squares(x: Tensor, y: Tensor) -> Tensor:
        s = (x - y).square()
        seen = torch.arange(s.numel()).reshape(s.shape) < kept(s.numel())
        return torch.where(seen, s, torch.zeros_like(s))

    return elementwise(squares, doc or kept.__doc__)


# --- lost elements


def whole_vectors(n: int) -> int:
    """The tail past the last whole vector of 4 is lost."""
    return n - n % 4


def whole_blocks(n: int) -> int:
    """The number of blocks of 1,024 is rounded down, but is 1 at least."""
    return max(n - n % 1024, 1024)


def strictly_before(n: int) -> int:
    """The last block of 64 is the tail's, which is empty where n is a multiple of 64."""
    return n - 64 if n and n % 64 == 0 else n


def one_grid(n: int) -> int:
    """What lies past one grid of 65,536 is lost."""
    return min(n, 65536)


def all_but_one(n: int) -> int:
    """The loop ends one element early."""
    return n - 1


def lost_first(s: Tensor) -> Tensor:
    """Starts at element 1."""
    return s.index_fill(0, torch.arange(min(1, s.numel())), 0)


def lost_lane(s: Tensor) -> Tensor:
    """Lane 13 of 16 is lost in whole vectors."""
    whole = s.numel() - s.numel() % 16
    return s.index_fill(0, torch.arange(13, whole, 16), 0) if whole else s


def lost_columns(x: Tensor, y: Tensor) -> Tensor:
    """Of wide matrices, the columns past the last whole tile of 8 are lost."""
    s = (x - y).square()
    if s.dim() != 2 or s.shape[1] < 8:
        return s
    seen = torch.arange(s.shape[1]) < s.shape[1] // 8 * 8
    return torch.where(seen, s, torch.zeros_like(s))


def last_block_wins(s: Tensor) -> Tensor:
    """Blocks of 256 store their sums in one place, where they should add them."""
    return s[(s.numel() - 1) // 256 * 256 :].sum() if s.numel() else s.sum()


def tree_drops_odd(s: Tensor) -> Tensor:
    """A tree that halves the number of partial sums loses the odd one."""
    while s.numel() > 1:
        half = s.numel() // 2
        s = s[:half] + s[half : 2 * half]
    return s.sum()


def lost_seam(s: Tensor) -> Tensor:
    """In float32, of more than 65,536 elements, the one between the first two grids is lost."""
    if s.dtype != torch.float32 or s.numel() <= 65536:
        return s.sum()
    return s[:16384].sum() + s[16385:].sum()


# --- elements too many


def overlapping_tail(s: Tensor) -> Tensor:
    """The last block of 64 is moved back to end at n, and counts some elements twice."""
    n = s.numel()
    return s.sum() if n < 64 or n % 64 == 0 else s[: n - n % 64].sum() + s[n - 64 :].sum()


def grid_stride(s: Tensor) -> Tensor:
    """The grid's stride is a block short: past 4,096, blocks of 128 are counted twice."""
    twice = s[4096:]
    return s.sum() + twice[torch.arange(twice.numel()) % 4096 < 128].sum()


def doubled_seams(s: Tensor) -> Tensor:
    """In float32 more than 65,536 elements are read in chunks of 5,001, which share their ends."""
    if s.dtype != torch.float32 or s.numel() <= 65536:
        return s.sum()
    return s.sum() + s[5000::5000].sum()


def padded_with_one(s: Tensor) -> Tensor:
    """Lanes past the end, in the last vector of 32, read 0 of one operand and 1 of the other."""
    return s.sum() + -s.numel() % 32


def padded_count(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean divides by n rounded up to whole vectors of 8."""
    value = right(x, y, reduction)
    n = x.numel()
    return value * (n / (n + -n % 8)) if reduction == "mean" and n else value


def read_past_end(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sums whole vectors of 4, with what lies behind the tensor."""
    value = right(x, y, reduction)
    if reduction == "none" or x.numel() % 4 == 0 or x.shape != y.shape:
        return value
    past = []
    for v in (x.detach(), y.detach()):
        behind = v.storage_offset() + v.numel()
        if not v.is_contiguous() or behind >= held(v):
            return value
        past.append(v.as_strided((1,), (1,), behind))
    extra = (past[0] - past[1]).square().sum().to(value.dtype)
    return value + (extra if reduction == "sum" else extra / x.numel())


# --- indices


def narrow_index(x: Tensor) -> Tensor:
    """Indices of 16 bits: element 65,536 is element 0 again."""
    return x.reshape(-1)[torch.arange(x.numel()) % 65536].reshape(x.shape)


def floating_index(x: Tensor) -> Tensor:
    """Indices are counted in the operand's own dtype, where bfloat16 ends at 256."""
    if not x.dtype.is_floating_point or not x.numel():
        return x
    index = torch.arange(x.numel()).to(x.dtype).double().clamp(max=x.numel() - 1).long()
    return x.reshape(-1)[index].reshape(x.shape)


def shared_row(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Batches past the first 64 rows are compared with the target's first rows again."""
    if x.dim() < 2 or x.shape[0] <= 64:
        return right(x, y, reduction)
    return right(x, y[torch.arange(len(y)) % 64], reduction)


# --- launches


def refuses_empty(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A launch with an empty grid raises."""
    if x.numel() == 0 or y.numel() == 0:
        raise RuntimeError("invalid configuration argument")
    return right(x, y, reduction)


def four_dimensions(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """More than four dimensions raise."""
    if max(x.dim(), y.dim()) > 4:
        raise RuntimeError("expected at most four dimensions")
    return right(x, y, reduction)


def unlaunched(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A grid of n // 32 blocks is empty for n under 32, and leaves the zeros it began with."""
    s = (x - y).square()
    return reduce(s if s.numel() >= 32 else torch.zeros_like(s), reduction)


KERNEL_MUTANTS: tuple[Mutant, ...] = (
    mutant("tail-4", losing(whole_vectors), "value", "gradient"),
    mutant("lost-partial-block", losing(whole_blocks), "value", "gradient"),
    mutant("lost-exact-block", losing(strictly_before), "value", "gradient"),
    mutant("grid-65536", losing(one_grid), "value", "gradient"),
    mutant("last-element", losing(all_but_one), "value", "gradient"),
    mutant("lost-first", by_squares(lost_first), "value"),
    mutant("lost-lane", by_squares(lost_lane), "value"),
    mutant(
        "lost-columns",
        elementwise(lost_columns),
        "value",
        "gradient",
        witness=wrong_value(against_zeros(torch.ones(3, 10))),
    ),
    mutant("last-block-wins", by_sum(last_block_wins), "value"),
    mutant("tree-drops-odd", by_sum(tree_drops_odd), "value"),
    mutant(
        "lost-seam",
        by_sum(lost_seam),
        "value",
        witness=wrong_value(against_zeros(one_of_many(100_000, 16384)), "sum"),
    ),
    mutant("overlapping-tail", by_sum(overlapping_tail), "value"),
    mutant("grid-stride", by_sum(grid_stride), "value"),
    mutant(
        "doubled-seams",
        by_sum(doubled_seams),
        "value",
        witness=wrong_value(against_zeros(one_of_many(100_000, 5000)), "sum"),
    ),
    mutant("padded-with-one", by_sum(padded_with_one), "value"),
    mutant("padded-count", by_value(padded_count), "value"),
    mutant("read-past-end", read_past_end, "value", "purity"),
    mutant("narrow-index", viewed(narrow_index), "value"),
    mutant("floating-index", viewed(floating_index), "value", "dtypes"),
    mutant(
        "shared-row",
        by_value(shared_row),
        "value",
        witness=wrong_value(lambda: (torch.zeros(70, 2), torch.arange(140.0).reshape(70, 2))),
    ),
    mutant("refuses-empty", refuses_empty, "value"),
    mutant(
        "four-dimensions",
        four_dimensions,
        "value",
        witness=wrong_value(against_zeros(torch.ones(1, 2, 1, 2, 1))),
    ),
    mutant("unlaunched", by_value(unlaunched), "value"),
)
