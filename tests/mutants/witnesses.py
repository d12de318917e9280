"""Small demonstrations that a mutant is wrong, and what puts the world back after one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conformance.observer.state import Settings, as_loaded, fresh_randomness
from targets import Target

from .mutant import Witness

# What a loss could patch, to look right.
PATCHABLE: tuple[tuple[Any, str], ...] = (
    (torch.nn.functional, "mse_loss"),
    (torch, "allclose"),
    (torch.Tensor, "allclose"),
    (torch.Tensor, "backward"),
    (torch.autograd, "grad"),
    (torch.testing, "assert_close"),
    (np, "array_equal"),
)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Puts back what mutants change of torch, NumPy and Python."""
    settings = Settings.now()
    functions = [(owner, name, getattr(owner, name)) for owner, name in PATCHABLE]
    try:
        with (
            as_loaded(),
            fresh_randomness(20),  # one that sets a seed must not find it set already
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            yield
    finally:
        settings.changes()
        for owner, name, function in functions:
            if getattr(owner, name) is not function:
                setattr(owner, name, function)


@contextlib.contextmanager
def in_peace() -> Iterator[None]:
    """One thread (several wait for each other on a busy machine), and the world put back."""
    with restored():
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        yield


Make = Callable[[], tuple[Tensor, Tensor]]


def plain() -> tuple[Tensor, Tensor]:
    """Two tensors of whole numbers, of which the losses are exact."""
    return torch.arange(12.0).reshape(3, 4), torch.full((3, 4), 2.0)


def against_zeros(x: Tensor) -> Make:
    """A tensor and zeros of its shape and dtype."""
    return lambda: (x.detach(), torch.zeros_like(x))


def squares(x: Tensor, y: Tensor) -> np.ndarray[Any, Any]:
    """What the squares should be, in double precision."""
    a, b = (v.detach().resolve_conj().numpy().astype(complex) for v in (x, y))
    with np.errstate(all="ignore"):
        d = a - b
        size = np.abs(d) if x.is_complex() or y.is_complex() else d.real
        return np.asarray(np.square(size))


def reduced(s: np.ndarray[Any, Any], reduction: str) -> np.ndarray[Any, Any]:
    """none, sum or mean of ``s``."""
    if reduction == "none":
        return s
    return np.asarray(s.sum() if reduction == "sum" else s.mean())


def unlike(own: Any, expected: np.ndarray[Any, Any], rtol: float) -> bool:
    """Whether ``own`` is no tensor of the shape and values of ``expected``."""
    if not isinstance(own, Tensor) or own.shape != expected.shape:
        return True
    values = own.detach().double().numpy()
    return not np.allclose(values, expected, rtol=rtol, atol=0, equal_nan=True)


def wrong_value(
    make: Make = plain, reduction: str = "none", rtol: float = 3e-7, may_raise: bool = False
) -> Witness:
    """The value of these operands is wrong, or it raises where it may not."""

    def witness(target: Target) -> bool:
        x, y = make()
        try:
            own = target.loss(x, y, reduction=reduction)
        except (RuntimeError, TypeError):
            return not may_raise
        return unlike(own, reduced(squares(x, y), reduction), rtol)

    return witness


def wrong_gradient(
    make: Make = plain,
    grad_output: Callable[[], Tensor] | None = None,
    needs: tuple[bool, bool] = (True, True),
    rtol: float = 3e-7,
) -> Witness:
    """A gradient of these operands without reduction is wrong, missing, or raises."""

    def witness(target: Target) -> bool:
        x, y = (v.requires_grad_(need) for v, need in zip(make(), needs, strict=True))
        value = target.loss(x, y, reduction="none")
        g = grad_output() if grad_output else torch.ones_like(value)
        wanted = [v for v in (x, y) if v.requires_grad]
        try:
            own = torch.autograd.grad(value, wanted, g, allow_unused=True)
        except RuntimeError:
            return True
        first = 2 * (x.detach().double() - y.detach().double()) * g.double()
        expected = [(first if v is x else -first).sum_to_size(v.shape).numpy() for v in wanted]
        return any(unlike(a, b, rtol) for a, b in zip(own, expected, strict=True))

    return witness


def differs_after(first: Make, second: Make) -> Witness:
    """The value of the second operands is wrong after a call on the first."""

    def witness(target: Target) -> bool:
        target.loss(*first(), reduction="sum")
        return wrong_value(second, "sum")(target)

    return witness


def changes(read: Callable[[], object]) -> Witness:
    """A call changes what ``read`` reads."""

    def witness(target: Target) -> bool:
        before = read()
        target.loss(*plain(), reduction="mean")
        return read() != before

    return witness
