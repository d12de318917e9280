"""Experiments on the value: how the loss is called."""

from __future__ import annotations

from conformance.experiments.bench import Bench, Messages, brief, experiment, is_permitted
from conformance.observation import text_of
from conformance.plans import plain
from conformance.tensors import make


@experiment("value.default")
def _default(bench: Bench) -> Messages:
    """A loss may require its reduction to be named, but must not have another default."""
    case = plain(bench.dtype, "mean")
    x, y = make(case.input, bench.device).tensor, make(case.target, bench.device).tensor
    try:
        result = bench.target.loss(x, y)
    except TypeError as error:
        if "reduction" not in text_of(error):
            raise
        return
    if not is_permitted(case, result):
        yield f"without a reduction the result is {brief(result)}, not the mean"
