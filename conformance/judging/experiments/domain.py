"""The experiment on what lies outside of a target's domain: silence there is how users get hurt."""

from __future__ import annotations

import math
from collections.abc import Iterator

from conformance.cases.domain import Domain, fitted
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    Shape,
    deviation_of_loss,
    experiment,
)
from conformance.judging.observer import Given

FEW = 2**21  # elements of an operand that is made only to see whether it raises
UNLIMITED = 9  # ranks from which on one more is no more telling


@experiment("domain.error")
def _error(bench: Bench) -> Messages:
    domain, reduction = bench.target.domain, bench.reductions[0]
    for why, shape, turned in _outside(domain):
        x, y = (Given(bench.plain(shape, k), bench.dtype) for k in (1, 2))
        what = {"reduction": reduction, "turned": turned}
        seen = bench.ask("domain.outside", x=x, y=y, **what)
        if "got" in seen:
            text = f"operands of {shape} ({why}) raise nothing, and the result ({reduction})"
            yield from deviation_of_loss(bench, text, seen["got"], x, y, reduction)


def _outside(domain: Domain) -> Iterator[tuple[str, Shape, bool]]:
    """Why it lies outside, a shape, and whether it is the order in memory that does."""
    yield from ((why, shape, False) for why, shape in _shapes(domain) if _few(shape))
    matrix = fitted(domain, (6, 8))
    if domain.layout != "any" and matrix is not None and len(matrix) == 2 and min(matrix) > 1:
        yield f"not {domain.words()}", matrix, True


def _few(shape: Shape) -> bool:
    """Whether it is worth making."""
    return math.prod(shape) <= FEW


def _shapes(domain: Domain) -> Iterator[tuple[str, Shape]]:
    least, most = domain.ranks
    if least:
        yield f"fewer than {least} dimensions", (6,) * (least - 1)
    if most < UNLIMITED:
        yield f"more than {most} dimensions", (2,) * (most + 1)
    inside = fitted(domain, (6,))
    if inside is None or not inside:
        return
    for k, fixed in enumerate(domain.shape):
        if fixed is not None:
            yield f"size {fixed + 1} for {fixed}", (*inside[:k], fixed + 1, *inside[k + 1 :])
    for name in ("columns", "elements"):
        multiple, largest = getattr(domain, name)
        front = (*(1,) * (len(inside) - 1),) if name == "elements" else inside[:-1]
        if domain.shape and domain.shape[-1] is not None:
            continue
        if multiple > 1:
            yield f"{name} that are no multiple of {multiple}", (*front, multiple + 1)
        if largest:
            yield f"more than {largest} {name}", (*front, largest // multiple * multiple + multiple)
