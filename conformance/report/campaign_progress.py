"""How far a campaign is, as data, and how a terminal shows it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conformance.report.progress import duration

EVERY = 60.0  # seconds between two lines, where there is no terminal


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


@contextlib.contextmanager
def watching(progress: Callable[[], CampaignProgress]) -> Iterator[None]:
    """Show it while the block runs: on a terminal in one line, elsewhere in one every minute."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        with _live(console, progress):
            yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(EVERY):
            print(f"loss-conformance: {progress()}", file=sys.stderr, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _live(console: Any, progress: Callable[[], CampaignProgress]) -> Any:
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line() -> Table:
        now = progress()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=max(console.width // 8, 4))
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        whole = max(now.done + now.left, 1)
        grid.add_row(ProgressBar(total=whole, completed=now.done), Text(str(now)))
        return grid

    return Live(
        console=console,
        get_renderable=line,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        refresh_per_second=2,
    )
