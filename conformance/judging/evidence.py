"""What came back over the wall, checked: nothing in it is trusted to have its form.

Tensors are read from a copy of the observer's part of the arena, made when the answer came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.cases.arena import WIDTHS
from conformance.judging.seen import Observation, Seen
from reference.formats import Floats

MOST_DIMS = 64
_KINDS = {name: np.dtype(name) for name in WIDTHS if name != "bfloat16"} | {
    "bfloat16": np.dtype(np.uint16)
}
_TEXTS = ("rubbish", "raised", "raised_backward", "alias")
_OUTCOMES = {"value", "rubbish", "raised"}
_LISTS = ("settings", "attributes", "versions")


class BadEvidence(Exception):
    """An answer that has not the form that was asked for; the message says how."""


@dataclass(frozen=True)
class Other:
    """Something that is no tensor and no plain data, in a few words."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Unread:
    """A tensor whose elements were not read: too many for the arena, or none to read (meta)."""

    shape: tuple[int, ...]
    dtype: str
    device: str


@dataclass(frozen=True)
class Evidence:
    """What a protocol saw, by name. Each way to ask raises BadEvidence where it is another kind."""

    items: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.items

    def __getitem__(self, name: str) -> Any:
        """Whatever it is."""
        if name not in self.items:
            raise BadEvidence(f"the observer's answer lacks {name!r}")
        return self.items[name]

    def tensor(self, name: str) -> Seen:
        found: Seen = self._of(name, Seen)
        return found

    def flag(self, name: str) -> bool:
        found: bool = self._of(name, bool)
        return found

    def number(self, name: str) -> float:
        found = self._of(name, (int, float))
        try:
            return float(found)
        except OverflowError:
            raise BadEvidence(f"the observer's answer has for {name!r} no number") from None

    def text(self, name: str) -> str:
        found: str = self._of(name, str)
        return found

    def listed(self, name: str) -> list[Any]:
        found: list[Any] = self._of(name, list)
        return found

    def tensors(self, name: str) -> list[Seen]:
        """A list of tensors and nothing else."""
        found = self.listed(name)
        if not all(isinstance(one, Seen) for one in found):
            raise BadEvidence(f"the observer's answer has in {name!r} what is no tensor")
        return found

    def items_of(self, name: str) -> Evidence:
        return Evidence(self._of(name, dict))

    def _of(self, name: str, kind: Any) -> Any:
        found = self[name]
        odd = isinstance(found, bool) and kind is not bool  # which is an int to Python
        if odd or not isinstance(found, kind):
            raise BadEvidence(f"the observer's answer has for {name!r} {str(found)[:80]!r}")
        return found


def evidence(data: Any, notes: bytes) -> Evidence:
    """Of a protocol. Raises BadEvidence."""
    found = _read(data, notes)
    if not isinstance(found, dict):
        raise BadEvidence("the observer's answer is no evidence")
    return Evidence(found)


def _read(data: Any, notes: bytes) -> Any:
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [_read(one, notes) for one in data]
    if isinstance(data, dict) and len(data) == 1:
        ((kind, value),) = data.items()
        if kind == "tensor":
            return tensor(value, notes)
        if kind == "items" and isinstance(value, dict):
            return {name: _read(one, notes) for name, one in value.items()}
        if kind == "other" and isinstance(value, str):
            return Other(value)
    raise BadEvidence("the observer's answer has another form than evidence")


def tensor(data: Any, notes: bytes) -> Seen | Unread:
    """``[dtype, shape, device, offset]``. Raises BadEvidence."""
    if not (isinstance(data, list) and len(data) == 4):
        raise BadEvidence("a tensor in the observer's answer has another form")
    dtype, shape, device, offset = data
    if not (isinstance(dtype, str) and isinstance(device, str) and isinstance(shape, list)):
        raise BadEvidence("a tensor in the observer's answer has another form")
    if len(shape) > MOST_DIMS or {*map(type, shape)} - {int} or min(shape, default=0) < 0:
        raise BadEvidence("a tensor in the observer's answer has an impossible shape")
    if offset is None:
        return Unread(tuple(shape), dtype, device)
    kind, size = _KINDS.get(dtype, np.dtype(np.float64)), math.prod(shape)
    inside = type(offset) is int and 0 <= offset <= len(notes) - size * kind.itemsize
    if size and not inside:
        raise BadEvidence("a tensor in the observer's answer lies outside of its notes")
    raw = np.frombuffer(notes, kind, size, offset) if size else np.zeros(0, kind)
    return Seen(_numbers(raw, dtype).reshape(shape), dtype, device)


def _numbers(raw: np.ndarray, dtype: str) -> Floats:
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return raw.astype(np.float64)


def observation(data: Any, notes: bytes, changed: list[str]) -> Observation:
    """Of a case. ``changed``: the operands whose memory is not as it was. Raises BadEvidence."""
    if not isinstance(data, dict):
        raise BadEvidence("what the observer saw of a call has another form")
    if len(_OUTCOMES & data.keys()) != 1 or ("value" in data) != ("requires_grad" in data):
        raise BadEvidence("what the observer saw of a call has no outcome, or several")
    found = Observation(changed=changed)
    for name, value in data.items():
        if name == "value":
            found.value = _whole(value, notes)
        elif name == "gradients" and isinstance(value, dict):
            found.gradients = {
                str(k): None if v is None else _whole(v, notes) for k, v in value.items()
            }
        elif name == "requires_grad" and isinstance(value, bool):
            found.requires_grad = value
        elif name in _TEXTS and isinstance(value, str):
            setattr(found, name, value)
        elif name in _LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value):
            if name == "versions":
                found.changed += [v for v in value if v not in found.changed]
            else:
                setattr(found, name, value)
        else:
            raise BadEvidence(f"what the observer saw of a call has {str(name)[:40]!r}")
    return found


def _whole(data: Any, notes: bytes) -> Seen:
    """A tensor; where it was too large to be written down, one of its shape without elements."""
    found = tensor(data, notes)
    if isinstance(found, Seen):
        return found
    nothing = np.broadcast_to(np.float64(np.nan), found.shape)
    return Seen(nothing, found.dtype, found.device)
