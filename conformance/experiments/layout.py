"""Experiments on layout: views that more than strides describe."""

from __future__ import annotations

import torch

from conformance.experiments.bench import (
    Bench,
    Messages,
    brief,
    close,
    eighths,
    experiment,
)


@experiment("layout.negative")
def _negative(bench: Bench) -> Messages:
    """``z.conj().imag`` is a view whose elements are the negative of what is in memory."""
    x, y = bench.made(eighths(bench, (9,), 1)), bench.made(eighths(bench, (9,), 2))
    for reduction in bench.reductions:
        wanted = bench.loss(x, y, reduction)
        # The bits of the negative, to be read as the number itself.
        views = torch._neg_view(x.neg()), torch._neg_view(y.neg())
        for operands in ((views[0], y), (x, views[1])):
            got = bench.loss(operands[0], operands[1], reduction)
            if not isinstance(got, torch.Tensor) or not close(got, wanted):
                yield f"a negative-bit view gave {brief(got)}, a copy of it {brief(wanted)}"
