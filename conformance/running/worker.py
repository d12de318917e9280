"""A process that judges, with an observer of its own: ``python -m conformance.running.worker``.

It takes its options, then tasks, as lines of JSON, and answers each task with one. (A command line
could be read by the target.) It never imports the target. A signal to
terminate stops the task in hand: what was found until then is its answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from conformance.cases.arena import Arena
from conformance.observer.host import end_with_parent
from conformance.running import memory
from conformance.running.hosting import Hosting, Refused, Started, start

if TYPE_CHECKING:
    from conformance.judging.findings import ShardResult
    from conformance.verdict.provenance import MadeOf

Json = dict[str, Any]


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it
    end_with_parent()
    memory.keep()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = json.loads(sys.stdin.readline())
    hosting = Hosting(**options["hosting"])

    def reply(answer: Json) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        arena = Arena.new()
        # Torch is imported there while NumPy is here.
        started = start(hosting, arena, options["server"])
        desk = Desk(options, hosting, arena, started)
        signal.signal(signal.SIGTERM, desk.stop)
        with contextlib.closing(desk.observer), contextlib.closing(desk.memory):
            if not sys.stdin.readline():
                return 0
            desk.observer.open()
            target = desk.observer.claimed
            should = sorted(target.specification.should)
            told = {"source": target.source, "spec": target.specification.title, "should": should}
            reply({"ready": target.name, **told, "shards": desk.shards()})
            for line in iter(sys.stdin.readline, ""):
                task = json.loads(line)
                reply(getattr(desk, f"do_{task['do']}")(task))
    except Refused as refused:
        reply({"error": str(refused), "status": refused.status})
        return refused.status
    return 0


class Desk:
    """What a worker can be asked to do; each method takes and returns JSON objects."""

    def __init__(self, options: Json, hosting: Hosting, arena: Arena, started: Started) -> None:
        from conformance.judging.cache import Memory
        from conformance.running.observers import Process
        from conformance.running.options import check_profile
        from conformance.running.session import Session
        from targets.building import cache_folder

        self.options, self.stopped = options, False
        self.profile = check_profile(options["profile"])
        self.observer = Process(hosting, arena, started, options["server"])
        self.observer.stopped = lambda: self.stopped
        self.memory = Memory(cache_folder() / "permitted.sqlite")
        self.session = Session(
            self.observer,
            options["seed"],
            options["clause"],
            memory=self.memory,
            stopped=lambda: self.stopped,
        )

    def stop(self, *_: object) -> None:
        """Answer as soon as may be."""
        self.stopped = True

    def shards(self) -> list[list[Any]]:
        from conformance.running.shards import plan

        return [[s.phase, s.index] for s in plan(self.session.target, self.profile)]

    def do_shard(self, task: Json) -> Json:
        """``lost``: how much was lost elsewhere in this run."""
        from conformance.running.losses import weight
        from conformance.running.observability import CaseLog
        from conformance.running.provenance import tried
        from conformance.running.run import run_shard
        from conformance.running.shards import Shard

        session = self.session
        session.lost_before = task["lost"]
        log = None
        if self.options.get("observe"):
            log = CaseLog(session.target.name, session.device, self.options["observe"])
        session.recorder = log
        before = len(session.lost)
        result = run_shard(session, Shard(*task["shard"]), self.profile).to_json()
        result["remarks"] += self.memory.told
        self.memory.told.clear()
        lost = session.lost[before:]
        session.lost = []  # the supervisor counts them
        return {
            "result": result,
            "observed": log.lines if log else [],
            "lost": [len(lost), weight(lost)],
            "tried": tried(self.observer),
        }

    def do_merge(self, task: Json) -> Json:
        """The findings that are worth making smaller and explaining."""
        from conformance.running.explaining import to_explain

        found = to_explain(self._total(task), self.options["clause"])
        return {"findings": [finding.to_json() for finding in found]}

    def do_minimise(self, task: Json) -> Json:
        from conformance.judging.findings import Finding
        from conformance.running.explaining import minimised

        return self._within(task, minimised, Finding.from_json(task["finding"]))

    def do_explain(self, task: Json) -> Json:
        from conformance.judging.findings import Finding
        from conformance.running.explaining import explained

        return self._within(task, explained, Finding.from_json(task["finding"]))

    def _within(self, task: Json, step: Any, finding: Any) -> Json:
        """A finding, after a step of so many ``seconds`` at most; whether these were ``spent``."""
        from conformance.running.observers import Interrupted

        until, found = time.monotonic() + task["seconds"], finding
        with contextlib.suppress(Interrupted):
            found = step(dataclasses.replace(self.session, lost=[]), finding, until)
        return {"finding": found.to_json(), "spent": time.monotonic() >= until}

    def do_reason(self, task: Json) -> Json:
        """For which reasons the clauses fail."""
        from conformance.running.observers import Interrupted
        from conformance.running.reasoning import reasoned

        try:
            found = reasoned(self.session, self._total(task).findings.values())
        except Interrupted:
            found = []
        return {"reasons": [reason.to_json() for reason in found]}

    def do_recheck(self, task: Json) -> Json:
        """Run the cases of waivers again."""
        from conformance.running.observers import Interrupted
        from conformance.running.recheck import recheck_all
        from conformance.verdict.waivers import Waiver

        waivers = [Waiver.from_json(waiver) for waiver in task["waivers"]]
        try:
            return {"rechecked": [done.to_json() for done in recheck_all(self.session, waivers)]}
        except Interrupted:
            return {"rechecked": []}

    def do_conclude(self, task: Json) -> Json:
        from conformance.judging.reasons import Reason
        from conformance.running.concluding import conclude
        from conformance.running.provenance import left_behind
        from conformance.verdict.waivers import Rechecked

        total = self._total(task)
        verdict = conclude(
            self.session,
            total,
            profile=self.profile.name,
            duration_s=task["duration_s"],
            ended=task["ended"],
            interrupted=task["interrupted"],
            rechecked=[Rechecked.from_json(r) for r in task["rechecked"]],
            reasons=[Reason.from_json(r) for r in task["reasons"]],
            commitment=self.options.get("commitment"),
            made=self._made_of(total),
            forbidden=self.options.get("forbid", ()),
            attempted=[*task["tried"], *left_behind(self.observer)],
        )
        return verdict.to_json()

    def _made_of(self, total: ShardResult) -> dict[str, MadeOf]:
        """Nothing where calls were lost, which would be again, unless somebody must know."""
        from conformance.running.provenance import made_of

        lost = any(f.status in ("crash", "timeout") for f in total.findings.values())
        if self.stopped or (lost and not self.options.get("forbid")):
            return {}
        return made_of(self.session)

    def do_smoke(self, task: Json) -> Json:
        """What is wrong with the adapter."""
        from conformance.running.smoke import smoke

        return {"problems": smoke(self.session)}

    def do_try(self, task: Json) -> Json:
        """What the target supports of what it claims."""
        from conformance.running.trying import tried

        target = self.session.target
        return {
            "name": target.name,
            "source": target.source,
            "tried": tried(self.session).to_json(),
        }

    def do_replay(self, task: Json) -> Json:
        """Run a case or an experiment again: what deviates now, or why it cannot run."""
        from conformance.cases.case import Case
        from conformance.clauses import BY_ID
        from conformance.judging.observer import Unavailable
        from conformance.running.explaining import replayed

        if task["clause"] not in BY_ID:
            return {"messages": [], "unable": "it is of no specification: check it again"}
        case = Case.from_json(task["case"]) if task["case"] else None
        session = dataclasses.replace(self.session, lost=[])
        try:
            return {"messages": list(replayed(session, task["clause"], task["dtype"], case))}
        except Unavailable as reason:
            return {"messages": [], "unable": str(reason)}

    def _total(self, task: Json) -> ShardResult:
        """All that was found; ``explained``: findings that are clearer now."""
        from conformance.judging.findings import Finding, ShardResult, merged

        total = merged(ShardResult.from_json(r) for r in task["results"])
        for data in task.get("explained", ()):
            finding = Finding.from_json(data)
            total.findings[(finding.clause, finding.dtype)] = finding
        return total


if __name__ == "__main__":
    sys.exit(main())
