"""What earlier calls have left behind is taken for the answer of this one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import Loss, Mutant, by_value, mutant, right, with_value
from .probes import leaf, otherwise
from .transformed import plainly
from .witnesses import differs_after

Key = Callable[[Tensor, Tensor], Hashable]


def _cached(key: Key) -> Loss:
    """Gives the last value again where ``key``, reduction, dtypes and shapes are the last one's."""
    last: dict[str, Any] = {"key": None, "value": None}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        now = (key(x, y), reduction, x.dtype, y.dtype, x.shape, y.shape)
        if now != last["key"]:
            last.update(key=now, value=honest.detach().clone())
        return with_value(honest, last["value"].clone())

    loss.__doc__ = key.__doc__
    return loss


def by_address(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same addresses."""
    return x.data_ptr(), y.data_ptr()


def by_shape(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same shapes."""
    return None


def by_version(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for the same addresses and version counters, which .data leaves."""
    return x.data_ptr(), y.data_ptr(), x._version, y._version


def by_total(x: Tensor, y: Tensor) -> Hashable:
    """The last value again for operands of the same sums, as after a permutation."""
    return float(x.double().sum()), float(y.double().sum())


def by_object(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input remembers the value; new contents make no difference."""
    result = right(x, y, reduction)
    values: dict[Any, Tensor] = x.__dict__.setdefault("_values", {})
    value = values.setdefault((id(y), reduction), result.detach().clone())
    return with_value(result, value.clone())


def every_other_call() -> Loss:
    last: dict[Hashable, Tensor] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Every other call on a shape gives the last value again."""
        key = (x.shape, x.dtype, reduction)
        return (
            last.pop(key) if key in last else last.setdefault(key, right(x, y, reduction)).clone()
        )

    return by_value(value)


def compiled_reduction() -> Loss:
    compiled: dict[Hashable, str] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Kernels are kept by dtype and shape: the first reduction is compiled into them."""
        key = (x.dtype, y.dtype, x.shape, y.shape)
        return right(x, y, compiled.setdefault(key, reduction))

    return loss


def remembered_count() -> Loss:
    counts: dict[Hashable, int] = {}

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """n is remembered by the number of dimensions."""
        n = x.numel()
        first = counts.setdefault((x.dim(), x.dtype), n)
        result = right(x, y, reduction)
        return result * (n / first) if reduction == "mean" and n and first else result

    return by_value(value)


def first_call_wrong() -> Loss:
    seen: set[Hashable] = set()

    def value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """The first call on a shape returns before the kernel that it compiles has run."""
        result = right(x, y, reduction)
        key = (x.shape, x.dtype, reduction)
        first = key not in seen
        seen.add(key)
        return torch.zeros_like(result) if first else result

    return by_value(value)


def stale_after_data(target: Target) -> bool:
    """New contents, written through .data, give the old value."""
    x = torch.ones(3)
    target.loss(x, torch.zeros(3), reduction="sum")
    y = torch.zeros(3)
    before = float(target.loss(x, y, reduction="sum"))
    x.data.fill_(2)
    return float(target.loss(x, y, reduction="sum")) == before


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


_UNITS: dict[torch.dtype, Tensor] = {}


def inference_first(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps a constant of the first call, which no gradient can pass if that was for inference."""
    result = right(x, y, reduction)
    unit = _UNITS.setdefault(result.dtype, torch.ones((), dtype=result.dtype))
    return result * unit


def trained_after_inference(loss: Callable[..., Any]) -> Tensor:
    _UNITS.clear()
    with torch.inference_mode():
        loss(torch.ones(2), torch.zeros(2))
    x = leaf(1, 2)
    (gradient,) = torch.autograd.grad(loss(x, torch.zeros(2)), x)
    _UNITS.clear()
    return gradient


SAMPLES = 64
_ANSWER: dict[str, tuple[Any, Tensor]] = {}


def sampled(t: Tensor) -> tuple[Any, ...]:
    """What the last answer is known by: some of the elements."""
    every = max(t.numel() // SAMPLES, 1)
    return t.shape, t.dtype, t.reshape(-1)[::every].tolist()


def answers_by_sample(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, the last answer serves operands of which 64 elements are as they were."""
    result = right(x, y, reduction)
    if torch.is_grad_enabled() or not plainly(x, y) or reduction == "none":
        return result
    key = sampled(x), sampled(y), reduction
    if _ANSWER.get("last", (None,))[0] != key:
        _ANSWER["last"] = key, result.clone()
    return _ANSWER["last"][1].clone()


def one_changed(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.zeros(1000), torch.zeros(1000)
    with torch.no_grad():
        loss(x, y)
        x[7] = 5
        result: Tensor = loss(x, y)
    return result


CACHE_MUTANTS: tuple[Mutant, ...] = (
    mutant("cache-address", _cached(by_address), "purity"),
    mutant("cache-shape", _cached(by_shape), "purity", "value"),
    mutant("cache-version", _cached(by_version), "purity", witness=stale_after_data),
    mutant(
        "cache-total",
        _cached(by_total),
        "purity",
        "metamorphic",
        witness=differs_after(
            lambda: (torch.tensor([1.0, 2]), torch.tensor([1.0, 1])),
            lambda: (torch.tensor([2.0, 1]), torch.tensor([0.0, 2])),
        ),
    ),
    mutant("cache-by-object", by_object, "purity"),
    mutant("every-other-call", every_other_call(), "purity", "value"),
    mutant("compiled-reduction", compiled_reduction(), "purity", "value"),
    mutant("remembered-count", remembered_count(), "purity", "value"),
    mutant("first-call-wrong", first_call_wrong(), "purity", "value"),
    mutant("ten-calls", ten_calls(), "purity"),
    mutant("left-in-memory", left_in_memory(), "purity", "value"),
    mutant("inference-first", inference_first, "value", witness=otherwise(trained_after_inference)),
    mutant("answers-by-sample", answers_by_sample, "purity", witness=otherwise(one_changed)),
)
