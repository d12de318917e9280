"""Shapes of different sizes, combined wrongly, in the value and in the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets.operands import check_reduction, prepare

from .mutant import Loss, Mutant, mutant, reduce, right, right_rule, widened, with_value
from .parts import AWKWARD, eight_strides
from .probes import accepts, ramp, ramp_leaf
from .witnesses import wrong_gradient, wrong_value

# --- values


def left_aligned(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes of different lengths are aligned on the left where that fits."""
    dims = max(x.dim(), y.dim())
    a, b = (v.reshape((*v.shape, *(1,) * (dims - v.dim()))) for v in (x, y))
    fits = all(p == q or 1 in (p, q) for p, q in zip(a.shape, b.shape, strict=True))
    return right(a, b, reduction) if fits else right(x, y, reduction)


def cuts(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Vectors of different lengths are cut to the shorter one."""
    if x.dim() == y.dim() == 1 and 1 not in (len(x), len(y)):
        n = min(len(x), len(y))
        x, y = x[:n], y[:n]
    return right(x, y, reduction)


def all_pairs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Vectors of different lengths are compared each with each."""
    pairs = x.dim() == y.dim() == 1 and len(x) != len(y) and 1 not in (len(x), len(y))
    return right(x.unsqueeze(1) if pairs else x, y, reduction)


def repeated(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A smaller target is repeated element after element to the input's size."""
    if 0 < y.numel() < x.numel() and x.numel() % y.numel() == 0:
        y = y.reshape(-1).repeat(x.numel() // y.numel()).reshape(x.shape)
    return right(x, y, reduction)


def ranks_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Shapes of different lengths raise."""
    if x.dim() != y.dim():
        raise RuntimeError(f"{x.dim()} dimensions against {y.dim()}")
    return right(x, y, reduction)


def only_target_expands(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Expands the target to the input, and raises where the input is the smaller."""
    return right(x, y.expand(x.shape), reduction)


def input_size(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean divides by the size of the input, not of the broadcast shape."""
    if reduction != "mean" or x.numel() == 0:
        return right(x, y, reduction)
    a, b = prepare(x, y)
    total = (a - b).square().sum(dtype=widened(a.dtype))
    return (total / x.numel()).to(a.dtype)


def shape_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Only the target is broadcast; of a larger target the first part is used."""
    result = right(x, y, "none")
    for dim, size in enumerate(x.shape[::-1], start=1):
        if size == 1:
            result = result.narrow(-dim, 0, min(1, result.shape[-dim]))
    return reduce(result, reduction)


def size_one_is_empty(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Size 1 against size 0 raises, though the result is empty."""
    if x.shape != y.shape and 0 in (x.numel(), y.numel()):
        raise RuntimeError("cannot broadcast to nothing")
    return right(x, y, reduction)


# --- gradients

Fold = Callable[[Tensor, torch.Size], Tensor]
Count = Callable[[Tensor, Tensor], int]


class _Folding(torch.autograd.Function):
    """Broadcasts inside, so that its backward has to bring gradients to their operands' shapes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, fold: Fold, count: Count) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.mean, ctx.fold, ctx.count = reduction == "mean", fold, count
        return right(x, y, reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        a, b = prepare(x, y)
        scale = 2 / max(ctx.count(x, a), 1) if ctx.mean else 2.0
        gradient = right_rule((a - b).to(widened(a.dtype)), g, scale)
        first, second = ctx.needs_input_grad[:2]
        return (
            ctx.fold(gradient, x.shape).to(x.dtype) if first else None,
            -ctx.fold(gradient, y.shape).to(y.dtype) if second else None,
            None,
            None,
            None,
        )


def summed(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient is summed over the broadcast dimensions."""
    return gradient.sum_to_size(shape)


def whole_count(x: Tensor, whole: Tensor) -> int:
    """n is the size of the broadcast shape."""
    return whole.numel()


def folding(fold: Fold = summed, count: Count = whole_count) -> Loss:
    """A loss that broadcasts inside; its gradients are right but for ``fold`` or ``count``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Folding.apply
        result: Tensor = apply(x, y, check_reduction(reduction), fold, count)
        return result

    loss.__doc__ = fold.__doc__ if fold is not summed else count.__doc__
    return loss


def count_of_input(x: Tensor, whole: Tensor) -> int:
    """1/n in the gradient is taken from the input's own size."""
    return x.numel()


def averages_back(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a broadcast operand is averaged, not summed."""
    return gradient.sum_to_size(shape) / max(gradient.numel() / max(math.prod(shape), 1), 1)


def no_sum_back(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a broadcast operand is cut to its size, not summed."""
    if math.prod(shape) >= gradient.numel():
        return gradient.sum_to_size(shape)
    return gradient.reshape(-1)[: math.prod(shape)].reshape(shape).clone()


def fold_leading(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Dimensions that were missing are summed; of those of size 1 the last slice counts."""
    dims = gradient.dim() - len(shape)
    gradient = gradient.sum(tuple(range(dims))) if dims else gradient
    if gradient.numel() == 0:
        return gradient.sum_to_size(shape)
    for k, size in enumerate(shape):
        gradient = gradient.narrow(k, gradient.shape[k] - size, size)
    return gradient.clone()


def fold_first_axis(gradient: Tensor, shape: torch.Size) -> Tensor:
    """A gradient that is too large is summed over the first axis, if its size then fits."""
    if gradient.dim() < 2 or gradient.numel() == math.prod(shape) or gradient.numel() == 0:
        return gradient.sum_to_size(shape)
    folded = gradient.sum(0)
    fits = folded.numel() == math.prod(shape)
    return folded.reshape(shape) if fits else gradient.sum_to_size(shape)


def fold_one_dimension(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Only the first broadcast dimension is summed; of the others the first slice counts."""
    missing = gradient.dim() - len(shape)
    sizes = (*(1,) * missing, *shape)
    broadcast = [k for k, size in enumerate(sizes) if size != gradient.shape[k]]
    for k in broadcast[1:]:
        gradient = gradient.narrow(k, 0, min(1, gradient.shape[k]))
    return gradient.sum_to_size(shape)


def fold_in_bfloat16(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a broadcast operand is summed in bfloat16."""
    if gradient.numel() == math.prod(shape):
        return gradient.sum_to_size(shape)
    return gradient.bfloat16().sum_to_size(shape).to(gradient.dtype)


def flattens(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Operands of as many elements are taken for equal shapes (pytorch issue 4938)."""
    same = x.shape != y.shape and x.numel() == y.numel()
    return right(x, y.reshape(x.shape) if same else y, reduction)


def refused_without_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sizes that differ raise where nothing needs a gradient (pytorch issue 12129)."""
    if x.shape != y.shape and not (x.requires_grad or y.requires_grad):
        raise RuntimeError("input and target shapes do not match")
    return right(x, y, reduction)


def refused_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sizes that differ raise where the target needs a gradient (pytorch issue 33787)."""
    if y.requires_grad and x.shape != y.shape:
        raise RuntimeError("the sizes differ")
    return right(x, y, reduction)


def eight_expanded(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Expands up to eight dimensions; of a ninth it sees the first element."""
    honest = right(x, y, reduction)
    if x.shape == y.shape or honest.numel() == 0 or max(x.dim(), y.dim()) < 9:
        return honest
    return with_value(honest, eight_strides(*prepare(x.detach(), y.detach()), reduction))


def cut_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where a gradient is needed, vectors of different lengths are cut to the shorter."""
    if x.requires_grad and x.dim() == y.dim() == 1 and 1 not in (len(x), len(y)):
        n = min(len(x), len(y))
        x, y = x[:n], y[:n]
    return right(x, y, reduction)


def empty_before_shapes(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Operands of no elements are right whatever their shapes."""
    if x.numel() == y.numel() == 0 and x.dim() == y.dim():
        y = y.new_empty(x.shape) if 1 not in (*x.shape, *y.shape) else y
    return right(x, y, reduction)


TOO_MANY = 2**20  # differences, which are not written down


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


BROADCASTING_MUTANTS: tuple[Mutant, ...] = (
    mutant("left-aligned", left_aligned, "broadcasting"),
    mutant("cuts", cuts, "broadcasting", "errors"),
    mutant("all-pairs", all_pairs, "broadcasting", "errors"),
    mutant("repeated", repeated, "broadcasting"),
    mutant("ranks-refused", ranks_refused, "broadcasting"),
    mutant("only-target-expands", only_target_expands, "broadcasting"),
    mutant("input-size", input_size, "broadcasting"),
    mutant("shape-of-input", shape_of_input, "broadcasting"),
    mutant(
        "size-one-is-empty",
        size_one_is_empty,
        "broadcasting",
        "value",
        witness=wrong_value(lambda: (torch.ones(1, 3), torch.ones(0, 3))),
    ),
    mutant("n-of-input", folding(count=count_of_input), "broadcasting", "gradient"),
    mutant("averages-back", folding(averages_back), "broadcasting", "gradient"),
    mutant("no-sum-back", folding(no_sum_back), "broadcasting", "gradient"),
    mutant("fold-leading", folding(fold_leading), "broadcasting"),
    mutant(
        "fold-first-axis",
        folding(fold_first_axis),
        "broadcasting",
        witness=wrong_gradient(lambda: (torch.arange(9.0).reshape(3, 3), torch.zeros(3, 1))),
    ),
    mutant(
        "fold-one-dimension",
        folding(fold_one_dimension),
        "broadcasting",
        witness=wrong_gradient(lambda: (torch.arange(6.0).reshape(2, 3), torch.zeros(1, 1))),
    ),
    mutant("fold-in-bfloat16", folding(fold_in_bfloat16), "broadcasting"),
    mutant("flattens", flattens, "broadcasting", "errors"),
    mutant("refused-without-gradient", refused_without_gradient, "broadcasting"),
    mutant("refused-with-gradient", refused_with_gradient, "broadcasting"),
    mutant(
        "eight-expanded",
        eight_expanded,
        "broadcasting",
        witness=wrong_value(lambda: (torch.rand(*[1] * 8, 3), torch.zeros(3)), "sum"),
    ),
    mutant(
        "cut-with-gradient",
        cut_with_gradient,
        "broadcasting",
        witness=accepts(lambda loss: loss(ramp_leaf(3), ramp(4))),
    ),
    mutant(
        "empty-before-shapes",
        empty_before_shapes,
        "broadcasting",
        witness=accepts(lambda loss: loss(torch.ones(0, 3), torch.ones(0, 4))),
    ),
    mutant(
        "outer-expanded",
        outer_expanded,
        "broadcasting",
        "value",
        witness=lambda target: not of_outer(target.loss),
    ),
)
