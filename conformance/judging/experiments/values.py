"""Experiments on the value: how the loss is called."""

from __future__ import annotations

from conformance.judging.experiments.bench import (
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
        if any(deviation_of_loss(bench, "", bench.loss(x, y, reduction), x, y, reduction)):
            continue  # wrong by its usual name: other clauses say so
        result = bench.ask("values.by_equal_name", x=x, y=y, reduction=reduction)["result"]
        text = f"with a reduction of an equal name the result ({reduction})"
        yield from deviation_of_loss(bench, text, result, x, y, reduction)
    result = bench.target.domain.result
    if result is not None and result.mean != "mean":
        return  # of several means nobody knows which is to be the default
    seen = bench.ask("values.unnamed", x=x, y=y)
    if "refused" not in seen:
        text = "without a reduction the result"
        yield from deviation_of_loss(bench, text, seen["result"], x, y, "mean")
