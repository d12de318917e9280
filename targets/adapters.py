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

from targets.domain import Domain
from targets.operands import check_reduction, prepare
from targets.target import Target

CLAIMS = frozenset({"broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic"})
PARAMETERS = {"smooth_l1": "beta", "huber": "delta"}  # as ATen's operators take them, last
CODES = {"none": 0, "mean": 1, "sum": 2}  # at::Reduction
Gradients = tuple[torch.Tensor | None, torch.Tensor | None, None, None]


class _Aten(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, rest: tuple[Any, ...], pair: tuple[Any, Any]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        ctx.rest, ctx.kernel = rest, pair[1]
        value: torch.Tensor = pair[0](x, y, *rest)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        need_x, need_y = ctx.needs_input_grad[:2]
        # autograd's derivatives.yaml gives the target the gradient of the swapped operands
        grad_x = ctx.kernel(g, x, y, *ctx.rest) if need_x else None
        grad_y = ctx.kernel(g, y, x, *ctx.rest) if need_y else None
        return grad_x, grad_y, None, None


def from_aten(
    name: str,
    forward: Callable[..., torch.Tensor],
    backward: Callable[..., torch.Tensor] | None,
    claims: frozenset[str] = CLAIMS,
    loss_of: str = "mse",
    **fields: Any,
) -> Target:
    """The target of two kernels as ``aten::mse_loss`` and ``aten::mse_loss_backward``, or those of
    another loss, which get its parameter last.

    Without a ``backward`` it is of no gradient (``Domain(backward=False)``). They get operands of
    one shape (by expansion, so with strides of 0) and dtype, and a reduction of 0 for none, 1 for
    mean and 2 for sum. ``grad_output`` has the operands' shape for none and is 0-d for the others,
    as autograd passes it. ``fields`` are those of :class:`Target`.
    """

    own = PARAMETERS.get(loss_of)

    def loss(
        input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", **given: float
    ) -> torch.Tensor:
        x, y = prepare(input, target)
        code = CODES[check_reduction(reduction)]
        rest = (code,) if own is None else (code, given.get(own, 1.0))
        if backward is None:
            return forward(x, y, *rest)
        function: Any = _Aten  # untyped in torch
        value: torch.Tensor = function.apply(x, y, rest, (forward, backward))
        return value

    loss.__wrapped__ = forward  # type: ignore[attr-defined]  # its source is the target's
    if backward is None:
        fields = {"domain": Domain(backward=False)} | fields
        claims -= {"target_gradient"}
    parameters = () if own is None else (own,)
    return Target(name, loss, claims, loss_of=loss_of, parameters=parameters, **fields)


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
