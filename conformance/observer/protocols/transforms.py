"""Experiments on ``torch.func``: each transform against the reference's own derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    Shape,
    close,
    deviation,
    eighths,
    experiment,
    gradients,
    shared_out,
    two_dtypes,
)
from conformance.observer.tensors import to_numpy
from reference import mse
from reference.formats import Floats


def _function(bench: Bench, reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    def function(x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = bench.loss(x, y, reduction)
        return result

    return function


def _total(bench: Bench, reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    """0-d for every reduction, as ``grad`` demands."""
    function = _function(bench, reduction)
    return function if reduction != "none" else lambda x, y: function(x, y).sum()


def _operands(bench: Bench, shape: tuple[int, ...] = (2, 3)) -> tuple[Floats, Floats]:
    """With one pair of equal elements."""
    x, y = eighths(bench, shape, 1), eighths(bench, shape, 2)
    y.flat[-1] = x.flat[-1]
    return x, y


def _differentiated(bench: Bench) -> tuple[tuple[int, str, int], ...]:
    """(argument number, name, sign of its gradient) for each operand that has one."""
    both = ((0, "input", 1), (1, "target", -1))
    return both if bench.claims("target_gradient") else both[:1]


def _gradient(d: Floats, g: Floats, reduction: str) -> Floats:
    """The reference's vjp: 2·d·g, over n for a mean."""
    value = mse.second_vjp(d, g, d, reduction)[0]
    return np.broadcast_to(value, d.shape)


def _along(
    bench: Bench, function: Callable[..., Tensor], x: Floats, y: Floats
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The function of those operands that it is differentiated by, and these."""
    a, b = bench.made(x), bench.made(y)
    if bench.claims("target_gradient"):
        return function, (a, b)
    return lambda x: function(x, b), (a,)


@experiment("transforms.grad")
def _grad(bench: Bench) -> Messages:
    x, y = _operands(bench)
    ones = np.ones(())
    for reduction in bench.reductions:
        for number, name, sign in _differentiated(bench):
            got = torch.func.grad(_total(bench, reduction), number)(bench.made(x), bench.made(y))
            exact = sign * _gradient(x - y, ones, reduction)
            text = f"torch.func.grad by {name} ({reduction})"
            yield from deviation(bench, text, got, exact, abs(exact))


@experiment("transforms.vjp")
def _vjp(bench: Bench) -> Messages:
    x, y = _operands(bench)
    d = x - y
    for reduction in bench.reductions:
        g = eighths(bench, d.shape if reduction == "none" else (), 3)
        function, operands = _along(bench, _function(bench, reduction), x, y)
        found = torch.func.vjp(function, *operands)[1](bench.made(g))
        for number, name, sign in _differentiated(bench):
            exact = sign * _gradient(d, g, reduction)
            text = f"torch.func.vjp by {name} ({reduction})"
            yield from deviation(bench, text, found[number], exact, abs(exact))
        yield from _as_plainly(bench, reduction)


def _as_plainly(bench: Bench, reduction: str) -> Messages:
    """Beside a NaN, and of two dtypes: the result and the gradient of a plain call."""
    kinds = [(bench.dtype, bench.dtype), *two_dtypes(bench)]
    for first, second in kinds:
        x, y = bench.tensor((4,), 1, first), bench.tensor((4,), 2, second)
        x[1] = torch.nan if first == second else x[1]
        pulled: Any = torch.func.vjp(lambda x, y=y: bench.loss(x, y, reduction), x)
        result, pull = pulled
        leaf = x.clone().requires_grad_()
        plain = bench.loss(leaf, y, reduction)
        if not close(result, plain) or not close(
            pull(torch.ones_like(result))[0], gradients(plain, leaf)[0]
        ):
            text = "beside a NaN" if first == second else f"of {first} and {second}"
            yield f"torch.func.vjp {text} is not as a plain call ({reduction})"


@experiment("transforms.jvp")
def _jvp(bench: Bench) -> Messages:
    """Of the loss, and of what vmap makes of it."""
    x, y = _operands(bench)
    d = x - y
    t_x, t_y = eighths(bench, x.shape, 4), eighths(bench, y.shape, 5)
    t_y = t_y if bench.claims("target_gradient") else np.zeros_like(t_y)
    for reduction in bench.reductions:
        function, operands = _along(bench, _function(bench, reduction), x, y)
        tangents = tuple(bench.made(t) for t, _ in zip((t_x, t_y), operands, strict=False))
        got = _narrowed(torch.func.jvp(function, operands, tangents)[1], bench)
        exact = np.asarray(mse.jvp(d, t_x - t_y, reduction))
        bound = np.asarray(mse.jvp(abs(d), abs(t_x) + abs(t_y), reduction))
        yield from deviation(bench, f"torch.func.jvp ({reduction})", got, exact, bound, d.size)
        mapped, operands = _along(bench, torch.func.vmap(_function(bench, reduction)), x, y)
        got = torch.func.jvp(mapped, operands, tangents)[1].to(got.dtype)
        exact, bound = (
            np.stack([np.asarray(mse.jvp(*one, reduction)) for one in zip(a, b, strict=True)])
            for a, b in ((d, t_x - t_y), (abs(d), abs(t_x) + abs(t_y)))
        )
        yield from deviation(
            bench, f"torch.func.jvp of vmap ({reduction})", got, exact, bound, d.size
        )
        if bench.claims("double_backward"):
            yield from _gradient_of_tangent(bench, reduction, x, y, t_x)


def _gradient_of_tangent(bench: Bench, reduction: str, x: Floats, y: Floats, t: Floats) -> Messages:
    """Reverse over forward: 2·t, over n for a mean. Some cannot be differentiated so, and raise."""
    target, along = bench.made(y), bench.made(t)

    def tangent(a: Tensor) -> Tensor:
        total: Tensor = torch.func.jvp(lambda x: bench.loss(x, target, reduction), (a,), (along,))[
            1
        ]
        return total.sum()

    try:
        got = torch.func.grad(tangent)(bench.made(x))
    except RuntimeError:
        return
    exact = _gradient(t, np.ones(()), reduction)
    text = f"torch.func.grad of jvp ({reduction})"
    yield from deviation(bench, text, got, exact, abs(exact))


def _narrowed(tangent: torch.Tensor, bench: Bench) -> torch.Tensor:
    """torch gives ``1.0 * x.sum()`` a tangent in float64, whatever the dtype of ``x``."""
    wide = tangent.shape == () and tangent.dtype == torch.float64
    return tangent.to(getattr(torch, bench.dtype)) if wide else tangent


@experiment("transforms.jacrev")
def _jacrev(bench: Bench) -> Messages:
    x, y = _operands(bench, (4,))
    for reduction in bench.reductions:
        for number, name, sign in _differentiated(bench):
            got = torch.func.jacrev(_function(bench, reduction), number)(
                bench.made(x), bench.made(y)
            )
            gradient = sign * _gradient(x - y, np.ones(()), reduction)
            exact = np.diag(gradient) if reduction == "none" else gradient
            text = f"torch.func.jacrev by {name} ({reduction})"
            yield from deviation(bench, text, got, exact, abs(exact))


@experiment("transforms.hessian")
def _hessian(bench: Bench) -> Messages:
    """Reverse over reverse: forward over reverse fails in the builtin itself."""
    x, y = _operands(bench, (4,))
    for reduction in bench.reductions:
        twice = itertools.combinations_with_replacement(_differentiated(bench), 2)
        for (first, name, sign), (second, other, other_sign) in twice:
            once = torch.func.jacrev(_total(bench, reduction), first)
            got = torch.func.jacrev(once, second)(bench.made(x), bench.made(y))
            exact = sign * other_sign * np.eye(4) * (2 / 4 if reduction == "mean" else 2.0)
            text = f"torch.func.jacrev by {other} of jacrev by {name} ({reduction})"
            yield from deviation(bench, text, got, exact, abs(exact))


InDims = tuple[int | None, int | None]

# How many samples, the shape of one, and which dimension of each operand they are.
_BATCHES: tuple[tuple[int, Shape, tuple[InDims, ...]], ...] = (
    (3, (4,), ((0, 0), (0, None), (None, 0), (1, 0), (0, 1), (1, 1), (1, None), (None, 1))),
    (1, (4,), ((0, 0), (None, 0))),
    (3, (), ((0, 0), (0, None), (None, 0))),
    (33, (2, 3), ((0, 0), (2, 1), (1, None), (None, 2), (-1, 0))),
    (67, (2,), ((0, 0),)),
)
BATCH = 3


@experiment("transforms.vmap")
def _vmap(bench: Bench) -> Messages:
    """Every kind of in_dims, over the loss and over its gradient.

    Then twice, one within the other, and differentiated from outside.
    """
    kinds = ((batch, shape, dims) for batch, shape, every in _BATCHES for dims in every)
    for kind, reduction in shared_out(bench, kinds):
        yield from _mapped(bench, reduction, *kind)
    for reduction in bench.reductions:
        yield from _mapped_twice(bench, reduction)
    outside: tuple[InDims, ...] = (0, 0), (0, None), (None, 0)
    for in_dims, reduction in shared_out(bench, outside):
        yield from _mapped_inside(bench, reduction, in_dims)
    if bench.claims("broadcast"):
        yield from _mapped_ranks(bench)
    reductions = itertools.cycle(bench.reductions)
    for dtypes in two_dtypes(bench):
        yield from _mapped_dtypes(bench, dtypes, next(reductions))
    if "mean" in bench.reductions:
        yield from _mapped_sums(bench)
    if bench.claims("empty"):
        yield from _mapped_empty(bench)


def _mapped_dtypes(bench: Bench, kinds: tuple[str, str], reduction: str) -> Messages:
    """The wider one has more digits than the narrower dtype holds."""
    pair = (eighths(bench, (4, 3), k) for k in (1, 2))
    x, y = (v * (1 + 2.0**-14 * (k == bench.dtype)) for v, k in zip(pair, kinds, strict=True))
    a, b = (replace(bench, dtype=kind).made(v) for v, kind in zip((x, y), kinds, strict=True))
    got = torch.func.vmap(_function(bench, reduction))(a, b)
    exact = np.stack([np.asarray(mse.loss(d, np.zeros(3), reduction)) for d in x - y])
    text = f"vmap over {kinds[0]} and {kinds[1]} ({reduction})"
    yield from deviation(bench, text, got, exact, exact, 3)


def _mapped_empty(bench: Bench) -> Messages:
    """The mean of nothing is NaN, its sum 0, of each sample too."""
    for reduction, exact in (("mean", np.nan), ("sum", 0.0)):
        if reduction in bench.reductions:
            x, y = bench.tensor((2, 0), 1), bench.tensor((2, 0), 2)
            got = torch.func.vmap(_function(bench, reduction))(x, y)
            if not np.array_equal(to_numpy(got), np.full(2, exact), equal_nan=True):
                yield f"vmap over samples of nothing gave {got.tolist()}, not {exact} ({reduction})"


def _mapped_sums(bench: Bench) -> Messages:
    """Of each sample the sum of squares is beyond float16, and the mean is not."""
    x = np.full((3, 16), 128.0)
    a, b = bench.made(x), bench.made(np.zeros_like(x))
    one = bench.loss(a[0], b[0], "mean")
    if torch.isfinite(one):  # else the value says so already
        exact = np.full(3, 128.0**2)
        got = torch.func.vmap(_function(bench, "mean"))(a, b)
        yield from deviation(bench, "vmap over large samples (mean)", got, exact, exact, 16)


def _mapped(bench: Bench, reduction: str, batch: int, shape: Shape, in_dims: InDims) -> Messages:
    x, y = (
        eighths(bench, shape if dim is None else (batch, *shape), 1 + k)
        for k, dim in enumerate(in_dims)
    )
    a, b = (
        bench.made(v if dim is None else np.moveaxis(v, 0, dim))
        for v, dim in zip((x, y), in_dims, strict=True)
    )
    d = x - y  # (batch, *shape)
    exact = np.stack([np.asarray(mse.loss(one, np.zeros(shape), reduction)) for one in d])
    got = torch.func.vmap(_function(bench, reduction), in_dims=in_dims)(a, b)
    text = f"vmap with in_dims={in_dims} over {batch} of {shape}"
    yield from deviation(bench, f"{text} ({reduction})", got, exact, exact, d[0].size)
    exact = np.stack([_gradient(one, np.ones(()), reduction) for one in d])
    for number, name, sign in _differentiated(bench):
        gradient = torch.func.grad(_total(bench, reduction), number)
        got = torch.func.vmap(gradient, in_dims=in_dims)(a, b)
        what = f"{text} of grad by {name} ({reduction})"
        yield from deviation(bench, what, got, sign * exact, abs(exact))


def _mapped_twice(bench: Bench, reduction: str) -> Messages:
    """Samples of samples, both with both batches: with fewer the builtin itself fails."""
    x, y = eighths(bench, (3, 2, 4), 1), eighths(bench, (3, 2, 4), 2)
    both = zip(x.reshape(6, 4), y.reshape(6, 4), strict=True)
    rows = np.stack([np.asarray(mse.loss(*one, reduction)) for one in both])
    exact = rows.reshape(3, 2, *rows.shape[1:])
    for in_dims in (0, 1):
        a, b = (bench.made(np.moveaxis(v, 0, in_dims)) for v in (x, y))
        twice = torch.func.vmap(torch.func.vmap(_function(bench, reduction)), in_dims=in_dims)
        text = f"vmap, with in_dims={in_dims}, of vmap ({reduction})"
        yield from deviation(bench, text, twice(a, b), exact, exact, 4)


def _mapped_inside(bench: Bench, reduction: str, in_dims: InDims) -> Messages:
    """The gradient of all that vmap gives, by ``torch.func.grad`` and by autograd."""
    x, y = (eighths(bench, (4,) if dim is None else (3, 4), 1 + k) for k, dim in enumerate(in_dims))
    each = _gradient(x - y, np.ones(()), "sum") / (4 if reduction == "mean" else 1)
    mapped = torch.func.vmap(_function(bench, reduction), in_dims=in_dims)
    for number, name, sign in _differentiated(bench):
        exact, size = (
            v.sum(axis=0) if in_dims[number] is None else v for v in (sign * each, abs(each))
        )
        text = f"the gradient by {name} of vmap with in_dims={in_dims} ({reduction})"
        total = torch.func.grad(lambda x, y: mapped(x, y).sum(), number)
        yield from deviation(bench, text, total(bench.made(x), bench.made(y)), exact, size, 3)
        leaves = [bench.made(v, needs=k == number) for k, v in enumerate((x, y))]
        result = mapped(*leaves)
        if not result.requires_grad:
            yield f"the result of vmap with in_dims={in_dims} cannot be trained through"
            return
        (got,) = torch.autograd.grad(result.sum(), leaves[number])
        yield from deviation(bench, text, got, exact, size, 3)


def _mapped_ranks(bench: Bench) -> Messages:
    """Samples of different ranks: as many numbers as a sample of the other operand has."""
    x, y = eighths(bench, (4, 4), 1), eighths(bench, (4,), 2)
    for reduction in bench.reductions:
        exact = np.stack(
            [np.asarray(mse.loss(*both, reduction)) for both in zip(x, y, strict=True)]
        )
        for text, operands in (("(4,) and ()", (x, y)), ("() and (4,)", (y, x))):
            got = torch.func.vmap(_function(bench, reduction))(*map(bench.made, operands))
            what = f"vmap over samples of {text} ({reduction})"
            yield from deviation(bench, what, got, exact, exact, 4)


@experiment("transforms.batched_gradient")
def _batched_gradient(bench: Bench) -> Messages:
    """``torch.autograd.grad(..., is_grads_batched=True)``, as vectorised Jacobians use it."""
    x, y = _operands(bench, (4,))
    for reduction in bench.reductions:
        shape = (4,) if reduction == "none" else ()
        g = eighths(bench, (BATCH, *shape), 3)
        exact = np.stack([_gradient(x - y, row, reduction) for row in g])
        for number, name, sign in _differentiated(bench):
            leaves = [bench.made(v, needs=k == number) for k, v in enumerate((x, y))]
            result = bench.loss(leaves[0], leaves[1], reduction)
            (got,) = torch.autograd.grad(
                result, leaves[number], bench.made(g), is_grads_batched=True
            )
            text = f"batched gradient of {name} ({reduction})"
            yield from deviation(bench, text, got, sign * exact, abs(exact))
