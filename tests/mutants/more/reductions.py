"""Wrong reductions: another factor, divisor, extent or shape."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.operands import prepare
from tests.mutants.more.base import reduce, right_loss
from tests.mutants.mutant import mutant


def half_factor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """½(x − y)², as other frameworks define it."""
    return right_loss(x, y, reduction) / 2


def bessel(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by n − 1, as a variance."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if reduction != "mean" or s.numel() < 2:
        return reduce(s, reduction)
    n = s.numel()
    return s.mean() * (n / (n - 1))


def batch_divisor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by the first dimension only."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if reduction != "mean" or s.dim() < 2:
        return reduce(s, reduction)
    return s.flatten(1).sum(1).mean()


def unreduced_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over the first dimension leaves the others."""
    x, y = prepare(x, y)
    s = (x - y).square()
    return s.mean(0) if reduction == "mean" and s.dim() else reduce(s, reduction)


def sum_for_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum."""
    return right_loss(x, y, "sum" if reduction == "mean" else reduction)


def mean_for_sum(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The sum is the mean."""
    return right_loss(x, y, "mean" if reduction == "sum" else reduction)


def always_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The reduction is ignored."""
    return right_loss(x, y, "mean")


def none_divided(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The elements of none are divided by n, so that they add up to the mean."""
    loss = right_loss(x, y, reduction)
    return loss / max(loss.numel(), 1) if reduction == "none" else loss


def none_flat(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is flat."""
    loss = right_loss(x, y, reduction)
    return loss.reshape(-1) if reduction == "none" else loss


def empty_is_zero(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of nothing is 0."""
    empty = 0 in torch.broadcast_shapes(x.shape, y.shape)
    return right_loss(x, y, "sum" if empty and reduction == "mean" else reduction)


def one_element(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sum and mean have shape (1,)."""
    loss = right_loss(x, y, reduction)
    return loss if reduction == "none" else loss.reshape(1)


def scalars_grow(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none of 0-d operands has shape (1,)."""
    loss = right_loss(x, y, reduction)
    return torch.atleast_1d(loss) if reduction == "none" else loss


def needing_target_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where the target needs a gradient (pytorch 10009)."""
    return right_loss(x, y, "sum" if reduction == "mean" and y.requires_grad else reduction)


def only_target_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where only the target needs a gradient."""
    alone = y.requires_grad and not x.requires_grad
    return right_loss(x, y, "sum" if reduction == "mean" and alone else reduction)


def needing_reduces_none(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is the mean where nothing needs a gradient."""
    needed = x.requires_grad or y.requires_grad
    return right_loss(x, y, reduction if needed else "mean")


# What is wrong everywhere may show anywhere: a case that is simpler by one feature has other
# elements, of which the loss may happen to be right.
PLAIN = ("value", "gradient", "broadcasting", "dtypes", "layout", "purity")
MUTANTS = (
    mutant("half-factor", half_factor, *PLAIN),
    mutant("bessel", bessel, *PLAIN),
    mutant("batch-divisor", batch_divisor, "value", "gradient"),
    mutant("unreduced-mean", unreduced_mean, "value"),
    mutant("sum-for-mean", sum_for_mean, *PLAIN),
    mutant("mean-for-sum", mean_for_sum, *PLAIN),
    mutant("always-mean", always_mean, *PLAIN),
    mutant("none-divided", none_divided, *PLAIN),
    mutant("none-flat", none_flat, "value", "broadcasting"),
    mutant("empty-is-zero", empty_is_zero, "value"),
    mutant("one-element", one_element, "value", "purity"),
    mutant("scalars-grow", scalars_grow, "value"),
    mutant("needing-target-sums", needing_target_sums, *PLAIN),
    mutant("only-target-sums", only_target_sums, *PLAIN),
    mutant("needing-reduces-none", needing_reduces_none, "value", "purity"),
)
