"""Experiments on mistakes of the caller: an exception, never a number."""

from __future__ import annotations

import itertools
from typing import Any

from conformance.experiments.bench import Bench, Messages, brief, experiment, is_permitted
from conformance.plans import plain
from conformance.tensors import make


@experiment("errors.reduction")
def _reduction(bench: Bench) -> Messages:
    """``batchmean`` and ``Mean`` are what people mistake for it."""
    for reduction in ("batchmean", "Mean", "", "avg", None, 1):
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        try:
            result: Any = bench.target.loss(x, y, reduction=reduction)
        except Exception:
            continue
        yield f"reduction={reduction!r} gave {brief(result)} instead of an error"


@experiment("errors.operands")
def _operands(bench: Bench) -> Messages:
    """What is no tensor raises, or is right: ``x - 2.0`` is what it looks like."""
    case = plain(bench.dtype, bench.reductions[0])
    x, y = make(case.input, bench.device).tensor, make(case.target, bench.device).tensor
    for wrong in (None, "1.0", [0.0] * 5, {"a": y}):
        for operands in ((x, wrong), (wrong, y)):
            try:
                result: Any = bench.target.loss(*operands, reduction=case.reduction)
            except Exception:
                continue
            yield f"the operand {wrong!r} gave {brief(result)} instead of an error"
    try:
        result = bench.target.loss(x, 0.0, reduction=case.reduction)
    except Exception:
        return
    zeros = case.replace(target=case.target.replace(fill=case.target.fill.__class__("zero")))
    if not is_permitted(zeros, result):
        yield f"the target 0.0 gave {brief(result)}: wrong, and no error"


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
