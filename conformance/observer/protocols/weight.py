"""Protocols on a weight for each element of input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, attempt, protocol

# How a weight lies in memory. What lies beside its elements is another number than they are.
LAYOUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "contiguous": lambda w, x: w,
    "strided": lambda w, x: torch.stack([w, 7 - w], -1)[..., 0],
    "offset": lambda w, x: torch.cat([7 - w.flatten(), w.flatten()])[w.numel() :].view(w.shape),
    "transposed": lambda w, x: w.movedim(-1, 0).contiguous().movedim(0, -1),
    "expanded": lambda w, x: w.expand(x.shape),
}


@protocol
def called(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    w: Tensor,
    reduction: str,
    g: Tensor | None = None,
    layout: str = "contiguous",
    parameters: dict[str, float] | None = None,
) -> Evidence:
    """``result`` of a call with ``w`` as the weight, and whether it ``requires_grad``.

    ``gradients``, where ``g`` is what to differentiate with: by ``x``, ``y`` and ``w``, as far as
    they need one, None where there is none. ``kept``: what all three hold afterwards.
    """
    weight = LAYOUTS[layout](w.detach(), x).requires_grad_(w.requires_grad)
    operands = {"x": x, "y": y, "w": weight}
    result = kit.loss(x, y, reduction, weight=weight, **(parameters or {}))
    seen: Evidence = {"result": result, "requires_grad": bool(result.requires_grad)}
    if g is not None and result.requires_grad:
        needing = {name: t for name, t in operands.items() if t.requires_grad}
        g = g.to(result.dtype)
        found = torch.autograd.grad(result, list(needing.values()), g, allow_unused=True)
        seen["gradients"] = dict(zip(needing, found, strict=True))
    return seen | {"kept": {name: t.detach().clone() for name, t in operands.items()}}


@protocol
def attempts(
    kit: Kit, *, x: Tensor, y: Tensor, w: Tensor, shapes: list[list[int]], reduction: str
) -> Evidence:
    """By number: what a call gives with a weight of each of ``shapes``, or what it raised.

    Each holds the first elements of ``w``.
    """
    weights = [w[: torch.Size(shape).numel()].reshape(shape) for shape in shapes]
    calls = [functools.partial(kit.loss, x, y, reduction, weight=one) for one in weights]
    return {str(k): attempt(call) for k, call in enumerate(calls)}


@protocol
def without(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The ``result`` where the weight is None."""
    none: Any = None
    return {"result": kit.loss(x, y, reduction, weight=none)}
