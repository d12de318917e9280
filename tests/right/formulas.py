"""Formulas: autograd is torch's, and what differs is the order and the width of the arithmetic.

Not here, since they are not right: the square of a norm and the variance plus the squared mean
(infinities, underflow), half of a Huber loss doubled (subnormals).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import DROP_IN, Target
from targets.builtin import BUILTIN_CLAIMS
from targets.operands import check_reduction, prepare

from .common import EAGER, FORMULA, TWICE, WIDE, Loss, reduce, widened


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


def product_of_opposites(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """−(x − y)·(y − x): two differences, and a gradient of each through the other."""
    return reduce(-((x - y) * (y - x)), reduction)


def square_of_magnitude(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """|d|²: its second derivative is wrong where d is 0, so it does not claim one."""
    x, y = prepare(x, y)  # it refuses complex operands, whose |d|² is real and wrong here
    return reduce((x - y).abs().square(), reduction)


def larger_minus_smaller(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """At ties max and min halve the gradient between operands: no second derivative there."""
    x, y = prepare(x, y)
    return reduce((torch.maximum(x, y) - torch.minimum(x, y)).square(), reduction)


def branches(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A choice of two differences, each differentiable at ties, so the second derivative holds."""
    x, y = prepare(x, y)
    return reduce(torch.where(x > y, x - y, y - x).square(), reduction)


def in_place(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The difference is squared where it lies."""
    return reduce(torch.sub(x, y).square_(), reduction)


def addcmul(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    d = x - y
    return reduce(torch.addcmul(torch.zeros_like(d), d, d), reduction)


def builtin_none(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return reduce(F.mse_loss(x, y, reduction="none"), reduction)


def builtin_weighted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The builtin with weights of one; it adds them up in the format, so not for halves."""
    x, y = prepare(x, y)
    mse_loss: Any = F.mse_loss  # typed without its weight
    result: Tensor = mse_loss(x, y, reduction=check_reduction(reduction), weight=torch.ones_like(x))
    return result


def weighted_average(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Weights of one, and their sum instead of the number of elements; in float32 at least."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none":
        return s
    weights = torch.ones_like(widened(s))
    total = (widened(s) * weights).sum()
    return (total if reduction == "sum" else total / weights.sum()).to(s.dtype)


def masked(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Selects all elements by a mask before it reduces, as losses with padding do."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none":
        return s
    return reduce(s.masked_select(torch.ones_like(s, dtype=torch.bool)), reduction)


def sum_then_divide(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Overflows in float16, where the mean does not: for the wide formats only."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.sum() / s.numel()


def times_reciprocal(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Multiplies by 1/n, in float32 at least."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.numel() == 0:
        return reduce(s, reduction)
    return (widened(s).sum() * (1 / s.numel())).to(s.dtype)


def difference_first(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Only the difference is in the operands' format; under autocast the result stays wide.

    So CUDA's autocast computes the plain formula.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = prepare(x, y)
        d = x - y
    result = reduce(widened(d).square(), reduction)
    return result if torch.is_autocast_enabled(d.device.type) else result.to(d.dtype)


ONE = torch.ones(())
CHUNKS = 64  # at most


def times_constant(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Times a weight that is a tensor of its own, here 1."""
    x, y = prepare(x, y)
    return reduce((x - y).square(), reduction) * ONE.to(x.dtype)


def copy_in_place(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The difference takes the place of a copy of the input."""
    x, y = prepare(x, y)
    return reduce(x.clone().sub_(y).square(), reduction)


def scaled_terms(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Divides every square by n before it adds, in float32 at least: it cannot overflow."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.numel() == 0:
        return reduce(s, reduction)
    return (widened(s) / s.numel()).sum().to(s.dtype)


def per_dimension(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Rows first, then the total; in float32 inside, or the rows' sums would overflow in half."""
    x, y = prepare(x, y)
    s = (x - y).square()
    if check_reduction(reduction) == "none" or s.dim() == 0:
        return s
    total = widened(s).sum(-1).sum()
    return (total if reduction == "sum" else total / s.numel()).to(s.dtype)


def mean_in_two_steps(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over the last dimension, then over the others: autograd divides twice."""
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.dim() == 0:
        return reduce(s, reduction)
    return s.mean(-1).mean()


def mean_of_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of each row by itself, and the mean of these: a loss per sample."""
    x, y = prepare(x, y)
    if check_reduction(reduction) != "mean" or x.dim() < 2 or x.numel() == 0:
        return F.mse_loss(x, y, reduction=reduction)
    return torch.stack([F.mse_loss(a, b) for a, b in zip(x, y, strict=True)]).mean()


def mean_by_dimension(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over one dimension after the other, from the last: autograd divides by each."""
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.dim() == 0:
        return reduce(s, reduction)
    while s.dim():
        s = s.mean(-1)
    return s


def mean_over_batch(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The sum of each sample over its size, then the mean over the batch."""
    s = (x - y).square()
    if check_reduction(reduction) != "mean" or s.dim() == 0 or s.numel() == 0:
        return reduce(s, reduction)
    return (s.flatten(1).sum(1) / (s.numel() // len(s))).mean() if s.dim() > 1 else s.mean()


def in_format(format: torch.dtype) -> Loss:
    """Everything in ``format``, which is wider than the operands' own; one rounding at the end."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        x, y = prepare(x, y)
        wide = torch.promote_types(x.dtype, format)
        return reduce((x.to(wide) - y.to(wide)).square(), reduction).to(x.dtype)

    return loss


def float_power(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The difference in the operands' format, all that follows in float64."""
    x, y = prepare(x, y)
    return reduce(torch.float_power(x - y, 2), reduction).to(x.dtype)


def vmapped(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One element at a time, as it is written; vmap makes tensors of it."""
    x, y = prepare(x, y)
    s = torch.vmap(lambda a, b: (a - b) * (a - b))(x.reshape(-1), y.reshape(-1))
    return reduce(s.reshape(x.shape), reduction)


def foreach(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Eight parts in a list, with the operations that torch has for lists, as optimisers use."""
    x, y = prepare(x, y)
    d = torch._foreach_sub(x.reshape(-1).tensor_split(8), y.reshape(-1).tensor_split(8))
    return reduce(torch.cat(torch._foreach_mul(d, d)).reshape(x.shape), reduction)


def for_input_alone(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Refuses what its author does not promise: a target to train, and shapes that broadcast."""
    assert not y.requires_grad
    assert x.shape == y.shape
    return F.mse_loss(x, y, reduction=reduction)


def by_chunks(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A loop in Python over chunks: it compiles, and compiles again for each other size."""
    x, y = prepare(x, y)
    size = max(2, -(-x.numel() // CHUNKS))
    chunks = zip(x.reshape(-1).split(size), y.reshape(-1).split(size), strict=True)
    squares = [(a - b).square() for a, b in chunks]
    if check_reduction(reduction) == "none":
        return torch.cat(squares).reshape(x.shape)
    total = torch.stack([widened(s).sum() for s in squares]).sum()
    return (total if reduction == "sum" else total / x.numel()).to(x.dtype)


RIGHT_FORMULAS: tuple[Target, ...] = (
    Target("power-operator", power_operator, FORMULA),
    Target("square-method", square_method, FORMULA),
    Target("pow-method", pow_method, FORMULA),
    Target("product", product, FORMULA),
    Target("reversed-difference", reversed_difference, FORMULA),
    Target("product-of-opposites", product_of_opposites, FORMULA),
    Target("square-of-magnitude", square_of_magnitude, DROP_IN - {"double_backward"}),
    Target("larger-minus-smaller", larger_minus_smaller, DROP_IN - {"double_backward"}),
    Target("branches", branches, DROP_IN),
    Target("in-place", in_place, FORMULA),
    Target("addcmul", addcmul, FORMULA),
    # As the builtin itself, it fails in some vmaps of operands that broadcast.
    Target("builtin-none", builtin_none, DROP_IN & BUILTIN_CLAIMS),
    Target("builtin-weighted", builtin_weighted, DROP_IN & BUILTIN_CLAIMS, dtypes=WIDE),
    Target("weighted-average", weighted_average, DROP_IN),
    # The mask's result has a shape that depends on data: no CUDA graph can capture it.
    Target("masked", masked, TWICE | {"forward_ad"}, devices=("cpu",)),
    Target("sum-then-divide", sum_then_divide, DROP_IN, dtypes=WIDE),
    # torch's jacfwd of a 0-d tensor times a Python number is float64.
    Target("times-reciprocal", times_reciprocal, DROP_IN),
    Target("difference-first", difference_first, TWICE | {"forward_ad"}),
    Target("times-constant", times_constant, DROP_IN),
    Target("copy-in-place", copy_in_place, DROP_IN - {"functorch"}),
    Target("scaled-terms", scaled_terms, DROP_IN),
    Target("per-dimension", per_dimension, DROP_IN),
    # In half a row's mean may be subnormal where the whole mean is not, and its sum overflow.
    Target("mean-in-two-steps", mean_in_two_steps, FORMULA, dtypes=WIDE),
    Target("mean-of-rows", mean_of_rows, EAGER | {"double_backward"}, dtypes=WIDE),
    Target("mean-by-dimension", mean_by_dimension, FORMULA, dtypes=WIDE),
    Target("mean-over-batch", mean_over_batch, FORMULA, dtypes=WIDE),
    Target("float32-inside", in_format(torch.float32), DROP_IN),
    Target("float64-inside", in_format(torch.float64), DROP_IN),
    Target("float-power", float_power, DROP_IN),
    Target("vmapped", vmapped, DROP_IN),
    Target("foreach", foreach, TWICE | {"forward_ad"}),
    Target("for-input-alone", for_input_alone, DROP_IN - {"target_gradient", "broadcast"}),
    Target("by-chunks", by_chunks, DROP_IN - {"dynamic", "functorch"}),
)
