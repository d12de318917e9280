"""Hand-made backwards that are wrong; the value is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from targets.operands import check_reduction, prepare

from .mutant import (
    Mutant,
    by_rule,
    first_element,
    memory,
    mutant,
    reduce,
    right_rule,
)


def ignores_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes grad_output to be 1."""
    return right_rule(d, torch.ones_like(g), scale)


def first_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes the first element of grad_output for all."""
    return right_rule(d, g[first_element(g)] if g.numel() else g, scale)


def dense_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads grad_output as if it were contiguous; an expanded one too."""
    return right_rule(d, memory(g), scale)


def magnitude_of_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Loses the sign of grad_output."""
    return right_rule(d, g.abs(), scale)


def no_factor_two(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The derivative of d² as d."""
    return right_rule(d, g, scale / 2)


def unscaled(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """No 1/n in the gradient of the mean."""
    return right_rule(d, g, 2.0)


def zeros(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A gradient of zeros."""
    return torch.zeros_like(d)


def wrong_sign(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The target's gradient has the input's sign."""
    return -right_rule(d, g, scale)


def coarse(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The gradient is computed in bfloat16."""
    return right_rule(d.bfloat16(), g.bfloat16(), scale).to(d.dtype)


def masks_nan(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A NaN in the gradient becomes 0."""
    return right_rule(d, g, scale).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def clamps_inf(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """An infinite gradient becomes the largest number."""
    gradient = right_rule(d, g, scale)
    return gradient.nan_to_num(nan=torch.nan)


def clips(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Gradient clipping left in."""
    return right_rule(d, g, scale).clamp(-1, 1)


def skips_zero_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Where grad_output is 0 there is nothing to do: not so for an infinite d."""
    gradient = right_rule(d, g, scale)
    return torch.where(g == 0, torch.zeros_like(gradient), gradient)


class _Broadcasting(torch.autograd.Function):
    """Broadcasts inside; ``defect`` says what its backward gets wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, defect: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.mean, ctx.defect = reduction == "mean", defect
        a, b = prepare(x, y)
        return reduce((a - b).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        a, b = prepare(x, y)
        n = x.numel() if ctx.defect == "n" else a.numel()
        whole = right_rule(a - b, g, 2 / max(n, 1) if ctx.mean else 2.0)

        def back(gradient: Tensor, operand: Tensor) -> Tensor:
            if ctx.defect == "mean" and operand.shape != gradient.shape:
                missing = gradient.numel() / max(operand.numel(), 1)
                gradient = gradient / max(missing, 1)
            elif ctx.defect == "first" and operand.numel() < gradient.numel():
                return gradient.reshape(-1)[: operand.numel()].reshape(operand.shape).to(operand)
            return gradient.sum_to_size(operand.shape).to(operand.dtype)

        first, second, _, _ = ctx.needs_input_grad
        return back(whole, x) if first else None, -back(whole, y) if second else None, None, None


def _broadcasting(x: Tensor, y: Tensor, reduction: str, defect: str) -> Tensor:
    apply: Any = _Broadcasting.apply
    result: Tensor = apply(x, y, check_reduction(reduction), defect)
    return result


def n_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """1/n in the gradient is taken from the input's own size."""
    return _broadcasting(x, y, reduction, "n")


def averages_back(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a broadcast operand is averaged, not summed."""
    return _broadcasting(x, y, reduction, "mean")


def no_sum_back(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a broadcast operand is cut to its size, not summed."""
    return _broadcasting(x, y, reduction, "first")


def target_detached(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target gets no gradient at all."""
    a, b = prepare(x, y.detach())
    return reduce((a - b).square(), reduction)


def input_needed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The sum for the mean, where only the target requires a gradient."""
    a, b = prepare(x, y)
    s = (a - b).square()
    only_target = y.requires_grad and not x.requires_grad
    return s.sum() if reduction == "mean" and only_target else reduce(s, reduction)


FUNCTION_MUTANTS: tuple[Mutant, ...] = (
    mutant("ignores-grad-output", by_rule(ignores_grad_output), "grad_output", "gradient"),
    mutant("first-grad-output", by_rule(first_grad_output), "grad_output", "gradient"),
    mutant("dense-grad-output", by_rule(dense_grad_output), "grad_output", "gradient"),
    mutant("unsigned-grad-output", by_rule(magnitude_of_grad_output), "grad_output", "gradient"),
    mutant("skips-zeros", by_rule(skips_zero_grad_output), "grad_output", "gradient"),
    mutant("no-factor-two", by_rule(no_factor_two), "gradient"),
    mutant("unscaled-gradient", by_rule(unscaled), "gradient", reductions=("mean",)),
    mutant("target-zeros", by_rule(right_rule, zeros), "gradient"),
    mutant("target-sign", by_rule(right_rule, wrong_sign), "gradient"),
    mutant("target-detached", target_detached, "gradient"),
    mutant("input-needed", input_needed, "gradient", "value"),
    mutant("coarse-gradient", by_rule(coarse), "gradient"),
    mutant("masks-nan", by_rule(masks_nan), "gradient"),
    mutant("clamps-inf", by_rule(clamps_inf), "gradient"),
    mutant("clips", by_rule(clips), "gradient"),
    mutant("n-of-input", n_of_input, "broadcasting", "gradient"),
    mutant("averages-back", averages_back, "broadcasting", "gradient"),
    mutant("no-sum-back", no_sum_back, "broadcasting", "gradient"),
)
