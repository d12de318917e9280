"""Right in the form that they say they answer in: another shape, dtype or sum than usual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from targets import DROP_IN, Domain, Result, Target
from targets.operands import check_reduction, prepare

from .common import EAGER, FORMULA, Loss, reduce, widened

ONE_DTYPE = EAGER - {"mixed_dtype"}


def squares(x: Tensor, y: Tensor) -> Tensor:
    """In the promoted dtype."""
    a, b = prepare(x, y)
    return (a - b).square()


class _OneNumber(torch.autograd.Function):
    """A kernel that adds to a buffer of one element, and returns that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = widened(x) - widened(y)
        ctx.save_for_backward(x, y)
        ctx.scale = 2 / max(d.numel(), 1) if reduction == "mean" else 2
        if reduction == "none":
            return d.square().to(x.dtype)
        total = d.square().sum(dim=[*range(d.dim())]).expand(1).clone()
        return (total / d.numel() if reduction == "mean" else total).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y = ctx.saved_tensors
        gradient = (ctx.scale * (widened(x) - widened(y)) * widened(g)).to(x.dtype)
        return gradient, -gradient, None


def one_number(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A sum or mean has the shape (1,)."""
    x, y = prepare(x, y)
    result: Tensor = _OneNumber.apply(x, y, check_reduction(reduction))  # type: ignore[no-untyped-call]
    return result


def flattened(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none is one line, and a sum or mean a line of one."""
    return reduce(squares(x, y), reduction).reshape(-1)


def for_each_sample(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A sum or mean for each sample, over all other dimensions."""
    s = squares(x, y)
    if check_reduction(reduction) == "none" or s.dim() < 2:
        return s  # of one number each, and of none at all
    return s.flatten(1).sum(1) if reduction == "sum" else s.flatten(1).mean(1)


def over_the_last(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A mean over the last dimension: one for each row."""
    if check_reduction(reduction) != "mean":
        raise ValueError("a mean only")
    return squares(x, y).mean(-1)


def by_batch(x: Tensor, y: Tensor, reduction: str = "batchmean") -> Tensor:
    """The sum over the size of the batch, as ``kl_div`` calls it."""
    s = squares(x, y)
    if reduction == "batchmean":
        return (s.sum(dtype=widened(s).dtype) / s.shape[0]).to(s.dtype)
    if reduction not in ("none", "sum"):
        raise ValueError(f"unknown reduction {reduction!r}")
    return s if reduction == "none" else s.sum()


def sum_of_means(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Each sample's mean, added up."""
    s = squares(x, y)
    if check_reduction(reduction) == "mean":
        return s.flatten(1).mean(1).sum() if s.dim() > 1 else s.sum()
    return s if reduction == "none" else s.sum()


def in_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32, of halves too; float64 operands are subtracted as they are."""
    x, y = prepare(x, y)
    d = x.float() - y.float() if x.itemsize < 4 else x - y
    return reduce(d.float().square(), reduction)


def target_as_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """What labels are kept as."""
    x, y = prepare(x, y)
    return reduce((x - y.float().to(x.dtype)).square(), reduction)


def all_as_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Whatever comes is cast at the door, as Keras does."""
    x, y = prepare(x, y)
    return reduce((x.float() - y.float()).square(), reduction)


def as_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """``y.to(x)``, as many a module has it: of two dtypes, input's counts."""
    both = squares(x, y)
    if not x.is_floating_point():
        return reduce(both, reduction)
    return reduce((x - y.to(x.dtype)).square(), reduction)


def _target(loss: Loss, claims: frozenset[str], result: Result, **others: Any) -> Target:
    limits: dict[str, Any] = others.pop("domain", {})
    name = "gives-" + loss.__name__.replace("_", "-")
    return Target(name, loss, claims, domain=Domain(result=result, **limits), **others)


BATCHED: dict[str, Any] = {"domain": {"ranks": (1, 64)}}
BY_BATCH: dict[str, Any] = {**BATCHED, "reductions": ("none", "sum", "batchmean")}
IN_FLOAT32 = Result(dtype="float32")
CAST = Result(dtype="float32", rounded=("float32", "float32"))
WIDE: dict[str, Any] = {"dtypes": ("float64", "float32")}

RIGHT_FORMS: tuple[Target, ...] = (
    _target(one_number, EAGER, Result(scalar=(1,))),
    _target(flattened, FORMULA, Result(scalar=(1,), flat=True)),
    _target(for_each_sample, FORMULA, Result(over=(1, None))),
    _target(over_the_last, FORMULA, Result(over=(-1, None)), **BATCHED, reductions=("mean",)),
    _target(by_batch, FORMULA, Result(mean="batchmean", divisor=(0, 1)), **BY_BATCH),
    _target(sum_of_means, FORMULA, Result(divisor=(1, None)), **BATCHED),
    _target(in_float32, DROP_IN - {"autocast", "mixed_dtype"}, IN_FLOAT32),
    _target(target_as_float32, ONE_DTYPE, Result(rounded=("", "float32")), **WIDE),
    _target(all_as_float32, ONE_DTYPE, CAST),
    _target(as_input, EAGER, Result(dtype="input", rounded=("", "input"))),
)
