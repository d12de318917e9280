"""How long the steps after a run may take, so that a verdict comes whatever the target does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

EXPLAINING = 60.0  # seconds for all findings of a target: to make them smaller; again, for causes


@dataclass
class Budget:
    """The time for several steps, each of which may take an even share of what is left.

    ``spent``: how many of them it did not do for.
    """

    seconds: float
    spent: int = 0
    began: float = field(default_factory=time.monotonic)

    def shares(self, steps: int) -> Iterator[float]:
        """For each step, in turn, the seconds that it may take."""
        for left in range(steps, 0, -1):
            rest = self.seconds - (time.monotonic() - self.began)
            yield max(rest, 0.0) / left

    def remark(self, verb: str, steps: int) -> list[str]:
        """That it did not do, where it did not."""
        if not self.spent:
            return []
        text = f"{self.spent} of {steps} counterexamples could not be {verb} any further"
        return [f"{text} within {self.seconds:g} s"]
