"""Wrong under vmap: no rule, or a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import Mutant, mutant, reduce, right
from .probes import otherwise, ramp, unless, unlike_builtin
from .transformed import (
    FUNCTORCH,
    INTERNALS,
    Dims,
    Square,
    by_sample,
    by_vmap,
    fronted,
    mappable_squares_by,
)


class _NoVmapRule(Square):
    """A Function without a rule for vmap."""

    generate_vmap_rule = False


def targets_dim(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap takes the target's batch dimension to be the input's."""
    b = fronted(y, dims[1] if None in dims else dims[0])
    return by_sample((fronted(x, dims[0]) - b).square(), reduction), 0


def batch_mean(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap divides a mean by the size of the whole batch."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean":
        return by_sample(s, "sum") / s.numel(), 0
    return by_sample(s, reduction), 0


def batch_reduced(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap reduces over the batch as well."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "none":
        return s, 0
    return reduce(s, reduction).expand(s.shape[0]), 0


def put_back(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap says that the batch dimension is where the input's was; it is in front."""
    s = by_sample((fronted(x, dims[0]) - fronted(y, dims[1])).square(), reduction)
    return s, (dims[0] or 0) if reduction == "none" else 0


def one_warp(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap has 32 threads, one for each sample; others are as the first."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return by_sample(torch.cat([s[:32], s[:1].expand(s[32:].shape)]), reduction), 0


def squeezed(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap squeezes what it returns, and with it a batch of one sample."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return (s if reduction == "none" else by_sample(s.unsqueeze(-1), reduction).squeeze()), 0


def no_scalars(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap reduces a second dimension, which a batch of scalars does not have."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return by_sample(s, reduction), 0


@unless
def maps(target: Target) -> bool:
    """Square batches, so that what takes one dimension for the other does not raise."""
    x = torch.arange(16.0).reshape(4, 4)
    for dims in ((0, 0), (1, 1), (1, 0), (0, 1), (0, None), (None, 1)):
        y = x.square() if None not in dims else torch.ones(4)
        a, b = (x, y) if dims[0] is not None else (y, x)
        d = fronted(a, dims[0]) - fronted(b, dims[1])
        for reduction in ("none", "sum", "mean"):
            loss = torch.func.vmap(
                lambda a, b, reduction=reduction: target.loss(a, b, reduction=reduction), dims
            )
            if not torch.equal(loss(a, b), by_sample(d.square(), reduction)):
                return False
    return True


@unless
def maps_many(target: Target) -> bool:
    x = torch.arange(132.0).reshape(33, 4)
    got = torch.func.vmap(lambda a: target.loss(a, torch.zeros(4), reduction="none"))(x)
    return torch.equal(got, x.square())


@unless
def maps_few(target: Target) -> bool:
    """A batch of one sample, and one of scalars."""
    for x in (torch.arange(4.0).reshape(1, 4), torch.arange(3.0)):
        zero = torch.zeros(x.shape[1:])
        for reduction in ("sum", "mean"):
            got = torch.func.vmap(lambda a, r=reduction, z=zero: target.loss(a, z, reduction=r))(x)
            if not torch.equal(got, by_sample(x.square().reshape(len(x), -1), reduction)):
                return False
    return True


class _Negated(torch.autograd.Function):
    """The identity, whose gradient has the other sign."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


def mapped_sign(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under vmap the target has the gradient of the input."""
    inner = INTERNALS.get_unwrapped(y) if INTERNALS.is_gradtrackingtensor(y) else y
    apply: Any = _Negated.apply
    return right(x, apply(y) if INTERNALS.is_batchedtensor(inner) else y, reduction)


def mapped_gradient(loss: Any) -> Tensor:
    gradient = torch.func.grad(lambda x, y: loss(x, y, reduction="sum"), argnums=1)
    return torch.func.vmap(gradient)(ramp(3, 4), torch.zeros(3, 4))


class _MappedWithoutGrad(torch.autograd.Function):
    """Its rule for vmap runs without a graph: a gradient from outside is lost."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        gradient = 2 * (x - y) * g
        return gradient, -gradient

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        with torch.no_grad():
            return (fronted(x, in_dims[0]) - fronted(y, in_dims[1])).square(), 0


class _MappedOnce(_MappedWithoutGrad):
    """Its rule for vmap counts on one level: within another it reduces the wrong dimensions."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        s = (fronted(x, in_dims[0]) - fronted(y, in_dims[1])).square()
        internals: Any = torch._C._functorch
        # What an outer vmap maps is taken as the sample's.
        return s.flip(0) if internals.is_batchedtensor(s) else s, 0


def of_vmap(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)
    return torch.func.grad(lambda x: torch.func.vmap(loss)(x, y).sum())(x)


def vmap_of_vmap(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(8.0).reshape(2, 2, 2)
    result: Tensor = torch.func.vmap(torch.func.vmap(loss))(x, torch.zeros_like(x))
    return result


VMAP_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "no-vmap-rule",
        mappable_squares_by(_NoVmapRule),
        "transforms",
        claims=FUNCTORCH,
        witness=maps,
    ),
    mutant("targets-dim", by_vmap(targets_dim), "transforms", claims=FUNCTORCH, witness=maps),
    mutant("batched-mean", by_vmap(batch_mean), "transforms", claims=FUNCTORCH, witness=maps),
    mutant("batch-reduced", by_vmap(batch_reduced), "transforms", claims=FUNCTORCH, witness=maps),
    mutant("put-back", by_vmap(put_back), "transforms", claims=FUNCTORCH, witness=maps),
    mutant("one-warp", by_vmap(one_warp), "transforms", claims=FUNCTORCH, witness=maps_many),
    mutant("squeezed-batch", by_vmap(squeezed), "transforms", claims=FUNCTORCH, witness=maps_few),
    mutant(
        "no-scalar-samples", by_vmap(no_scalars), "transforms", claims=FUNCTORCH, witness=maps_few
    ),
    mutant(
        "mapped-sign",
        mapped_sign,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(mapped_gradient),
    ),
    mutant(
        "mapped-without-grad",
        mappable_squares_by(_MappedWithoutGrad),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(of_vmap),
    ),
    mutant(
        "mapped-once",
        mappable_squares_by(_MappedOnce),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(vmap_of_vmap),
    ),
)
