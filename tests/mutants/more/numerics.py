"""Wrong arithmetic: cancellation, overflow, drift, odd values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from targets.operands import prepare
from tests.mutants.more.base import by_hand, formula, reduce, right_value, squares, sums
from tests.mutants.mutant import FAMILIES, mutant

# --- formulas


def expanded_square(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """x² − 2xy + y² cancels."""
    return reduce(x.square() - 2 * x * y + y.square(), reduction)


def doubled_square(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """(2d)²/4 overflows too early."""
    return reduce((2 * (x - y)).square() / 4, reduction)


def exp_log(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """exp(2 log |d|) is inexact."""
    return reduce((2 * (x - y).abs().log()).exp(), reduction)


def epsilon(s: Tensor) -> Tensor:
    """10⁻⁸ is added to every square."""
    return s + 1e-8


def slightly_more(s: Tensor) -> Tensor:
    """A relative error of 10⁻⁴."""
    return s * 1.0001


def ten_bits(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """float32 differences are cut to ten bits before they are squared, as tensor cores do."""
    d = x - y
    if d.dtype == torch.float32:
        d = (d.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return reduce(d.square(), reduction)


def coarse_reciprocal(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """1/n is rounded to bfloat16."""
    if reduction != "mean" or x.numel() == 0:
        return right_value(x, y, reduction)
    factor = torch.tensor(1 / x.numel()).bfloat16().float().item()
    wide = torch.promote_types(x.dtype, torch.float32)
    return ((x - y).square().sum(dtype=wide) * factor).to(x.dtype)


# --- sums


def half_total(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean divides a sum that was rounded to its own format: float16 overflows."""
    s = (x - y).square()
    return s.sum() / s.numel() if reduction == "mean" else reduce(s, reduction)


def half_accumulator(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Eight running sums in the operands' own format."""
    s = (x - y).square()
    if reduction == "none" or s.dtype not in (torch.float16, torch.bfloat16):
        return reduce(s, reduction)
    n = max(s.numel(), 1) if reduction == "mean" else 1
    if s.numel() == 0:
        return reduce(s, reduction)
    flat = torch.nn.functional.pad(s.reshape(-1), (0, -s.numel() % 8)).reshape(-1, 8)
    lanes = torch.zeros(8, dtype=s.dtype)
    for row in flat / n if n < 64 else flat:
        lanes = lanes + row
    return (lanes.float().sum() / (1 if n < 64 else n)).to(s.dtype)


def serial_sum(s: Tensor) -> Tensor:
    """One running sum in float32."""
    if s.dtype != torch.float32 or s.numel() == 0:
        return s.sum()
    with np.errstate(all="ignore"):
        return torch.tensor(np.cumsum(s.numpy(), dtype=np.float32)[-1])


def dot_product(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sum is a dot product of d with itself."""
    d = (x - y).reshape(-1)
    if reduction == "none" or d.dtype in (torch.float16, torch.bfloat16):
        return right_value(x, y, reduction)
    value = torch.dot(d, d)
    return value / d.numel() if reduction == "mean" else value


def terms_divided(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Every square is divided by n in its own format, where it underflows."""
    s = (x - y).square()
    return (s / s.numel()).sum() if reduction == "mean" and s.numel() else reduce(s, reduction)


def truncated_result(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The result of float32 loses its last four bits."""
    value = right_value(x, y, reduction)
    if value.dtype != torch.float32:
        return value
    return (value.view(torch.int32) & ~0xF).view(torch.float32)


# --- values


def nan_masked(d: Tensor) -> Tensor:
    """NaN counts as 0."""
    return d.nan_to_num(0.0, float("inf"), -float("inf")).square()


def infinity_clamped(d: Tensor) -> Tensor:
    """Infinities count as the largest number."""
    largest = torch.finfo(d.dtype).max
    return d.clamp(-largest, largest).square().clamp(max=largest)


def nan_in_tail(s: Tensor) -> Tensor:
    """NaN counts as 0 in the tail past a multiple of 16, after a whole vector (pytorch 81138)."""
    whole = s.numel() - s.numel() % 16
    return torch.cat([s[:whole], s[whole:].nan_to_num(0.0, float("inf"))]) if whole else s


def maximum_drops_nan(s: Tensor) -> Tensor:
    """A clamp to zero from below turns NaN into 0."""
    return torch.fmax(s, torch.zeros_like(s))


def flushed_difference(d: Tensor) -> Tensor:
    """Subnormal differences count as 0."""
    return d.masked_fill(d.abs() < torch.finfo(d.dtype).tiny, 0).square()


def flushed_square(s: Tensor) -> Tensor:
    """Subnormal squares count as 0."""
    return s.masked_fill(s < torch.finfo(s.dtype).tiny, 0)


def clamped(d: Tensor) -> Tensor:
    """Differences are clamped to ±100."""
    return d.clamp(-100, 100).square()


def huber(d: Tensor) -> Tensor:
    """Linear beyond 1,000."""
    size = d.abs()
    return torch.where(size > 1000, 1000 * (2 * size - 1000), d.square())


def negative_lost(d: Tensor) -> Tensor:
    """Negative differences count as 0."""
    return d.relu().square()


def tiny_is_zero(d: Tensor) -> Tensor:
    """Differences below 10⁻⁶ count as 0."""
    return d.masked_fill(d.abs() < 1e-6, 0).square()


def overflow_saturates(s: Tensor) -> Tensor:
    """Squares that overflow become the largest number; infinite differences do too."""
    return s.clamp(max=torch.finfo(s.dtype).max)


def without_warning(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Equal operands are a shortcut to 0, also where they are not finite."""
    a, b = prepare(x, y)
    s = (a - b).square()
    return reduce(s.masked_fill(s.isnan(), 0) if x is y else s, reduction)


ACCURACY = ("value", "broadcasting", "layout", "dtypes", "purity")
MUTANTS = (
    mutant("expanded-square", by_hand(expanded_square), *ACCURACY),
    mutant("doubled-square", by_hand(doubled_square), "value", "dtypes"),
    mutant("exp-log", by_hand(exp_log), *ACCURACY),
    mutant("epsilon", squares(epsilon), *ACCURACY),
    mutant("slightly-more", squares(slightly_more), *ACCURACY),
    mutant("ten-bits", by_hand(ten_bits), *ACCURACY),
    mutant("coarse-reciprocal", by_hand(coarse_reciprocal), *ACCURACY),
    mutant("half-total", by_hand(half_total), "value"),
    mutant("half-accumulator", by_hand(half_accumulator), "value"),
    mutant("serial-sum", sums(serial_sum), "value"),
    mutant("dot-product", by_hand(dot_product), "value"),
    mutant("terms-divided", by_hand(terms_divided), "value"),
    mutant("truncated-result", by_hand(truncated_result), *ACCURACY),
    mutant("nan-masked", formula(nan_masked), "value", "gradient"),
    mutant("infinity-clamped", formula(infinity_clamped), "value", "gradient", "dtypes"),
    mutant("nan-in-tail", squares(nan_in_tail), "value"),
    mutant("maximum-drops-nan", squares(maximum_drops_nan), "value"),
    mutant("flushed-difference", formula(flushed_difference), "value", "gradient", "grad_output"),
    mutant("flushed-square", squares(flushed_square), "value"),
    mutant("clamped", formula(clamped), "value", "gradient", "dtypes"),
    mutant("huber", formula(huber), "value", "gradient", "dtypes"),
    mutant("negative-lost", formula(negative_lost), *FAMILIES),
    mutant("tiny-is-zero", formula(tiny_is_zero), *FAMILIES),
    mutant("overflow-saturates", squares(overflow_saturates), "value", "dtypes"),
    mutant("same-is-zero", without_warning, "value"),
)
