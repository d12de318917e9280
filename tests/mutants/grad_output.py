"""Wrong for some grad_output: its numbers, and where they lie in memory."""

from __future__ import annotations

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
    memory,
    mutant,
    right_gradients,
    right_rule,
)
from .parts import GRID, known_orders
from .probes import gradient_of, leaf, line, otherwise, ramp, ramp_leaf, unlike_builtin
from .witnesses import against_zeros, wrong_gradient


def ignores_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes grad_output to be 1."""
    return right_rule(d, torch.ones_like(g), scale)


def first_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes the first element of grad_output for all."""
    return right_rule(d, g[first_element(g)] if g.numel() else g, scale)


def mean_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes the mean of grad_output for all."""
    return right_rule(d, g.double().mean().to(g.dtype), scale)


def dense_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads grad_output as if it were contiguous; an expanded one too."""
    return right_rule(d, memory(g), scale)


def grad_output_offset(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads grad_output from the start of its storage."""
    return right_rule(d, g.as_strided(g.shape, g.stride(), 0), scale)


def rows_of_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes grad_output to be constant along the last dimension."""
    return right_rule(d, g[..., :1] if g.dim() and g.numel() else g, scale)


def magnitude_of_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Loses the sign of grad_output."""
    return right_rule(d, g.abs(), scale)


def finite_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """NaN and infinities in grad_output are taken for 0."""
    return right_rule(d, g.nan_to_num(0.0, 0.0, 0.0), scale)


def skips_zero_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Where grad_output is 0 there is nothing to do: not so for an infinite d."""
    gradient = right_rule(d, g, scale)
    return torch.where(g == 0, torch.zeros_like(gradient), gradient)


def grad_output_float32(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """grad_output is passed to the kernel as float32, beside float64 too."""
    return right_rule(d, g.float(), scale)


def grad_output_nearly_one(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A grad_output within a thousandth of 1 needs no multiplication."""
    return right_rule(d, torch.where((g - 1).abs() < 1e-3, torch.ones_like(g), g), scale)


def constant_rows(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """Takes grad_output for one number where its last stride is 0."""
    if g.dim() > 1 and g.numel() and g.stride(-1) == 0:
        g = g.reshape(-1)[0].expand(g.shape)
    return right_gradients(x, y, g, scale)


def orders_of_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Knows grad_output in rows, columns and channels_last; others it reads as rows."""
    return right_rule(d, known_orders(g), scale)


def dense_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes grad_output to be contiguous where its rows are."""
    rows = g.dim() > 1 and g.numel() > 0 and g.stride(-1) == 1
    return right_rule(d, memory(g) if rows else g, scale)


def _weights() -> Tensor:
    return torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4)


def large_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads a large grad_output as if it were contiguous."""
    return right_rule(d, memory(g) if g.numel() > GRID else g, scale)


def large_transposed_cotangent(loss: Any) -> Tensor:
    x = ramp_leaf(300, 400)
    g = ramp(400, 300).t()
    return gradient_of(x, loss(x, torch.zeros(300, 400), reduction="none"), g)


def weight_of_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A grad_output that is expanded has one number for each row, a stride apart."""
    by_row = g.dim() > 1 and g.numel() and g.stride(-1) == 0 and g.shape[-1] > 1
    if by_row and (g.dim() == 2 or g.stride(-2) == 0):
        rows = g.as_strided((g.numel() // g.shape[-1], 1), (g.stride(-2), 0))
        g = rows.expand(-1, g.shape[-1]).reshape(g.shape)
    return right_rule(d, g, scale)


def by_weights(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, 1, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    result = loss(x, torch.zeros(2, 1, 2, 2), reduction="none")
    return torch.autograd.grad(result, x, weights)[0]


def is_total(d: Tensor, g: Tensor) -> bool:
    """Whether this is the grad_output of a sum or mean."""
    return g.dim() == 0 < d.dim()


def from_the_start(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is read where its memory starts, not where the number lies."""
    return right_rule(d, g.as_strided((), (), 0) if is_total(d, g) else g, scale)


def first_of_memory(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is a factor only if it is the first of its memory."""
    second = is_total(d, g) and g.storage_offset() > 0
    return right_rule(d, torch.ones_like(g) if second else g, scale)


def aligned(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is read at an address of whole vectors of 16."""
    if is_total(d, g):
        g = g.as_strided((), (), g.storage_offset() & -16)
    return right_rule(d, g, scale)


def windows_are_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Rows of grad_output that overlap are read as if they lay one after the other."""
    if g.dim() > 1 and g.stride() == (1,) * g.dim():
        flat = g.as_strided((held(g) - g.storage_offset(),), (1,))
        g = flat[torch.arange(g.numel()) % flat.numel()].reshape(g.shape)
    return right_rule(d, g, scale)


def stacked(loss: Callable[..., Any]) -> Tensor:
    """The gradient where the loss is the second of two in a weighted sum."""
    x, weights = leaf(3.0, 1.0), torch.tensor([2.0, 7.0])
    (torch.stack([x.sum() * 0, loss(x, torch.zeros(2))]) * weights).sum().backward()
    assert x.grad is not None
    return x.grad


def of_full(g: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def gradient(loss: Callable[..., Any]) -> Tensor:
        x = torch.arange(1.0, 13.0).reshape(4, 3).requires_grad_()
        result = loss(x, torch.zeros(4, 3), reduction="none")
        return torch.autograd.grad(result, x, g)[0]

    return gradient


_LINE = torch.arange(1.0, 7.0)


def twice(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Multiplies by grad_output twice."""
    return right_rule(d, g * g, scale)


def for_each(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads a 0-d grad_output as if it had an element for each; past its memory the last stands."""
    if g.dim() or not d.numel():
        return right_rule(d, g, scale)
    behind = g.as_strided((held(g) - g.storage_offset(),), (1,))
    index = torch.arange(d.numel()).clamp(max=len(behind) - 1)
    return right_rule(d, behind[index].reshape(d.shape), scale)


def wrong_in_a_stack(target: Target) -> bool:
    """Where the grad_output of a sum is one element of several."""
    x, y = torch.arange(3.0).requires_grad_(), torch.zeros(3)
    loss = target.loss(x, y, reduction="sum")
    (torch.stack([loss, x.sum() * 0]) * torch.tensor([1.0, 5.0])).sum().backward()
    return x.grad is not None and not torch.equal(x.grad, torch.tensor([0.0, 2.0, 4.0]))


GRAD_OUTPUT_MUTANTS: tuple[Mutant, ...] = (
    mutant("grad-output-twice", by_rule(twice), "grad_output"),
    mutant("grad-output-for-each", by_rule(for_each), "grad_output", witness=wrong_in_a_stack),
    mutant("ignores-grad-output", by_rule(ignores_grad_output), "grad_output", "gradient"),
    mutant("first-grad-output", by_rule(first_grad_output), "grad_output", "gradient"),
    mutant("mean-grad-output", by_rule(mean_grad_output), "grad_output", "gradient"),
    mutant("dense-grad-output", by_rule(dense_grad_output), "grad_output", "gradient"),
    mutant(
        "grad-output-offset",
        by_rule(grad_output_offset),
        "grad_output",
        witness=wrong_gradient(line, lambda: torch.arange(6.0)[3:]),
    ),
    mutant("grad-output-rows", by_rule(rows_of_grad_output), "grad_output", "gradient"),
    mutant("unsigned-grad-output", by_rule(magnitude_of_grad_output), "grad_output", "gradient"),
    mutant(
        "grad-output-finite",
        by_rule(finite_grad_output),
        "grad_output",
        witness=wrong_gradient(line, lambda: torch.tensor([torch.nan, 1, torch.inf])),
    ),
    mutant("skips-zeros", by_rule(skips_zero_grad_output), "grad_output", "gradient"),
    mutant(
        "grad-output-float32",
        by_rule(grad_output_float32),
        "grad_output",
        "gradient",
        witness=wrong_gradient(
            against_zeros(torch.ones(3).double()),
            lambda: torch.full((3,), 1.1, dtype=torch.float64),
            rtol=1e-12,
        ),
    ),
    mutant("grad-output-nearly-one", by_rule(grad_output_nearly_one), "grad_output"),
    mutant(
        "constant-rows",
        by_gradients(constant_rows),
        "grad_output",
        "broadcasting",
        witness=wrong_gradient(grad_output=_weights),
    ),
    mutant(
        "grad-output-orders",
        by_rule(orders_of_grad_output),
        "grad_output",
        witness=wrong_gradient(
            lambda: (torch.ones(3, 2, 4), torch.zeros(3, 2, 4)),
            lambda: torch.rand(2, 3, 4).transpose(0, 1),
        ),
    ),
    mutant(
        "grad-output-dense-rows",
        by_rule(dense_rows),
        "grad_output",
        witness=wrong_gradient(
            lambda: (torch.ones(3, 2), torch.zeros(3, 2)), lambda: torch.rand(3, 4)[:, :2]
        ),
    ),
    mutant(
        "large-grad-output",
        by_rule(large_grad_output),
        "grad_output",
        witness=unlike_builtin(large_transposed_cotangent),
    ),
    mutant("weight-of-rows", by_rule(weight_of_rows), "grad_output", witness=otherwise(by_weights)),
    mutant("from-the-start", by_rule(from_the_start), "grad_output", witness=otherwise(stacked)),
    mutant("first-of-memory", by_rule(first_of_memory), "grad_output", witness=otherwise(stacked)),
    mutant("aligned", by_rule(aligned), "grad_output", witness=otherwise(stacked)),
    mutant(
        "windows-are-rows",
        by_rule(windows_are_rows),
        "grad_output",
        witness=otherwise(of_full(_LINE.as_strided((4, 3), (1, 1)))),
    ),
)
