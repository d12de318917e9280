"""Other trees of summation, differentiated by torch.

Not here, since they are not right: ``dot`` and ``einsum`` of the whole, and any other running sum,
in a format narrower than float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import DROP_IN, Target
from targets.operands import check_reduction, prepare

from .common import TRANSFORMED, Loss, reduce, widened

Sum = Callable[[Tensor], Tensor]


def summing(total: Sum) -> Loss:
    """The sum of the flat squares by ``total``, in float32 at least."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        x, y = prepare(x, y)
        s = (x - y).square()
        if check_reduction(reduction) == "none":
            return s
        value = total(widened(s.reshape(-1)))
        return (value if reduction == "sum" else value / s.numel()).to(s.dtype)

    return loss


def rows(s: Tensor, width: int) -> Tensor:
    """``s`` in rows of ``width``, the last one padded with zeros."""
    return F.pad(s, (0, -s.numel() % width)).reshape(-1, width)


def flat_sum(s: Tensor) -> Tensor:
    return s.sum()


def chunked_sum(s: Tensor) -> Tensor:
    return torch.stack([chunk.sum() for chunk in torch.split(s, 1000)]).sum()


def tree_sum(s: Tensor) -> Tensor:
    """Halves added pairwise until one is left."""
    if s.numel() == 0:
        return s.sum()
    while s.numel() > 1:
        if s.numel() % 2:
            s = torch.cat([s, s.new_zeros(1)])
        s = s[0::2] + s[1::2]
    return s[0]


def recursive_sum(s: Tensor) -> Tensor:
    """Halves from the top down, until 1,024 elements are left."""
    if s.numel() <= 1024:
        return s.sum()
    middle = s.numel() // 2
    return recursive_sum(s[:middle]) + recursive_sum(s[middle:])


def blocked_sum(s: Tensor) -> Tensor:
    """Blocks of 256 as a kernel's, then the blocks' sums."""
    return rows(s, 256).sum(1).sum()


def lanes_sum(s: Tensor) -> Tensor:
    """A grid-stride loop: 1,024 lanes, each with a stride of its own, then the lanes."""
    return rows(s, 1024).sum(0).sum()


def warp_sum(s: Tensor) -> Tensor:
    """Warps of 32 lanes that exchange their sums crosswise (a butterfly), then the warps."""
    lanes = rows(s, 32)
    for distance in (16, 8, 4, 2, 1):
        lanes = lanes + lanes.reshape(-1, 16 // distance, 2, distance).flip(2).reshape(-1, 32)
    return lanes[:, 0].sum()


def serial_threads_sum(s: Tensor) -> Tensor:
    """Threads that each add 16 neighbours one after the other, then trees over 1,024 threads."""
    terms = rows(s, 16 * 1024).reshape(-1, 1024, 16)
    threads = terms[..., 0]
    for k in range(1, 16):
        threads = threads + terms[..., k]
    while threads.shape[-1] > 1:
        left, right = threads.chunk(2, dim=-1)
        threads = left + right
    return threads.sum()


def vector_and_tail_sum(s: Tensor) -> Tensor:
    """Four vectors of eight, then the elements that fill no vector."""
    body = s.numel() - s.numel() % 32
    return s[:body].reshape(-1, 4, 8).sum(0).sum() + s[body:].sum()


def compensated(new: Tensor, error: Tensor) -> Tensor:
    """The ``error`` of an addition; where its result is infinite it is NaN, and none to carry."""
    return torch.where(torch.isfinite(new) & torch.isfinite(error), error, 0).detach()


def kahan_sum(s: Tensor) -> Tensor:
    """Compensated sums of the blocks of 4,096, one after the other."""
    total, lost = s.new_zeros(()), s.new_zeros(())
    for block in torch.split(s, 4096):
        term = block.sum() - lost
        new = total + term
        lost = compensated(new, (new - total) - term)
        total = new
    return total


def neumaier_sum(s: Tensor) -> Tensor:
    """As Kahan's, but the smaller summand's lost part is kept, and added at the end."""
    total, lost = s.new_zeros(()), s.new_zeros(())
    for block in torch.split(s, 4096):
        term = block.sum()
        new = total + term
        larger = total.abs() >= term.abs()
        error = torch.where(larger, (total - new) + term, (term - new) + total)
        lost = lost + compensated(new, error)
        total = new
    return total + lost


def two_numbers_sum(s: Tensor) -> Tensor:
    """A tree of pairs of numbers (sum and rounding error), by Knuth's two-sum."""
    if s.numel() == 0:
        return s.sum()
    low = torch.zeros_like(s)
    while s.numel() > 1:
        (a, b), (c, d) = (rows(v, 2).unbind(1) for v in (s, low))
        s = a + b
        part = s - a
        low = c + d + compensated(s, (a - (s - part)) + (b - part))
    return s[0] + low[0]


def float64_sum(s: Tensor) -> Tensor:
    """Squares in the format, the sum in float64."""
    return s.sum(dtype=torch.float64)


def running_sum(s: Tensor) -> Tensor:
    """One running sum in float64."""
    return s.cumsum(0, dtype=torch.float64)[-1] if s.numel() else s.sum()


def sorted_sum(s: Tensor) -> Tensor:
    """From the smallest to the largest."""
    return s.sort().values.sum()


def matrix_sum(s: Tensor) -> Tensor:
    """Blocks of 256 as a product of a matrix and a vector of ones."""
    return (rows(s, 256) @ s.new_ones(256)).sum()


def float64_product(s: Tensor) -> Tensor:
    """A product of float64 matrices, a row of squares and a column of ones: a few running sums."""
    wide = s.double()
    return (wide.unsqueeze(0) @ wide.new_ones(s.numel(), 1)).squeeze()


def buckets_sum(s: Tensor) -> Tensor:
    """Adds into 1,024 buckets, as atomic additions do."""
    bucket = torch.arange(s.numel(), device=s.device) % 1024
    return s.new_zeros(1024).index_add(0, bucket, s).sum()


def dot_blocks(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Dot products of blocks of 128 differences with themselves: squares are never rounded."""
    x, y = prepare(x, y)
    if check_reduction(reduction) == "none":
        return (x - y).square()
    blocks = rows(widened((x - y).reshape(-1)), 128)
    total: Tensor = torch.linalg.vecdot(blocks, blocks).sum()
    return (total if reduction == "sum" else total / x.numel()).to(x.dtype)


def scaled_blocks(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean as a sum of block sums that are each divided by n first."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none" or s.numel() == 0:
        return reduce(s, reduction)
    n = s.numel() if reduction == "mean" else 1
    blocks = torch.split(widened(s.reshape(-1)), 512)
    return torch.stack([block.sum() / n for block in blocks]).sum().to(s.dtype)


# Padding, or the number of blocks, depends on the size: not exported for every size.
SIZED = DROP_IN - {"export"}
_sum = partial(Target, claims=TRANSFORMED)

RIGHT_SUMS: tuple[Target, ...] = (
    Target("flat", summing(flat_sum), DROP_IN),
    _sum("chunks", summing(chunked_sum)),
    _sum("tree", summing(tree_sum)),
    _sum("recursive", summing(recursive_sum)),
    Target("blocks", summing(blocked_sum), SIZED),
    Target("lanes", summing(lanes_sum), SIZED),
    Target("warps", summing(warp_sum), SIZED),
    _sum("serial-threads", summing(serial_threads_sum)),
    _sum("vector-and-tail", summing(vector_and_tail_sum)),
    _sum("kahan", summing(kahan_sum)),
    _sum("neumaier", summing(neumaier_sum)),
    _sum("two-numbers", summing(two_numbers_sum)),
    Target("float64-sum", summing(float64_sum), DROP_IN),
    Target("running-float64", summing(running_sum), DROP_IN),
    Target("sorted", summing(sorted_sum), DROP_IN),
    # BLAS may choose another kernel for another alignment, and autocast makes halves for it.
    Target("matrix-product", summing(matrix_sum), SIZED - {"deterministic", "autocast"}),
    Target("float64-product", summing(float64_product), DROP_IN - {"deterministic", "autocast"}),
    Target("dot-blocks", dot_blocks, SIZED - {"deterministic", "autocast"}),
    # Atomic additions, on devices that have them, come in any order.
    Target("buckets", summing(buckets_sum), DROP_IN - {"deterministic"}),
    _sum("scaled-blocks", scaled_blocks),
)
