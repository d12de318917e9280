"""Experiments on purity: what one call leaves behind for the next."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from conformance.cases.plans import derive
from conformance.judging.experiments.bench import (
    LARGE,
    Bench,
    Messages,
    Shape,
    deviation_of_loss,
    deviation_of_value,
    eighths,
    experiment,
    same_bits,
    several,
    shared_out,
)
from conformance.judging.observer import Given
from conformance.judging.seen import Seen

SOME = 5003  # elements: enough for a kernel that samples some of them, or takes another path
RESULTS = 300  # kept: more than a ring of buffers has
REPEATS = 14
BLOCKS = (  # of a program, in which all calls are made so
    "no_grad",
    "inference_mode",
    "autocast",
    "deterministic mode",
    "hooks on what is saved",
    "a dispatch mode",
    "a function mode",
    "a backward on one thread",
)
CHANGED = (7, 501, 850)  # which of many elements is another one, call after call


@experiment("purity.repeat")
def _purity_repeat(bench: Bench) -> Messages:
    """Same tensors with new contents, in turn with other reductions: a cache would show."""
    for reduction in bench.reductions:
        yield from _new_contents(bench, reduction)
        yield from _permuted(bench, reduction)
        for enabled in (False, True):
            yield from _one_changed(bench, reduction, enabled)


def _new_contents(bench: Bench, reduction: str) -> Messages:
    x = bench.rows((6,), range(3, 3 + 2 * REPEATS, 2))
    y = bench.rows((6,), range(4, 4 + 2 * REPEATS, 2))
    others = [bench.reductions[k % len(bench.reductions)] for k in range(REPEATS)]
    texts = [
        f"the result of call {k + 1} on the same tensors with new contents ({reduction})"
        for k in range(REPEATS)
    ]
    what = {"reduction": reduction, "others": others}
    yield from _in_turn(bench, texts, "purity.new_contents", x, y, what)


def _one_changed(bench: Bench, reduction: str, enabled: bool) -> Messages:
    """One of many elements has another value: who looks at some of them takes it for the same."""
    x, y = (bench.rows((1003,), [k] * (1 + len(CHANGED))) for k in (1, 2))
    for k, at in enumerate(CHANGED, 1):
        x.values[k:, at] = 32
    changes = ["no change", *(f"a change of element {at}" for at in CHANGED)]
    texts = [f"the result after {change} ({reduction})" for change in changes]
    what = {"reduction": reduction, "enabled": enabled}
    yield from _in_turn(bench, texts, "purity.unseen_contents", x, y, what)


def _in_turn(
    bench: Bench, texts: list[str], protocol: str, x: Given, y: Given, what: dict[str, Any]
) -> Messages:
    """Deviations of calls in turn, one on each row; none where the first is wrong though alone.

    Then other clauses say so.
    """
    found: list[str] = []
    for count in (1, len(texts)):
        if found:
            return
        a, b = (Given(t.values[:count], t.dtype) for t in (x, y))
        results = several(bench.ask(protocol, x=a, y=b, **what), "results", count)
        for k, (text, result) in enumerate(zip(texts, results, strict=False)):
            a, b = (Given(t.values[k], t.dtype) for t in (x, y))
            found += deviation_of_loss(bench, text, result, a, b, what["reduction"])
    yield from found


def _permuted(bench: Bench, reduction: str) -> Messages:
    """The same elements in another order: equal totals, norms and extremes, another answer."""
    x, y = eighths(bench, (6,), 1), eighths(bench, (6,), 2)
    for values in (x, x[::-1].copy(), np.roll(x, 1)):
        result = bench.loss(bench.made(values), bench.made(y), reduction)
        text = f"with the same elements in another order the result ({reduction})"
        found = list(deviation_of_value(bench, text, result, values - y, reduction))
        if found and values is x:
            return  # wrong from the start: other clauses say so
        yield from found


@experiment("purity.result")
def _purity_result(bench: Bench) -> Messages:
    """Results and gradients of one call, after another call on equal shapes.

    Of the loss and, where there is one, of a module, which may have buffers of its own.
    """
    for reduction in bench.reductions:
        yield from _kept(bench, reduction, reduction)
        if bench.claims("module"):
            yield from _kept(bench, reduction, f"{reduction}, the module", module=True)
    for shape, reduction in shared_out(bench, ((LARGE,),)):
        yield from _many_kept(bench, reduction)
        yield from _kept(bench, reduction, f"{reduction}, {LARGE} elements", shape)


def _many_kept(bench: Bench, reduction: str) -> Messages:
    """As the losses of an epoch are."""
    x, y = bench.rows((3,), (1, 3)), bench.rows((3,), (2, 4))
    seen = bench.ask("purity.first_of_many", x=x, y=y, reduction=reduction, count=RESULTS)
    if not same_bits(seen["now"], seen["then"]):
        yield f"one of {RESULTS} later calls changed an earlier result ({reduction})"


def _kept(
    bench: Bench, reduction: str, text: str, shape: Shape = (7,), module: bool = False
) -> Messages:
    x = bench.rows(shape, (0, 2, 4)).leaf()
    y = bench.rows(shape, (1, 3, 5)).leaf(bench.claims("target_gradient"))
    kept = bench.ask("purity.kept", x=x, y=y, reduction=reduction, module=module)
    for mode, words in (("grad", ""), ("no_grad", ", no_grad")):
        if any(kept.listed(mode)):
            yield f"a later call changed an earlier result or gradient ({text}{words})"


@experiment("purity.inputs")
def _purity_inputs(bench: Bench) -> Messages:
    """Views that nobody holds but the call, and whole tensors: both are the caller's."""
    for reduction, mode in itertools.product(bench.reductions, ("no_grad", "inference_mode")):
        x, y = bench.tensor((2, 5), 1), bench.tensor((2, 5), 2)
        seen = bench.ask("purity.operands", x=x, y=y, reduction=reduction, mode=mode)
        if not _hold(several(seen, "viewed", 2), x, y):
            yield f"a call on views wrote to what they are views of ({reduction})"
        if not _hold(several(seen, "whole", 2), x, y):
            yield f"within torch.{mode} a call wrote to its operands ({reduction})"


def _hold(seen: list[Any], *given: Given) -> bool:
    """Whether the operands hold what was handed in."""
    wanted = (Seen(t.values, t.dtype, "") for t in given)
    return all(map(same_bits, seen, wanted))


@experiment("purity.grad_output")
def _purity_grad_output(bench: Bench) -> Messages:
    """Of ``2·(L + z)`` the loss and z are handed one tensor, which nobody else holds."""
    for reduction in bench.reductions:
        x, y = bench.tensor((6,), 1).leaf(), bench.tensor((6,), 2)
        got = bench.ask("purity.branches", x=x, y=y, reduction=reduction).tensor("gradient")
        if not np.all(got.values == 2):
            yield f"backward wrote to the gradient that another branch shares ({reduction})"


@experiment("purity.alias")
def _purity_alias(bench: Bench) -> Messages:
    """Operands that repeat the same memory: the result may be changed in place all the same.

    So may a gradient, without a change of the other one.
    """
    for reduction in bench.reductions:
        x, y = bench.tensor((1, 3), 1), bench.tensor((1, 3), 2)
        seen = bench.ask("purity.changed_in_place", x=x, y=y, reduction=reduction)
        if "raised" in seen:
            text = "of expanded operands the result cannot be changed in place"
            yield f"{text}: {seen['raised']} ({reduction})"
        if bench.claims("target_gradient"):
            yield from _gradients_apart(bench, reduction)


def _gradients_apart(bench: Bench, reduction: str) -> Messages:
    """Other clauses say where a gradient is missing."""
    x, y = bench.tensor((5,), 1).leaf(), bench.tensor((5,), 2).leaf()
    seen = bench.ask("purity.gradients_apart", x=x, y=y, reduction=reduction)
    if "then" in seen and not same_bits(seen["now"], seen["then"]):
        yield f"the gradients of input and target share memory ({reduction})"


@experiment("purity.state")
def _purity_state(bench: Bench) -> Messages:
    """Random states, warning filters, well-known functions, and settings of the caller's own.

    Usual settings are looked at in every run of a case.
    """
    pairs = [((9,), (9,)), *([((9,), (4, 9))] * bench.claims("broadcast"))]
    large = ((SOME,), (SOME,)), bench.reductions[-1]
    for shapes, reduction in itertools.chain(shared_out(bench, pairs), [large]):
        x, y = bench.tensor(shapes[0], 1).leaf(), bench.tensor(shapes[1], 2)
        y = y.leaf(bench.claims("target_gradient"))
        settings = {"reduction": reduction, "seed": derive(bench.seed, "state", reduction)}
        for name in bench.ask("purity.world_changed", x=x, y=y, **settings).listed("changed"):
            yield f"a call changed {name}"
    for reduction in bench.reductions:
        x, y = bench.tensor((9,), 1).leaf(), bench.tensor((9,), 2)
        for protocol in ("purity.settings_overridden", "purity.set_again"):
            for text in bench.ask(protocol, x=x, y=y, reduction=reduction).listed("changed"):
                yield f"a call changed {text} ({reduction})"
    for block, reduction in shared_out(bench, BLOCKS):
        x, y = bench.tensor((9,), 1).leaf(), bench.tensor((9,), 2)
        settings = {"reduction": reduction, "block": block}
        for text in bench.ask("purity.changed_within", x=x, y=y, **settings).listed("changed"):
            yield f"within {block} a call changed {text} ({reduction})"
    x, y = bench.tensor((3,), 1), bench.tensor((4,), 2)
    in_vain: tuple[dict[str, Any], ...] = (
        {"y": y, "reduction": "mean"},
        {"same": True, "reduction": "meen"},
        {"reduction": "mean"},
    )
    for operands in in_vain:
        for name in bench.ask("purity.changed_in_vain", x=x, **operands).listed("changed"):
            yield f"a call that raises changed {name}"


@experiment("purity.attributes")
def _purity_attributes(bench: Bench) -> Messages:
    """requires_grad, .grad, hooks and grad_fn of the operands are the caller's."""
    for reduction in bench.reductions:
        x, y = bench.tensor((4,), 1), bench.tensor((4,), 2)
        if bench.claims("target_gradient"):
            seen = bench.ask("purity.hooks_of_two", x=x.leaf(), y=y.leaf(), reduction=reduction)
            if seen.flag("left"):
                yield f"a call left a hook on an operand, where both need a gradient ({reduction})"
        seen = bench.ask("purity.attributes", x=x, y=y, reduction=reduction)
        if seen.listed("needs") != [True, False] or not seen.flag("leaf"):
            yield f"a call changed requires_grad of an operand ({reduction})"
        if seen.flag("grad_replaced") or not np.all(seen.tensor("grad").values == 1):
            yield f"a call changed .grad of an operand ({reduction})"
        if seen.flag("hooks"):
            yield f"a call left a hook on input ({reduction})"
        if seen.flag("other_grad"):
            yield f"a call gave .grad to an operand that needs no gradient ({reduction})"
        if seen.flag("hooks_of_no_leaf"):
            yield f"a call left a hook on an input that is no leaf ({reduction})"
