"""Protocols on purity: what one call leaves behind for the next."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import BaseTorchFunctionMode

from conformance.observer.dispatch import Through
from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    brief,
    fresh,
    gradients,
    protocol,
)
from conformance.observer.state import (
    Settings,
    as_loaded,
    deterministic_mode,
    fresh_randomness,
    unusual_settings,
    world,
    world_changes,
)


def _copied(value: Any) -> Any:
    """As it is now, whatever later calls do to it."""
    return value.detach().clone() if isinstance(value, Tensor) else value


@protocol
def new_contents(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, others: list[str]) -> Evidence:
    """``results`` of calls on the same two tensors, each with the next row as contents.

    After each comes a call with another reduction, of ``others``. Every other time the contents
    change by ``.data``, which leaves the version as it was.
    """
    a, b = torch.empty_like(x[0]), torch.empty_like(y[0])
    results = []
    for k, other in enumerate(others[: len(x)]):
        with torch.no_grad():
            into, beside = (a, b) if k % 2 else (a.data, b.data)
            into.copy_(x[k])
            beside.copy_(y[k])
        result = kit.loss(a, b, reduction)
        results.append(_copied(result))
        kit.loss(a, b, other)
    return {"results": results}


@protocol
def unseen_contents(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, enabled: bool) -> Evidence:
    """``results`` as of :func:`new_contents`, none between them; the version always stays.

    ``enabled``: whether gradients are.
    """
    a, b = torch.empty_like(x[0]), torch.empty_like(y[0])
    results = []
    with torch.set_grad_enabled(enabled):
        for row, beside in zip(x, y, strict=True):
            a.data.copy_(row)
            b.data.copy_(beside)
            results.append(_copied(kit.loss(a, b, reduction)))
    return {"results": results}


@protocol
def kept(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, module: bool) -> Evidence:
    """How many elements of the results and gradients of a call on each row later calls change.

    For each of these, of calls with ``grad`` and of calls with ``no_grad``; of the loss or of one
    ``module``. Numbers, since large ones are many bytes.
    """
    loss = kit.module(reduction) if module else functools.partial(kit.loss, reduction=reduction)
    modes = {"grad": True, "no_grad": False}
    return {name: _changed_later(loss, x, y, enabled) for name, enabled in modes.items()}


def _changed_later(loss: Callable[..., Any], x: Tensor, y: Tensor, enabled: bool) -> list[int]:
    kept: list[tuple[Tensor, Tensor]] = []
    for k in range(len(x)):
        a, b = fresh(x[k]), fresh(y[k])
        with torch.set_grad_enabled(enabled):
            result = loss(a, b)
        found = gradients(result, a, b, allow_unused=True) if enabled else ()
        seen = [t.detach() for t in (result, *found) if t is not None]
        kept += [(t, t.clone()) for t in seen]
    return [_unequal(now, then) for now, then in kept]


def _unequal(now: Tensor, then: Tensor) -> int:
    """How many elements differ; NaN is NaN, and no sign of memory that is used again."""
    return int(((now != then) & ~(now.isnan() & then.isnan())).sum())


@protocol
def first_of_many(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, count: int) -> Evidence:
    """The result on the first rows, ``then``, and ``now``: after many, all kept, on the second."""
    with torch.no_grad():
        first = kit.loss(x[0].clone(), y[0].clone(), reduction)
        then = first.clone()
        a, b = x[1].clone(), y[1].clone()
        later = [kit.loss(a, b, reduction) for _ in range(count)]
    return {"then": then, "now": first.clone(), "later": len(later)}


@protocol
def operands(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, mode: str) -> Evidence:
    """What the operands hold after a call on views of them (``viewed``), and on them (``whole``).

    ``mode``: the name of one of torch's, within which they are made too. Nobody but the call holds
    the views; ``x[:]`` would be a view as well.
    """
    with getattr(torch, mode)():
        a, b = x.clone(), y.clone()
        kit.loss(a[1], b[1], reduction)
        viewed = [a.clone(), b.clone()]
        kit.loss(a, b, reduction)
        return {"viewed": viewed, "whole": [a, b]}


@protocol
def branches(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The ``gradient`` of z, of ``2·(L + z)``.

    The loss and z are handed one tensor, which nobody else holds.
    """
    result = kit.loss(x, y, reduction)
    z = torch.zeros_like(result).requires_grad_()
    total = 2 * (result + z)
    _, gradient = torch.autograd.grad(total, (x, z), torch.ones_like(total))
    return {"gradient": gradient}


@protocol
def changed_in_place(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What a change of the result in place ``raised``: the operands repeat the same four rows."""
    with torch.no_grad():
        result = kit.loss(x.expand(4, -1), y.expand(4, -1), reduction)
        try:
            result.mul_(torch.ones_like(result))
        except RuntimeError as error:
            return {"raised": brief(error)}
    return {}


@protocol
def gradients_apart(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The gradient of ``y``, ``then``, and ``now``: after that of ``x`` was set to zero in place.

    As ``zero_grad(set_to_none=False)`` does. Nothing where one of them is missing.
    """
    result = kit.loss(x, y, reduction)
    if not result.requires_grad:
        return {}
    first, second = gradients(result, x, y, allow_unused=True)
    if first is None or second is None:
        return {}
    then = second.clone()
    first.zero_()
    return {"then": then, "now": second}


@protocol
def world_changed(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, seed: int) -> Evidence:
    """What a call ``changed`` of the world; not the first one, which imports, and compiles."""
    with _own_filters():
        gradients(kit.loss(x, y, reduction), x)
    with _own_filters(), fresh_randomness(seed):
        before = world()
        gradients(kit.loss(x, y, reduction), x)
        return {"changed": world_changes(before)}


@protocol
def settings_overridden(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What calls, without and with a gradient, ``changed`` of settings that their caller chose."""
    with _own_filters(), unusual_settings() as settings:
        kit.loss(x, y, reduction)
        changed = settings.changes()
        with torch.enable_grad():
            settings = Settings.now()
            gradients(kit.loss(x, y, reduction), x)
            changed += settings.changes()
    return {"changed": changed}


BLOCKS: dict[str, Callable[[str], AbstractContextManager[Any]]] = {
    "no_grad": lambda _: torch.no_grad(),
    "inference_mode": lambda _: torch.inference_mode(),
    "autocast": lambda device: torch.autocast(torch.device(device).type, torch.float16),
    "deterministic mode": lambda _: deterministic_mode(),
    "hooks on what is saved": lambda _: saved_tensors_hooks(lambda t: t, lambda t: t),
    "a dispatch mode": lambda _: Through(),
    "a function mode": lambda _: BaseTorchFunctionMode(),
    "a backward on one thread": lambda _: torch.autograd.set_multithreading_enabled(False),
}


def _is_compiled(kit: Kit, x: Tensor, y: Tensor, reduction: str) -> bool:
    """Whether a call leaves code that Dynamo has compiled."""
    with contextlib.suppress(Exception):
        kit.loss(fresh(x), fresh(y), reduction)
    dynamo: Any = sys.modules.get("torch._dynamo.convert_frame")
    return bool(dynamo and dynamo.input_codes.seen)


@protocol
def changed_within(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, block: str) -> Evidence:
    """What a call, and its backward, ``changed`` for the rest of the block that it is made in.

    It may raise: not everything works in every block. What is compiled does not in a dispatch mode,
    and torch then skips its code for good: that is left alone.
    """
    if block == "a dispatch mode" and _is_compiled(kit, x, y, reduction):
        return {"changed": []}
    with _own_filters(), BLOCKS[block](kit.device):
        settings = Settings.of_block()
        with contextlib.suppress(Exception):
            result = kit.loss(x, y, reduction)
            if torch.is_grad_enabled():
                gradients(result, x, y)
        return {"changed": settings.changes()}


@protocol
def set_again(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What each call has ``changed`` of the world, so that it shows no more once one was made."""
    with _own_filters(), as_loaded():
        before = world()
        with contextlib.suppress(Exception):  # it may rest on what its module set
            gradients(kit.loss(x, y, reduction), x)
        return {"changed": world_changes(before)}


@protocol
def changed_in_vain(
    kit: Kit, *, x: Tensor, y: Tensor | None = None, reduction: str, same: bool = False
) -> Evidence:
    """What a call ``changed`` of settings and of the world, though it may have raised.

    ``same``: the target is the input itself; else it is ``y``, which may be None.
    """
    with _own_filters():
        before, settings = world(), Settings.now()
        with contextlib.suppress(Exception):
            kit.loss(x, x if same else y, reduction)
        return {"changed": [*settings.changes(), *world_changes(before)]}


@contextlib.contextmanager
def _own_filters() -> Iterator[None]:
    """Warnings are kept from the user by a filter that no target sets: its own would be seen."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        yield


@protocol
def hooks_of_two(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """Whether a call ``left`` a hook on one of two operands that need a gradient."""
    kit.loss(x, y, reduction)
    return {"left": any(t._backward_hooks for t in (x, y))}


@protocol
def attributes(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What calls leave of their operands' attributes: hooks, flags, and ``.grad``.

    Of an input that has ones as ``.grad``; and of one that is no leaf.
    """
    x.requires_grad_().grad = ones = torch.ones_like(x)
    result = kit.loss(x, y, reduction)
    torch.autograd.grad(result, x, torch.ones_like(result))
    left: tuple[Any, ...] = x._backward_hooks, x._post_accumulate_grad_hooks
    found: Evidence = {
        "needs": [x.requires_grad, y.requires_grad],
        "leaf": x.is_leaf,
        "grad_replaced": x.grad is not ones,
        "grad": ones,
        "hooks": any(left),
        "other_grad": y.grad is not None,
    }
    doubled = 2 * x
    kit.loss(doubled, y, reduction)
    left = doubled._backward_hooks, doubled.retains_grad
    return found | {"hooks_of_no_leaf": any(left)}
