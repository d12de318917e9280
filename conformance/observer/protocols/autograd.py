"""Experiments on the autograd protocol: graphs, hooks, second derivatives and forward mode.

Protocols are compared with what the same target gives in a plain call, so that a wrong gradient is
told once, by ``gradient.*``; derivatives are compared with the reference's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as fwad
from torch.utils.checkpoint import checkpoint

from conformance.clauses import WIDER
from conformance.observer.protocols.bench import (
    DRIFTING,
    LARGE,
    Bench,
    Messages,
    brief,
    close,
    deviation,
    eighths,
    experiment,
    gradients,
    narrower,
    shared_out,
    two_dtypes,
)
from conformance.observer.tensors import to_numpy
from reference import mse
from reference.formats import Floats

Tensors = tuple[torch.Tensor, ...]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
GRAPHS = 300  # alive at once
MANY: Shapes = ((LARGE,), (LARGE,))


def _operands(bench: Bench, first: int = 1, n: int = 5) -> Tensors:
    """Leaves that need a gradient; the target needs one where the target of judgement claims it."""
    x = bench.tensor((n,), first).requires_grad_()
    y = bench.tensor((n,), first + 1)
    return x, y.requires_grad_(bench.claims("target_gradient"))


def _gradients(bench: Bench, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Tensors:
    """The gradients in a plain call, of whichever operand needs one."""
    leaves = [t.detach().clone().requires_grad_(t.requires_grad) for t in (x, y)]
    return gradients(bench.loss(leaves[0], leaves[1], reduction), *leaves)


def _differ(got: tuple[torch.Tensor | None, ...], wanted: Tensors) -> str | None:
    """``input`` or ``target``: whose gradient is not as in the plain call."""
    for name, one, other in zip(("input", "target"), got, wanted, strict=False):
        if one is None or one.shape != other.shape or not close(one, other):
            return name
    return None


@experiment("autograd.accumulate")
def _accumulate(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        x, y = (torch.nn.Parameter(t, t.requires_grad) for t in _operands(bench))
        wanted = _gradients(bench, x, y, reduction)
        for operand, gradient in zip((x, y), wanted, strict=False):
            operand.grad = gradient.clone()
        result = bench.loss(x, y, reduction)
        result.backward(torch.ones_like(result))
        name = _differ((x.grad, y.grad), tuple(2 * g for g in wanted))
        if name:
            yield f"backward() did not add to .grad of {name} what the gradient is ({reduction})"


@experiment("autograd.retain")
def _retain(bench: Bench) -> Messages:
    sizes: list[Shapes] = [((5,), (5,)), *([((3,), (2, 3))] * bench.claims("broadcast"))]
    every = itertools.product(sizes, bench.reductions)
    for shapes, reduction in itertools.chain(every, shared_out(bench, (MANY,))):
        if shapes == MANY and bench.dtype == "float16" and reduction == "mean":
            continue  # subnormal gradients are not rounded in proportion
        x = bench.tensor(shapes[0], 1).requires_grad_()
        y = bench.tensor(shapes[1], 2).requires_grad_(bench.claims("target_gradient"))
        needing = [t for t in (x, y) if t.requires_grad]
        result = bench.loss(x, y, reduction)
        g = torch.ones_like(result)  # a copy for each: some write to it
        try:
            first = torch.autograd.grad(result, needing, g.clone(), retain_graph=True)
        except RuntimeError as error:
            if "donated buffers" in str(error):
                return  # what torch.compile refuses, and says so
            raise
        kept = tuple(t.clone() for t in first)
        for factor, which in ((1, "second"), (-2, "third"), (1, "fourth")):
            got = torch.autograd.grad(result, needing, factor * g, retain_graph=True)
            name = _differ(got, tuple(factor * t for t in kept))
            if name:
                yield f"the {which} backward gave another gradient of {name} ({reduction})"
            name = _differ(first, kept)
            if name:
                yield f"the {which} backward changed the first gradient of {name} ({reduction})"
        for gradient in first:
            if gradient.is_contiguous():
                gradient.mul_(-3)  # as clipping does
        name = _differ(torch.autograd.grad(result, needing, g.clone(), retain_graph=True), kept)
        if name:
            yield f"a gradient of {name} changed with an earlier one, in place ({reduction})"
        torch.autograd.grad(result, needing, g.clone())
        try:
            again = torch.autograd.grad(result, needing, g.clone())
        except RuntimeError:
            continue
        name = _differ(again, kept)
        if name:
            yield f"backward through a freed graph gave a wrong gradient of {name} ({reduction})"


@experiment("autograd.inplace")
def _inplace(bench: Bench) -> Messages:
    """A change of either operand, or of the result, before a backward or between two of them."""
    needs = ((True, True), (True, False), (False, True))
    for reduction in bench.reductions:
        for needed in needs if bench.claims("target_gradient") else needs[1:2]:
            yield from _operand_changed(bench, reduction, needed)
        x, y = _operands(bench)
        wanted = _gradients(bench, x, y, reduction)
        result = bench.loss(x, y, reduction)
        try:
            result = result.mul_(2)
        except RuntimeError:
            continue
        name = _or_raises(result, (x, y), tuple(2 * g for g in wanted))
        if name:
            yield f"after result.mul_(2) the gradient of {name} is silently wrong ({reduction})"


def _operand_changed(bench: Bench, reduction: str, needed: tuple[bool, bool]) -> Messages:
    for changed, when in itertools.product((0, 1), ("", " between two backwards")):
        x, y = (t.detach().requires_grad_(n) for t, n in zip(_operands(bench), needed, strict=True))
        wanted = _gradients(bench, x, y, reduction)
        # Not leaves: those that need a gradient may not be changed at all.
        a, b = x.clone(), y.clone()
        result = bench.loss(a, b, reduction)
        if when:
            needing = [t for t in (x, y) if t.requires_grad]
            try:
                torch.autograd.grad(result, needing, torch.ones_like(result), retain_graph=True)
            except RuntimeError:
                continue  # torch.compile retains no graph: autograd.retain
        with torch.no_grad():
            (a, b)[changed].mul_(3)
        name = _or_raises(result, (x, y), wanted)
        if name:
            which = ("input", "target")[changed]
            text = f"after {which}.mul_(3){when} the gradient of {name} is silently wrong"
            yield f"{text} ({reduction})"


def _or_raises(result: torch.Tensor, operands: Tensors, wanted: Tensors) -> str | None:
    try:
        got = gradients(result, *operands)
    except RuntimeError:
        return None
    names = [n for n, t in zip(("input", "target"), operands, strict=True) if t.requires_grad]
    found = _differ(got, wanted)
    return names[("input", "target").index(found)] if found else None


@experiment("autograd.hooks")
def _hooks(bench: Bench) -> Messages:
    """A hook on the result doubles grad_output, one on input sees its gradient and negates it."""
    for reduction in bench.reductions:
        x, y = _operands(bench)
        wanted = tuple(2 * g for g in _gradients(bench, x, y, reduction))
        seen: list[torch.Tensor] = []
        a, b = x.clone(), y.clone()

        def negate(g: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(g.clone())
            return -g

        on_input: Any = a.register_hook  # untyped in torch
        on_input(negate)
        result = bench.loss(a, b, reduction)
        result.register_hook(lambda g: 2 * g)
        got = gradients(result, x, y)
        if len(seen) != 1 or _differ((seen[0],), wanted):
            yield f"a hook on input saw {len(seen)} gradients, or a wrong one ({reduction})"
        name = _differ(got, (-wanted[0], *wanted[1:]))
        if name:
            yield f"hooks on result and input were not honoured for {name} ({reduction})"
        yield from _repacked(bench, reduction)


def _repacked(bench: Bench, reduction: str) -> Messages:
    """What is saved is copied away, as ``save_on_cpu`` does; or computed again, checkpointed."""
    x, y = _operands(bench)
    wanted = _gradients(bench, x, y, reduction)

    def plainly() -> torch.Tensor:
        result: torch.Tensor = bench.loss(x, y, reduction)
        return result

    def copied() -> torch.Tensor:
        hooks: Any = torch.autograd.graph.saved_tensors_hooks  # untyped in torch
        with hooks(lambda t: t.detach().clone(), lambda t: t):
            return plainly()

    def checkpointed() -> torch.Tensor:
        result: torch.Tensor = checkpoint(plainly, use_reentrant=False)
        return result

    for text, call in (("hooks copy what is saved", copied), ("checkpointed", checkpointed)):
        try:
            got = gradients(call(), x, y)
        except RuntimeError:
            continue  # TorchScript, and torch.func inside of a loss, refuse and say so
        name = _differ(got, wanted)
        if name:
            yield f"where {text} the gradient of {name} is another one ({reduction})"


@experiment("autograd.nonleaf")
def _nonleaf(bench: Bench) -> Messages:
    """Operands that are products, and views of other tensors; then the target, as a teacher's."""
    for reduction in bench.reductions:
        x, y = _operands(bench)
        wanted = _gradients(bench, 2 * x.detach().requires_grad_(), y, reduction)
        got = gradients(bench.loss(2 * x, y, reduction), x, y)
        name = _differ(got, (2 * wanted[0], *wanted[1:]))
        if name:
            yield f"the gradient of {name} is wrong where input is 2·x ({reduction})"
        base = bench.tensor((3, 7), 9).clone().requires_grad_()  # no view itself
        view = base[1, 1:6]
        wanted = _gradients(bench, view, y, reduction)
        result = bench.loss(view, y, reduction)
        (got_base,) = torch.autograd.grad(result, base, torch.ones_like(result))
        expected = torch.zeros_like(base)
        expected[1, 1:6] = wanted[0]
        if _differ((got_base,), (expected,)):
            yield f"the gradient is wrong where input is a view of a larger tensor ({reduction})"
        if bench.claims("target_gradient"):
            yield from _nonleaf_target(bench, reduction)
        result = bench.loss(x, y, reduction)
        passed_on: Any = _PassesNothingOn.apply
        (got_x,) = torch.autograd.grad(passed_on(result).sum() + x.sum(), x)
        if not torch.equal(got_x, torch.ones_like(got_x)):
            yield f"where no gradient comes from above there is one of input ({reduction})"


class _PassesNothingOn(torch.autograd.Function):
    """Its backward has None for what it was applied to."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor) -> torch.Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> None:
        return None


def _nonleaf_target(bench: Bench, reduction: str) -> Messages:
    x, leaf = bench.tensor((5,), 1), bench.tensor((7,), 2).clone().requires_grad_()
    for text, y in (("2·y", 2 * leaf), ("a view", leaf[1:6])):
        seen = y if text == "a view" else y[:5]
        (wanted,) = _gradients(bench, x, seen.detach().requires_grad_(), reduction)
        result = bench.loss(x, seen, reduction)
        if not result.requires_grad:
            yield f"the result cannot be trained through where target is {text} ({reduction})"
            continue
        (got,) = torch.autograd.grad(result, leaf, torch.ones_like(result))
        expected = torch.zeros_like(got)
        expected[1:6] = wanted
        if text == "2·y":
            expected = torch.cat([2 * wanted, torch.zeros_like(wanted[:2])])
        if not close(got, expected):
            yield f"the gradient is wrong where target is {text} ({reduction})"


@experiment("autograd.interleaved")
def _interleaved(bench: Bench) -> Messages:
    """Three graphs alive at once; backward in another order than forward.

    On equal shapes, then of other sizes and reductions, then broadcast. Then many graphs.
    """
    others = itertools.cycle(bench.reductions)
    same = [_operands(bench, 10 * k) for k in range(3)]
    for reduction in bench.reductions:
        yield from _alive(bench, same, (reduction,) * 3)
    unequal = [_operands(bench, 10 * k, n) for k, n in enumerate((5, 4, 7))]
    yield from _alive(bench, unequal, (next(others), next(others), next(others)))
    if bench.claims("broadcast"):
        rows = [(x, bench.tensor((2 + 3 * k, 5), 10 * k + 1)) for k, (x, _) in enumerate(same)]
        for reduction in bench.reductions:
            yield from _alive(bench, rows, (reduction,) * 3)
    for graphs, reduction in shared_out(bench, (GRAPHS,)):
        yield from _many_alive(bench, graphs, reduction)


def _alive(bench: Bench, pairs: Sequence[Tensors], reductions: Sequence[str]) -> Messages:
    calls = list(zip(pairs, reductions, strict=True))
    wanted = [_gradients(bench, x, y, reduction) for (x, y), reduction in calls]
    results = [bench.loss(x, y, reduction) for (x, y), reduction in calls]
    for k in (1, 0, 2):
        name = _differ(gradients(results[k], *pairs[k]), wanted[k])
        if name:
            text = f"with three graphs alive the gradient of {name} is another's"
            yield f"{text} ({reductions[k]})"


def _many_alive(bench: Bench, graphs: int, reduction: str) -> Messages:
    """A ring or a table has so many places; what the first graph needs is kept in none of them."""
    (x, y), others = _operands(bench), _operands(bench, 10, 3)
    wanted = _gradients(bench, x, y, reduction)
    first = bench.loss(x, y, reduction)
    alive = [bench.loss(others[0], others[1], reduction) for _ in range(graphs)]
    name = _differ(gradients(first, x, y), wanted)
    if name:
        yield f"with {len(alive)} graphs alive the gradient of {name} is another's ({reduction})"


@experiment("autograd.anomaly")
def _anomaly(bench: Bench) -> Messages:
    """Equal and unequal elements, since a masked NaN is most likely where d is 0."""
    for reduction in bench.reductions:
        x, y = _operands(bench)
        with torch.no_grad():
            y[:2] = x[:2]
        wanted = _gradients(bench, x, y, reduction)
        with torch.autograd.detect_anomaly(check_nan=True):
            got = gradients(bench.loss(x, y, reduction), x, y)
        name = _differ(got, wanted)
        if name:
            yield f"in anomaly mode the gradient of {name} is another one ({reduction})"


# -- derivatives against the reference ---------------------------------------------------------


@experiment("autograd.double_backward")
def _double_backward(bench: Bench) -> Messages:
    empty: list[Shapes] = [((0, 3), (0, 3))] if bench.claims("empty") else []
    names = ("input", "target") if bench.claims("target_gradient") else ("input",)
    for reduction in bench.reductions:
        for shapes in (*_shapes(bench), *empty):
            yield from _second(bench, reduction, shapes, "operands", names)
        for name in names:  # alone, and after a backward that makes no graph
            yield from _second(bench, reduction, ((2, 3), (2, 3)), "operands", (name,), again=True)
        if bench.dtype == "float16" and reduction == "mean":  # n is no number of the dtype
            yield from _second(bench, reduction, ((257, 256),) * 2, "operands", names[:1])
        yield from _grad_output_changed(bench, reduction)
        if reduction == "none":
            yield from _second_beside_nan(bench)
        yield from _of_alias(bench, reduction)
        if bench.claims("target_gradient"):
            yield from _of_itself(bench, reduction)
        for kinds in two_dtypes(bench):
            yield from _second_of_two_dtypes(bench, kinds, reduction, names)
    for shapes, reduction in shared_out(bench, (MANY,)):
        yield from _second(bench, reduction, shapes, "operands", names[:1])


@experiment("autograd.grad_output_derivative")
def _grad_output_derivative(bench: Bench) -> Messages:
    names = ("input", "target") if bench.claims("target_gradient") else ("input",)
    for reduction in bench.reductions:
        for shapes in _shapes(bench):
            yield from _second(bench, reduction, shapes, "grad_output", names)
        for value in (1.0, 0.0):  # which some do not multiply with
            yield from _second(
                bench, reduction, ((2, 3), (2, 3)), "grad_output", names, constant=value
            )
        if reduction == "none":
            yield from _by_expanded(bench)


def _by_expanded(bench: Bench) -> Messages:
    """``grad_output`` is one number, expanded, as ``sum()`` makes it."""
    x, y = _values(bench, ((2, 3), (2, 3)))
    w = eighths(bench, x.shape, 4)
    leaf, half = bench.made(x, needs=True), bench.made(np.asarray(0.5), needs=True)
    result = bench.loss(leaf, bench.made(y), "none")
    g = half.expand(x.shape)
    (gradient,) = torch.autograd.grad(result, leaf, g, create_graph=True)
    (got,) = torch.autograd.grad(gradient, g, bench.made(w), allow_unused=True)
    exact = mse.jvp(x - y, w, "none")
    what = "∂/∂grad_output, which is expanded, of the gradient of input (none)"
    yield from deviation(bench, what, got, exact, abs(exact))


def _grad_output_changed(bench: Bench, reduction: str) -> Messages:
    """In place, between the gradient and its derivative: that raises or is right."""
    x, y = _values(bench, ((2, 3), (2, 3)))
    g = eighths(bench, x.shape if reduction == "none" else (), 3)
    w = eighths(bench, x.shape, 4)
    leaf, grad_output = bench.made(x, needs=True), bench.made(g)
    result = bench.loss(leaf, bench.made(y), reduction)
    (gradient,) = torch.autograd.grad(result, leaf, grad_output, create_graph=True)
    grad_output.mul_(3)
    try:
        (second,) = torch.autograd.grad(gradient, leaf, bench.made(w))
    except RuntimeError:
        return
    exact = np.broadcast_to(mse.second_vjp(x - y, g, w, reduction)[0], x.shape)
    text = f"after grad_output.mul_(3) the second derivative ({reduction})"
    yield from deviation(bench, text, second, exact, abs(exact), x.size)


def _second_beside_nan(bench: Bench) -> Messages:
    """A grad_output that is NaN somewhere: so is the second derivative, there alone."""
    x, y = _values(bench, ((2, 3), (2, 3)))
    g = eighths(bench, (2, 3), 3)
    g[1, 1] = np.nan
    leaf = bench.made(x, needs=True)
    result = bench.loss(leaf, bench.made(y), "none")
    (gradient,) = torch.autograd.grad(result, leaf, bench.made(g), create_graph=True)
    (second,) = torch.autograd.grad(gradient, leaf, torch.ones_like(gradient))
    if not np.array_equal(np.isnan(to_numpy(second)), np.isnan(g)):
        yield "the second derivative hides that grad_output is NaN, or spreads it (none)"


def _of_alias(bench: Bench, reduction: str) -> Messages:
    """L(x, x.detach()) is 0, and so is its gradient; the second derivative is 2·w/n."""
    values, w = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    x = bench.made(values, needs=True)
    result = bench.loss(x, x.detach(), reduction)
    (gradient,) = torch.autograd.grad(result, x, torch.ones_like(result), create_graph=True)
    text = f"the second derivative of the loss of a tensor and its detached self ({reduction})"
    second = None
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient, x, bench.made(w), allow_unused=True)
    exact = np.broadcast_to(mse.second_vjp(values, np.ones(()), w, reduction)[0], x.shape)
    yield from deviation(bench, text, second, exact, abs(exact))


def _of_itself(bench: Bench, reduction: str) -> Messages:
    """L(x, x) is 0 wherever x is, and so are all of its derivatives: four terms ±2·w/n cancel."""
    values, w = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    x = bench.made(values, needs=True)
    result = bench.loss(x, x, reduction)
    (gradient,) = torch.autograd.grad(result, x, torch.ones_like(result), create_graph=True)
    if not gradient.requires_grad:
        return  # a constant, and 0 by gradient.same_tensor
    (second,) = torch.autograd.grad(gradient, x, bench.made(w), allow_unused=True)
    if second is not None:
        text = f"the second derivative of the loss of a tensor and itself ({reduction})"
        each = mse.second_vjp(values, np.ones(()), abs(w), reduction)[0]
        yield from deviation(bench, text, second, np.zeros(5), 4 * each)


def _second_of_two_dtypes(
    bench: Bench, kinds: tuple[str, str], reduction: str, names: tuple[str, ...]
) -> Messages:
    """∂/∂operands of each gradient, to the accuracy of the narrower dtype."""
    x, y = _values(bench, ((2, 3), (2, 3)))
    rough = narrower(bench, kinds)
    w = eighths(bench, x.shape, 4)
    places = [k for k, name in enumerate(("input", "target")) if name in names]
    for k, name in zip(places, names, strict=True):
        leaves = [
            replace(bench, dtype=kind).made(v, needs=j in places)
            for j, (v, kind) in enumerate(zip((x, y), kinds, strict=True))
        ]
        result = bench.loss(leaves[0], leaves[1], reduction)
        (gradient,) = torch.autograd.grad(
            result, leaves[k], torch.ones_like(result), create_graph=True
        )
        text = f"the gradient of {name}, operands {kinds[0]} and {kinds[1]} ({reduction})"
        if not gradient.requires_grad:
            yield f"{text} is detached: it has no second derivative"
            return
        along = torch.tensor(w, dtype=gradient.dtype, device=bench.device)
        over = [leaves[j] for j in places]
        found = torch.autograd.grad(gradient, over, along, allow_unused=True)
        exact = mse.second_vjp(x - y, np.ones(()), -w if k else w, reduction)[0]
        exact = np.broadcast_to(exact, x.shape)
        for j, operand, got in zip(places, names, found, strict=False):
            what = f"∂/∂{operand} of {text}"
            if got is None or got.dtype != leaves[j].dtype:
                yield f"{what} is {brief(got)}"
                return
            seen = got.to(getattr(torch, rough.dtype))
            yield from deviation(rough, what, seen, -exact if j else exact, abs(exact))


def _shapes(bench: Bench) -> list[Shapes]:
    """Few elements; many, in another order in memory (:func:`_laid`); more; broadcast."""
    plain: list[Shapes] = [((2, 3),) * 2, ((), ()), ((5, 3, 7),) * 2, ((2050,), (2050,))]
    return [*plain, ((2, 1), (3,)), ((3,), (2, 3))] if bench.claims("broadcast") else plain


def _values(bench: Bench, shapes: Shapes) -> tuple[Floats, Floats]:
    """Operands with equal elements among them: there a second derivative is wrong most easily."""
    x, y = eighths(bench, shapes[0], 1), eighths(bench, shapes[1], 2)
    if shapes[0] == shapes[1] and y.size > 1:
        y.flat[0] = x.flat[0]
    return x, y


def _laid(bench: Bench, values: Floats, *, needs: bool = False) -> torch.Tensor:
    """A tensor with these values; one of three dimensions has the last one outermost in memory."""
    if values.ndim < 3:
        return bench.made(values, needs=needs)
    moved = bench.made(values).movedim(-1, 0).contiguous()
    return moved.movedim(0, -1).requires_grad_(needs)


def _second(
    bench: Bench,
    reduction: str,
    shapes: Shapes,
    wanted: str,
    names: tuple[str, ...],
    *,
    constant: float | None = None,
    again: bool = False,
) -> Messages:
    """Differentiate the gradients of those that need one, each along a random cotangent.

    ``constant``: all of grad_output. ``again``: the graph has served a backward before.
    """
    x, y = _values(bench, shapes)
    d = x - y
    g = eighths(bench, d.shape if reduction == "none" else (), 3)
    g = g if constant is None else np.full_like(g, constant)
    places = [k for k, name in enumerate(("input", "target")) if name in names]
    for k, name in zip(places, names, strict=True):
        leaves = _laid(bench, x, needs=0 in places), _laid(bench, y, needs=1 in places)
        grad_output = _laid(bench, g, needs=True)
        w = eighths(bench, shapes[k], 4 + k)
        result = bench.loss(*leaves, reduction)
        if again:
            torch.autograd.grad(result, leaves[k], grad_output.detach(), retain_graph=True)
        (gradient,) = torch.autograd.grad(result, leaves[k], grad_output, create_graph=True)
        if not gradient.requires_grad:
            yield f"the gradient of {name} is detached: it has no second derivative ({reduction})"
            return
        over = [*(leaves[j] for j in places), grad_output]
        second = torch.autograd.grad(gradient, over, _laid(bench, w), allow_unused=True)
        sign = -1 if k else 1
        spread = np.broadcast_to(w, d.shape)
        exact = mse.second_vjp(d, g, sign * spread, reduction)
        bound = mse.second_vjp(_magnitude(x, y), abs(g), abs(spread), reduction)
        if wanted == "grad_output":
            text = f"∂/∂grad_output of the gradient of {name} ({reduction})"
            yield from deviation(bench, text, second[-1], exact[1], bound[1], d.size)
            continue
        for j, operand, got in zip(places, names, second, strict=False):
            value = mse.unbroadcast((-1 if j else 1) * exact[0], shapes[j])
            size = mse.unbroadcast(bound[0], shapes[j])
            text = f"∂/∂{operand} of the gradient of {name} ({reduction}, {shapes})"
            yield from deviation(bench, text, got, value, size, d.size)


def _magnitude(x: Floats, y: Floats) -> Floats:
    """|d|: exact in every format, as the elements are multiples of 1/8."""
    return np.asarray(abs(x - y))


@experiment("autograd.composed")
def _composed(bench: Bench) -> Messages:
    """Second derivatives where grad_output and the operands depend on what is differentiated."""
    x, y = _values(bench, ((5,), (5,)))
    w = eighths(bench, (5,), 6)
    for reduction in bench.reductions:
        yield from _loss_squared(bench, reduction, x, y, w)
        yield from _of_square(bench, reduction, x / 2, y, w, "input")
        if bench.claims("target_gradient"):
            yield from _of_square(bench, reduction, x / 2, y, w, "target")


def _loss_squared(bench: Bench, reduction: str, x: Floats, y: Floats, w: Floats) -> Messages:
    """The Hessian of Σ L² times w is 2·B(d, t) + B(w, 2·L), with B(a, b) the vjp and t its jvp."""

    def hessian_product(d: Floats, w: Floats) -> Floats:
        value = mse.loss(d, np.zeros_like(d), reduction)
        tangent = mse.jvp(d, w, reduction)
        through = mse.second_vjp(d, 2 * tangent, d, reduction)[0]  # 2·t·∂L/∂x
        return np.asarray(through + mse.second_vjp(d, 2 * value, w, reduction)[0])

    a, b = bench.made(x, needs=True), bench.made(y)
    total = bench.loss(a, b, reduction).square().sum()
    (gradient,) = torch.autograd.grad(total, a, create_graph=True)
    (got,) = torch.autograd.grad(gradient, a, bench.made(w), allow_unused=True)
    text = f"the second derivative of Σ L² along a vector ({reduction})"
    d = x - y
    exact, bound = hessian_product(d, w), hessian_product(abs(d), abs(w))
    yield from deviation(bench, text, got, exact, 2 * bound, d.size)


def _of_square(
    bench: Bench, reduction: str, x: Floats, y: Floats, w: Floats, operand: str
) -> Messages:
    """The Hessian of Σ L(x², y), or of Σ L(y, x²), times w is (8x² + 4(x² − y))·w, over n.

    The derivative of that, times w again, is 24·x·w². Some may stop there, and raise.
    """
    n = x.size if reduction == "mean" else 1
    a, b = bench.made(x, needs=True), bench.made(y)
    operands = (a.square(), b) if operand == "input" else (b, a.square())
    total = bench.loss(operands[0], operands[1], reduction).sum()
    (gradient,) = torch.autograd.grad(total, a, create_graph=True)
    (got,) = torch.autograd.grad(gradient, a, bench.made(w), create_graph=True, allow_unused=True)
    exact = (8 * x * x + 4 * (x * x - y)) * w / n
    bound = (12 * x * x + 4 * abs(y)) * abs(w) / n
    text = f"derivative by x, where {operand} is x², along a vector ({reduction})"
    yield from deviation(bench, f"the second {text}", got, exact, bound, x.size)
    try:
        (third,) = torch.autograd.grad(got, a, bench.made(w))
    except RuntimeError:
        return  # that there is no third derivative is said
    exact = 24 * x * w * w / n
    yield from deviation(bench, f"the third {text}", third, exact, abs(exact), x.size)


@experiment("autograd.forward")
def _forward(bench: Bench) -> Messages:
    """Tangents of input, of target and of both, in forward mode."""
    empty: list[Shapes] = [((0, 3), (0, 3))] if bench.claims("empty") else []
    for reduction in bench.reductions:
        for shapes in (*_shapes(bench), *empty):
            x, y = _values(bench, shapes)
            tangents = eighths(bench, shapes[0], 4), eighths(bench, shapes[1], 5)
            every = ((True, False), (False, True), (True, True))
            for along in every if bench.claims("target_gradient") else every[:1]:
                yield from _tangent(bench, reduction, (x, y), tangents, along)
        yield from _extreme_tangents(bench, reduction)
        yield from _tangents_kept(bench, reduction)
        for kinds in two_dtypes(bench):
            yield from _tangent_of_two_dtypes(bench, kinds, reduction)
    totals = [reduction for reduction in ("sum", "mean") if reduction in bench.reductions]
    if bench.dtype in WIDER and totals:
        yield from _tangent_of_many(bench, totals[0])


def _tangent_of_many(bench: Bench, reduction: str) -> Messages:
    """Halves have no range for the sum of so many."""
    x = np.full(DRIFTING, to_numpy(torch.tensor(0.1, dtype=getattr(torch, bench.dtype))))
    many, zero = (x, np.zeros_like(x)), np.zeros_like(x)
    yield from _tangent(bench, reduction, many, (x, zero), (True, False))


def _tangent_of_two_dtypes(bench: Bench, kinds: tuple[str, str], reduction: str) -> Messages:
    """In the wider dtype, to the accuracy of the narrower, which the builtin computes it in."""
    rough = narrower(bench, kinds)
    values = _values(bench, ((2, 3), (2, 3)))
    tangents = eighths(bench, (2, 3), 4), eighths(bench, (2, 3), 5)
    benches = [replace(bench, dtype=kind) for kind in kinds]
    forward: Any = fwad  # untyped in torch
    for k, name in enumerate(("input", "target")):
        if name == "target" and not bench.claims("target_gradient"):
            continue
        with forward.dual_level():
            x, y = (b.made(v) for b, v in zip(benches, values, strict=True))
            along = benches[k].made(tangents[k])
            duals = (forward.make_dual(x, along), y) if not k else (x, forward.make_dual(y, along))
            got = forward.unpack_dual(bench.loss(duals[0], duals[1], reduction)).tangent
        d, t = values[0] - values[1], (-1) ** k * tangents[k]
        text = f"the tangent along {name}, operands {kinds[0]} and {kinds[1]} ({reduction})"
        exact = np.asarray(mse.jvp(d, t, reduction))
        bound = np.asarray(mse.jvp(abs(d), abs(t), reduction))
        if got is None or got.dtype != getattr(torch, bench.dtype):
            yield f"{text} is {brief(got)}"
            return
        yield from deviation(rough, text, got.to(getattr(torch, rough.dtype)), exact, bound, d.size)


def _tangents_kept(bench: Bench, reduction: str) -> Messages:
    """The tangents are the caller's, as the operands are."""
    x, y, *tangents = (bench.made(eighths(bench, (5,), k)) for k in range(4))
    kept = [t.clone() for t in tangents]
    forward: Any = fwad  # untyped in torch
    with forward.dual_level():
        a, b = forward.make_dual(x, tangents[0]), forward.make_dual(y, tangents[1])
        bench.loss(a, b if bench.claims("target_gradient") else y, reduction)
    if not all(map(torch.equal, tangents, kept)):
        yield f"a call wrote to the tangents of its operands ({reduction})"


def _extreme_tangents(bench: Bench, reduction: str) -> Messages:
    """A sum beyond float16, of which the mean is not; one element that is not a number."""
    along, zero = (True, False), np.zeros(5000)
    # Where the value overflows as well, that says so already.
    if (
        reduction == "mean"
        and bench.loss(bench.made(zero + 8), bench.made(zero), "mean").isfinite()
    ):
        yield from _tangent(bench, reduction, (zero + 8, zero), (zero + 1, zero), along)
    x, t = eighths(bench, (5,), 1), eighths(bench, (5,), 4)
    x[2] = np.nan
    got = _tangent_of(bench, reduction, (x, zero[:5]), (t, zero[:5]), along)
    hidden = np.isnan(mse.jvp(x, t, reduction))
    if got is None or not np.array_equal(np.isnan(to_numpy(got)), hidden):
        yield f"the tangent hides that an element of input is NaN ({reduction})"


def _tangent(
    bench: Bench,
    reduction: str,
    values: tuple[Floats, Floats],
    tangents: tuple[Floats, Floats],
    along: tuple[bool, bool],
) -> Messages:
    x, y = values
    d = x - y
    t_x, t_y = (t if used else np.zeros_like(t) for t, used in zip(tangents, along, strict=True))
    got = _tangent_of(bench, reduction, values, tangents, along)
    names = " and ".join(n for n, used in zip(("input", "target"), along, strict=True) if used)
    what = f"the tangent along {names} ({reduction}, {x.shape} and {y.shape})"
    if got is None:
        yield f"{what} is missing"
        return
    if not d.size and reduction == "mean":  # NaN or 0: 0/0 is either here
        got = got.nan_to_num(0)
    exact = np.asarray(mse.jvp(d, t_x - t_y, reduction))
    bound = np.asarray(mse.jvp(abs(d), abs(t_x) + abs(t_y), reduction))
    yield from deviation(bench, what, got, exact, bound, d.size)


def _tangent_of(
    bench: Bench,
    reduction: str,
    values: tuple[Floats, Floats],
    tangents: tuple[Floats, Floats],
    along: tuple[bool, bool],
) -> torch.Tensor | None:
    forward: Any = fwad  # untyped in torch
    with forward.dual_level():
        duals = [
            forward.make_dual(_laid(bench, v), _laid(bench, t)) if used else _laid(bench, v)
            for v, t, used in zip(values, tangents, along, strict=True)
        ]
        result = bench.loss(duals[0], duals[1], reduction)
        found: torch.Tensor | None = forward.unpack_dual(result).tangent
    return found
