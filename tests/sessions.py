"""Sessions for tests: on any Python object, in this process."""

from __future__ import annotations

from typing import Any

import torch

from conformance.cases.case import Operand
from conformance.cases.claimed import Claimed
from conformance.cases.layouts import place
from conformance.cases.values import raw
from conformance.observer.description import described
from conformance.running.observers import InProcess
from conformance.running.session import Session
from targets import Target


def session_on(target: Any, device: str = "cpu", seed: int = 0, **options: Any) -> Session:
    """``target``: whatever ``targets.resolve`` takes."""
    return Session(InProcess.of(target, device), seed, **options)


def claimed(target: Target) -> Claimed:
    """What the judge knows of a target."""
    return Claimed.from_json(described(target))


def tensor_of(operand: Operand, requires_grad: bool = False) -> torch.Tensor:
    """The tensor that an observer makes of it, in memory of its own."""
    buffer = torch.from_numpy(raw(operand).copy()).view(getattr(torch, operand.dtype))
    spot = place(operand.layout, operand.shape)
    tensor = buffer.as_strided(operand.shape, spot.strides, spot.offset)
    return tensor.requires_grad_() if requires_grad else tensor
