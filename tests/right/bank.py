"""Right implementations that compute differently, each with the claims that it honestly makes.

The formulas leave autograd to torch; what differs is the order and the width of the arithmetic.
The functions at the end have a backward of their own. Not here, since they are not right: the
square of a norm (overflows and underflows elsewhere), ``dot`` and ``einsum`` (one running sum).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets import DROP_IN, Target
from targets.operands import check_reduction, prepare

WIDE = ("float64", "float32")
# A formula on the bare operands keeps halves under autocast, and may pass integers through.
FORMULA = DROP_IN - {"autocast"}
# Python code that looks at sizes, or a Function without vmap and jvp: no transforms.
EAGER = frozenset({"broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic"})
DIFFERENTIABLE = EAGER | {"double_backward", "forward_ad"}

Loss = Callable[[Tensor, Tensor, str], Tensor]
Sum = Callable[[Tensor], Tensor]


def reduce(s: Tensor, reduction: str) -> Tensor:
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


# --- formulas


def power_operator(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce((x - y) ** 2, reduction)


def square_method(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce((x - y).square(), reduction)


def pow_method(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce((x - y).pow(2), reduction)


def product(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """d·d sends autograd down two paths."""
    d = torch.sub(x, y)
    return reduce(torch.mul(d, d), reduction)


def reversed_difference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce((y - x).square(), reduction)


def square_of_magnitude(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """|d|²: its second derivative is wrong where d is 0, so it does not claim one."""
    x, y = prepare(x, y)  # it refuses complex operands, whose |d|² is real and wrong here
    return reduce((x - y).abs().square(), reduction)


def builtin_none(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce(torch.nn.functional.mse_loss(x, y, reduction="none"), reduction)


def sum_then_divide(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Overflows in float16, where the mean does not: for the wide formats only."""
    s = (x - y).square()
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.sum() / s.numel()


def addcmul(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    d = x - y
    return reduce(torch.addcmul(torch.zeros_like(d), d, d), reduction)


def per_dimension(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Rows first, then the total; in float32 inside, or the rows' sums would overflow in half."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none" or s.dim() == 0:
        return s
    wide = torch.promote_types(s.dtype, torch.float32)
    total = s.sum(-1, dtype=wide).sum()
    return (total if reduction == "sum" else total / s.numel()).to(s.dtype)


# --- wider inside


def in_format(format: torch.dtype) -> Loss:
    """Everything in ``format``, which is wider than the operands' own; one rounding at the end."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        x, y = prepare(x, y)
        wide = torch.promote_types(x.dtype, format)
        return reduce((x.to(wide) - y.to(wide)).square(), reduction).to(x.dtype)

    return loss


# --- other trees of summation


def summing(total: Sum) -> Loss:
    """The sum of the flat squares by ``total``, in float32 at least."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        x, y = prepare(x, y)
        s = (x - y).square()
        if check_reduction(reduction) == "none":
            return s
        flat = s.reshape(-1).to(torch.promote_types(s.dtype, torch.float32))
        value = total(flat)
        return (value if reduction == "sum" else value / flat.numel()).to(s.dtype)

    return loss


def flat_sum(s: Tensor) -> Tensor:
    return s.sum()


def chunked_sum(s: Tensor) -> Tensor:
    return torch.stack([chunk.sum() for chunk in torch.split(s, 1000)]).sum()


def tree_sum(s: Tensor) -> Tensor:
    """Halves added pairwise until one is left."""
    if s.numel() == 0:
        return s.sum()
    while s.numel() > 1:
        if s.numel() % 2:
            s = torch.cat([s, s.new_zeros(1)])
        s = s[0::2] + s[1::2]
    return s[0]


def blocked_sum(s: Tensor) -> Tensor:
    """Blocks of 256 as a kernel's, the last one padded with zeros, then the blocks' sums."""
    padded = torch.nn.functional.pad(s, (0, -s.numel() % 256))
    return padded.reshape(-1, 256).sum(1).sum()


def lanes_sum(s: Tensor) -> Tensor:
    """A grid-stride loop: 1,024 lanes, each with a stride of its own, then the lanes."""
    padded = torch.nn.functional.pad(s, (0, -s.numel() % 1024))
    return padded.reshape(-1, 1024).sum(0).sum()


def kahan_sum(s: Tensor) -> Tensor:
    """Compensated sums of the blocks of 4,096, one after the other."""
    total, lost = s.new_zeros(()), s.new_zeros(())
    for block in torch.split(s, 4096):
        term = block.sum() - lost
        new = total + term
        lost = ((new - total) - term).detach()
        # Where the sum is infinite the compensation is NaN, which is no error to carry on.
        lost = torch.where(torch.isfinite(lost), lost, torch.zeros_like(lost))
        total = new
    return total


def scaled_blocks(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean as a sum of block sums that are each divided by n first."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none":
        return s
    flat = s.reshape(-1).to(torch.promote_types(s.dtype, torch.float32))
    if flat.numel() == 0:
        return reduce(s, reduction)
    n = flat.numel() if reduction == "mean" else 1
    return torch.stack([block.sum() / n for block in torch.split(flat, 512)]).sum().to(s.dtype)


def times_reciprocal(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Multiplies by 1/n, in float32 at least."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.numel() == 0:
        return reduce(s, reduction)
    wide = torch.promote_types(s.dtype, torch.float32)
    return (s.sum(dtype=wide) * (1 / s.numel())).to(s.dtype)


# --- with a backward of their own


class SavesDifference(torch.autograd.Function):
    """Saves d alone; the backward is ordinary operations, so the second one is right for g.

    The dependence of d on the inputs is lost with it: it does not claim double backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.n = d.numel() if reduction == "mean" else 1
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (d,) = ctx.saved_tensors
        gradient = d * (2 / max(ctx.n, 1)) * g
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


class Recomputes(torch.autograd.Function):
    """Saves the operands and computes d again; differentiable, so twice is right too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.mean = reduction == "mean"
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        scale = g / max(x.numel(), 1) if ctx.mean else g
        first, second, _ = ctx.needs_input_grad
        return (
            scale * (2 * (x - y)) if first else None,
            scale * (2 * (y - x)) if second else None,
            None,
        )


class WholeByHand(torch.autograd.Function):
    """Broadcasts and promotes inside, so the backward sums and casts back by hand, in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.reduction = reduction
        a, b = prepare(x, y)
        wide = torch.promote_types(a.dtype, torch.float32)
        return reduce((a.to(wide) - b.to(wide)).square(), reduction).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
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
        return torch.nn.functional.mse_loss(x, y, reduction=reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (d,) = ctx.saved_tensors
        gradient = g * 2 * d
        if ctx.mean:
            gradient = gradient / max(d.numel(), 1)
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, gradient.neg() if second else None, None


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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.d.dtype.type(2 / max(ctx.d.size, 1) if ctx.mean else 2)
        with np.errstate(all="ignore"):
            gradient = torch.from_numpy(np.asarray(g.numpy() * factor * ctx.d))
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (d,) = ctx.saved_tensors
        wide = torch.promote_types(d.dtype, torch.float32)
        gradient = torch.empty_like(d).copy_((2 / max(ctx.n, 1)) * g.to(wide) * d.to(wide))
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, torch.neg(gradient) if second else None, None


def by(function: Any, prepared: bool = True) -> Loss:
    """A Function as a loss, after broadcasting and promotion where it wants them done."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        check_reduction(reduction)
        if prepared:
            x, y = prepare(x, y)
        result: Tensor = function.apply(x, y, reduction)
        return result

    return loss


class Module(torch.nn.Module):
    """As a user writes one who has read nn.MSELoss."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return reduce(torch.square(input - target), self.reduction)


def module_loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result: Tensor = Module(reduction)(x, y)
    return result


RIGHT: tuple[Target, ...] = (
    Target("power-operator", power_operator, FORMULA),
    Target("square-method", square_method, FORMULA),
    Target("pow-method", pow_method, FORMULA),
    Target("product", product, FORMULA),
    Target("reversed-difference", reversed_difference, FORMULA),
    Target("square-of-magnitude", square_of_magnitude, FORMULA - {"double_backward"}),
    Target("builtin-none", builtin_none, DROP_IN),
    Target("sum-then-divide", sum_then_divide, FORMULA, dtypes=WIDE),
    Target("addcmul", addcmul, FORMULA),
    Target("per-dimension", per_dimension, DROP_IN),
    Target("float32-inside", in_format(torch.float32), DROP_IN),
    Target("float64-inside", in_format(torch.float64), DROP_IN),
    Target("flat", summing(flat_sum), DROP_IN),
    Target("chunks", summing(chunked_sum), DIFFERENTIABLE),
    Target("tree", summing(tree_sum), DIFFERENTIABLE),
    Target("blocks", summing(blocked_sum), DIFFERENTIABLE),
    Target("lanes", summing(lanes_sum), DIFFERENTIABLE),
    Target("kahan", summing(kahan_sum), DIFFERENTIABLE),
    Target("scaled-blocks", scaled_blocks, DIFFERENTIABLE),
    Target("times-reciprocal", times_reciprocal, DIFFERENTIABLE),
    Target("saves-difference", by(SavesDifference), EAGER),
    Target("recomputes", by(Recomputes), EAGER | {"double_backward"}),
    Target("whole-by-hand", by(WholeByHand, prepared=False), EAGER | {"double_backward"}),
    Target("textbook", by(Textbook), EAGER),
    Target("numpy", by(InNumpy), EAGER, dtypes=WIDE),
    Target("preserves-layout", by(PreservesLayout), EAGER),
    Target("own-module", module_loss, FORMULA | {"module"}, module=Module),
)
