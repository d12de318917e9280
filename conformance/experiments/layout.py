"""Experiments on layout: views that more than strides describe."""

from __future__ import annotations

import torch

from conformance.experiments.bench import Bench, Messages, brief, close, experiment


@experiment("layout.negative")
def _negative(bench: Bench) -> Messages:
    """``z.conj().imag`` is a view whose elements are the negative of what is in memory."""
    for reduction in bench.reductions:
        x, y = bench.tensor((6,), 1), bench.tensor((6,), 2)
        negated = torch._neg_view(x.neg())  # the bits of -x, to be read as x
        for view, copy in (((negated, y), (x, y)), ((y, negated), (y, x))):
            wanted = bench.loss(copy[0], copy[1], reduction)
            got = bench.loss(view[0], view[1], reduction)
            if not isinstance(got, torch.Tensor) or not close(got, wanted):
                yield f"a negative-bit view gave {brief(got)}, a copy of it {brief(wanted)}"
