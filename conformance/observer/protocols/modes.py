"""Experiments on modes: autocast, compilation, export, tensors without data, deterministic mode."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    Unavailable,
    brief,
    close,
    deviation,
    deviation_of_loss,
    experiment,
    gradients,
    shared_out,
    two_dtypes,
)
from conformance.observer.tensors import to_numpy

Graph = Callable[..., Any]


def _operands(bench: Bench, *shape: int) -> tuple[Tensor, Tensor]:
    """Which need a gradient: the target where it may."""
    x, y = bench.tensor(shape, 1), bench.tensor(shape, 2)
    return x.requires_grad_(), y.requires_grad_(bench.claims("target_gradient"))


def _with_gradients(result: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
    """The result, and the gradient of each operand that needs one."""
    needed = any(t.requires_grad for t in operands)
    return (result, *gradients(result, *operands)) if needed else (result,)


@experiment("transforms.deterministic_mode")
def _deterministic_mode(bench: Bench) -> Messages:
    """``use_deterministic_algorithms(True)``: poison for what a kernel forgets to write, too."""
    before = torch.are_deterministic_algorithms_enabled()
    pairs = [_operands(bench, 5), *(pair for _, pair in _other_operands(bench))]
    for reduction, (x, y) in itertools.product(bench.reductions, pairs):
        plainly = _with_gradients(bench.loss(x, y, reduction), x, y)
        torch.use_deterministic_algorithms(True)
        try:
            got = _with_gradients(bench.loss(x, y, reduction), x, y)
        finally:
            torch.use_deterministic_algorithms(before)
        if not all(map(close, got, plainly)):
            yield f"in deterministic mode the result or a gradient is another one ({reduction})"


@experiment("transforms.default_device")
def _default_device(bench: Bench) -> Messages:
    """The meta device, which every build has: a constant that is made there has no number."""
    for reduction in bench.reductions:
        x, y = _operands(bench, 5)
        plainly = _with_gradients(bench.loss(x, y, reduction), x, y)
        with torch.device("meta"):
            result = bench.loss(x, y, reduction)
            here = result.device == x.device
            got = _with_gradients(result, x, y) if here else ()
        if not here:
            yield f"with meta as the default device the result is on {result.device}"
        elif not all(map(close, got, plainly)):
            yield f"with meta as the default device result or gradient is another ({reduction})"


AUTOCAST = {"cpu": (torch.bfloat16, torch.float16), "cuda": (torch.float16, torch.bfloat16)}


@experiment("transforms.autocast")
def _autocast(bench: Bench) -> Messages:
    """Right in float32, which the builtin casts halves to, or in the operands' own dtype.

    A float32 result may have been rounded to the operands' dtype on the way: on CUDA autocast
    widens halves for a power and a sum, but not for the difference before it.
    """
    own = getattr(torch, bench.dtype)
    for mode, reduction, operands, got in _under_autocast(bench):
        wide = got.dtype if got.dtype == _wide(bench) else own
        wanted = _with_gradients(_cast_loss(bench, operands, wide, reduction), *operands)
        if not close(got, wanted[0], own):
            yield f"{mode} the result is {brief(got)}, without it {brief(wanted[0])}"
        elif not all(map(close, _with_gradients(got, *operands)[1:], wanted[1:])):
            yield f"{mode} a gradient is not the one without it"


@experiment("transforms.autocast_dtype")
def _autocast_dtype(bench: Bench) -> Messages:
    wide = _wide(bench)
    for mode, _, _, got in _under_autocast(bench):
        if got.dtype != wide:
            yield f"{mode} the result is {brief(got)}, not {str(wide).removeprefix('torch.')}"


def _under_autocast(bench: Bench) -> Iterator[tuple[str, str, tuple[Tensor, Tensor], Tensor]]:
    """In words, the reduction, the operands and the result; for each dtype to which it casts."""
    kind = torch.device(bench.device).type
    pairs = [_operands(bench, 5), _operands(bench, 3, 30), *_of_two_dtypes(bench), _with_nan(bench)]
    if bench.claims("broadcast"):
        pairs.append(_of_two_shapes(bench))
    for reduction, operands in itertools.product(bench.reductions, pairs):
        for dtype in AUTOCAST.get(kind, (torch.bfloat16,)):
            with torch.autocast(kind, dtype=dtype):
                got = bench.loss(operands[0], operands[1], reduction)
            names = " and ".join(str(t.dtype).removeprefix("torch.") for t in operands)
            text = f"under autocast to {str(dtype).removeprefix('torch.')} ({names}, {reduction})"
            yield text, reduction, operands, got


def _with_nan(bench: Bench) -> tuple[Tensor, Tensor]:
    x, y = _operands(bench, 4)
    with torch.no_grad():
        x[1] = torch.nan
    return x, y


def _of_two_shapes(bench: Bench) -> tuple[Tensor, Tensor]:
    """Every difference is positive: no sum in the gradient cancels, which calls round apart."""
    x, y = bench.tensor((3,), 1).abs(), -bench.tensor((2, 3), 2).abs()
    return x.requires_grad_(), y.requires_grad_(bench.claims("target_gradient"))


def _of_two_dtypes(bench: Bench) -> Iterator[tuple[Tensor, Tensor]]:
    """A model's output in half and a target that is not, and the other way round."""
    for kinds in two_dtypes(bench):
        x, y = (bench.tensor((5,), k, kind) for k, kind in enumerate(kinds, 1))
        yield x.requires_grad_(), y.requires_grad_(bench.claims("target_gradient"))


def _wide(bench: Bench) -> torch.dtype:
    return torch.promote_types(getattr(torch, bench.dtype), torch.float32)


def _cast_loss(
    bench: Bench, operands: tuple[Tensor, Tensor], dtype: torch.dtype, reduction: str
) -> Tensor:
    """The target's own in that dtype; the builtin's where the target does not claim it."""
    x, y = operands[0].to(dtype), operands[1].to(dtype)
    if str(dtype).removeprefix("torch.") not in bench.target.dtypes:
        return F.mse_loss(x, y, reduction=reduction)
    result: Tensor = bench.loss(x, y, reduction)
    return result


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
    """No compiled code of an earlier experiment, nor its count against the limit."""
    import torch._dynamo  # apart: it takes a second to import

    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


def _function(bench: Bench, reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    loss = bench.target.loss

    def function(x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = loss(x, y, reduction=reduction)
        return result

    return function


def _compiled(bench: Bench, backend: str, sizes: Sequence[int], dynamic: bool) -> Messages:
    """The compiled loss and its gradient at each size: permitted, and from a compiled graph."""
    for reduction in bench.reductions:
        with _fresh_dynamo():
            counter = Backend(backend)
            function = torch.compile(
                _function(bench, reduction), backend=counter, fullgraph=True, dynamic=dynamic
            )
            for runs, n in enumerate(sizes, 1):
                x, y = _operands(bench, n)
                got = function(x, y)
                text = f"compiled by {backend} ({reduction}, n = {n})"
                if counter.runs < runs:
                    yield f"{text} the loss ran eagerly"
                yield from deviation_of_loss(bench, f"{text} the result", got, x, y, reduction)
                eager = _with_gradients(bench.loss(x, y, reduction), x, y)[1:]
                if not all(map(close, _with_gradients(got, x, y)[1:], eager)):
                    yield f"{text} a gradient is not the one that it has eagerly"
            if dynamic and counter.graphs > 2:
                yield f"{counter.graphs} graphs were compiled for {len(sizes)} sizes ({reduction})"


@experiment("transforms.compile")
def _compile(bench: Bench) -> Messages:
    yield from _compiled(bench, "aot_eager", (5, 5), dynamic=False)
    every = *shared_out(bench, _other_operands(bench)), *_large_halves(bench)
    for (text, (x, y)), reduction in every:
        with _fresh_dynamo():
            function = torch.compile(_function(bench, reduction), backend="aot_eager")
            eager = _with_gradients(bench.loss(x, y, reduction), x, y)
            got = _with_gradients(function(x, y), x, y)
        same, *same_gradients = map(close, got, eager)
        if not same:
            what = f"{brief(got[0])}, and eagerly {brief(eager[0])}"
            yield f"compiled by aot_eager {text} give {what} ({reduction})"
        elif not all(same_gradients):
            yield f"compiled by aot_eager {text} have another gradient than eagerly ({reduction})"


def _large_halves(bench: Bench) -> Iterator[tuple[tuple[str, tuple[Tensor, Tensor]], str]]:
    """Whose mean is in float16 and whose sum is not."""
    if bench.dtype == "float16" and "mean" in bench.reductions:
        x = torch.full((100,), 100.0, dtype=torch.float16, device=bench.device)
        yield ("large halves", (x.requires_grad_(), torch.zeros_like(x))), "mean"


def _other_operands(bench: Bench) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Not contiguous, without a gradient, and, where that is claimed, of two shapes and dtypes.

    None without elements: aot_eager fails on the builtin's mean of them.
    """
    needs = bench.claims("target_gradient")
    x, y = bench.tensor((2, 3), 1).t(), bench.tensor((3, 2), 2)
    yield "a transposed input", (x.requires_grad_(), y.requires_grad_(needs))
    x, y = bench.tensor((7,), 1)[::2], bench.tensor((7,), 2)[::2]
    yield "strided operands", (x.requires_grad_(), y.requires_grad_(needs))
    yield "matrices without a gradient", (bench.tensor((2, 3), 1), bench.tensor((2, 3), 2))
    if bench.claims("broadcast"):
        yield "sizes (3,) and (2, 3)", _of_two_shapes(bench)
    for x, y in _of_two_dtypes(bench):
        yield f"{x.dtype} and {y.dtype}", (x, y)


@experiment("transforms.compile_dynamic")
def _compile_dynamic(bench: Bench) -> Messages:
    yield from _compiled(bench, "aot_eager", (5, 8, 17), dynamic=True)


@experiment("transforms.inductor")
def _inductor(bench: Bench) -> Messages:
    compilers = ("c++", "g++", "clang++", os.environ.get("CXX", "c++"))
    if not any(map(shutil.which, compilers)):
        raise Unavailable("inductor needs a C++ compiler, and there is none")
    yield from _compiled(bench, "inductor", (5, 1023), dynamic=False)


@experiment("transforms.export")
def _export(bench: Bench) -> Messages:
    """The exported program, run on other values, and saved shapes kept dynamic."""
    shapes = [((2, 3), (2, 3)), ((5,), (5,)), *([((3,), (2, 3))] * bench.claims("broadcast"))]
    for (x_shape, y_shape), reduction in shared_out(bench, shapes):
        module = _Exported(_function(bench, reduction))
        with _fresh_dynamo():
            first = bench.tensor(x_shape, 7), bench.tensor(y_shape, 8)
            program = torch.export.export(module, first)
        x, y = bench.tensor(x_shape, 1), bench.tensor(y_shape, 2)
        text = f"the result of the exported loss ({reduction}, {x_shape} and {y_shape})"
        got = program.module()(x, y)
        yield from deviation_of_loss(bench, text, got, x, y, reduction)


class _Exported(torch.nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


# -- tensors without data ----------------------------------------------------------------------


@experiment("transforms.meta")
def _meta(bench: Bench) -> Messages:
    for (x, y), reduction in _abstracted(bench):
        yield from _abstract(bench, "meta", x.to("meta"), y.to("meta"), reduction)


@experiment("transforms.fake")
def _fake(bench: Bench) -> Messages:
    from torch._subclasses.fake_tensor import FakeTensorMode  # apart: slow to import

    every = list(_abstracted(bench))
    # A constant of the target's own is no fake tensor; torch.compile makes one of it.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for (x, y), reduction in every:
            a, b = mode.from_tensor(x), mode.from_tensor(y)
            yield from _abstract(bench, "fake", a, b, reduction)
    yield from _real_after_fake(bench)


def _abstracted(bench: Bench) -> Iterator[tuple[tuple[Tensor, Tensor], str]]:
    """Pairs to take the data from, and a reduction; the plainest and two dtypes meet them all."""
    plain = bench.tensor((2, 3), 1), bench.tensor((2, 3), 2)
    mixed = ((x.detach(), y.detach()) for x, y in _of_two_dtypes(bench))
    yield from itertools.product((plain, *mixed), bench.reductions)
    every = ((x.detach(), y.detach()) for _, (x, y) in _other_operands(bench))
    others = [(x, y) for x, y in every if x.dtype == y.dtype]
    if bench.claims("broadcast"):  # neither has the shape of the result
        others.append((bench.tensor((4, 1), 1), bench.tensor((1, 3), 2)))
    yield from shared_out(bench, others)


def _real_after_fake(bench: Bench) -> Messages:
    """A size that is met in fake tensors first: what is kept of it then must serve real ones."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    for n, reduction in enumerate(bench.reductions, 191):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            a, b = (mode.from_tensor(bench.tensor((n,), k)) for k in (1, 2))
            _with_gradients(bench.loss(a.requires_grad_(), b, reduction), a)
        x, y = bench.tensor((n,), 1).requires_grad_(), bench.tensor((n,), 2)
        (got,) = _with_gradients(bench.loss(x, y, reduction), x)[1:]
        exact = 2 * (to_numpy(x) - to_numpy(y)) / (n if reduction == "mean" else 1)
        text = f"after a call on fake tensors of {n} elements the gradient ({reduction})"
        yield from deviation(bench, text, got, exact, abs(exact))


def _abstract(bench: Bench, kind: str, x: Tensor, y: Tensor, reduction: str) -> Messages:
    """Shape, dtype and device of the result and of its gradients, without any data."""
    x.requires_grad_()
    y.requires_grad_(bench.claims("target_gradient"))
    result, *found = _with_gradients(bench.loss(x, y, reduction), x, y)
    shape = np.broadcast_shapes(x.shape, y.shape) if reduction == "none" else ()
    dtype, text = torch.promote_types(x.dtype, y.dtype), f"{_described(x)} and {_described(y)}"
    if result.shape != shape or result.dtype != dtype or result.device != x.device:
        yield f"on {kind} tensors {text} the result is {_described(result)} ({reduction})"
    for got, operand in zip(found, (x, y), strict=False):
        if (got.shape, got.dtype, got.device) != (operand.shape, operand.dtype, operand.device):
            yield f"on {kind} tensors {text} a gradient is {_described(got)} ({reduction})"


def _described(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)} on {t.device}"
