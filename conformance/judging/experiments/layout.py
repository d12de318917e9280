"""Experiments on layout: views that more than strides describe."""

from __future__ import annotations

import itertools

from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    deviation_of_both,
    deviation_of_loss,
    eighths,
    experiment,
)
from conformance.judging.observer import Raised
from reference.formats import Floats


@experiment("layout.shared")
def _shared(bench: Bench) -> Messages:
    """A square and its transpose, two windows of one line, and its two halves."""
    judged, error = False, None
    for reduction, (what, views, whole, pair) in itertools.product(bench.reductions, _views(bench)):
        settings = {"whole": bench.made(whole), "views": views, "reduction": reduction}
        try:
            alone = bench.ask("layout.shared", apart=True, **settings)
        except Raised as raised:
            error = raised  # it does not stand such strides: other clauses say so
            continue
        judged = True
        text = f"{what} as operands:"
        seen = alone["result"], alone["gradient"]
        if not any(deviation_of_both(bench, text, *seen, *pair, reduction)):
            together = bench.ask("layout.shared", apart=False, **settings)
            seen = together["result"], together["gradient"]
            yield from deviation_of_both(bench, text, *seen, *pair, reduction)
    if error and not judged:
        raise error


def _views(bench: Bench) -> list[tuple[str, str, Floats, tuple[Floats, Floats]]]:
    """Two views of one tensor: in words, as a name, that tensor, and the elements of both."""
    square, line = eighths(bench, (3, 3), 1), eighths(bench, (9,), 2)
    return [
        ("a tensor and its transpose", "transposed", square, (square, square.T)),
        ("two overlapping windows", "windows", line, (line[:-1], line[1:])),
        ("two halves of one tensor", "halves", line, (line[:4], line[5:])),
    ]


@experiment("layout.negative")
def _negative(bench: Bench) -> Messages:
    """``z.conj().imag`` is a view whose elements are the negative of what is in memory."""
    x, y = bench.made(eighths(bench, (9,), 1)), bench.made(eighths(bench, (9,), 2))
    for reduction in bench.reductions:
        if any(deviation_of_loss(bench, "", bench.loss(x, y, reduction), x, y, reduction)):
            continue  # wrong without such a view: other clauses say so
        for operand in ("x", "y"):
            settings = {"operand": operand, "reduction": reduction}
            got = bench.ask("layout.negative", x=x, y=y, **settings)["result"]
            what = f"of a negative-bit view the result ({reduction})"
            yield from deviation_of_loss(bench, what, got, x, y, reduction)
