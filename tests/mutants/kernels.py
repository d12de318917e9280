"""Kernels, simulated: elements lost, strides ignored, writes past the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import Loss, Mutant, elementwise, memory, mutant, reduce, right, with_value


def _losing(kept: Callable[[int], int], doc: str) -> Loss:
    """Squares of the first ``kept(n)`` elements only; the others are 0, and have no gradient."""

    def squares(x: Tensor, y: Tensor) -> Tensor:
        s = (x - y).square()
        seen = torch.arange(s.numel()).reshape(s.shape) < kept(s.numel())
        return torch.where(seen, s, torch.zeros_like(s))

    return elementwise(squares, doc)


def _reading(read: Callable[[Tensor], Tensor], doc: str) -> Loss:
    """Operands of one shape as ``read`` finds them; the gradient is right."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        if x.shape != y.shape:
            return honest
        a, b = prepare(read(x), read(y))
        return with_value(honest, reduce((a - b).square(), reduction))

    loss.__doc__ = doc
    return loss


def _transposed(x: Tensor) -> Tensor:
    order = sorted(range(x.dim()), key=lambda i: x.stride()[i], reverse=True)
    return x.detach().permute(order).reshape(x.shape)


def past_the_end(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Writes whole blocks of four: into what lies behind a narrow view of the input."""
    honest = right(x.clone(), y, reduction)
    n = -x.numel() % 4
    end = x.storage_offset() + x.numel()
    room = x.untyped_storage().nbytes() // x.itemsize - end
    if x.is_contiguous() and 0 < n <= room:
        x.data.as_strided((n,), (1,), end).zero_()
    return honest


def same_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads the target's memory in the input's dtype."""
    honest = right(x, y, reduction)
    if x.dtype == y.dtype or x.shape != y.shape or x.numel() == 0 or x.is_complex():
        return honest
    raw = y.detach().contiguous().reshape(-1).view(torch.uint8)
    need = x.numel() * x.itemsize
    raw = raw.repeat(-(-need // raw.numel()))[:need]
    if not x.dtype.is_floating_point:
        return honest
    a, b = prepare(x.detach(), raw.view(x.dtype).reshape(x.shape))
    return with_value(honest, reduce((a - b).square(), reduction).to(honest.dtype))


def nan_in_tail(x: Tensor, y: Tensor) -> Tensor:
    """The scalar tail past whole vectors of 16 takes a NaN for 0."""
    s = (x - y).square()
    tail = torch.arange(s.numel()).reshape(s.shape) >= s.numel() - s.numel() % 16
    return torch.where(tail & s.isnan(), torch.zeros_like(s), s)


def _whole(block: int) -> Callable[[int], int]:
    return lambda n: n - n % block if n > block else n


KERNEL_MUTANTS: tuple[Mutant, ...] = (
    mutant("tail-4", _losing(_whole(4), "Loses the tail past vectors of 4."), "value", "gradient"),
    mutant("tail-32", _losing(_whole(32), "Loses the tail past warps."), "value", "gradient"),
    mutant("tail-1024", _losing(_whole(1024), "Loses the tail past blocks."), "value", "gradient"),
    mutant(
        "grid-65536",
        _losing(lambda n: min(n, 65536), "Loses what lies past one grid of 65,536."),
        "value",
        "gradient",
    ),
    mutant(
        "last-element",
        _losing(lambda n: n - 1 if n > 1 else n, "Loses the last element."),
        "value",
        "gradient",
    ),
    mutant("block-16", _losing(lambda n: min(n, 16), "One block of 16 only."), "value", "gradient"),
    mutant("no-strides", _reading(memory, "Reads numel elements in a row."), "layout"),
    mutant(
        "no-offset",
        _reading(
            lambda x: memory(x, 0) if x.is_contiguous() else x.detach(), "Ignores the offset."
        ),
        "layout",
    ),
    mutant("memory-order", _reading(_transposed, "Reads in the order of memory."), "layout"),
    mutant("past-the-end", past_the_end, "purity", "layout"),
    mutant("same-dtype", same_dtype, "dtypes"),
    mutant("nan-in-tail", elementwise(nan_in_tail), "value"),
)
