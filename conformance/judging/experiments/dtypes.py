"""Experiments on dtypes: 0-d promotion, and pairs that the builtin refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from conformance.cases.values import FORMAT_OF
from conformance.clauses import WIDER
from conformance.judging.evidence import BadEvidence, Evidence
from conformance.judging.experiments.bench import (
    Bench,
    Messages,
    brief,
    close,
    experiment,
)
from conformance.judging.observer import Given, Raised
from conformance.judging.seen import Seen
from reference.enclosure import enclosed


@experiment("dtypes.scalar")
def _scalar(bench: Bench) -> Messages:
    if "float32" not in bench.target.dtypes:
        return
    for x, y in (((), (3,)), ((3,), ())):
        kinds = ("float64", "float32") if x == () else ("float32", "float64")
        a, b = bench.tensor(x, 1, kinds[0]), bench.tensor(y, 2, kinds[1])
        result = bench.loss(a, b, bench.reductions[0])
        wanted = bench.promoted(*kinds)
        if getattr(result, "dtype", None) != wanted:
            yield f"{kinds[0]}{list(x)} with {kinds[1]}{list(y)} gave {brief(result)}, not {wanted}"


@experiment("dtypes.result")
def _result(bench: Bench) -> Messages:
    """The default dtype is for numbers that have none: it changes neither value nor gradient."""
    usual_other = "float32" if bench.dtype == "float64" else "float64"
    # 777 is no number of bfloat16.
    places = (((3,), usual_other), ((), usual_other), ((777,), "bfloat16"))
    judged, error = False, None
    for reduction, (shape, other) in itertools.product(bench.reductions, places):
        x, y = bench.tensor(shape, 1).leaf(), bench.tensor(shape, 2)
        settings = {"reduction": reduction, "default": other}
        seen = bench.ask("dtypes.under_default", x=x, y=y, **settings)
        if "raised" in seen:  # where another call does not raise, other clauses say so
            error = Raised(seen.text("raised"), seen.text("kind"))
            continue
        judged = True
        calls = [seen.items_of(name) for name in ("usual", "unusual", "again")]
        for what in ("result", "gradient"):
            one, two, three = (call[what] for call in calls)
            if close(one, three) and not close(one, two):  # other clauses ask for a repeat
                text = f"with torch.{other} as the default dtype the {what} is {brief(two)}"
                yield f"{text}, else {brief(one)} ({reduction})"
    if error and not judged:
        raise error


_SMALL = ([1, 0, 1, 1], [0, 1, 1, 3])
_UNSIGNED = ([1, 0, 3, 65280], [0, 1, 3, 65280])  # the largest of 16 bits that every dtype holds
FEW = 8  # elements that a message lists
_OWN = ""  # the experiment's own dtype
# Of integers, what the narrower kind holds from end to end: differences and squares pass it. All
# are numbers of binary64, as the judge has them.
_PAIRS: tuple[tuple[str, str, tuple[list[int], list[int]]], ...] = (
    ("int64", "int64", ([3 << 61, -(1 << 63), (1 << 33) + 1, 1], [-(1 << 62), 5, 7, 3])),
    ("int32", "int32", ([(1 << 31) - 1, -(1 << 31), 70_000, 1], [-(1 << 31), 5, -70_000, 3])),
    ("int64", "int32", ([1 << 40, 0, 1, 70_000], [-(1 << 31), (1 << 31) - 1, -90, 3])),
    ("int16", "int16", ([32_767, -32_768, 300, 1], [-32_768, 5, -300, 3])),
    ("int16", "uint8", ([-32_768, 32_767, 0, 1], [255, 0, 255, 3])),
    ("int8", "int8", ([127, -128, 100, 1], [-128, 127, -100, 3])),
    ("uint8", "int8", ([255, 0, 200, 1], [-128, 127, -100, 3])),
    ("uint8", "uint8", ([255, 0, 200, 3], [0, 255, 7, 1])),
    ("bool", "uint8", ([1, 0, 1, 1], [255, 255, 0, 1])),
    ("bool", "bool", ([1, 0, 1, 1], [0, 1, 1, 0])),
    ("uint16", "uint16", ([65_535, 0, 300, 3], [0, 65_535, 1, 3])),
    ("complex64", "complex64", _SMALL),
    (_OWN, "complex64", _SMALL),
    ("complex64", _OWN, _SMALL),
    (_OWN, "uint16", _UNSIGNED),
    ("uint32", _OWN, _UNSIGNED[::-1]),
)


@experiment("dtypes.unsupported")
def _unsupported(bench: Bench) -> Messages:
    """Pairs that the builtin refuses, and rare ones: raise, or be right."""
    for x_kind, y_kind, values in _PAIRS:
        kinds = [kind or bench.dtype for kind in (x_kind, y_kind)]
        x, y = (Given(np.array(numbers, np.float64), "int64") for numbers in values)
        settings = {"kinds": kinds, "reductions": list(bench.reductions)}
        seen = bench.ask("dtypes.of_kinds", x=x, y=y, **settings)
        whole = all("int" in kind or kind == "bool" for kind in kinds)
        d = _meant(x, kinds[0]) - _meant(y, kinds[1])
        for reduction in bench.reductions:
            attempt = seen.items_of(reduction)
            wanted = bench.formula.value(d, reduction)
            if "got" not in attempt or np.array_equal(_numbers(attempt), wanted):
                continue
            if not (whole and _is_rounded(bench, attempt, x, y, reduction)):
                text = f"operands of torch.{kinds[0]} and torch.{kinds[1]} ({reduction})"
                shown = np.real_if_close(wanted).tolist()
                yield f"{text} gave {_told(attempt)}, not {shown}, and no error"


def _is_rounded(bench: Bench, attempt: Evidence, x: Given, y: Given, reduction: str) -> bool:
    """Whether two integer operands gave what converting them to the result's dtype permits.

    That is float32 or wider: nobody who hands in integers asks for a half.
    """
    numbers = _numbers(attempt)
    if numbers is None or attempt.items_of("got").text("dtype") not in WIDER:
        return False
    fmt = FORMAT_OF[attempt.items_of("got").text("dtype")]
    d = enclosed(fmt, x.values, exact=False) - enclosed(fmt, y.values, exact=False)
    permitted = bench.formula.value(d, reduction).rounded(fmt)
    return numbers.shape == permitted.lower.shape and bool(permitted.contains(numbers.real).all())


def _meant(given: Given, kind: str) -> Any:
    """The numbers of an operand of this kind."""
    return given.values * (1j if kind.startswith("complex") else 1)


def _numbers(attempt: Evidence) -> Any:
    """Those of the tensor that a call gave; None where it is none."""
    if not isinstance(attempt["got"], dict):
        return None
    parts = attempt.items_of("got").tensor("parts").values
    if parts.shape[-1:] != (2,):
        raise BadEvidence("numbers in the observer's answer have not two parts each")
    return parts[..., 0] + 1j * parts[..., 1]


def _told(attempt: Evidence) -> str:
    """What a call gave, in a few words."""
    numbers = _numbers(attempt)
    if numbers is None:
        return brief(attempt["got"])
    dtype = attempt.items_of("got").text("dtype")
    if dtype.startswith("complex"):
        return f"{dtype}{list(numbers.shape)}"
    if 1 < numbers.size <= FEW:
        return f"{dtype} {numbers.real.tolist()}"
    return brief(Seen(numbers.real, dtype, "cpu"))
