"""What compares them is patched, or watched, so that it agrees."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .mutant import Loss, Mutant, by_value, mutant, right, with_value
from .witnesses import changes, wrong_value


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


def _patched(name: str, owner: Any, function: str) -> Mutant:
    doc = f"Wrong, and has {owner.__name__}.{function} say that it is right."
    loss = _patching(owner, function, doc)
    return mutant(name, loss, "purity", "value", witness=changes(lambda: getattr(owner, function)))


PATCH_MUTANTS: tuple[Mutant, ...] = (
    mutant("reference-result", reference_result(), "purity"),
    _patched("patches-allclose", torch, "allclose"),
    _patched("patches-array-equal", np, "array_equal"),
    _patched("patches-allclose-method", Tensor, "allclose"),
    mutant("own-reference", own_reference, "purity", "value", witness=wrong_value()),
    mutant("agreeable", agreeable, "value", witness=wrong_value()),
)
