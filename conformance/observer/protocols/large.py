"""Protocols on many elements. The largest tensors are made here, and only a part is handed back."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, gradients, protocol


@protocol
def value(kit: Kit, *, x: Tensor, reduction: str) -> Evidence:
    """The ``result`` beside zeros."""
    return {"result": kit.loss(x, torch.zeros_like(x), reduction)}


@protocol
def gradient(kit: Kit, *, x: Tensor, g: str, reduction: str) -> Evidence:
    """The ``gradient`` of ``x`` beside zeros.

    ``g``: ``ones`` or ``zeros``, as grad_output; or ``one``, expanded, as it comes from a sum.
    """
    result = kit.loss(x, torch.zeros_like(x), reduction)
    if g == "one":
        (found,) = torch.autograd.grad(result.sum(), x)
    else:
        (found,) = gradients(result, x, g=torch.full_like(result, g == "ones"))
    return {"gradient": found}


@protocol
def results_of_rows(
    kit: Kit, *, x: Tensor, y: Tensor, width: int, dense: bool, reductions: list[str]
) -> Evidence:
    """By each reduction, the result for rows of one number each, ``x``, beside one ``y``.

    Both are expanded to ``width`` columns; ``dense``: they are copied to memory of that size. Of a
    result for each element there is the last column.
    """
    a, b = (_expanded(t, len(x), width, dense) for t in (x, y))
    seen = {}
    for reduction in reductions:
        with torch.no_grad():
            got = kit.loss(a, b, reduction)
        if reduction == "none" and isinstance(got, Tensor) and got.dim() == 2:
            got = got[:, -1].contiguous()
        seen[reduction] = got
    return seen


@protocol
def gradient_of_rows(
    kit: Kit, *, x: Tensor, y: Tensor, width: int, dense: bool, g: float, reduction: str
) -> Evidence:
    """The ``gradient`` of the numbers ``x``, each summed over the row that it was expanded to.

    As :func:`results_of_rows`; ``g``: every element of grad_output.
    """
    a, b = (_expanded(t, len(x), width, dense) for t in (x, y))
    result = kit.loss(a, b, reduction)
    full = torch.full((), g, dtype=result.dtype, device=result.device).expand(result.shape)
    (found,) = torch.autograd.grad(result, x, full)
    return {"gradient": found}


def _expanded(column: Tensor, rows: int, width: int, dense: bool) -> Tensor:
    expanded = column.expand(rows, width)
    return expanded.contiguous() if dense else expanded


@protocol
def free_memory(kit: Kit) -> Evidence:
    """``bytes`` that tensors on the device can take; -1 where the system does not say."""
    if torch.device(kit.device).type == "cuda":
        return {"bytes": int(torch.cuda.mem_get_info(kit.device)[0])}
    return {"bytes": _available()}


def _available() -> int:
    """Without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return -1
