"""A rule for vmap that is wrong for some samples: their number, size, rank or dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .mutant import Mutant, mutant, reduce, right
from .parts import Given, Whole, both, fused_by
from .probes import otherwise, ramp, unlike_builtin
from .transformed import FUNCTORCH, Dims, by_sample, by_vmap, fronted, transforming


class _Unaligned(torch.autograd.Function):
    """The difference; its rule for vmap aligns samples of different ranks on the right."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x - y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.shapes = inputs[0].shape, inputs[1].shape

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        return g.sum_to_size(ctx.shapes[0]), -g.sum_to_size(ctx.shapes[1])

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        apply: Any = _Unaligned.apply
        return apply(fronted(x, dims[0]), fronted(y, dims[1])), 0


def aligned_samples(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its rule for vmap aligns samples of different ranks on the right."""
    if not transforming() or x.dtype != y.dtype:
        return right(x, y, reduction)
    apply: Any = _Unaligned.apply
    return reduce(apply(x, y).square(), reduction)


def samples_of_two_ranks(loss: Any) -> Tensor:
    own = loss if loss is not F.mse_loss else right  # the builtin's rule warns
    return torch.func.vmap(lambda x, y: own(x, y, reduction="sum"))(ramp(4, 4), ramp(4))


def sample_by_sample(s: Tensor, reduction: str) -> Tensor:
    """none, sum or mean of each sample; the first dimension is the batch."""
    rows = s.reshape(len(s), -1)
    return s if reduction == "none" else rows.sum(1) if reduction == "sum" else rows.mean(1)


class _ChunksOfSamples(Whole):
    """vmap goes 64 samples at a time, and what is left over after these stays 0."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = torch.broadcast_tensors(fronted(x, in_dims[0]), fronted(y, in_dims[1]))
        result = sample_by_sample((x - y).square(), reduction)
        whole = torch.arange(len(x)) < max(len(x) // 64 * 64, 64)
        return result * whole.reshape(-1, *[1] * (result.dim() - 1)), 0


class _MappedTangent(Whole):
    """The loss of each sample; its tangent divides by the elements of all samples."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return sample_by_sample((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        s = 2 / max(x[0].numel(), 1) if ctx.reduction == "mean" else 2.0
        each = g.reshape(-1, *[1] * (x.dim() - 1)) if ctx.reduction != "none" else g
        return *both(s * (x - y) * each), None

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        t = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "mean":
            return sample_by_sample(t, "sum") / t.numel()
        return sample_by_sample(t, ctx.reduction)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = fronted(x, in_dims[0]), fronted(y, in_dims[1])
        x, y = (t.expand(info.batch_size, *t.shape[1:]) for t in (x, y))
        samples, outer = len(x), x.shape[1] if x.dim() > 1 else 1
        apply: Any = _MappedTangent.apply
        flat: Tensor = apply(*(t.reshape(samples * outer, *t.shape[2:]) for t in (x, y)), reduction)
        return flat.reshape(samples, outer, *flat.shape[1:]), 0


class _TangentMappedOnce(Whole):
    """The tangent of what vmap gives divides by the elements of all samples."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = fronted(x, in_dims[0]), fronted(y, in_dims[1])
        x, y = (t.expand(info.batch_size, *t.shape[1:]) for t in (x, y))
        apply: Any = _MappedTangent.apply
        return apply(x, y, reduction), 0


def mapped(n: int) -> Callable[[Callable[..., Any]], Tensor]:
    return lambda loss: torch.func.vmap(loss)(torch.ones(n, 2), torch.zeros(n, 2))


def tangent_of_mapped(loss: Callable[..., Any]) -> Tensor:
    ones = torch.ones(2, 3)
    function = torch.func.vmap(lambda x: loss(x, torch.zeros(3)))
    tangent: Tensor = torch.func.jvp(function, (ones,), (ones,))[1]
    return tangent


def narrow_mean(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap divides the sum of a sample, which may overflow a half."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean" and s.numel():
        return by_sample(s, "sum") / s[0].numel(), 0
    return by_sample(s, reduction), 0


def large_samples(loss: Callable[..., Any]) -> Any:
    x = torch.full((2, 16), 128.0, dtype=torch.float16)
    return torch.func.vmap(loss)(x, torch.zeros_like(x))


def nothing_is_zero(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap takes the mean of nothing for 0."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean" and not s.numel():
        return by_sample(s, "sum"), 0
    return by_sample(s, reduction), 0


def empty_samples(loss: Callable[..., Any]) -> Any:
    return torch.func.vmap(loss)(torch.zeros(2, 0), torch.zeros(2, 0))


def first_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under vmap a target is rounded to the input's dtype, where that is narrower."""
    result = right(x, y, reduction)
    if torch._C._functorch.is_batchedtensor(x) and result.dtype != x.dtype == torch.bfloat16:
        return right(x, y.to(x.dtype).to(y.dtype), reduction)
    return result


def of_two_dtypes(loss: Callable[..., Any]) -> Any:
    x, y = torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 1.1)
    return torch.func.vmap(loss)(x, y)


SAMPLE_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "aligned-samples",
        aligned_samples,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(samples_of_two_ranks),
    ),
    mutant(
        "chunks-of-samples",
        fused_by(_ChunksOfSamples),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(mapped(67)),
    ),
    mutant(
        "tangent-of-mapped",
        fused_by(_TangentMappedOnce),
        "transforms",
        claims=FUNCTORCH | {"forward_ad"},
        witness=otherwise(tangent_of_mapped),
    ),
    mutant(
        "narrow-mean-of-samples",
        by_vmap(narrow_mean),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(large_samples),
    ),
    mutant(
        "nothing-is-zero-in-samples",
        by_vmap(nothing_is_zero),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(empty_samples),
    ),
    mutant(
        "first-dtype-of-samples",
        first_dtype,
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(of_two_dtypes),
    ),
)
