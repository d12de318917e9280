"""Graphs and hooks: what autograd makes of a loss elsewhere than in a plain call.

Most protocols return the gradients in a plain call, ``plain``, and those that they ``got`` in their
own way: of whichever operand needs one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    attempt,
    fresh,
    gradients,
    or_none,
    protocol,
)

Tensors = tuple[Tensor, ...]


def _plainly(kit: Kit, x: Tensor, y: Tensor, reduction: str) -> Tensors:
    """The gradients in a plain call, whose operands are leaves with these values."""
    a, b = fresh(x), fresh(y)
    return gradients(kit.loss(a, b, reduction), a, b)


def _now(tensors: Iterable[Tensor]) -> list[Tensor]:
    """As they are now: a later call may write to them."""
    return [t.clone() for t in tensors]


@protocol
def accumulated(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``got``: what ``.grad`` of parameters holds after a backward, and held ``plain`` before."""
    plain = _plainly(kit, x, y, reduction)
    a, b = (torch.nn.Parameter(t, t.requires_grad) for t in (x, y))
    for operand, gradient in zip((a, b), plain, strict=False):
        operand.grad = gradient.clone()
    result = kit.loss(a, b, reduction)
    result.backward(torch.ones_like(result))
    return {"plain": plain, "got": [a.grad, b.grad]}


@protocol
def retained(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, factors: list[int]) -> Evidence:
    """One graph, walked time and again.

    ``again``: the gradients of each further backward, whose ``grad_output`` is one of ``factors``;
    ``first``: those of the first one, as they are after it and after each further one;
    ``after_change``: the gradients of another, after those first ones were changed in place;
    ``freed``: those through the graph that the last backward has freed, unless that raises.
    """
    result = kit.loss(x, y, reduction)
    ones = torch.ones_like(result)

    def walk(factor: int = 1, *, retain: bool = True) -> Tensors:
        g = factor * ones  # a copy for each: some write to it
        return gradients(result, x, y, g=g, retain_graph=retain)

    found = walk()
    first, again = [_now(found)], []
    for factor in factors:
        again.append(_now(walk(factor)))
        first.append(_now(found))
    for gradient in found:
        if gradient.is_contiguous():
            gradient.mul_(-3)  # as clipping does
    after_change = _now(walk())
    walk(retain=False)
    freed = or_none(lambda: walk(retain=False))
    return {"first": first, "again": again, "after_change": after_change, "freed": freed}


@protocol
def operand_changed(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, changed: int, between: bool
) -> Evidence:
    """``got``: after one operand is changed in place, before a backward or ``between`` two."""
    plain = _plainly(kit, x, y, reduction)
    a, b = x.clone(), y.clone()  # no leaves: those that need a gradient may not be changed at all
    result = kit.loss(a, b, reduction)
    if between and or_none(lambda: gradients(result, x, y, retain_graph=True)) is None:
        return {"plain": plain, "got": None}  # torch.compile retains no graph
    with torch.no_grad():
        (a, b)[changed].mul_(3)
    return {"plain": plain, "got": or_none(lambda: gradients(result, x, y))}


def _masked(result: Tensor) -> None:
    result[::2] = 0


# What is done to a result before its backward.
CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "mul_(2)": lambda result: result.mul_(2),
    "sub_ of itself": lambda result: result.sub_(result.detach().clone()),
    "zeros in every other place": _masked,
}


@protocol
def result_changed(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, change: str) -> Evidence:
    """``got``: after the result went through one of :data:`CHANGES`; or what that ``raised``."""
    plain = _plainly(kit, x, y, reduction)

    def changed() -> Tensors:
        result = kit.loss(x, y, reduction)
        CHANGES[change](result)
        return gradients(result, x, y)

    return {"plain": plain, **attempt(changed)}


@protocol
def hooked(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """A hook on the result doubles grad_output; one on input negates the gradient it ``saw``."""
    plain = _now(_plainly(kit, x, y, reduction))
    saw: list[Tensor] = []
    a, b = x.clone(), y.clone()

    def negate(g: Tensor) -> Tensor:
        saw.append(g.clone())
        return -g

    on_input: Any = a.register_hook  # untyped in torch
    on_input(negate)
    result = kit.loss(a, b, reduction)
    result.register_hook(lambda g: 2 * g)
    return {"plain": plain, "got": gradients(result, x, y), "saw": saw}


def checkpointing(again: Callable[[], object]) -> Any:
    """What is saved inside is not kept: backward computes it ``again``, once for all of it, and
    raises where that saves something else.

    As ``torch.utils.checkpoint`` does, which imports Dynamo: that takes a second.
    """
    forms: list[tuple[Any, ...]] = []
    kept: list[Tensor] = []
    hooks: Any = torch.autograd.graph.saved_tensors_hooks  # untyped in torch

    def packed(saved: Tensor) -> int:
        forms.append(_form(saved))
        return len(forms) - 1

    def unpacked(number: int) -> Tensor:
        if not kept:
            with torch.enable_grad(), hooks(lambda t: kept.append(t.detach()), lambda _: _):
                again()
            if [*map(_form, kept)][: len(forms)] != forms:
                raise RuntimeError("other tensors are saved than the first time")
        return kept[number]

    return hooks(packed, unpacked)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


@protocol
def repacked(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``copied``: what is saved is copied away, as by ``save_on_cpu``. ``checkpointed``: computed
    again. Either is None where that raises."""
    plain = _plainly(kit, x, y, reduction)

    def copied() -> Tensors:
        hooks: Any = torch.autograd.graph.saved_tensors_hooks  # untyped in torch
        with hooks(lambda t: t.detach().clone(), lambda t: t):
            result = kit.loss(x, y, reduction)
        return gradients(result, x, y)

    def checkpointed() -> Tensors:
        with checkpointing(lambda: kit.loss(x, y, reduction)):
            result = kit.loss(x, y, reduction)
        return gradients(result, x, y)

    return {"plain": plain, "copied": or_none(copied), "checkpointed": or_none(checkpointed)}


NONLEAVES: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda leaf: 2 * leaf,
    "start of a product": lambda leaf: (2 * leaf)[:5],
    "slice": lambda leaf: leaf[1:6],
    "part of a row": lambda leaf: leaf[1, 1:6],
}


@protocol
def nonleaf(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, operand: int, made: str) -> Evidence:
    """One operand is ``made`` from its leaf, which is the one handed in.

    ``plain``: as if what is made were a leaf. ``got``: by the leaves; None where the result
    requires no gradient.
    """
    operands = [x, y]
    operands[operand] = NONLEAVES[made](operands[operand])
    a, b = operands
    plain = _plainly(kit, a, b, reduction)
    result = kit.loss(a, b, reduction)
    got = gradients(result, x, y) if result.requires_grad else None
    return {"plain": plain, "got": got}


class _PassesOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


_passed_on: Any = _PassesOn.apply


def _row_doubled(t: Tensor) -> Tensor:
    t[1].mul_(2)
    return t


# Of a leaf of shape (2, 3): each gives an operand of that shape.
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda t: t.view(3, 2).view(2, 3),
    "reshape": lambda t: t.t().reshape(2, 3),
    "squeeze": lambda t: t.unsqueeze(1).squeeze(1),
    "transpose": lambda t: t.view(3, 2).transpose(0, 1),
    "permute": lambda t: t.view(3, 2).permute(1, 0),
    "t": lambda t: t.view(3, 2).t(),
    "expand": lambda t: t[:1].expand(2, 3),
    "slice": lambda t: torch.cat([t, t])[2:],
    "select": lambda t: t.expand(2, 2, 3)[1],
    "unbind": lambda t: t.expand(2, 2, 3).unbind()[1],
    "chunk": lambda t: torch.cat([t, t]).chunk(2)[1],
    "flip": lambda t: t.flip(0),
    "clone": lambda t: t.clone(),
    "an operation in place": lambda t: t.clone().mul_(2),
    "a change of a part in place": lambda t: _row_doubled(t.clone()),
    "a custom Function": lambda t: _passed_on(t),
}


@protocol
def made_by_operations(
    kit: Kit, *, x: Tensor, y: Tensor, operand: int, operations: list[str], reductions: list[str]
) -> Evidence:
    """By each of these :data:`OPERATIONS`, which makes one operand of a leaf: its gradient.

    ``got``, or what that ``raised``. ``plain``: of a call with what is made as a leaf, carried on
    to the first one by torch. Reductions go round.
    """
    seen = {}
    for name, reduction in zip(operations, itertools.cycle(reductions), strict=False):
        leaf = fresh((x, y)[operand])
        made = OPERATIONS[name](leaf)
        a, b = (made, y) if operand == 0 else (x, made)
        plain = torch.autograd.grad(
            made, leaf, _plainly(kit, a, b, reduction)[0], retain_graph=True
        )
        got = attempt(lambda: torch.autograd.grad(kit.loss(a, b, reduction).sum(), leaf))  # noqa: B023
        seen[name] = {"plain": plain, "reduction": reduction, **got}
    return seen


# What is often the last of a model. Each gives the numbers that it is given.
LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a linear layer": lambda t: F.linear(t, _identity(t), torch.zeros_like(t[0])),
    "a linear layer without bias": lambda t: F.linear(t, _identity(t)),
    "an activation": lambda t: F.leaky_relu(t, 1.0),
    "a bounded activation": lambda t: F.hardtanh(t, -1e3, 1e3),
    "an embedding": lambda t: F.embedding(torch.arange(len(t), device=t.device), t),
    "a squeeze": lambda t: t.unsqueeze(-1).squeeze(-1),
    "a concatenation": lambda t: torch.cat((t[:1], t[1:])),
}


def _identity(t: Tensor) -> Tensor:
    return torch.eye(t.shape[-1], dtype=t.dtype, device=t.device)


@protocol
def of_layers(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, layers: list[str]) -> Evidence:
    """For each of :data:`LAYERS` that makes the input of ``x``: the result, the gradient by ``x``,
    and both of a plain call with the same numbers."""
    seen = {}
    for name in layers:
        made = LAYERS[name](x)
        result, leaf = kit.loss(made, y, reduction), fresh(made)
        plain = kit.loss(leaf, y, reduction)
        seen[name] = [result, *gradients(result, x), plain, *gradients(plain, leaf)]
    return seen


class _PassesNothingOn(torch.autograd.Function):
    """Its backward has None for what it was applied to."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        return None


@protocol
def nothing_from_above(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``gradient``: of the sum of input, to which the result adds nothing in the backward."""
    passed_on: Any = _PassesNothingOn.apply
    total = passed_on(kit.loss(x, y, reduction)).sum() + x.sum()
    return {"gradient": torch.autograd.grad(total, x)[0]}


@protocol
def alive(kit: Kit, *, reductions: list[str], order: list[int], **operands: Tensor) -> Evidence:
    """Graphs of ``x0`` and ``y0``, ``x1`` and ``y1``, …, all alive before the first backward.

    ``plain`` and ``got``: in the ``order`` of the backwards.
    """
    pairs = [(operands[f"x{k}"], operands[f"y{k}"]) for k in range(len(reductions))]
    calls = list(zip(pairs, reductions, strict=True))
    wanted = [_plainly(kit, x, y, reduction) for (x, y), reduction in calls]
    results = [kit.loss(x, y, reduction) for (x, y), reduction in calls]
    plain, got = [], []
    for k in order:
        got.append(_now(gradients(results[k], *pairs[k])))
        plain.append(_now(wanted[k]))
    return {"plain": plain, "got": got}


@protocol
def many_alive(
    kit: Kit, *, x: Tensor, y: Tensor, a: Tensor, b: Tensor, reduction: str, graphs: int
) -> Evidence:
    """``got``: through a first graph, after so many others of ``a`` and ``b``, which are alive."""
    plain = _plainly(kit, x, y, reduction)
    first = kit.loss(x, y, reduction)
    others = [kit.loss(a, b, reduction) for _ in range(graphs)]
    got = gradients(first, x, y)
    del others  # alive until here
    return {"plain": plain, "got": got}


@protocol
def anomaly(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``got``: in anomaly mode."""
    plain = _plainly(kit, x, y, reduction)
    with torch.autograd.detect_anomaly(check_nan=True):
        got = gradients(kit.loss(x, y, reduction), x, y)
    return {"plain": plain, "got": got}
