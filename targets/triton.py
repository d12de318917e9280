"""The loss in Triton: on a GPU, or in the interpreter (``TRITON_INTERPRET=1``) without one."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch

from targets import compiled
from targets.registry import register
from targets.target import DROP_IN, Target, TargetUnavailable

try:
    import triton
    import triton.language as tl
except ImportError:
    raise TargetUnavailable("target triton: triton is not installed") from None

LIBRARY = "loss_conformance_triton"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 2**15 if INTERPRETED else 1024  # elements for a program; the interpreter is slow for each
LANES = 1024


@triton.jit  # type: ignore[untyped-decorator]
def square(x_ptr: Any, y_ptr: Any, out_ptr: Any, n: Any, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = (x - y)², of one block."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    # Computed wide: the interpreter computes bfloat16 on its bit patterns.
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(out_ptr + i, (d * d).to(out_ptr.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def sum_squares(x_ptr: Any, y_ptr: Any, sums: Any, n: Any, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum of one block's squares, kept for the second stage."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(sums + tl.program_id(0), tl.sum(d * d, 0))


@triton.jit  # type: ignore[untyped-decorator]
def finish(sums: Any, out_ptr: Any, blocks: Any, divisor: Any, wide: tl.constexpr, lanes: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip
    """One program adds the blocks' sums, always in one order, and divides."""
    total = tl.zeros((lanes,), wide)
    for first in range(0, blocks, lanes):
        i = first + tl.arange(0, lanes)
        total += tl.load(sums + i, i < blocks, other=0)
    value = tl.sum(total, 0) / tl.load(divisor)
    tl.store(out_ptr, value.to(out_ptr.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def gradient(g_ptr: Any, x_ptr: Any, y_ptr: Any, to_x: Any, to_y: Any, scale: Any, n: Any, scalar: tl.constexpr, need_x: tl.constexpr, need_y: tl.constexpr, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
    """grad_x = scale·g·(x - y) and grad_y = -grad_x; ``scalar``: one element of g serves all."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    g = tl.load(g_ptr).to(wide) if scalar else tl.load(g_ptr + i, inside, other=0).to(wide)
    value = (tl.load(scale) * g) * d
    if need_x:
        tl.store(to_x + i, value.to(to_x.dtype.element_ty), inside)
    if need_y:
        tl.store(to_y + i, (-value).to(to_y.dtype.element_ty), inside)


class Kernels:
    """The kernels, launched on tensors."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        x, y, n = x.contiguous(), y.contiguous(), x.numel()
        out = torch.empty_like(x) if reduction == "none" else x.new_empty(())
        blocks, wide = triton.cdiv(n, BLOCK), _wide(x.dtype)
        with _device_of(x):
            if reduction == "none":
                if blocks:
                    square[(blocks,)](x, y, out, n, wide, BLOCK)
                return out
            # Through memory: a float argument would reach the kernel as float32.
            sums = x.new_empty(blocks, dtype=_torch_wide(x.dtype))
            divisor = sums.new_full((), n if reduction == "mean" else 1)
            if blocks:
                sum_squares[(blocks,)](x, y, sums, n, wide, BLOCK)
            finish[(1,)](sums, out, blocks, divisor, wide, LANES)
        return out

    def backward(
        self,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        scale: float,
        needed: tuple[bool, bool],
    ) -> compiled.Pair:
        x, y, n, scalar = x.contiguous(), y.contiguous(), x.numel(), g.dim() < x.dim()
        grad_x, grad_y = (torch.empty_like(x) if need else x.new_empty(0) for need in needed)
        blocks = triton.cdiv(n, BLOCK)
        factor = torch.full((), scale, dtype=_torch_wide(x.dtype), device=x.device)
        operands = g.contiguous(), x, y, grad_x, grad_y, factor, n
        with _device_of(x):
            if blocks:
                gradient[(blocks,)](*operands, scalar, *needed, _wide(x.dtype), BLOCK)
        return grad_x, grad_y


def _wide(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype is torch.float64 else tl.float32


def _torch_wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _device_of(x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device_of(x) if x.is_cuda else contextlib.nullcontext()


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by the Triton kernels; errors as :func:`compiled.loss`."""
    return compiled.loss(LIBRARY, input, target, reduction)


def prepare() -> None:
    """Raises TargetUnavailable where the kernels can run nowhere."""
    if not INTERPRETED and not torch.cuda.is_available():
        raise TargetUnavailable(
            "target triton: torch sees no CUDA device; set TRITON_INTERPRET=1 to interpret"
        )


compiled.define(LIBRARY)
compiled.implement(LIBRARY, "cpu" if INTERPRETED else "cuda", Kernels)
TRITON = register(
    Target(
        "triton",
        loss,
        DROP_IN,
        summary="fused Triton kernels",
        devices=("cpu",) if INTERPRETED else ("cuda",),
        prepare=prepare,
    )
)
