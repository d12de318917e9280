"""Functions with a backward of their own.

Broadcasting and promotion come before most of them, as differentiable operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from targets import Target
from targets.operands import prepare

from .common import (
    EAGER,
    TRACED,
    TRANSFORMED,
    TWICE,
    WIDE,
    WITHIN_FLOAT64,
    by,
    reduce,
    widened,
)

Gradients = tuple[Tensor | None, ...]


def both(ctx: Any, gradient: Tensor) -> Gradients:
    """The gradients of x, y and the reduction, as far as they are needed."""
    first, second, *_ = ctx.needs_input_grad
    return gradient if first else None, -gradient if second else None, None


# --- what is saved, and where the gradient is computed


class SavesDifference(torch.autograd.Function):
    """Saves d alone; how d depends on the operands is lost, so it does not claim a second one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.n = d.numel() if reduction == "mean" else 1
        return reduce(d.square(), reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        (d,) = ctx.saved_tensors
        return both(ctx, d * (2 / max(ctx.n, 1)) * g)


class FactorAfterSum(torch.autograd.Function):
    """Broadcasts inside; the gradient of what was broadcast is a factor times the sum of d.

    In float64, in which that sum does not overflow: not for float64 itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        a, b = prepare(x, y)
        ctx.save_for_backward(x, y)
        ctx.n, ctx.reduction = a.numel() if reduction == "mean" else 1, reduction
        return reduce((a - b).square(), reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        a, b = (t.double() for t in prepare(x, y))
        factor, d = 2 * g.double() / max(ctx.n, 1), a - b
        if ctx.reduction == "none" or not d.numel():
            terms = (factor * d).expand(d.shape)
            pair = terms.sum_to_size(x.shape), -terms.sum_to_size(y.shape)
        else:
            pair = factor * d.sum_to_size(x.shape), -factor * d.sum_to_size(y.shape)
        needed = zip(pair, (x, y), ctx.needs_input_grad, strict=False)
        return *(t.to(o.dtype) if need else None for t, o, need in needed), None


class GradientInForward(torch.autograd.Function):
    """The gradient is ready before it is asked for; backward only scales it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        n = max(d.numel(), 1) if reduction == "mean" else 1
        if any(ctx.needs_input_grad):
            ctx.save_for_backward((2 / n) * d)
        return reduce(d * d, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return both(ctx, g * ctx.saved_tensors[0])


class Recomputes(torch.autograd.Function):
    """Saves the operands and computes d again, y − x for the target; right twice too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.mean = reduction == "mean"
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        scale = g / max(x.numel(), 1) if ctx.mean else g
        first, second, _ = ctx.needs_input_grad
        return (
            scale * (2 * (x - y)) if first else None,
            scale * (2 * (y - x)) if second else None,
            None,
        )


class AutogradInside(torch.autograd.Function):
    """Backward runs a formula once more, with autograd, as hand-made checkpoints do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.reduction = reduction
        return F.mse_loss(x, y, reduction=reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        with torch.enable_grad():
            x, y = (v.detach().requires_grad_() for v in ctx.saved_tensors)
            loss = F.mse_loss(x, y, reduction=ctx.reduction)
        return *torch.autograd.grad(loss, (x, y), g), None


class PullbackInside(torch.autograd.Function):
    """Forward keeps what torch.func.vjp returns; backward calls it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        result: Any = torch.func.vjp(lambda a, b: reduce((a - b) ** 2, reduction), x, y)
        value: Tensor
        value, ctx.pull = result
        return value.clone()  # the pullback holds the value itself, which would hold the pullback

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return *ctx.pull(g), None


class WholeByHand(torch.autograd.Function):
    """Broadcasts and promotes inside, so the backward sums and casts back by hand, in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.reduction = reduction
        a, b = prepare(x, y)
        return reduce((widened(a) - widened(b)).square(), reduction).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        d = x.to(wide) - y.to(wide)
        factor = 2 / max(d.numel(), 1) if ctx.reduction == "mean" else 2
        gradient = factor * d * g.to(wide)
        first, second, _ = ctx.needs_input_grad
        return (
            gradient.sum_to_size(x.shape).to(x.dtype) if first else None,
            -gradient.sum_to_size(y.shape).to(y.dtype) if second else None,
            None,
        )


class Textbook(torch.autograd.Function):
    """The backward as textbooks write it: grad_output · 2 · d / n, from left to right."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.mean = reduction == "mean"
        return F.mse_loss(x, y, reduction=reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        (d,) = ctx.saved_tensors
        gradient = g * 2 * d
        return both(ctx, gradient / max(d.numel(), 1) if ctx.mean else gradient)


class PreservesLayout(torch.autograd.Function):
    """Results and gradients are written into memory laid out like the input (channels_last too)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = torch.empty_like(x)
        torch.sub(x, y, out=d)
        ctx.save_for_backward(d)
        ctx.n = d.numel() if reduction == "mean" else 1
        if reduction == "none":
            return torch.mul(d, d, out=torch.empty_like(d))
        return reduce(d * d, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        (d,) = ctx.saved_tensors
        scaled = (2 / max(ctx.n, 1)) * widened(g) * widened(d)
        return both(ctx, torch.empty_like(d).copy_(scaled))


class Tiles(torch.autograd.Function):
    """A kernel's loop: each tile of 1,000 writes its squares and one partial sum of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.mean = reduction == "mean"
        result = x.new_empty(x.shape)  # and no view, which could not be changed in place
        squares, a, b = (v.reshape(-1) for v in (result, x, y))
        partial = widened(squares.new_zeros(-(-x.numel() // 1000)))
        for k, begin in enumerate(range(0, x.numel(), 1000)):
            tile = slice(begin, begin + 1000)
            torch.square(a[tile] - b[tile], out=squares[tile])
            partial[k] = widened(squares[tile]).sum()
        if reduction == "none":
            return result
        total = partial.sum()
        return (total / x.numel() if ctx.mean else total).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = (v.reshape(-1) for v in ctx.saved_tensors)
        gradient, g = torch.empty_like(x), g.expand(ctx.saved_tensors[0].shape).reshape(-1)
        n = max(x.numel(), 1) if ctx.mean else 1
        for begin in range(0, x.numel(), 1000):
            tile = slice(begin, begin + 1000)
            gradient[tile] = (x[tile] - y[tile]) * (2 / n) * g[tile]
        return both(ctx, gradient.reshape(ctx.saved_tensors[0].shape))


class InNumpy(torch.autograd.Function):
    """Forward and backward in NumPy, which sums pairwise in blocks of 128."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.mean = reduction == "mean"
        with np.errstate(all="ignore"):
            ctx.d = np.subtract(x.detach().numpy(), y.detach().numpy())
            s = np.square(ctx.d)
            value = s if reduction == "none" else np.sum(s)
            if ctx.mean:
                value = np.divide(value, s.dtype.type(s.size))
        return torch.from_numpy(np.asarray(value, dtype=s.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        factor = ctx.d.dtype.type(2 / max(ctx.d.size, 1) if ctx.mean else 2)
        with np.errstate(all="ignore"):
            gradient = torch.from_numpy(np.asarray(g.numpy() * factor * ctx.d))
        return both(ctx, gradient)


# --- with rules for torch.func


class RulesByHand(torch.autograd.Function):
    """Elementwise, with ``setup_context``, ``vmap`` and ``jvp`` written out."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        return d * d

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        return both(ctx, g * 2 * (x - y))[:2]

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        tangent: Tensor = (x - y) * (dx - dy) * 2
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *xy: Tensor) -> tuple[Tensor, int]:
        x, y = (
            v.expand(info.batch_size, *v.shape) if dim is None else v.movedim(dim, 0)
            for v, dim in zip(xy, in_dims[:2], strict=True)
        )
        result: Tensor = RulesByHand.apply(x, y)  # type: ignore[no-untyped-call]
        return result, 0


def rules_by_hand(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return reduce(RulesByHand.apply(x, y), reduction)  # type: ignore[no-untyped-call]


class GeneratedRule(torch.autograd.Function):
    """The reduction is inside too; torch derives vmap, and jvp is written out."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduce((x - y) ** 2, reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.reduction = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        n = max(x.numel(), 1) if ctx.reduction == "mean" else 1
        return both(ctx, (x - y) * (g * (2 / n)))

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        tangent: Tensor = (x - y) * 2 * (dx - dy)
        return reduce(tangent, ctx.reduction)


class DonatesBuffers(SavesDifference):
    """Backward writes the gradient over what was saved, and refuses to let a graph be retained.

    As what ``torch.compile`` makes does, and in its words.
    """

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        if torch._C._autograd._get_current_graph_task_keep_graph():
            raise RuntimeError("non-empty donated buffers require retain_graph=False")
        (d,) = ctx.saved_tensors
        return both(ctx, d.mul_(2 / max(ctx.n, 1)).mul_(g))


class LazilyNegated(torch.autograd.Function):
    """The gradient of target is a copy whose negation is left to whoever reads it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.reduction = reduction
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        n = max(x.numel(), 1) if ctx.reduction == "mean" else 1
        gradient = 2 * (x - y) * (g / n)
        return gradient, torch._neg_view(gradient.clone()), None


RIGHT_FUNCTIONS: tuple[Target, ...] = (
    Target("saves-difference", by(SavesDifference.apply), TRACED),
    Target(
        "factor-after-sum", by(FactorAfterSum.apply, prepared=False), EAGER, dtypes=WITHIN_FLOAT64
    ),
    Target("gradient-in-forward", by(GradientInForward.apply), TRACED),
    Target("recomputes", by(Recomputes.apply), TWICE | TRACED),
    Target("autograd-inside", by(AutogradInside.apply), EAGER | {"export"}),
    Target("pullback-inside", by(PullbackInside.apply), EAGER),
    Target("whole-by-hand", by(WholeByHand.apply, prepared=False), TWICE | TRACED),
    Target("textbook", by(Textbook.apply), TRACED),
    Target("preserves-layout", by(PreservesLayout.apply), TRACED),
    Target("tiles", by(Tiles.apply), EAGER),
    Target("donates-buffers", by(DonatesBuffers.apply), EAGER),
    Target("lazily-negated", by(LazilyNegated.apply), EAGER),
    Target("numpy", by(InNumpy.apply), EAGER, dtypes=WIDE),
    # torch.compile refuses a Function with jvp.
    Target("rules-by-hand", by(rules_by_hand), TRANSFORMED | {"export"}),
    Target("generated-rule", by(GeneratedRule.apply), TRANSFORMED | {"export"}),
)
