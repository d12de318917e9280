"""Wrong arithmetic: cancellation, overflow, underflow, drift, narrow formats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import (
    Mutant,
    by_squares,
    by_sum,
    by_value,
    elementwise,
    mutant,
    reduce,
    right,
    widened,
)
from .witnesses import against_zeros, wrong_value

# --- formulas


def expanded_square(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """x² − 2xy + y², which cancels."""
    return reduce(x.square() - 2 * x * y + y.square(), reduction)


def doubled_square(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """(2d)²/4, which overflows too early."""
    return reduce((2 * (x - y)).square() / 4, reduction)


def exp_log(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """exp(2 log |d|), which is inexact."""
    return reduce((2 * (x - y).abs().log()).exp(), reduction)


def root_and_back(x: Tensor, y: Tensor) -> Tensor:
    """The square of sqrt(d² + 10⁻¹²)."""
    return ((x - y).square() + 1e-12).sqrt().square()


def adds_epsilon(x: Tensor, y: Tensor) -> Tensor:
    """An epsilon is added to each square."""
    return (x - y).square() + 1e-8


def inexact(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The value is off by one part in 10,000."""
    return right(x, y, reduction) * 1.0001


def norm_squared(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sum is the square of the norm, whose root is rounded."""
    d = (x - y).reshape(-1)
    if reduction == "none":
        return right(x, y, reduction)
    total: Tensor = torch.linalg.vector_norm(d).square()
    return total if reduction == "sum" else total / d.numel()


def root_n_scaled(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean adds (d/√n)² in the operands' own format, where it underflows."""
    d = x - y
    if reduction != "mean" or d.numel() == 0:
        return right(x, y, reduction)
    return (d / d.numel() ** 0.5).square().sum()


# --- narrow formats


def narrow_inside(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float64 operands are computed in float32."""
    a, b = prepare(x, y)
    if a.dtype != torch.float64:
        return reduce((a - b).square(), reduction)
    return reduce((a.float() - b.float()).square(), reduction).double()


def ten_bits(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """float32 differences are cut to ten bits before they are squared, as tensor cores do."""
    d = x - y
    if d.dtype == torch.float32:
        d = (d.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return reduce(d.square(), reduction)


def through_float16(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """bfloat16 squares are kept as float16, whose range they leave."""
    s = (x - y).square()
    return reduce(s.half().to(s.dtype) if s.dtype == torch.bfloat16 else s, reduction)


def coarse_reciprocal(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """1/n is rounded to bfloat16."""
    if reduction != "mean" or x.numel() == 0:
        return right(x, y, reduction)
    factor = torch.tensor(1 / x.numel()).bfloat16().float().item()
    return ((x - y).square().sum(dtype=widened(x.dtype)) * factor).to(x.dtype)


def count_in_format(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """n is rounded to the operands' format, in which 65,520 is infinite or inexact."""
    s = (x - y).square()
    if reduction != "mean" or s.numel() == 0:
        return reduce(s, reduction)
    wide = widened(s.dtype)
    return (s.sum(dtype=wide) / torch.tensor(s.numel()).to(s.dtype).to(wide)).to(s.dtype)


def truncated_result(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The result of float32 loses its last four bits."""
    value = right(x, y, reduction)
    if value.dtype != torch.float32:
        return value
    return (value.view(torch.int32) & ~0xF).view(torch.float32)


def four_decimals(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Sum and mean are rounded to four decimals."""
    value = right(x, y, reduction)
    return value if reduction == "none" else value.double().round(decimals=4).to(value.dtype)


# --- sums


def half_accumulator(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Accumulates halves in their own format, in 64 lanes."""
    s = (x - y).square()
    if reduction == "none" or s.itemsize > 2 or s.numel() == 0:
        return reduce(s, reduction)
    flat = s.reshape(-1)
    lanes = torch.nn.functional.pad(flat, (0, -flat.numel() % 64)).reshape(-1, 64)
    while len(lanes) > 1:  # pairs of rows: exact in no step, but quick
        if len(lanes) % 2:
            lanes = torch.cat([lanes, torch.zeros_like(lanes[:1])])
        lanes = lanes[0::2] + lanes[1::2]
    total = lanes[0, 0]
    for lane in lanes[0, 1:]:
        total = total + lane
    return total / s.numel() if reduction == "mean" else total


def serial_float32(s: Tensor) -> Tensor:
    """One running sum in float32, as in a kernel with one accumulator."""
    if s.dtype != torch.float32 or s.numel() == 0:
        return s.sum()
    with np.errstate(all="ignore"):
        return torch.tensor(np.cumsum(s.numpy(), dtype=np.float32)[-1])


def terms_divided(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Every square is divided by n in its own format, where it underflows."""
    s = (x - y).square()
    return (s / s.numel()).sum() if reduction == "mean" and s.numel() else reduce(s, reduction)


def fixed_point(s: Tensor) -> Tensor:
    """Squares are added as integers, in units of 2⁻²⁴, so that their order makes no difference."""
    units = (s.double() * 2**24).round()
    return units.sum().to(s.dtype) / 2**24


# --- subnormals


def flushes_subnormals(x: Tensor, y: Tensor) -> Tensor:
    """A subnormal difference counts as 0."""
    d = x - y
    return torch.where(d.abs() < torch.finfo(d.dtype).tiny, d * 0, d).square()


def flushes_operands(x: Tensor, y: Tensor) -> Tensor:
    """Subnormal operands count as 0."""
    tiny = torch.finfo(x.dtype).tiny
    a, b = (torch.where(v.abs() < tiny, v * 0, v) for v in (x, y))
    return (a - b).square()


def flushed_square(s: Tensor) -> Tensor:
    """Subnormal squares count as 0."""
    return s.masked_fill(s < torch.finfo(s.dtype).tiny, 0)


def half_overflow(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean divides a sum that overflowed in float16 (pytorch issue 12115, chainer 6702)."""
    a, b = prepare(x, y)
    s = (a - b).square()
    return s.sum() / s.numel() if reduction == "mean" else reduce(s, reduction)


NUMERIC_MUTANTS: tuple[Mutant, ...] = (
    mutant("expanded-square", by_value(expanded_square), "value"),
    mutant("doubled-square", by_value(doubled_square), "value"),
    mutant("exp-log", by_value(exp_log), "value"),
    mutant("root-and-back", elementwise(root_and_back), "value", "gradient"),
    mutant("adds-epsilon", elementwise(adds_epsilon), "value"),
    mutant("inexact", by_value(inexact), "value", dtypes=("float64", "float32")),
    mutant("norm-squared", by_value(norm_squared), "value"),
    mutant("root-n-scaled", by_value(root_n_scaled), "value"),
    mutant("narrow-inside", narrow_inside, "value", "gradient", dtypes=("float64",)),
    mutant("ten-bits", by_value(ten_bits), "value"),
    mutant("through-float16", by_value(through_float16), "value"),
    mutant("coarse-reciprocal", by_value(coarse_reciprocal), "value"),
    mutant("count-in-format", by_value(count_in_format), "value"),
    mutant(
        "truncated-result",
        by_value(truncated_result),
        "value",
        witness=wrong_value(against_zeros(torch.tensor([1.1]))),
    ),
    mutant("four-decimals", by_value(four_decimals), "value"),
    mutant("half-accumulator", by_value(half_accumulator), "value"),
    mutant("serial-float32", by_sum(serial_float32), "value"),
    mutant(
        "terms-divided",
        by_value(terms_divided),
        "value",
        witness=wrong_value(against_zeros(torch.full((1000,), 2e-19)), "mean"),
    ),
    mutant("fixed-point", by_sum(fixed_point), "value"),
    # Their squares underflow in every format: only the gradient shows it.
    mutant("flushes-subnormals", elementwise(flushes_subnormals), "gradient"),
    mutant("flushes-operands", elementwise(flushes_operands), "gradient", "value"),
    mutant(
        "flushed-square",
        by_squares(flushed_square),
        "value",
        witness=wrong_value(against_zeros(torch.full((3,), 1e-20)), rtol=1e-4),
    ),
    mutant("half-overflow", half_overflow, "value"),
)
