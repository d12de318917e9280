"""A differentiable loss from two compiled kernels, registered as operators of a library.

So fake tensors, vmap and torch.compile know the kernels. Of a loss that is :data:`MSE`,
``LIBRARY::mse(x, y, reduction)`` and ``LIBRARY::mse_gradient(g, x, y, n, need_x, need_y)`` take
operands of one shape and dtype; ``g`` has that shape or is 0-d, and ``n`` divides: an integer,
since torch.compile makes one graph for all of them and one for each float. The operators of another
loss are named for it, and take its parameter last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from targets.operands import check_reduction, prepare

Pair = tuple[torch.Tensor, torch.Tensor]
Gradients = tuple[torch.Tensor | None, ...]
Value = float | None  # of the loss's parameter; None where it has none


class Kernels(Protocol):
    """The two functions that somebody compiled; operands of one shape, dtype and device.

    Both are handed the value of the loss's parameter, where it has one, behind the others.

    ``forward(x, y, reduction)``: the loss, contiguous and of their shape for none, 0-d for sum and
    mean. ``backward(g, x, y, scale, (need_x, need_y))``: ``scale·g·slope(x - y)`` and its negative,
    contiguous; one of no elements if not needed.
    """

    @property
    def forward(self) -> Callable[..., torch.Tensor]: ...

    @property
    def backward(self) -> Callable[..., Pair]: ...


@dataclass(frozen=True)
class Elementwise:
    """A loss ℓ(d), of which ``factor``·``slope(d, …)`` is the derivative.

    ``name``: of its operators. ``parameter``: as torch's own calls it, a float; empty for none.
    ``curved(v, d, …)``: v times the derivative of the slope.
    """

    name: str
    factor: int
    slope: Callable[..., torch.Tensor]
    curved: Callable[..., torch.Tensor]
    parameter: str = ""

    @property
    def schema(self) -> str:
        """How the parameter stands in an operator's."""
        return f", float {self.parameter}" if self.parameter else ""


MSE = Elementwise("mse", 2, slope=lambda d: d, curved=lambda v, d: v)
HUBER = Elementwise(
    "huber",
    1,
    slope=lambda d, delta: d.clamp(-delta, delta),
    curved=lambda v, d, delta: torch.where(d.abs() <= delta, v, 0),
    parameter="delta",
)


def define(library: str, of: Elementwise = MSE) -> None:
    """Declare both operators of ``library``, for fake tensors and vmap too. Once in a process."""
    name, gradient = f"{library}::{of.name}", f"{library}::{of.name}_gradient"
    torch.library.define(name, f"(Tensor x, Tensor y, str reduction{of.schema}) -> Tensor")
    operands = "Tensor g, Tensor x, Tensor y, SymInt n, bool need_x, bool need_y"
    torch.library.define(gradient, f"({operands}{of.schema}) -> (Tensor, Tensor)")
    torch.library.register_fake(name, _fake_loss)
    torch.library.register_fake(gradient, _fake_gradient)

    def vmap_loss(
        info: Any, in_dims: Any, x: torch.Tensor, y: torch.Tensor, reduction: str, *at: float
    ) -> tuple[torch.Tensor, int]:
        x, y = (_batched(t, d, info.batch_size) for t, d in zip((x, y), in_dims[:2], strict=True))
        if reduction == "none":
            return _loss(of, library, x, y, "none", *at), 0
        wide = torch.promote_types(x.dtype, torch.float32)
        terms = _loss(of, library, x.to(wide), y.to(wide), "none", *at)
        terms = terms.reshape(len(x), x[0].numel())
        return (terms.sum(1) if reduction == "sum" else terms.mean(1)).to(x.dtype), 0

    def vmap_gradient(
        info: Any,
        in_dims: Any,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        n: int,
        need_x: bool,
        need_y: bool,
        *at: float,
    ) -> tuple[Pair, tuple[int | None, int | None]]:
        operands = zip((g, x, y), in_dims[:3], strict=True)
        g, x, y = (_batched(t, d, info.batch_size) for t, d in operands)
        g = g.reshape(len(g), *g.shape[1:], *[1] * (x.dim() - g.dim())).expand(x.shape)
        out_dims = (0 if need_x else None, 0 if need_y else None)
        return _gradient(of, library, g, x, y, n, need_x, need_y, *at), out_dims

    torch.library.register_vmap(name, vmap_loss)
    torch.library.register_vmap(gradient, vmap_gradient)


def implement(
    library: str, device: str, kernels: Callable[[], Kernels], of: Elementwise = MSE
) -> None:
    """Run the operators of ``library`` on this kind of device by ``kernels()``. Once for each."""

    def forward(x: torch.Tensor, y: torch.Tensor, reduction: str, *at: float) -> torch.Tensor:
        return kernels().forward(x, y, reduction, *at)

    def backward(
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        n: int,
        need_x: bool,
        need_y: bool,
        *at: float,
    ) -> Pair:
        return kernels().backward(g, x, y, of.factor / n, (need_x, need_y), *at)

    torch.library.impl(f"{library}::{of.name}", device, forward)
    torch.library.impl(f"{library}::{of.name}_gradient", device, backward)


def _loss(of: Elementwise, library: str, *arguments: Any) -> torch.Tensor:
    operators = getattr(torch.ops, library)
    value: torch.Tensor = getattr(operators, of.name).default(*arguments)
    return value


def _gradient(of: Elementwise, library: str, *arguments: Any) -> Pair:
    operators = getattr(torch.ops, library)
    gradients: Pair = getattr(operators, f"{of.name}_gradient").default(*arguments)
    return gradients


def loss(
    library: str,
    input: torch.Tensor,
    target: torch.Tensor,
    reduction: str = "mean",
    at: Value = None,
    of: Elementwise = MSE,
) -> torch.Tensor:
    """The loss by the operators of ``library``, where its parameter is ``at``.

    Raises RuntimeError for operands on different devices, for shapes that do not broadcast and for
    dtypes that are not real and floating; ValueError for an unknown reduction.
    """
    if input.device != target.device:
        raise RuntimeError(f"operands on different devices: {input.device} and {target.device}")
    x, y = prepare(input, target)
    check_reduction(reduction)
    function: Any = Reduced if torch.compiler.is_compiling() else ReducedForward
    value: torch.Tensor = function.apply(of, library, x, y, reduction, at)
    return value


def given(at: Value) -> tuple[float, ...]:
    """The parameter as the last arguments of an operator: one or none.

    A Function has a number of arguments that is fixed: torch's transforms do not stand another.
    """
    return () if at is None else (at,)


class Gradient(torch.autograd.Function):
    """``factor·g·slope(x - y)/n`` and its negative; ``g`` is of their shape or 0-d.

    Its own derivatives are ordinary differentiable operations, in float32 for halves, so that the
    sum over the elements that belongs to a 0-d ``g`` is rounded once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        of: Elementwise,
        library: str,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        n: int,
        need_x: bool,
        need_y: bool,
        at: Value,
    ) -> Pair:
        return _gradient(of, library, g, x, y, n, need_x, need_y, *given(at))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.of, _, g, x, y, ctx.n, ctx.need_x, ctx.need_y, ctx.at = inputs
        ctx.save_for_backward(g, x, y)

    @staticmethod
    def backward(ctx: Any, along_x: torch.Tensor, along_y: torch.Tensor) -> Gradients:
        g, x, y = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        c = (along_x.to(wide) if ctx.need_x else 0) - (along_y.to(wide) if ctx.need_y else 0)
        d, scale = x.to(wide) - y.to(wide), ctx.of.factor / ctx.n
        by_g = scale * c * ctx.of.slope(d, *given(ctx.at))
        if g.dim() < x.dim():
            by_g = by_g.sum()
        by_x = ctx.of.curved(scale * g.to(wide) * c, d, *given(ctx.at)).to(x.dtype)
        return None, None, by_g.to(g.dtype), by_x, -by_x, None, None, None, None


class Reduced(torch.autograd.Function):
    """The reduced loss of x and y, of one shape and dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        of: Elementwise,
        library: str,
        x: torch.Tensor,
        y: torch.Tensor,
        reduction: str,
        at: Value,
    ) -> torch.Tensor:
        return _loss(of, library, x, y, reduction, *given(at))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.of, ctx.library, x, y, ctx.reduction, ctx.at = inputs
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        n = max(x.numel(), 1) if ctx.reduction == "mean" else 1
        need_x, need_y = ctx.needs_input_grad[2:4]
        gradient: Any = Gradient  # untyped in torch
        grad_x, grad_y = gradient.apply(ctx.of, ctx.library, g, x, y, n, need_x, need_y, ctx.at)
        return None, None, grad_x if need_x else None, grad_y if need_y else None, None, None


class ReducedForward(Reduced):
    """The same with forward-mode AD: apart, since torch.compile refuses a Function with ``jvp``."""

    @staticmethod
    def jvp(
        ctx: Any, _: None, __: None, dx: torch.Tensor, dy: torch.Tensor, *rest: None
    ) -> torch.Tensor:
        x, y = ctx.saved_tensors
        tangent: torch.Tensor = ctx.of.factor * ctx.of.slope(x - y, *given(ctx.at)) * (dx - dy)
        if ctx.reduction == "none":
            return tangent
        return tangent.sum() if ctx.reduction == "sum" else tangent.mean()


def _fake_loss(x: torch.Tensor, y: torch.Tensor, reduction: str, *at: float) -> torch.Tensor:
    return x.new_empty(x.shape if reduction == "none" else ())


def _fake_gradient(
    g: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    n: int,
    need_x: bool,
    need_y: bool,
    *at: float,
) -> Pair:
    return x.new_empty(x.shape if need_x else 0), x.new_empty(x.shape if need_y else 0)


def _batched(operand: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """The operand with its batch dimension first; expanded where it has none."""
    return operand.expand(size, *operand.shape) if dim is None else operand.movedim(dim, 0)
