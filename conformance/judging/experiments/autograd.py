"""Experiments on the autograd protocol: graphs and hooks.

They are compared with what the same target gives in a plain call, so that a wrong gradient is told
once, by ``gradient.*``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    LARGE,
    Bench,
    Messages,
    close,
    experiment,
    several,
    shared_out,
)
from conformance.judging.observer import Given, Raised
from conformance.judging.seen import Seen

Pair = tuple[Given, Given]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
NAMES = ("input", "target")
GRAPHS = 300  # alive at once
LAYERS = (
    "a linear layer",
    "a linear layer without bias",
    "an activation",
    "a bounded activation",
    "an embedding",
    "a squeeze",
    "a concatenation",
)
MANY: Shapes = ((LARGE,), (LARGE,))
OPERATIONS = (
    "view",
    "reshape",
    "squeeze",
    "transpose",
    "permute",
    "t",
    "expand",
    "slice",
    "select",
    "unbind",
    "chunk",
    "flip",
    "clone",
    "an operation in place",
    "a change of a part in place",
    "a custom Function",
)
FURTHER = {"second": 1, "third": -2, "fourth": 1}  # backwards, and the grad_output of each


def _operands(bench: Bench, first: int = 1, n: int = 5) -> Pair:
    """Leaves that need a gradient; the target needs one where the target of judgement claims it."""
    x, y = bench.tensor((n,), first), bench.tensor((n,), first + 1)
    return x.leaf(), y.leaf(bench.claims("target_gradient"))


def _asked(bench: Bench, protocol: str, pair: Pair, reduction: str, **settings: Any) -> Evidence:
    return bench.ask(protocol, x=pair[0], y=pair[1], reduction=reduction, **settings)


def _times(factors: Iterable[Any], gradients: Iterable[Seen]) -> list[Seen]:
    """Exact, or nearly: the factors are small, and no gradient is near an end of its format."""
    pairs = zip(factors, gradients, strict=False)
    return [Seen(factor * g.values, g.dtype, g.device) for factor, g in pairs]


def _differ(got: Sequence[Any], wanted: Sequence[Seen], names: Sequence[str] = NAMES) -> str | None:
    """``input`` or ``target``: whose gradient is not as in the plain call."""
    for name, one, other in zip(names, got, wanted, strict=False):
        if not close(one, other):
            return name
    return None


@experiment("autograd.accumulate")
def _accumulate(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        seen = _asked(bench, "autograd.accumulated", _operands(bench), reduction)
        name = _differ(seen.listed("got"), _times((2, 2), seen.tensors("plain")))
        if name:
            yield f"backward() did not add to .grad of {name} what the gradient is ({reduction})"


@experiment("autograd.retain")
def _retain(bench: Bench) -> Messages:
    sizes: list[Shapes] = [((5,), (5,)), *([((3,), (2, 3))] * bench.claims("broadcast"))]
    every = itertools.product(sizes, bench.reductions)
    for shapes, reduction in itertools.chain(every, shared_out(bench, (MANY,))):
        if shapes == MANY and bench.dtype == "float16" and reduction == "mean":
            continue  # subnormal gradients are not rounded in proportion
        x, y = bench.tensor(shapes[0], 1), bench.tensor(shapes[1], 2)
        pair = x.leaf(), y.leaf(bench.claims("target_gradient"))
        try:
            seen = _asked(
                bench, "autograd.retained", pair, reduction, factors=list(FURTHER.values())
            )
        except Raised as raised:
            if "donated buffers" in str(raised):
                return  # what torch.compile refuses, and says so
            raise
        yield from _walked_again(seen, reduction)


def _walked_again(seen: Evidence, reduction: str) -> Messages:
    kept, *later = seen.listed("first")
    for (which, factor), got, first in zip(
        FURTHER.items(), seen.listed("again"), later, strict=True
    ):
        name = _differ(got, _times((factor, factor), kept))
        if name:
            yield f"the {which} backward gave another gradient of {name} ({reduction})"
        name = _differ(first, kept)
        if name:
            yield f"the {which} backward changed the first gradient of {name} ({reduction})"
    name = _differ(seen.listed("after_change"), kept)
    if name:
        yield f"a gradient of {name} changed with an earlier one, in place ({reduction})"
    name = _differ(seen["freed"] or (), kept)
    if name:
        yield f"backward through a freed graph gave a wrong gradient of {name} ({reduction})"


@experiment("autograd.inplace")
def _inplace(bench: Bench) -> Messages:
    """A change of either operand, or of the result, before a backward or between two of them."""
    needs = ((True, True), (True, False), (False, True))
    for reduction in bench.reductions:
        for needed in needs if bench.claims("target_gradient") else needs[1:2]:
            yield from _operand_changed(bench, reduction, needed)
        yield from _result_changed(bench, reduction)


def _result_changed(bench: Bench, reduction: str) -> Messages:
    """The builtin stands every such change: it saves its operands alone."""
    operands = _operands(bench)
    masked = np.ones(operands[0].shape)
    masked[::2] = 0
    changes: dict[str, Any] = {"mul_(2)": 2.0, "sub_ of itself": 1.0}
    if reduction == "none":
        changes["zeros in every other place"] = masked
    for change, factor in changes.items():
        seen = _asked(bench, "autograd.result_changed", operands, reduction, change=change)
        if "raised" in seen:
            yield f"after {change} on the result: {seen.text('raised')} ({reduction})"
        else:
            wanted = _times((factor, factor), seen.tensors("plain"))
            name = _differ(seen.listed("got"), wanted)
            if name:
                yield f"after {change} on the result the gradient of {name} is wrong ({reduction})"


def _operand_changed(bench: Bench, reduction: str, needed: tuple[bool, bool]) -> Messages:
    x, y = (t.leaf(n) for t, n in zip(_operands(bench), needed, strict=True))
    names = [name for name, n in zip(NAMES, needed, strict=True) if n]
    for changed, between in itertools.product((0, 1), (False, True)):
        seen = _asked(
            bench, "autograd.operand_changed", (x, y), reduction, changed=changed, between=between
        )
        name = _differ(seen["got"] or (), seen.tensors("plain"), names)
        if name:
            when = " between two backwards" if between else ""
            text = f"after {NAMES[changed]}.mul_(3){when} the gradient of {name} is silently wrong"
            yield f"{text} ({reduction})"


@experiment("autograd.hooks")
def _hooks(bench: Bench) -> Messages:
    """A hook on the result doubles grad_output, one on input sees its gradient and negates it."""
    for reduction in bench.reductions:
        seen = _asked(bench, "autograd.hooked", _operands(bench), reduction)
        plain, saw = seen.tensors("plain"), seen.listed("saw")
        if len(saw) != 1 or _differ(saw, _times((2,), plain)):
            yield f"a hook on input saw {len(saw)} gradients, or a wrong one ({reduction})"
        name = _differ(seen.listed("got"), _times((-2, 2), plain))
        if name:
            yield f"hooks on result and input were not honoured for {name} ({reduction})"
        yield from _repacked(bench, reduction)


def _repacked(bench: Bench, reduction: str) -> Messages:
    """What is saved is copied away, as ``save_on_cpu`` does; or computed again, checkpointed.

    TorchScript, and torch.func inside of a loss, refuse and say so.
    """
    seen = _asked(bench, "autograd.repacked", _operands(bench), reduction)
    for text, way in (("hooks copy what is saved", "copied"), ("checkpointed", "checkpointed")):
        name = _differ(seen[way] or (), seen.tensors("plain"))
        if name:
            yield f"where {text} the gradient of {name} is another one ({reduction})"


@experiment("autograd.nonleaf")
def _nonleaf(bench: Bench) -> Messages:
    """Operands that are products, and views of other tensors; then the target, as a teacher's."""
    for reduction in bench.reductions:
        x, y = _operands(bench)
        seen = _asked(bench, "autograd.nonleaf", (x, y), reduction, operand=0, made="product")
        name = _differ(seen["got"] or (None, None), _times((2, 1), seen.tensors("plain")))
        if name:
            yield f"the gradient of {name} is wrong where input is 2·x ({reduction})"
        base = bench.tensor((3, 7), 9).leaf()
        seen = _asked(
            bench, "autograd.nonleaf", (base, y), reduction, operand=0, made="part of a row"
        )
        expected = np.zeros(base.shape)
        expected[1, 1:6] = seen.tensors("plain")[0].values
        if _differ(seen["got"] or (None,), [_of_leaf(seen, expected)]):
            yield f"the gradient is wrong where input is a view of a larger tensor ({reduction})"
        if bench.claims("target_gradient"):
            yield from _nonleaf_target(bench, reduction)
        yield from _of_layers(bench, reduction)
        got = _asked(bench, "autograd.nothing_from_above", (x, y), reduction).tensor("gradient")
        if not np.array_equal(got.values, np.ones(x.shape)):
            yield f"where no gradient comes from above there is one of input ({reduction})"
    for operand in (0, 1)[: 1 + bench.claims("target_gradient")]:
        yield from _made_by_operations(bench, operand)


def _made_by_operations(bench: Bench, operand: int) -> Messages:
    """One operand is what an operation gives: any kind of view, a copy, a change in place."""
    pair = [bench.tensor((2, 3), k + 1).leaf(k == operand) for k in (0, 1)]
    settings: dict[str, Any] = {"operand": operand, "operations": list(OPERATIONS)}
    settings["reductions"] = list(bench.reductions)
    seen = bench.ask("autograd.made_by_operations", x=pair[0], y=pair[1], **settings)
    for name in OPERATIONS:
        one = seen.items_of(name)
        text = f"where {NAMES[operand]} is what {name} gives ({one.text('reduction')})"
        if "raised" in one:
            yield f"{one.text('raised')}, {text}"
        elif _differ(one.listed("got"), one.tensors("plain")):
            yield f"the gradient is wrong {text}"


def _of_layers(bench: Bench, reduction: str) -> Messages:
    """It is the loss of the same numbers, whichever function made them."""
    pair = bench.tensor((3, 4), 10).leaf(), bench.tensor((3, 4), 11)
    seen = _asked(bench, "autograd.of_layers", pair, reduction, layers=[*LAYERS])
    for layer in LAYERS:
        got = several(seen, layer, 4)
        name = _differ(got[:2], got[2:], ("the value", "the gradient"))
        if name:
            yield f"{name} is another one where input comes out of {layer} ({reduction})"


def _nonleaf_target(bench: Bench, reduction: str) -> Messages:
    pair = bench.tensor((5,), 1), bench.tensor((7,), 2).leaf()
    for text, made, at, factor in (
        ("2·y", "start of a product", slice(5), 2),
        ("a view", "slice", slice(1, 6), 1),
    ):
        seen = _asked(bench, "autograd.nonleaf", pair, reduction, operand=1, made=made)
        if seen["got"] is None:
            yield f"the result cannot be trained through where target is {text} ({reduction})"
            continue
        expected = np.zeros(7)
        expected[at] = factor * seen.tensors("plain")[0].values
        if _differ(seen.listed("got"), [_of_leaf(seen, expected)]):
            yield f"the gradient is wrong where target is {text} ({reduction})"


def _of_leaf(seen: Evidence, expected: Any) -> Seen:
    """The gradient by a leaf, of the kind that the first of the plain call is."""
    plain = seen.tensors("plain")[0]
    return Seen(expected, plain.dtype, plain.device)


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


def _alive(bench: Bench, pairs: Sequence[Pair], reductions: Sequence[str]) -> Messages:
    operands = {
        f"{n}{k}": t for k, pair in enumerate(pairs) for n, t in zip("xy", pair, strict=True)
    }
    order = (1, 0, 2)
    seen = bench.ask("autograd.alive", reductions=list(reductions), order=list(order), **operands)
    for k, got, plain in zip(order, seen.listed("got"), seen.listed("plain"), strict=True):
        name = _differ(got, plain)
        if name:
            text = f"with three graphs alive the gradient of {name} is another's"
            yield f"{text} ({reductions[k]})"


def _many_alive(bench: Bench, graphs: int, reduction: str) -> Messages:
    """A ring or a table has so many places; what the first graph needs is kept in none of them."""
    a, b = _operands(bench, 10, 3)
    seen = _asked(
        bench, "autograd.many_alive", _operands(bench), reduction, a=a, b=b, graphs=graphs
    )
    name = _differ(seen.listed("got"), seen.tensors("plain"))
    if name:
        yield f"with {graphs} graphs alive the gradient of {name} is another's ({reduction})"


@experiment("autograd.anomaly")
def _anomaly(bench: Bench) -> Messages:
    """Equal and unequal elements, since a masked NaN is most likely where d is 0."""
    for reduction in bench.reductions:
        x, y = _operands(bench)
        values = np.concatenate([x.values[:2], y.values[2:]])
        seen = _asked(bench, "autograd.anomaly", (x, bench.made(values, needs=y.needs)), reduction)
        name = _differ(seen.listed("got"), seen.tensors("plain"))
        if name:
            yield f"in anomaly mode the gradient of {name} is another one ({reduction})"
