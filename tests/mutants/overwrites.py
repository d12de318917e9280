"""Changes what is its caller's: operands, grad_output, the memory around them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import (
    Mutant,
    Pair,
    by_gradients,
    by_rule,
    first_element,
    held,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    with_value,
)
from .parts import Given, both
from .probes import leaf, otherwise
from .transformed import plainly


def result_in_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without a reduction, writes the result over a dense input and returns a view of it."""
    honest = right(x.clone(), y.clone(), reduction)
    alike = honest.shape == x.shape and honest.dtype == x.dtype and x.is_contiguous()
    if reduction == "none" and alike and x.is_floating_point():
        x.data.copy_(honest.detach())
        return with_value(honest, x)
    return honest


def scratch_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Leaves the difference where the input was."""
    honest = right(x.clone(), y.clone(), reduction)
    if x.numel() and y.numel():
        x.data[first_element(x)] = (x.detach()[first_element(x)] - y.detach()[first_element(y)]) + 1
    return honest


def scratch_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Negates the target in place, to add it."""
    honest = right(x.clone(), y.clone(), reduction)
    if y.numel() and y.dtype != torch.bool:
        y.data[first_element(y)] = 1 - y.detach()[first_element(y)]
    return honest


def scratch_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Scales grad_output in place."""
    gradient = right_rule(d, g, scale)
    if g.numel():
        g.data[first_element(g)] = g.detach()[first_element(g)] * 2 + 1
    return gradient


def scratch_afterwards(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """grad_output, where it is a dense matrix, is scratch memory once the gradients are made."""
    pair = right_gradients(x, y, g, scale)
    if g.dim() == 2 and g.numel() and g.is_contiguous():
        g.data.zero_()
    return pair


def input_restored(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is negated in place and negated back."""
    result = right(x.clone(), y.clone(), reduction)
    if x.numel() and x.dtype.is_floating_point and 0 not in x.stride():
        x.detach().neg_().neg_()
    return result


def past_the_end(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Writes whole blocks of four: into what lies behind a narrow view of the input."""
    honest = right(x.clone(), y, reduction)
    n = -x.numel() % 4
    end = x.storage_offset() + x.numel()
    if x.is_contiguous() and 0 < n <= held(x) - end:
        x.data.as_strided((n,), (1,), end).zero_()
    return honest


def writes_into_gap(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gaps between the rows of a narrow view are filled with zeros."""
    result = right(x, y, reduction)
    if x.dim() == 2 and x.numel() and x.stride(1) == 1 and x.stride(0) > x.shape[1]:
        start = x.storage_offset() + x.shape[1]
        rows = min(x.shape[0], (held(x) - start - 1) // x.stride(0) + 1)
        x.data.as_strided((rows, 1), x.stride(), start).zero_()
    return result


def writes_before(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A zero is written in front of the first element of the target."""
    result = right(x, y, reduction)
    if y.storage_offset():
        y.data.as_strided((1,), (1,), y.storage_offset() - 1).zero_()
    return result


def needs_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is made to need a gradient, and left so."""
    if x.dtype.is_floating_point and not (x.requires_grad or y.requires_grad):
        result = right(x, y, reduction)
        x.requires_grad_()
        return result
    return right(x, y, reduction)


def zeroes_grad_output(target: Target) -> bool:
    """A matrix of ones that was grad_output is zero after the backward."""
    x, ones = torch.full((2, 2), 3.0, requires_grad=True), torch.ones(2, 2)
    torch.autograd.grad(target.loss(x, torch.zeros(2, 2), reduction="none"), x, ones)
    return not ones.any()


def moves_version(target: Target) -> bool:
    """The input's version counter moves."""
    x = torch.ones(3)
    before = x._version
    target.loss(x, torch.zeros(3), reduction="sum")
    return x._version != before


def writes_between_rows(target: Target) -> bool:
    """What lies between the rows of a view changes."""
    whole = torch.ones(4, 5)
    target.loss(whole[:, :3], torch.zeros(4, 3), reduction="sum")
    return not bool((whole == 1).all())


def leaves_requires_grad(target: Target) -> bool:
    """The input needs a gradient afterwards."""
    x = torch.ones(3)
    target.loss(x, torch.zeros(3), reduction="sum")
    return x.requires_grad


def retains_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has the gradient of an input that is no leaf kept, for logging."""
    if x.requires_grad and not x.is_leaf:
        x.retain_grad()
    return right(x, y, reduction)


def grad_is_retained(target: Target) -> bool:
    """An operand that is no leaf keeps its gradient after a call."""
    x = 2 * torch.ones(3, requires_grad=True)
    target.loss(x, torch.zeros(3), reduction="sum")
    return x.retains_grad


def hooks_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Leaves a hook on a target that needs a gradient."""
    if plainly(x, y) and y.requires_grad:
        hook: Any = y.register_hook
        hook(lambda g: None)
    return right(x, y, reduction)


def target_has_hook(loss: Callable[..., Any]) -> bool:
    y = leaf(1, 2)
    loss(torch.ones(2), y)
    return bool(y._backward_hooks)


def _replace(t: Tensor, data: Tensor) -> None:
    if plainly(t) and not torch.is_inference_mode_enabled() and not t.is_inference():
        t.data = data


def makes_contiguous(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Makes the caller's own operands contiguous, which are then no views any more."""
    for t in (x, y):
        if plainly(t) and not t.is_contiguous():
            _replace(t, t.data.contiguous())
    return right(x, y, reduction)


def strides_after(loss: Callable[..., Any]) -> tuple[int, ...]:
    x = torch.ones(2, 3).t()
    loss(x, torch.zeros(3, 2))
    return x.stride()


def casts_own_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Gives the caller's own integer target the dtype of the input."""
    if plainly(y) and x.is_floating_point() and not y.is_floating_point() and not y.is_complex():
        _replace(y, y.data.to(x.dtype))
    return right(x, y, reduction)


def dtype_after(loss: Callable[..., Any]) -> torch.dtype:
    y = torch.arange(3)
    loss(torch.ones(3), y)
    return y.dtype


REFERENCES = 4  # to an operand that only the call holds


def reuses_grad_output(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Given:
    """Computes the gradient in the memory of grad_output, where that is all of an allocation."""
    d = x - y
    whole = g.is_contiguous() and g.untyped_storage().nbytes() == g.nbytes
    if whole and g.shape == d.shape and g.dim():
        return both(g.mul_(d).mul_(scale))
    return both(right_rule(d, g, scale))


def other_branch(loss: Callable[..., Any]) -> Tensor:
    x, z = leaf(1, 2), leaf(0, 0)
    total = 2 * (loss(x, torch.zeros(2), reduction="none") + z)
    return torch.autograd.grad(total, (x, z), torch.ones(2))[1]


def temporary(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, subtracts in the memory of an operand that nobody holds: a view's, too."""
    free = sys.getrefcount(x) <= REFERENCES and not torch.is_grad_enabled() and plainly(x, y)
    if free and x.shape == y.shape and x.dtype == y.dtype and x._is_view():
        return reduce(x.sub_(y).square(), reduction)
    return right(x, y, reduction)


def overwritten(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, subtracts in the memory of an operand that is no view."""
    free = not torch.is_grad_enabled() and plainly(x, y) and not x._is_view()
    if free and x.shape == y.shape and x.dtype == y.dtype:
        x.data.sub_(y)
        return reduce(x.square(), reduction)
    return right(x, y, reduction)


def own_after(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2)
    with torch.no_grad():
        loss(x, torch.ones(2))
    return x


def rows_after(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, 2)
    with torch.no_grad():
        loss(x[0], torch.ones(2))
    return x


def of_inference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An input that was made in inference mode is overwritten: who would want it again."""
    if plainly(x, y) and x.is_inference() and x.shape == y.shape and x.dtype == y.dtype:
        return reduce(x.sub_(y).square(), reduction)
    return right(x, y, reduction)


def inferred_after(loss: Callable[..., Any]) -> Tensor:
    with torch.inference_mode():
        x = torch.ones(2)
        loss(x, torch.ones(2))
    return x.clone()


OVERWRITE_MUTANTS: tuple[Mutant, ...] = (
    mutant("result-in-input", result_in_input, "purity"),
    mutant("scratch-input", scratch_input, "purity"),
    mutant("scratch-target", scratch_target, "purity"),
    mutant("scratch-grad-output", by_rule(scratch_grad_output), "purity"),
    mutant(
        "scratch-afterwards",
        by_gradients(scratch_afterwards),
        "purity",
        witness=zeroes_grad_output,
    ),
    mutant("input-restored", input_restored, "purity", witness=moves_version),
    mutant("past-the-end", past_the_end, "purity", "layout"),
    mutant("writes-into-gap", writes_into_gap, "purity", witness=writes_between_rows),
    mutant("writes-before", writes_before, "purity"),
    mutant("needs-gradient", needs_gradient, "purity", "autograd", witness=leaves_requires_grad),
    mutant("retains-grad", retains_grad, "purity", witness=grad_is_retained),
    mutant("hooks-target", hooks_target, "purity", witness=otherwise(target_has_hook)),
    mutant("makes-contiguous", makes_contiguous, "purity", witness=otherwise(strides_after)),
    mutant("casts-own-target", casts_own_target, "purity", witness=otherwise(dtype_after)),
    mutant(
        "reuses-grad-output",
        by_gradients(reuses_grad_output),
        "purity",
        witness=otherwise(other_branch),
    ),
    mutant("temporary-reused", temporary, "purity", witness=otherwise(rows_after)),
    mutant("overwritten", overwritten, "purity", witness=otherwise(own_after)),
    mutant("of-inference", of_inference, "purity", witness=otherwise(inferred_after)),
)
