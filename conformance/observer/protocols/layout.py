"""Protocols on layout: views that more than strides describe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, gradients, protocol

# Two views of one tensor.
VIEWS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "transposed": lambda whole: (whole, whole.t()),
    "windows": lambda whole: (whole[:-1], whole[1:]),
    "halves": lambda whole: (whole[: len(whole) // 2], whole[len(whole) // 2 + 1 :]),
}


@protocol
def shared(kit: Kit, *, whole: Tensor, views: str, apart: bool, reduction: str) -> Evidence:
    """``result`` of a call without a gradient, and the ``gradient`` of the first view in another.

    ``apart``: the second view is copied first, with its strides, to memory of its own.
    """
    x, y = VIEWS[views](whole)
    y = _apart(y) if apart else y
    result = kit.loss(x, y, reduction)
    leaf = x.detach().requires_grad_()  # in the same memory
    (gradient,) = gradients(kit.loss(leaf, y, reduction), leaf)
    return {"result": result, "gradient": gradient}


def _apart(view: Tensor) -> Tensor:
    return torch.empty_strided(
        view.shape, view.stride(), dtype=view.dtype, device=view.device
    ).copy_(view)


@protocol
def negative(kit: Kit, *, x: Tensor, y: Tensor, operand: str, reduction: str) -> Evidence:
    """The ``result`` where one operand, ``x`` or ``y``, is a view with the negative bit.

    Its memory has the bits of the negative, to be read as the number itself.
    """
    x = torch._neg_view(x.neg()) if operand == "x" else x
    y = torch._neg_view(y.neg()) if operand == "y" else y
    return {"result": kit.loss(x, y, reduction)}
