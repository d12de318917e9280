"""What every protocol works with: the target, calls, gradients, and what a call raised.

The script of a broken clause holds a copy of its protocols and of whatever else they refer to (see
``report/bundle.py``): the less that is, the easier it is to read.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Evidence = dict[str, Any]
Protocol = Callable[..., Evidence]
PROTOCOLS: dict[str, Protocol] = {}


# How a loss is called: so that a gradient can follow, or so that none can.
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


class Unavailable(Exception):
    """A protocol that cannot run here; the message says what is missing."""


class Outside(BaseException):
    """Operands that a target does not take: no protocol is to take this for its own answer."""


@dataclass(frozen=True)
class Kit:
    """The target and the device that it is observed on."""

    target: Any
    device: str

    def loss(self, x: Any, y: Any, reduction: Any, **parameters: Any) -> Any:
        """The loss as the target computes it."""
        if parameters:
            return self.target.loss(x, y, reduction=as_written(reduction), **parameters)
        # By itself: a call with ** holds its operands in a tuple, and some count who holds them.
        return self.target.loss(x, y, reduction=as_written(reduction))

    def module(self, reduction: str) -> Any:
        """A module that the target makes."""
        return self.target.module(reduction=as_written(reduction))


def as_written(name: Any) -> Any:
    """A text as the same object that a program holds which has it in its source."""
    return sys.intern(name) if type(name) is str else name


def by_its_name(function: Callable[..., Any], mean: str) -> Callable[..., Any]:
    """A loss, or what makes a module: handed its own name for a mean."""
    if mean == "mean":
        return function

    @functools.wraps(function)
    def named(*args: Any, **given: Any) -> Any:
        if given.get("reduction") == "mean":
            given["reduction"] = mean
        return function(*args, **given)

    return named


def protocol(function: Protocol) -> Protocol:
    """Register a function under ``file.name``. It takes a Kit, and the rest by keyword."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    assert name not in PROTOCOLS, name
    PROTOCOLS[name] = function
    return function


def gradients(
    result: torch.Tensor, *operands: torch.Tensor, g: torch.Tensor | None = None, **options: Any
) -> tuple[torch.Tensor, ...]:
    """The gradient of each operand that needs one; of the sum of ``result`` where ``g`` is None."""
    needing = [t for t in operands if t.requires_grad]
    g = torch.ones_like(result) if g is None else g
    return torch.autograd.grad(result, needing, g, **options)


def fresh(tensor: torch.Tensor) -> torch.Tensor:
    """A copy for another call, which needs a gradient where ``tensor`` does."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def attempt(function: Callable[[], Any]) -> Evidence:
    """``got``: what the function gives; or what it ``raised``, as text, and its ``kind``."""
    try:
        return {"got": function()}
    except KeyboardInterrupt:
        raise
    except Exception as error:
        return {"raised": text_of(error), "kind": type(error).__name__}


def or_none(function: Callable[[], T]) -> T | None:
    """What the function gives; None where it raises RuntimeError, as torch does to refuse."""
    try:
        return function()
    except RuntimeError:
        return None


def text_of(error: BaseException) -> str:
    """The exception's type and the first line of its message; where that announces more, the last.

    A compiler's message begins with a place and a colon, and ends with the reason.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    announces = lines[0].endswith(":") and len(lines) > 1
    reason = f" {lines[-1].strip()}" if announces else ""
    return f"{type(error).__name__}: {lines[0]}{reason}"


def brief(value: Any) -> str:
    """Anything that is no tensor, in a few words."""
    text = getattr(value, "__qualname__", repr(value)) if callable(value) else str(value)
    return text[:200]
