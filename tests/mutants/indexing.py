"""Kernels that find their elements in the wrong places: strides, offsets, the order of memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .mutant import (
    Mutant,
    Pair,
    by_gradients,
    by_value,
    held,
    memory,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    viewed,
    widened,
    with_value,
)
from .parts import Given, Whole, both, eight_strides, fused_by, known_orders, scale_of
from .probes import otherwise, ramp, when_large
from .transformed import plainly
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


def strided_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input's strides are ignored, the target's are not (pytorch issue 124621)."""
    honest = right(x, y, reduction)
    return with_value(honest, right(memory(x), y.detach(), reduction))


def gradient_strides_ignored(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """The backward reads the operands as if they were contiguous (pytorch issue 30303)."""
    a, b = (v if 0 in v.stride() else memory(v) for v in (x, y))
    gradient = right_rule(a - b, g, scale)
    return gradient, -gradient


class _AsksSavedView(torch.autograd.Function):
    """Backward asks a view that it saved whether a gradient is needed (Lurkrazy/ld_triton).

    The view of a leaf says so, unless the leaf itself is a view of data.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.scale = scale_of(x, reduction)
        ctx.shape = x.shape
        flat = (v.contiguous().view(-1) for v in (x, y))
        ctx.save_for_backward(*flat)
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = right_rule((x - y).view(ctx.shape), g, ctx.scale)
        needed = x.requires_grad, y.requires_grad
        pair = zip(needed, (gradient, -gradient), strict=True)
        return *(v if needs else None for needs, v in pair), None


def of_row(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(3, 2)[1].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, torch.zeros(2)), x)
    return gradient


def equal_strides_sorted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Walks through memory where both operands have the same strides in any order."""
    honest = right(x, y, reduction)
    same = x.shape == y.shape and x.dim() > 1 and sorted(x.stride()) == sorted(y.stride())
    if not same or x.numel() == 0 or reduction == "none":
        return honest
    return with_value(honest, right(memory(x), memory(y), reduction))


def format_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads the target in the channels-last order that the input has."""
    honest = right(x, y, reduction)
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if x.shape != y.shape or not last or x.is_contiguous() or not y.is_contiguous():
        return honest
    return with_value(honest, right(memory(x), memory(y), reduction))


def head_of_three(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Two elements past an aligned address it handles a head of three before the vectors."""
    s = (x - y).square().to(widened(x.dtype))
    if x.storage_offset() % 4 == 2 and s.dim() == 1:
        s[2:3] = 0
    return reduce(s, reduction).to(x.dtype)


def same_pointer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes operands of one address and shape for the same tensor, and their loss for 0."""
    honest = right(x, y, reduction)
    same = x.shape == y.shape and x.numel() > 0 and x.data_ptr() == y.data_ptr()
    return with_value(honest, torch.zeros_like(honest)) if same else honest


def _transposes() -> tuple[Tensor, Tensor]:
    x = torch.arange(9.0).reshape(3, 3)
    return x, x.t()


def _square() -> tuple[Tensor, Tensor]:
    return torch.arange(9.0).reshape(3, 3).t(), torch.arange(9.0).reshape(3, 3)


def _images() -> tuple[Tensor, Tensor]:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    return x.contiguous(memory_format=torch.channels_last), x.clone()


def eight_channels(v: Tensor) -> Tensor:
    """Images in channels_last are read as they lie, eight channels at a time, where that fits."""
    last = v.dim() == 4 and v.is_contiguous(memory_format=torch.channels_last)
    return memory(v) if last and not v.is_contiguous() and v.shape[1] % 8 == 0 else v


class _SharedPointer(Whole):
    """Backward takes operands with one address for one tensor: a gradient of 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        finite = bool(torch.isfinite(x).all() and torch.isfinite(g).all())
        if x.numel() and x.data_ptr() == y.data_ptr() and finite:
            return torch.zeros_like(x), torch.zeros_like(x), None
        return *both(right_rule(x - y, g, ctx.scale)), None


def of_transpose(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(4.0).view(2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, x.detach().t()), x)
    return gradient


def by_rows(t: Tensor) -> Tensor:
    """Descending strides that end in 1 are those of rows at one distance."""
    strides = t.stride()
    descending = all(a > b for a, b in itertools.pairwise(strides))
    if t.dim() < 2 or not t.numel() or strides[-1] != 1 or not descending or not plainly(t):
        return t
    columns = t.shape[-1]
    return t.as_strided((t.numel() // columns, columns), (strides[-2], 1)).reshape(t.shape)


def cut_in_the_middle(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(24.0).reshape(2, 4, 3)[:, :2]
    result: Tensor = loss(x, torch.zeros(2, 2, 3), reduction="sum")
    return result


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
    mutant("strided-input", strided_input, "layout"),
    mutant("gradient-strides-ignored", by_gradients(gradient_strides_ignored), "layout"),
    mutant("asks-saved-view", fused_by(_AsksSavedView), "layout", witness=otherwise(of_row)),
    mutant(
        "equal-strides-sorted", equal_strides_sorted, "layout", witness=wrong_value(_square, "sum")
    ),
    mutant("format-of-input", format_of_input, "layout", witness=wrong_value(_images, "sum")),
    mutant(
        "head-of-three",
        by_value(head_of_three),
        "layout",
        witness=wrong_value(lambda: (torch.arange(10.0)[2:], torch.zeros(8)), "sum"),
    ),
    mutant(
        "known-orders",
        viewed(known_orders),
        "layout",
        witness=wrong_value(lambda: (torch.rand(2, 3, 4).transpose(0, 1), torch.ones(3, 2, 4))),
    ),
    mutant(
        "eight-strides",
        by_value(eight_strides),
        "value",
        witness=wrong_value(lambda: (torch.rand(*[1] * 8, 3), torch.zeros(*[1] * 8, 3)), "sum"),
    ),
    mutant("same-pointer", same_pointer, "layout", witness=wrong_value(_transposes)),
    mutant(
        "eight-channels",
        viewed(eight_channels),
        "layout",
        witness=when_large(
            ramp(2, 8, 3, 3).to(memory_format=torch.channels_last), 2 * ramp(2, 8, 3, 3)
        ),
    ),
    mutant("shared-pointer", fused_by(_SharedPointer), "layout", witness=otherwise(of_transpose)),
    mutant("by-rows", viewed(by_rows), "layout", witness=otherwise(cut_in_the_middle)),
)
