"""The process beside a target: it answers requests until there are none.

``python -m conformance.observer.host REQUESTS ANSWERS ARENA``: the numbers of three descriptors.
Requests and answers are lines of JSON; an answer has the ``turn`` of its request. The first request
opens the target: it names ``target`` and ``device``; ``paths``, where modules are looked for first;
``hidden``, a word in the names of modules that are to be forgotten; and ``watched``, whether it
is in a sandbox, and what it tries there is written down. Its answer tells what the
target ``claimed`` and its ``environment``, or an ``error`` for users, with an exit ``status``.

It needs torch and the standard library, and nothing else. Its names become other ones before a
target sees them: see ``running/neutral.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import sys
import threading
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

LOST_DEVICE = 86  # the exit status of a process whose device is lost
# Of `targets`, what finding one takes.
MACHINERY = {"targets", "targets.domain", "targets.forms", "targets.registry", "targets.target"}
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9  # linux/prctl.h


def main() -> int:
    offer_to_the_system()
    die_with_parent()
    requests, answers, arena = map(int, sys.argv[1:])
    # It takes seconds, in which another observer may open the target.
    return serve(requests, answers, arena, import_torch())


def serve(asked: int, answers: int, arena: int, missing: str) -> int:
    """Answer requests; the exit status. ``missing``: what :func:`import_torch` gave."""
    end_with_parent(asked)
    del sys.argv[1:]  # they are not the target's
    requests = os.fdopen(asked, encoding="utf-8")
    if missing:
        turn = json.loads(requests.readline())["turn"]
        _reply(answers, {"error": missing, "status": 2, "turn": turn})
        return 2
    from conformance.observer.devices import DeviceLost

    desk = None
    for line in requests:
        request = json.loads(line)
        if desk is None:
            desk, answer = _opened(request, arena)
        else:
            try:
                answer = desk.answer(request)
            except DeviceLost:
                return LOST_DEVICE  # nothing else can be found out in this process
        _reply(answers, answer | {"turn": request["turn"]})
        if desk is None:
            return 0
    return 0


def _reply(descriptor: int, answer: dict[str, Any]) -> None:
    data = (json.dumps(answer) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _opened(options: dict[str, Any], arena: int) -> tuple[Any, dict[str, Any]]:
    """The desk, or None, and what to say first."""
    from conformance.cases.arena import Arena
    from conformance.observer import watching
    from conformance.observer.description import described, environment, make_ready
    from conformance.observer.desk import Desk
    from conformance.observer.devices import DeviceUnavailable
    from conformance.observer.state import note_functions
    from targets import TargetError, resolve

    _forget(options["hidden"])
    if options["watched"]:
        watching.begin()
    sys.path[:0] = options["paths"]
    known = {*sys.modules}
    try:
        target = resolve(options["target"], options["loss"])
        named = options["target"]
        path = named if named.endswith(".py") else named.rpartition(":")[0]
        if path.endswith(".py"):  # for imports inside functions
            sys.path.append(str(Path(path).resolve().parent))
        note_functions()
        make_ready(target, options["device"])
    except (TargetError, DeviceUnavailable) as error:
        return None, {"error": str(error), "status": error.status}
    claimed = described(target)
    _withdraw(known)
    desk = Desk(target, options["device"], Arena(arena))
    return desk, {"claimed": claimed, "environment": environment()}


def _forget(word: str) -> None:
    """An editable installation stands in every process of its interpreter."""
    for name in [n for n in sys.modules if word in n]:
        del sys.modules[name]
    sys.meta_path[:] = [f for f in sys.meta_path if word not in str(f)]


def _withdraw(known: set[str]) -> None:
    """``targets`` is here for whoever imported it: where none of the target's modules has anything
    of it, that was nobody. ``known``: the names of the modules that were there before."""
    own = {name for name in sys.modules if _is_targets(name)}
    others = {*sys.modules} - known - own
    values = [v for name in others for v in list(vars(sys.modules[name]).values())]
    homes = [v.__name__ for v in values if type(v) is ModuleType]
    homes += [v.__module__ for v in values if isinstance(v, type | FunctionType)]
    if own <= MACHINERY and not any(_is_targets(str(home)) for home in homes):
        for name in own:
            del sys.modules[name]


def _is_targets(name: str) -> bool:
    return name.partition(".")[0] == "targets"


def import_torch() -> str:
    """With SymPy, which the first gradient imports. What is wrong, where it cannot be had."""
    gc.disable()  # some 345,000 objects, which all stay: nothing to collect, now or later
    try:
        importlib.import_module("torch")
    except ImportError as error:
        return f"{sys.executable} cannot import torch: {error}"
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.fx.experimental.symbolic_shapes")
    gc.freeze()
    gc.enable()
    return ""


def offer_to_the_system() -> None:
    """Where memory runs out, this process is to be ended, and not the one that judges it."""
    with contextlib.suppress(OSError):  # another system, which has no such file
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_with_parent(requests: int | None = None) -> None:
    """Where whoever started this process has been killed, nobody waits or limits a call's time.

    Nor where nobody is left who writes ``requests``.
    """
    parent = os.getppid()

    def watch() -> None:
        asked = select.poll()
        if requests is not None:
            asked.register(requests, 0)  # it is told of a hangup all the same
        while os.getppid() == parent and not asked.poll(500):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    die_with_parent()


def die_with_parent() -> None:
    """Linux ends this process with its parent, whatever it is doing; a thread could not while a
    call holds the interpreter's lock."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
