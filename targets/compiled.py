"""A differentiable loss from two compiled kernels, registered as operators of a library.

So fake tensors, vmap and torch.compile know the kernels. ``LIBRARY::mse(x, y, reduction)`` and
``LIBRARY::mse_gradient(g, x, y, n, need_x, need_y)`` take operands of one shape and dtype;
``g`` has that shape or is 0-d, and ``n`` divides: an integer, since torch.compile makes one graph
for all of them and one for each float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from targets.operands import check_reduction, prepare

Pair = tuple[torch.Tensor, torch.Tensor]
Gradients = tuple[torch.Tensor | None, ...]


class Kernels(Protocol):
    """The two functions that somebody compiled; operands of one shape, dtype and device."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        """The loss: contiguous and of their shape for none, 0-d for sum and mean."""

    def backward(
        self,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        scale: float,
        needed: tuple[bool, bool],
    ) -> Pair:
        """``scale·g·(x - y)`` and its negative, contiguous; one of no elements if not needed."""


def define(library: str) -> None:
    """Declare both operators of ``library``, for fake tensors and vmap too. Once in a process."""
    torch.library.define(f"{library}::mse", "(Tensor x, Tensor y, str reduction) -> Tensor")
    torch.library.define(
        f"{library}::mse_gradient",
        "(Tensor g, Tensor x, Tensor y, SymInt n, bool need_x, bool need_y) -> (Tensor, Tensor)",
    )
    torch.library.register_fake(f"{library}::mse", _fake_mse)
    torch.library.register_fake(f"{library}::mse_gradient", _fake_gradient)

    def vmap_mse(
        info: Any, in_dims: Any, x: torch.Tensor, y: torch.Tensor, reduction: str
    ) -> tuple[torch.Tensor, int]:
        x, y = (_batched(t, d, info.batch_size) for t, d in zip((x, y), in_dims[:2], strict=True))
        if reduction == "none":
            return mse(library, x, y, "none"), 0
        wide = torch.promote_types(x.dtype, torch.float32)
        squares = mse(library, x.to(wide), y.to(wide), "none").reshape(len(x), x[0].numel())
        return (squares.sum(1) if reduction == "sum" else squares.mean(1)).to(x.dtype), 0

    def vmap_gradient(
        info: Any,
        in_dims: Any,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        n: int,
        need_x: bool,
        need_y: bool,
    ) -> tuple[Pair, tuple[int | None, int | None]]:
        operands = zip((g, x, y), in_dims[:3], strict=True)
        g, x, y = (_batched(t, d, info.batch_size) for t, d in operands)
        g = g.reshape(len(g), *g.shape[1:], *[1] * (x.dim() - g.dim())).expand(x.shape)
        out_dims = (0 if need_x else None, 0 if need_y else None)
        return mse_gradient(library, g, x, y, n, need_x, need_y), out_dims

    torch.library.register_vmap(f"{library}::mse", vmap_mse)
    torch.library.register_vmap(f"{library}::mse_gradient", vmap_gradient)


def implement(library: str, device: str, kernels: Callable[[], Kernels]) -> None:
    """Run the operators of ``library`` on this kind of device by ``kernels()``. Once for each."""

    def forward(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        return kernels().forward(x, y, reduction)

    def backward(
        g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, n: int, need_x: bool, need_y: bool
    ) -> Pair:
        return kernels().backward(g, x, y, 2 / n, (need_x, need_y))

    torch.library.impl(f"{library}::mse", device, forward)
    torch.library.impl(f"{library}::mse_gradient", device, backward)


def mse(library: str, *arguments: Any) -> torch.Tensor:
    value: torch.Tensor = getattr(torch.ops, library).mse.default(*arguments)
    return value


def mse_gradient(library: str, *arguments: Any) -> Pair:
    gradients: Pair = getattr(torch.ops, library).mse_gradient.default(*arguments)
    return gradients


def loss(
    library: str, input: torch.Tensor, target: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """The mean squared error by the operators of ``library``.

    Raises RuntimeError for operands on different devices, for shapes that do not broadcast and for
    dtypes that are not real and floating; ValueError for an unknown reduction.
    """
    if input.device != target.device:
        raise RuntimeError(f"operands on different devices: {input.device} and {target.device}")
    x, y = prepare(input, target)
    check_reduction(reduction)
    function: Any = SquaredError if torch.compiler.is_compiling() else SquaredErrorForward
    value: torch.Tensor = function.apply(library, x, y, reduction)
    return value


class Gradient(torch.autograd.Function):
    """``2·g·(x - y)/n`` and its negative; ``g`` is of their shape or 0-d.

    Its own derivatives are ordinary differentiable operations, in float32 for halves, so that the
    sum over the elements that belongs to a 0-d ``g`` is rounded once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        library: str,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        n: int,
        need_x: bool,
        need_y: bool,
    ) -> Pair:
        return mse_gradient(library, g, x, y, n, need_x, need_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, g, x, y, ctx.n, ctx.need_x, ctx.need_y = inputs
        ctx.save_for_backward(g, x, y)

    @staticmethod
    def backward(ctx: Any, along_x: torch.Tensor, along_y: torch.Tensor) -> Gradients:
        g, x, y = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        c = (along_x.to(wide) if ctx.need_x else 0) - (along_y.to(wide) if ctx.need_y else 0)
        by_g = 2 / ctx.n * c * (x.to(wide) - y.to(wide))
        if g.dim() < x.dim():
            by_g = by_g.sum()
        by_x = (2 / ctx.n * g.to(wide) * c).to(x.dtype)
        return None, by_g.to(g.dtype), by_x, -by_x, None, None, None


class SquaredError(torch.autograd.Function):
    """The reduced squared error of x and y, of one shape and dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(library: str, x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        return mse(library, x, y, reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.library, x, y, ctx.reduction = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        n = max(x.numel(), 1) if ctx.reduction == "mean" else 1
        _, need_x, need_y, _ = ctx.needs_input_grad
        gradient: Any = Gradient  # untyped in torch
        grad_x, grad_y = gradient.apply(ctx.library, g, x, y, n, need_x, need_y)
        return None, grad_x if need_x else None, grad_y if need_y else None, None


class SquaredErrorForward(SquaredError):
    """The same with forward-mode AD: apart, since torch.compile refuses a Function with ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, _: None, dx: torch.Tensor, dy: torch.Tensor, __: None) -> torch.Tensor:
        x, y = ctx.saved_tensors
        tangent: torch.Tensor = 2 * (x - y) * (dx - dy)
        if ctx.reduction == "none":
            return tangent
        return tangent.sum() if ctx.reduction == "sum" else tangent.mean()


def _fake_mse(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    return x.new_empty(x.shape if reduction == "none" else ())


def _fake_gradient(
    g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, n: int, need_x: bool, need_y: bool
) -> Pair:
    return x.new_empty(x.shape if need_x else 0), x.new_empty(x.shape if need_y else 0)


def _batched(operand: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """The operand with its batch dimension first; expanded where it has none."""
    return operand.expand(size, *operand.shape) if dim is None else operand.movedim(dim, 0)
