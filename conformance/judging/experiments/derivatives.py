"""Experiments on second and third derivatives, which are compared with the reference's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from conformance.judging.experiments.bench import (
    LARGE,
    Bench,
    Messages,
    brief,
    deviation,
    eighths,
    experiment,
    narrower,
    shared_out,
    two_dtypes,
)
from conformance.judging.seen import Seen
from reference.formats import Floats, round_nearest
from reference.reductions import unbroadcast

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
NAMES = ("input", "target")
SMALL: Shapes = ((2, 3), (2, 3))
MANY: Shapes = ((LARGE,), (LARGE,))


def differentiable(bench: Bench) -> tuple[str, ...]:
    """Of the operands that may need a gradient."""
    return NAMES if bench.claims("target_gradient") else NAMES[:1]


def shapes_tried(bench: Bench, *, empty: bool = False) -> list[Shapes]:
    """Few elements; many, in another order in memory (three dimensions are); more; broadcast."""
    plain: list[Shapes] = [SMALL, ((), ()), ((5, 3, 7),) * 2, ((2050,), (2050,))]
    stretched: list[Shapes] = [((2, 1), (3,)), ((3,), (2, 3))]
    none: list[Shapes] = [((0, 3), (0, 3))] * (empty and bench.claims("empty"))
    every = [*plain, *stretched * bench.claims("broadcast"), *none]
    return [shapes for shapes in every if bench.inside(*shapes)]


def values_tried(bench: Bench, shapes: Shapes) -> tuple[Floats, Floats]:
    """Operands with equal elements among them: there a second derivative is wrong most easily."""
    x, y = eighths(bench, shapes[0], 1), eighths(bench, shapes[1], 2)
    if shapes[0] == shapes[1] and y.size > 1:
        y.flat[0] = x.flat[0]
    return x, y


def rounded(seen: Seen, rough: Bench) -> Seen:
    """The same in a narrower dtype."""
    return Seen(round_nearest(seen.values, rough.fmt), rough.dtype, seen.device)


@experiment("autograd.double_backward")
def _double_backward(bench: Bench) -> Messages:
    names = differentiable(bench)
    for reduction in bench.reductions:
        for shapes in shapes_tried(bench, empty=True):
            yield from _second(bench, reduction, shapes, "operands", names)
        for name in names:  # alone, and after a backward that makes no graph
            yield from _second(bench, reduction, SMALL, "operands", (name,), again=True)
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
    names = differentiable(bench)
    for reduction in bench.reductions:
        for shapes in shapes_tried(bench):
            yield from _second(bench, reduction, shapes, "grad_output", names)
        for value in (1.0, 0.0):  # which some do not multiply with
            yield from _second(bench, reduction, SMALL, "grad_output", names, constant=value)
        if reduction == "none":
            yield from _by_expanded(bench)


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
    x, y = values_tried(bench, shapes)
    d = x - y
    g = bench.plain(bench.result_shape(d.shape, reduction), 3)
    g = g if constant is None else np.full_like(g, constant)
    a, b = (bench.made(v, needs=n in names) for v, n in zip((x, y), NAMES, strict=True))
    for name in names:
        k = NAMES.index(name)
        w = eighths(bench, shapes[k], 4 + k)
        found = bench.ask(
            "derivatives.second",
            **{"x": a, "y": b, "g": bench.grad_output(g).leaf(), "w": bench.made(w)},
            **{"reduction": reduction, "of": k, "again": again},
        )
        if found["second"] is None:
            yield f"the gradient of {name} is detached: it has no second derivative ({reduction})"
            return
        second = found.items_of("second")
        sign = -1 if k else 1
        spread = np.broadcast_to(w, d.shape)
        exact = bench.formula.second_vjp(d, g, sign * spread, reduction)
        bound = bench.formula.second_vjp_size(d, g, spread, reduction)
        if wanted == "grad_output":
            text = f"∂/∂grad_output of the gradient of {name} ({reduction})"
            yield from deviation(bench, text, second[wanted], exact[1], bound[1], d.size, True)
            continue
        for operand in names:
            j = NAMES.index(operand)
            value = unbroadcast((-1 if j else 1) * exact[0], shapes[j])
            size = unbroadcast(bound[0], shapes[j])
            text = f"∂/∂{operand} of the gradient of {name} ({reduction}, {shapes})"
            yield from deviation(bench, text, second[operand], value, size, d.size)


def _by_expanded(bench: Bench) -> Messages:
    """``grad_output`` is one number, expanded, as ``sum()`` makes it."""
    x, y = values_tried(bench, SMALL)
    w = eighths(bench, x.shape, 4)
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y), "w": bench.made(w)}
    half = bench.made(np.asarray(0.5), needs=True)
    seen = bench.ask("derivatives.by_expanded", **operands, half=half, reduction="none")
    exact = bench.formula.jvp(x - y, w, "none")
    what = "∂/∂grad_output, which is expanded, of the gradient of input (none)"
    yield from deviation(bench, what, seen["second"], exact, abs(exact))


def _grad_output_changed(bench: Bench, reduction: str) -> Messages:
    """In place, between the gradient and its derivative: that raises or is right."""
    x, y = values_tried(bench, SMALL)
    g = bench.plain(bench.result_shape(x.shape, reduction), 3)
    w = eighths(bench, x.shape, 4)
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y)}
    along = {"g": bench.grad_output(g), "w": bench.made(w)}
    seen = bench.ask("derivatives.grad_output_changed", **operands, **along, reduction=reduction)
    if seen["second"] is None:
        return
    exact = bench.formula.second_vjp(x - y, g, w, reduction)[0]
    bound = bench.formula.second_vjp_size(x - y, g, w, reduction)[0]
    text = f"after grad_output.mul_(3) the second derivative ({reduction})"
    yield from deviation(bench, text, seen["second"], exact, bound, x.size)


def _second_beside_nan(bench: Bench) -> Messages:
    """A grad_output that is NaN somewhere: so is the second derivative, there alone."""
    x, y = values_tried(bench, SMALL)
    g = eighths(bench, (2, 3), 3)
    g[1, 1] = np.nan
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y)}
    shaped = g.reshape(bench.result_shape(g.shape, "none"))
    along = {"g": bench.grad_output(shaped), "w": bench.made(np.ones((2, 3)))}
    seen = bench.ask("derivatives.second", **operands, **along, reduction="none")
    second = seen.items_of("second").tensor("input")
    curved = bench.formula.second_vjp(x - y, 1.0, 1.0, "none")[0] != 0
    if not np.array_equal(np.isnan(second.values)[curved], np.isnan(g)[curved]):
        yield "the second derivative hides that grad_output is NaN, or spreads it (none)"


def _of_alias(bench: Bench, reduction: str) -> Messages:
    """L(x, x.detach()) is 0, and so is its gradient; the second derivative is ℓ″(0)·w/n."""
    values, w = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    x = bench.made(values, needs=True)
    settings = {"reduction": reduction, "detached": True}
    seen = bench.ask("derivatives.second_of_alias", x=x, w=bench.made(w), **settings)
    text = f"the second derivative of the loss of a tensor and its detached self ({reduction})"
    exact = bench.formula.second_vjp(0 * values, 1.0, w, reduction)[0]
    bound = bench.formula.second_vjp_size(0 * values, 1.0, w, reduction)[0]
    yield from deviation(bench, text, seen["second"], exact, bound)


def _of_itself(bench: Bench, reduction: str) -> Messages:
    """L(x, x) is 0 wherever x is, and so are all of its derivatives: four terms ±ℓ″(0)·w/n cancel.

    None where the gradient is a constant, and 0 by gradient.same_tensor, or does not depend on x.
    """
    values, w = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    x = bench.made(values, needs=True)
    settings = {"reduction": reduction, "detached": False}
    seen = bench.ask("derivatives.second_of_alias", x=x, w=bench.made(w), **settings)
    if seen["second"] is not None:
        text = f"the second derivative of the loss of a tensor and itself ({reduction})"
        each = bench.formula.second_vjp_size(0 * values, 1.0, w, reduction)[0]
        yield from deviation(bench, text, seen["second"], np.zeros(5), 4 * each)


def _second_of_two_dtypes(
    bench: Bench, kinds: tuple[str, str], reduction: str, names: tuple[str, ...]
) -> Messages:
    """∂/∂operands of each gradient, to the accuracy of the narrower dtype."""
    values = values_tried(bench, SMALL)
    rough = narrower(bench, kinds)
    w = eighths(bench, (2, 3), 4)
    operands = [
        replace(bench, dtype=kind).made(v, needs=name in names)
        for v, kind, name in zip(values, kinds, NAMES, strict=True)
    ]
    for name in names:
        k = NAMES.index(name)
        text = f"the gradient of {name}, operands {kinds[0]} and {kinds[1]} ({reduction})"
        found = bench.ask(
            "derivatives.second",
            **{"x": operands[0], "y": operands[1], "w": bench.made(w)},
            **{"reduction": reduction, "of": k},
        )
        if found["second"] is None:
            yield f"{text} is detached: it has no second derivative"
            return
        d = values[0] - values[1]
        exact = bench.formula.second_vjp(d, 1.0, -w if k else w, reduction)[0]
        bound = bench.formula.second_vjp_size(d, 1.0, w, reduction)[0]
        for operand in names:
            j = NAMES.index(operand)
            what = f"∂/∂{operand} of {text}"
            got = found.items_of("second")[operand]
            if not isinstance(got, Seen) or got.dtype != kinds[j]:
                yield f"{what} is {brief(got)}"
                return
            seen = rounded(got, rough)
            yield from deviation(rough, what, seen, -exact if j else exact, bound)


@experiment("autograd.composed")
def _composed(bench: Bench) -> Messages:
    """Second derivatives where grad_output and the operands depend on what is differentiated."""
    x, y = values_tried(bench, ((5,), (5,)))
    w = eighths(bench, (5,), 6)
    for reduction in bench.reductions:
        yield from _loss_squared(bench, reduction, x, y, w)
        for operand in differentiable(bench):
            yield from _of_square(bench, reduction, x / 2, y, w, operand)


def _loss_squared(bench: Bench, reduction: str, x: Floats, y: Floats, w: Floats) -> Messages:
    """The Hessian of Σ L² times w is 2·t·∂L/∂x + 2·L·∂²L/∂x²·w, with t the jvp along w."""
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y), "w": bench.made(w)}
    seen = bench.ask("derivatives.second_of_squared_loss", **operands, reduction=reduction)
    text = f"the second derivative of Σ L² along a vector ({reduction})"
    d, f = x - y, bench.formula
    value, tangent = f.value(d, reduction), f.jvp(d, w, reduction)
    exact = f.vjp(d, 2 * tangent, reduction) + f.second_vjp(d, 2 * value, w, reduction)[0]
    value, tangent = f.size(d, reduction), f.jvp_size(d, w, reduction)
    bound = f.vjp_size(d, 2 * tangent, reduction) + f.second_vjp_size(d, 2 * value, w, reduction)[0]
    yield from deviation(bench, text, seen["second"], exact, 2 * bound, d.size)


def _of_square(
    bench: Bench, reduction: str, x: Floats, y: Floats, w: Floats, operand: str
) -> Messages:
    """The Hessian of Σ L(x², y), or of Σ L(y, x²), times w is (4x²·ℓ″ + 2·ℓ′)·w, over n.

    The derivative of that, times w again, is 12·x·ℓ″·w². Some may stop there, and raise.
    """
    d, f = x * x - y, bench.formula
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y), "w": bench.made(w)}
    settings = {"reduction": reduction, "operand": NAMES.index(operand)}
    seen = bench.ask("derivatives.third_through_square", **operands, **settings)
    exact = f.second_vjp(d, 4 * x * x, w, reduction)[0] + f.vjp(d, 2 * w, reduction)
    bound = f.second_vjp_size(d, 4 * x * x, w, reduction)[0] + f.vjp_size(
        x * x + abs(y), 2 * w, reduction
    )
    text = f"derivative by x, where {operand} is x², along a vector ({reduction})"
    yield from deviation(bench, f"the second {text}", seen["second"], exact, bound, x.size)
    if seen["third"] is None:
        return  # that there is no third derivative is said
    exact = f.second_vjp(d, 12 * x, w * w, reduction)[0]
    bound = f.second_vjp_size(d, 12 * x, w * w, reduction)[0]
    yield from deviation(bench, f"the third {text}", seen["third"], exact, bound, x.size)
