"""How far a campaign is, as data, and how a terminal shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.report.progress import duration
from conformance.report.watching import watched

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CampaignProgress:
    """A campaign at one moment. ``conforming``, ``broken``, ``unclear``: of all its ``kernels``.

    ``lost``: workers that ended with a kernel. ``done`` tasks took ``seconds``; ``left`` are to do.
    """

    kernels: int = 0
    conforming: int = 0
    broken: int = 0
    unclear: int = 0
    lost: int = 0
    done: int = 0
    left: int = 0
    seconds: float = 0.0

    @property
    def an_hour(self) -> float:
        return 3600 * self.done / self.seconds if self.seconds else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds, if the rest takes as long as what is done; None while nothing is."""
        return self.seconds * self.left / self.done if self.done else None

    def __str__(self) -> str:
        """In a line: ``640 kernels: 87 conform, 310 broken; 1,812 an hour, 8 min left``."""
        found = [f"{self.conforming:,} conform", f"{self.broken:,} broken"]
        found += [f"{self.unclear:,} unclear"] * bool(self.unclear)
        found += [f"{self.lost:,} workers lost"] * bool(self.lost)
        rest = "begun" if self.remaining is None else f"{duration(self.remaining)} left"
        return f"{self.kernels:,} kernels: {', '.join(found)}; {self.an_hour:,.0f} an hour, {rest}"


def watching(
    progress: Callable[[], CampaignProgress],
) -> contextlib.AbstractContextManager[None]:
    """Show how far a campaign is while the block runs."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(console: Console) -> Table:
        now = progress()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=max(console.width // 8, 4))
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        whole = max(now.done + now.left, 1)
        grid.add_row(ProgressBar(total=whole, completed=now.done), Text(str(now)))
        return grid

    return watched(progress, line, refresh_per_second=2)
