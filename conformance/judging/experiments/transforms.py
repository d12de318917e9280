"""Experiments on ``torch.func``: each transform against the reference's own derivatives."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from conformance.cases.values import FORMAT_OF
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    Shape,
    close,
    deviation,
    eighths,
    experiment,
    shared_out,
    two_dtypes,
)
from conformance.judging.observer import Given
from conformance.judging.seen import Seen
from reference.formats import Floats, round_nearest


def _operands(bench: Bench, shape: Shape = (2, 3)) -> tuple[Floats, Floats]:
    """With one pair of equal elements."""
    x, y = eighths(bench, shape, 1), eighths(bench, shape, 2)
    y.flat[-1] = x.flat[-1]
    return x, y


def _differentiated(bench: Bench) -> tuple[tuple[int, str, int], ...]:
    """(argument number, name, sign of its gradient) for each operand that has one."""
    both = ((0, "input", 1), (1, "target", -1))
    return both if bench.claims("target_gradient") else both[:1]


def _losses(bench: Bench, d: Floats, reduction: str) -> tuple[Floats, Floats]:
    """The loss of each sample, where ``d`` is x − y of all, and that of magnitudes."""
    exact = np.stack([np.asarray(bench.formula.value(one, reduction)) for one in d])
    return exact, np.stack([np.asarray(bench.formula.size(one, reduction)) for one in d])


@experiment("transforms.grad")
def _grad(bench: Bench) -> Messages:
    x, y = _operands(bench)
    a, b, ones = bench.made(x), bench.made(y), np.ones(())
    for reduction in bench.reductions:
        for number, name, sign in _differentiated(bench):
            found = bench.ask("transforms.grad", x=a, y=b, reduction=reduction, number=number)
            exact = sign * bench.formula.vjp(x - y, ones, reduction)
            text = f"torch.func.grad by {name} ({reduction})"
            yield from deviation(bench, text, found["gradient"], exact, abs(exact))


@experiment("transforms.vjp")
def _vjp(bench: Bench) -> Messages:
    x, y = _operands(bench)
    d, a, b = x - y, bench.made(x), bench.made(y)
    both = bench.claims("target_gradient")
    for reduction in bench.reductions:
        g = bench.plain(bench.result_shape(d.shape, reduction), 3)
        settings = {"g": bench.grad_output(g), "reduction": reduction, "both": both}
        found = bench.ask("transforms.vjp", x=a, y=b, **settings)
        for _, name, sign in _differentiated(bench):
            exact = sign * bench.formula.vjp(d, g, reduction)
            text = f"torch.func.vjp by {name} ({reduction})"
            yield from deviation(bench, text, found[name], exact, abs(exact))
        yield from _as_plainly(bench, reduction)


def _as_plainly(bench: Bench, reduction: str) -> Messages:
    """Beside a NaN, and of two dtypes: the result and the gradient of a plain call."""
    kinds = [(bench.dtype, bench.dtype), *two_dtypes(bench)]
    for first, second in kinds:
        x, y = bench.tensor((4,), 1, first), bench.tensor((4,), 2, second)
        x = x.put(1, np.nan) if first == second else x
        found = bench.ask("transforms.vjp_and_plainly", x=x, y=y, reduction=reduction)
        if not all(close(found[what], found[f"plain_{what}"]) for what in ("result", "gradient")):
            text = "beside a NaN" if first == second else f"of {first} and {second}"
            yield f"torch.func.vjp {text} is not as a plain call ({reduction})"


@experiment("transforms.jvp")
def _jvp(bench: Bench) -> Messages:
    """Of the loss, and of what vmap makes of it."""
    x, y = _operands(bench)
    d = x - y
    t_x, t_y = eighths(bench, x.shape, 4), eighths(bench, y.shape, 5)
    t_y = t_y if bench.claims("target_gradient") else np.zeros_like(t_y)
    pair = {"x": bench.made(x), "y": bench.made(y)}
    tangents = {"t_x": bench.made(t_x)}
    if bench.claims("target_gradient"):
        tangents["t_y"] = bench.made(t_y)
    sizes = d, abs(t_x) + abs(t_y)
    for reduction in bench.reductions:
        found = bench.ask("transforms.jvp", **pair, **tangents, reduction=reduction)
        exact = np.asarray(bench.formula.jvp(d, t_x - t_y, reduction))
        bound = np.asarray(bench.formula.jvp_size(*sizes, reduction))
        got = _narrowed(bench, found["tangent"])
        yield from deviation(
            bench, f"torch.func.jvp ({reduction})", got, exact, bound, d.size, True
        )
        found = bench.ask("transforms.jvp", **pair, **tangents, reduction=reduction, mapped=True)
        exact, bound = (
            np.stack([np.asarray(jvp(*one, reduction)) for one in zip(*all_, strict=True)])
            for jvp, all_ in (
                (bench.formula.jvp, (d, t_x - t_y)),
                (bench.formula.jvp_size, sizes),
            )
        )
        text = f"torch.func.jvp of vmap ({reduction})"
        got = _rounded(bench, found["tangent"])
        yield from deviation(bench, text, got, exact, bound, d.size, True)
        if bench.claims("double_backward"):
            yield from _gradient_of_tangent(bench, reduction, pair, d, t_x)


def _gradient_of_tangent(
    bench: Bench, reduction: str, pair: dict[str, Given], d: Floats, t: Floats
) -> Messages:
    """Reverse over forward: ℓ″·t, over n for a mean. What cannot be differentiated so raises."""
    along = bench.made(t)
    got = bench.ask("transforms.grad_of_jvp", **pair, t_x=along, reduction=reduction)["gradient"]
    if got is not None:
        exact = bench.formula.second_vjp(d, 1.0, t, reduction)[0]
        bound = bench.formula.second_vjp_size(d, 1.0, t, reduction)[0]
        yield from deviation(bench, f"torch.func.grad of jvp ({reduction})", got, exact, bound)


def _narrowed(bench: Bench, got: Any) -> Any:
    """torch gives ``1.0 * x.sum()`` a tangent in float64, whatever the dtype of ``x``."""
    wide = isinstance(got, Seen) and got.values.shape == () and got.dtype == "float64"
    return _rounded(bench, got) if wide else got


def _rounded(bench: Bench, got: Any) -> Any:
    """A tensor in this dtype; what is none as it is."""
    if not isinstance(got, Seen):
        return got
    dtype = bench.result_dtype
    return Seen(round_nearest(got.values, FORMAT_OF[dtype]), dtype, got.device)


@experiment("transforms.jacrev")
def _jacrev(bench: Bench) -> Messages:
    x, y = _operands(bench, (4,))
    a, b = bench.made(x), bench.made(y)
    for reduction in bench.reductions:
        for number, name, sign in _differentiated(bench):
            found = bench.ask("transforms.jacrev", x=a, y=b, reduction=reduction, number=number)
            exact = sign * _jacobian(bench, x - y, reduction)
            text = f"torch.func.jacrev by {name} ({reduction})"
            yield from deviation(bench, text, found["jacobian"], exact, abs(exact))


def _jacobian(bench: Bench, d: Floats, reduction: str) -> Floats:
    """The gradient of each number of the result."""
    shape = bench.result_shape(d.shape, reduction)
    each = np.eye(math.prod(shape)).reshape(-1, *shape)
    rows = [bench.formula.vjp(d, one, reduction) for one in each]
    return np.reshape(rows, (*shape, *d.shape))


@experiment("transforms.hessian")
def _hessian(bench: Bench) -> Messages:
    """Reverse over reverse: forward over reverse fails in the builtin itself."""
    x, y = map(bench.made, _operands(bench, (4,)))
    d = (x.values - y.values).ravel()
    ones = np.ones(d.size)
    for reduction in bench.reductions:
        twice = itertools.combinations_with_replacement(_differentiated(bench), 2)
        for (first, name, sign), (second, other, other_sign) in twice:
            settings = {"reduction": reduction, "first": first, "second": second}
            found = bench.ask("transforms.hessian", x=x, y=y, **settings)
            exact = np.diag(bench.formula.second_vjp(d, 1.0, ones, reduction)[0])
            bound = np.diag(bench.formula.second_vjp_size(d, 1.0, ones, reduction)[0])
            text = f"torch.func.jacrev by {other} of jacrev by {name} ({reduction})"
            yield from deviation(bench, text, found["hessian"], sign * other_sign * exact, bound)


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
    a, b = (Given(v, kind) for v, kind in zip((x, y), kinds, strict=True))
    got = bench.ask("transforms.vmap", x=a, y=b, reduction=reduction)["result"]
    exact, size = _losses(bench, x - y, reduction)
    text = f"vmap over {kinds[0]} and {kinds[1]} ({reduction})"
    yield from deviation(bench, text, got, exact, size, 3, True)


def _mapped_empty(bench: Bench) -> Messages:
    """The mean of nothing is NaN, its sum 0, of each sample too."""
    for reduction, exact in (("mean", np.nan), ("sum", 0.0)):
        if reduction in bench.reductions:
            x, y = bench.tensor((2, 0), 1), bench.tensor((2, 0), 2)
            got = bench.ask("transforms.vmap", x=x, y=y, reduction=reduction).tensor("result")
            shape = (2, *bench.result_shape((0,), reduction))
            if not np.array_equal(got.values, np.full(shape, exact), equal_nan=True):
                text = f"gave {got.values.tolist()}, not {exact}"
                yield f"vmap over samples of nothing {text} ({reduction})"


def _mapped_sums(bench: Bench) -> Messages:
    """Of each sample the sum of squares is beyond float16, and the mean is not."""
    x = np.full((3, 16), 128.0)
    a, b = bench.made(x), bench.made(np.zeros_like(x))
    sample = {"x": bench.made(x[0]), "y": bench.made(np.zeros(16))}
    one = bench.ask("plain.loss", **sample, reduction="mean").tensor("result")
    if np.isfinite(one.values).all():  # else the value says so already
        exact, size = _losses(bench, x, "mean")
        got = bench.ask("transforms.vmap", x=a, y=b, reduction="mean")["result"]
        yield from deviation(bench, "vmap over large samples (mean)", got, exact, size, 16, True)


def _mapped(bench: Bench, reduction: str, batch: int, shape: Shape, in_dims: InDims) -> Messages:
    x, y = (
        eighths(bench, shape if dim is None else (batch, *shape), 1 + k)
        for k, dim in enumerate(in_dims)
    )
    operands = {"x": bench.made(x), "y": bench.made(y)}
    settings = {"reduction": reduction, "in_dims": in_dims}
    got = bench.ask("transforms.vmap", **operands, **settings)["result"]
    d = x - y  # (batch, *shape)
    exact, size = _losses(bench, d, reduction)
    text = f"vmap with in_dims={in_dims} over {batch} of {shape}"
    yield from deviation(bench, f"{text} ({reduction})", got, exact, size, d[0].size, True)
    exact = np.stack([bench.formula.vjp(one, 1.0, reduction) for one in d])
    for number, name, sign in _differentiated(bench):
        found = bench.ask("transforms.vmap_of_grad", **operands, **settings, number=number)
        what = f"{text} of grad by {name} ({reduction})"
        yield from deviation(bench, what, found["gradient"], sign * exact, abs(exact))


def _mapped_twice(bench: Bench, reduction: str) -> Messages:
    """Samples of samples, both with both batches: with fewer the builtin itself fails."""
    x, y = eighths(bench, (3, 2, 4), 1), eighths(bench, (3, 2, 4), 2)
    a, b = bench.made(x), bench.made(y)
    rows = _losses(bench, (x - y).reshape(6, 4), reduction)
    exact, size = (v.reshape(3, 2, *v.shape[1:]) for v in rows)
    for in_dim in (0, 1):
        settings = {"reduction": reduction, "in_dim": in_dim}
        got = bench.ask("transforms.vmap_of_vmap", x=a, y=b, **settings)["result"]
        text = f"vmap, with in_dims={in_dim}, of vmap ({reduction})"
        yield from deviation(bench, text, got, exact, size, 4, True)


def _mapped_inside(bench: Bench, reduction: str, in_dims: InDims) -> Messages:
    """The gradient of all that vmap gives, by ``torch.func.grad`` and by autograd."""
    x, y = (eighths(bench, (4,) if dim is None else (3, 4), 1 + k) for k, dim in enumerate(in_dims))
    a, b = bench.made(x), bench.made(y)
    each: Floats = np.stack([bench.formula.vjp(one, 1.0, reduction) for one in x - y])
    settings = {"reduction": reduction, "in_dims": in_dims}
    for number, name, sign in _differentiated(bench):
        exact, size = (
            v.sum(axis=0) if in_dims[number] is None else v for v in (sign * each, abs(each))
        )
        text = f"the gradient by {name} of vmap with in_dims={in_dims} ({reduction})"
        found = bench.ask("transforms.grad_of_vmap", x=a, y=b, **settings, number=number)
        yield from deviation(bench, text, found["gradient"], exact, size, 3)
        leaves = {"x": a.leaf(number == 0), "y": b.leaf(number == 1)}
        got = bench.ask("transforms.backward_of_vmap", **leaves, **settings)["gradient"]
        if got is None:
            yield f"the result of vmap with in_dims={in_dims} cannot be trained through"
            return
        yield from deviation(bench, text, got, exact, size, 3)


def _mapped_ranks(bench: Bench) -> Messages:
    """Samples of different ranks: as many numbers as a sample of the other operand has."""
    x, y = eighths(bench, (4, 4), 1), eighths(bench, (4,), 2)
    a, b = bench.made(x), bench.made(y)
    for reduction in bench.reductions:
        exact, size = _losses(bench, x - y[:, None], reduction)
        for text, (first, second) in (("(4,) and ()", (a, b)), ("() and (4,)", (b, a))):
            found = bench.ask("transforms.vmap", x=first, y=second, reduction=reduction)
            what = f"vmap over samples of {text} ({reduction})"
            yield from deviation(bench, what, found["result"], exact, size, 4, True)


@experiment("transforms.batched_gradient")
def _batched_gradient(bench: Bench) -> Messages:
    """``torch.autograd.grad(..., is_grads_batched=True)``, as vectorised Jacobians use it."""
    x, y = _operands(bench, (4,))
    a, b = bench.made(x), bench.made(y)
    for reduction in bench.reductions:
        shape = bench.result_shape(x.shape, reduction)
        g = bench.plain((BATCH, *shape), 3)
        exact = np.stack([bench.formula.vjp(x - y, row, reduction) for row in g])
        for number, name, sign in _differentiated(bench):
            leaves = {"x": a.leaf(number == 0), "y": b.leaf(number == 1), "g": bench.grad_output(g)}
            found = bench.ask("transforms.batched_gradient", **leaves, reduction=reduction)
            text = f"batched gradient of {name} ({reduction})"
            yield from deviation(bench, text, found["gradient"], sign * exact, abs(exact))
