"""Kernels that lose elements or read memory wrongly."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.mutants.more.base import by_hand, right_loss, right_value, squares, sums, viewed
from tests.mutants.mutant import Loss, mutant

# --- lost and repeated elements


def lost_tail(width: int) -> Loss:
    def tail(s: Tensor) -> Tensor:
        return s.index_fill(0, torch.arange(s.numel() - s.numel() % width, s.numel()), 0)

    tail.__doc__ = f"The elements past the last multiple of {width} are lost."
    return squares(tail)


def lost_partial_block(s: Tensor) -> Tensor:
    """A partial block of 1,024 is lost, but only after a whole one."""
    whole = s.numel() - s.numel() % 1024
    return s.index_fill(0, torch.arange(whole, s.numel()), 0) if whole else s


def first_65536(s: Tensor) -> Tensor:
    """Only the first 65,536 elements count."""
    return s.index_fill(0, torch.arange(min(65536, s.numel()), s.numel()), 0)


def lost_first(s: Tensor) -> Tensor:
    """Starts at element 1."""
    return s.index_fill(0, torch.arange(min(1, s.numel())), 0)


def lost_lane(s: Tensor) -> Tensor:
    """Lane 13 of 16 is lost in whole vectors."""
    whole = s.numel() - s.numel() % 16
    return s.index_fill(0, torch.arange(13, whole, 16), 0) if whole else s


def extrapolated(s: Tensor) -> Tensor:
    """Sums the first 256 elements and extrapolates."""
    n = s.numel()
    return s.sum() if n <= 256 else s[:256].sum() * (n / 256)


def overlapping_tail(s: Tensor) -> Tensor:
    """The last block of 64 is moved back to end at n, and counts some elements twice."""
    n = s.numel()
    return s.sum() if n < 64 or n % 64 == 0 else s[: n - n % 64].sum() + s[n - 64 :].sum()


def mean_of_means(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of the means of blocks of 128, of which the last one is smaller."""
    if reduction != "mean" or x.numel() == 0:
        return right_value(x, y, reduction)
    s = (x - y).square().reshape(-1)
    return torch.stack([block.mean() for block in s.split(128)]).mean()


def refuses_empty(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A launch with an empty grid raises."""
    if x.numel() == 0 or y.numel() == 0:
        raise RuntimeError("invalid configuration argument")
    return right_loss(x, y, reduction)


# --- memory


def dense_strides(x: Tensor) -> tuple[int, ...]:
    """The strides of a contiguous tensor of the shape of ``x``."""
    return torch.empty(x.shape, device="meta").stride()


def strides_ignored(x: Tensor) -> Tensor:
    """Reads the storage as if the tensor were contiguous."""
    return x.as_strided(x.shape, dense_strides(x))


def offset_ignored(x: Tensor) -> Tensor:
    """Reads from the start of the storage."""
    return x.as_strided(x.shape, x.stride(), 0)


def offset_aligned(x: Tensor) -> Tensor:
    """Reads from the aligned address below: the offset is rounded down to a multiple of 4."""
    return x.as_strided(x.shape, x.stride(), x.storage_offset() // 4 * 4)


def memory_order(x: Tensor) -> Tensor:
    """Reads a dense transposed tensor in the order of memory."""
    dense = x.numel() == sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    return x.as_strided(x.shape, dense_strides(x)) if dense and x.numel() else x


def inner_stride_one(x: Tensor) -> Tensor:
    """Takes the last dimension's stride for 1."""
    return x.as_strided(x.shape, (*x.stride()[:-1], 1)) if x.dim() and x.numel() else x


def outer_stride_dense(x: Tensor) -> Tensor:
    """Takes the rows of a matrix to lie without gaps."""
    if x.dim() != 2 or not x.numel():
        return x
    return x.as_strided(x.shape, (x.stride(1) * x.shape[1], x.stride(1)))


def channels_last_output(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Writes none in the order of dimensions into an output that is laid out like the input."""
    loss = right_loss(x, y, reduction)
    if reduction != "none" or x.shape != y.shape or x.is_contiguous():
        return loss
    like = torch.empty_like(x.detach())
    return loss.contiguous().as_strided(like.shape, like.stride(), 0)


def read_past_end(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Sums whole vectors of 4, with what lies behind the tensor."""
    value = right_value(x, y, reduction)
    if reduction == "none" or x.numel() % 4 == 0:
        return value
    past = []
    for v in (x, y):
        behind = v.storage_offset() + v.numel()
        if not v.is_contiguous() or behind >= v.untyped_storage().nbytes() // v.element_size():
            return value
        past.append(v.as_strided((1,), (1,), behind))
    extra = (past[0] - past[1]).square().sum()
    return value + (extra if reduction == "sum" else extra / x.numel())


def gradient_strides_ignored(
    x: Tensor, y: Tensor, g: Tensor, n: int
) -> tuple[Tensor | None, Tensor | None]:
    """The backward reads the storage as if the operands were contiguous (pytorch 30303)."""
    seen = [v if 0 in v.stride() else strides_ignored(v) for v in (x, y)]
    gradient = 2 * (g / n) * (seen[0] - seen[1])
    return gradient, -gradient


# What is wrong in a plain case may show in others too.
EVERYWHERE = ("value", "broadcasting", "dtypes", "layout", "purity")
MUTANTS = (
    mutant("lost-tail-4", lost_tail(4), *EVERYWHERE),
    mutant("lost-tail-32", lost_tail(32), *EVERYWHERE),
    mutant("lost-partial-block", squares(lost_partial_block), *EVERYWHERE),
    mutant("first-65536", squares(first_65536), "value"),
    mutant("lost-first", squares(lost_first), *EVERYWHERE),
    mutant("lost-lane", squares(lost_lane), *EVERYWHERE),
    mutant("extrapolated", sums(extrapolated), "value"),
    mutant("overlapping-tail", sums(overlapping_tail), "value"),
    mutant("mean-of-means", by_hand(mean_of_means), "value"),
    mutant("refuses-empty", refuses_empty, "value"),
    mutant("strides-ignored", viewed(strides_ignored), "layout"),
    mutant("offset-ignored", viewed(offset_ignored), "layout"),
    mutant("offset-aligned", viewed(offset_aligned), "layout"),
    mutant("memory-order", viewed(memory_order), "layout"),
    mutant("inner-stride-one", viewed(inner_stride_one), "layout"),
    mutant("outer-stride-dense", viewed(outer_stride_dense), "layout"),
    mutant("channels-last-output", channels_last_output, "layout"),
    mutant("read-past-end", by_hand(read_past_end), "value", "purity"),
    mutant("gradient-strides-ignored", by_hand(gradient=gradient_strides_ignored), "layout"),
)
