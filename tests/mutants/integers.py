"""Wrong for integer operands: in a narrower dtype, or in one that wraps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import Loss, Mutant, Witness, mutant, reduce, right
from .probes import otherwise
from .witnesses import wrong_value


def counts_in_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Converts an int64 target to float32 first, whatever the input is."""
    return right(x, y.float().to(x.dtype) if y.dtype == torch.int64 else y, reduction)


def counts_in_int32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Converts an int64 target to int32, which the kernel reads."""
    return right(x, y.int() if y.dtype == torch.int64 else y, reduction)


def bytes_unsigned(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads a target of int8 as bytes."""
    return right(x, y.view(torch.uint8) if y.dtype == torch.int8 else y, reduction)


def _bytes() -> tuple[Tensor, Tensor]:
    return torch.zeros(1), torch.tensor([-1], dtype=torch.int8)


def _counts(n: int) -> Any:
    return lambda: (torch.zeros(1, dtype=torch.float64), torch.tensor([n]))


def reads_signed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads uint16 as int16."""
    return right(x, y.view(torch.int16) if y.dtype == torch.uint16 else y, reduction)


def both_integer(*operands: Tensor) -> bool:
    return not any(t.is_floating_point() or t.is_complex() for t in operands)


def of_integers(value: Loss) -> Loss:
    """A loss that is right, but for two operands that are integers, for which it is ``value``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return (value if both_integer(x, y) else right)(x, y, reduction)

    loss.__doc__ = value.__doc__
    return loss


def bytes_wrap(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Integers are subtracted and squared in a dtype of their own, which wraps."""
    d = x.byte() - y.byte() if x.dtype == torch.bool == y.dtype else x - y
    return reduce((d * d).float(), reduction)


def squares_wrap(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Differences of bytes have 16 bits, as their squares have."""
    small = max(x.itemsize, y.itemsize) == 1
    d = x.short() - y.short() if small else x.double() - y.double()
    return reduce((d * d).double(), reduction)


def narrowed(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Integers are read as if they had 32 bits."""
    return reduce((x.int().double() - y.int().double()).square(), reduction)


def magnitudes_of_signed(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sign is taken off in the integers' own dtype, where the lowest has no opposite."""
    return reduce((x.abs().double() * x.sign() - y.double()).square(), reduction)


def wrong_for(dtype: torch.dtype, first: list[int], second: list[int]) -> Witness:
    """A mean that is neither refused nor right."""

    def wrong(target: Target) -> bool:
        x, y = torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)
        try:
            found = float(target.loss(x, y, reduction="mean"))
        except RuntimeError:
            return False
        pairs = zip(first, second, strict=True)
        return abs(found - sum((a - b) ** 2 for a, b in pairs) / len(first)) > 1e-6 * found

    return wrong


BYTES = wrong_for(torch.uint8, [250, 5], [0, 70])


INTEGER_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "counts-in-float32",
        counts_in_float32,
        "dtypes",
        witness=wrong_value(_counts(2**24 + 1), rtol=1e-12),
    ),
    mutant("counts-in-int32", counts_in_int32, "dtypes", witness=wrong_value(_counts(2**33))),
    mutant("bytes-unsigned", bytes_unsigned, "dtypes", witness=wrong_value(_bytes)),
    mutant(
        "reads-signed",
        reads_signed,
        "dtypes",
        witness=otherwise(
            lambda loss: loss(torch.zeros(1), torch.tensor([40_000], dtype=torch.uint16))
        ),
    ),
    mutant("bytes-wrap", of_integers(bytes_wrap), "dtypes", witness=BYTES),
    mutant("squares-wrap", of_integers(squares_wrap), "dtypes", witness=BYTES),
    mutant(
        "narrowed",
        of_integers(narrowed),
        "dtypes",
        witness=wrong_for(torch.int64, [2**33 + 1, 3], [1, 0]),
    ),
    mutant(
        "magnitudes-of-signed",
        of_integers(magnitudes_of_signed),
        "dtypes",
        witness=wrong_for(torch.int16, [-(2**15), 1], [5, 1]),
    ),
)
