"""Experiments on dtypes: 0-d promotion, and pairs that the builtin refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    Shape,
    brief,
    close,
    experiment,
    gradients,
)


@experiment("dtypes.scalar")
def _dtypes_scalar(bench: Bench) -> Messages:
    if "float32" not in bench.target.dtypes:
        return
    for x, y in (((), (3,)), ((3,), ())):
        kinds = ("float64", "float32") if x == () else ("float32", "float64")
        a, b = bench.tensor(x, 1, kinds[0]), bench.tensor(y, 2, kinds[1])
        result = bench.loss(a, b, bench.reductions[0])
        if getattr(result, "dtype", None) != torch.float64:
            yield f"{kinds[0]}{list(x)} with {kinds[1]}{list(y)} gave {brief(result)}, not float64"


@experiment("dtypes.result")
def _dtypes_result(bench: Bench) -> Messages:
    """The default dtype is for numbers that have none: it changes neither value nor gradient."""
    usual_other = torch.float32 if bench.dtype == "float64" else torch.float64
    # 777 is no number of bfloat16.
    places = (((3,), usual_other), ((), usual_other), ((777,), torch.bfloat16))
    judged, error = False, None
    for reduction, (shape, other) in itertools.product(bench.reductions, places):
        try:
            usual = _with_default(bench, torch.get_default_dtype(), shape, reduction)
        except Exception as raised:
            error = raised  # where another call does not raise, other clauses say so
            continue
        judged = True
        unusual = _with_default(bench, other, shape, reduction)
        again = _with_default(bench, torch.get_default_dtype(), shape, reduction)
        for what, one, two, three in zip(
            ("result", "gradient"), usual, unusual, again, strict=True
        ):
            if close(one, three) and not close(one, two):  # other clauses ask for a repeat
                text = f"with {other} as the default dtype the {what} is {brief(two)}"
                yield f"{text}, else {brief(one)} ({reduction})"
    if error and not judged:
        raise error


def _with_default(
    bench: Bench, default: torch.dtype, shape: Shape, reduction: str
) -> tuple[torch.Tensor, ...]:
    """The result, and the gradient of the input, while ``default`` is the default dtype."""
    x, y = bench.tensor(shape, 1).requires_grad_(), bench.tensor(shape, 2)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        result = bench.loss(x, y, reduction)
        return result, *gradients(result, x)
    finally:
        torch.set_default_dtype(before)


Kind = torch.dtype | None  # None: the experiment's own

# What the kinds hold; the squares of the larger ones pass a byte, not what the kind itself holds.
_WIDE, _SMALL = ([1, 0, 1, 300], [0, 1, -90, 3]), ([1, 0, 1, 1], [0, 1, 1, 3])
_UNSIGNED = ([1, 0, 3, 65280], [0, 1, 3, 65280])  # the largest of 16 bits that every dtype holds
_PAIRS: tuple[tuple[Kind, Kind, tuple[list[int], list[int]]], ...] = (
    (torch.int64, torch.int64, _WIDE),
    (torch.int32, torch.int32, _WIDE),
    (torch.int64, torch.int32, _WIDE),
    (torch.int16, torch.int16, ([1, 0, 1, 90], [0, 1, -90, 3])),
    (torch.int8, torch.int8, _SMALL),
    (torch.uint8, torch.uint8, _SMALL),
    (torch.bool, torch.bool, ([1, 0, 1, 1], [0, 1, 1, 0])),
    (torch.complex64, torch.complex64, _SMALL),
    (None, torch.complex64, _SMALL),
    (torch.complex64, None, _SMALL),
    (None, torch.uint16, _UNSIGNED),
    (torch.uint32, None, _UNSIGNED[::-1]),
)


@experiment("dtypes.unsupported")
def _dtypes_unsupported(bench: Bench) -> Messages:
    """Pairs that the builtin refuses, and rare ones: raise, or be exactly right."""
    for (*kinds, values), reduction in itertools.product(_PAIRS, bench.reductions):
        x, y = (_of_kind(bench, kind, v) for kind, v in zip(kinds, values, strict=True))
        exact = (_complex(x) - _complex(y)) ** 2
        try:
            result = bench.loss(x, y, reduction)
        except Exception:
            continue
        wanted = {"none": exact, "sum": exact.sum(), "mean": exact.mean()}[reduction]
        if not isinstance(result, torch.Tensor) or not np.array_equal(_complex(result), wanted):
            text = f"operands of {x.dtype} and {y.dtype} ({reduction})"
            wanted = np.real_if_close(wanted).tolist()
            yield f"{text} gave {brief(result)}, not {wanted}, and no error"


def _of_kind(bench: Bench, kind: Kind, values: list[int]) -> torch.Tensor:
    dtype = kind or getattr(torch, bench.dtype)
    made = torch.tensor(values, device=bench.device).to(dtype)
    return made * 1j if dtype.is_complex else made


def _complex(tensor: torch.Tensor) -> Any:
    """Any numbers that torch has, as NumPy's."""
    return tensor.detach().cpu().to(torch.complex128).numpy()
