"""Plain calls, as most experiments need some."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn

from conformance.observer.protocols.kit import Evidence, Kit, attempt, fresh, gradients, protocol


@protocol
def loss(kit: Kit, *, x: Tensor, y: Tensor, reduction: Any) -> Evidence:
    """``result``: what one call gives."""
    return {"result": kit.loss(x, y, reduction)}


@protocol
def both(kit: Kit, *, x: Tensor, y: Tensor, reduction: Any, g: Tensor | None = None) -> Evidence:
    """``result``; whether it ``requires_grad``; ``gradients`` of whichever operand needs one."""
    result = kit.loss(x, y, reduction)
    if not (isinstance(result, Tensor) and result.requires_grad):
        return {"result": result, "requires_grad": False, "gradients": []}
    found = gradients(result, x, y, g=g)
    return {"result": result, "requires_grad": True, "gradients": found}


@protocol
def trained(kit: Kit, *, x: Tensor, y: Tensor, reduction: Any) -> Evidence:
    """``result``, and the ``gradient`` of ``x``; it raises where there is none."""
    result = kit.loss(x, y, reduction)
    (gradient,) = gradients(result, x)
    return {"result": result, "gradient": gradient}


@protocol
def attempts(kit: Kit, *, x: Tensor, y: Tensor, reductions: list[Any]) -> Evidence:
    """By each reduction, as text: what a call with it gives, or what it raised."""
    return {
        str(reduction): attempt(functools.partial(kit.loss, fresh(x), fresh(y), reduction))
        for reduction in reductions
    }


@protocol
def with_parameter(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, name: str, value: str
) -> Evidence:
    """What a call gives that passes a parameter, or what it raised. ``value``: a number as text."""
    given = {name: float(value)}
    return attempt(lambda: kit.loss(x, y, reduction, **given))


@protocol
def module(kit: Kit, *, reduction: str) -> Evidence:
    """Whether what the target makes ``is_module``, and the ``kind`` that it is."""
    made = kit.module(reduction)
    return {"is_module": isinstance(made, nn.Module), "kind": type(made).__name__}
