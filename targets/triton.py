"""The loss in Triton: on a GPU, or in the interpreter (``TRITON_INTERPRET=1``) without one."""

from __future__ import annotations

from typing import Any

import torch

from targets import compiled, interpreter
from targets.interpreter import INTERPRETED, launching, readable
from targets.registry import register
from targets.target import DROP_IN, Target, TargetUnavailable

try:
    import triton
    import triton.language as tl
except ImportError:
    raise TargetUnavailable("target triton: triton is not installed") from None

LIBRARY = "loss_conformance_triton"
BLOCK = 2**15 if INTERPRETED else 1024  # elements for a program; the interpreter is slow for each
LANES = 1024


@triton.jit  # type: ignore[untyped-decorator]
def square(x_ptr, y_ptr, out_ptr, n, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = (x - y)², of one block."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    # Computed wide: the interpreter computes bfloat16 on its bit patterns.
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(out_ptr + i, (d * d).to(out_ptr.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def sum_squares(x_ptr, y_ptr, sums, n, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum of one block's squares, kept for the second stage."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(sums + tl.program_id(0), tl.sum(d * d, 0))


@triton.jit  # type: ignore[untyped-decorator]
def finish(  # type: ignore[no-untyped-def]
    sums, out_ptr, blocks, divisor, wide: tl.constexpr, lanes: tl.constexpr
):
    """One program adds the blocks' sums, always in one order, and divides."""
    total = tl.zeros((lanes,), wide)
    for first in range(0, blocks, lanes):
        i = first + tl.arange(0, lanes)
        total += tl.load(sums + i, i < blocks, other=0)
    value = tl.sum(total, 0) / tl.load(divisor)
    tl.store(out_ptr, value.to(out_ptr.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def gradient(g_ptr, x_ptr, y_ptr, to_x, to_y, scale, n, scalar: tl.constexpr, need_x: tl.constexpr, need_y: tl.constexpr, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
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
        dtype, n, wide = x.dtype, x.numel(), widened(x.dtype)
        x, y = (readable(operand).contiguous() for operand in (x, y))
        out = torch.empty_like(x) if reduction == "none" else x.new_empty(())
        blocks, acc = triton.cdiv(n, BLOCK), accumulator(dtype)
        with launching(x):
            if reduction != "none":
                # Through memory: a float argument would reach the kernel as float32.
                divisor = torch.full(
                    (), n if reduction == "mean" else 1, dtype=wide, device=x.device
                )
                sums = torch.empty(blocks, dtype=wide, device=x.device)
                if blocks:
                    sum_squares[(blocks,)](x, y, sums, n, acc, BLOCK)
                finish[(1,)](sums, out, blocks, divisor, acc, LANES)
            elif blocks:
                square[(blocks,)](x, y, out, n, acc, BLOCK)
        return out.to(dtype)

    def backward(
        self,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        scale: float,
        needed: tuple[bool, bool],
    ) -> compiled.Pair:
        dtype, n, scalar = x.dtype, x.numel(), g.dim() < x.dim()
        g, x, y = (readable(operand).contiguous() for operand in (g, x, y))
        grad_x, grad_y = (torch.empty_like(x) if need else x.new_empty(0) for need in needed)
        factor = torch.full((), scale, dtype=widened(dtype), device=x.device)
        operands = g, x, y, grad_x, grad_y, factor, n
        blocks = triton.cdiv(n, BLOCK)
        with launching(x):
            if blocks:
                gradient[(blocks,)](*operands, scalar, *needed, accumulator(dtype), BLOCK)
        return grad_x.to(dtype), grad_y.to(dtype)


def accumulator(dtype: torch.dtype) -> Any:
    """What a kernel computes in, for operands of ``dtype``."""
    return tl.float64 if dtype is torch.float64 else tl.float32


def widened(dtype: torch.dtype) -> torch.dtype:
    """The same, of a tensor."""
    return torch.promote_types(dtype, torch.float32)


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
        sources=(compiled.__file__, interpreter.__file__),
    )
)
