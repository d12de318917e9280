"""Experiments on purity: what one call leaves behind for the next."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from conformance.cases.plans import derive
from conformance.observer.protocols.bench import (
    LARGE,
    Bench,
    Messages,
    brief,
    deviation,
    deviation_of_loss,
    eighths,
    experiment,
    gradients,
    shared_out,
)
from conformance.observer.state import (
    Settings,
    as_loaded,
    fresh_randomness,
    unusual_settings,
    world,
    world_changes,
)
from reference import mse

SOME = 5003  # elements: enough for a kernel that samples some of them, or takes another path
RESULTS = 300  # kept: more than a ring of buffers has


@experiment("purity.repeat")
def _purity_repeat(bench: Bench) -> Messages:
    """Same tensors with new contents, in turn with other reductions: a cache would show."""
    for reduction in bench.reductions:
        x, y = bench.tensor((6,), 1), bench.tensor((6,), 2)
        for k in range(14):
            with torch.no_grad():
                a, b = (x, y) if k % 2 else (x.data, y.data)  # .data leaves the version as it was
                a.copy_(bench.tensor((6,), 3 + 2 * k))
                b.copy_(bench.tensor((6,), 4 + 2 * k))
            result = bench.loss(x, y, reduction)
            text = f"the result of call {k + 1} on the same tensors with new contents ({reduction})"
            found = list(deviation_of_loss(bench, text, result, x, y, reduction))
            if found and not k:
                break  # wrong from the start: other clauses say so
            yield from found
            other = bench.reductions[k % len(bench.reductions)]
            bench.loss(x, y, other)
        yield from _permuted(bench, reduction)
        for enabled in (False, True):
            yield from _one_changed(bench, reduction, enabled)


def _one_changed(bench: Bench, reduction: str, enabled: bool) -> Messages:
    """One of many elements has another value: who looks at some of them takes it for the same."""
    x, y = bench.tensor((1003,), 1), bench.tensor((1003,), 2)
    with torch.set_grad_enabled(enabled):
        for k, at in enumerate((None, 7, 501, 850)):
            if at is not None:
                x.data[at] = 32  # which leaves the version as it was
            result = bench.loss(x, y, reduction)
            text = f"the result after a change of element {at} ({reduction})"
            found = list(deviation_of_loss(bench, text, result, x, y, reduction))
            if found and not k:
                return  # wrong from the start: other clauses say so
            yield from found


def _permuted(bench: Bench, reduction: str) -> Messages:
    """The same elements in another order: equal totals, norms and extremes, another answer."""
    x, y = eighths(bench, (6,), 1), eighths(bench, (6,), 2)
    for values in (x, x[::-1].copy(), np.roll(x, 1)):
        exact = np.asarray(mse.loss(values, y, reduction))
        result = bench.loss(bench.made(values), bench.made(y), reduction)
        text = f"with the same elements in another order the result ({reduction})"
        found = list(deviation(bench, text, result, exact, exact, x.size))
        if found and values is x:
            return  # wrong from the start: other clauses say so
        yield from found


@experiment("purity.result")
def _purity_result(bench: Bench) -> Messages:
    """Results and gradients of one call, after another call on equal shapes.

    Of the loss and, where there is one, of a module, which may have buffers of its own.
    """
    for reduction in bench.reductions:
        yield from _kept(bench, functools.partial(bench.loss, reduction=reduction), reduction)
        if bench.claims("module") and bench.target.module is not None:
            made = bench.target.module(reduction=reduction)
            yield from _kept(bench, made, f"{reduction}, the module")
    for shape, reduction in shared_out(bench, ((LARGE,),)):
        yield from _many_kept(bench, reduction)
        loss = functools.partial(bench.loss, reduction=reduction)
        yield from _kept(bench, loss, f"{reduction}, {LARGE} elements", shape)


def _many_kept(bench: Bench, reduction: str) -> Messages:
    """As the losses of an epoch are."""
    with torch.no_grad():
        first = bench.loss(bench.tensor((3,), 1), bench.tensor((3,), 2), reduction)
        then, (x, y) = first.clone(), (bench.tensor((3,), 3), bench.tensor((3,), 4))
        later = [bench.loss(x, y, reduction) for _ in range(RESULTS)]
    if not torch.equal(first, then):
        yield f"one of {len(later)} later calls changed an earlier result ({reduction})"


def _kept(
    bench: Bench, loss: Callable[..., Any], text: str, shape: tuple[int, ...] = (7,)
) -> Messages:
    both = bench.claims("target_gradient")
    for enabled in (True, False):
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        for k in range(3):
            x = bench.tensor(shape, 2 * k).requires_grad_()
            y = bench.tensor(shape, 2 * k + 1).requires_grad_(both)
            with torch.set_grad_enabled(enabled):
                result = loss(x, y)
            found: tuple[torch.Tensor | None, ...] = ()
            if enabled:
                wanted = (x, y) if both else (x,)
                ones = torch.ones_like(result)
                found = torch.autograd.grad(result, wanted, ones, allow_unused=True)
            seen = [t.detach() for t in (result, *found) if t is not None]
            kept += [(t, t.clone()) for t in seen]
        if any(not torch.equal(now, then) for now, then in kept):
            mode = "" if enabled else ", no_grad"
            yield f"a later call changed an earlier result or gradient ({text}{mode})"


@experiment("purity.inputs")
def _purity_inputs(bench: Bench) -> Messages:
    """Views that nobody holds but the call, and whole tensors: both are the caller's."""
    modes: tuple[Any, ...] = (torch.no_grad, torch.inference_mode)
    for reduction, mode in itertools.product(bench.reductions, modes):
        with mode():
            x, y = bench.tensor((2, 5), 1), bench.tensor((2, 5), 2)
            kept = x.clone(), y.clone()
            bench.target.loss(x[1], y[1], reduction=reduction)
            if not (torch.equal(x, kept[0]) and torch.equal(y, kept[1])):
                yield f"a call on views wrote to what they are views of ({reduction})"
            bench.target.loss(x, y, reduction=reduction)  # x[:] would be a view as well
            if not (torch.equal(x, kept[0]) and torch.equal(y, kept[1])):
                yield f"within torch.{mode.__name__} a call wrote to its operands ({reduction})"


@experiment("purity.grad_output")
def _purity_grad_output(bench: Bench) -> Messages:
    """Of ``2·(L + z)`` the loss and z are handed one tensor, which nobody else holds."""
    for reduction in bench.reductions:
        x, y = bench.tensor((6,), 1).requires_grad_(), bench.tensor((6,), 2)
        result = bench.loss(x, y, reduction)
        z = torch.zeros_like(result).requires_grad_()
        total = 2 * (result + z)
        _, got = torch.autograd.grad(total, (x, z), torch.ones_like(total))
        if not torch.equal(got, torch.full_like(got, 2)):
            yield f"backward wrote to the gradient that another branch shares ({reduction})"


@experiment("purity.alias")
def _purity_alias(bench: Bench) -> Messages:
    """Operands that repeat the same memory: the result may be changed in place all the same.

    So may a gradient, without a change of the other one.
    """
    for reduction in bench.reductions:
        x, y = (bench.tensor((1, 3), k).expand(4, 3) for k in (1, 2))
        with torch.no_grad():
            result = bench.loss(x, y, reduction)
            try:
                result.mul_(torch.ones_like(result))
            except RuntimeError as error:
                text = "of expanded operands the result cannot be changed in place"
                yield f"{text}: {brief(error)} ({reduction})"
        if bench.claims("target_gradient"):
            yield from _gradients_apart(bench, reduction)


def _gradients_apart(bench: Bench, reduction: str) -> Messages:
    x, y = (bench.tensor((5,), k).requires_grad_() for k in (1, 2))
    result = bench.loss(x, y, reduction)
    if not result.requires_grad:
        return  # other clauses say so, and where a gradient is missing
    first, second = torch.autograd.grad(result, (x, y), torch.ones_like(result), allow_unused=True)
    if first is not None and second is not None:
        kept = second.clone()
        first.zero_()  # as zero_grad(set_to_none=False) does
        if not torch.equal(second, kept):
            yield f"the gradients of input and target share memory ({reduction})"


@experiment("purity.state")
def _purity_state(bench: Bench) -> Messages:
    """Random states, warning filters, well-known functions, and settings of the caller's own.

    Usual settings are looked at in every run of a case.
    """
    pairs = [((9,), (9,)), *([((9,), (4, 9))] * bench.claims("broadcast"))]
    large = ((SOME,), (SOME,)), bench.reductions[-1]
    for shapes, reduction in (*shared_out(bench, pairs), large):
        x, y = bench.tensor(shapes[0], 1).requires_grad_(), bench.tensor(shapes[1], 2)
        y.requires_grad_(bench.claims("target_gradient"))
        with _own_filters():
            gradients(bench.loss(x, y, reduction), x)  # the first call imports, and compiles
        with _own_filters(), fresh_randomness(derive(bench.seed, "state", reduction)):
            before = world()
            gradients(bench.loss(x, y, reduction), x)
            changed = world_changes(before)
        for name in changed:
            yield f"a call changed {name}"
    for reduction in bench.reductions:
        for text in (*_overridden(bench, reduction), *_set_again(bench, reduction)):
            yield f"a call changed {text} ({reduction})"
    x, y = bench.tensor((3,), 1), bench.tensor((4,), 2)
    for operands, reduction in (((x, y), "mean"), ((x, x), "meen"), ((x, None), "mean")):
        with _own_filters():
            before, settings = world(), Settings.now()
            with contextlib.suppress(Exception):
                bench.target.loss(*operands, reduction=reduction)
            changed = [*settings.changes(), *world_changes(before)]
        for name in changed:
            yield f"a call that raises changed {name}"


def _overridden(bench: Bench, reduction: str) -> list[str]:
    """What a call, without and with a gradient, changes of settings that its caller chose."""
    x, y = bench.tensor((9,), 1).requires_grad_(), bench.tensor((9,), 2)
    with _own_filters(), unusual_settings() as settings:
        bench.loss(x, y, reduction)
        changed = settings.changes()
        with torch.enable_grad():
            settings = Settings.now()
            gradients(bench.loss(x, y, reduction), x)
            changed += settings.changes()
    return changed


def _set_again(bench: Bench, reduction: str) -> list[str]:
    """What each call sets of the world, so that it shows no more once a call was made."""
    x, y = bench.tensor((9,), 1).requires_grad_(), bench.tensor((9,), 2)
    with _own_filters(), as_loaded():
        before = world()
        with contextlib.suppress(Exception):  # it may rest on what its module set
            gradients(bench.loss(x, y, reduction), x)
        return world_changes(before)


@contextlib.contextmanager
def _own_filters() -> Iterator[None]:
    """Warnings are kept from the user by a filter that no target sets: its own would be seen."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        yield


@experiment("purity.attributes")
def _purity_attributes(bench: Bench) -> Messages:
    """requires_grad, .grad, hooks and grad_fn of the operands are the caller's."""
    for reduction in bench.reductions:
        x, y = bench.tensor((4,), 1).requires_grad_(), bench.tensor((4,), 2).requires_grad_()
        bench.loss(x, y, reduction)
        if any((x._backward_hooks, y._backward_hooks)):
            yield f"a call left a hook on an operand, where both need a gradient ({reduction})"
        x, y = bench.tensor((4,), 1).requires_grad_(), bench.tensor((4,), 2)
        x.grad = kept = torch.ones_like(x)
        result = bench.loss(x, y, reduction)
        torch.autograd.grad(result, x, torch.ones_like(result))
        if not x.requires_grad or y.requires_grad or not x.is_leaf:
            yield f"a call changed requires_grad of an operand ({reduction})"
        if x.grad is not kept or not torch.equal(kept, torch.ones_like(kept)):
            yield f"a call changed .grad of an operand ({reduction})"
        hooks: Any = x._backward_hooks, x._post_accumulate_grad_hooks
        if any(hooks):
            yield f"a call left a hook on input ({reduction})"
        if y.grad is not None:
            yield f"a call gave .grad to an operand that needs no gradient ({reduction})"
        x = 2 * x
        bench.loss(x, y, reduction)
        hooks = x._backward_hooks, x.retains_grad
        if any(hooks):
            yield f"a call left a hook on an input that is no leaf ({reduction})"
