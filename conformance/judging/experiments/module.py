"""Experiments on targets that are an ``nn.Module``: what every module can do."""

from __future__ import annotations

import itertools

import numpy as np

from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    Shape,
    brief,
    close,
    deviation,
    deviation_of_loss,
    eighths,
    experiment,
)
from conformance.judging.observer import Given

Shapes = tuple[tuple[Shape, Shape], ...]
PLAIN: Shapes = (((5,), (5,)),)


def _pair(bench: Bench, x: Shape = (5,), y: Shape = (5,)) -> tuple[Given, Given]:
    """Operands that need whatever gradients the target has."""
    return bench.tensor(x, 1).leaf(), bench.tensor(y, 2).leaf(bench.claims("target_gradient"))


def _wrong(bench: Bench, seen: Evidence, x: Given, y: Given, reduction: str) -> str | None:
    """What a module gave, where that is not permitted, or a gradient of it."""
    for message in deviation_of_loss(bench, "a result that", seen["result"], x, y, reduction):
        return message
    if not seen.flag("requires_grad"):
        return "a result that cannot be trained through"
    got, wanted = seen.items_of("gradients"), seen.items_of("plain")
    for name, given in (("x", x), ("y", y)):
        if given.needs and not close(got[name], wanted[name]):
            return f"the gradient {brief(got[name])}"
    return None


def _each(bench: Bench, what: str, change: str, shapes: Shapes = PLAIN) -> Messages:
    """A message for each reduction whose module, once changed, is no longer right."""
    pairs = [_pair(bench, *pair) for pair in shapes]
    operands = {
        f"{name}{k}": given
        for k, pair in enumerate(pairs)
        for name, given in zip("xy", pair, strict=True)
    }
    for reduction in bench.reductions:
        seen = bench.ask("module.changed", change=change, reduction=reduction, **operands)
        every = (
            _wrong(bench, seen.items_of(str(k)), x, y, reduction) for k, (x, y) in enumerate(pairs)
        )
        wrong = next(filter(None, every), None)
        if wrong:
            yield f"{what} gives {wrong} ({reduction})"


@experiment("module.value")
def _value(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        if not bench.ask("plain.module", reduction=reduction).flag("is_module"):
            yield f"what module(reduction={reduction!r}) makes is no nn.Module"
    rows: Shapes = (((3, 4), (4,)), ((3, 1), (3,))) if bench.claims("broadcast") else ()
    yield from _each(bench, "the module", "none", (*PLAIN, ((3, 4), (3, 4)), *rows))
    yield from _made_by_default(bench)
    x, y = _pair(bench)
    together = bench.ask("module.together", x=x, y=y, reductions=list(bench.reductions))
    for reduction in bench.reductions:
        wrong = _wrong(bench, together.items_of(reduction), x, y, reduction)
        if wrong:
            yield f"beside modules with other reductions the module gives {wrong} ({reduction})"
    for reduction in bench.reductions:
        yield from _without_gradient(bench, reduction)


def _without_gradient(bench: Bench, reduction: str) -> Messages:
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    if bench.ask("module.called", x=x, y=y, reduction=reduction).flag("requires_grad"):
        yield f"the module's result needs a gradient that no operand needs ({reduction})"
    if bench.claims("mixed_dtype") and bench.dtype in ("float32", "float64"):
        whole = Given(np.arange(1001.0, 6001.0, 1000.0), "int64")
        got = bench.ask("module.called", x=x, y=whole, reduction=reduction)["result"]
        text = "with a target of int64 the module's result"
        yield from deviation_of_loss(bench, text, got, x, whole, reduction)


def _made_by_default(bench: Bench) -> Messages:
    """It may require its reduction to be named, but must not have another default."""
    if "mean" not in bench.reductions:
        return
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    seen = bench.ask("module.unnamed", x=x, y=y)
    if "refused" not in seen:
        text = "of a module made without a reduction the result"
        yield from deviation_of_loss(bench, text, seen["result"], x, y, "mean")


@experiment("module.hooks")
def _hooks(bench: Bench) -> Messages:
    """Before the call, after it, and on its gradients."""
    x, y = (bench.made(eighths(bench, (5,), k)) for k in (1, 2))
    for reduction in bench.reductions:
        seen = bench.ask("module.hooked", x=x.leaf(), y=y, reduction=reduction)
        d = x.values - y.values
        value, size = (
            np.asarray(f(2 * d, reduction) / 2) for f in (bench.formula.value, bench.formula.size)
        )
        text = f"with hooks on the module the result ({reduction})"
        yield from deviation(bench, text, seen["result"], value, size, 5)
        slope = bench.formula.vjp(2 * d, 2.0, reduction)
        text = f"with hooks on the module the gradient ({reduction})"
        yield from deviation(bench, text, seen["gradient"], slope, abs(slope))


@experiment("module.mode")
def _mode(bench: Bench) -> Messages:
    yield from _each(bench, "after eval() the module", "eval")
    yield from _each(bench, "after train() the module", "train")


@experiment("module.pickle")
def _pickle(bench: Bench) -> Messages:
    """With pickle and torch.save; only the state of a class that no pickle finds by its name."""
    if bench.ask("module.pickles", reduction=bench.reductions[0]).flag("whole"):
        yield from _each(bench, "the unpickled module", "pickled")
        yield from _each(bench, "the saved and loaded module", "saved")
    else:
        yield from _each(bench, "the module with unpickled state", "its state pickled")


@experiment("module.deepcopy")
def _deepcopy(bench: Bench) -> Messages:
    """Before a call and after one; the copy is another object."""
    x, y = _pair(bench)
    for reduction in bench.reductions:
        seen = bench.ask("module.copied", x=x, y=y, reduction=reduction)
        if seen.flag("same"):
            yield f"the deep copy is the module itself ({reduction})"
        wrong = _wrong(bench, seen.items_of("copy"), x, y, reduction)
        if wrong:
            yield f"a deep copy of the module gives {wrong} ({reduction})"


@experiment("module.state_dict")
def _state_dict(bench: Bench) -> Messages:
    """It round-trips, strictly, into another module of the same reduction; there is nothing in it,
    as in the builtin's."""
    x, y = _pair(bench)
    for reduction in bench.reductions:
        kept = bench.ask("module.kept", x=x, y=y, reduction=reduction)
        for when in ("before", "after"):
            if kept.listed(when):
                yield f"{when} a call the module keeps {', '.join(kept.listed(when))} ({reduction})"
        loaded = bench.ask("module.loaded", x=x, y=y, reduction=reduction)
        wrong = _wrong(bench, loaded, x, y, reduction)
        if wrong:
            yield f"after load_state_dict the module gives {wrong} ({reduction})"


@experiment("module.to")
def _to(bench: Bench) -> Messages:
    """Moved to any dtype and back, it computes in the dtype of its operands."""
    for dtype in ("float64", "float16", "float32"):
        yield from _each(bench, f"the module after .to({dtype})", f"to {dtype}")
    yield from _each(bench, "the module after .to(device)", "to its device")


@experiment("module.repr")
def _repr(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        seen = bench.ask("module.described", reduction=reduction)
        if seen.text("class") not in seen.text("repr"):
            yield f"its repr is {seen.text('repr')[:60]!r}"


@experiment("module.reduction")
def _reduction(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        found = bench.ask("module.attribute", reduction=reduction)["reduction"]
        if found != reduction:
            yield f"made with reduction={reduction!r}, its attribute reduction is {found!r}"
            return
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    for first, reduction in itertools.permutations(bench.reductions, 2):
        seen = bench.ask("module.reset", x=x, y=y, first=first, reduction=reduction)
        text = f"made with reduction={first!r}, and with the attribute set to {reduction!r},"
        yield from deviation_of_loss(bench, f"{text} its result", seen["result"], x, y, reduction)
