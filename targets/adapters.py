"""Targets from what backends write: a pair of ATen-level kernels, or an override of torch's own.

Both judge what the backend gives: the value and the first derivatives. Neither claims double
backward, forward-mode AD, functorch or torch.compile, which the adapter would answer itself; a
backend that has them registers its loss as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

from targets.operands import check_reduction, prepare
from targets.target import Target

CLAIMS = frozenset({"broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic"})
CODES = {"none": 0, "mean": 1, "sum": 2}  # at::Reduction
Gradients = tuple[torch.Tensor | None, torch.Tensor | None, None, None]


class _Aten(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, code: int, pair: tuple[Any, Any]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        ctx.code, ctx.kernel = code, pair[1]
        value: torch.Tensor = pair[0](x, y, code)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        need_x, need_y = ctx.needs_input_grad[:2]
        # autograd's derivatives.yaml gives the target the gradient of the swapped operands
        grad_x = ctx.kernel(g, x, y, ctx.code) if need_x else None
        grad_y = ctx.kernel(g, y, x, ctx.code) if need_y else None
        return grad_x, grad_y, None, None


def from_aten(
    name: str,
    mse_loss: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    mse_loss_backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor],
    claims: frozenset[str] = CLAIMS,
    **fields: Any,
) -> Target:
    """The target of two kernels as ``aten::mse_loss`` and ``aten::mse_loss_backward``.

    They get operands of one shape (by expansion, so with strides of 0) and dtype, and a reduction
    of 0 for none, 1 for mean and 2 for sum. ``grad_output`` has the operands' shape for none and is
    0-d for the others, as autograd passes it. ``fields`` are those of :class:`Target`.
    """

    def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        x, y = prepare(input, target)
        code = CODES[check_reduction(reduction)]
        function: Any = _Aten  # untyped in torch
        value: torch.Tensor = function.apply(x, y, code, (mse_loss, mse_loss_backward))
        return value

    loss.__wrapped__ = mse_loss  # type: ignore[attr-defined]  # its source is the target's
    return Target(name, loss, claims, **fields)


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, reduction: str, context: Any
    ) -> torch.Tensor:
        a, b = leaves = [
            operand.detach().requires_grad_(need)
            for operand, need in zip((x, y), ctx.needs_input_grad, strict=False)
        ]
        with context(), torch.enable_grad():
            value = F.mse_loss(a, b, reduction=reduction)
        ctx.save_for_backward(x, y)  # so that a change in place is noticed
        ctx.leaves, ctx.value, ctx.context = leaves, value, context
        return value.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        ctx.saved_tensors  # noqa: B018  # raises where an operand has changed
        wanted = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        with ctx.context():
            found = iter(torch.autograd.grad(ctx.value, wanted, g, retain_graph=True))
        grad_x, grad_y = (next(found) if leaf.requires_grad else None for leaf in ctx.leaves)
        return grad_x, grad_y, None, None


def overriding(
    name: str,
    context: Callable[[], AbstractContextManager[Any]],
    claims: frozenset[str] = CLAIMS,
    **fields: Any,
) -> Target:
    """The target of a backend that takes over ``torch.nn.functional.mse_loss`` within a context.

    ``context()`` is entered for each forward and for each backward, and left before the result is
    looked at, so that nothing else is computed by the backend.
    """

    def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        function: Any = _Within  # untyped in torch
        value: torch.Tensor = function.apply(input, target, reduction, context)
        return value

    loss.__wrapped__ = context  # type: ignore[attr-defined]  # its source is the target's
    return Target(name, loss, claims, **fields)
