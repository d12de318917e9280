"""Experiments on operands of a tensor subclass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from conformance.judging.evidence import Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    deviation,
    deviation_of_value,
    eighths,
    experiment,
    several,
)

WHICH = {"x": "input", "y": "target", "xy": "both operands"}


def _calls(bench: Bench, protocol: str) -> Iterator[tuple[str, str, Evidence]]:
    """In words, the reduction, and what was seen, of each choice of operands that are of one."""
    x, y = eighths(bench, (2, 3), 1), eighths(bench, (2, 3), 2)
    both = bench.claims("target_gradient")
    for reduction, (which, words) in itertools.product(bench.reductions, WHICH.items()):
        g = eighths(bench, (2, 3) if reduction == "none" else (), 3)
        seen = bench.ask(
            protocol,
            **{"x": bench.made(x, needs=True), "y": bench.made(y, needs=both), "g": bench.made(g)},
            **{"reduction": reduction, "which": which},
        )
        yield words, reduction, seen


def _wrong(bench: Bench, protocol: str, of: str) -> Messages:
    """A message where value or gradients are not those of the elements."""
    d = eighths(bench, (2, 3), 1) - eighths(bench, (2, 3), 2)
    for words, reduction, seen in _calls(bench, protocol):
        text = f"{of} as {words}: the result ({reduction})"
        yield from deviation_of_value(bench, text, seen["result"], d, reduction)
        g = eighths(bench, (2, 3) if reduction == "none" else (), 3)
        slope = bench.formula.vjp(d, g, reduction)
        signs = (1, -1) if bench.claims("target_gradient") else (1,)
        for sign, name, got in zip(
            signs, ("input", "target"), several(seen, "gradients", len(signs)), strict=False
        ):
            text = f"{of} as {words}: the gradient by {name} ({reduction})"
            yield from deviation(bench, text, got, sign * slope, np.abs(slope))


@experiment("subclass.value")
def _value(bench: Bench) -> Messages:
    yield from _wrong(bench, "subclass.labelled", "a subclass that changes nothing")


@experiment("subclass.type")
def _type(bench: Bench) -> Messages:
    for words, reduction, seen in _calls(bench, "subclass.labelled"):
        if not seen.flag("is_one"):
            yield f"with {words} of a tensor subclass the result is of none ({reduction})"


@experiment("subclass.dispatch")
def _dispatch(bench: Bench) -> Messages:
    """Its elements are in another tensor: what lies in its own memory is not meant."""
    yield from _wrong(bench, "subclass.contained", "a subclass that holds its elements elsewhere")
