"""Judge one kernel after the other: a place with a fork server, so that torch is imported once.

The place is a trusted process's own: no target is ever imported there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from conformance.cases.arena import Arena
from conformance.clauses import CLAUSES
from conformance.judging.cache import Memory
from conformance.judging.findings import Finding, ShardResult, merged
from conformance.running.campaign.guard import Guard, adopt, below
from conformance.running.campaign.kernels import Kernel, digest_of
from conformance.running.campaign.stages import STAGES, Stage
from conformance.running.campaign.task import Answer, Setting, Task
from conformance.running.concluding import conclude
from conformance.running.explaining import explain_all, explained, minimised, to_explain
from conformance.running.hosting import ForkServer, Hosting, Refused, start
from conformance.running.losses import weight
from conformance.running.observers import POLL, START_LIMIT, Interrupted, Process
from conformance.running.options import check_profile
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import plan
from conformance.verdict.outcome import BROKEN, INCOMPLETE, Outcome
from conformance.verdict.verdict import BROKEN_STATUSES
from targets.building import cache_folder

_ORDER = {clause.id: k for k, clause in enumerate(CLAUSES)}


class Workplace:
    """Where kernels are judged, one at a time. ``name``: by which the ledger knows it."""

    def __init__(self, setting: Setting) -> None:
        adopt()
        self.setting = setting
        self.name = f"{platform.node()}:{os.getpid()}"
        self._hosting = Hosting(**setting.hosting)
        self._paths = (os.getcwd(),)
        self._memory = Memory(cache_folder() / "permitted.sqlite")
        self._server: ForkServer | None = None
        # Whoever this process is and whatever its server consists of: no kernel began those.
        self._before, self._own = set(below(os.getpid())), set[int]()

    def close(self) -> None:
        self._memory.close()
        if self._server is not None:
            self._server.close()

    def judge(self, task: Task) -> Answer:
        """The kernel of ``task``, at its stage; whatever it does."""
        start, stage = time.monotonic(), STAGES[task.stage]
        server = self._serving()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            hosting = self._of(task.kernel, Path(scratch))
            with (
                Guard(self.setting.limits, self._known) as guard,
                contextlib.closing(Process(hosting, Arena.new(), None, server)) as observer,
            ):
                answer = self._judged(observer, task, stage, guard)
            answer = _guarded(answer, guard)
        return dataclasses.replace(answer, seconds=time.monotonic() - start)

    def _judged(self, observer: Process, task: Task, stage: Stage, guard: Guard) -> Answer:
        start = time.monotonic()
        try:
            observer.open(self.setting.limits.compiling)
        except Refused as refused:
            ours = refused.status == 3
            kind, word = (INCOMPLETE, "unavailable") if ours else (BROKEN, "import")
            outcome = Outcome(kind, word, message=str(refused))
            return Answer(outcome, None, time.monotonic() - start, 0.0, True, self.name)
        compiling = time.monotonic() - start
        _named(observer, task.kernel)
        end = time.monotonic() + stage.seconds
        observer.stopped = lambda: guard.spent or time.monotonic() > end
        session = Session(
            observer, self.setting.seed, memory=self._memory, stopped=observer.stopped
        )
        total, whole = _run(session, stage)
        in_time = not session.stopped()
        with contextlib.suppress(Interrupted):
            _explain(session, total, stage)
        verdict = conclude(
            session,
            total,
            profile=stage.profile,
            duration_s=time.monotonic() - start,
            ended=whole,
            interrupted=not in_time,
            commitment=self.setting.commitment,
        ).to_json()
        return Answer(Outcome.of(verdict), verdict, compiling, 0.0, whole, self.name)

    def _of(self, kernel: Kernel, scratch: Path) -> Hosting:
        """In its own place, where it is what was sent; else a copy of what was sent."""
        path, paths = Path(kernel.path), [*self._paths]
        try:
            known = digest_of(path.read_bytes(), kernel.attribute) == kernel.digest
        except OSError:
            known = False
        if not known:
            paths.append(str(path.parent))
            path = scratch / path.name
            path.write_bytes(kernel.data)
        named = f"{path}:{kernel.attribute}" if kernel.attribute else str(path)
        return dataclasses.replace(self._hosting, target=named, paths=tuple(paths))

    def _serving(self) -> int | None:
        """The channel of a fork server that runs; None where there is none for this device."""
        if not ForkServer.serves(self._hosting.device):
            return None
        if self._server is not None and self._server.ended:
            self._server.close()
            self._server, self._own = None, set()
        if self._server is None:
            self._server = ForkServer(self._hosting)
            _until_ready(self._hosting, self._server)
            self._own = {self._server.pid, *below(self._server.pid)}
        return self._server.channel.fileno()

    def _known(self) -> set[int]:
        """The processes below this one that are no kernel's."""
        return self._before | self._own


def _until_ready(hosting: Hosting, server: ForkServer) -> None:
    """Have it start an observer, which ends unused: then all that it consists of is there."""
    started = start(hosting, Arena.new(), server.channel.fileno())
    end = time.monotonic() + START_LIMIT
    while not started.process.pid and not server.ended and time.monotonic() < end:
        time.sleep(POLL)
    os.close(started.requests)
    os.close(started.answers)
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.process.wait(START_LIMIT)
    if started.home is not None:
        started.home.cleanup()


def _named(observer: Process, kernel: Kernel) -> None:
    """It is called as the campaign calls it, and lies where its user has it: also in scripts."""
    claimed = observer.claimed
    place, _, attribute = claimed.script.rpartition(":")
    own = attribute if place.endswith(".py") else ""
    observer.claimed = dataclasses.replace(
        claimed,
        name=kernel.name,
        source=kernel.target,
        script=f"{kernel.path}:{own}" if own else claimed.script,
    )


def _run(session: Session, stage: Stage) -> tuple[ShardResult, bool]:
    """What the shards found, as far as the stage goes; whether these were all."""
    profile = check_profile(stage.profile)
    results: list[ShardResult] = []
    shards = plan(session.target, profile)
    session.lost_before = stage.lost_before
    for shard in shards:
        results.append(run_shard(session, shard, profile))
        session.lost_before += weight(session.lost)
        session.lost = []  # as a worker's, which takes one shard after the other
        if session.stopped() or (stage.first and _is_broken(session, results[-1])):
            break
    return merged(results), len(results) == len(shards) and not session.stopped()


def _is_broken(session: Session, result: ShardResult) -> bool:
    return any(
        finding.status in BROKEN_STATUSES and session.level(finding.clause) == "must"
        for finding in result.findings.values()
    )


def _explain(session: Session, total: ShardResult, stage: Stage) -> None:
    """All that is broken; at a stage that stops at the first, that one alone."""
    if not (stage.first and _is_broken(session, total)):
        explain_all(session, total)
        return
    for finding in _musts(session, to_explain(total)):
        for step in (minimised, explained):
            finding = step(session, finding, time.monotonic() + stage.explaining)
            total.findings[(finding.clause, finding.dtype)] = finding
        return


def _musts(session: Session, findings: list[Finding]) -> Iterator[Finding]:
    musts = (finding for finding in findings if session.level(finding.clause) == "must")
    yield from sorted(musts, key=lambda finding: _ORDER[finding.clause])


def _guarded(answer: Answer, guard: Guard) -> Answer:
    """What the guard saw is what is told, where it had to end something."""
    if not guard.word:
        return answer
    outcome = dataclasses.replace(
        answer.outcome, outcome=BROKEN, reason=guard.word, message=f"the call {guard.message}"
    )
    return dataclasses.replace(answer, outcome=outcome)
