"""Shapes of different sizes, combined wrongly."""

from __future__ import annotations

from torch import Tensor

from .mutant import Mutant, mutant, reduce, right


def left_aligned(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Missing dimensions are added at the end where that fits too."""
    short, long = sorted((x, y), key=lambda t: t.dim())
    missing = long.dim() - short.dim()
    if missing and short.dim():
        fits = zip(short.shape, long.shape[: short.dim()], strict=True)
        if all(a == b for a, b in fits):
            short = short.reshape(*short.shape, *(1,) * missing)
            x, y = (long, short) if y.dim() < x.dim() else (short, long)
    return right(x, y, reduction)


def flattens(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Operands of as many elements are taken for equal shapes."""
    if x.shape != y.shape and x.numel() == y.numel():
        y = y.reshape(x.shape)
    return right(x, y, reduction)


def cuts(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Vectors of different lengths are cut to the shorter one."""
    if x.dim() == y.dim() == 1 and x.numel() > 1 and y.numel() > 1:
        n = min(len(x), len(y))
        x, y = x[:n], y[:n]
    return right(x, y, reduction)


def shape_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Only the target is broadcast; of a larger target the first part is used."""
    result = right(x, y, "none")
    for dim, size in enumerate(x.shape[::-1], start=1):
        if size == 1:
            result = result.narrow(-dim, 0, min(1, result.shape[-dim]))
    return result if reduction == "none" else reduce(result, reduction)


BROADCASTING_MUTANTS: tuple[Mutant, ...] = (
    mutant("left-aligned", left_aligned, "broadcasting"),
    mutant("flattens", flattens, "broadcasting"),
    mutant("cuts", cuts, "broadcasting"),
    mutant("shape-of-input", shape_of_input, "broadcasting"),
)
