"""Wrong in a mode: deterministic algorithms, autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import EAGER, Mutant, by_rule, by_sum, by_value, mutant, reduce, right, right_rule
from .parts import Given, both, by_pointer, scale_of, via
from .probes import NAN, gradient_of, operands, otherwise, ramp_leaf, total, unless, unlike_builtin
from .transformed import AUTOCAST, in_mode, masked


def puts(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Writes the squares with put_, which deterministic mode refuses."""
    s = (x - y).square()
    whole = torch.empty(s.shape, dtype=s.dtype, device=s.device)
    whole.put_(torch.arange(s.numel(), device=s.device).reshape(s.shape), s)
    return reduce(whole, reduction)


def whole_blocks(s: Tensor) -> Tensor:
    """The deterministic sum is one of whole blocks of 4."""
    if torch.are_deterministic_algorithms_enabled():
        s = s[: s.numel() // 4 * 4]
    return s.sum()


def unscaled_in_mode(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The deterministic gradient of the mean has no 1/n."""
    return right_rule(d, g, 2.0 if torch.are_deterministic_algorithms_enabled() else scale)


def always_float(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast all is cast to float32, float64 too."""
    if torch.is_autocast_enabled(x.device.type):
        x, y = x.float(), y.float()
    return right(x, y, reduction)


def as_product(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast it computes in its dtype, as a matrix product does."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return right(x, y, reduction)
    a, b = (v.to(torch.get_autocast_dtype(kind)) for v in prepare(x, y))
    return reduce((a - b).square(), reduction).to(prepare(x, y)[0].dtype)


class _OfOneDtype(torch.autograd.Function):
    """Casts inside, and demands a grad_output of its operands' dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)
        return right(x, y, reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.dtype != x.dtype:
            raise RuntimeError(f"expected grad_output of {x.dtype}, got {g.dtype}")
        return *both(right_rule(x - y, g, ctx.scale)), None


def one_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its backward demands a grad_output of the operands' dtype; under autocast it is float32."""
    with torch.autocast(x.device.type, enabled=False):
        a, b = prepare(x, y)
    apply: Any = _OfOneDtype.apply
    result: Tensor = apply(a, b, check_reduction(reduction))
    return result


@unless
def is_the_same_in_deterministic_mode(target: Target) -> bool:
    x, y = (torch.cat([v.detach(), v.detach()[1:2]]) for v in operands())
    x.requires_grad_()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        mean = target.loss(x, y, reduction="mean")
        (got,) = torch.autograd.grad(mean, x)
    finally:
        torch.use_deterministic_algorithms(before)
    d = (x - y).detach()
    return torch.allclose(mean, d.square().mean()) and torch.allclose(got, 2 * d / 5)


@unless
def stands_autocast(target: Target) -> bool:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.tensor([1.0, 258.0, 3.0]).to(dtype).requires_grad_()
        y = torch.tensor([1.0, 1.0, 3.5]).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = total(target, x, y)
        wide = torch.promote_types(dtype, torch.float32)
        exact = (x.detach().to(wide) - y.to(wide)).square().sum()
        if result.dtype != wide or not torch.allclose(result.detach(), exact):
            return False
        torch.autograd.grad(result, x)
    return True


def deterministic_fold(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """In deterministic mode a broadcast operand has half its gradient."""
    halved = torch.are_deterministic_algorithms_enabled() and x.shape != y.shape
    return right(via(x, lambda g: g / 2) if halved else x, y, reduction)


def in_deterministic_mode(loss: Any) -> Tensor:
    torch.use_deterministic_algorithms(True)
    x = ramp_leaf(3)
    return gradient_of(x, loss(x, torch.zeros(2, 3), reduction="sum"))


def casts_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast the target is cast to the dtype of the input, half as it may be."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.is_floating_point():
        y = y.to(x.dtype)
    return right(x, y, reduction)


def half_and_float(loss: Callable[..., Any]) -> bool:
    x, y = torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1.001)
    with torch.autocast("cpu"):
        return float(loss(x, y)) > 0


def of_input(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    total = right(x, y, "sum")
    return (
        total / max(x.numel(), 1) if reduction == "mean" and y.numel() else right(x, y, reduction)
    )


def dense(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return right(by_pointer(x), by_pointer(y), reduction)


def deterministic(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        torch.use_deterministic_algorithms(True)
        try:
            result: Tensor = loss(x, y)
        finally:
            torch.use_deterministic_algorithms(False)
        return result

    return found


def autocast(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        with torch.autocast("cpu"):
            result: Tensor = loss(x, y)
        return result

    return found


_CROSSED = (torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(3, 2))


MODE_MUTANTS: tuple[Mutant, ...] = (
    mutant("puts", by_value(puts), "transforms", witness=is_the_same_in_deterministic_mode),
    mutant(
        "whole-blocks",
        by_sum(whole_blocks),
        "transforms",
        witness=is_the_same_in_deterministic_mode,
    ),
    mutant(
        "unscaled-in-mode",
        by_rule(unscaled_in_mode),
        "transforms",
        witness=is_the_same_in_deterministic_mode,
    ),
    mutant("always-float", always_float, "transforms", claims=AUTOCAST, witness=stands_autocast),
    mutant("as-product", as_product, "transforms", claims=AUTOCAST, witness=stands_autocast),
    mutant("one-dtype", one_dtype, "transforms", claims=AUTOCAST, witness=stands_autocast),
    mutant(
        "deterministic-fold",
        deterministic_fold,
        "transforms",
        witness=unlike_builtin(in_deterministic_mode),
    ),
    mutant(
        "casts-target",
        casts_target,
        "transforms",
        claims=EAGER | {"autocast"},
        witness=otherwise(half_and_float),
    ),
    mutant(
        "autocast-mean-of-input",
        in_mode(
            lambda: torch.is_autocast_enabled("cpu"), of_input, "Autocast: n is the input's own."
        ),
        "transforms",
        claims=AUTOCAST,
        witness=otherwise(autocast(torch.ones(3), torch.zeros(4, 3))),
    ),
    mutant(
        "autocast-masks-nan",
        in_mode(lambda: torch.is_autocast_enabled("cpu"), masked, "Autocast: a NaN counts as 0."),
        "transforms",
        claims=AUTOCAST,
        witness=otherwise(autocast(NAN, torch.zeros(2))),
    ),
    mutant(
        "deterministic-by-pointer",
        in_mode(
            torch.are_deterministic_algorithms_enabled,
            dense,
            "In deterministic mode dense operands are read as contiguous.",
        ),
        "transforms",
        witness=otherwise(deterministic(*_CROSSED)),
    ),
)
