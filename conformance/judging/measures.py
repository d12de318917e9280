"""What a run measured over all its cases: the worst error by size and exponent, and coverage.

A passing clause reports one worst case; these say where in the space of cases the errors grow, and
which cells of that space the run has been to at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
_QUANTITY = {aspect: aspect.partition(".")[0] for aspect in ASPECTS}
_PATHS = {(): "none", ("input",): "input", ("target",): "target", ("input", "target"): "both"}


def measure(
    case: Case, judgement: Judgement, accuracy: dict[Bin, float], coverage: dict[Cell, int]
) -> None:
    """Count a case that ran, and its errors where they are worse than what was known."""
    measure_all([(case, judgement)], accuracy, coverage)


def measure_all(
    judged: Iterable[tuple[Case, Judgement]],
    accuracy: dict[Bin, float],
    coverage: dict[Cell, int],
) -> None:
    """The same for each of many cases, which costs less at once."""
    measured = []
    for case, judgement in judged:
        cell = (case.dtype, case.reduction, layout_family(case), path(case))
        coverage[cell] = coverage.get(cell, 0) + 1
        errors = _errors(judgement)
        if errors:
            measured.append((case, errors))
    powers = exponents([case for case, _ in measured])
    for (case, errors), power in zip(measured, powers, strict=True):
        for axis, index in (("size", _power(math.prod(case.shape))), ("exponent", power)):
            if index is not None:
                for aspect, error in errors.items():
                    place = (_QUANTITY[aspect], case.dtype, axis, index)
                    if error >= accuracy.get(place, 0.0):
                        accuracy[place] = error


def _errors(judgement: Judgement) -> dict[str, float]:
    """The error of each aspect that was judged, as a share of what is permitted."""
    if not judgement.deviations:
        return judgement.shares
    errors = dict(judgement.shares)
    for deviation in judgement.deviations:
        if deviation.where is not None and deviation.aspect in ASPECTS:
            errors[deviation.aspect] = deviation.error
    return errors


def layout_family(case: Case) -> str:
    """The family of the operands' layouts, of the more unusual one where they differ."""
    if case.input.layout == case.target.layout == "contiguous":
        return "contiguous"
    return max(FAMILIES[case.input.layout], FAMILIES[case.target.layout], key=_RANK.__getitem__)


def path(case: Case) -> str:
    """The autograd path: no_grad, inference, or the operands whose gradient is asked for."""
    return _PATHS[case.differentiated] if case.mode == "grad" else case.mode


def exponents(cases: Sequence[Case]) -> list[int | None]:
    """For each the power of two of its largest finite |x − y|; None where there is none but 0."""
    found: list[int | None] = [None] * len(cases)
    places = [i for i, case in enumerate(cases) if not case.same and 0 not in case.shape]
    if not places:
        return found
    with np.errstate(all="ignore"):
        distances = [elements(cases[i].input) - elements(cases[i].target) for i in places]
    flat = np.abs(np.concatenate([d.reshape(-1) for d in distances]))
    ends = np.cumsum([d.size for d in distances])
    largest = np.maximum.reduceat(np.where(np.isfinite(flat), flat, 0.0), [0, *ends[:-1]])
    for i, power, some in zip(places, np.frexp(largest)[1].tolist(), largest > 0, strict=True):
        found[i] = power - 1 if some else None
    return found


def exponent(case: Case) -> int | None:
    return exponents([case])[0]


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
