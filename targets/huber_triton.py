"""Huber's loss in Triton: on a GPU, or in the interpreter; ``triton.py`` has what both share."""

from __future__ import annotations

import torch

from targets import compiled, interpreter
from targets import triton as shared
from targets.interpreter import INTERPRETED, launching, readable
from targets.operands import above_zero
from targets.registry import register
from targets.target import DROP_IN, Target, TargetUnavailable
from targets.triton import BLOCK, LANES, accumulator, finish, prepare, widened

try:
    import triton
    import triton.language as tl
except ImportError:
    raise TargetUnavailable("target triton: triton is not installed") from None

LIBRARY = "loss_conformance_triton_huber"


@triton.jit
def term(d, delta):  # type: ignore[no-untyped-def]
    """d²/2 where |d| <= delta, else delta·(|d| - delta/2); a NaN is in neither piece."""
    size = tl.abs(d)
    return tl.where(size <= delta, d * d / 2, delta * (size - delta / 2))


@triton.jit  # type: ignore[untyped-decorator]
def terms(x_ptr, y_ptr, out_ptr, delta, n, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """The terms of one block."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(out_ptr + i, term(d, tl.load(delta)).to(out_ptr.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def sum_terms(x_ptr, y_ptr, sums, delta, n, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum of one block's terms, kept for the second stage; past the end they are 0."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    tl.store(sums + tl.program_id(0), tl.sum(term(d, tl.load(delta)), 0))


@triton.jit  # type: ignore[untyped-decorator]
def gradient(g_ptr, x_ptr, y_ptr, to_x, to_y, scale, delta, n, scalar: tl.constexpr, need_x: tl.constexpr, need_y: tl.constexpr, wide: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
    """grad_x = scale·g·clamp(x - y) and grad_y = -grad_x; ``scalar``: one element of g for all."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    limit = tl.load(delta)
    d = tl.load(x_ptr + i, inside, other=0).to(wide) - tl.load(y_ptr + i, inside, other=0).to(wide)
    g = tl.load(g_ptr).to(wide) if scalar else tl.load(g_ptr + i, inside, other=0).to(wide)
    slope = tl.where(d > limit, limit, tl.where(d < -limit, -limit, d))  # which keeps a NaN
    value = (tl.load(scale) * g) * slope
    if need_x:
        tl.store(to_x + i, value.to(to_x.dtype.element_ty), inside)
    if need_y:
        tl.store(to_y + i, (-value).to(to_y.dtype.element_ty), inside)


class Kernels:
    """The kernels, launched on tensors. Numbers go through memory: as arguments of a kernel they
    would be float32."""

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, reduction: str, delta: float
    ) -> torch.Tensor:
        dtype, n = x.dtype, x.numel()
        x, y = (readable(operand).contiguous() for operand in (x, y))
        out = torch.empty_like(x) if reduction == "none" else x.new_empty(())
        blocks, acc, limit = triton.cdiv(n, BLOCK), accumulator(dtype), _number(delta, x)
        with launching(x):
            if reduction != "none":
                divisor = _number(n if reduction == "mean" else 1, x)
                sums = torch.empty(blocks, dtype=widened(dtype), device=x.device)
                if blocks:
                    sum_terms[(blocks,)](x, y, sums, limit, n, acc, BLOCK)
                finish[(1,)](sums, out, blocks, divisor, acc, LANES)
            elif blocks:
                terms[(blocks,)](x, y, out, limit, n, acc, BLOCK)
        return out.to(dtype)

    def backward(
        self,
        g: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor,
        scale: float,
        needed: tuple[bool, bool],
        delta: float,
    ) -> compiled.Pair:
        dtype, n, scalar = x.dtype, x.numel(), g.dim() < x.dim()
        g, x, y = (readable(operand).contiguous() for operand in (g, x, y))
        grad_x, grad_y = (torch.empty_like(x) if need else x.new_empty(0) for need in needed)
        operands = g, x, y, grad_x, grad_y, _number(scale, x), _number(delta, x), n
        blocks = triton.cdiv(n, BLOCK)
        with launching(x):
            if blocks:
                gradient[(blocks,)](*operands, scalar, *needed, accumulator(dtype), BLOCK)
        return grad_x.to(dtype), grad_y.to(dtype)


def _number(value: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full((), value, dtype=widened(like.dtype), device=like.device)


def loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, delta: float = 1.0
) -> torch.Tensor:
    """Huber's loss by the Triton kernels; ValueError where ``delta`` is not above 0."""
    return compiled.loss(LIBRARY, input, target, reduction, above_zero(delta), of=compiled.HUBER)


compiled.define(LIBRARY, compiled.HUBER)
compiled.implement(LIBRARY, "cpu" if INTERPRETED else "cuda", Kernels, compiled.HUBER)
TRITON = register(
    Target(
        "triton",
        loss,
        DROP_IN,
        summary="fused Triton kernels",
        devices=("cpu",) if INTERPRETED else ("cuda",),
        prepare=prepare,
        sources=(compiled.__file__, interpreter.__file__, str(shared.__file__)),
        loss_of="huber",
    )
)
