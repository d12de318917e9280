"""How far a run is, as data: what it has found so far, and how long it will still take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What a shard of each phase takes, beside one of examples; as measured, and no more than a guess.
_COSTS = {"experiments": 5, "fuzz": 2, "scale": 2}


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    ``share``: of its work, done in ``seconds``. ``failing``: the broken ``must`` clauses so far.
    ``lost``: calls that ended their process. ``shrinking``: counterexamples still to be made
    smaller, once all cases have run.
    """

    target: str = ""
    share: float = 0.0
    seconds: float = 0.0
    cases: int = 0
    failing: tuple[str, ...] = ()
    lost: int = 0
    shrinking: int = 0

    @property
    def left(self) -> float | None:
        """Seconds, if the rest takes as long as what is done; None while nothing is."""
        return self.seconds * (1 - self.share) / self.share if self.share else None

    def __str__(self) -> str:
        """In a line: ``mine: 1,402 cases, 40% done, 8 s left; failing: value.mean``."""
        done = f"{self.cases:,} cases, {self.share:.0%} done, {self.rest()}"
        return f"{self.target}: {'; '.join([done, *self.found()])}"

    def rest(self) -> str:
        """What is still to do: the time left, where it can be told."""
        if self.shrinking:
            return f"{self.shrinking} to make smaller"
        return "begun" if self.left is None else f"{duration(self.left)} left"

    def found(self) -> list[str]:
        """What is wrong so far; empty where nothing is."""
        failing = [f"{len(self.failing)} failing: {', '.join(self.failing)}"] * bool(self.failing)
        return [*failing, *[f"{self.lost} calls lost"] * bool(self.lost)]


def share(done: Iterable[str], planned: Sequence[str]) -> float:
    """Of the work of the shards, given by their phases."""
    whole = sum(_cost(phase) for phase in planned)
    return sum(_cost(phase) for phase in done) / whole if whole else 0.0


def _cost(phase: str) -> int:
    return _COSTS.get(phase, 1)


def duration(seconds: float) -> str:
    """``8 s``, ``3 min``: as exactly as an estimate deserves."""
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"
