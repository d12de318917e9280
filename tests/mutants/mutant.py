"""What a mutant is, and the right remainder that mutants share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare
from targets.target import DTYPES, REDUCTIONS

# Values and gradients in eager mode: so that none is rejected only for a transform it lacks.
EAGER = frozenset({"broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic"})
FAMILIES = frozenset(
    {"value", "gradient", "grad_output", "broadcasting", "dtypes", "layout", "purity"}
)

Loss = Callable[[Tensor, Tensor, str], Tensor]
Elementwise = Callable[[Tensor, Tensor], Tensor]
Rule = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Mutant:
    """A broken implementation, and the families of clauses that should reject it."""

    target: Target
    families: frozenset[str]


def mutant(
    name: str,
    loss: Loss,
    *families: str,
    claims: frozenset[str] = EAGER,
    reductions: tuple[str, ...] = REDUCTIONS,
    dtypes: tuple[str, ...] = DTYPES,
) -> Mutant:
    """A mutant whose summary is its docstring's first line."""
    assert families
    assert set(families) <= FAMILIES, families
    summary = (loss.__doc__ or "").partition("\n")[0]
    return Mutant(Target(name, loss, claims, reductions, dtypes, summary), frozenset(families))


def reduce(s: Tensor, reduction: str) -> Tensor:
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


def right(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    a, b = prepare(x, y)
    return reduce((a - b).square(), reduction)


class _WithValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, honest: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


def with_value(honest: Tensor, value: Tensor) -> Tensor:
    """``value``, with the gradient of ``honest``."""
    alias = value.detach()  # a tensor of its own, in the same memory
    result: Any = _WithValue.apply
    return result(honest, alias) if honest.requires_grad else alias


def elementwise(squares: Elementwise, doc: str | None = None) -> Loss:
    """A loss that is right but for its squares."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y)
        return reduce(squares(a, b), reduction)

    loss.__doc__ = doc or squares.__doc__
    return loss


class _WithRule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, reduction: str, first: Rule, second: Rule
    ) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.scale = 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        ctx.rules = first, second
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (d,) = ctx.saved_tensors
        first, second = ctx.rules
        return (
            first(d, g, ctx.scale) if ctx.needs_input_grad[0] else None,
            -second(d, g, ctx.scale) if ctx.needs_input_grad[1] else None,
            None,
            None,
            None,
        )


def right_rule(d: Tensor, g: Tensor, scale: float) -> Tensor:
    return d * scale * g


def by_rule(first: Rule, second: Rule | None = None) -> Loss:
    """A loss that is right but for its gradients: of d, ``grad_output`` and 2/n (or 2).

    ``second`` is for the target, whose gradient is its negative; by default the same rule.
    """

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _WithRule.apply
        result: Tensor = apply(*prepare(x, y), check_reduction(reduction), first, second or first)
        return result

    loss.__doc__ = first.__doc__ if first is not right_rule or second is None else second.__doc__
    return loss


def memory(x: Tensor, start: int | None = None) -> Tensor:
    """What a kernel reads that takes a pointer and ``numel``; past the end it wraps around."""
    base = x.detach().as_strided((x.untyped_storage().nbytes() // x.itemsize,), (1,), 0)
    first = x.storage_offset() if start is None else start
    index = (first + torch.arange(x.numel())) % max(base.numel(), 1)
    return base[index].reshape(x.shape)


def first_element(x: Tensor) -> tuple[int, ...]:
    return (0,) * x.dim()
