"""Protocols on ``torch.func``: what a transform of the loss gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, gradients, or_none, protocol

Dim = int | None
Function = Callable[[Tensor, Tensor], Tensor]


def _function(kit: Kit, reduction: str) -> Function:
    def function(x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = kit.loss(x, y, reduction)
        return result

    return function


def _total(kit: Kit, reduction: str) -> Function:
    """0-d for every reduction, as ``grad`` demands."""
    function = _function(kit, reduction)

    def total(x: Tensor, y: Tensor) -> Tensor:
        result = function(x, y)
        return result.sum() if result.dim() else result

    return total


def _mapped(function: Function, in_dims: Sequence[Dim]) -> Function:
    mapped: Function = torch.func.vmap(function, in_dims=tuple(in_dims))
    return mapped


def _moved(x: Tensor, dim: Dim) -> Tensor:
    """Samples, which come in front, along the dimension ``dim``; None: they are none."""
    return x if dim is None else x.movedim(0, dim)


@protocol
def grad(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, number: int) -> Evidence:
    """``gradient``: by the operand of this number."""
    return {"gradient": torch.func.grad(_total(kit, reduction), number)(x, y)}


@protocol
def vjp(kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, reduction: str, both: bool) -> Evidence:
    """For the cotangent ``g``, the gradient of ``input``, and of ``target`` where ``both``."""
    function = _function(kit, reduction)
    if both:
        found = torch.func.vjp(function, x, y)[1](g)
        return {"input": found[0], "target": found[1]}
    return {"input": torch.func.vjp(lambda x: function(x, y), x)[1](g)[0]}


@protocol
def vjp_and_plainly(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``result`` and ``gradient`` of the input; ``plain_result`` and ``plain_gradient`` without."""
    result, pull = torch.func.vjp(lambda x: kit.loss(x, y, reduction), x)[:2]
    leaf = x.clone().requires_grad_()
    plain = kit.loss(leaf, y, reduction)
    (gradient,) = pull(torch.ones_like(result))
    (plain_gradient,) = gradients(plain, leaf)
    return {
        "result": result,
        "gradient": gradient,
        "plain_result": plain,
        "plain_gradient": plain_gradient,
    }


@protocol
def jvp(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    t_x: Tensor,
    reduction: str,
    t_y: Tensor | None = None,
    mapped: bool = False,
) -> Evidence:
    """``tangent``: of the loss, or of what vmap makes of it; along the input alone without t_y."""
    function = _function(kit, reduction)
    function = _mapped(function, (0, 0)) if mapped else function
    if t_y is None:
        return {"tangent": torch.func.jvp(lambda x: function(x, y), (x,), (t_x,))[1]}
    return {"tangent": torch.func.jvp(function, (x, y), (t_x, t_y))[1]}


@protocol
def grad_of_jvp(kit: Kit, *, x: Tensor, y: Tensor, t_x: Tensor, reduction: str) -> Evidence:
    """``gradient``: of the tangent, by the input. None where it cannot be differentiated."""
    function = _function(kit, reduction)

    def tangent(a: Tensor) -> Tensor:
        along: Tensor = torch.func.jvp(lambda x: function(x, y), (a,), (t_x,))[1]
        return along.sum()

    return {"gradient": or_none(lambda: torch.func.grad(tangent)(x))}


@protocol
def jacrev(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, number: int) -> Evidence:
    """``jacobian``: by the operand of this number."""
    return {"jacobian": torch.func.jacrev(_function(kit, reduction), number)(x, y)}


@protocol
def hessian(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, first: int, second: int) -> Evidence:
    """``hessian``: by the operand of one number, and then by that of the other."""
    once = torch.func.jacrev(_total(kit, reduction), first)
    return {"hessian": torch.func.jacrev(once, second)(x, y)}


@protocol
def vmap(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, in_dims: Sequence[Dim] = (0, 0)
) -> Evidence:
    """``result``: of the samples, which are moved from the front to ``in_dims`` first."""
    a, b = map(_moved, (x, y), in_dims)
    return {"result": _mapped(_function(kit, reduction), in_dims)(a, b)}


@protocol
def vmap_of_grad(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, in_dims: Sequence[Dim], number: int
) -> Evidence:
    """``gradient``: of each such sample, by the operand of this number."""
    a, b = map(_moved, (x, y), in_dims)
    gradient = torch.func.grad(_total(kit, reduction), number)
    return {"gradient": _mapped(gradient, in_dims)(a, b)}


@protocol
def vmap_of_vmap(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, in_dim: int) -> Evidence:
    """``result``: of samples of samples; those outside are moved to ``in_dim`` first."""
    once = _mapped(_function(kit, reduction), (0, 0))
    twice = _mapped(once, (in_dim, in_dim))
    return {"result": twice(_moved(x, in_dim), _moved(y, in_dim))}


@protocol
def grad_of_vmap(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, in_dims: Sequence[Dim], number: int
) -> Evidence:
    """``gradient``: of all that vmap gives, by the operand of this number."""
    mapped = _mapped(_function(kit, reduction), in_dims)
    return {"gradient": torch.func.grad(lambda x, y: mapped(x, y).sum(), number)(x, y)}


@protocol
def backward_of_vmap(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, in_dims: Sequence[Dim]
) -> Evidence:
    """``gradient``: of all that vmap gives, by the leaf, as autograd has it. None without graph."""
    result = _mapped(_function(kit, reduction), in_dims)(x, y)
    if not result.requires_grad:
        return {"gradient": None}
    return {"gradient": gradients(result.sum(), x, y)[0]}


@protocol
def batched_gradient(kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, reduction: str) -> Evidence:
    """``gradient``: by the leaf, for each of the cotangents in ``g``."""
    result = kit.loss(x, y, reduction)
    return {"gradient": gradients(result, x, y, g=g, is_grads_batched=True)[0]}
