"""Tangents in forward mode."""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from conformance.observer.protocols.derivatives import laid
from conformance.observer.protocols.kit import Evidence, Kit, protocol


@protocol
def tangent(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    reduction: str,
    t_x: Tensor | None = None,
    t_y: Tensor | None = None,
) -> Evidence:
    """``tangent``: of the result, in forward mode, where the operands have these tangents or none.

    ``along``: what the tangents of the operands hold afterwards.
    """
    forward: Any = fwad  # untyped in torch
    along = [None if t is None else laid(t) for t in (t_x, t_y)]
    with forward.dual_level():
        a, b = (
            laid(operand) if t is None else forward.make_dual(laid(operand), t)
            for operand, t in zip((x, y), along, strict=True)
        )
        found = forward.unpack_dual(kit.loss(a, b, reduction)).tangent
        return {"tangent": found, "along": along}


@protocol
def tangent_of_many(kit: Kit, *, one: Tensor, count: int, reduction: str) -> Evidence:
    """``tangent``: along input, which is ``count`` times ``one`` as its tangent is; target is 0."""
    x = one.repeat(count)
    seen = tangent(kit, x=x, y=torch.zeros_like(x), reduction=reduction, t_x=x.clone())
    return {"tangent": seen["tangent"]}
