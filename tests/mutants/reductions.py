"""Wrong reductions: another factor, divisor, extent or shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import prepare
from targets.target import REDUCTIONS

from .mutant import Mutant, by_value, mutant, reduce, right, widened, with_value
from .probes import otherwise
from .witnesses import against_zeros, wrong_value


def _squares(x: Tensor, y: Tensor) -> Tensor:
    a, b = prepare(x, y)
    return (a - b).square()


def half_factor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A stray factor ½, as other frameworks define it."""
    return right(x, y, reduction) / 2


def unbiased(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by n − 1, as a variance."""
    s = _squares(x, y)
    n = s.numel()
    return s.mean() * (n / (n - 1)) if reduction == "mean" and n > 1 else reduce(s, reduction)


def batch_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides by the batch size only."""
    s = _squares(x, y)
    if reduction != "mean" or s.dim() < 2:
        return reduce(s, reduction)
    return s.flatten(1).sum(1).mean()


def unreduced_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over the first dimension leaves the others."""
    s = _squares(x, y)
    return s.mean(0) if reduction == "mean" and s.dim() else reduce(s, reduction)


def sum_for_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Forgets to divide."""
    return right(x, y, "sum" if reduction == "mean" else reduction)


def mean_for_sum(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Knows no sum."""
    return right(x, y, "mean" if reduction == "sum" else reduction)


def none_reduced(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes none to be the mean."""
    return right(x, y, "mean" if reduction == "none" else reduction)


def none_divided(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The elements of none are divided by n, so that they add up to the mean."""
    loss = right(x, y, reduction)
    return loss / max(loss.numel(), 1) if reduction == "none" else loss


def none_flat(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is flat."""
    loss = right(x, y, reduction)
    return loss.reshape(-1) if reduction == "none" else loss


def none_squeezed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none loses its dimensions of size 1."""
    loss = right(x, y, reduction)
    return loss.squeeze() if reduction == "none" else loss


def scalars_grow(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none of 0-d operands has shape (1,)."""
    loss = right(x, y, reduction)
    return loss.reshape(1) if reduction == "none" and loss.dim() == 0 else loss


def one_element(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sum and mean have shape (1,)."""
    loss = right(x, y, reduction)
    return loss if reduction == "none" else loss.reshape(1)


def python_number(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where nothing needs a gradient, sum and mean are Python floats."""
    loss = right(x, y, reduction)
    number: Tensor = loss if reduction == "none" or loss.requires_grad else loss.item()  # type: ignore[assignment]
    return number


def number_of_scalars(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of two scalars that need no gradient is a Python float."""
    loss = right(x, y, reduction)
    number: Tensor = loss.item() if x.dim() == y.dim() == 0 and not loss.requires_grad else loss  # type: ignore[assignment]
    return number


def empty_is_zero(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of nothing is 0, by a guard against division by zero."""
    s = _squares(x, y)
    return s.sum() if s.numel() == 0 and reduction == "mean" else reduce(s, reduction)


def epsilon_in_divisor(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Divides by n + 10⁻⁶, so as never to divide by 0."""
    s = (x - y).square()
    if reduction != "mean":
        return reduce(s, reduction)
    return (s.sum(dtype=widened(s.dtype)) / (s.numel() + 1e-6)).to(s.dtype)


def mean_of_means(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of the means of blocks of 128, of which the last one is smaller."""
    s = (x - y).square()
    if reduction != "mean" or s.numel() == 0:
        return reduce(s, reduction)
    return torch.stack([block.mean() for block in torch.split(s.reshape(-1), 128)]).mean()


def root(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the root of the mean square."""
    loss = right(x, y, reduction)
    return loss.sqrt() if reduction == "mean" else loss


def sum_of_roots(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The sum of a batch adds up the rows' Euclidean distances, not squared."""
    s = _squares(x, y)
    if reduction != "sum" or s.dim() < 2:
        return reduce(s, reduction)
    return s.flatten(1).sum(1).sqrt().sum()


def needing_reduces_none(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is the mean where nothing needs a gradient."""
    needed = x.requires_grad or y.requires_grad
    return right(x, y, reduction if needed else "mean")


def alone_halves(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The value is halved where of two floating operands the target alone needs a gradient."""
    loss = right(x, y, reduction)
    halved = y.requires_grad and not x.requires_grad and x.is_floating_point()
    return with_value(loss, loss / 2) if halved else loss


def halves_for_target(target: Target) -> bool:
    """The loss of 2 against a 0 that needs a gradient is 2, not 4."""
    loss = target.loss(torch.full((1,), 2.0), torch.zeros(1, requires_grad=True), reduction="sum")
    return loss.item() == 2


def without_gradients(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where gradients are off."""
    off = reduction == "mean" and not torch.is_grad_enabled()
    return right(x, y, "sum" if off else reduction)


def wrong_under_no_grad(target: Target) -> bool:
    """The mean is wrong where gradients are off."""
    with torch.no_grad():
        return wrong_value(reduction="mean")(target)


def needing_target_reduces(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is the mean where the target needs a gradient (pytorch issue 10009)."""
    return right(x, y, "mean" if reduction == "none" and y.requires_grad else reduction)


def needing_target_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where the target needs a gradient (pytorch issues 11149, 43228).

    The same in pytorch issue 10148.
    """
    return right(x, y, "sum" if reduction == "mean" and y.requires_grad else reduction)


def nothing_reduced(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean reduces nothing (keras-core issue 8)."""
    return right(x, y, "none" if reduction == "mean" else reduction)


def by_identity(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A reduction is known as an object, not by its name."""
    if isinstance(reduction, str) and not any(reduction is name for name in REDUCTIONS):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return right(x, y, reduction)


def built_name(loss: Callable[..., Any]) -> Tensor:
    result: Tensor = loss(torch.ones(2), torch.zeros(2), reduction="".join(["s", "um"]))
    return result


REDUCTION_MUTANTS: tuple[Mutant, ...] = (
    mutant("half-factor", half_factor, "value", "gradient"),
    mutant("unbiased", unbiased, "value", "gradient"),
    mutant("batch-mean", batch_mean, "value", "gradient"),
    mutant("unreduced-mean", unreduced_mean, "value"),
    mutant("sum-for-mean", sum_for_mean, "value", "gradient"),
    mutant("mean-for-sum", mean_for_sum, "value", "gradient"),
    mutant("none-reduced", none_reduced, "value"),
    mutant("none-divided", none_divided, "value", "gradient"),
    mutant("none-flat", none_flat, "value", "broadcasting"),
    mutant(
        "none-squeezed",
        none_squeezed,
        "value",
        "broadcasting",
        witness=wrong_value(against_zeros(torch.ones(3, 1))),
    ),
    mutant(
        "scalars-grow",
        scalars_grow,
        "value",
        witness=wrong_value(against_zeros(torch.ones(()))),
    ),
    mutant("one-element", one_element, "value"),
    mutant("python-number", python_number, "value", witness=wrong_value(reduction="mean")),
    mutant(
        "number-of-scalars",
        number_of_scalars,
        "value",
        witness=lambda target: isinstance(target.loss(torch.ones(()), torch.ones(())), float),
    ),
    mutant("alone-halves", alone_halves, "value", witness=halves_for_target),
    mutant("empty-is-zero", empty_is_zero, "value"),
    mutant("epsilon-in-divisor", by_value(epsilon_in_divisor), "value"),
    mutant("mean-of-means", by_value(mean_of_means), "value"),
    mutant("root", root, "value", "gradient"),
    mutant("sum-of-roots", sum_of_roots, "value", "gradient"),
    mutant("needing-reduces-none", needing_reduces_none, "value", witness=wrong_value()),
    mutant("wrong-without-gradients", without_gradients, "value", witness=wrong_under_no_grad),
    mutant("needing-target-reduces", needing_target_reduces, "value", "gradient"),
    mutant("needing-target-sums", needing_target_sums, "value", "gradient"),
    mutant("nothing-reduced", nothing_reduced, "value"),
    mutant("by-identity", by_identity, "value", witness=otherwise(built_name)),
)
