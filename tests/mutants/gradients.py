"""Wrong gradients: their formula, range and tail, and which operands get one."""

from __future__ import annotations

import torch
from torch import Tensor

from targets import Target

from .mutant import (
    Gradients,
    Mutant,
    Pair,
    by_gradients,
    by_rule,
    mutant,
    right,
    right_gradients,
    right_rule,
)
from .probes import line
from .witnesses import against_zeros, wrong_gradient


def no_factor_two(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The derivative of d² as d."""
    return right_rule(d, g, scale / 2)


def without_scale(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """(x − y)·grad_output: the factor 2/n is left out."""
    return right_rule(d, g, 1.0)


def unscaled(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """No 1/n in the gradient of the mean."""
    return right_rule(d, g, 2.0)


def divided_always(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Sum and none are divided by n too."""
    return right_rule(d, g, 2 / max(d.numel(), 1))


def slightly_more(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A relative error of 10⁻⁴."""
    return right_rule(d, g, scale * 1.0001)


def coarse(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The gradient is computed in bfloat16."""
    return right_rule(d.bfloat16(), g.bfloat16(), scale).to(d.dtype)


def expanded(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """2x·g/n − 2y·g/n, which cancels."""
    first = right_rule(x, g, scale) - right_rule(y, g, scale)
    return first, -first


def differences(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A finite difference, with a step of a thousandth."""
    step = 1e-3
    return ((d + step).square() - d.square()) / step * (scale / 2) * g


def from_loss(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """2·loss/d, which overflows, underflows and divides by 0."""
    return scale * g * (d.square() / d)


def flushed(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Subnormal gradients are flushed to 0."""
    gradient = right_rule(d, g, scale)
    return gradient.masked_fill(gradient.abs() < torch.finfo(d.dtype).tiny, 0)


def tail(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The gradient past the last whole vector of 32 is 0, after a whole one."""
    flat, n = right_rule(d, g, scale).reshape(-1), d.numel()
    if n > 32:
        flat = flat.index_fill(0, torch.arange(n - n % 32, n), 0)
    return flat.reshape(d.shape)


def lost_row(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The last row's gradient is left out, as padding."""
    gradient = right_rule(d, g, scale)
    if gradient.dim() > 1 and gradient.shape[0] > 1:
        gradient[-1] = 0
    return gradient


def masks_nan(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A NaN in the gradient becomes 0."""
    return right_rule(d, g, scale).nan_to_num(0.0, torch.inf, -torch.inf)


def clamps_inf(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """An infinite gradient becomes the largest number."""
    return right_rule(d, g, scale).nan_to_num(nan=torch.nan)


def clips(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Gradient clipping left in."""
    return right_rule(d, g, scale).clamp(-1, 1)


def negative_lost(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Where d is negative there is no gradient."""
    return right_rule(d.masked_fill(d < 0, 0), g, scale)


def skips_at_overflow(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """No gradient where the sum of squares overflows, as loss scaling skips such a step."""
    return torch.where(d.square().sum().isinf(), 0, right_rule(d, g, scale))


def zero_at_overflow(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Where the square overflows there is no gradient."""
    gradient = right_rule(d, g, scale)
    return gradient.masked_fill(d.square().isinf(), 0)


def wrong_sign(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The target's gradient has the input's sign."""
    return -right_rule(d, g, scale)


def target_detached(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target gets no gradient at all."""
    return right(x, y.detach(), reduction)


def swapped(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """Each operand gets the other's gradient."""
    first, second = right_gradients(x, y, g, scale)
    return second, first


def doubled(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """The input's gradient is twice what it should be."""
    first, second = right_gradients(x, y, g, scale)
    return 2 * first, second


def lost(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """There are no gradients."""
    return None, None


def _where(needs: tuple[bool, bool], wrong: Gradients, x: Tensor, y: Tensor, red: str) -> Tensor:
    """``wrong`` where exactly these operands need a gradient, else the right ones."""
    is_so = (x.requires_grad, y.requires_grad) == needs
    return by_gradients(wrong if is_so else right_gradients)(x, y, red)


def both_needed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input's gradient is doubled where the target needs one too."""
    return _where((True, True), doubled, x, y, reduction)


def target_alone(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target's gradient is the input's where the input needs none."""
    return _where((False, True), swapped, x, y, reduction)


def target_alone_floating(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target's gradient is the input's where the input could have one and needs none."""
    if not x.is_floating_point():
        return right(x, y, reduction)
    return target_alone(x, y, reduction)


def same_detached(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A tensor against itself has no graph: its loss is 0 anyway."""
    result = right(x, y, reduction)
    return result.detach() if x is y else result


def target_beside_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target's gradient is only made beside the input's."""
    return _where((False, True), lost, x, y, reduction)


def negated_in_place(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """The target's gradient is the input's, negated in place: they share their memory."""
    first, _ = right_gradients(x, y, g, scale)
    return first, first.neg_()


def no_graph_for_itself(target: Target) -> bool:
    """The loss of a tensor that needs a gradient against itself needs none."""
    x = torch.ones(3, requires_grad=True)
    return not target.loss(x, x, reduction="sum").requires_grad


def detached(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is cut off from its operands."""
    return right(x, y, reduction).detach()


def always_needs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result always needs a gradient."""
    result = right(x, y, reduction)
    return result if result.requires_grad else result.requires_grad_()


def scalar_raises(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The backward of a 0-d loss of 0-d operands raises."""
    if d.dim() == 0:
        raise RuntimeError("expected at least one dimension")
    return right_rule(d, g, scale)


def empty_raises(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The backward of a mean of nothing divides by zero."""
    if d.numel() == 0:
        raise RuntimeError("integer division by zero")
    return right_rule(d, g, scale)


def needs_unasked(target: Target) -> bool:
    """The result needs a gradient that nobody asked for."""
    return bool(target.loss(*line(), reduction="mean").requires_grad)


def zero_target(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The target's gradient is zeros (pytorch pull 3876)."""
    return torch.zeros_like(d)


GRADIENT_MUTANTS: tuple[Mutant, ...] = (
    mutant("no-factor-two", by_rule(no_factor_two), "gradient"),
    mutant("gradient-without-scale", by_rule(without_scale), "gradient", reductions=("mean",)),
    mutant("unscaled-gradient", by_rule(unscaled), "gradient", reductions=("mean",)),
    mutant("gradient-divided-always", by_rule(divided_always), "gradient"),
    mutant("gradient-slightly-more", by_rule(slightly_more), "gradient"),
    mutant("coarse-gradient", by_rule(coarse), "gradient"),
    mutant("gradient-expanded", by_gradients(expanded), "gradient"),
    mutant("gradient-differences", by_rule(differences), "gradient"),
    mutant("gradient-from-loss", by_rule(from_loss), "gradient"),
    mutant(
        "gradient-flushed",
        by_rule(flushed),
        "gradient",
        witness=wrong_gradient(against_zeros(torch.full((3,), 1e-39)), rtol=1e-4),
    ),
    mutant("gradient-lost-tail", by_rule(tail), "gradient"),
    mutant("gradient-lost-row", by_rule(lost_row), "gradient"),
    mutant("masks-nan", by_rule(masks_nan), "gradient"),
    mutant("clamps-inf", by_rule(clamps_inf), "gradient"),
    mutant("clips", by_rule(clips), "gradient"),
    mutant("gradient-negative-lost", by_rule(negative_lost), "gradient"),
    mutant("skips-at-overflow", by_rule(skips_at_overflow), "gradient"),
    mutant("gradient-zero-at-overflow", by_rule(zero_at_overflow), "gradient"),
    mutant("target-sign", by_rule(right_rule, wrong_sign), "gradient"),
    mutant("target-detached", target_detached, "gradient"),
    mutant("both-needed", both_needed, "gradient"),
    mutant("target-alone", target_alone, "gradient", witness=wrong_gradient(needs=(False, True))),
    mutant(
        "target-alone-floating",
        target_alone_floating,
        "gradient",
        witness=wrong_gradient(needs=(False, True)),
    ),
    mutant("same-detached", same_detached, "gradient", witness=no_graph_for_itself),
    mutant(
        "target-beside-input",
        target_beside_input,
        "gradient",
        witness=wrong_gradient(needs=(False, True)),
    ),
    mutant("negated-in-place", by_gradients(negated_in_place), "gradient"),
    mutant("detached", detached, "gradient"),
    mutant("always-needs", always_needs, "gradient", witness=needs_unasked),
    mutant(
        "scalar-backward-raises",
        by_rule(scalar_raises),
        "gradient",
        witness=wrong_gradient(lambda: (torch.tensor(3.0), torch.tensor(1.0))),
    ),
    mutant("empty-backward-raises", by_rule(empty_raises), "gradient"),
    mutant("target-zeros", by_rule(right_rule, zero_target), "gradient"),
)
