"""Wrong backwards under a right forward."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.mutants.more.base import Gradient, by_hand, right_gradient, right_loss
from tests.mutants.mutant import Mutant, mutant

Pair = tuple[Tensor | None, Tensor | None]

# --- grad_output


def ignored(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """grad_output is taken for 1."""
    return right_gradient(x, y, torch.ones_like(g), n)


def first_of_grad_output(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The first element of grad_output scales every gradient."""
    return right_gradient(x, y, g.reshape(-1)[0] if g.numel() else g, n)


def grad_output_storage(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """grad_output is read as if it were contiguous, as far as its storage goes."""
    held = g.untyped_storage().nbytes() // g.element_size() - g.storage_offset()
    if g.is_contiguous() or held < g.numel():
        return right_gradient(x, y, g, n)
    return right_gradient(x, y, g.as_strided((g.numel(),), (1,)).reshape(g.shape), n)


def grad_output_offset(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """grad_output is read from the start of its storage."""
    return right_gradient(x, y, g.as_strided(g.shape, g.stride(), 0), n)


def grad_output_magnitude(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The sign of grad_output is lost."""
    return right_gradient(x, y, g.abs(), n)


def zero_shortcut(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """Where grad_output is 0 the gradient is 0, also for infinite differences."""
    first, second = right_gradient(x, y, g, n)
    nothing = (g == 0).expand(first.shape)
    return first.masked_fill(nothing, 0), second.masked_fill(nothing, 0)


def finite_grad_output(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """NaN and infinities in grad_output are taken for 0."""
    return right_gradient(x, y, g.nan_to_num(0.0, 0.0, 0.0), n)


# --- the target's gradient


def no_target(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The target has no gradient."""
    return right_gradient(x, y, g, n)[0], None


def zero_target(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The target's gradient is zeros (pytorch 11149)."""
    return right_gradient(x, y, g, n)[0], torch.zeros_like(y)


def same_sign(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The target's gradient has the sign of the input's."""
    first, _ = right_gradient(x, y, g, n)
    return first, first


# --- factors


def one_for_two(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The factor 2 is forgotten."""
    return right_gradient(x, y, g / 2, n)


def not_divided(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The 1/n of the mean is forgotten."""
    return right_gradient(x, y, g, 1)


def divided_always(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """Sum and none are divided by n too."""
    return right_gradient(x, y, g, max(x.numel(), 1))


def slightly_more(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """A relative error of 10⁻⁴."""
    first, _ = right_gradient(x, y, g, n)
    more = first * 1.0001
    return more, -more


# --- values


def through_bfloat16(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The gradient is rounded to bfloat16."""
    first, _ = right_gradient(x, y, g, n)
    rounded = first.bfloat16().to(x.dtype)
    return rounded, -rounded


def clipped(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The gradient is clipped to ±1."""
    first, _ = right_gradient(x, y, g, n)
    limited = first.clamp(-1, 1)
    return limited, -limited


def flushed(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """Subnormal gradients are flushed to 0."""
    first, _ = right_gradient(x, y, g, n)
    rest = first.masked_fill(first.abs() < torch.finfo(first.dtype).tiny, 0)
    return rest, -rest


def masked(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """NaN gradients become 0."""
    first, second = right_gradient(x, y, g, n)
    return first.masked_fill(first.isnan(), 0), second.masked_fill(second.isnan(), 0)


def lost_tail(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The gradient past the last multiple of 32 is 0, after a whole block."""
    first, _ = right_gradient(x, y, g, n)
    flat, size = first.reshape(-1), first.numel()
    if size > 32:
        flat = flat.index_fill(0, torch.arange(size - size % 32, size), 0)
    return flat.reshape(x.shape), -flat.reshape(x.shape)


def large_is_zero(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """Beyond 4,096 elements the gradient of a mean is below an absolute tolerance, and 0."""
    return right_gradient(x, y, g if n <= 4096 else torch.zeros_like(g), n)


def square_first(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The gradient is 2·loss/d, so it overflows, underflows and divides by 0."""
    d = x - y
    gradient = 2 * (g / n) * (d.square() / d)
    return gradient, -gradient


# --- what else needs a gradient


def both_needed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input's gradient is doubled where the target needs one too."""
    twice: Gradient = lambda x, y, g, n: (  # noqa: E731
        2 * right_gradient(x, y, g, n)[0],
        right_gradient(x, y, g, n)[1],
    )
    return by_hand(gradient=twice if y.requires_grad else right_gradient)(x, y, reduction)


def swapped(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """Each operand gets the other's gradient."""
    first, second = right_gradient(x, y, g, n)
    return second, first


def target_alone(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target's gradient is the input's where the input needs none."""
    alone = y.requires_grad and not x.requires_grad
    return by_hand(gradient=swapped if alone else right_gradient)(x, y, reduction)


def detached(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is cut off from its operands."""
    return right_loss(x, y, reduction).detach()


def always_needs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result always needs a gradient."""
    result = right_loss(x, y, reduction)
    return result if result.requires_grad else result.requires_grad_()


def backward_raises(x: Tensor, y: Tensor, g: Tensor, n: int) -> Pair:
    """The backward of a 0-d loss of 0-d operands raises."""
    if x.dim() == 0:
        raise RuntimeError("expected at least one dimension")
    return right_gradient(x, y, g, n)


def _made(name: str, gradient: Gradient, *families: str) -> Mutant:
    return mutant(name, by_hand(gradient=gradient), *families)


# What is wrong in a plain case may show in others too.
EVERYWHERE = ("gradient", "grad_output", "broadcasting", "dtypes", "layout")
MUTANTS = (
    _made("grad-output-ignored", ignored, *EVERYWHERE),
    _made("grad-output-first", first_of_grad_output, *EVERYWHERE),
    _made("grad-output-storage", grad_output_storage, "grad_output"),
    _made("grad-output-offset", grad_output_offset, "grad_output"),
    _made("grad-output-magnitude", grad_output_magnitude, *EVERYWHERE),
    _made("grad-output-zero-shortcut", zero_shortcut, "gradient", "grad_output"),
    _made("grad-output-finite", finite_grad_output, "grad_output"),
    _made("no-target-gradient", no_target, "gradient"),
    _made("zero-target-gradient", zero_target, *EVERYWHERE),
    _made("target-gradient-sign", same_sign, *EVERYWHERE),
    _made("one-for-two", one_for_two, *EVERYWHERE),
    _made("gradient-not-divided", not_divided, *EVERYWHERE),
    _made("gradient-divided-always", divided_always, *EVERYWHERE),
    _made("gradient-slightly-more", slightly_more, *EVERYWHERE),
    _made("gradient-bfloat16", through_bfloat16, *EVERYWHERE),
    _made("gradient-clipped", clipped, *EVERYWHERE),
    _made("gradient-flushed", flushed, *EVERYWHERE),
    _made("gradient-nan-masked", masked, "gradient", "grad_output"),
    _made("gradient-lost-tail", lost_tail, *EVERYWHERE),
    _made("gradient-large-is-zero", large_is_zero, "gradient"),
    _made("gradient-from-loss", square_first, *EVERYWHERE),
    _made("scalar-backward-raises", backward_raises, "gradient"),
    mutant("both-needed", both_needed, *EVERYWHERE),
    mutant("target-alone", target_alone, *EVERYWHERE),
    mutant("detached", detached, "gradient", "purity"),
    mutant("always-needs", always_needs, "gradient"),
)
