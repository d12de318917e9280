"""Protocols on calls in the deprecated form: ``size_average``, ``reduce``, by name or place."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    as_written,
    attempt,
    gradients,
    protocol,
)


@protocol
def called(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    positional: list[Any],
    named: dict[str, Any],
    w: Tensor | None = None,
) -> Evidence:
    """``result`` and ``gradient`` of ``x``, and whether the call ``warned``. ``w``: a weight."""
    given = {name: as_written(value) for name, value in named.items()}
    if w is not None:
        given["weight"] = w
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = kit.target.loss(x, y, *map(as_written, positional), **given)
    (gradient,) = gradients(result, x)
    return {"result": result, "gradient": gradient, "warned": bool(told)}


@protocol
def attempted(kit: Kit, *, x: Tensor, y: Tensor, positional: list[Any]) -> Evidence:
    """What a call gives, or what it raised."""
    return attempt(lambda: kit.target.loss(x, y, *map(as_written, positional)))
