"""Experiments on mistakes of the caller: an exception, never a number."""

from __future__ import annotations

import itertools
from typing import Any

from conformance.case import Fill
from conformance.experiments.bench import Bench, Messages, brief, experiment, is_permitted
from conformance.plans import plain
from conformance.tensors import make


@experiment("errors.reduction")
def _reduction(bench: Bench) -> Messages:
    """Misspelt ones; names that other losses know (``batchmean``) are left alone."""
    for reduction in ("", "meen", "su", "nothing"):
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        try:
            result: Any = bench.target.loss(x, y, reduction=reduction)
        except Exception:
            continue
        yield f"reduction={reduction!r} gave {brief(result)} instead of an error"


@experiment("errors.operands")
def _operands(bench: Bench) -> Messages:
    """What is no number raises; a number, or a list of some, raises or is right."""
    case = plain(bench.dtype, bench.reductions[0])
    x = make(case.input, bench.device).tensor
    for wrong in (None, "1.0", {"a": x}):
        for operands in ((x, wrong), (wrong, x)):
            try:
                result: Any = bench.target.loss(*operands, reduction=case.reduction)
            except Exception:
                continue
            yield f"the operand {wrong!r} gave {brief(result)} instead of an error"
    zeros = case.replace(target=case.target.replace(fill=Fill("zero")))
    for zero in (0.0, [0.0] * x.numel()):
        try:
            result = bench.target.loss(x, zero, reduction=case.reduction)
        except Exception:
            continue
        if not is_permitted(zeros, result):
            yield f"the target {zero} gave {brief(result)}: wrong, and no error"


@experiment("errors.devices")
def _devices(bench: Bench) -> Messages:
    """One operand here, one on the meta device, which every build of torch has."""
    for reduction in bench.reductions:
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        for operands in itertools.permutations((x, y.to("meta"))):
            try:
                result = bench.loss(operands[0], operands[1], reduction)
            except Exception:
                continue
            yield f"operands on {bench.device} and meta gave {brief(result)} ({reduction})"
