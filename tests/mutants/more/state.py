"""Side effects: caches, reused memory, overwritten operands, changed global state."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets.operands import prepare
from tests.mutants.more.base import Replaced, by_hand, right_gradient, right_loss, right_value
from tests.mutants.mutant import FAMILIES, Loss, mutant

Key = Callable[[Tensor, Tensor, str], Any]

# --- caches


def cached(key: Key) -> Loss:
    """The right value of the first call with a key, and the gradient of this one."""
    values: dict[Any, Tensor] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result = right_loss(x, y, reduction)
        whole = (key(x, y, reduction), reduction, result.dtype, tuple(result.shape))
        value = values.setdefault(whole, result.detach().clone())
        return Replaced.apply(result, value)  # type: ignore[no-any-return]

    loss.__doc__ = key.__doc__
    return loss


def by_address(x: Tensor, y: Tensor, reduction: str) -> Any:
    """The value is remembered by the addresses of the operands."""
    return x.data_ptr(), y.data_ptr(), x.shape, y.shape


def by_shape(x: Tensor, y: Tensor, reduction: str) -> Any:
    """The value is remembered by the shapes of the operands."""
    return x.shape, y.shape


def by_object(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input remembers the value; new contents make no difference."""
    result = right_loss(x, y, reduction)
    values: dict[Any, Tensor] = x.__dict__.setdefault("_values", {})
    value = values.setdefault((id(y), reduction), result.detach().clone())
    return Replaced.apply(result, value)  # type: ignore[no-any-return]


def ten_calls_each(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Right for the first ten calls on a tensor."""
    x.__dict__["_calls"] = x.__dict__.get("_calls", 0) + 1
    result = right_loss(x, y, reduction)
    return result if x.__dict__["_calls"] <= 10 else result * 0


def ten_calls() -> Loss:
    calls = 0

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Right for the first ten calls."""
        nonlocal calls
        calls += 1
        result = right_loss(x, y, reduction)
        return result if calls <= 10 else result * 0

    return loss


# --- reused memory


def reused_result() -> Loss:
    buffers: dict[Any, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Results of one shape lie in one buffer."""
        result = right_value(x, y, reduction)
        buffer = buffers.setdefault((result.shape, result.dtype), torch.empty_like(result))
        return buffer.copy_(result).detach()

    return by_hand(value)


def reused_gradient() -> Loss:
    buffers: dict[Any, Tensor] = {}

    def gradient(x: Tensor, y: Tensor, g: Tensor, n: int) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the input of one shape lie in one buffer."""
        first, second = right_gradient(x, y, g, n)
        buffer = buffers.setdefault((first.shape, first.dtype), torch.empty_like(first))
        return buffer.copy_(first).detach(), second

    return by_hand(gradient=gradient)


def reused_target_gradient() -> Loss:
    buffers: dict[Any, Tensor] = {}

    def gradient(x: Tensor, y: Tensor, g: Tensor, n: int) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the target of one shape lie in one buffer."""
        first, second = right_gradient(x, y, g, n)
        buffer = buffers.setdefault((second.shape, second.dtype), torch.empty_like(second))
        return first, buffer.copy_(second).detach()

    return by_hand(gradient=gradient)


def result_in_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none lies in the memory of the input."""
    result = right_loss(x.clone(), y.clone(), reduction)
    if reduction != "none" or result.shape != x.shape or result.dtype != x.dtype:
        return result
    if not x.is_contiguous():
        return result
    place = x.data.copy_(result.detach())
    return InMemory.apply(result, place)  # type: ignore[no-any-return]


class InMemory(torch.autograd.Function):
    """The memory of the second operand with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, place: Tensor) -> Tensor:
        return place.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return g, None


# --- writes


def writable(x: Tensor) -> bool:
    """Whether ``x`` has elements, each with memory of its own."""
    return x.numel() > 0 and 0 not in x.stride() and len({*x.stride()}) == x.dim()


def input_overwritten(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The difference is left in the input, past autograd's knowledge."""
    result = right_loss(x.clone(), y.clone(), reduction)
    if writable(x) and torch.broadcast_shapes(x.shape, y.shape) == x.shape:
        x.data.copy_(x.detach().to(result.dtype) - y.detach())
    return result


def target_overwritten(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target is filled with zeros, past autograd's knowledge."""
    result = right_loss(x.clone(), y.clone(), reduction)
    if writable(y):
        y.data.zero_()
    return result


def input_restored(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input is negated in place and negated back."""
    result = right_loss(x.clone(), y.clone(), reduction)
    if writable(x) and x.dtype.is_floating_point:
        x.detach().neg_().neg_()
    return result


def writes_past_end(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A zero is written behind the last element of the input."""
    result = right_loss(x, y, reduction)
    behind = x.storage_offset() + 1
    behind += sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    if x.numel() and behind < x.untyped_storage().nbytes() // x.element_size():
        x.data.as_strided((1,), (1,), behind).zero_()
    return result


def writes_into_gap(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gaps between the rows of a narrow view are filled with zeros."""
    result = right_loss(x, y, reduction)
    if x.dim() == 2 and x.numel() and x.stride(1) == 1 and x.stride(0) > x.shape[1]:
        start = x.storage_offset() + x.shape[1]
        x.data.as_strided((x.shape[0], 1), x.stride(), start).zero_()
    return result


def writes_before(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A zero is written in front of the first element of the target."""
    result = right_loss(x, y, reduction)
    if y.storage_offset():
        y.data.as_strided((1,), (1,), y.storage_offset() - 1).zero_()
    return result


def grad_output_overwritten(
    x: Tensor, y: Tensor, g: Tensor, n: int
) -> tuple[Tensor | None, Tensor | None]:
    """grad_output is multiplied in place."""
    pair = right_gradient(x, y, g.clone(), n)
    if writable(g):
        g.data.mul_(2)
    return pair


# --- global state


def leaving(effect: Callable[[], object]) -> Loss:
    """The right loss, and then ``effect``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result = right_loss(x, y, reduction)
        effect()
        return result

    loss.__doc__ = effect.__doc__
    return loss


def default_dtype() -> None:
    """The default dtype becomes float64."""
    torch.set_default_dtype(torch.float64)


def grad_mode() -> None:
    """Gradients are off afterwards."""
    torch.set_grad_enabled(False)


def seed() -> None:
    """Torch's generator is seeded anew."""
    torch.manual_seed(0)


def draws() -> None:
    """A random number is drawn."""
    torch.rand(())


def numpy_draws() -> None:
    """A random number is drawn from NumPy's global generator."""
    np.random.random()


def threads() -> None:
    """The number of threads changes."""
    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)


def deterministic() -> None:
    """Deterministic algorithms are demanded afterwards."""
    torch.use_deterministic_algorithms(True, warn_only=True)


def filters() -> None:
    """Warnings are silenced for good."""
    warnings.filterwarnings("ignore", message=f"loss {len(warnings.filters)}")


def without_gradients(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean is the sum where gradients are off."""
    prepare(x, y)
    off = reduction == "mean" and not torch.is_grad_enabled()
    return right_loss(x, y, "sum" if off else reduction)


REMEMBERED = ("value", "broadcasting", "dtypes", "layout", "purity")
# A leak changes later calls too, and so whatever they show.
MUTANTS = (
    mutant("cache-by-address", cached(by_address), *REMEMBERED),
    mutant("cache-by-shape", cached(by_shape), *REMEMBERED),
    mutant("cache-by-object", by_object, "purity"),
    mutant("ten-calls-each", ten_calls_each, "purity"),
    mutant("ten-calls", ten_calls(), *FAMILIES),
    mutant("reused-result", reused_result(), "purity"),
    mutant("reused-gradient", reused_gradient(), "purity"),
    mutant("reused-target-gradient", reused_target_gradient(), "purity"),
    mutant("result-in-input", result_in_input, "purity"),
    mutant("input-overwritten", input_overwritten, "purity"),
    mutant("target-overwritten", target_overwritten, "purity"),
    mutant("input-restored", input_restored, "purity"),
    mutant("writes-past-end", writes_past_end, "purity"),
    mutant("writes-into-gap", writes_into_gap, "purity"),
    mutant("writes-before", writes_before, "purity"),
    mutant("grad-output-overwritten", by_hand(gradient=grad_output_overwritten), "purity"),
    mutant("leaves-default-dtype", leaving(default_dtype), "purity"),
    mutant("leaves-grad-mode", leaving(grad_mode), *(FAMILIES - {"value"})),
    mutant("leaves-seed", leaving(seed), "purity"),
    mutant("leaves-random-state", leaving(draws), "purity"),
    mutant("leaves-numpy-state", leaving(numpy_draws), "purity"),
    mutant("leaves-threads", leaving(threads), "purity"),
    mutant("leaves-deterministic", leaving(deterministic), "purity"),
    mutant("leaves-filters", leaving(filters), "purity"),
    mutant("wrong-without-gradients", without_gradients, "value"),
)
