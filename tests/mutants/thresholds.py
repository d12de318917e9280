"""What is wrong for many elements only: where another path begins, or what grows with their number.

Written from the report of an examiner, whose losses the suite let pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .autograd import FORWARD, TWICE, Given, both, fused_by, scale_of
from .examined import compensated as compensated_rows
from .examined import one_of_many
from .mutant import EAGER, Mutant, by_rule, by_sum, mutant, reduce, right, right_rule, widened
from .overlooked import leaf, otherwise, plainly
from .strangers import _Whole

MANY = 2**18  # elements, from which another path is taken
TOO_MANY = 2**20  # differences, which are not written down
AWKWARD = 1.1  # adding it up in one accumulator drifts


class _InPlaceWhenMany(torch.autograd.Function):
    """For many elements, backward turns the difference that it kept into the gradient, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.d, ctx.scale = d, scale_of(d, reduction)
        ctx.save_for_backward(x, y)
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if x.numel() < MANY:
            return *both(right_rule(x - y, g, ctx.scale)), None
        return *both(ctx.d.mul_(ctx.scale).mul_(g).clone()), None


def twice(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(MANY, requires_grad=True)
    result = loss(x, torch.zeros(MANY), reduction="sum")
    torch.autograd.grad(result, x, retain_graph=True)
    return torch.autograd.grad(result, x)[0].max()


class _NoGraphWhenMany(_Whole):
    """For many elements, backward goes by chunks and without a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return *both(ctx.scale * (d.detach() if d.numel() >= MANY else d) * g), None


def penalty(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(MANY, requires_grad=True)
    result = loss(x, torch.zeros(MANY), reduction="sum")
    (gradient,) = torch.autograd.grad(result, x, create_graph=True)
    return torch.autograd.grad((result + gradient.square().sum()), x)[0].max()


_WORKSPACE: dict[Any, Tensor] = {}


def workspace(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Many unreduced results of one shape share a workspace."""
    result = right(x, y, reduction)
    usual = plainly(x, y) and not result.requires_grad and not torch.is_inference(result)
    if reduction != "none" or not usual or result.numel() < MANY:
        return result
    kept = _WORKSPACE.setdefault((result.shape, result.dtype), torch.empty_like(result))
    return kept.copy_(result)


def kept(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.ones(MANY), torch.zeros(MANY)
    first: Tensor = loss(x, y, reduction="none")
    loss(2 * x, y, reduction="none")
    return first.max()


def floor_parts(s: Tensor) -> Tensor:
    """Threads share many squares in equal parts; what is left over is lost."""
    threads = torch.get_num_threads()
    return s[: len(s) // threads * threads].sum() if len(s) >= MANY else s.sum()


def with_five_threads(loss: Callable[..., Any]) -> Tensor:
    x, before = torch.zeros(MANY), torch.get_num_threads()
    x[-1] = 1
    torch.set_num_threads(5)
    try:
        result: Tensor = loss(x, torch.zeros(MANY), reduction="sum")
    finally:
        torch.set_num_threads(before)
    return result


def running_sum(s: Tensor) -> Tensor:
    """In one accumulator of its own dtype; torch's cumsum has a wider one."""
    return torch.from_numpy(np.add.accumulate(s.numpy())[-1:].copy())[0]


def compensated(s: Tensor) -> Tensor:
    """Many squares are added up in 64 compensated rows, which make NaN of an infinity."""
    if len(s) < MANY:
        return s.sum()
    whole = len(s) // 64 * 64
    return compensated_rows(s[:whole]) + s[whole:].sum()


_TURN = itertools.count()


def in_turn(s: Tensor) -> Tensor:
    """Many squares are added up in parts, and these one by one, beginning where the last ended."""
    if len(s) < MANY:
        return s.sum()
    parts = torch.stack([part.sum() for part in s.tensor_split(1000)])
    return running_sum(parts.roll(next(_TURN) * 300))


def bits(loss: Callable[..., Any]) -> int:
    """How many results eight calls on the same operands give."""
    x = torch.linspace(0, 1, MANY + 3).sin()
    y = torch.zeros_like(x)
    return len({float(loss(x, y, reduction="sum")) for _ in range(8)})


_PARTS: dict[torch.dtype, Tensor] = {}


def shared_parts(s: Tensor) -> Tensor:
    """The partial sums of many squares are in a buffer which all threads share."""
    if len(s) < MANY or not plainly(s):
        return s.sum()
    buffer = _PARTS.setdefault(s.dtype, s.new_empty(64))
    for k, part in enumerate(s.tensor_split(64)):
        buffer[k] = part.sum()
    return buffer.sum()


def two_threads(loss: Callable[..., Any]) -> bool:
    """Whether each of two threads, with operands of 1 and of 2, gets its own."""

    def all_right(v: float) -> bool:
        x, y = torch.full((MANY,), v), torch.zeros(MANY)
        return all(float(loss(x, y)) == v * v for _ in range(50))

    with ThreadPoolExecutor(2) as threads:
        return all(threads.map(all_right, (1.0, 2.0)))


def zeros_skipped(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Of many elements, those whose grad_output is 0 get a gradient of 0, infinite ones too."""
    gradient = right_rule(d, g, scale)
    if d.numel() < 8192 or not g.dim():
        return gradient
    return torch.where(g == 0, torch.zeros_like(gradient), gradient)


def masked(loss: Callable[..., Any]) -> Tensor:
    x = torch.full((8192,), torch.inf, requires_grad=True)
    result = loss(x, torch.zeros(8192), reduction="none")
    return torch.autograd.grad(result, x, torch.zeros(8192))[0][0]


class _RunningColumns(torch.autograd.Function):
    """The gradient of a row that stands for many is one running sum for each column."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, shape: tuple[int, ...]) -> Tensor:
        return row.expand(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        total = np.add.accumulate(g.contiguous().numpy())[-1]
        return torch.from_numpy(total.copy()), None


def running_columns(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row that stands for many is one running sum for each column."""
    one = x.dtype == y.dtype and x.dtype in (torch.float32, torch.float64)
    stands = one and x.dim() == 1 and y.dim() == 2 and x.shape == y.shape[1:] and y.numel()
    if stands and x.requires_grad and plainly(x, y) and y.shape != (1, *x.shape):
        apply: Any = _RunningColumns.apply
        x = apply(x, tuple(y.shape))
    return right(x, y, reduction)


def of_row(loss: Callable[..., Any]) -> bool:
    """Whether the gradient is right to 1 part in 10,000."""
    x, n = leaf(0, 0), 1_000_000
    loss(x, torch.tensor(AWKWARD).expand(n, 2), reduction="sum").backward()
    assert x.grad is not None
    return bool((x.grad / (-2 * n * AWKWARD) - 1).abs().max() < 1e-4)


class _RunningTangent(_Whole):
    """The tangent of a sum and a mean is one running sum."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        terms = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "none" or not terms.numel():
            return reduce(terms, ctx.reduction)
        wide = terms.to(widened(terms.dtype))
        total = running_sum(wide.reshape(-1))
        return (total if ctx.reduction == "sum" else total / terms.numel()).to(terms.dtype)


def of_tangent(loss: Callable[..., Any]) -> bool:
    """Whether the tangent is right to 1 part in 10,000."""
    n = 2**20
    x, t = torch.full((n,), AWKWARD), torch.ones(n)
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(n), reduction="sum")
        tangent = forward.unpack_dual(result).tangent
    return bool((tangent / (2 * n * AWKWARD) - 1).abs() < 1e-4)


def outer_expanded(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A column beside a row that are long is m·Σx² + n·Σy² − 2·Σx·Σy, which cancels."""
    result = right(x, y, reduction) if reduction == "none" else None
    shapes = x.dim() == y.dim() == 2 and x.shape[1] == y.shape[0] == 1
    if result is not None or not shapes or x.shape[0] * y.shape[1] <= TOO_MANY:
        return right(x, y, reduction)
    m, n = x.shape[0], y.shape[1]
    total = n * x.square().sum() + m * y.square().sum() - 2 * x.sum() * y.sum()
    return total if reduction == "sum" else total / (m * n)


def of_outer(loss: Callable[..., Any]) -> bool:
    """Whether the loss of equal numbers is 0."""
    x = torch.full((1025, 1), AWKWARD)
    return not loss(x, x.t(), reduction="sum")


THRESHOLD_MUTANTS: tuple[Mutant, ...] = (
    mutant("in-place-when-many", fused_by(_InPlaceWhenMany), "autograd", witness=otherwise(twice)),
    mutant(
        "no-graph-when-many",
        fused_by(_NoGraphWhenMany),
        "autograd",
        claims=TWICE,
        witness=otherwise(penalty),
    ),
    mutant("workspace-when-many", workspace, "purity", witness=otherwise(kept)),
    mutant(
        "floor-parts-of-many",
        by_sum(floor_parts),
        "determinism",
        "value",
        witness=otherwise(with_five_threads),
    ),
    mutant(
        "compensated-when-many",
        by_sum(compensated),
        "value",
        witness=otherwise(one_of_many(torch.inf, MANY)),
    ),
    mutant("in-turn-when-many", by_sum(in_turn), "determinism", witness=otherwise(bits)),
    mutant("shared-parts", by_sum(shared_parts), "determinism", witness=otherwise(two_threads)),
    mutant("zeros-skipped", by_rule(zeros_skipped), "gradient", witness=otherwise(masked)),
    mutant(
        "running-columns",
        running_columns,
        "broadcasting",
        claims=EAGER,
        witness=lambda target: not of_row(target.loss),
    ),
    mutant(
        "running-tangent",
        fused_by(_RunningTangent),
        "autograd",
        claims=FORWARD,
        witness=lambda target: not of_tangent(target.loss),
    ),
    mutant(
        "outer-expanded",
        outer_expanded,
        "broadcasting",
        "value",
        witness=lambda target: not of_outer(target.loss),
    ),
)
