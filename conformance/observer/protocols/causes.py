"""What tells the likely causes of failures apart: calls on buffers, series, derivatives, modes.

A call on buffers is told as ``forms`` (for ``input``, ``target`` and ``grad_output``, how each lies
in its buffer: see :data:`~conformance.observer.tensors.Placed`), ``needs``, ``reduction`` and
``mode``, the grad mode. Without a form of ``target`` that is the very tensor that is the input.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from conformance.observer import state
from conformance.observer.protocols.kit import (
    MODES,
    Evidence,
    Kit,
    Unavailable,
    attempt,
    protocol,
    text_of,
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
from conformance.observer.tensors import DTYPE_NAMES, DTYPES, Made, view_of

THREADS = 5


def _call(kit: Kit, x: Tensor, y: Tensor, reduction: str) -> Any:
    """The loss; what it changes in torch's settings is put back."""
    settings = Settings.now()
    try:
        return kit.loss(x, y, reduction)
    finally:
        settings.changes()


def _kept(value: Any) -> Any:
    """A copy, which no later call overwrites."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _gradient(result: Tensor, operand: Tensor, **options: Any) -> Any:
    return torch.autograd.grad(result, operand, torch.ones_like(result), **options)[0]


# --- modes: what a call is made inside


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _anomaly() -> AbstractContextManager[Any]:
    return torch.autograd.detect_anomaly(check_nan=False)


_MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "": nullcontext,
    "anomaly": _anomaly,
    "deterministic": deterministic_mode,
    "threads": _threads,
    "module": nullcontext,
    "evaluation": nullcontext,
}
Loss = Callable[[Tensor, Tensor, str], Any]


def _loss_of(kit: Kit, mode: str) -> Loss:
    """The loss, or that of a module which the target makes."""
    if mode not in ("module", "evaluation"):
        return kit.loss
    if kit.target.module is None:
        raise Unavailable("the target makes no module")

    def loss(x: Tensor, y: Tensor, reduction: str) -> Any:
        module = kit.module(reduction)
        return (module.eval() if mode == "evaluation" else module)(x, y)

    return loss


@contextlib.contextmanager
def _inside(mode: str) -> Iterator[None]:
    """Around one call; what that changes in torch's settings is put back."""
    settings = Settings.now()
    try:
        with _MODES[mode]():
            yield
    finally:
        settings.changes()


# --- calls on buffers


@protocol
def laid(kit: Kit, *, calls: Sequence[Evidence], mode: str, **buffers: Tensor) -> Evidence:
    """``seen`` of each call, one after the other: value and gradients, or what it raised.

    The buffers are named ``input0``, ``target0``, ``grad_output0``, ``input1``, …
    """
    loss, seen = _loss_of(kit, mode), []
    for k, call in enumerate(calls):
        with _inside(mode):
            seen.append(_seen(loss, call, _operands(call, buffers, k)))
    return {"seen": seen}


def _operands(call: Evidence, buffers: dict[str, Tensor], suffix: object = "") -> dict[str, Made]:
    needs = dict(zip(("input", "target"), call["needs"], strict=True))
    made = {
        name: view_of(buffers[f"{name}{suffix}"], (0, 0, "", *form), needs.get(name, False))
        for name, form in call["forms"].items()
    }
    return {"target": made["input"]} | made


def _seen(loss: Loss, call: Evidence, made: dict[str, Made]) -> Evidence:
    try:
        with MODES[call["mode"]]():
            result = loss(made["input"].tensor, made["target"].tensor, call["reduction"])
        if not isinstance(result, Tensor):
            return {"value": result, "requires_grad": False}
        seen = {"value": _kept(result), "requires_grad": result.requires_grad}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a loss must not end the process
        return {"raised": text_of(error)}
    if "grad_output" in made and result.requires_grad:
        try:
            seen["gradients"] = _gradients(result, made)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            seen["raised_backward"] = text_of(error)
    return seen


def _gradients(result: Tensor, made: dict[str, Made]) -> Evidence:
    """Of each operand that needs one; with ones where the result is not as ``grad_output``."""
    g = made["grad_output"].tensor
    g = g.to(result.dtype) if g.shape == result.shape else torch.ones_like(result)
    wanted = {name: made[name].tensor for name in ("input", "target")}
    if wanted["input"] is wanted["target"]:
        del wanted["target"]
    wanted = {name: tensor for name, tensor in wanted.items() if tensor.requires_grad}
    given = torch.autograd.grad(result, list(wanted.values()), g, allow_unused=True)
    return {name: _kept(gradient) for name, gradient in zip(wanted, given, strict=True)}


@protocol
def impulses(
    kit: Kit,
    *,
    input: Tensor,
    target: Tensor,
    call: Evidence,
    of: str,
    places: Sequence[int],
    height: float,
    mode: str,
) -> Evidence:
    """``results`` of one call for each of ``places``, where a buffer alone holds ``height``."""
    loss, results = _loss_of(kit, mode), []
    for where in places:
        buffers = {"input": input.clone(), "target": target.clone()}
        buffers[of][where] = height
        made = _operands(call, buffers)
        with _inside(mode), MODES[call["mode"]]():
            result = loss(made["input"].tensor, made["target"].tensor, call["reduction"])
            results.append(_kept(result))
    return {"results": results}


@protocol
def left(kit: Kit, *, call: Evidence, **buffers: Tensor) -> Evidence:
    """The ``buffers`` as a call and its backward leave them, and those ``written`` to in place."""
    made = _operands(call, buffers)
    before = {name: one.tensor._version for name, one in made.items()}
    result = _call(kit, made["input"].tensor, made["target"].tensor, call["reduction"])
    g = made.pop("grad_output", None)
    if g is not None and _fits(g.tensor, result):
        leaves = [one.tensor for one in made.values() if one.tensor.requires_grad]
        torch.autograd.grad(result, leaves, g.tensor, allow_unused=True)
        made["grad_output"] = g
    return {
        "buffers": {name: one.buffer.detach() for name, one in made.items()},
        "written": [name for name, one in made.items() if one.tensor._version != before[name]],
    }


def _fits(g: Tensor, result: Any) -> bool:
    if not (isinstance(result, Tensor) and result.requires_grad):
        return False
    return (g.dtype, g.shape) == (result.dtype, result.shape)


# --- state between calls


@protocol
def results(kit: Kit, *, calls: Sequence[tuple[int, str]], **operands: Tensor) -> Evidence:
    """``results`` of calls, one after the other, each on a pair of operands with a reduction.

    The operands are named ``x0``, ``y0``, ``x1``, …
    """
    found = [
        _kept(_call(kit, operands[f"x{k}"], operands[f"y{k}"], reduction)) for k, reduction in calls
    ]
    return {"results": found}


@protocol
def changed(kit: Kit, *, x0: Tensor, y0: Tensor, reduction: str, **contents: Tensor) -> Evidence:
    """``results`` on a pair; with other contents (``x1``, ``y1``); with others through .data."""
    found = [_kept(_call(kit, x0, y0, reduction))]
    with torch.no_grad():
        x0.copy_(contents["x1"])
        y0.copy_(contents["y1"])
    found.append(_kept(_call(kit, x0, y0, reduction)))
    x0.data.copy_(contents["x2"])
    y0.data.copy_(contents["y2"])
    found.append(_kept(_call(kit, x0, y0, reduction)))
    return {"results": found}


@protocol
def after_others(kit: Kit, *, pairs: int, reduction: str, **operands: Tensor) -> Evidence:
    """For each pair of operands its result and gradients (None where there is none): as they were
    ``then``, and as they are ``now``, after the calls on the others."""
    found = []
    for k in range(pairs):
        x, y = operands[f"x{k}"], operands[f"y{k}"]
        result = _call(kit, x, y, reduction)
        given = torch.autograd.grad(result, (x, y), torch.ones_like(result), allow_unused=True)
        now = [result, *given]
        found.append({"now": now, "then": [_kept(tensor) for tensor in now]})
    return {"pairs": found}


@protocol
def interleaved(kit: Kit, *, order: Sequence[int], reduction: str, **operands: Tensor) -> Evidence:
    """``gradients`` of input, by pairs in ``order``, after the forward of each pair."""
    pairs = [(operands[f"x{k}"], operands[f"y{k}"]) for k in range(len(order))]
    found = [_call(kit, x, y, reduction) for x, y in pairs]
    return {"gradients": [_kept(_gradient(found[k], pairs[k][0])) for k in order]}


@protocol
def twice(kit: Kit, *, x: Tensor, y: Tensor, factor: float, reduction: str) -> Evidence:
    """``gradients`` of input by one graph, walked twice with a ``grad_output`` of ``factor``.

    Of the ``second`` walk what it gives, or what it raised.
    """
    result = _call(kit, x, y, reduction)
    g = torch.full_like(result, factor)

    def walk() -> Any:
        return _kept(torch.autograd.grad(result, x, g, retain_graph=True)[0])

    return {"first": walk(), "second": attempt(walk)}


@protocol
def beside_grad(kit: Kit, *, x: Tensor, y: Tensor, held: Tensor, reduction: str) -> Evidence:
    """``gradient`` of input, which has ``held`` in .grad already."""
    x.grad = held
    return {"gradient": _gradient(_call(kit, x, y, reduction), x)}


@protocol
def late(kit: Kit, *, x: Tensor, y: Tensor, of: int, factor: float, reduction: str) -> Evidence:
    """The gradient of input, when an operand is multiplied between forward and backward."""
    copies = [x.clone(), y.clone()]
    result = _call(kit, copies[0], copies[1], reduction)
    with torch.no_grad():
        copies[of].mul_(factor)
    return attempt(lambda: _gradient(result, x))


@protocol
def attributes(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What operands are after a call, of which the first needs a gradient and has one."""
    x.grad = held = torch.ones_like(x)
    _call(kit, x, y, reduction)
    return {
        "needs": [x.requires_grad, y.requires_grad],
        "keeps": x.grad is held,
        "gains": y.grad is not None,
    }


def _warning() -> AbstractContextManager[Any]:
    """As NumPy is at first, where it is here."""
    numpy = state.np
    return numpy.errstate(all="warn") if numpy else nullcontext()


_WORLDS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "usual": _warning,
    "unusual": unusual_settings,
    "as loaded": as_loaded,
}


@protocol
def settings(kit: Kit, *, x: Tensor, y: Tensor, seed: int, inside: str, reduction: str) -> Evidence:
    """What a call, and then its backward, ``changed`` of the world."""
    with fresh_randomness(seed), _WORLDS[inside]():
        before, known = world(), Settings.now()
        result = kit.loss(x, y, reduction)
        found = known.changes()
        if isinstance(result, Tensor) and result.requires_grad:
            _gradient(result, x)
        return {"changed": found + known.changes() + world_changes(before)}


# --- derivatives of derivatives, and tangents


@protocol
def second(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    g: Tensor,
    along: Tensor,
    leaf: bool,
    reduction: str,
) -> Evidence:
    """The derivatives of the gradient of input ``along`` a cotangent: ``by`` each of ``x``, ``y``
    and ``g``, or what they raised. ``leaf``: whether these themselves are the operands."""
    leaves = (x, y, g)
    used = leaves if leaf else [1 * t for t in leaves]
    result = _call(kit, used[0], used[1], reduction)

    def first() -> Tensor:
        return torch.autograd.grad(result, used[0], used[2], create_graph=True)[0]

    found = attempt(first)
    if "raised" in found:
        return found

    def derivative(source: Tensor) -> Any:
        options = {"retain_graph": True, "allow_unused": True}
        return torch.autograd.grad(found["got"], source, along, **options)[0]

    return {"by": [attempt(functools.partial(derivative, source)) for source in leaves]}


@protocol
def tangent(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    dx: Tensor,
    dy: Tensor,
    functional: bool,
    reduction: str,
) -> Evidence:
    """``tangent`` of the result: in forward mode, or by torch.func."""
    if functional:

        def loss(a: Tensor, b: Tensor) -> Any:
            return kit.loss(a, b, reduction)

        return {"tangent": torch.func.jvp(loss, (x, y), (dx, dy))[1]}
    forward: Any = fwad
    with forward.dual_level():
        duals = [forward.make_dual(v, t) for v, t in ((x, dx), (y, dy))]
        return {"tangent": forward.unpack_dual(_call(kit, duals[0], duals[1], reduction)).tangent}


@protocol
def pulled(kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, reduction: str) -> Evidence:
    """``gradients`` of input and target by ``torch.func.vjp``."""

    def loss(a: Tensor, b: Tensor) -> Any:
        return kit.loss(a, b, reduction)

    return {"gradients": list(torch.func.vjp(loss, x, y)[1](g))}


@protocol
def hessian(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``hessian`` by input of the sum of the result."""

    def total(a: Tensor, b: Tensor) -> Any:
        return kit.loss(a, b, reduction).sum()

    return {"hessian": torch.func.jacrev(torch.func.jacrev(total))(x, y)}


@protocol
def mapped(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``result`` under vmap over the first dimension."""

    def loss(a: Tensor, b: Tensor) -> Any:
        return kit.loss(a, b, reduction)

    return {"result": torch.func.vmap(loss)(x, y)}


@protocol
def through_product(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``gradient`` of what the input is twice of; None where there is none."""
    result = _call(kit, 2 * x, y, reduction)
    if not result.requires_grad:
        return {"gradient": None}
    return {"gradient": _gradient(result, x, allow_unused=True)}


@protocol
def without_data(
    kit: Kit, *, shape: Sequence[int], dtype: str, fake: bool, reduction: str
) -> Evidence:
    """Of what comes back for tensors without data, where it is a tensor: ``dtype``, ``shape`` as
    text, and the ``count`` of its elements."""
    context: AbstractContextManager[Any] = nullcontext()
    if fake:
        from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

        context = FakeTensorMode()
    with context:
        device = "cpu" if fake else "meta"
        x, y = (torch.empty(shape, dtype=DTYPES[dtype], device=device) for _ in range(2))
        got = kit.loss(x, y, reduction)
    if not isinstance(got, Tensor):
        return {}
    name = DTYPE_NAMES.get(got.dtype, str(got.dtype).removeprefix("torch."))
    return {"dtype": name, "shape": str(tuple(got.shape)), "count": got.numel()}
