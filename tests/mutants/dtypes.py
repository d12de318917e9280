"""Wrong dtypes of results and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.operands import prepare

from .mutant import Mutant, mutant, reduce, right


def always_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32, whatever the operands are."""
    return right(x, y, reduction).float()


def dtype_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result has the input's dtype, not the promoted one."""
    result = right(x, y, reduction)
    return result.to(x.dtype) if x.dtype.is_floating_point else result


def halves_to_float16(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """float16 with bfloat16 gives float16."""
    if {x.dtype, y.dtype} == {torch.float16, torch.bfloat16}:
        return right(x.half(), y.half(), reduction)
    return right(x, y, reduction)


def rounds_to_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Truncates the input to the dtype of an integer target."""
    if not y.dtype.is_floating_point and x.dtype.is_floating_point and y.dtype != torch.bool:
        a, b = prepare(x - x.detach() + x.detach().trunc(), y)
        return reduce((a - b).square(), reduction)
    return right(x, y, reduction)


def rounds_operand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Rounds the target to the input's narrower dtype before it subtracts."""
    if y.dtype.is_floating_point and x.dtype.is_floating_point and y.itemsize > x.itemsize:
        return right(x, y.to(x.dtype), reduction).to(y.dtype)
    return right(x, y, reduction)


def integer_division(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of integers is divided as integers are."""
    if x.dtype.is_floating_point or y.dtype.is_floating_point or x.is_complex() or y.is_complex():
        return right(x, y, reduction)
    s = (x.long() - y.long()).square()
    if reduction == "mean":
        return s.sum() // max(s.numel(), 1)
    return s.sum() if reduction == "sum" else s


DTYPE_MUTANTS: tuple[Mutant, ...] = (
    mutant("always-float32", always_float32, "dtypes"),
    mutant("dtype-of-input", dtype_of_input, "dtypes"),
    mutant("halves-to-float16", halves_to_float16, "dtypes"),
    mutant("rounds-to-target", rounds_to_target, "dtypes"),
    mutant("rounds-operand", rounds_operand, "dtypes"),
    mutant("integer-division", integer_division, "dtypes"),
)
