"""What a run measured over all its cases: the worst error by size and exponent, and coverage.

A passing clause reports one worst case; these say where in the space of cases the errors grow, and
which cells of that space the run has been to at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.cases.values import elements
from conformance.judging.checks import ASPECTS, Judgement

Bin = tuple[str, str, str, int]  # value or gradient, dtype, size or exponent, power of two
Cell = tuple[str, str, str, str]  # dtype, reduction, layout family, autograd path

# Layouts that break the same assumption; of two operands, the later family here counts.
FAMILIES = {
    "contiguous": "contiguous",
    "offset": "misaligned",
    "strided": "stepped",
    "narrow": "stepped",
    "cropped": "stepped",
    "transposed": "permuted",
    "permuted": "permuted",
    "channels_last": "permuted",
    "expanded": "stride 0",
    "repeated": "stride 0",
    "weighted": "stride 0",
    "filled": "stride 0",
    "overlapping": "overlapping",
}
_RANK = {family: rank for rank, family in enumerate(dict.fromkeys(FAMILIES.values()))}
_PATHS = {(): "none", ("input",): "input", ("target",): "target", ("input", "target"): "both"}


def measure(
    case: Case, judgement: Judgement, accuracy: dict[Bin, float], coverage: dict[Cell, int]
) -> None:
    """Count a case that ran, and its errors where they are worse than what was known."""
    dtype = case.dtype
    cell = (dtype, case.reduction, layout_family(case), path(case))
    coverage[cell] = coverage.get(cell, 0) + 1
    errors = dict(judgement.shares)
    for deviation in judgement.deviations:
        if deviation.where is not None and deviation.aspect in ASPECTS:
            errors[deviation.aspect] = deviation.error
    if not errors:
        return
    for axis, power in (("size", _power(math.prod(case.shape))), ("exponent", exponent(case))):
        if power is not None:
            for aspect, error in errors.items():
                place = (aspect.partition(".")[0], dtype, axis, power)
                if error >= accuracy.get(place, 0.0):
                    accuracy[place] = error


def layout_family(case: Case) -> str:
    """The family of the operands' layouts, of the more unusual one where they differ."""
    if case.input.layout == case.target.layout == "contiguous":
        return "contiguous"
    return max(FAMILIES[case.input.layout], FAMILIES[case.target.layout], key=_RANK.__getitem__)


def path(case: Case) -> str:
    """The autograd path: no_grad, inference, or the operands whose gradient is asked for."""
    return _PATHS[case.differentiated] if case.mode == "grad" else case.mode


def exponent(case: Case) -> int | None:
    """The power of two of the largest finite |x − y|; None where there is none but 0."""
    if case.same:
        return None
    with np.errstate(all="ignore"):
        distance = np.abs(elements(case.input) - elements(case.target))
    largest = float(distance.max(initial=0.0))
    if not math.isfinite(largest):
        largest = float(distance[np.isfinite(distance)].max(initial=0.0))
    return math.frexp(largest)[1] - 1 if largest else None


def _power(n: int) -> int | None:
    return n.bit_length() - 1 if n else None


def accuracy_rows(accuracy: dict[Bin, float]) -> list[dict[str, Any]]:
    """As a verdict has them, in order."""
    names = ("aspect", "dtype", "axis", "bin", "worst")
    return [dict(zip(names, (*k, v), strict=True)) for k, v in sorted(accuracy.items())]


def coverage_rows(coverage: dict[Cell, int]) -> list[dict[str, Any]]:
    """As a verdict has them, in order."""
    names = ("dtype", "reduction", "layout", "path", "examples")
    return [dict(zip(names, (*k, v), strict=True)) for k, v in sorted(coverage.items())]
