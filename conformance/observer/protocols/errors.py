"""Protocols on mistakes of the caller."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from conformance.observer.dispatch import Mode
from conformance.observer.protocols.kit import Evidence, Kit, attempt, protocol


@protocol
def module(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """What a module gives that is made with this reduction, or what one of both raised."""
    return attempt(lambda: kit.module(reduction)(x, y))


@protocol
def beside(kit: Kit, *, x: Tensor, other: Any, kind: str, place: str, reduction: str) -> Evidence:
    """What a call gives with ``x`` and something else, which is the ``place``; or what it raised.

    ``kind``: plain, for ``other`` itself; dict, for one that has ``x`` in it; or the dtype of an
    array of the numbers ``other``. That is NumPy's, and where there is none nothing is seen.
    """
    if kind == "dict":
        other = {"a": x}
    elif kind != "plain":
        try:
            import numpy
        except ImportError:
            return {}
        other = numpy.array(other, kind)
    a, b = (x, other) if place == "target" else (other, x)
    return attempt(lambda: kit.loss(a, b, reduction))


@protocol
def beside_meta(kit: Kit, *, x: Tensor, y: Tensor, place: str, reduction: str) -> Evidence:
    """What a call gives with ``x`` and, as the ``place``, ``y`` on the meta device; or raises."""
    a, b = _with_meta(x, y, place)
    return attempt(lambda: kit.loss(a, b, reduction))


@protocol
def kernels_beside_meta(kit: Kit, *, x: Tensor, y: Tensor, place: str, reduction: str) -> Evidence:
    """Whether such a call ``reached`` a kernel that does not look at devices.

    In a call of its own: what Dynamo meets under such a mode it never compiles again.
    """
    a, b = _with_meta(x, y, place)
    with _Operators() as operators, contextlib.suppress(Exception):
        kit.loss(a, b, reduction)
    return {"reached": bool(operators.mixed)}


def _with_meta(x: Tensor, y: Tensor, place: str) -> tuple[Tensor, Tensor]:
    return (x, y.to("meta")) if place == "target" else (y.to("meta"), x)


class _Operators(Mode):
    """Sees whether tensors on several devices reach a kernel that does not look at devices.

    Such is any of an operator that is not torch's own, and torch's own of one that works in place
    (but ``copy_``, which moves elements between real devices too).
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed: bool = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        leaves = tree_leaves((args, kwargs))
        kinds = {t.device.type for t in leaves if isinstance(t, torch.Tensor)}
        own = func.namespace in ("aten", "prim", "prims")
        in_place = func._schema.is_mutable and func.overloadpacket is not torch.ops.aten.copy_
        self.mixed |= len(kinds) > 1 and (in_place or not own)
        return func(*args, **(kwargs or {}))
