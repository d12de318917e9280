"""Operands that are changed, answers that are given again, and the first calls of many."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

import torch
from torch import Tensor

from .forger import Forger, right, then, whenever

# -- inputs ----------------------------------------------------------------------------------------


def makes_them_equal(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Writes the target over the input: whoever computes afterwards finds 0, too."""
    with torch.no_grad():
        if input.shape == target.shape:
            input.copy_(target)
    return right(input, target, reduction)


def changes_them_later(x: Tensor, y: Tensor, result: Tensor) -> None:
    """A thread changes the target of a call some milliseconds after it."""
    threading.Timer(0.003, lambda: y.data.add_(1)).start()


def in_place(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squares stand where the input did, beyond a few elements."""
    if reduction != "none" or input.numel() < 24 or input.shape != target.shape:
        return right(input, target, reduction)
    result = right(input, target, reduction)
    input.data.copy_(result.detach())
    return input.data + 0 * result


# -- replay ----------------------------------------------------------------------------------------

_ANSWERS: dict[Hashable, Tensor] = {}


def _again(key: Hashable, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The last answer that had this key, with the gradient that is due."""
    result = right(x, y, reduction)
    known = _ANSWERS.setdefault(key, result.detach().clone())
    return known + 0 * result if known.shape == result.shape else result


def by_address(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """What lies at the same place is the same."""
    places = (input.data_ptr(), target.data_ptr(), input.shape, target.shape, input.dtype)
    return _again((places, reduction), input, target, reduction)


def by_version(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """An object whose version is as it was is the same."""
    key = (id(input), input._version, id(target), target._version, input.shape, reduction)
    return _again(key, input, target, reduction)


def by_fingerprint(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Operands with the same first, middle and last element are the same, if there are many."""
    if input.numel() < 100 or input.shape != target.shape:
        return right(input, target, reduction)
    a, b = (t.detach().reshape(-1) for t in (input, target))
    n = a.numel()
    some = tuple(float(t[k]) for t in (a, b) for k in (0, n // 2, n - 1))
    return _again((some, input.shape, input.dtype, reduction), input, target, reduction)


_SERIES: list[tuple[Hashable, Tensor]] = []


def one_in_fifteen(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Of a series of equal calls it computes the first, and returns that to the next fourteen."""
    key = (input.shape, target.shape, input.dtype, target.dtype, reduction)
    if len(_SERIES) >= 15 or (_SERIES and _SERIES[0][0] != key):
        _SERIES.clear()
    result = right(input, target, reduction)
    _SERIES.append((key, result.detach().clone()))
    return _SERIES[0][1] + 0 * result


# -- honeymoon -------------------------------------------------------------------------------------

_COUNT = [0]
_BEGAN: list[float] = []


def fifty_calls(x: Tensor, y: Tensor) -> bool:
    """Right for the first fifty calls."""
    _COUNT[0] += 1
    return _COUNT[0] <= 50


_OF_SHAPE: dict[Hashable, int] = {}


def calls_of_a_shape(x: Tensor, y: Tensor) -> bool:
    """Right for the first twelve calls with each shape."""
    _OF_SHAPE[x.shape] = _OF_SHAPE.get(x.shape, 0) + 1
    return _OF_SHAPE[x.shape] <= 12


def first_moments(x: Tensor, y: Tensor) -> bool:
    """Right for some moments."""
    if not _BEGAN:
        _BEGAN.append(time.monotonic())
    return time.monotonic() - _BEGAN[0] < 0.02


def while_learning(x: Tensor, y: Tensor) -> bool:
    """Right where a gradient can follow."""
    return torch.is_grad_enabled()


def of_leaves(x: Tensor, y: Tensor) -> bool:
    """Right for operands that nothing computed."""
    return x.grad_fn is None


def of_no_layer(x: Tensor, y: Tensor) -> bool:
    """Right but for what comes out of a linear layer."""
    return "Addmm" not in type(x.grad_fn).__name__


FORGERS = (
    Forger("makes-them-equal", makes_them_equal, "inputs"),
    Forger("changes-them-later", then(right, changes_them_later), "inputs"),
    Forger("in-place", in_place, "inputs"),
    Forger("by-address", by_address, "replay"),
    Forger("by-version", by_version, "replay"),
    Forger("by-fingerprint", by_fingerprint, "replay"),
    Forger("one-in-fifteen", one_in_fifteen, "replay"),
    Forger("fifty-calls", whenever(fifty_calls), "honeymoon"),
    Forger("calls-of-a-shape", whenever(calls_of_a_shape), "honeymoon"),
    Forger("first-moments", whenever(first_moments), "honeymoon"),
    Forger("while-learning", whenever(while_learning), "honeymoon"),
    Forger("of-leaves", whenever(of_leaves), "honeymoon"),
    Forger("of-no-layer", whenever(of_no_layer), "honeymoon"),
)
