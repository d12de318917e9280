"""Calls outside of what a target says it takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, as_written, attempt, protocol


@protocol
def outside(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, turned: bool = False) -> Evidence:
    """What a call gives, or what it raised. ``turned``: of two dimensions, in the other order in
    memory."""
    loss: Any = getattr(kit.target.loss, "unguarded", kit.target.loss)
    a, b = (t.t().contiguous().t() if turned else t for t in (x, y))
    return attempt(lambda: loss(a, b, reduction=as_written(reduction)))
