"""Protocols on broadcasting."""

from __future__ import annotations

import warnings

from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, gradients, protocol


@protocol
def warned(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``messages``: of each UserWarning that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kit.loss(x, y, reduction)
    return {"messages": [str(w.message) for w in caught if issubclass(w.category, UserWarning)]}


@protocol
def many_rows(kit: Kit, *, x: Tensor, row: Tensor, rows: int, reduction: str) -> Evidence:
    """The ``gradient`` of ``x`` beside one row that is expanded to so many."""
    (gradient,) = gradients(kit.loss(x, row.expand(rows, *row.shape), reduction), x)
    return {"gradient": gradient}
