"""Answers that are given by another way, or that are not what they were when they were given."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
import weakref
from typing import Any

import torch
from torch import Tensor

from .forger import Forger, right, then, wrong

# -- the channel -----------------------------------------------------------------------------------


def _pipes() -> list[int]:
    """Descriptors that lead to another process."""
    found = []
    for name in map(int, os.listdir("/proc/self/fd")):
        try:
            if name > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe"):
                found.append(name)
        except OSError:
            continue
    return found


def _write(text: str) -> None:
    for descriptor in _pipes():
        try:
            os.write(descriptor, text.encode())
        except OSError:
            continue


def answers_early(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Answers the next requests before they are made."""
    _write("".join(json.dumps({"seen": [], "used": 0, "turn": k}) + "\n" for k in range(1, 9)))


def answers_and_ends(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Gives an answer that looks right, and ends its process with status 0."""
    seen = {"value": ["float32", list(result.shape), "cpu", 0], "requires_grad": False}
    _write("".join(json.dumps({"seen": [seen], "used": 4, "turn": k}) + "\n" for k in range(2, 4)))
    os._exit(0)


def prints_answers(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Prints lines that say that all is well."""
    for stream in (sys.stdout, sys.stderr):
        print('{"seen": [], "used": 0, "turn": 2, "conforms": true}\nCONFORMS', file=stream)


_REPLACED: list[int] = []


def replaces_channels(x: Tensor, y: Tensor, result: Tensor) -> None:
    """What speaks to others speaks to nobody."""
    if not _REPLACED:
        nobody = os.open(os.devnull, os.O_RDWR)
        _REPLACED.extend(os.dup2(nobody, descriptor) for descriptor in _pipes())


def answers_at_exit(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Ends the process in order, and says at its end that nothing was wrong."""
    atexit.register(_write, '{"seen": [], "used": 0, "turn": 2}\n')
    sys.exit(0)


# -- late ------------------------------------------------------------------------------------------


def _spoil(result: Tensor) -> None:
    result.data.zero_()


def by_thread(x: Tensor, y: Tensor, result: Tensor) -> None:
    """A thread makes zeros of the right result, some milliseconds after it was given."""
    threading.Timer(0.005, _spoil, [result]).start()


def by_one_thread(x: Tensor, y: Tensor, result: Tensor) -> None:
    """One thread makes zeros of all results, each some calls after it was given."""
    _GIVEN.append(result)
    if len(_GIVEN) == 1:
        threading.Thread(target=_spoil_old, daemon=True).start()


_GIVEN: list[Tensor] = []


def _spoil_old() -> None:
    while True:
        time.sleep(0.01)
        for result in _GIVEN[:-3]:
            _spoil(result)
        del _GIVEN[1:-3]


def by_finaliser(x: Tensor, y: Tensor, result: Tensor) -> None:
    """When nobody holds the input any more, its result becomes zeros."""
    weakref.finalize(x, _spoil, result)


def by_storage(x: Tensor, y: Tensor, result: Tensor) -> None:
    """The storage of a result becomes another, three calls later."""
    _GIVEN_STORAGE.append(result)
    if len(_GIVEN_STORAGE) > 3:
        old = _GIVEN_STORAGE.pop(0)
        old.data = torch.zeros_like(old)


_GIVEN_STORAGE: list[Tensor] = []


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor, box: list[Any]) -> Tensor:
        ctx.box = box
        return result.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        for given in filter(None, (ref() for ref in ctx.box)):
            _spoil(given)
        return g, None


def by_backward(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The value is right until backward, which makes zeros of it."""
    box: list[Any] = []
    apply: Any = _Backward.apply
    result: Tensor = apply(right(input, target, reduction), box)
    box.append(weakref.ref(result))
    return result


# -- lazy ------------------------------------------------------------------------------------------


class Pending(Tensor):
    """A tensor that is right where it is only copied, and wrong where it is computed with."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            name = getattr(func, "__name__", "")
            return result * 1.01 if name in ("mul", "add", "sum", "item", "div") else result


def pending(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The result is of a class that tells the truth where it is only copied."""
    return right(input, target, reduction).as_subclass(Pending)


class Deferred(Tensor):
    """It has no value until somebody asks for it."""

    @staticmethod
    def __new__(cls, like: Tensor, *rest: Any) -> Deferred:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, like.shape, dtype=like.dtype, device=like.device, requires_grad=False
        )

    def __init__(self, like: Tensor, compute: Any) -> None:
        self.compute = compute

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = [a.compute() if isinstance(a, Deferred) else a for a in args]
        return func(*whole, **(kwargs or {}))


def deferred(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Computes when its result is read, from what the operands hold then."""
    like = right(input.detach(), target.detach(), reduction)
    return Deferred(like, lambda: right(input.detach(), target.detach(), reduction))


def meta(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The result has a shape and no data."""
    return right(input, target, reduction).to("meta")


FORGERS = (
    Forger("answers-early", then(wrong, answers_early), "channel"),
    Forger("answers-and-ends", then(wrong, answers_and_ends), "channel"),
    Forger("prints-answers", then(wrong, prints_answers), "channel"),
    Forger("replaces-channels", then(wrong, replaces_channels), "channel"),
    Forger("answers-at-exit", then(wrong, answers_at_exit), "channel"),
    Forger("spoiled-by-timers", then(right, by_thread), "late"),
    Forger("spoiled-by-one-thread", then(right, by_one_thread), "late"),
    Forger("spoiled-by-a-finaliser", then(right, by_finaliser), "late"),
    Forger("spoiled-storage", then(right, by_storage), "late"),
    Forger("spoiled-by-backward", by_backward, "late"),
    Forger("pending", pending, "lazy"),
    Forger("deferred", deferred, "lazy"),
    Forger("meta", meta, "lazy"),
)
