"""Experiments on dtypes: 0-d promotion, and pairs that the builtin refuses."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from conformance.experiments.bench import (
    Bench,
    Messages,
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
    other = torch.float32 if bench.dtype == "float64" else torch.float64
    before = torch.get_default_dtype()
    for reduction, shape in itertools.product(bench.reductions, ((3,), ())):
        results = []
        for default in (before, other):
            x, y = bench.tensor(shape, 1).requires_grad_(), bench.tensor(shape, 2)
            torch.set_default_dtype(default)
            try:
                result = bench.loss(x, y, reduction)
                results.append((result, *gradients(result, x)))
            finally:
                torch.set_default_dtype(before)
        for what, one, two in zip(("result", "gradient"), *results, strict=True):
            if not close(one, two):
                text = f"with {other} as the default dtype the {what} is {brief(two)}"
                yield f"{text}, else {brief(one)} ({reduction})"


# What the kinds hold; the squares of the larger ones pass a byte, not what the kind itself holds.
_PAIRS: tuple[tuple[torch.dtype, list[int], list[int]], ...] = (
    (torch.int64, [1, 0, 1, 300], [0, 1, -90, 3]),
    (torch.int32, [1, 0, 1, 300], [0, 1, -90, 3]),
    (torch.uint8, [1, 0, 1, 1], [0, 1, 1, 3]),
    (torch.bool, [1, 0, 1, 1], [0, 1, 1, 0]),
    (torch.complex64, [1, 0, 1, 1], [0, 1, 1, 3]),
)


@experiment("dtypes.unsupported")
def _dtypes_unsupported(bench: Bench) -> Messages:
    """Pairs that the builtin refuses: raise, or be exactly right in a dtype that can hold it."""
    for (kind, a, b), reduction in itertools.product(_PAIRS, bench.reductions):
        x = torch.tensor(a, device=bench.device).to(kind)
        y = torch.tensor(b, device=bench.device).to(kind)
        if kind.is_complex:
            x = x * 1j
        try:
            result = bench.loss(x, y, reduction)
        except Exception:
            continue
        exact = (np.asarray(x.cpu().numpy()) * 1.0 - y.cpu().numpy()) ** 2
        wanted = {"none": exact, "sum": exact.sum(), "mean": exact.mean()}[reduction]
        if not isinstance(result, torch.Tensor) or not np.array_equal(result.cpu().numpy(), wanted):
            yield f"two {kind} operands ({reduction}) gave {brief(result)}: wrong, and no error"
