"""Wrong dtypes: of results, of gradients, of what is read; integers, bools, complex numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction

from .mutant import (
    Mutant,
    Pair,
    Witness,
    by_gradients,
    by_value,
    mutant,
    reduce,
    right,
    right_gradients,
    with_value,
)
from .probes import otherwise
from .witnesses import wrong_value

HALVES = {torch.float16, torch.bfloat16}


def _floating(x: Tensor, y: Tensor) -> bool:
    return x.dtype.is_floating_point and y.dtype.is_floating_point


# --- results and promotion


def always_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32, whatever the operands are."""
    return right(x, y, reduction).float()


def mean_is_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of halves stays in its float32 accumulator."""
    result = right(x, y, reduction)
    return result.float() if reduction == "mean" and result.dtype in HALVES else result


def dtype_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result has the input's dtype, not the promoted one."""
    result = right(x, y, reduction)
    return result.to(x.dtype) if x.dtype.is_floating_point else result


def halves_to_float16(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float16 with bfloat16 gives float16."""
    if {x.dtype, y.dtype} == HALVES:
        return right(x.half(), y.half(), reduction)
    return right(x, y, reduction)


def rounds_operand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Rounds the target to the input's narrower dtype before it subtracts."""
    if _floating(x, y) and y.itemsize > x.itemsize:
        return right(x, y.to(x.dtype), reduction).to(y.dtype)
    return right(x, y, reduction)


def narrow_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Both gradients are rounded to the narrower operand's dtype."""
    if not _floating(x, y):
        return right(x, y, reduction)
    narrow = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)

    def gradients(a: Tensor, b: Tensor, g: Tensor, scale: float) -> Pair:
        first, second = right_gradients(a, b, g, scale)
        return first.to(narrow).to(a.dtype), second.to(narrow).to(a.dtype)

    return by_gradients(gradients)(x, y, reduction)


# --- memory


def same_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads the target's memory in the input's dtype."""
    honest = right(x, y, reduction)
    if x.dtype == y.dtype or x.shape != y.shape or not x.numel() or not x.is_floating_point():
        return honest
    raw = y.detach().contiguous().reshape(-1).view(torch.uint8)
    need = x.numel() * x.itemsize
    raw = raw.repeat(-(-need // raw.numel()))[:need]
    read = right(x, raw.view(x.dtype).reshape(x.shape), reduction)
    return with_value(honest, read.to(honest.dtype))


def by_itemsize(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Dispatches on the size of an element: bfloat16 is read as float16."""
    honest = right(x, y, reduction)
    if {x.dtype, y.dtype} != {torch.bfloat16}:
        return honest
    a, b = (v.detach().contiguous().view(torch.float16) for v in (x, y))
    return with_value(honest, right(a, b, reduction).view(torch.bfloat16))


# --- integers beside floating operands


def rounds_to_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Truncates the input to the dtype of an integer target."""
    if y.dtype.is_floating_point or y.dtype == torch.bool or not x.dtype.is_floating_point:
        return right(x, y, reduction)
    return right(x - x.detach() + x.detach().trunc(), y, reduction)


def integer_through_bfloat16(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer target is converted to bfloat16 first."""
    return right(x, y if y.dtype.is_floating_point else y.bfloat16().to(x.dtype), reduction)


def integer_through_int8(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An unsigned target wraps round to a signed one."""
    return right(x, y.to(torch.int8) if y.dtype == torch.uint8 else y, reduction)


def integer_input_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer input raises."""
    if not x.dtype.is_floating_point:
        raise RuntimeError("expected a floating input")
    return right(x, y, reduction)


def bool_is_minus_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A true target is all ones, which is −1."""
    return right(x, -y.to(torch.int8) if y.dtype == torch.bool else y, reduction)


def gradient_beside_integer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer beside a floating operand takes the gradient away."""
    if _floating(x, y):
        return right(x, y, reduction)
    return right(x.detach(), y.detach(), reduction)


# --- pairs without a floating operand


def integer_division(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of integers is divided as integers are."""
    if torch.promote_types(x.dtype, y.dtype).is_floating_point or x.is_complex() or y.is_complex():
        return right(x, y, reduction)
    s = (x.long() - y.long()).square()
    return s.sum() // max(s.numel(), 1) if reduction == "mean" else reduce(s, reduction)


def integers_wrap(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Integers are subtracted and squared in a byte, and converted after it."""
    if torch.promote_types(x.dtype, y.dtype).is_floating_point or x.is_complex() or y.is_complex():
        return right(x, y, reduction)
    return reduce((x.byte() - y.byte()).square().float(), reduction)


def complex_accepted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Complex operands lose their imaginary parts."""
    a, b = (v.real if v.is_complex() else v for v in (x, y))
    return right(a, b, reduction)


def complex_square(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The complex d² for |d|²: it is complex, or negative."""
    if not (x.is_complex() or y.is_complex()):
        return right(x, y, reduction)
    return reduce((x - y).square(), reduction).real


def _beside(integer: Tensor) -> Witness:
    """The square of 1 minus an integer is wrong."""
    return wrong_value(lambda: (torch.ones(1), integer))


def _unsupported(x: Tensor, y: Tensor) -> Witness:
    """It does not raise, and is wrong."""
    return wrong_value(lambda: (x, y), may_raise=True)


def mixed_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Two floating dtypes raise (pytorch issue 187553)."""
    if x.dtype.is_floating_point and y.dtype.is_floating_point and x.dtype != y.dtype:
        raise RuntimeError(f"expected one dtype, not {x.dtype} and {y.dtype}")
    return right(x, y, reduction)


def scale_of_default_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """1/n is a vector of one element of the default dtype, which takes part in promotion."""
    s = right(x, y, "none")
    if check_reduction(reduction) != "mean" or s.dtype != torch.float32 or not s.numel():
        return reduce(s, reduction)
    return (s.sum() * torch.tensor([1 / s.numel()])).squeeze(0)


def with_default_dtype(target: Target) -> bool:
    """With float64 as the default dtype the mean of float32 is no float32."""
    torch.set_default_dtype(torch.float64)
    x = torch.ones(3, dtype=torch.float32)
    return target.loss(x, 2 * x, reduction="mean").dtype != torch.float32


def real_part(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a complex target it takes the real part."""
    return right(x, y.real if y.is_complex() else y, reduction)


def real_is_taken(target: Target) -> bool:
    """A complex target, which the builtin refuses, counts as its real part."""
    try:
        value = target.loss(torch.zeros(1), torch.tensor([1 + 2j]), reduction="sum")
    except RuntimeError:
        return False
    return bool(value == 1)


def divided_by_default(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """n is a number of the default dtype, which may be too narrow for it."""
    s = (x - y).square()
    if reduction != "mean":
        return reduce(s, reduction)
    wide = torch.promote_types(s.dtype, torch.float32)
    n = torch.tensor(float(s.numel()), device=s.device).to(wide)
    return (s.sum(dtype=wide) / n).to(s.dtype)


def by_bfloat16(loss: Callable[..., Any]) -> Tensor:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        ones = torch.ones(777, dtype=torch.float32)
        result: Tensor = loss(ones, torch.zeros_like(ones))
    finally:
        torch.set_default_dtype(before)
    return result


DTYPE_MUTANTS: tuple[Mutant, ...] = (
    mutant("always-float32", always_float32, "dtypes"),
    mutant("mean-is-float32", mean_is_float32, "dtypes"),
    mutant("dtype-of-input", dtype_of_input, "dtypes"),
    mutant("halves-to-float16", halves_to_float16, "dtypes"),
    mutant("rounds-operand", rounds_operand, "dtypes"),
    mutant("narrow-gradient", narrow_gradient, "dtypes"),
    mutant("same-dtype", same_dtype, "dtypes"),
    mutant("by-itemsize", by_itemsize, "dtypes", "value"),
    mutant("rounds-to-target", rounds_to_target, "dtypes"),
    mutant(
        "integer-through-bfloat16",
        integer_through_bfloat16,
        "dtypes",
        witness=_beside(torch.tensor([257])),
    ),
    mutant(
        "integer-through-int8",
        integer_through_int8,
        "dtypes",
        witness=_beside(torch.tensor([200], dtype=torch.uint8)),
    ),
    mutant(
        "integer-input-refused",
        integer_input_refused,
        "dtypes",
        witness=wrong_value(lambda: (torch.tensor([2]), torch.zeros(1))),
    ),
    mutant("bool-is-minus-one", bool_is_minus_one, "dtypes", witness=_beside(torch.tensor([True]))),
    mutant("gradient-beside-integer", gradient_beside_integer, "dtypes"),
    mutant("integer-division", integer_division, "dtypes"),
    mutant(
        "integers-wrap",
        integers_wrap,
        "dtypes",
        witness=_unsupported(torch.tensor([300]), torch.tensor([0])),
    ),
    mutant(
        "complex-accepted",
        complex_accepted,
        "dtypes",
        witness=_unsupported(torch.tensor([1 + 2j]), torch.zeros(1)),
    ),
    mutant(
        "complex-square",
        complex_square,
        "dtypes",
        witness=_unsupported(torch.tensor([1 + 2j]), torch.zeros(1)),
    ),
    mutant("mixed-refused", mixed_refused, "dtypes"),
    mutant("real-part", real_part, "dtypes", witness=real_is_taken),
    mutant("scale-of-default-dtype", scale_of_default_dtype, "dtypes", witness=with_default_dtype),
    mutant(
        "divided-by-default", by_value(divided_by_default), "dtypes", witness=otherwise(by_bfloat16)
    ),
)
