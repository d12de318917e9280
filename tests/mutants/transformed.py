"""What mutants share that are judged under torch.func, compiled and in modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets.operands import check_reduction, prepare

from .mutant import EAGER, Loss, reduce, right, right_rule
from .parts import Given, both, scale_of

FUNCTORCH = EAGER | {"functorch"}
AUTOCAST = EAGER | {"autocast"}
COMPILED = EAGER | {"compile", "dynamic"}


def transforming() -> bool:
    """Whether a transform of torch.func is at work."""
    internals: Any = torch._C._functorch
    return internals.peek_interpreter_stack() is not None


def alike(x: Tensor, y: Tensor) -> bool:
    return (x.shape, x.dtype) == (y.shape, y.dtype)


class Square(torch.autograd.Function):
    """The squares, with all that reverse mode under torch.func needs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g * (x - y))


def mappable_squares_by(function: Any) -> Loss:
    """A loss whose squares are a Function's.

    Operands that are alike are handed on as they are, with their dimensions where vmap has them.
    """

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        check_reduction(reduction)
        return reduce(function.apply(*(x, y) if alike(x, y) else prepare(x, y)), reduction)

    loss.__doc__ = function.__doc__
    return loss


class Mappable(torch.autograd.Function):
    """The loss with its reduction, with all that reverse mode under torch.func needs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduce((x - y).square(), reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, reduction = inputs
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g, ctx.scale)), None


Dims = tuple[int | None, int | None]
SampleRule = Callable[[Tensor, Tensor, Dims, str], tuple[Tensor, int]]


def fronted(v: Tensor, dim: int | None) -> Tensor:
    """With the batch dimension first, of size 1 where there is none."""
    return v.unsqueeze(0) if dim is None else v.movedim(dim, 0)


def by_vmap(rule: SampleRule) -> Loss:
    """A loss whose only defect is its rule for vmap."""

    class Ruled(Mappable):
        generate_vmap_rule = False

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> Any:
            return rule(x, y, in_dims[:2], reduction)

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = Ruled.apply
        pair = (x, y) if alike(x, y) else prepare(x, y)
        result: Tensor = apply(*pair, check_reduction(reduction))
        return result

    loss.__doc__ = rule.__doc__
    return loss


def by_sample(s: Tensor, reduction: str) -> Tensor:
    """Reduces all dimensions but the first."""
    if reduction == "none":
        return s
    flat = s.flatten(1)
    return flat.sum(1) if reduction == "sum" else flat.mean(1)


INTERNALS: Any = torch._C._functorch


def plainly(*operands: Any) -> bool:
    """An ordinary call: nothing compiles or transforms, no tangents, real memory."""
    tensors = all(type(t) is Tensor and t.device.type == "cpu" for t in operands)
    level: Any = fwad
    usual = not transforming() and not torch.compiler.is_compiling()
    return usual and level._current_level < 0 and tensors


def in_mode(mode: Callable[[], bool], wrong: Loss, doc: str) -> Loss:
    """A loss that is right but in a mode."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return (wrong if mode() else right)(x, y, reduction)

    loss.__doc__ = doc
    return loss


def masked(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    a, b = prepare(x, y)
    d = a - b
    return reduce(torch.where(d.isnan(), 0, d).square(), reduction)
