"""What a mutant is, and the right parts that mutants share: each of them replaces one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conformance.clauses import CLAUSES
from targets import Target
from targets.operands import check_reduction, prepare
from targets.target import DTYPES, REDUCTIONS

# Values and gradients in eager mode: so that none is rejected only for a transform it lacks.
EAGER = frozenset({"broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic"})
FAMILIES = frozenset(clause.family for clause in CLAUSES)

Loss = Callable[[Tensor, Tensor, str], Tensor]
Change = Callable[[Tensor], Tensor]
Squares = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor | None, Tensor | None]
# The gradient of one operand, of d, grad_output and the scale: 2/n for a mean, else 2.
Rule = Callable[[Tensor, Tensor, float], Tensor]
# The gradients of both, of the operands (of one shape and dtype), grad_output and the scale.
Gradients = Callable[[Tensor, Tensor, Tensor, float], Pair]
Witness = Callable[[Target], bool]


@dataclass(frozen=True)
class Mutant:
    """A broken implementation, and the families of clauses that should reject it.

    ``witness`` is True of a target that is seen to be wrong as this one is; without one, the
    common probes of ``tests/test_mutants_witness.py`` show it.
    """

    target: Target
    families: frozenset[str]
    witness: Witness | None = None


def mutant(
    name: str,
    loss: Loss,
    *families: str,
    claims: frozenset[str] = EAGER,
    reductions: tuple[str, ...] = REDUCTIONS,
    dtypes: tuple[str, ...] = DTYPES,
    witness: Witness | None = None,
) -> Mutant:
    """A mutant whose summary is its docstring's first line."""
    assert families
    assert set(families) <= FAMILIES, families
    summary = (loss.__doc__ or "").partition("\n")[0]
    target = Target(name, loss, claims, reductions, dtypes, summary)
    return Mutant(target, frozenset(families), witness)


# --- values


def widened(dtype: torch.dtype) -> torch.dtype:
    """float32, or ``dtype`` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def reduce(s: Tensor, reduction: str) -> Tensor:
    """none, sum or mean of ``s``."""
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


def right(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The right loss, differentiated by autograd."""
    a, b = prepare(x, y)
    return reduce((a - b).square(), reduction)


def elementwise(squares: Squares, doc: str | None = None) -> Loss:
    """A loss that is right but for its squares; autograd differentiates them."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return reduce(squares(*prepare(x, y)), reduction)

    loss.__doc__ = doc or squares.__doc__
    return loss


class _WithValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, honest: Tensor, value: Tensor) -> Tensor:
        return value.detach()  # an operand that is handed on must not be changed in place

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


def with_value(honest: Tensor, value: Tensor) -> Tensor:
    """``value``, with the gradient of ``honest``."""
    alias = value.detach()  # a tensor of its own, in the same memory
    result: Any = _WithValue.apply
    return result(honest, alias) if honest.requires_grad else alias


def by_value(value: Loss, doc: str | None = None) -> Loss:
    """A loss with the value of operands of one shape and dtype, and the right gradient."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        return with_value(honest, value(*prepare(x.detach(), y.detach()), reduction))

    loss.__doc__ = doc or value.__doc__
    return loss


def by_squares(change: Change) -> Loss:
    """A loss that reduces ``change`` of the flat squares; its gradient is right."""

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        s = (x - y).square()
        return reduce(change(s.reshape(-1)).reshape(s.shape), reduction)

    return by_value(value, change.__doc__)


def by_sum(total: Change) -> Loss:
    """A loss with ``total`` for its flat squares in float32 at least; its gradient is right."""

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        s = (x - y).square()
        if check_reduction(reduction) == "none":
            return s
        whole = total(s.reshape(-1).to(widened(s.dtype)))
        return (whole if reduction == "sum" else whole / s.numel()).to(s.dtype)

    return by_value(value, total.__doc__)


# --- gradients


def right_rule(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """d · scale · grad_output, in float32 at least."""
    wide = widened(d.dtype)
    return (scale * d.to(wide) * g.to(wide)).to(d.dtype)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, gradients: Gradients) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = 2 / max(x.numel(), 1) if reduction == "mean" else 2.0
        ctx.gradients = gradients
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        first, second = ctx.gradients(*ctx.saved_tensors, g, ctx.scale)
        wanted = ctx.needs_input_grad
        return first if wanted[0] else None, second if wanted[1] else None, None, None


def by_gradients(gradients: Gradients) -> Loss:
    """A loss that is right but for its gradients.

    Broadcasting and promotion come before it and are differentiated by autograd.
    """

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _WithGradients.apply
        result: Tensor = apply(*prepare(x, y), check_reduction(reduction), gradients)
        return result

    loss.__doc__ = gradients.__doc__
    return loss


def right_gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The right gradients of both operands."""
    gradient = right_rule(x - y, g, scale)
    return gradient, -gradient


def by_rule(first: Rule, second: Rule | None = None) -> Loss:
    """A loss with the gradient of the input by one rule, and of the target by another or the same.

    The target's gradient is the rule's negative.
    """
    other = second or first

    def gradients(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
        d = x - y
        return first(d, g, scale), -other(d, g, scale)

    gradients.__doc__ = other.__doc__
    return by_gradients(gradients)


# --- memory


def viewed(view: Change, doc: str | None = None) -> Loss:
    """A loss that sees both operands through ``view``; its gradient is right."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        return with_value(honest, right(view(x.detach()), view(y.detach()), reduction))

    loss.__doc__ = doc or view.__doc__
    return loss


def memory(x: Tensor, start: int | None = None) -> Tensor:
    """What a kernel reads that takes a pointer and ``numel``; past the end it wraps around."""
    base = x.detach().as_strided((held(x),), (1,), 0)
    first = x.storage_offset() if start is None else start
    index = (first + torch.arange(x.numel())) % max(base.numel(), 1)
    return base[index].reshape(x.shape)


def held(x: Tensor) -> int:
    """How many elements the storage of ``x`` has room for."""
    return x.untyped_storage().nbytes() // x.itemsize


def first_element(x: Tensor) -> tuple[int, ...]:
    """The index of the first element."""
    return (0,) * x.dim()
