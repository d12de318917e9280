"""Hands out the work of a campaign and writes down what comes of it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from conformance.report.campaign_progress import CampaignProgress
from conformance.running.campaign.engine import Died, Engine, Event
from conformance.running.campaign.kernels import Kernel
from conformance.running.campaign.ledger import Circumstances, Ledger, worker_killed
from conformance.running.campaign.stages import COMPILING, DEFAULT, QUICK, SCREEN
from conformance.running.campaign.task import Answer, Task
from conformance.verdict.outcome import BROKEN, CONFORMS, INCOMPLETE, Outcome

KILLS = 3  # so many workers may end with a kernel: then it is the kernel
PATIENCE = 0.5  # seconds between two looks at the clock


@dataclass
class Controller:
    """One run of a campaign, up to the stage ``until``. ``limit``: so many tasks at most.

    ``known``: outcomes by kernel and stage, as the ledger has them.
    """

    ledger: Ledger
    own: Circumstances
    kernels: Sequence[Kernel]
    until: str = SCREEN.name
    limit: int | None = None
    known: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    running: int = 0
    lost: int = 0
    _left: deque[Task] = field(default_factory=deque)
    _last: dict[str, str] = field(default_factory=dict)  # by kernel, what its last stage came to
    _counts: Counter[str] = field(default_factory=Counter)  # of these
    _ours: dict[str, Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ours = {kernel.digest: kernel for kernel in self.kernels}
        for entry in self.ledger.entries(self.own):
            self._note(entry.kernel, entry.stage, entry.outcome)
        self._left.extend(self._tasks(self._ours.values()))
        self._left = deque(sorted(self._left, key=lambda task: task.stage != SCREEN.name))

    def run(self, engine: Callable[[], Engine]) -> None:
        """Judge what is left, with an engine that is made where there is something to do."""
        if not self._left or self.limit == 0:
            return
        working = engine()
        try:
            while self._left or self.running:
                while self._left and working.room and self._may_begin():
                    working.submit(self._left.popleft())
                    self.running += 1
                if not self.running:
                    return
                for event in working.wait(PATIENCE):
                    self._take(event)
        finally:
            working.close()

    def progress(self) -> CampaignProgress:
        """How far it is; at any moment, from any thread."""
        counts = self._counts
        return CampaignProgress(
            kernels=len(self._ours),
            conforming=counts[CONFORMS],
            broken=counts[BROKEN],
            unclear=counts[INCOMPLETE],
            lost=self.lost,
            done=self.done,
            left=self.left,
            seconds=time.monotonic() - self.began,
        )

    @property
    def left(self) -> int:
        """Tasks that are still to do, in this run."""
        left = len(self._left) + self.running
        return left if self.limit is None else min(left, self.limit - self.done)

    def _may_begin(self) -> bool:
        return self.limit is None or self.done + self.running < self.limit

    def _tasks(self, kernels: Iterable[Kernel]) -> Iterable[Task]:
        """What is to be done next with each, if anything is."""
        for kernel in kernels:
            screened = self.known.get((kernel.digest, SCREEN.name))
            whole = (kernel.digest, DEFAULT.name) in self.known
            if screened is None:
                yield Task(kernel, SCREEN.name)
            elif screened.outcome == CONFORMS and self.until == DEFAULT.name and not whole:
                yield Task(kernel, DEFAULT.name)

    def _note(self, kernel: str, stage: str, outcome: Outcome) -> None:
        """Stages come in their order."""
        self.known[kernel, stage] = outcome
        if kernel in self._ours and stage != COMPILING:
            self._counts[self._last.get(kernel, "")] -= 1
            self._last[kernel] = outcome.outcome
            self._counts[outcome.outcome] += 1

    def _take(self, event: Event) -> None:
        self.running -= 1
        task, kernel = event.task, event.task.kernel.digest
        if isinstance(event, Died):
            self.lost += 1
            how = self.ledger.lose(self.own, kernel, task.stage, event.how)
            if len(how) < KILLS:
                self._left.append(task)  # last: it is not to delay any other
                return
            self._write(task, worker_killed(how))
        else:
            self._write(task, event.answer)

    def _write(self, task: Task, answer: Answer) -> None:
        kernel, stages = task.kernel.digest, [task.stage]
        if task.stage == SCREEN.name and answer.outcome.outcome == CONFORMS:
            stages.append(QUICK.name)  # it was seen through
        self.ledger.record(self.own, kernel, stages, answer)
        self.done += 1
        for stage in stages:
            self._note(kernel, stage, answer.outcome)
        self._left.extend(self._tasks([task.kernel]))
