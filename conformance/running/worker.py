"""A process that runs shards of one target: ``python -m conformance.running.worker OPTIONS``.

It takes one JSON object a line from its standard input and answers each with one; whatever the
target prints goes to standard error. It may die at any call: the supervisor reads its black box.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from conformance.running.box import BlackBox
from conformance.running.memory import offer_to_the_system
from conformance.running.options import DeviceUnavailable, UsageError, check_profile, make_ready
from targets import Target, TargetError, resolve

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    offer_to_the_system()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it, and ends this process
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    tasks = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a target that reads finds nothing
    _end_with_parent()
    options = json.loads(sys.argv[1])
    box = BlackBox(Path(options["box"]))
    os.unlink(options["box"])  # both have it in memory: nothing stays behind, whoever is killed

    def reply(answer: dict[str, Any]) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    # It takes seconds, in which another worker may open the target.
    gc.disable()  # some 345,000 objects, which all stay: nothing to collect, now or later
    _import_torch()
    gc.freeze()
    gc.enable()
    if not next(tasks, ""):
        return 0
    try:
        sys.path.insert(0, os.getcwd())
        target = resolve(options["target"])
        path = options["target"].rpartition(":")[0]
        if path.endswith(".py"):  # for imports inside functions
            sys.path.append(str(Path(path).resolve().parent))
        make_ready(target, options["device"])
        desk = Desk(target, options, box)
    except (TargetError, UsageError, DeviceUnavailable) as error:
        reply({"error": str(error), "status": error.status})
        return error.status
    reply({"ready": target.name, "source": target.source, "shards": desk.shards()})
    for line in tasks:
        task = json.loads(line)
        reply(getattr(desk, f"do_{task['do']}")(task))
    return 0


def _import_torch() -> None:
    """With all that the suite needs of it, and with SymPy, which the first gradient imports."""
    importlib.import_module("conformance.running.shards")
    import torch

    x = torch.ones((), requires_grad=True)
    torch.autograd.grad(x, x, torch.ones(()))


def _end_with_parent() -> None:
    """Where the supervisor has been killed, nobody is left to limit a call's time.

    Linux ends this process whatever it is doing; a thread could not while a call holds the
    interpreter's lock.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Desk:
    """What a worker can be asked to do; each method takes and returns JSON objects."""

    def __init__(self, target: Target, options: dict[str, Any], box: BlackBox) -> None:
        from conformance.running.shards import Session

        self.target, self.options = target, options
        self.profile = check_profile(options["profile"])
        self.session = Session(target, options["device"], options["seed"], options["clause"], box)

    def shards(self) -> list[list[Any]]:
        from conformance.cases.plans import plan

        return [[s.phase, s.index] for s in plan(self.target, self.profile)]

    def do_shard(self, task: dict[str, Any]) -> dict[str, Any]:
        from conformance.cases.plans import Shard
        from conformance.running.shards import run_shard

        self.session.skip = frozenset(task["skip"])
        observer = None
        if self.options.get("observe"):
            from conformance.report.observability import Observer

            began = self.options["observe"]
            observer = Observer(self.target.name, self.options["device"], began)
        self.session.observer = observer
        result = run_shard(self.session, Shard(*task["shard"]), self.profile).to_json()
        return result | {"observed": observer.lines if observer else []}

    def do_minimise(self, task: dict[str, Any]) -> dict[str, Any]:
        from conformance.running.shards import finding_from_json, finding_to_json, minimised

        return finding_to_json(minimised(self.session, finding_from_json(task["finding"])))

    def do_explain(self, task: dict[str, Any]) -> dict[str, Any]:
        """The likely cause of a finding."""
        from conformance.running.shards import explained, finding_from_json, finding_to_json

        return finding_to_json(explained(self.session, finding_from_json(task["finding"])))

    def do_merge(self, task: dict[str, Any]) -> dict[str, Any]:
        """The findings that are worth making smaller and explaining."""
        from conformance.judging.merging import to_explain
        from conformance.running.shards import finding_to_json

        found = to_explain(self._total(task), self.options["clause"])
        return {"findings": [finding_to_json(f) for f in found]}

    def do_conclude(self, task: dict[str, Any]) -> dict[str, Any]:
        from conformance.judging.merging import conclude
        from conformance.running.shards import finding_from_json
        from conformance.verdict.waivers import Rechecked

        total = self._total(task)
        for data in task["minimised"]:
            finding = finding_from_json(data)
            total.findings[(finding.clause, finding.dtype)] = finding
        verdict = conclude(
            self.target,
            total,
            device=self.options["device"],
            profile=self.profile.name,
            seed=self.options["seed"],
            duration_s=task["duration_s"],
            selected=self.options["clause"],
            ended=task["ended"],
            rechecked=[Rechecked.from_json(r) for r in task["rechecked"]],
        )
        return verdict.to_json()

    def do_smoke(self, task: dict[str, Any]) -> dict[str, Any]:
        """What is wrong with the adapter."""
        from conformance.running.smoke import smoke

        return {"problems": smoke(self.session)}

    def do_recheck(self, task: dict[str, Any]) -> dict[str, Any]:
        """Run the case of a waiver again."""
        from conformance.running.recheck import recheck
        from conformance.verdict.waivers import Waiver

        return recheck(self.session, Waiver.from_json(task["waiver"])).to_json()

    def do_replay(self, task: dict[str, Any]) -> dict[str, Any]:
        """Run a case or an experiment again: what deviates now, or why it cannot run."""
        from conformance.cases.case import Case
        from conformance.observer.protocols import Unavailable
        from conformance.running.shards import replayed

        case = Case.from_json(task["case"]) if task["case"] else None
        try:
            return {"messages": replayed(self.session, task["clause"], task["dtype"], case)}
        except Unavailable as reason:
            return {"messages": [], "unable": str(reason)}

    def _total(self, task: dict[str, Any]) -> Any:
        from conformance.judging.merging import merged
        from conformance.running.shards import ShardResult, lost_call

        total = merged(ShardResult.from_json(r) for r in task["results"])
        for text, status, how in task["lost"]:
            total.add(lost_call(text, status, how))
        return total


if __name__ == "__main__":
    sys.exit(main())
