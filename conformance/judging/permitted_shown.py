"""What is permitted of the elements that a report shows: as data, for who knows no oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.judging.findings import Finding
from conformance.judging.oracle import (
    permitted_gradient,
    permitted_value,
    permitted_with_factor,
    result_dtypes,
)
from reference.enclosure import NAN, NEG_INF, POS_INF, VOID, PermittedSet

SHOWN = 8  # wrong elements
Json = dict[str, Any]


def shown(finding: Finding) -> Json:
    """``dtypes`` that the result may have, the builtin's first; and ``elements``, where some are
    wrong: for each of these dtypes, or once of a gradient, a list of ``[index, [[from, to], …]]``.
    """
    case, where = finding.case, finding.where
    if case is None:
        return {"dtypes": [], "elements": []}
    dtypes = result_dtypes(case)
    if finding.status != "fail" or where is None:
        ways: list[list[PermittedSet]] = []
    elif finding.aspect == "value":
        ways = [[permitted_value(case, dtype)] for dtype in dtypes]
    else:
        operand = finding.aspect.removeprefix("gradient.")
        factored = (permitted_with_factor(case, dtype, operand) for dtype in dtypes)
        sets = [permitted_gradient(case, dtype, operand) for dtype in dtypes]
        ways = [[*sets, *(one for one in factored if one is not None)]]
    places = [] if where is None else [_at(flat, where.shape) for flat in where.wrong[:SHOWN]]
    elements = [[[list(at), _intervals(sets, at)] for at in places] for sets in ways]
    return {"dtypes": list(dtypes), "elements": elements}


def _at(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _intervals(sets: list[PermittedSet], at: tuple[int, ...]) -> list[list[float]]:
    """Of one element, what any of the sets holds."""
    found = (interval for one in sets for interval in _of(one, at))
    return [list(interval) for interval in dict.fromkeys(found)]


def _of(permitted: PermittedSet, at: tuple[int, ...]) -> Iterator[tuple[float, float]]:
    flags = 0 if permitted.flags is None else int(permitted.flags[at])
    if not flags & VOID:
        yield float(permitted.lower[at]), float(permitted.upper[at])
    for bit, value in ((NAN, np.nan), (POS_INF, np.inf), (NEG_INF, -np.inf)):
        if flags & bit:
            yield value, value
