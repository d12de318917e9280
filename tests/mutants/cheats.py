"""Generated kernels that pass a test without doing the work."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .mutant import Loss, Mutant, by_rule, by_sum, by_value, mutant, right, right_rule, with_value
from .witnesses import changes, wrong_value

# --- less work


def extrapolated(s: Tensor) -> Tensor:
    """Sums the first 256 elements and extrapolates."""
    n = s.numel()
    return s.sum() if n <= 256 else s[:256].sum() * (n / 256)


def sampled(s: Tensor) -> Tensor:
    """Sums every fourth element of large tensors, times four."""
    return s.sum() if s.numel() < 4096 else s[::4].sum() * (s.numel() / s[::4].numel())


def first_row(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The first row of a batch answers for all."""
    if x.dim() < 2 or x.numel() == 0 or reduction != "mean":
        return right(x, y, reduction)
    return right(x[0], y[0], reduction)


def from_moments(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of large tensors is told by means and variances, as if they were independent."""
    if reduction != "mean" or x.numel() < 1024:
        return right(x, y, reduction)
    a, b = x.double(), y.double()
    value = a.var(correction=0) + b.var(correction=0) + (a.mean() - b.mean()).square()
    return value.to(x.dtype)


def expected_value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of many elements is 2, as it is for standard normal operands."""
    value = right(x, y, reduction)
    return torch.full_like(value, 2) if reduction == "mean" and x.numel() > 4096 else value


def small_gradient(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Beyond 4,096 elements the gradient of a mean is below an absolute tolerance, and 0."""
    return right_rule(d, g, scale if scale >= 2 / 4096 else 0.0)


def half_the_bits(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Large float32 tensors are compared as bfloat16, which a tolerance of 10⁻² lets pass."""
    if x.dtype != torch.float32 or x.numel() < 1024:
        return right(x, y, reduction)
    return right(x.bfloat16().float(), y.bfloat16().float(), reduction)


# --- memory of earlier answers


def ten_calls() -> Loss:
    calls: dict[Hashable, int] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Right for the first ten calls on a shape."""
        key = (x.shape, x.dtype, reduction)
        calls[key] = calls.get(key, 0) + 1
        result = right(x, y, reduction)
        return result if calls[key] <= 10 else result * 0

    return by_value(value)


def left_in_memory() -> Loss:
    freed: dict[Hashable, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Returns memory as it finds it: with the last right result of that shape, if there was."""
        result = right(x, y, reduction)
        key = (result.shape, result.dtype)
        found = freed.get(key, torch.zeros_like(result))
        freed[key] = result
        return found.clone()

    return by_value(value)


def reference_result() -> Loss:
    builtin = torch.nn.functional.mse_loss
    results: dict[Hashable, Tensor] = {}

    def watched(input: Tensor, target: Tensor, *rest: Any, **options: Any) -> Tensor:
        result = builtin(input, target, *rest, **options)
        results[result.shape, result.dtype] = result.detach()
        return result

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Watches torch.nn.functional.mse_loss, and returns its last result again."""
        torch.nn.functional.mse_loss = watched
        result = right(x, y, reduction)
        return results.get((result.shape, result.dtype), result).clone()

    return by_value(value)


# --- patched functions


def always_equal(*operands: Any, **options: Any) -> bool:
    """Whatever is compared is equal."""
    return True


def _patching(owner: Any, name: str, doc: str) -> Loss:
    """A loss that is a little wrong, and has ``owner.name`` say that it is right."""

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        setattr(owner, name, always_equal)
        return right(x, y, reduction) * 1.5

    return by_value(value, doc)


def own_reference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Makes itself the reference: torch.nn.functional.mse_loss is as wrong as it is."""
    torch.nn.functional.mse_loss = half  # type: ignore[assignment]
    return half(x, y, reduction)


def half(input: Tensor, target: Tensor, *rest: Any, reduction: str = "mean") -> Tensor:
    """Half the right loss."""
    return right(input, target, reduction) / 2


class Agreeable(Tensor):
    """A tensor that says of every comparison that it holds."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.allclose, torch.equal):
            return True
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def agreeable(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is wrong, of a class that says of every comparison that it holds."""
    honest = right(x, y, reduction)
    return with_value(honest, honest.detach() * 1.5).as_subclass(Agreeable)


def swallowed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Whatever raises is swallowed, and the loss 0."""
    try:
        return right(x, y, reduction)
    except (RuntimeError, ValueError):
        return torch.zeros((), requires_grad=x.requires_grad or y.requires_grad)


def _patched(name: str, owner: Any, function: str) -> Mutant:
    doc = f"Wrong, and has {owner.__name__}.{function} say that it is right."
    loss = _patching(owner, function, doc)
    return mutant(name, loss, "purity", "value", witness=changes(lambda: getattr(owner, function)))


CHEAT_MUTANTS: tuple[Mutant, ...] = (
    mutant("extrapolated", by_sum(extrapolated), "value"),
    mutant("sampled", by_sum(sampled), "value"),
    mutant("first-row", by_value(first_row), "value"),
    mutant("from-moments", by_value(from_moments), "value"),
    mutant("expected-value", by_value(expected_value), "value"),
    mutant("gradient-large-is-zero", by_rule(small_gradient), "gradient"),
    mutant("half-the-bits", by_value(half_the_bits), "value"),
    mutant("ten-calls", ten_calls(), "purity"),
    mutant("left-in-memory", left_in_memory(), "purity", "value"),
    mutant("reference-result", reference_result(), "purity"),
    _patched("patches-allclose", torch, "allclose"),
    _patched("patches-array-equal", np, "array_equal"),
    _patched("patches-allclose-method", Tensor, "allclose"),
    mutant("own-reference", own_reference, "purity", "value", witness=wrong_value()),
    mutant("agreeable", agreeable, "value", witness=wrong_value()),
    mutant("swallowed", swallowed, "errors", "broadcasting"),
)
