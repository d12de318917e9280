"""Run a target on cases, once each, and write down all that was seen.

A call comes as its operands (:data:`~conformance.observer.tensors.Placed`), ``[x, y, gs, needs,
reduction, mode, parameters]``: ``y`` is None where the target is the very tensor that is the input;
``gs`` are ``grad_output`` in each dtype that the result may have, and empty where nothing is
differentiated; ``parameters`` are texts by their names, since JSON knows no infinity.
What is written down of it has the keys of ``judging.seen.Observation``; what did not happen is left
out. What became of the operands' memory the judge reads in the arena itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from conformance.cases.arena import WIDTHS
from conformance.observer.devices import poison
from conformance.observer.protocols.kit import MODES, Kit, text_of
from conformance.observer.state import Settings
from conformance.observer.tensors import DTYPE_NAMES, Handed, Made, Notes, view_of

OPERANDS = ("input", "target")
Call = Sequence[Any]
Seen = dict[str, Any]


def observe(kit: Kit, call: Call, handed: Handed, notes: Notes) -> Seen:
    """One call: the loss and, where an operand needs one, its gradient."""
    placed_x, placed_y, gs, needs, reduction, mode, parameters = call
    x = view_of(handed.buffer(placed_x), placed_x, needs[0])
    y = x if placed_y is None else view_of(handed.buffer(placed_y), placed_y, needs[1])
    before = [(t.tensor.requires_grad, t.tensor._version) for t in (x, y)]
    if kit.device != "cpu":
        poison(kit.device, _sizes(call))
    seen: Seen = {}
    with MODES[mode]():
        settings = Settings.now()
        given = {name: float(value) for name, value in parameters.items()}
        result = _forward(kit, x, y, reduction, given, seen, notes)
        changed = settings.changes()
    if result is not None and gs:
        wanted = [t for t, needed in zip((x, y), needs, strict=True) if needed]
        names = [n for n, needed in zip(OPERANDS, needs, strict=True) if needed]
        if placed_y is None:
            wanted, names = wanted[:1], names[:1]
        _backward(call, result, dict(zip(names, wanted, strict=True)), seen, handed, notes)
        changed += settings.changes()
    if changed:
        seen["settings"] = changed
    _look_at_operands((x, y), before, seen)
    handed.back(placed_x, x.buffer)
    if placed_y is not None:
        handed.back(placed_y, y.buffer)
    return seen


def _look_at_operands(
    operands: tuple[Made, Made], before: list[tuple[bool, int]], seen: Seen
) -> None:
    for name, made, (needed, version) in zip(OPERANDS, operands, before, strict=True):
        tensor = made.tensor
        if tensor.requires_grad != needed or tensor.grad is not None or made.replaced():
            seen.setdefault("attributes", []).append(name)
        if tensor._version != version:
            seen.setdefault("versions", []).append(name)


def _forward(
    kit: Kit, x: Made, y: Made, reduction: str, given: dict[str, float], seen: Seen, notes: Notes
) -> Any:
    try:
        if given:
            result = kit.loss(x.tensor, y.tensor, reduction, **given)
        else:
            result = kit.loss(x.tensor, y.tensor, reduction)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a loss must not end the process
        seen["raised"] = text_of(error)
        return None
    if not isinstance(result, torch.Tensor):
        seen["rubbish"] = type(result).__name__
        return None
    try:
        if result.is_complex() or result.layout != torch.strided:
            dtype = str(result.dtype).removeprefix("torch.")
            seen["rubbish"] = f"a tensor of dtype {dtype} and layout {result.layout}"
            return None
        value, needs = notes.put(result), bool(result.requires_grad)
        storage = result.untyped_storage().data_ptr()
        for name, made in zip(OPERANDS, (x, y), strict=True):
            if storage and storage == made.buffer.untyped_storage().data_ptr():
                seen["alias"] = name
    except Exception as error:
        seen["raised"] = text_of(error)
        return None
    seen["value"], seen["requires_grad"] = value, needs
    return result


def _backward(
    call: Call,
    result: torch.Tensor,
    wanted: dict[str, Made],
    seen: Seen,
    handed: Handed,
    notes: Notes,
) -> None:
    """With the ``grad_output`` of the result's dtype; with ones where the result fits none."""
    if not seen["requires_grad"] or result.dtype not in DTYPE_NAMES:
        return
    g, placed = None, None
    for placed in call[2]:
        if placed[2] == DTYPE_NAMES[result.dtype] and list(placed[3]) == list(result.shape):
            g = view_of(handed.buffer(placed), placed)
            break
    if result.device.type != "cpu":
        poison(str(result.device), _sizes(call))
    try:
        tensors = [made.tensor for made in wanted.values()]
        given = g.tensor if g else torch.ones_like(result)
        gradients = torch.autograd.grad(result, tensors, given, allow_unused=True)
        seen["gradients"] = {
            name: None if gradient is None else notes.put(gradient)
            for name, gradient in zip(wanted, gradients, strict=True)
        }
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        seen["raised_backward"] = text_of(error)
    if g is not None and placed is not None:
        if g.tensor._version:
            seen.setdefault("versions", []).append("grad_output")
        handed.back(placed, g.buffer)


def _sizes(call: Call) -> set[int]:
    """What a call may allocate, in bytes: scalars, results, gradients."""
    placed = [p for p in (call[0], call[1], *call[2]) if p is not None]
    counts = {1, *(math.prod(p[3]) for p in placed)}
    widest = max(WIDTHS[p[2]] for p in placed)
    return {count * width for count in counts for width in (widest, 4)}
