"""The compiled library's functions, called with tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch

MAX_DIMS = 16
OPERANDS = 3
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
Rows = list[tuple[int, tuple[int, ...]]]  # of each dimension its size, and the operands' strides


class Layout(ctypes.Structure):
    """Sizes and strides, as mse.cu declares them."""

    _fields_ = (
        ("elements", ctypes.c_int64),
        ("dims", ctypes.c_int),
        ("size", ctypes.c_int64 * MAX_DIMS),
        ("stride", (ctypes.c_int64 * MAX_DIMS) * OPERANDS),
    )


def coalesced(rows: Rows) -> Rows:
    """The dimensions without those of size 1, neighbours joined where every operand allows it."""
    joined: Rows = []
    for size, strides in rows:
        if size == 1:
            continue
        if joined and all(a == size * b for a, b in zip(joined[-1][1], strides, strict=True)):
            joined[-1] = (joined[-1][0] * size, strides)
        else:
            joined.append((size, strides))
    return joined


def rows_of(operands: tuple[torch.Tensor, ...]) -> Rows:
    """One row for each dimension of ``operands``, which have one shape."""
    strides = zip(*(operand.stride() for operand in operands), strict=True)
    return list(zip(operands[0].shape, strides, strict=True))


def layout_of(rows: Rows, elements: int) -> Layout:
    """The structure that a kernel takes; it has room for :data:`MAX_DIMS` dimensions."""
    layout = Layout(elements=elements, dims=len(rows))
    for k, (size, strides) in enumerate(rows):
        layout.size[k] = size
        for operand, stride in enumerate(strides):
            layout.stride[operand][k] = stride
    return layout


def stream_of(device: torch.device) -> int | None:
    """The current stream of a CUDA device, as a number; None for the host."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None


@dataclass(frozen=True)
class Kernels:
    """The functions of one compiled library."""

    library: ctypes.CDLL

    @classmethod
    def load(cls, path: Path) -> Kernels:
        """The library at ``path``. Raises OSError where it does not load."""
        library = ctypes.CDLL(str(path))
        integer, pointer = ctypes.c_int, ctypes.c_void_p
        library.mse_partials.argtypes = [ctypes.c_int64]
        library.mse_partials.restype = ctypes.c_int64
        library.mse_forward.argtypes = [integer] * 3 + [pointer] * 6
        library.mse_backward.argtypes = [integer] * 2 + [ctypes.c_double] + [pointer] * 7
        library.mse_error.restype = ctypes.c_char_p
        return cls(library)

    def forward(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        """The loss of ``x`` and ``y``, of one shape, dtype and device.

        Contiguous of their shape for none, 0-d for sum and mean. Raises RuntimeError where the
        launch fails.
        """
        rows = rows_of((x, y))
        if reduction != "none":  # the order is free, so a transposed pair is read as it lies
            rows.sort(key=lambda row: row[1], reverse=True)
        rows = coalesced(rows)
        if len(rows) > MAX_DIMS:
            return self.forward(x.contiguous(), y.contiguous(), reduction)
        n = x.numel()
        out = x.new_empty(x.shape if reduction == "none" else ())
        room = 0 if reduction == "none" else self.library.mse_partials(n)
        partials = torch.empty(room, dtype=torch.float64, device=x.device)
        self._check(
            self.library.mse_forward(
                x.device.index or 0,
                DTYPES[x.dtype],
                REDUCTIONS[reduction],
                out.data_ptr(),
                partials.data_ptr(),
                x.data_ptr(),
                y.data_ptr(),
                ctypes.byref(layout_of(rows, n)),
                stream_of(x.device),
            )
        )
        return out

    def backward(
        self,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        scale: float,
        needed: tuple[bool, bool],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``scale·g·(x - y)`` and its negative, each contiguous, or empty where not needed.

        ``g``: of their shape, or 0-d. Raises RuntimeError where the launch fails.
        """
        rows = coalesced(rows_of((x, y, g.expand(x.shape))))
        if len(rows) > MAX_DIMS:
            x, y = x.contiguous(), y.contiguous()
            return self.backward(g.contiguous(), x, y, scale, needed)
        grad_x, grad_y = (x.new_empty(x.shape if need else 0) for need in needed)
        self._check(
            self.library.mse_backward(
                x.device.index or 0,
                DTYPES[x.dtype],
                scale,
                grad_x.data_ptr() if needed[0] else None,
                grad_y.data_ptr() if needed[1] else None,
                x.data_ptr(),
                y.data_ptr(),
                g.data_ptr(),
                ctypes.byref(layout_of(rows, x.numel())),
                stream_of(x.device),
            )
        )
        return grad_x, grad_y

    def _check(self, error: int) -> None:
        if error:
            raise RuntimeError(f"mse kernel: {self.library.mse_error(error).decode()}")
