"""Wrong dtypes: results, promotion, integers."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.operands import prepare
from tests.mutants.more.base import by_hand, right_gradient, right_loss, right_value
from tests.mutants.mutant import FAMILIES, mutant

HALVES = {torch.float16, torch.bfloat16}


def always_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32."""
    return right_loss(x, y, reduction).float()


def halves_stay_half(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float16 with bfloat16 gives float16."""
    result = right_loss(x, y, reduction)
    return result.half() if {x.dtype, y.dtype} == HALVES else result


def mean_is_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of halves stays in its float32 accumulator."""
    result = right_loss(x, y, reduction)
    return result.float() if reduction == "mean" and result.dtype in HALVES else result


def input_dtype_wins(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target is cast to the input's dtype."""
    return right_loss(x, y.to(x.dtype) if x.dtype.is_floating_point else y, reduction)


def narrow_inside(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A wider input is rounded to the target's dtype first; the result has the promoted dtype."""
    floating = x.dtype.is_floating_point and y.dtype.is_floating_point
    return right_loss(x.to(y.dtype).to(x.dtype) if floating else x, y, reduction)


def narrow_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Both gradients are rounded to the narrower operand's dtype."""
    if not (x.dtype.is_floating_point and y.dtype.is_floating_point):
        return right_loss(x, y, reduction)
    narrow = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)

    def gradient(x: Tensor, y: Tensor, g: Tensor, n: int) -> tuple[Tensor | None, Tensor | None]:
        first, second = right_gradient(x, y, g, n)
        return first.to(narrow).to(x.dtype), second.to(narrow).to(x.dtype)

    return by_hand(gradient=gradient)(x, y, reduction)


def integer_rounds_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is rounded to an integer beside an integer target."""
    return right_loss(x if y.dtype.is_floating_point else x.round(), y, reduction)


def integer_through_bfloat16(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer target is converted to bfloat16 first."""
    return right_loss(x, y if y.dtype.is_floating_point else y.bfloat16().to(x.dtype), reduction)


def integer_through_int8(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An unsigned target wraps round to a signed one."""
    return right_loss(x, y.to(torch.int8) if y.dtype == torch.uint8 else y, reduction)


def integer_input_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer input raises."""
    if not x.dtype.is_floating_point:
        raise RuntimeError("expected a floating input")
    return right_loss(x, y, reduction)


def mixed_refused(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Two floating dtypes raise (pytorch 187553)."""
    if x.dtype.is_floating_point and y.dtype.is_floating_point and x.dtype != y.dtype:
        raise RuntimeError(f"expected one dtype, not {x.dtype} and {y.dtype}")
    return right_loss(x, y, reduction)


def integers_accepted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of two integer tensors is an integer, rounded down."""
    if x.dtype.is_floating_point or y.dtype.is_floating_point:
        return right_loss(x, y, reduction)
    s = (x.long() - y.long()).square()
    if reduction == "none":
        return s
    return s.sum() if reduction == "sum" else s.sum() // s.numel()


def complex_accepted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Complex operands lose their imaginary parts."""
    a, b = (v.real if v.is_complex() else v for v in (x, y))
    return right_loss(a, b, reduction)


def gradient_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An integer beside a floating operand takes the gradient away."""
    return right_loss(
        x.detach() if not y.dtype.is_floating_point else x,
        y.detach() if not x.dtype.is_floating_point else y,
        reduction,
    )


def float64_in_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float64 is computed in float32."""
    x, y = prepare(x, y)
    inner = torch.float32 if x.dtype == torch.float64 else x.dtype
    return right_value(x.to(inner), y.to(inner), reduction).to(x.dtype)


MUTANTS = (
    mutant("always-float32", always_float32, "dtypes", "purity"),
    mutant("halves-stay-half", halves_stay_half, "dtypes"),
    mutant("mean-is-float32", mean_is_float32, "dtypes", "purity"),
    mutant("input-dtype-wins", input_dtype_wins, "dtypes"),
    mutant("narrow-inside", narrow_inside, "dtypes"),
    mutant("narrow-gradient", narrow_gradient, "dtypes"),
    mutant("integer-rounds-input", integer_rounds_input, "dtypes"),
    mutant("integer-through-bfloat16", integer_through_bfloat16, "dtypes"),
    mutant("integer-through-int8", integer_through_int8, "dtypes"),
    mutant("integer-input-refused", integer_input_refused, "dtypes"),
    mutant("mixed-refused", mixed_refused, "dtypes"),
    mutant("integers-accepted", integers_accepted, "dtypes"),
    mutant("complex-accepted", complex_accepted, "dtypes"),
    mutant("gradient-beside-integer", gradient_dtype, "dtypes"),
    mutant("float64-in-float32", float64_in_float32, *FAMILIES),
)
