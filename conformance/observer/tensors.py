"""Cases made real: torch tensors with the exact elements, strides, offset and guards."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conformance.cases.case import Operand
from conformance.cases.layouts import place
from conformance.cases.values import INTEGER_GUARD, elements, in_buffer
from reference.formats import Floats

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_NUMPY: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}


@dataclass(frozen=True)
class Made:
    """A tensor, the buffer that it is a view of, and what the buffer held at first.

    ``form``: the tensor's own at first (:func:`form_of`).
    """

    tensor: torch.Tensor
    buffer: torch.Tensor
    original: NDArray[Any]
    form: tuple[Any, ...]

    def changed(self) -> bool:
        """Whether any element, gap or guard has other bits than at first."""
        now = self.buffer.detach()
        raw = (now.view(torch.int16) if now.dtype == torch.bfloat16 else now).cpu().numpy()
        return raw.tobytes() != self.original.tobytes()

    def replaced(self) -> bool:
        """Whether the tensor has other memory, strides or dtype than at first, through .data."""
        return form_of(self.tensor) != self.form


def form_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where its elements are, and how they are laid out and read."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


@functools.lru_cache(maxsize=256)
def _raw_buffer(operand: Operand) -> NDArray[Any]:
    """The buffer's contents in the operand's own dtype (bfloat16: its bits as int16)."""
    line = in_buffer(elements(operand), operand.layout)[0]
    if operand.dtype == "bfloat16":
        bits = line.astype(np.float32).view(np.uint32) >> np.uint32(16)
        return bits.astype(np.uint16).view(np.int16)
    if operand.dtype in INTEGER_GUARD:
        line = np.nan_to_num(line, nan=float(INTEGER_GUARD[operand.dtype]))
    with np.errstate(all="ignore"):
        return line.astype(_NUMPY[operand.dtype])


def make(operand: Operand, device: str, requires_grad: bool = False) -> Made:
    """A leaf tensor for ``operand`` on ``device``, in a fresh buffer.

    A contiguous one is a tensor of its own to autograd, as ``torch.randn`` makes it; the others
    are views.
    """
    raw = _raw_buffer(operand)
    buffer = torch.from_numpy(raw.copy())
    if operand.dtype == "bfloat16":
        buffer = buffer.view(torch.bfloat16)
    if device != "cpu":
        buffer = buffer.to(device)
    spot = place(operand.layout, operand.shape)
    tensor = buffer.as_strided(operand.shape, spot.strides, spot.offset)
    if operand.layout == "contiguous":
        tensor = tensor.detach()
    tensor = tensor.requires_grad_() if requires_grad else tensor
    return Made(tensor, buffer, raw, form_of(tensor))


def to_numpy(tensor: torch.Tensor) -> Floats:
    """The tensor's elements as float64 (exact for every dtype that cases use)."""
    dense: Floats = tensor.detach().to("cpu", torch.float64).resolve_neg().numpy()
    return dense
