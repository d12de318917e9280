"""Protocols on modes: autocast, compilation, export, tensors without data, deterministic mode."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    Unavailable,
    as_written,
    gradients,
    protocol,
)
from conformance.observer.state import deterministic_mode

Graph = Callable[..., Any]
Function = Callable[[Tensor, Tensor], Tensor]

# How a contiguous tensor is laid out anew: in the order of its transpose, between NaN.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t().contiguous().t(),
    "strided": lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0],
}


def _laid_out(layouts: Sequence[str], *operands: Tensor) -> Iterator[Tensor]:
    """Leaves where the operands are."""
    for layout, t in zip(layouts, operands, strict=True):
        yield LAYOUTS[layout](t.detach()).requires_grad_(t.requires_grad)


def _outcome(result: Tensor, *operands: Tensor) -> Evidence:
    """The ``result``, and the ``gradients`` of the operands that need one."""
    needed = any(t.requires_grad for t in operands)
    return {"result": result, "gradients": gradients(result, *operands) if needed else ()}


@protocol
def deterministic(
    kit: Kit, *, x: Tensor, y: Tensor, layouts: Sequence[str], reduction: str
) -> Evidence:
    """The outcome ``plainly``, and ``in_mode``."""
    x, y = _laid_out(layouts, x, y)
    plainly = _outcome(kit.loss(x, y, reduction), x, y)
    with deterministic_mode():
        in_mode = _outcome(kit.loss(x, y, reduction), x, y)
    return {"plainly": plainly, "in_mode": in_mode}


@protocol
def default_device(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The outcome ``plainly``, and ``in_mode``: with meta as the default device.

    ``device`` is the result's there. Where the operands' ``own`` is another, ``in_mode`` is None.
    """
    plainly = _outcome(kit.loss(x, y, reduction), x, y)
    with torch.device("meta"):
        result = kit.loss(x, y, reduction)
        in_mode = _outcome(result, x, y) if result.device == x.device else None
    devices = {"device": str(result.device), "own": str(x.device)}
    return {"plainly": plainly, "in_mode": in_mode, **devices}


@protocol
def autocast(
    kit: Kit, *, x: Tensor, y: Tensor, reduction: str, dtypes: Sequence[str], differentiated: bool
) -> Evidence:
    """The outcome under autocast to each of ``dtypes``; without gradients unless differentiated."""
    found = {}
    for dtype in dtypes:
        with torch.autocast(x.device.type, dtype=getattr(torch, dtype)):
            result = kit.loss(x, y, reduction)
        found[dtype] = _outcome(result, x, y) if differentiated else {"result": result}
    return found


@protocol
def cast(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, dtype: str) -> Evidence:
    """The outcome where the operands are cast to ``dtype`` for the call."""
    wide = getattr(torch, dtype)
    return _outcome(kit.loss(x.to(wide), y.to(wide), reduction), x, y)


# -- compilation -------------------------------------------------------------------------------


class Backend:
    """A backend of ``torch.compile`` that counts how often a compiled graph really runs.

    Past its recompile limit Dynamo runs the code eagerly without a word, and a target that it
    cannot trace would then pass by its eager results.
    """

    def __init__(self, name: str) -> None:
        self.name, self.graphs, self.runs = name, 0, 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Graph:
        lookup: Any = torch._dynamo.backends.registry.lookup_backend
        compiled = lookup(self.name)(graph, inputs)
        self.graphs += 1

        def counted(*arguments: Any) -> Any:
            self.runs += 1
            return compiled(*arguments)

        return counted


@contextlib.contextmanager
def _fresh_dynamo() -> Iterator[None]:
    """No compiled code of an earlier request, nor its count against the limit."""
    import torch._dynamo  # apart: it takes a second to import

    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


def _function(kit: Kit, reduction: str) -> Function:
    """Of tensors alone, as it is traced."""
    loss, name = kit.target.loss, as_written(reduction)

    def function(x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = loss(x, y, reduction=name)
        return result

    return function


def _followed(kit: Kit, reduction: str) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """The loss and, in one graph with it, what rests on the form that was traced of its result."""
    loss = _function(kit, reduction)

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        result = loss(x, y)
        like = torch.ones(result.shape, dtype=result.dtype, device=result.device)
        return result, result.reshape(-1) * 2 + 1e-9, like

    return function


def _followed_outcome(found: tuple[Tensor, ...], *operands: Tensor) -> Evidence:
    """The ``result``, what comes ``after`` it, and the ``gradients`` through that; what is ``like``
    the result. Copies: the next call may write to their memory.
    """
    result, after, like = found
    kept = {"result": result, "after": after, "like": like}
    copies = {name: t.detach().clone() for name, t in kept.items()}
    return _outcome(after, *operands) | copies


@protocol
def compiled(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    reduction: str,
    backend: str,
    sizes: Sequence[int],
    dynamic: bool,
) -> Evidence:
    """Compiled as one graph, and called on the first elements of the operands.

    For each of ``sizes``, under its index, the outcome ``compiled`` and ``eager``, and how often a
    compiled graph ``ran`` so far. ``graphs``: how many were compiled.
    """
    if backend == "inductor":
        _demand_compiler()
    seen: Evidence = {}
    with _fresh_dynamo():
        counter = Backend(backend)
        function = torch.compile(
            _followed(kit, reduction), backend=counter, fullgraph=True, dynamic=dynamic
        )
        eagerly = _followed(kit, reduction)
        for k, n in enumerate(sizes):
            a, b = (t.detach()[:n].clone().requires_grad_(t.requires_grad) for t in (x, y))
            found = _followed_outcome(function(a, b), a, b)
            eager = _followed_outcome(eagerly(a, b), a, b)
            seen[str(k)] = {"ran": counter.runs, "compiled": found, "eager": eager}
    return seen | {"graphs": counter.graphs}


def _demand_compiler() -> None:
    compilers = ("c++", "g++", "clang++", os.environ.get("CXX", "c++"))
    if not any(map(shutil.which, compilers)):
        raise Unavailable("inductor needs a C++ compiler, and there is none")


@protocol
def compiled_and_eagerly(
    kit: Kit, *, x: Tensor, y: Tensor, layouts: Sequence[str], reduction: str
) -> Evidence:
    """The outcome ``eager``, and ``compiled`` by aot_eager. See :func:`_followed_outcome`."""
    x, y = _laid_out(layouts, x, y)
    with _fresh_dynamo():
        function = torch.compile(_followed(kit, reduction), backend="aot_eager")
        eager = _followed_outcome(_followed(kit, reduction)(x, y), x, y)
        return {"compiled": _followed_outcome(function(x, y), x, y), "eager": eager}


@protocol
def exported(
    kit: Kit, *, x: Tensor, y: Tensor, first_x: Tensor, first_y: Tensor, reduction: str
) -> Evidence:
    """``result`` of the program that is exported with the first operands, on the others."""
    module = _Exported(_function(kit, reduction))
    with _fresh_dynamo():
        program = torch.export.export(module, (first_x, first_y))
    return {"result": program.module()(x, y)}


class _Exported(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


# -- tensors without data ----------------------------------------------------------------------


Form = tuple[Sequence[int], str, str]  # of an operand: shape, dtype, and a name in LAYOUTS
Call = tuple[Form, Form, str]  # both operands, and a reduction


@protocol
def meta(kit: Kit, *, calls: Sequence[Call], both: bool) -> Evidence:
    """Each call on meta tensors; the input needs a gradient, or ``both`` do. See ``_observed``."""
    return _observed(kit, calls, _real(kit, calls), both, lambda t: t.to("meta"))


@protocol
def fake(kit: Kit, *, calls: Sequence[Call], both: bool) -> Evidence:
    """Each call on fake tensors; the input needs a gradient, or ``both`` do. See ``_observed``."""
    pairs = _real(kit, calls)
    with _fake_tensors() as mode:
        return _observed(kit, calls, pairs, both, mode.from_tensor)


def _real(kit: Kit, calls: Sequence[Call]) -> list[list[Tensor]]:
    """The operands, of zeros."""

    def made(shape: Sequence[int], dtype: str, layout: str) -> Tensor:
        kind = getattr(torch, dtype)
        return LAYOUTS[layout](torch.zeros(shape, dtype=kind, device=kit.device))

    return [[made(*form) for form in forms] for *forms, _ in calls]


def _observed(
    kit: Kit,
    calls: Sequence[Call],
    pairs: list[list[Tensor]],
    both: bool,
    abstract: Callable[[Tensor], Tensor],
) -> Evidence:
    """The form of each tensor of the outcome of each call, under its index; and on which ``device``
    its operands are.
    """
    seen = {}
    for k, ((_, _, reduction), (x, y)) in enumerate(zip(calls, pairs, strict=True)):
        a, b = abstract(x).requires_grad_(), abstract(y).requires_grad_(both)
        found = _outcome(kit.loss(a, b, reduction), a, b)
        forms = {"result": _form(found["result"]), "gradients": [*map(_form, found["gradients"])]}
        seen[str(k)] = forms | {"device": str(a.device)}
    return seen


def _form(t: Tensor) -> str:
    """All that there is to a tensor without data."""
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)} on {t.device}"


@protocol
def after_fake(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The outcome at a size that has been met in fake tensors."""
    with _fake_tensors() as mode:
        a, b = (mode.from_tensor(t.detach()) for t in (x, y))
        _outcome(kit.loss(a.requires_grad_(), b, reduction), a)
    return _outcome(kit.loss(x, y, reduction), x)


def _fake_tensors() -> Any:
    """A constant of the target's own is no fake tensor; torch.compile makes one of it."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # apart: slow to import

    return FakeTensorMode(allow_non_fake_inputs=True)
