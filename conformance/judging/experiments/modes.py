"""Experiments on modes: autocast, compilation, export, tensors without data, deterministic mode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.cases.case import promote
from conformance.cases.values import FORMAT_OF
from conformance.judging.evidence import BadEvidence, Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    Shape,
    brief,
    close,
    deviation,
    deviation_of_loss,
    experiment,
    in_turn,
    shared_out,
    two_dtypes,
)
from conformance.judging.observer import Given, Outside
from conformance.judging.seen import Seen
from reference.formats import round_nearest
from reference.reductions import unbroadcast

Pair = tuple[Given, Given]


@dataclass(frozen=True)
class _Laid:
    """Operands, in words, and how the observer is to lay them out."""

    text: str
    x: Given
    y: Given
    layouts: tuple[str, str] = ("contiguous", "contiguous")

    def ask(self, bench: Bench, protocol: str, reduction: str) -> Evidence:
        settings = {"layouts": self.layouts, "reduction": reduction}
        return bench.ask(protocol, x=self.x, y=self.y, **settings)

    def forms(self) -> list[tuple[Shape, str, str]]:
        """Of each operand what there is but for its elements."""
        pair = zip((self.x, self.y), self.layouts, strict=True)
        return [(t.shape, t.dtype, layout) for t, layout in pair]


def _leaves(bench: Bench, x: Given, y: Given) -> Pair:
    """Which need a gradient: the target where it may."""
    return x.leaf(), y.leaf(bench.claims("target_gradient"))


def _operands(bench: Bench, *shape: int) -> Pair:
    return _leaves(bench, bench.tensor(shape, 1), bench.tensor(shape, 2))


def _outcome(found: Evidence, *operands: Given) -> list[Any]:
    """The result, and a gradient for each operand that needs one."""
    outcome = [found["result"], *found.listed("gradients")]
    if len(outcome) != 1 + sum(t.needs for t in operands):
        raise BadEvidence("the observer's answer has another number of gradients")
    return outcome


def _agree(found: Evidence, one: str, other: str, *operands: Given) -> list[bool]:
    """Whether the result of one outcome is that of the other, and each gradient."""
    first, second = (_outcome(found.items_of(name), *operands) for name in (one, other))
    return list(map(close, first, second))


@experiment("transforms.deterministic_mode")
def _deterministic_mode(bench: Bench) -> Messages:
    """``use_deterministic_algorithms(True)``: poison for what a kernel forgets to write, too."""
    pairs = [_Laid("", *_operands(bench, 5)), *_other_operands(bench)]
    for reduction, pair in itertools.product(bench.reductions, pairs):
        found = pair.ask(bench, "modes.deterministic", reduction)
        if not all(_agree(found, "in_mode", "plainly", pair.x, pair.y)):
            yield f"in deterministic mode the result or a gradient is another one ({reduction})"


@experiment("transforms.default_device")
def _default_device(bench: Bench) -> Messages:
    """The meta device, which every build has: a constant that is made there has no number."""
    x, y = _operands(bench, 5)
    for reduction in bench.reductions:
        found = bench.ask("modes.default_device", x=x, y=y, reduction=reduction)
        device = found.text("device")
        if device != found.text("own"):
            yield f"with meta as the default device the result is on {device}"
        elif not all(_agree(found, "in_mode", "plainly", x, y)):
            yield f"with meta as the default device result or gradient is another ({reduction})"


# -- autocast ----------------------------------------------------------------------------------

AUTOCAST = {"cpu": ("bfloat16", "float16"), "cuda": ("float16", "bfloat16")}


@experiment("transforms.autocast")
def _autocast(bench: Bench) -> Messages:
    """Right in float32, which the builtin casts halves to, or in the operands' own dtype.

    A float32 result may have been rounded to the operands' dtype on the way: on CUDA autocast
    widens halves for a power and a sum, but not for the difference before it.
    """
    for mode, reduction, (x, y), found in _under_autocast(bench, differentiated=True):
        got, *slopes = _outcome(found, x, y)
        wide = _wide(bench) if found.tensor("result").dtype == _wide(bench) else bench.dtype
        wanted, *wanted_slopes = _cast_loss(bench, x, y, wide, reduction)
        by = bench.coarse if bench.own_dtype else None  # a gradient comes by way of the result
        if not close(got, wanted, bench.dtype):
            yield f"{mode} the result is {brief(got)}, without it {brief(wanted)}"
        elif not all(close(a, b, by) for a, b in zip(slopes, wanted_slopes, strict=True)):
            yield f"{mode} a gradient is not the one without it"


@experiment("transforms.autocast_dtype")
def _autocast_dtype(bench: Bench) -> Messages:
    if bench.own_dtype == "input":
        raise Outside("a result of input's dtype is not made wider")
    wide = _wide(bench)
    for mode, _, _, found in _under_autocast(bench, differentiated=False):
        got = found.tensor("result")
        if got.dtype != wide:
            yield f"{mode} the result is {brief(got)}, not {wide}"


def _under_autocast(
    bench: Bench, *, differentiated: bool
) -> Iterator[tuple[str, str, Pair, Evidence]]:
    """In words, the reduction, the operands and the outcome; for each dtype to which it casts."""
    dtypes = AUTOCAST.get(bench.device.partition(":")[0], ("bfloat16",))
    pairs = [_operands(bench, 5), _operands(bench, 3, 30), *_of_two_dtypes(bench), _with_nan(bench)]
    if bench.claims("broadcast"):
        pairs.append(_of_two_shapes(bench))
    for reduction, (x, y) in itertools.product(bench.reductions, pairs):
        how = {"reduction": reduction, "dtypes": dtypes, "differentiated": differentiated}
        found = bench.ask("modes.autocast", x=x, y=y, **how)
        for dtype in dtypes:
            text = f"under autocast to {dtype} ({x.dtype} and {y.dtype}, {reduction})"
            yield text, reduction, (x, y), found.items_of(dtype)


def _with_nan(bench: Bench) -> Pair:
    x, y = _operands(bench, 4)
    return x.put(1, np.nan), y


def _of_two_shapes(bench: Bench) -> Pair:
    """Every difference is positive: no sum in the gradient cancels, which calls round apart."""
    x, y = abs(bench.tensor((3,), 1).values), -abs(bench.tensor((2, 3), 2).values)
    return _leaves(bench, bench.made(x), bench.made(y))


def _of_two_dtypes(bench: Bench) -> Iterator[Pair]:
    """A model's output in half and a target that is not, and the other way round.

    Where the result has a dtype of its own, nobody says what autocast makes of two.
    """
    if bench.own_dtype:
        return
    for first, second in two_dtypes(bench):
        yield _leaves(bench, bench.tensor((5,), 1, first), bench.tensor((5,), 2, second))


def _wide(bench: Bench) -> str:
    return promote(bench.result_dtype, "float32")


def _cast_loss(bench: Bench, x: Given, y: Given, dtype: str, reduction: str) -> list[Any]:
    """The target's own in that dtype, with its gradients; the reference's where the target does
    not claim it.
    """
    if dtype not in bench.target.dtypes:
        return _reference(bench, x, y, dtype, reduction)
    return _outcome(bench.ask("modes.cast", x=x, y=y, dtype=dtype, reduction=reduction), x, y)


def _reference(bench: Bench, x: Given, y: Given, dtype: str, reduction: str) -> list[Any]:
    """Rounded once, to ``dtype`` and to that of each operand that has a gradient."""
    d = x.values - y.values
    slope = bench.formula.vjp(d, 1.0, reduction)
    exact = [(np.asarray(bench.formula.value(d, reduction)), dtype)]
    for operand, sign in ((x, 1), (y, -1)):
        if operand.needs:
            exact.append((unbroadcast(sign * slope, operand.shape), operand.dtype))
    return [Seen(round_nearest(v, FORMAT_OF[kind]), kind, "") for v, kind in exact]


# -- compilation -------------------------------------------------------------------------------


def _compiled(bench: Bench, backend: str, sizes: tuple[int, ...], dynamic: bool) -> Messages:
    """The compiled loss and its gradient at each size: permitted, and from a compiled graph."""
    x, y = _operands(bench, max(sizes))
    how = {"backend": backend, "sizes": sizes, "dynamic": dynamic}
    for reduction in bench.reductions:
        found = bench.ask("modes.compiled", x=x, y=y, reduction=reduction, **how)
        for k, n in enumerate(sizes):
            a, b = (Given(t.values[:n], t.dtype) for t in (x, y))
            text, seen = f"compiled by {backend} ({reduction}, n = {n})", found.items_of(str(k))
            if seen.number("ran") <= k:
                yield f"{text} the loss ran eagerly"
            got = seen.items_of("compiled")["result"]
            yield from deviation_of_loss(bench, f"{text} the result", got, a, b, reduction)
            if not all(_agree(seen, "compiled", "eager", x, y)[1:]):
                yield f"{text} a gradient is not the one that it has eagerly"
            yield from _goes_on(seen, text)
        if dynamic and (graphs := found.number("graphs")) > 2:
            yield f"{graphs:.0f} graphs were compiled for {len(sizes)} sizes ({reduction})"


@experiment("transforms.compile")
def _compile(bench: Bench) -> Messages:
    yield from _compiled(bench, "aot_eager", (5, 5), dynamic=False)
    every = shared_out(bench, _other_operands(bench)), in_turn(bench, _further_operands(bench))
    for pair, reduction in itertools.chain(*every, _large_halves(bench)):
        found = pair.ask(bench, "modes.compiled_and_eagerly", reduction)
        same, *same_gradients = _agree(found, "compiled", "eager", pair.x, pair.y)
        if not same:
            got, eager = (brief(found.items_of(name)["result"]) for name in ("compiled", "eager"))
            what = f"{got}, and eagerly {eager}"
            yield f"compiled by aot_eager {pair.text} give {what} ({reduction})"
        elif not all(same_gradients):
            text = f"{pair.text} have another gradient than eagerly"
            yield f"compiled by aot_eager {text} ({reduction})"
        yield from _goes_on(found, f"compiled by aot_eager ({reduction}, {pair.text})")


def _goes_on(seen: Evidence, text: str) -> Messages:
    """What follows the loss in its graph trusts the form that was traced of the result."""
    kinds = [seen.items_of(name) for name in ("compiled", "eager")]
    like, eager = (one["like"] for one in kinds)
    if not close(like, eager):
        yield f"{text} the result is traced as {brief(like)}, and eagerly is like {brief(eager)}"
    elif not close(*(one["after"] for one in kinds)):
        yield f"{text} what follows the loss in one graph is not as it is eagerly"


def _large_halves(bench: Bench) -> Iterator[tuple[_Laid, str]]:
    """Whose mean is in float16 and whose sum is not."""
    if bench.dtype == "float16" and "mean" in bench.reductions:
        x, y = bench.made(np.full(100, 100.0), needs=True), bench.made(np.zeros(100))
        yield _Laid("large halves", x, y), "mean"


def _other_operands(bench: Bench) -> Iterator[_Laid]:
    """Not contiguous, without a gradient, and, where that is claimed, of two shapes and dtypes.

    None without elements: aot_eager fails on the builtin's mean of them.
    """
    x, y = bench.tensor((2, 3), 1), bench.tensor((3, 2), 2)
    pair = _leaves(bench, bench.made(x.values.T), y)
    yield _Laid("a transposed input", *pair, ("transposed", "contiguous"))
    x, y = (bench.made(bench.tensor((7,), k).values[::2]) for k in (1, 2))
    yield _Laid("strided operands", *_leaves(bench, x, y), ("strided", "strided"))
    x, y = bench.tensor((2, 3), 1), bench.tensor((2, 3), 2)
    yield _Laid("matrices without a gradient", x, y)
    if bench.claims("broadcast"):
        yield _Laid("sizes (3,) and (2, 3)", *_of_two_shapes(bench))
    for x, y in _of_two_dtypes(bench):
        yield _Laid(f"{x.dtype} and {y.dtype}", x, y)


# Beside those of other looks: the shapes of both, and how they are laid out. Each row has another
# pair of how the shapes go together, of rank, layout and side of the sizes at which kernels change.
_FURTHER: tuple[tuple[Shape, Shape, tuple[str, str]], ...] = (
    ((32, 1), (1, 64), ("contiguous", "strided")),
    ((2, 3), (3,), ("transposed", "contiguous")),
    ((), (4,), ("contiguous", "strided")),
    ((5, 1, 3), (4, 1), ("strided", "transposed")),
    ((1025,), (1025,), ("strided", "contiguous")),
    ((129, 257), (129, 257), ("contiguous", "transposed")),
    ((2**20 + 1,), (2**20 + 1,), ("contiguous", "contiguous")),
)
SMALL = 2.0**-7  # so that no sum of so many squares is beyond float16


def _further_operands(bench: Bench) -> Iterator[_Laid]:
    for first, second, layouts in _FURTHER:
        if first == second or bench.claims("broadcast"):
            x, y = (
                bench.made(bench.tensor(shape, k).values * SMALL)
                for k, shape in ((1, first), (2, second))
            )
            yield _Laid(f"sizes {first} and {second}", *_leaves(bench, x, y), layouts)


@experiment("transforms.compile_dynamic")
def _compile_dynamic(bench: Bench) -> Messages:
    yield from _compiled(bench, "aot_eager", (5, 8, 17), dynamic=True)


@experiment("transforms.inductor")
def _inductor(bench: Bench) -> Messages:
    yield from _compiled(bench, "inductor", (5, 1023), dynamic=False)


@experiment("transforms.export")
def _export(bench: Bench) -> Messages:
    """The exported program, run on other values than it was made with."""
    shapes: list[tuple[Shape, Shape]] = [((2, 3), (2, 3)), ((5,), (5,)), ((), ()), ((1025,),) * 2]
    if bench.claims("broadcast"):
        shapes += [((3,), (2, 3)), ((32, 1), (1, 64)), ((4, 1, 2), (3, 1))]
    for (x_shape, y_shape), reduction in shared_out(bench, shapes):
        first = {"first_x": bench.tensor(x_shape, 7), "first_y": bench.tensor(y_shape, 8)}
        x, y = bench.tensor(x_shape, 1), bench.tensor(y_shape, 2)
        got = bench.ask("modes.exported", x=x, y=y, **first, reduction=reduction)["result"]
        text = f"the result of the exported loss ({reduction}, {x_shape} and {y_shape})"
        yield from deviation_of_loss(bench, text, got, x, y, reduction)


# -- tensors without data ----------------------------------------------------------------------


@experiment("transforms.meta")
def _meta(bench: Bench) -> Messages:
    yield from _abstract(bench, "meta", "modes.meta")


@experiment("transforms.fake")
def _fake(bench: Bench) -> Messages:
    yield from _abstract(bench, "fake", "modes.fake")
    yield from _real_after_fake(bench)


def _abstract(bench: Bench, kind: str, protocol: str) -> Messages:
    """Shape, dtype and device of the result and of its gradients, without any data."""
    every, both = list(_abstracted(bench)), bench.claims("target_gradient")
    calls = [(*pair.forms(), reduction) for pair, reduction in every]
    seen = bench.ask(protocol, calls=calls, both=both)
    for k, (pair, reduction) in enumerate(every):
        x, y = _leaves(bench, pair.x, pair.y)
        found = seen.items_of(str(k))
        result, *slopes = _outcome(found, x, y)
        device = found.text("device")
        text = f"on {kind} tensors {_form(x, device)} and {_form(y, device)}"
        shape = bench.result_shape(np.broadcast_shapes(x.shape, y.shape), reduction)
        if result != f"{bench.promoted(x.dtype, y.dtype)}{list(shape)} on {device}":
            yield f"{text} the result is {result} ({reduction})"
        for got, operand in zip(slopes, (x, y), strict=False):
            if got != _form(operand, device):
                yield f"{text} a gradient is {got} ({reduction})"


def _abstracted(bench: Bench) -> Iterator[tuple[_Laid, str]]:
    """Pairs of which the data do not count; the plainest and two dtypes meet all reductions."""
    first = [_operands(bench, 2, 3), *_of_two_dtypes(bench)]
    yield from itertools.product((_Laid("", x, y) for x, y in first), bench.reductions)
    others = [pair for pair in _other_operands(bench) if pair.x.dtype == pair.y.dtype]
    if bench.claims("broadcast"):  # neither has the shape of the result
        others.append(_Laid("", bench.tensor((4, 1), 1), bench.tensor((1, 3), 2)))
    yield from shared_out(bench, others)


def _form(t: Given, device: str) -> str:
    return f"{t.dtype}{list(t.shape)} on {device}"


def _real_after_fake(bench: Bench) -> Messages:
    """A size that is met in fake tensors first: what is kept of it then must serve real ones."""
    for n, reduction in enumerate(bench.reductions, 191):
        x, y = bench.tensor((n,), 1).leaf(), bench.tensor((n,), 2)
        found = bench.ask("modes.after_fake", x=x, y=y, reduction=reduction)
        got = _outcome(found, x)[1]
        exact = bench.formula.vjp(x.values - y.values, 1.0, reduction)
        text = f"after a call on fake tensors of {n} elements the gradient ({reduction})"
        yield from deviation(bench, text, got, exact, abs(exact))
