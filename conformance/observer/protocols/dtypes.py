"""Protocols on dtypes: another default dtype, and dtypes that no other call has."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, attempt, fresh, protocol
from conformance.observer.protocols.plain import trained


@protocol
def under_default(kit: Kit, *, x: Tensor, y: Tensor, reduction: str, default: str) -> Evidence:
    """``result`` and ``gradient`` of ``x``: as ``usual``, as ``unusual`` while ``default`` is the
    default dtype, and as usual ``again``. Or what the first call ``raised``, and its ``kind``.
    """

    def call() -> Evidence:
        return trained(kit, x=fresh(x), y=fresh(y), reduction=reduction)

    usual = attempt(call)
    if "got" not in usual:
        return usual
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, default))
    try:
        unusual = call()
    finally:
        torch.set_default_dtype(before)
    return {"usual": usual["got"], "unusual": unusual, "again": call()}


@protocol
def of_kinds(
    kit: Kit, *, x: Tensor, y: Tensor, kinds: list[str], reductions: list[str]
) -> Evidence:
    """By each reduction: what a call gives for operands of these ``kinds``, or what it raised.

    A complex operand has the numbers as its imaginary part. Of a tensor that was given there are
    ``dtype`` and, as float64 behind its dimensions, its real and imaginary ``parts``.
    """
    seen = {}
    for reduction in reductions:
        a, b = (_of_kind(t.clone(), kind) for t, kind in zip((x, y), kinds, strict=True))
        seen[reduction] = attempt(functools.partial(kit.loss, a, b, reduction))
        result = seen[reduction].get("got")
        if isinstance(result, Tensor):  # not every device converts every dtype
            parts = torch.view_as_real(result.detach().cpu().to(torch.complex128))
            seen[reduction]["got"] = {"dtype": _name(result.dtype), "parts": parts}
    return seen


def _of_kind(tensor: Tensor, kind: str) -> Tensor:
    made = tensor.to(getattr(torch, kind))
    return made * 1j if made.is_complex() else made


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
