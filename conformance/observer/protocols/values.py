"""Experiments on the value: how the loss is called."""

from __future__ import annotations

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    deviation_of_loss,
    experiment,
)


@experiment("value.default")
def _default(bench: Bench) -> Messages:
    """A loss may require its reduction to be named, but must not have another default.

    A name that was read from a file is equal to the one in the source, and not the same object.
    """
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    for reduction in bench.reductions:
        result = bench.loss(x.clone(), y.clone(), reduction)
        if any(deviation_of_loss(bench, "", result, x, y, reduction)):
            continue  # wrong by its usual name: other clauses say so
        result = bench.loss(x.clone(), y.clone(), "".join(reduction))
        text = f"with a reduction of an equal name the result ({reduction})"
        yield from deviation_of_loss(bench, text, result, x, y, reduction)
    try:
        result = bench.target.loss(x.clone(), y.clone())
    except TypeError as error:
        if "reduction" not in str(error):
            raise
        return
    yield from deviation_of_loss(bench, "without a reduction the result", result, x, y, "mean")
