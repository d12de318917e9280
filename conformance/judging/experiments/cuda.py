"""Experiments on CUDA: other streams, graphs, another device than the current one."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.clauses import ONE_GPU
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    deviation_of_both,
    eighths,
    experiment,
)
from conformance.judging.observer import Unavailable
from reference.formats import Floats

SIZE = 33


def _rounds(bench: Bench, count: int) -> Iterator[tuple[Floats, Floats]]:
    """Contents for one call after the other."""
    for k in range(count):
        yield eighths(bench, (SIZE,), 2 * k), eighths(bench, (SIZE,), 2 * k + 1)


@experiment("cuda.stream")
def _stream(bench: Bench) -> Messages:
    """On a stream that is still busy and only then fills the operands: nothing may run before.

    What follows on the stream reads the results at once: nothing may run after either.
    """
    first, second = _rounds(bench, 2)
    operands = {
        "x": bench.made(first[0], needs=True),
        "y": bench.made(first[1]),
        "later_x": bench.made(second[0]),
        "later_y": bench.made(second[1]),
    }
    for reduction in bench.reductions:
        seen = bench.ask("cuda.stream", reduction=reduction, **operands)
        both = seen["result"], seen["gradient"]
        yield from deviation_of_both(bench, "on another stream", *both, *second, reduction)


@experiment("cuda.graph")
def _graph(bench: Bench) -> Messages:
    """Captured once and replayed on other contents, as ``torch.cuda.graph`` documents."""
    at_first, *others = _rounds(bench, 3)
    operands = {"x": bench.made(at_first[0], needs=True), "y": bench.made(at_first[1])}
    replays = dict(zip(("first", "second"), others, strict=True))
    for name, (x, y) in replays.items():
        operands |= {f"{name}_x": bench.made(x), f"{name}_y": bench.made(y)}
    for reduction in bench.reductions:
        seen = bench.ask("cuda.graph", reduction=reduction, **operands)
        for name, contents in replays.items():
            replay = seen.items_of(name)
            both = replay["result"], replay["gradient"]
            yield from deviation_of_both(bench, "in a graph", *both, *contents, reduction)


@experiment("cuda.device")
def _device(bench: Bench) -> Messages:
    """Operands on a device while another one is current: that of the operands counts."""
    if bench.ask("cuda.devices").number("count") < 2:
        raise Unavailable(ONE_GPU)
    ((a, b),) = _rounds(bench, 1)
    x, y = bench.made(a, needs=True), bench.made(b)
    for reduction in bench.reductions:
        seen = bench.ask("cuda.beside_current", x=x, y=y, reduction=reduction)
        other, current = seen.text("other"), seen.text("current")
        if current != other:
            yield f"a call made device {current} current, which was {other} ({reduction})"
        places = seen.items_of("places")
        own = places.text("operands")
        for what in ("result", "gradient"):
            place = places.text(what)
            if place != own:
                yield f"the {what} is on {place}, the operands on {own} ({reduction})"
        both = seen["result"], seen["gradient"]
        where = f"with device {other} current"
        yield from deviation_of_both(bench, where, *both, a, b, reduction)
