"""Memory layouts: how a tensor's elements lie in a buffer that is larger than the tensor.

Every operand lives in a buffer of its own with a guard behind it (in front too, where the layout
has an offset) and gaps where it has steps. Guards and gaps hold NaN: reading them spoils a result,
and a write to them is seen afterwards (clause ``purity.inputs``).
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

GUARD = 64  # elements


@dataclass(frozen=True)
class Placement:
    """Strides and offset in elements, and the length of the buffer."""

    strides: tuple[int, ...]
    offset: int
    length: int


Shape = tuple[int, ...]


def _dense(shape: Shape, order: list[int], step: int = 1) -> tuple[int, ...]:
    """Strides of a dense tensor whose dimensions lie in memory in ``order``, outermost first."""
    strides = [0] * len(shape)
    for k in reversed(order):
        strides[k] = step
        step *= max(shape[k], 1)
    return tuple(strides)


def _forward(shape: Shape) -> list[int]:
    return list(range(len(shape)))


def _contiguous(shape: Shape) -> tuple[int, ...]:
    return _dense(shape, _forward(shape))


def _transposed(shape: Shape) -> tuple[int, ...]:
    return _dense(shape, _forward(shape)[::-1])


def _permuted(shape: Shape) -> tuple[int, ...]:
    """Dense, the dimensions in an order that goes with the shape: every one but the usual."""
    order = _forward(shape)
    random.Random(repr(shape)).shuffle(order)
    return _dense(shape, order if order != _forward(shape) else order[::-1])


def _strided(shape: Shape) -> tuple[int, ...]:
    """Every second, third or fourth element, which goes with their number."""
    return _dense(shape, _forward(shape), step=2 + math.prod(shape) % 3)


def _narrow(shape: Shape) -> tuple[int, ...]:
    """The first columns of a wider matrix: dense rows with a gap after each."""
    if len(shape) < 2:
        return _contiguous(shape)
    inner = shape[-1] + 3
    return (*(inner * s for s in _contiguous(shape[:-1])), 1)


def _cropped(shape: Shape) -> tuple[int, ...]:
    """The first rows of longer images: dense rows, one after the other but for a gap after each."""
    if len(shape) < 3:
        return _narrow(shape)
    return _contiguous((*shape[:-2], shape[-2] + 2, shape[-1]))


def _channels_last(shape: Shape) -> tuple[int, ...]:
    order = _forward(shape)
    return _dense(shape, [0, *order[2:], 1]) if len(shape) >= 3 else _transposed(shape)


def _expanded(shape: Shape) -> tuple[int, ...]:
    """Stride 0 along the first dimension, as ``expand`` makes it."""
    return (0, *_contiguous(shape[1:])) if shape else ()


def _repeated(shape: Shape) -> tuple[int, ...]:
    """Stride 0 along the last dimension: a weight for each row."""
    return (*_contiguous(shape[:-1]), 0) if shape else ()


def _weighted(shape: Shape) -> tuple[int, ...]:
    """Stride 0 but along the first dimension: a weight for each sample."""
    return (1, *(0,) * (len(shape) - 1)) if shape else ()


def _filled(shape: Shape) -> tuple[int, ...]:
    """Stride 0 everywhere: one element, as autograd expands the gradient of a sum."""
    return (0,) * len(shape)


def _overlapping(shape: Shape) -> tuple[int, ...]:
    """Sliding windows over one line: element (i, j) is line[i + j]."""
    return (1,) * len(shape)


LAYOUTS: dict[str, Callable[[Shape], tuple[int, ...]]] = {
    "contiguous": _contiguous,
    "offset": _contiguous,
    "strided": _strided,
    "transposed": _transposed,
    "permuted": _permuted,
    "narrow": _narrow,
    "cropped": _cropped,
    "channels_last": _channels_last,
    "expanded": _expanded,
    "repeated": _repeated,
    "weighted": _weighted,
    "filled": _filled,
    "overlapping": _overlapping,
}


# Layouts in which several elements may lie in one place.
OVERLAPPING = frozenset({"expanded", "repeated", "weighted", "filled", "overlapping"})


@functools.lru_cache(maxsize=256)
def place(layout: str, shape: Shape) -> Placement:
    """Where the elements of a tensor of ``shape`` lie in its buffer.

    ``offset`` begins one to eight elements past an aligned address, which goes with their number.
    """
    strides = LAYOUTS[layout](shape)
    offset = 0 if layout == "contiguous" else GUARD
    if layout == "offset":
        offset += 1 + math.prod(shape) % 8
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    return Placement(strides, offset, offset + (reach if math.prod(shape) else 0) + GUARD)
