"""Experiments on mistakes of the caller: an exception, never a number."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    brief,
    deviation,
    deviation_of_loss,
    eighths,
    experiment,
)
from reference import mse


@experiment("errors.reduction")
def _reduction(bench: Bench) -> Messages:
    """Misspelt ones, longer and shorter; names that other losses know are left alone.

    Of vectors and scalars, without and with a gradient, and of a module, as it is made or called.
    """
    for reduction in ("", "meen", "su", "nothing", "means", "sums", "nones", 7, None):
        for shape, needs in itertools.product(((3,), ()), (False, True)):
            x, y = bench.tensor(shape, 1).requires_grad_(needs), bench.tensor(shape, 2)
            try:
                result: Any = bench.target.loss(x, y, reduction=reduction)
            except Exception:
                continue
            text = f"shape {shape}, {'a' if needs else 'no'} gradient"
            yield f"reduction={reduction!r} gave {brief(result)} instead of an error ({text})"
    if bench.claims("module") and bench.target.module is not None:
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        with contextlib.suppress(Exception):
            result = bench.target.module(reduction="meen")(x, y)
            yield f"a module with reduction='meen' gave {brief(result)} instead of an error"


@experiment("errors.operands")
def _operands(bench: Bench) -> Messages:
    """What is no number raises; a number, or a list of some, raises or is right."""
    reduction, x = bench.reductions[0], bench.tensor((5,), 1)
    for wrong in (None, "1.0", {"a": x}):
        for operands in ((x, wrong), (wrong, x)):
            try:
                result: Any = bench.target.loss(*operands, reduction=reduction)
            except Exception:
                continue
            yield f"the operand {wrong!r} gave {brief(result)} instead of an error"
    for zero in (0.0, [0.0] * x.numel()):
        try:
            result = bench.target.loss(x, zero, reduction=reduction)
        except Exception:
            continue
        text = f"with the target {zero} and no error the result"
        yield from deviation_of_loss(bench, text, result, x, torch.zeros_like(x), reduction)
    values, target = eighths(bench, (5,), 1), eighths(bench, (5,), 2)
    kinds: dict[str, Any] = {"a list": target.tolist()}
    if bench.dtype in ("float64", "float32"):
        # More digits than the next narrower format holds.
        kinds["an array"] = (target * (1 + 2.0**-20)).astype(bench.dtype)
    for name, given in kinds.items():
        exact = np.asarray(mse.loss(values, np.asarray(given, np.float64), reduction))
        made = bench.made(values)
        for place, operands in (("target", (made, given)), ("input", (given, made))):
            try:
                result = bench.target.loss(*operands, reduction=reduction)
            except Exception:
                continue
            text = f"with {name} as {place} the result"
            yield from deviation(bench, text, result, exact, exact, 5)


@experiment("errors.devices")
def _devices(bench: Bench) -> Messages:
    """One operand here, one on the meta device, which every build of torch has.

    An operator of the target's own, or one in place, that gets both answers with its kernel for
    meta tensors, which computes nothing; operands on real devices get another. So it shows nothing.
    """
    for reduction in bench.reductions:
        x, y = bench.tensor((3,), 1), bench.tensor((3,), 2)
        for operands in itertools.permutations((x, y.to("meta"))):
            try:
                result = bench.loss(operands[0], operands[1], reduction)
            except Exception:
                continue
            if not _reach_operator(bench, operands, reduction):
                yield f"operands on {bench.device} and meta gave {brief(result)} ({reduction})"


def _reach_operator(bench: Bench, operands: tuple[torch.Tensor, ...], reduction: str) -> bool:
    """In a call of its own: what Dynamo meets under such a mode it never compiles again."""
    with _Operators() as operators, contextlib.suppress(Exception):
        bench.loss(operands[0], operands[1], reduction)
    return bool(operators.mixed)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees whether tensors on several devices reach a kernel that does not look at devices.

    Such is any of an operator that is not torch's own, and torch's own of one that works in place
    (but ``copy_``, which moves elements between real devices too).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
