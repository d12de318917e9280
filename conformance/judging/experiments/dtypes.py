"""Experiments on dtypes: 0-d promotion, and pairs that the builtin refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

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


@experiment("dtypes.scalar")
def _scalar(bench: Bench) -> Messages:
    if "float32" not in bench.target.dtypes:
        return
    for x, y in (((), (3,)), ((3,), ())):
        kinds = ("float64", "float32") if x == () else ("float32", "float64")
        a, b = bench.tensor(x, 1, kinds[0]), bench.tensor(y, 2, kinds[1])
        result = bench.loss(a, b, bench.reductions[0])
        if getattr(result, "dtype", None) != "float64":
            yield f"{kinds[0]}{list(x)} with {kinds[1]}{list(y)} gave {brief(result)}, not float64"


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


# What the kinds hold; the squares of the larger ones pass a byte, not what the kind itself holds.
_WIDE, _SMALL = ([1, 0, 1, 300], [0, 1, -90, 3]), ([1, 0, 1, 1], [0, 1, 1, 3])
_UNSIGNED = ([1, 0, 3, 65280], [0, 1, 3, 65280])  # the largest of 16 bits that every dtype holds
_OWN = ""  # the experiment's own dtype
_PAIRS: tuple[tuple[str, str, tuple[list[int], list[int]]], ...] = (
    ("int64", "int64", _WIDE),
    ("int32", "int32", _WIDE),
    ("int64", "int32", _WIDE),
    ("int16", "int16", ([1, 0, 1, 90], [0, 1, -90, 3])),
    ("int8", "int8", _SMALL),
    ("uint8", "uint8", _SMALL),
    ("bool", "bool", ([1, 0, 1, 1], [0, 1, 1, 0])),
    ("complex64", "complex64", _SMALL),
    (_OWN, "complex64", _SMALL),
    ("complex64", _OWN, _SMALL),
    (_OWN, "uint16", _UNSIGNED),
    ("uint32", _OWN, _UNSIGNED[::-1]),
)


@experiment("dtypes.unsupported")
def _unsupported(bench: Bench) -> Messages:
    """Pairs that the builtin refuses, and rare ones: raise, or be exactly right."""
    for x_kind, y_kind, values in _PAIRS:
        kinds = [kind or bench.dtype for kind in (x_kind, y_kind)]
        x, y = (Given(np.array(numbers, np.float64), "int64") for numbers in values)
        settings = {"kinds": kinds, "reductions": list(bench.reductions)}
        seen = bench.ask("dtypes.of_kinds", x=x, y=y, **settings)
        exact = (_meant(x, kinds[0]) - _meant(y, kinds[1])) ** 2
        for reduction in bench.reductions:
            attempt = seen.items_of(reduction)
            wanted = {"none": exact, "sum": exact.sum(), "mean": exact.mean()}[reduction]
            if "got" in attempt and not np.array_equal(_numbers(attempt), wanted):
                text = f"operands of torch.{kinds[0]} and torch.{kinds[1]} ({reduction})"
                shown = np.real_if_close(wanted).tolist()
                yield f"{text} gave {_told(attempt)}, not {shown}, and no error"


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
    return brief(Seen(numbers.real, dtype, "cpu"))
