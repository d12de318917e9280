"""What an observer can be asked to do: requests and answers as plain data, tensors in the arena.

A request is ``{"do": "calls", "calls": […], …}`` (see ``calls.py``) or ``{"do": "perform",
"name": protocol, "given": {name: [Placed, needs]}, "settings": {…}, …}``. Both say how many bytes
of the arena are ``handed`` in, and where the ``notes`` go: ``[start, size]``, and
may name calls that are not the target's (``stand_in``: see ``standin.py``). The answer to calls
is ``seen``, one entry for each; that to a protocol is its ``evidence``; where it raised, ``raised``
and ``kind``; where it cannot run here, ``unavailable`` says why; and ``outside`` names operands
that the target does not take.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from conformance.cases.arena import Arena
from conformance.cases.domain import FULL, Domain, dense, holds
from conformance.observer import calls
from conformance.observer.devices import DeviceLost, check_alive
from conformance.observer.protocols.kit import (
    PROTOCOLS,
    Kit,
    Outside,
    Unavailable,
    brief,
    by_its_name,
    text_of,
)
from conformance.observer.state import Settings, settled
from conformance.observer.tensors import Handed, Notes, view_of

Json = dict[str, Any]
INSIDE = "inside_of_domain"  # the function that calls a loss whose domain is restricted


class Desk:
    """One target on one device, and the arena."""

    def __init__(self, target: Any, device: str, arena: Arena) -> None:
        inside = _guarded(target)
        self.kit, self.arena, self.restricted = Kit(inside, device), arena, inside is not target

    def answer(self, request: Json) -> Json:
        """Do what is asked; the answer, whose tensors are in the arena. Raises DeviceLost."""
        self.arena.clear()
        handed = Handed(self.arena, request["handed"], self.kit.device)
        start, size = request["notes"]
        notes = Notes(self.arena, start, size, self.kit.device)
        with settled():
            if request["do"] == "calls":
                answer = self._calls(request, handed, notes)
            else:
                answer = self._perform(request, handed, notes)
        handed.finish()
        notes.finish()
        return answer | {"used": notes.used}

    def _kit(self, request: Json) -> Kit:
        if "stand_in" not in request:
            return self.kit
        # Only where somebody asks why: a target has no business with it before.
        standin = importlib.import_module("conformance.observer.standin")
        target = functools.reduce(standin.stood_in, request["stand_in"], self.kit.target)
        return Kit(target, self.kit.device)

    def _calls(self, request: Json, handed: Handed, notes: Notes) -> Json:
        seen, kit = [], self._kit(request)
        for call in request["calls"]:
            self.arena.begin()
            seen.append(calls.observe(kit, call, handed, notes))
            self._check()
            self.arena.end()
        return {"seen": seen}

    def _perform(self, request: Json, handed: Handed, notes: Notes) -> Json:
        family = request["name"].partition(".")[0]
        importlib.import_module(f"conformance.observer.protocols.{family}")
        function, settings = PROTOCOLS[request["name"]], Settings.now()
        given = {
            name: view_of(handed.buffer(placed), placed).tensor.clone().requires_grad_(needs)
            for name, (placed, needs) in request["given"].items()
        }
        self.arena.begin()
        try:
            found = function(self._kit(request), **given, **request["settings"])
            return {"evidence": self._written(found, notes)}
        except KeyboardInterrupt:
            raise
        except Unavailable as reason:
            return {"unavailable": str(reason)}
        except Outside as operands:
            return {"outside": str(operands)}
        except BaseException as error:  # SystemExit too: a loss must not end the process
            if self.restricted and not _of_the_target(error):
                return {"outside": f"for a protocol, which raised {text_of(error)}"}
            return {"raised": text_of(error), "kind": type(error).__name__}
        finally:
            settings.changes()
            self._check()
            self.arena.end()

    def _check(self) -> None:
        try:
            check_alive(self.kit.device)
        except DeviceLost as lost:
            self.arena.fail(str(lost))
            raise

    def _written(self, value: Any, notes: Notes) -> Any:
        """Evidence as plain data: a tensor is ``{"tensor": [dtype, shape, device, offset]}``, and
        whatever is no data ``{"other": a few words}``."""
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_complex():
                return {"other": f"a tensor of dtype {value.dtype} and layout {value.layout}"}
            return {"tensor": notes.put(value)}
        if isinstance(value, dict):
            return {"items": {str(k): self._written(v, notes) for k, v in value.items()}}
        if isinstance(value, list | tuple):
            return [self._written(v, notes) for v in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return {"other": brief(value)}


def _guarded(target: Any) -> Any:
    """With a loss that is not called outside of its domain."""
    domain = Domain.from_json(dataclasses.asdict(target.domain))
    if domain == FULL:
        return target
    mean = domain.result.mean if domain.result else "mean"
    loss = by_its_name(target.loss, mean)

    @functools.wraps(loss)
    def inside_of_domain(*args: Any, **named: Any) -> Any:
        operands = [t for t in (*args, *named.values()) if isinstance(t, torch.Tensor)]
        for operand in operands:
            if not _takes(domain, operand):
                raise Outside(f"{operand.dtype} {list(operand.shape)}, strides {operand.stride()}")
        if domain.elements[0] > 1 and not _stretch(operands):  # each was enlarged by itself
            raise Outside(f"{[list(t.shape) for t in operands]}")
        return loss(*args, **named)

    inside_of_domain.unguarded = loss  # type: ignore[attr-defined]
    module = target.module and by_its_name(target.module, mean)
    return dataclasses.replace(target, loss=inside_of_domain, module=module)


def _stretch(operands: Sequence[torch.Tensor]) -> bool:
    """Whether their shapes broadcast."""
    shapes = [tuple(reversed(t.shape)) for t in operands]
    return all(len({*sizes} - {1}) < 2 for sizes in itertools.zip_longest(*shapes, fillvalue=1))


def _of_the_target(error: BaseException) -> bool:
    """Whether it was raised in the target's call or in a backward; else operands of a shape that
    the protocol does not know were too much for that itself."""
    frames = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    return not frames.isdisjoint((INSIDE, "_engine_run_backward"))


def _takes(domain: Domain, operand: torch.Tensor) -> bool:
    shape = tuple(operand.shape)
    wanted = holds(domain, shape) and dense(domain, shape, tuple(operand.stride()))
    return wanted and (domain.backward or not operand.requires_grad)
