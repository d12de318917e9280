"""Second and third derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, or_none, protocol

NAMES = ("input", "target", "grad_output")


def laid(t: Tensor) -> Tensor:
    """A leaf of three dimensions with the last one outermost in memory; others as they are."""
    if t.ndim < 3:
        return t
    moved = t.detach().movedim(-1, 0).contiguous()
    return moved.movedim(0, -1).requires_grad_(t.requires_grad)


def _gradient(result: Tensor, leaf: Tensor, g: Tensor | None) -> Tensor:
    """By ``leaf``, to be differentiated itself; of the sum of ``result`` where ``g`` is None."""
    g = torch.ones_like(result) if g is None else g
    (gradient,) = torch.autograd.grad(result, leaf, g, create_graph=True)
    return gradient


@protocol
def second(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    w: Tensor,
    reduction: str,
    g: Tensor | None = None,
    of: int = 0,
    again: bool = False,
) -> Evidence:
    """The gradient ``of`` one operand, differentiated along ``w``.

    ``second``: by each operand that needs a gradient, and by ``g`` if it does, by name; None where
    the gradient is detached. ``again``: the graph has served a backward before.
    """
    x, y, w = map(laid, (x, y, w))
    g = None if g is None else laid(g)
    result = kit.loss(x, y, reduction)
    if again:
        ones = torch.ones_like(result) if g is None else g.detach()
        torch.autograd.grad(result, (x, y)[of], ones, retain_graph=True)
    gradient = _gradient(result, (x, y)[of], g)
    if not gradient.requires_grad:
        return {"second": None}
    by = {n: t for n, t in zip(NAMES, (x, y, g), strict=True) if t is not None and t.requires_grad}
    along = w.to(gradient.dtype)
    found = torch.autograd.grad(gradient, list(by.values()), along, allow_unused=True)
    return {"second": dict(zip(by, found, strict=True))}


@protocol
def by_expanded(
    kit: Kit, *, x: Tensor, y: Tensor, half: Tensor, w: Tensor, reduction: str
) -> Evidence:
    """``second``: of the gradient of input by ``grad_output``, which is ``half`` expanded."""
    g = half.expand(x.shape)
    gradient = _gradient(kit.loss(x, y, reduction), x, g)
    return {"second": torch.autograd.grad(gradient, g, w, allow_unused=True)[0]}


@protocol
def grad_output_changed(
    kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, w: Tensor, reduction: str
) -> Evidence:
    """``second``: of the gradient of input, after ``g`` is changed in place; None if it raises."""
    gradient = _gradient(kit.loss(x, y, reduction), x, g)
    g.mul_(3)
    found = or_none(lambda: torch.autograd.grad(gradient, x, w))
    return {"second": None if found is None else found[0]}


@protocol
def second_of_alias(kit: Kit, *, x: Tensor, w: Tensor, reduction: str, detached: bool) -> Evidence:
    """Target is input itself, or ``detached`` from it.

    ``constant``: whether the gradient requires none; ``second``: what that gives along ``w``.
    """
    gradient = _gradient(kit.loss(x, x.detach() if detached else x, reduction), x, None)
    if not gradient.requires_grad:
        return {"constant": True, "second": None}
    found = torch.autograd.grad(gradient, x, w, allow_unused=True)
    return {"constant": False, "second": found[0]}


@protocol
def second_of_squared_loss(
    kit: Kit, *, x: Tensor, y: Tensor, w: Tensor, reduction: str
) -> Evidence:
    """``second``: the Hessian of Σ L² by input, times ``w``."""
    total = kit.loss(x, y, reduction).square().sum()
    gradient = _gradient(total, x, None)
    return {"second": torch.autograd.grad(gradient, x, w, allow_unused=True)[0]}


@protocol
def third_through_square(
    kit: Kit, *, x: Tensor, y: Tensor, w: Tensor, reduction: str, operand: int
) -> Evidence:
    """Where one operand is x² and the other y, the ``second`` and ``third`` derivative of Σ L by x.

    Each along ``w``. The third is None where it raises.
    """
    a, b = (x.square(), y) if operand == 0 else (y, x.square())
    gradient = _gradient(kit.loss(a, b, reduction).sum(), x, None)
    (found,) = torch.autograd.grad(gradient, x, w, create_graph=True, allow_unused=True)
    if found is None:
        return {"second": None, "third": None}
    third = or_none(lambda: torch.autograd.grad(found, x, w))
    return {"second": found, "third": None if third is None else third[0]}
