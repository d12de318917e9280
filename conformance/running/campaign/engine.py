"""Who judges: the interface that controllers see, whatever carries the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from conformance.running.campaign.task import Answer, Task


@dataclass(frozen=True)
class Judged:
    """A task, and what came of it."""

    task: Task
    answer: Answer


@dataclass(frozen=True)
class Died:
    """Whoever judged ``task`` has ended instead. ``how``: after "who judged it"."""

    task: Task
    how: str


Event = Judged | Died


class Engine(Protocol):
    """Judges tasks, some at once, each of them once; what dies with its worker is told."""

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""

    def submit(self, task: Task) -> None:
        """Judge it, as soon as may be."""

    def wait(self, seconds: float) -> list[Event]:
        """What has happened, once something has, or the time is over."""

    def close(self) -> None:
        """End all work, done or not."""
