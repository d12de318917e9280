"""Experiments on mistakes of the caller: an exception, never a number."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    brief,
    deviation_of_loss,
    deviation_of_value,
    eighths,
    experiment,
)
from reference.formats import round_nearest

PLACES = ("target", "input")
_WRONG: list[Any] = ["", "meen", "su", "nothing", "means", "sums", "nones", 7, None]


@experiment("errors.reduction")
def _reduction(bench: Bench) -> Messages:
    """Misspelt ones, longer and shorter; names that other losses know are left alone.

    Of vectors and scalars, without and with a gradient, and of a module, as it is made or called.
    """
    seen = []
    for shape, needs in itertools.product(((3,), ()), (False, True)):
        x, y = bench.tensor(shape, 1).leaf(needs), bench.tensor(shape, 2)
        text = f"shape {shape}, {'a' if needs else 'no'} gradient"
        seen.append((bench.ask("plain.attempts", x=x, y=y, reductions=_WRONG), text))
    for reduction, (attempts, text) in itertools.product(_WRONG, seen):
        attempt = attempts.items_of(str(reduction))
        if "got" in attempt:
            what = f"reduction={reduction!r} gave {brief(attempt['got'])}"
            yield f"{what} instead of an error ({text})"
    if bench.claims("module"):
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        attempt = bench.ask("errors.module", x=x, y=y, reduction="meen")
        if "got" in attempt:
            what = f"a module with reduction='meen' gave {brief(attempt['got'])}"
            yield f"{what} instead of an error"


@experiment("errors.parameter")
def _parameter(bench: Bench) -> Messages:
    """Those that torch refuses; each in turn with a reduction and operands that do not need it."""
    x, y = bench.tensor((3,), 1).leaf(), bench.tensor((3,), 2)
    for (name, value), reduction in itertools.product(bench.target.refused, bench.reductions):
        if name in bench.target.parameters:
            given = {"name": name, "value": repr(value), "reduction": reduction}
            seen = bench.ask("plain.with_parameter", x=x, y=y, **given)
            if "got" in seen:
                what = f"{name}={value!r} gave {brief(seen['got'])}"
                yield f"{what} instead of an error ({reduction})"


@experiment("errors.operands")
def _operands(bench: Bench) -> Messages:
    """What is no number raises; a number, or a list of some, raises or is right."""
    x = bench.tensor((5,), 1)
    settings = {"x": x, "reduction": bench.reductions[0]}
    for wrong, kind in ((None, "plain"), ("1.0", "plain"), ("{'a': input}", "dict")):
        for place in PLACES:
            seen = bench.ask("errors.beside", other=wrong, kind=kind, place=place, **settings)
            if "got" in seen:
                shown = wrong if kind == "dict" else repr(wrong)
                yield f"the operand {shown} gave {brief(seen['got'])} instead of an error"
    for zero in (0.0, [0.0] * x.values.size):
        seen = bench.ask("errors.beside", other=zero, kind="plain", place="target", **settings)
        if "got" in seen:
            text = f"with the target {zero} and no error the result"
            zeros = bench.made(np.zeros(5))
            reduction = bench.reductions[0]
            yield from deviation_of_loss(bench, text, seen["got"], x, zeros, reduction)
    yield from _lists(bench)


def _lists(bench: Bench) -> Messages:
    """A list of numbers and, in the dtypes that NumPy has too, an array."""
    reduction = bench.reductions[0]
    values, target = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    kinds = [("a list", "plain", target)]
    if bench.dtype in ("float64", "float32"):
        # More digits than the next narrower format holds.
        longer = round_nearest(target * (1 + 2.0**-20), bench.fmt)
        kinds.append(("an array", bench.dtype, longer))
    for (name, kind, given), place in itertools.product(kinds, PLACES):
        settings = {"other": given.tolist(), "kind": kind, "place": place, "reduction": reduction}
        seen = bench.ask("errors.beside", x=bench.made(values), **settings)
        if "got" in seen:
            text = f"with {name} as {place} the result"
            yield from deviation_of_value(bench, text, seen["got"], values - given, reduction)


@experiment("errors.devices")
def _devices(bench: Bench) -> Messages:
    """One operand here, one on the meta device, which every build of torch has.

    An operator of the target's own, or one in place, that gets both answers with its kernel for
    meta tensors, which computes nothing; operands on real devices get another. So it shows nothing.
    """
    x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
    for reduction, place in itertools.product(bench.reductions, PLACES):
        settings = {"x": x, "y": y, "place": place, "reduction": reduction}
        seen = bench.ask("errors.beside_meta", **settings)
        if "got" not in seen:
            continue
        if not bench.ask("errors.kernels_beside_meta", **settings).flag("reached"):
            what = f"operands on {bench.device} and meta gave {brief(seen['got'])}"
            yield f"{what} ({reduction})"
