"""Kernels that find their elements in the wrong places: strides, offsets, the order of memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .mutant import (
    Mutant,
    Pair,
    by_gradients,
    held,
    memory,
    mutant,
    right,
    right_gradients,
    viewed,
    with_value,
)
from .witnesses import against_zeros, wrong_value


def no_strides(x: Tensor) -> Tensor:
    """Reads numel elements in a row."""
    return memory(x)


def no_offset(x: Tensor) -> Tensor:
    """Reads from the start of the storage."""
    return x.as_strided(x.shape, x.stride(), 0)


def offset_aligned(x: Tensor) -> Tensor:
    """Reads from the aligned address below: the offset is rounded down to a multiple of 4."""
    return x.as_strided(x.shape, x.stride(), x.storage_offset() // 4 * 4)


def memory_order(x: Tensor) -> Tensor:
    """Reads in the order of memory, whatever the order of the dimensions is."""
    order = sorted(range(x.dim()), key=lambda i: x.stride(i), reverse=True)
    return x.permute(order).reshape(x.shape)


def inner_stride_one(x: Tensor) -> Tensor:
    """Takes the last dimension's stride for 1."""
    return x.as_strided(x.shape, (*x.stride()[:-1], 1)) if x.dim() and x.numel() else x


def outer_stride_dense(x: Tensor) -> Tensor:
    """Takes the rows of a matrix to lie without gaps."""
    if x.dim() != 2 or x.numel() == 0 or x.stride(0) <= x.stride(1) * x.shape[1]:
        return x
    return x.as_strided(x.shape, (x.stride(1) * x.shape[1], x.stride(1)))


def last_stride_for_all(x: Tensor) -> Tensor:
    """Collapses the dimensions into one, with the stride of the last: right for dense rows only."""
    if not x.dim() or x.numel() == 0:
        return x
    index = x.storage_offset() + x.stride(-1) * torch.arange(x.numel())
    return x.as_strided((held(x),), (1,), 0)[index % held(x)].reshape(x.shape)


def matrices_only(x: Tensor) -> Tensor:
    """Strides are honoured up to two dimensions; above, tensors are taken to be dense."""
    return memory(x) if x.dim() > 2 else x


def strides_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target is read with the input's strides."""
    honest = right(x, y, reduction)
    if x.shape != y.shape or x.numel() == 0:
        return honest
    last = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    if y.storage_offset() + last >= held(y):
        return honest
    return with_value(honest, right(x, y.as_strided(y.shape, x.stride()), reduction))


def n_of_storage(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean divides by the size of the input's storage."""
    loss = right(x, y, reduction)
    if reduction != "mean" or x.numel() == 0 or x.shape != y.shape:
        return loss
    return loss * (x.numel() / held(x))


def channels_last_output(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Writes none in the order of dimensions into an output that is laid out like the input."""
    loss = right(x, y, reduction)
    if reduction != "none" or x.shape != y.shape or x.is_contiguous():
        return loss
    like = torch.empty_like(x.detach())
    return loss.contiguous().as_strided(like.shape, like.stride(), 0)


def gradient_in_input_strides(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """The gradient is written with the input's strides, so that expanded elements meet in one."""
    first, second = right_gradients(x, y, g, scale)
    if 0 not in x.stride():
        return first, second
    for dim, step in enumerate(x.stride()):
        if step == 0 and x.numel():
            first = first.narrow(dim, x.shape[dim] - 1, 1).expand_as(first)
    return first.clone(), second


INDEXING_MUTANTS: tuple[Mutant, ...] = (
    mutant("no-strides", viewed(no_strides), "layout"),
    mutant("no-offset", viewed(no_offset), "layout"),
    mutant("offset-aligned", viewed(offset_aligned), "layout"),
    mutant("memory-order", viewed(memory_order), "layout"),
    mutant("inner-stride-one", viewed(inner_stride_one), "layout"),
    mutant(
        "outer-stride-dense",
        viewed(outer_stride_dense),
        "layout",
        witness=wrong_value(against_zeros(torch.arange(20.0).reshape(4, 5)[:, :3])),
    ),
    mutant("last-stride-for-all", viewed(last_stride_for_all), "layout"),
    mutant("matrices-only", viewed(matrices_only), "layout"),
    mutant("strides-of-input", strides_of_input, "layout"),
    mutant("n-of-storage", n_of_storage, "layout", "purity"),
    mutant("channels-last-output", channels_last_output, "layout"),
    mutant(
        "gradient-in-input-strides",
        by_gradients(gradient_in_input_strides),
        "layout",
        "broadcasting",
    ),
)
