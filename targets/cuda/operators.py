"""The kernels as registered operators, so that fake tensors, vmap and torch.compile know them.

``loss_conformance::mse(x, y, reduction)`` and
``loss_conformance::mse_gradient(g, x, y, scale, need_x, need_y)`` take operands of one shape and
dtype; ``g`` has that shape or is 0-d. They are differentiated by :mod:`targets.cuda.loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from targets.cuda.kernels import Kernels

MSE = "loss_conformance::mse"
GRADIENT = "loss_conformance::mse_gradient"
Pair = tuple[torch.Tensor, torch.Tensor]

torch.library.define(MSE, "(Tensor x, Tensor y, str reduction) -> Tensor")
torch.library.define(
    GRADIENT,
    "(Tensor g, Tensor x, Tensor y, float scale, bool need_x, bool need_y) -> (Tensor, Tensor)",
)
mse: Any = torch.ops.loss_conformance.mse.default
mse_gradient: Any = torch.ops.loss_conformance.mse_gradient.default


def implement(device: str, kernels: Callable[[], Kernels]) -> None:
    """Run the operators on this kind of device by ``kernels()``. To be called once per device."""

    def forward(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        return kernels().forward(x, y, reduction)

    def backward(
        g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, scale: float, need_x: bool, need_y: bool
    ) -> Pair:
        return kernels().backward(g, x, y, scale, (need_x, need_y))

    torch.library.impl(MSE, device, forward)
    torch.library.impl(GRADIENT, device, backward)


@torch.library.register_fake(MSE)
def _fake_mse(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    return x.new_empty(x.shape if reduction == "none" else ())


@torch.library.register_fake(GRADIENT)
def _fake_gradient(
    g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, scale: float, need_x: bool, need_y: bool
) -> Pair:
    return x.new_empty(x.shape if need_x else 0), x.new_empty(x.shape if need_y else 0)


def _batched(operand: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    """The operand with its batch dimension first; expanded where it has none."""
    return operand.expand(size, *operand.shape) if dim is None else operand.movedim(dim, 0)


@torch.library.register_vmap(MSE)
def _vmap_mse(
    info: Any, in_dims: Any, x: torch.Tensor, y: torch.Tensor, reduction: str
) -> tuple[torch.Tensor, int]:
    x, y = (_batched(t, d, info.batch_size) for t, d in zip((x, y), in_dims[:2], strict=True))
    squares = mse(x, y, "none")
    if reduction == "none":
        return squares, 0
    rows = squares.reshape(len(x), x[0].numel())
    return (rows.sum(1) if reduction == "sum" else rows.mean(1)), 0


@torch.library.register_vmap(GRADIENT)
def _vmap_gradient(
    info: Any,
    in_dims: Any,
    g: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    scale: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Pair, tuple[int | None, int | None]]:
    g, x, y = (_batched(t, d, info.batch_size) for t, d in zip((g, x, y), in_dims[:3], strict=True))
    g = g.reshape(len(g), *g.shape[1:], *[1] * (x.dim() - g.dim())).expand(x.shape)
    out_dims = (0 if need_x else None, 0 if need_y else None)
    return mse_gradient(g, x, y, scale, need_x, need_y), out_dims
