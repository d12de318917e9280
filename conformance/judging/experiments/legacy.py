"""Experiments on calls in the deprecated form: ``size_average`` and ``reduce``."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    deviation,
    deviation_of_both,
    deviation_of_value,
    eighths,
    experiment,
)
from reference.losses.weighted import Weighted

NAMES = ("size_average", "reduce")
TEXTS = ("none", "sum")  # reductions that are not the default


def meant(size_average: Any, reduce: Any) -> str:
    """The reduction that both stand for; None, which is not passed, is True."""
    if reduce is not None and not reduce:
        return "none"
    return "mean" if size_average is None or size_average else "sum"


def _called(bench: Bench, positional: list[Any], named: dict[str, Any]) -> Evidence:
    x, y = (bench.made(eighths(bench, (5,), k), needs=k == 1) for k in (1, 2))
    return bench.ask("legacy.called", x=x, y=y, positional=positional, named=named)


def _deviation(bench: Bench, text: str, seen: Evidence, reduction: str) -> Messages:
    x, y = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    got = seen["result"], seen["gradient"]
    yield from deviation_of_both(bench, f"with {text}", *got, x, y, reduction)


def _passed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


@experiment("legacy.reduction")
def _reduction(bench: Bench) -> Messages:
    """Each way to pass either or both, alone and beside a reduction that is another one."""
    ways: tuple[Any, ...] = (None, True, False)
    pairs = [*itertools.product(ways, ways), (0, None), (None, 0), (1, None)]
    for pair in pairs:
        old = {k: v for k, v in zip(NAMES, pair, strict=True) if v is not None}
        reduction = meant(*pair)
        if not old or reduction not in bench.reductions:
            continue
        others = [{"reduction": other} for other in bench.reductions if other != reduction]
        for named in (old, *(old | other for other in others[:1])):
            yield from _deviation(bench, _passed(named), _called(bench, [], named), reduction)
    for other in bench.reductions:  # None is not passed
        named = dict.fromkeys(NAMES) | {"reduction": other}
        yield from _deviation(bench, _passed(named), _called(bench, [], named), other)
    if bench.claims("weight") and bench.formula.weight:
        yield from _weighted(bench)


def _weighted(bench: Bench) -> Messages:
    x, y = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    w = np.abs(eighths(bench, (5,), 3))
    operands = {"x": bench.made(x, needs=True), "y": bench.made(y), "w": bench.made(w)}
    for old in ({"size_average": False}, {"size_average": True}, {"reduce": False}):
        reduction = meant(*map(dict[str, Any](old).get, NAMES))
        if reduction in bench.reductions:
            seen = bench.ask("legacy.called", **operands, positional=[], named=old)
            exact = Weighted(bench.formula, x - y, w, reduction)
            value, size = np.asarray(exact.value()), np.asarray(exact.size())
            text = f"with {_passed(old)} the weighted result"
            yield from deviation(bench, text, seen["result"], value, size, 5)


@experiment("legacy.positional")
def _positional(bench: Bench) -> Messages:
    """A text in the place of ``size_average`` is true: it raises, or the result is a mean."""
    calls: tuple[list[Any], ...] = ([True], [False], [None], [None, False], [False, True])
    calls = (*calls, [True, False], [False, False], [None, None, "sum"], [None, None, "none"])
    for call in calls:
        reduction = call[2] if len(call) > 2 else meant(*(*call, None)[:2])
        if reduction in bench.reductions:
            text = f"loss(input, target, {', '.join(map(repr, call))})"
            yield from _deviation(bench, text, _called(bench, call, {}), reduction)
    x, y = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    for word in TEXTS if "mean" in bench.reductions else ():
        operands = {"x": bench.made(x), "y": bench.made(y)}
        seen = bench.ask("legacy.attempted", **operands, positional=[word])
        if "got" in seen:
            text = f"the result of loss(input, target, {word!r})"
            yield from deviation_of_value(bench, text, seen["got"], x - y, "mean")


@experiment("legacy.warning")
def _warning(bench: Bench) -> Messages:
    for old in ({"size_average": True}, {"reduce": True}):
        if "mean" in bench.reductions and not _called(bench, [], old).flag("warned"):
            yield f"{_passed(old)}, which is deprecated, warns of nothing"
