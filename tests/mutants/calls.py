"""What only the way of calling shows: the default, and the attributes of the operands."""

from __future__ import annotations

import torch
from torch import Tensor

from targets import Target

from .mutant import Mutant, mutant, reduce, right


def default_sum(x: Tensor, y: Tensor, reduction: str = "sum") -> Tensor:
    """Without a reduction named, the sum."""
    return right(x, y, reduction)


def default_none(x: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
    """Without a reduction named, no reduction."""
    return right(x, y, reduction)


def _own_grad(t: Tensor) -> bool:
    return t.is_leaf and t.is_floating_point() and not t.is_inference()


def prepares_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Gives each operand a .grad of zeros, for backward to add to."""
    result = right(x, y, reduction)
    for t in (x, y):
        if _own_grad(t) and t.grad is None:
            t.grad = torch.zeros_like(t)
    return result


def replaces_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Replaces .grad by a dense copy, where an optimizer has a view of a flat buffer."""
    result = right(x, y, reduction)
    for t in (x, y):
        if _own_grad(t) and t.grad is not None:
            t.grad = t.grad.clone(memory_format=torch.contiguous_format)
    return result


def target_requires_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Makes the target require a gradient, for a rule that computes both."""
    result = right(x, y, reduction)
    if result.requires_grad and _own_grad(y):
        y.requires_grad_()
    return result


def other_default(target: Target) -> bool:
    """Without a reduction, the result is not that of the mean."""
    x, y = torch.rand(3), torch.rand(3)
    got = target.loss(x, y)
    return got.shape != () or not torch.isclose(got, (x - y).square().mean())


def attributes_change(target: Target) -> bool:
    """A call changes an operand's .grad or requires_grad."""
    x, y = torch.rand(4, requires_grad=True), torch.rand(4)
    x.grad = kept = torch.ones(4)
    result = reduce(target.loss(x, y, reduction="none"), "sum")
    unchanged = x.grad is kept and x.requires_grad and y.grad is None and not y.requires_grad
    return result.requires_grad and not unchanged


CALL_MUTANTS: tuple[Mutant, ...] = (
    mutant("default-sum", default_sum, "value", witness=other_default),
    mutant("default-none", default_none, "value", witness=other_default),
    mutant("prepares-grad", prepares_grad, "purity", witness=attributes_change),
    mutant("replaces-grad", replaces_grad, "purity", witness=attributes_change),
    mutant("target-requires-grad", target_requires_grad, "purity", witness=attributes_change),
)
