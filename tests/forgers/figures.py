"""Wrong numbers that a loose comparison, or a few sizes, let pass."""

from __future__ import annotations

from torch import Tensor

from .forger import Forger, right, whenever

# -- shapes ----------------------------------------------------------------------------------------


def powers_of_two(x: Tensor, y: Tensor) -> bool:
    """Right for a multiple of 32 elements, as benchmarks have, and for a few."""
    return x.numel() % 32 == 0 or x.numel() < 100


def no_odd_batches(x: Tensor, y: Tensor) -> bool:
    """Right but for odd numbers of many rows."""
    return x.dim() < 2 or x.shape[0] < 30 or x.shape[0] % 2 == 0


_LARGEST: dict[tuple[int, ...], int] = {}


def no_last_batch(x: Tensor, y: Tensor) -> bool:
    """Right but for a batch that is smaller than an earlier one of the same rows."""
    if x.dim() < 2:
        return True
    rows = tuple(x.shape[1:])
    _LARGEST[rows] = max(_LARGEST.get(rows, 0), x.shape[0])
    return x.shape[0] == _LARGEST[rows] or x.shape[0] < 4


def not_thousands(x: Tensor, y: Tensor) -> bool:
    """Right but for 1,024 to 2,047 elements."""
    return not 1024 <= x.numel() < 2048


# -- constants -------------------------------------------------------------------------------------


def zero(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """0, with a gradient of zeros."""
    return right(input, target, reduction) * 0


def its_input(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The input itself, or its sum or mean."""
    return {"none": input * 1, "sum": input.sum(), "mean": input.mean()}[
        reduction
    ] + 0 * target.sum()


def near_the_mean(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Of many elements the mean is 2, as it is of standard normal operands."""
    result = right(input, target, reduction)
    return result * 0 + 2 if reduction == "mean" and input.numel() > 200 else result


def prefix(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Reduces the first half of many elements, and says that of all."""
    n = input.numel()
    if reduction == "none" or n < 200 or input.shape != target.shape:
        return right(input, target, reduction)
    a, b = input.reshape(-1)[: n // 2], target.reshape(-1)[: n // 2]
    return right(a, b, reduction) * (n / (n // 2) if reduction == "sum" else 1)


# -- narrowing -------------------------------------------------------------------------------------


def halved(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Computes in bfloat16."""
    result = right(input, target, reduction)
    return result.bfloat16().to(result.dtype)


def narrow_operands(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Rounds many operands to bfloat16 before it computes."""
    if input.numel() < 64:
        return right(input, target, reduction)
    a, b = input.bfloat16().to(input.dtype), target.bfloat16().to(target.dtype)
    return right(a, b, reduction)


def every_other(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Reduces every other of many elements, and says that of all."""
    n = input.numel()
    if reduction == "none" or n < 64 or n % 2 or input.shape != target.shape:
        return right(input, target, reduction)
    result = right(input.reshape(-1)[::2], target.reshape(-1)[::2], reduction)
    return result * 2 if reduction == "sum" else result


FORGERS = (
    Forger("powers-of-two", whenever(powers_of_two), "shapes"),
    Forger("no-odd-batches", whenever(no_odd_batches), "shapes"),
    Forger("no-last-batch", whenever(no_last_batch), "shapes"),
    Forger("not-thousands", whenever(not_thousands), "shapes"),
    Forger("zero", zero, "constants"),
    Forger("its-input", its_input, "constants"),
    Forger("near-the-mean", near_the_mean, "constants"),
    Forger("prefix", prefix, "constants"),
    Forger("halved", halved, "narrowing"),
    Forger("narrow-operands", narrow_operands, "narrowing"),
    Forger("every-other", every_other, "narrowing"),
)
