"""Run a target on a case once, and write down all that was seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from conformance.cases.case import Case
from conformance.judging.seen import Observation, Seen
from conformance.observer.devices import poison
from conformance.observer.state import Settings
from conformance.observer.tensors import DTYPE_NAMES, DTYPES, Made, make, to_numpy
from targets import Target

OPERANDS = ("input", "target")
_MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def call(target: Target, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Any:
    """The loss as the target computes it."""
    return target.loss(x, y, reduction=reduction)


def observe(target: Target, case: Case, device: str) -> Observation:
    """Run ``case`` once: the loss and, where an operand needs one, its gradient."""
    x = make(case.input, device, case.needs[0])
    y = x if case.same else make(case.target, device, case.needs[1])
    needs = {n: t.tensor.requires_grad for n, t in zip(OPERANDS, (x, y), strict=True)}
    versions = (x.tensor._version, y.tensor._version)
    seen, grad_output = Observation(), None
    poison(device, _sizes(case))
    with _MODES[case.mode]():
        settings = Settings.now()
        result = _forward(target, case, x, y, seen)
        seen.settings = settings.changes()
    if result is not None and seen.value is not None and case.differentiated:
        grad_output = _backward(case, device, result, x, y, seen)
        seen.settings += settings.changes()
    for name, made, version in zip(OPERANDS, (x, y), versions, strict=True):
        tensor = made.tensor
        if tensor.requires_grad != needs[name] or tensor.grad is not None or made.replaced():
            seen.attributes.append(name)
        if made.tensor._version != version or made.changed():
            seen.changed.append(name)
    if grad_output is not None and (grad_output.tensor._version or grad_output.changed()):
        seen.changed.append("grad_output")
    return seen


def _forward(target: Target, case: Case, x: Made, y: Made, seen: Observation) -> Any:
    try:
        result = call(target, x.tensor, y.tensor, case.reduction)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a loss must not end the process
        seen.raised = text_of(error)
        return None
    if not isinstance(result, torch.Tensor):
        seen.rubbish = type(result).__name__
        return None
    try:
        dtype = DTYPE_NAMES.get(result.dtype, str(result.dtype).removeprefix("torch."))
        if result.is_complex() or result.layout != torch.strided:
            seen.rubbish = f"a tensor of dtype {dtype} and layout {result.layout}"
            return None
        seen.value = Seen(to_numpy(result), dtype, result.device.type)
        seen.requires_grad = result.requires_grad
        storage = result.untyped_storage().data_ptr()
        for name, made in zip(OPERANDS, (x, y), strict=True):
            if storage and storage == made.buffer.untyped_storage().data_ptr():
                seen.alias = name
    except Exception as error:
        seen.value, seen.raised = None, text_of(error)
        return None
    return result


def _backward(
    case: Case, device: str, result: torch.Tensor, x: Made, y: Made, seen: Observation
) -> Made | None:
    if not seen.requires_grad or seen.value is None or seen.value.dtype not in DTYPE_NAMES.values():
        return None
    made = dict(zip(OPERANDS, (x, y), strict=True))
    wanted = [(name, made[name].tensor) for name in case.differentiated]
    g = make(case.grad_output.replace(shape=tuple(result.shape), dtype=seen.value.dtype), device)
    poison(device, _sizes(case))
    try:
        tensors = [tensor for _, tensor in wanted]
        gradients = torch.autograd.grad(result, tensors, g.tensor, allow_unused=True)
        for (name, _), gradient in zip(wanted, gradients, strict=True):
            seen.gradients[name] = None if gradient is None else _seen(gradient)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        seen.raised_backward = text_of(error)
    return g


def _sizes(case: Case) -> set[int]:
    """What a run of ``case`` may allocate, in bytes: scalars, results, gradients."""
    counts = {1, math.prod(case.shape), case.input.size, case.target.size}
    return {count * width for count in counts for width in (DTYPES[case.dtype].itemsize, 4)}


def _seen(tensor: torch.Tensor) -> Seen:
    return Seen(
        to_numpy(tensor), DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tensor.device.type
    )


def text_of(error: BaseException) -> str:
    """The exception's type and the first line of its message; where that announces more, the last.

    A compiler's message begins with a place and a colon, and ends with the reason.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    announces = lines[0].endswith(":") and len(lines) > 1
    reason = f" {lines[-1].strip()}" if announces else ""
    return f"{type(error).__name__}: {lines[0]}{reason}"
