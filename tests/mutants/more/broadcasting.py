"""Wrong broadcasting, of values and of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets.operands import prepare
from tests.mutants.more.base import reduce, right_loss, widened
from tests.mutants.mutant import Loss, mutant


def left_aligned(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes of different lengths are aligned on the left where that fits."""
    dims = max(x.dim(), y.dim())
    a, b = (v.reshape((*v.shape, *(1,) * (dims - v.dim()))) for v in (x, y))
    fits = all(p == q or 1 in (p, q) for p, q in zip(a.shape, b.shape, strict=True))
    return right_loss(a, b, reduction) if fits else right_loss(x, y, reduction)


def left_aligned_square(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A line is aligned with the rows of a square, where either fits."""
    if x.dim() == 2 and y.dim() == 1 and x.shape[0] == x.shape[1] == y.shape[0]:
        y = y.unsqueeze(1)
    return right_loss(x, y, reduction)


def flattened(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes that do not broadcast are compared flat where their sizes agree."""
    try:
        torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        if x.numel() != y.numel():
            raise
        return right_loss(x, y.reshape(x.shape), reduction)
    return right_loss(x, y, reduction)


def flattened_always(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes of one size are compared flat, also where they broadcast."""
    same = x.numel() == y.numel()
    return right_loss(x, y.reshape(x.shape) if same else y, reduction)


def cut(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The longer of two lines is cut to the shorter."""
    if x.dim() == y.dim() == 1 and 1 not in (len(x), len(y)):
        n = min(len(x), len(y))
        x, y = x[:n], y[:n]
    return right_loss(x, y, reduction)


def repeated(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A smaller target is repeated element after element to the input's size."""
    if 0 < y.numel() < x.numel() and x.numel() % y.numel() == 0:
        y = y.reshape(-1).repeat(x.numel() // y.numel()).reshape(x.shape)
    return right_loss(x, y, reduction)


def refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes of different lengths raise."""
    if x.dim() != y.dim():
        raise RuntimeError(f"{x.dim()} dimensions against {y.dim()}")
    return right_loss(x, y, reduction)


def refused_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sizes that differ raise where the target needs a gradient (pytorch 33787)."""
    if y.requires_grad and x.shape != y.shape:
        raise RuntimeError("the sizes differ")
    return right_loss(x, y, reduction)


def input_size(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean divides by the size of the input, not of the broadcast shape."""
    if reduction != "mean" or x.numel() == 0:
        return right_loss(x, y, reduction)
    a, b = prepare(x, y)
    total = (a - b).square().sum(dtype=widened(a.dtype))
    return (total / x.numel()).to(a.dtype)


def input_shape(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none keeps the input's shape: elements of the target beyond it are not looked at."""
    loss = right_loss(x, y, reduction)
    if reduction != "none" or loss.shape == x.shape or 0 in x.shape:
        return loss
    return loss.reshape(-1)[: x.numel()].reshape(x.shape)


Fold = Callable[[Tensor, torch.Size], Tensor]


def folding(fold: Fold) -> Loss:
    """A loss that broadcasts inside, with ``fold`` to bring a gradient to its operand's shape."""

    class Folding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
            ctx.save_for_backward(x, y)
            ctx.mean = reduction == "mean"
            a, b = prepare(x, y)
            return reduce((a - b).square(), reduction)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
            x, y = ctx.saved_tensors
            wide = widened(torch.promote_types(x.dtype, y.dtype))
            d = x.to(wide) - y.to(wide)
            gradient = (2 / (max(d.numel(), 1) if ctx.mean else 1)) * d * g.to(wide)
            first, second, _ = ctx.needs_input_grad
            return (
                fold(gradient, x.shape).to(x.dtype) if first else None,
                -fold(gradient, y.shape).to(y.dtype) if second else None,
                None,
            )

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result: Tensor = Folding.apply(x, y, reduction)
        return result

    loss.__doc__ = fold.__doc__
    return loss


def mean_fold(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Gradients are averaged over the broadcast dimensions."""
    count = math.prod(gradient.shape) / max(math.prod(shape), 1)
    return gradient.sum_to_size(shape) / max(count, 1)


def first_fold(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Only the first slice of the broadcast dimensions counts."""
    if gradient.numel() == 0:
        return gradient.sum_to_size(shape)
    dims = gradient.dim() - len(shape)
    gradient = gradient[(0,) * dims]
    for k, size in enumerate(shape):
        gradient = gradient.narrow(k, 0, size)
    return gradient.clone()


def leading_fold(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Dimensions that were missing are summed; of those of size 1 the last slice counts."""
    dims = gradient.dim() - len(shape)
    gradient = gradient.sum(tuple(range(dims))) if dims else gradient
    if gradient.numel() == 0:
        return gradient.sum_to_size(shape)
    for k, size in enumerate(shape):
        gradient = gradient.narrow(k, gradient.shape[k] - size, size)
    return gradient.clone()


MUTANTS = (
    mutant("left-aligned", left_aligned, "broadcasting"),
    mutant("left-aligned-square", left_aligned_square, "broadcasting"),
    mutant("flattened", flattened, "broadcasting"),
    mutant("flattened-always", flattened_always, "broadcasting"),
    mutant("cut", cut, "broadcasting"),
    mutant("repeated", repeated, "broadcasting"),
    mutant("ranks-refused", refused, "broadcasting"),
    mutant("refused-with-gradient", refused_with_gradient, "broadcasting"),
    mutant("input-size", input_size, "broadcasting"),
    mutant("input-shape", input_shape, "broadcasting"),
    mutant("fold-mean", folding(mean_fold), "broadcasting"),
    mutant("fold-first", folding(first_fold), "broadcasting"),
    mutant("fold-leading", folding(leading_fold), "broadcasting"),
)
