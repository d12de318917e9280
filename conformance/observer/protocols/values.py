"""Protocols on the value: how the loss is called."""

from __future__ import annotations

from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, protocol, text_of


@protocol
def by_equal_name(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The ``result`` where the reduction's name is equal to the usual one, and another object."""
    return {"result": kit.target.loss(x, y, reduction="".join(reduction))}


@protocol
def unnamed(kit: Kit, *, x: Tensor, y: Tensor) -> Evidence:
    """The ``result`` without a reduction; ``refused``: that there is none, where it says so."""
    try:
        return {"result": kit.target.loss(x, y)}
    except TypeError as error:
        if "reduction" not in str(error):
            raise
        return {"refused": text_of(error)}
