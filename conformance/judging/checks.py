"""Compare an observation with what is permitted: every clause that looks at one run of a case.

``deviations`` is the one place where a case's observation is judged (batch.py has it judge many at
once). A deviation has an *aspect*: either a clause id (it always falls under that clause), or
``value``, ``gradient.input`` or ``gradient.target``, whose clause depends on which feature of the
case matters (attribution.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.cases.case import Case
from conformance.cases.features import result_shape
from conformance.judging.oracle import (
    permitted_gradient,
    permitted_value,
    permitted_with_factor,
    result_dtypes,
)
from conformance.judging.seen import Observation, Seen
from reference.enclosure import NAN, NEG_INF, POS_INF, VOID, PermittedSet
from reference.formats import Floats

ASPECTS = ("value", "gradient.input", "gradient.target")
ORDERS = (1, 6, None)  # of operations of a gradient, looked at one after the other: how many
SHOWN = 256  # places of wrong elements that are kept, evenly spread over all of them
BEYOND = 1000.0  # the error of what is no number, or further outside than this


@dataclass(frozen=True)
class Where:
    """Which elements of what was seen are wrong.

    ``of``: result, gradient of input or gradient of target. ``wrong``: their flat row-major
    indices, at most :data:`SHOWN`; ``count``: how many there are.
    """

    of: str
    shape: tuple[int, ...]
    wrong: tuple[int, ...]
    count: int

    def to_json(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "shape": list(self.shape),
            "wrong": list(self.wrong),
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Where:
        return cls(data["of"], tuple(data["shape"]), tuple(data["wrong"]), data["count"])


@dataclass(frozen=True)
class Deviation:
    """What was not as permitted. ``message``: for people, without the case.

    ``where``, ``error``: the wrong elements, where there are any, and the worst of their errors as
    a share of what is permitted: above 1, at most :data:`BEYOND`.
    """

    aspect: str
    message: str
    where: Where | None = None
    error: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """All deviations of one run, and how much of the permitted error each aspect used.

    An aspect without a share was not seen to be right. ``returned``: there was a result at all.
    """

    deviations: tuple[Deviation, ...]
    shares: dict[str, float]
    returned: bool = False


# How the numbers of a tensor are judged: its aspect, its name, itself, and the permitted sets, of
# which one is to hold them.
Compare = Callable[[str, str, Seen, Iterable[PermittedSet]], list[Deviation]]


def judge_observation(case: Case, seen: Observation) -> Judgement:
    """Every clause on one observation."""
    shares: dict[str, float] = {}
    compare = functools.partial(_compare, shares)
    return Judgement(tuple(deviations(case, seen, compare)), shares, seen.value is not None)


def deviations(case: Case, seen: Observation, compare: Compare) -> list[Deviation]:
    """All that is not as permitted, where ``compare`` judges the numbers."""
    found: list[Deviation] = []
    if seen.rubbish is not None:
        found.append(Deviation("value.tensor", f"returned {seen.rubbish}, not a dense real tensor"))
    elif seen.raised is not None:
        if "bool" not in (case.input.dtype, case.target.dtype):  # it may raise, as `-` does
            found.append(Deviation("value", f"raised {seen.raised}"))
    elif seen.value is not None:
        found = _result(case, seen, seen.value, compare)
    return found + _purity(seen)


def _purity(seen: Observation) -> list[Deviation]:
    found = [Deviation("purity.state", f"a call changed {text}") for text in seen.settings]
    for name in seen.attributes:
        text = f"a call changed requires_grad, .grad, memory, strides or dtype of {name}"
        found.append(Deviation("purity.attributes", text))
    for name in seen.changed:
        clause = "purity.grad_output" if name == "grad_output" else "purity.inputs"
        text = f"{name}: its memory or its version counter changed during the call"
        found.append(Deviation(clause, text))
    return found


def _result(case: Case, seen: Observation, value: Seen, compare: Compare) -> list[Deviation]:
    found = []
    dtypes = result_dtypes(case)
    if value.dtype not in dtypes:
        expected = " or ".join(dtypes)
        return [Deviation("dtypes.result", f"the result is {value.dtype}, not {expected}")]
    shape = result_shape(case)
    if value.values.shape != shape:
        text = f"the result has shape {value.values.shape}, not {shape}"
        found.append(Deviation("value", text))
    else:
        found += compare("value", "result", value, _permitted_values(case, value.dtype))
    if seen.alias:
        found.append(Deviation("purity.alias", f"the result shares memory with {seen.alias}"))
    return found + _gradients(case, seen, value, compare)


def _gradients(case: Case, seen: Observation, value: Seen, compare: Compare) -> list[Deviation]:
    wanted = case.differentiated
    if not wanted:
        if seen.requires_grad:
            text = "the result requires a gradient although none is asked for"
            return [Deviation("gradient.unneeded", text)]
        return []
    found = []
    for operand in wanted:
        aspect = f"gradient.{operand}"
        gradient = seen.gradients.get(operand)
        if not seen.requires_grad:
            found.append(
                Deviation(aspect, "the result has no grad_fn: it cannot be trained through")
            )
        elif seen.raised_backward is not None:
            found.append(Deviation(aspect, f"backward raised {seen.raised_backward}"))
        elif gradient is None:
            found.append(Deviation(aspect, f"no gradient for {operand} (None)"))
        elif seen.value is not None and seen.value.values.shape == result_shape(case):
            found += _gradient(case, operand, gradient, value.dtype, compare)
    return found


def _gradient(
    case: Case, operand: str, gradient: Seen, dtype: str, compare: Compare
) -> list[Deviation]:
    aspect, wanted = f"gradient.{operand}", getattr(case, operand)
    if gradient.values.shape != wanted.shape:
        text = f"gradient of {operand} has shape {gradient.values.shape}, not {wanted.shape}"
        return [Deviation(aspect, text)]
    if gradient.dtype != wanted.dtype:
        text = f"gradient of {operand} is {gradient.dtype}, not {wanted.dtype}"
        return [Deviation(aspect, text)]
    sets = _permitted_gradients(case, operand, dtype)
    return compare(aspect, f"gradient of {operand}", gradient, sets)


def _permitted_values(case: Case, dtype: str) -> Iterator[PermittedSet]:
    yield permitted_value(case, dtype)


def _permitted_gradients(case: Case, operand: str, dtype: str) -> Iterator[PermittedSet]:
    # The builtin's order of operations first, then those of one step: most gradients are inside,
    # and they cost less.
    for orders in ORDERS:
        yield permitted_gradient(case, dtype, operand, orders)
    # Where a 0-d operand leaves two dtypes to compute in, a backward may choose the other one.
    for other in result_dtypes(case):
        if other != dtype:
            yield permitted_gradient(case, other, operand)
    factored = permitted_with_factor(case, dtype, operand)
    if factored is not None:
        yield factored


def _compare(
    shares: dict[str, float], aspect: str, what: str, seen: Seen, sets: Iterable[PermittedSet]
) -> list[Deviation]:
    """Whether one of the permitted ``sets`` holds what was seen; if not, it is told by the last."""
    if not seen.values.size:
        shares[aspect] = 0.0
        return []
    for permitted in sets:
        inside = permitted.contains(seen.values)
        if inside.all():
            shares[aspect] = float(permitted.share(seen.values).max())
            return []
    wrong = np.argwhere(~inside)
    message, where = _explain(what, seen, permitted, wrong), _where(what, ~inside)
    return [Deviation(aspect, message, where, _error(permitted.share(seen.values)[~inside]))]


def _where(of: str, outside: NDArray[np.bool_]) -> Where:
    flat = np.flatnonzero(outside)
    shown = flat[np.linspace(0, flat.size - 1, min(flat.size, SHOWN)).astype(int)]
    return Where(of, outside.shape, tuple(shown.tolist()), int(flat.size))


def _error(shares: Floats) -> float:
    """The worst of the shares of wrong elements; those that are not above 1 are no numbers."""
    return BEYOND if (shares <= 1).any() else min(float(shares.max()), BEYOND)


def _explain(what: str, seen: Seen, permitted: PermittedSet, wrong: np.ndarray) -> str:
    """The first wrong element, got against permitted in decimal and hexadecimal."""
    where = tuple(int(i) for i in wrong[0])
    got = float(seen.values[where])
    place = f"[{', '.join(map(str, where))}]" if where else ""
    some = seen.values.size > 1
    count = f" ({len(wrong)} of {seen.values.size} elements are wrong)" if some else ""
    return f"{what}{place} is {number(got)}, permitted: {_permitted_text(permitted, where)}{count}"


def _permitted_text(permitted: PermittedSet, where: tuple[int, ...]) -> str:
    flags = 0 if permitted.flags is None else int(permitted.flags[where])
    parts = []
    if not flags & VOID:
        low, high = float(permitted.lower[where]), float(permitted.upper[where])
        parts.append(number(low) if low == high else f"{number(low)} to {number(high)}")
    names = ((NAN, "nan"), (POS_INF, "inf"), (NEG_INF, "-inf"))
    return " or ".join(parts + [name for bit, name in names if flags & bit])


def number(v: float) -> str:
    """``0.3 (0x1.3333333333333p-2)``: the shortest decimal that is exact in float64, and hex."""
    if not math.isfinite(v):
        return str(float(v))
    digits, exponent = float.hex(v).split("p") if v else ("0x0.0", "+0")
    mantissa = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{v!r} ({mantissa}p{exponent})"
