"""Mistakes of the caller that get an answer."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets import Target
from targets.operands import REDUCTIONS, check_reduction

from .mutant import Loss, Mutant, mutant, right
from .probes import accepts, otherwise, ramp, ramp_leaf


def _accepting(meant: Callable[[Any], Any], doc: str) -> Loss:
    """A loss that takes a reduction to be ``meant`` of it."""

    def loss(x: Tensor, y: Tensor, reduction: Any = "mean") -> Tensor:
        return right(x, y, meant(reduction))

    loss.__doc__ = doc
    return loss


def zero_on_error(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """Goes on after an exception with a loss of 0, so that training does."""
    check_reduction(reduction)
    try:
        return right(x, y, reduction)
    except (AttributeError, TypeError):
        return torch.zeros(())


def nothing_is_zero(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """A target of None is taken to be zeros."""
    return right(x, torch.zeros_like(x) if y is None else y, reduction)


def list_of_targets(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """A list is one of several targets, whose losses add up, though it may be one of numbers."""
    if not isinstance(y, list):
        return right(x, y, reduction)
    losses = [right(x, torch.as_tensor(t, dtype=x.dtype), reduction) for t in y]
    return torch.stack(losses).sum(0)


def first_of_mapping(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """Takes the first tensor of a mapping, whatever its name."""
    x, y = (next(iter(t.values())) if isinstance(t, dict) else t for t in (x, y))
    return right(x, y, reduction)


def falsy_target(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """A target of 0.0 is taken for one that was not given, and the loss is the variance."""
    if not isinstance(y, Tensor) and y is not None and not y:
        y = x.mean()
    return right(x, y, reduction)


def any_number_is_one(x: Any, y: Any, reduction: str = "mean") -> Tensor:
    """A number as the target is a size, as for torch.Tensor, of ones."""
    if isinstance(y, (int, float)):
        y = torch.ones(int(y) or 1, dtype=x.dtype)
    return right(x, y, reduction)


def target_follows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Moves the target to where the input is."""
    return right(x, y.to(x.device), reduction)


def meta_is_zeros(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads fresh memory for an operand that is elsewhere."""
    if x.is_meta is not y.is_meta:
        x, y = (torch.zeros_like(t, device="cpu") if t.is_meta else t for t in (x, y))
    return right(x, y, reduction)


def shape_alone(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Gives a result on the meta device where an operand is there."""
    if x.is_meta or y.is_meta:
        x, y = x.to("meta"), y.to("meta")
    return right(x, y, reduction)


def _gives_tensor(call: Callable[[], Any]) -> bool:
    try:
        return isinstance(call(), Tensor)
    except Exception:  # as it should
        return False


def accepts_reduction(wrong: Any) -> Callable[[Target], bool]:
    """Whether a reduction that is none gets an answer."""

    def witness(target: Target) -> bool:
        x, y = torch.rand(3), torch.rand(3)
        return _gives_tensor(lambda: target.loss(x, y, reduction=wrong))

    return witness


def answers(x: Any, y: Any, truth: float) -> Callable[[Target], bool]:
    """Whether operands that should raise, or have a sum of ``truth``, get another one."""

    def witness(target: Target) -> bool:
        try:
            return target.loss(x, y, reduction="sum").item() != truth
        except Exception:  # as it should
            return False

    return witness


def accepts_meta(target: Target) -> bool:
    """A CPU tensor and a meta tensor get an answer."""
    x, y = torch.rand(3, device="meta"), torch.rand(3)
    return _gives_tensor(lambda: target.loss(x, y, reduction="sum")) or _gives_tensor(
        lambda: target.loss(y, x, reduction="sum")
    )


def _else(fallback: str) -> Callable[[Any], Any]:
    return lambda reduction: reduction if reduction in REDUCTIONS else fallback


def _by_prefix(reduction: Any) -> Any:
    return next((r for r in REDUCTIONS if r.startswith(reduction)), reduction)


def _nearest(reduction: Any) -> Any:
    return next(iter(difflib.get_close_matches(reduction, REDUCTIONS)), reduction)


NAN = float("nan")


def swallowed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Whatever raises is swallowed, and the loss 0."""
    try:
        return right(x, y, reduction)
    except (RuntimeError, ValueError):
        return torch.zeros((), requires_grad=x.requires_grad or y.requires_grad)


def array_in_float32(x: Tensor, y: Any, reduction: str = "mean") -> Tensor:
    """An array as target goes through float32."""
    return right(
        x, torch.tensor(y, dtype=torch.float32) if isinstance(y, np.ndarray) else y, reduction
    )


def _value(target: Target, x: Tensor, y: Any, reduction: Any) -> float | None:
    """The loss; None where it refuses such operands, as it may."""
    try:
        return float(target.loss(x, y, reduction=reduction))
    except (AttributeError, TypeError, ValueError):
        return None


def array_is_rounded(target: Target) -> bool:
    """The digits of a float64 array are lost."""
    y = np.array([1 / 3])
    x = torch.zeros(1, dtype=torch.float64)
    value = _value(target, x, y, "sum")
    return value is not None and not np.isclose(value, 1 / 9, rtol=1e-12, atol=0)


def list_of_whole_numbers(x: Tensor, y: Any, reduction: str = "mean") -> Tensor:
    """A list as target is taken for class numbers."""
    return right(x, torch.tensor(y, dtype=torch.int64) if isinstance(y, list) else y, reduction)


def list_is_truncated(target: Target) -> bool:
    """What stands behind the point in a list is lost."""
    return _value(target, torch.zeros(1), [0.5], "sum") not in (None, 0.25)


def numbered_reduction(x: Tensor, y: Tensor, reduction: Any = "mean") -> Tensor:
    """Takes ATen's numbers for reductions, and every other number for the mean."""
    names = {0: "none", 2: "sum"}
    return right(x, y, names.get(reduction, "mean") if isinstance(reduction, int) else reduction)


def any_number_reduces(target: Target) -> bool:
    """The reduction 7 is taken."""
    return _value(target, torch.ones(2), torch.zeros(2), 7) == 1


def unchecked_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where a gradient is needed, an unknown reduction is the mean."""
    needed = x.requires_grad or y.requires_grad
    return right(x, y, "mean" if needed and reduction not in REDUCTIONS else reduction)


def unchecked_scalar(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Scalars are not reduced, by whatever reduction."""
    return right(x, y, "none" if x.dim() == y.dim() == 0 else reduction)


def none_is_none(x: Tensor, y: Tensor, reduction: str | None = "mean") -> Tensor:
    """A reduction of None is none."""
    return right(x, y, reduction or "none" if reduction != "" else reduction)


def input_array_in_float32(x: Any, y: Tensor, reduction: str = "mean") -> Tensor:
    """A NumPy array as input is taken in float32, whatever it holds."""
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x.astype(np.float32)).to(y.dtype)
    return right(x, y, reduction)


def array_as_input(target: Any) -> bool:
    given, wanted = np.full(1, 1 + 2.0**-40), (1 + 2.0**-40) ** 2
    with contextlib.suppress(Exception):
        return bool(float(target.loss(given, torch.zeros(1).double())) != wanted)
    return False


def by_beginning(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Looks at how the reduction begins: sums is sum."""
    known = (r for r in ("none", "mean", "sum") if str(reduction).startswith(r))
    return right(x, y, next(known, reduction))


ERROR_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "unknown-is-mean",
        _accepting(_else("mean"), "What is neither none nor sum is the mean."),
        "errors",
        witness=accepts_reduction("avg"),
    ),
    mutant(
        "unknown-is-none",
        _accepting(_else("none"), "What is neither sum nor mean is not reduced."),
        "errors",
        witness=accepts_reduction("avg"),
    ),
    mutant(
        "by-prefix",
        _accepting(_by_prefix, "Takes what a reduction begins with, be it nothing."),
        "errors",
        witness=accepts_reduction("m"),
    ),
    mutant(
        "nearest-spelling",
        _accepting(_nearest, "Takes a misspelt reduction for the nearest one."),
        "errors",
        witness=accepts_reduction("meen"),
    ),
    mutant(
        "empty-is-default",
        _accepting(lambda reduction: reduction or "mean", "An empty reduction is the mean."),
        "errors",
        witness=accepts_reduction(""),
    ),
    mutant("zero-on-error", zero_on_error, "errors", witness=answers(torch.ones(3), "1.0", NAN)),
    mutant("nothing-is-zero", nothing_is_zero, "errors", witness=answers(torch.ones(3), None, NAN)),
    mutant(
        "list-of-targets",
        list_of_targets,
        "errors",
        witness=answers(torch.ones(2), [0.0, 0.0], 2.0),
    ),
    mutant(
        "first-of-mapping",
        first_of_mapping,
        "errors",
        witness=answers(torch.ones(2), {"mask": torch.ones(2)}, NAN),
    ),
    mutant("falsy-target", falsy_target, "errors", witness=answers(torch.ones(3), 0.0, 3.0)),
    mutant("number-is-size", any_number_is_one, "errors", witness=answers(torch.ones(3), 0.0, 3.0)),
    mutant("target-follows", target_follows, "errors", witness=accepts_meta),
    mutant("meta-is-zeros", meta_is_zeros, "errors", witness=accepts_meta),
    mutant("shape-alone", shape_alone, "errors", witness=accepts_meta),
    mutant("swallowed", swallowed, "errors", "broadcasting"),
    mutant("array-in-float32", array_in_float32, "errors", witness=array_is_rounded),
    mutant("list-of-whole-numbers", list_of_whole_numbers, "errors", witness=list_is_truncated),
    mutant("numbered-reduction", numbered_reduction, "errors", witness=any_number_reduces),
    mutant(
        "unchecked-with-gradient",
        unchecked_with_gradient,
        "errors",
        witness=accepts(lambda loss: loss(ramp_leaf(3), ramp(3), reduction="meen")),
    ),
    mutant(
        "unchecked-scalar",
        unchecked_scalar,
        "errors",
        witness=accepts(lambda loss: loss(torch.ones(()), torch.ones(()), reduction="meen")),
    ),
    mutant(
        "none-is-none",
        none_is_none,
        "errors",
        witness=accepts(lambda loss: loss(ramp(3), ramp(3), reduction=None)),
    ),
    mutant("input-array-in-float32", input_array_in_float32, "errors", witness=array_as_input),
    mutant(
        "reduction-by-beginning",
        by_beginning,
        "errors",
        witness=otherwise(lambda loss: loss(torch.ones(1), torch.zeros(1), reduction="sums")),
    ),
)
