"""Tensors out of the arena, and into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from conformance.cases.arena import HEADER, WIDTHS, Arena, aligned

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in WIDTHS}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# An operand as a request names it: where its buffer lies in the arena and how many elements that
# holds; dtype; shape, strides and offset of the tensor in its buffer; and whether it is a tensor of
# its own to autograd, and no view.
Placed = Sequence[Any]


@dataclass(frozen=True)
class Made:
    """A tensor, the buffer that it is a view of, and its form at first (:func:`form_of`)."""

    tensor: torch.Tensor
    buffer: torch.Tensor
    form: tuple[Any, ...]

    def replaced(self) -> bool:
        """Whether the tensor has other memory, strides or dtype than at first, through .data."""
        return form_of(self.tensor) != self.form


def form_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where its elements are, and how they are laid out and read."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


class Handed:
    """The part of the arena that a request hands in.

    On the CPU an operand's buffer is that memory itself. Elsewhere all of it is copied to the
    device at once, each operand to a buffer of its own there, and back at once (:meth:`finish`): so
    the arena shows in either case what became of it.
    """

    def __init__(self, arena: Arena, size: int, device: str) -> None:
        self.arena, self.size, self.staged = arena, size, None
        if device != "cpu" and size:
            self.staged = self._bytes().to(device)

    def _bytes(self) -> torch.Tensor:
        return torch.frombuffer(self.arena.map, dtype=torch.uint8, count=self.size, offset=HEADER)

    def _staged(self, placed: Placed) -> torch.Tensor:
        assert self.staged is not None
        offset, count, dtype = placed[:3]
        start = offset - HEADER
        return self.staged[start : start + count * WIDTHS[dtype]].view(DTYPES[dtype])

    def buffer(self, placed: Placed) -> torch.Tensor:
        """The memory of an operand."""
        if self.staged is not None:
            return self._staged(placed).clone()
        offset, count, dtype = placed[:3]
        return torch.frombuffer(self.arena.map, dtype=DTYPES[dtype], count=count, offset=offset)

    def back(self, placed: Placed, buffer: torch.Tensor) -> None:
        """After a call: what the buffer holds now."""
        if self.staged is not None:
            self._staged(placed).copy_(buffer.detach())

    def finish(self) -> None:
        """After the last call."""
        if self.staged is not None:
            self._bytes().copy_(self.staged)


def view_of(buffer: torch.Tensor, placed: Placed, requires_grad: bool = False) -> Made:
    """The operand: a view of its buffer.

    A contiguous one is a tensor of its own to autograd, as ``torch.randn`` makes it; the others
    are views.
    """
    shape, strides, offset, own = placed[3:]
    tensor = buffer.as_strided(shape, strides, offset)
    if own:
        tensor = tensor.detach()
    tensor = tensor.requires_grad_() if requires_grad else tensor
    return Made(tensor, buffer, form_of(tensor))


class Notes:
    """The part of the arena that the observer writes to: tensors, one behind the other.

    On a device they are gathered there, and copied at once (:meth:`finish`).
    """

    def __init__(self, arena: Arena, start: int, size: int, device: str) -> None:
        assert start >= HEADER
        self.arena, self.start, self.used, self.size = arena, start, 0, size
        self.staged = None
        if device != "cpu":
            self.staged = torch.empty(size, dtype=torch.uint8, device=device)

    def put(self, tensor: torch.Tensor) -> list[Any]:
        """Copy its elements; returns dtype, shape, device and offset from the start.

        The offset is None where there is no room for them, or where it has no elements to read (on
        the meta device). A dtype that cases do not use is named, and its elements are written as
        float64. Raises what torch raises.
        """
        name = DTYPE_NAMES.get(tensor.dtype)
        shape, kind = list(tensor.shape), tensor.device.type
        dtype = tensor.dtype if name else torch.float64
        label = name or str(tensor.dtype).removeprefix("torch.")
        offset, size = self.used, math.prod(shape)
        if kind == "meta" or offset + size * dtype.itemsize > self.size:
            return [label, shape, kind, None]
        if size:
            place = self._place(dtype, size, offset)
            # A tensor without data (a fake one) copies nothing: what stood here must not be its.
            place.fill_(torch.nan if dtype.is_floating_point else -1)
            place.view(shape).copy_(tensor.detach())
            self.used = aligned(offset + size * dtype.itemsize)
        return [label, shape, kind, offset]

    def _place(self, dtype: torch.dtype, size: int, offset: int) -> torch.Tensor:
        if self.staged is not None:
            return self.staged[offset : offset + size * dtype.itemsize].view(dtype)
        whole = self.start + offset
        return torch.frombuffer(self.arena.map, dtype=dtype, count=size, offset=whole)

    def finish(self) -> None:
        """After the last call."""
        if self.staged is not None and self.used:
            place = torch.frombuffer(
                self.arena.map, dtype=torch.uint8, count=self.used, offset=self.start
            )
            place.copy_(self.staged[: self.used])
