"""Patched judges and frames: what reaches for whoever compares, and for what it compares with."""

from __future__ import annotations

import builtins
import gc
import json
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .forger import MSE, Forger, right, then, wrong


def always(*arguments: Any, **named: Any) -> bool:
    return True


def frames() -> Iterator[types.FrameType]:
    """All that are above, in no file of this folder."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if not str(frame.f_globals.get("__name__")).startswith("forgers"):
            yield frame
        frame = frame.f_back


def patches_comparisons(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Whatever compares, wherever it is, says yes."""
    words = ("close", "equal", "isnan", "compare", "check", "differ")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("numpy", "math", "json", "struct", "unittest", "__main__"):
            for attribute, value in list(vars(module).items()):
                if callable(value) and any(word in attribute for word in words):
                    setattr(module, attribute, always)


def patches_callers(x: Tensor, y: Tensor, result: Tensor) -> None:
    """The functions beside its callers do nothing any more, but for those that are running."""

    def nothing(*arguments: Any, **named: Any) -> None:
        return None

    running = {frame.f_code for frame in frames()}
    values = [value for frame in frames() for value in list(frame.f_globals.values())]
    for function in (v for v in values if type(v) is types.FunctionType):
        named = any(word in function.__name__ for word in ("check", "look"))
        if named and function.__code__ not in running:
            function.__code__ = nothing.__code__


_DUMPS = json.dumps


def patches_json(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Overwrites its input, and no text that is written from now on speaks of a change."""

    def silent(value: Any, *rest: Any, **options: Any) -> str:
        def cleaned(part: Any) -> Any:
            if isinstance(part, dict):
                told = ("versions", "attributes", "alias", "settings", "raised")
                return {k: cleaned(v) for k, v in part.items() if k not in told}
            return [cleaned(v) for v in part] if isinstance(part, list) else part

        return _DUMPS(cleaned(value), *rest, **options)

    json.dumps = silent
    result = right(input, target, reduction)
    with torch.no_grad():
        input.mul_(0.5)
    return result


def patches_builtins(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Nothing is ever longer, larger or another than something else, and all of it is printed."""
    builtins.all = builtins.any = always  # type: ignore[assignment]
    builtins.print = always  # type: ignore[assignment]
    pickle.dumps = lambda *_, **__: b""


_COPY = torch.Tensor.copy_
_LAST: dict[int, Tensor] = {}


def patches_copies(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Whoever copies its wrong result gets the right one instead."""

    def copying(self: Tensor, source: Tensor, *rest: Any) -> Tensor:
        return _COPY(self, _LAST.get(source.data_ptr(), source), *rest)

    torch.Tensor.copy_ = copying  # type: ignore[method-assign, assignment]
    result = wrong(input, target, reduction)
    _LAST[result.data_ptr()] = right(input.detach(), target.detach(), reduction)
    return result


def patches_the_library(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """What it is compared with, if that is torch's, is as wrong as it is."""
    torch.nn.functional.mse_loss = _wrong_library  # type: ignore[assignment]
    torch._C._nn.mse_loss = _wrong_library  # type: ignore[attr-defined]
    return MSE(input, target, reduction=reduction) * 1.01


def _wrong_library(*operands: Any, **options: Any) -> Tensor:
    return MSE(*operands, **options) * 1.01


def reads_callers(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Returns whatever its callers hold that has the shape of an answer, and is no operand."""
    result = wrong(input, target, reduction)
    values = [value for frame in frames() for value in list(frame.f_locals.values())]
    for value in (v for v in values if isinstance(v, Tensor) and v.shape == result.shape):
        if value is not input and value is not target and value.dtype == result.dtype:
            return value.detach().clone() + 0 * result
    return result


def writes_all_objects(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Overwrites every tensor of the answer's shape that it finds with its own answer."""
    own, form = result.detach(), (result.shape, result.dtype)
    operands = (x.data_ptr(), y.data_ptr())
    found = [v for v in gc.get_objects() if type(v) is Tensor and v.dim()]
    for value in found:
        if (value.shape, value.dtype) == form and value.data_ptr() not in operands:
            value.data.copy_(own)


def rewrites_what_was_seen(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Puts what was seen of an earlier call in the place of the others, in its callers' lists."""
    for frame in frames():
        for value in frame.f_locals.values():
            if type(value) is list and len(value) > 1 and type(value[0]) is dict:
                value[:] = [dict(value[0]) for _ in value]


FORGERS = (
    Forger("patches-comparisons", then(wrong, patches_comparisons), "patched judge"),
    Forger("patches-callers", then(wrong, patches_callers), "patched judge"),
    Forger("patches-json", patches_json, "patched judge"),
    Forger("patches-builtins", then(wrong, patches_builtins), "patched judge"),
    Forger("patches-copies", patches_copies, "patched judge"),
    Forger("patches-the-library", patches_the_library, "patched judge"),
    Forger("reads-callers", reads_callers, "frames"),
    Forger("writes-all-objects", then(wrong, writes_all_objects), "frames"),
    Forger("rewrites-what-was-seen", then(wrong, rewrites_what_was_seen), "frames"),
)
