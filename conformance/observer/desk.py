"""What an observer can be asked to do: requests and answers as plain data, tensors in the arena.

A request is ``{"do": "calls", "calls": […], …}`` (see ``calls.py``) or ``{"do": "perform",
"name": protocol, "given": {name: [Placed, needs]}, "settings": {…}, …}``. Both say how many bytes
of the arena are ``handed`` in, and where the ``notes`` go: ``[start, size]``. The answer to calls
is ``seen``, one entry for each; that to a protocol is its ``evidence``; where it raised, ``raised``
and ``kind``; where it cannot run here, ``unavailable`` says why.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from conformance.cases.arena import Arena
from conformance.observer import calls
from conformance.observer.devices import DeviceLost, check_alive
from conformance.observer.protocols.kit import PROTOCOLS, Kit, Unavailable, brief, text_of
from conformance.observer.state import Settings, settled
from conformance.observer.tensors import Handed, Notes, view_of

Json = dict[str, Any]


class Desk:
    """One target on one device, and the arena."""

    def __init__(self, target: Any, device: str, arena: Arena) -> None:
        self.kit, self.arena = Kit(target, device), arena

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

    def _calls(self, request: Json, handed: Handed, notes: Notes) -> Json:
        seen = []
        for call in request["calls"]:
            self.arena.begin()
            seen.append(calls.observe(self.kit, call, handed, notes))
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
            found = function(self.kit, **given, **request["settings"])
            return {"evidence": self._written(found, notes)}
        except KeyboardInterrupt:
            raise
        except Unavailable as reason:
            return {"unavailable": str(reason)}
        except BaseException as error:  # SystemExit too: a loss must not end the process
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
