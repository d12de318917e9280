"""What the command line shows: the report on standard output, and progress on standard error.

Colour, and progress that moves, only on a terminal; NO_COLOR, FORCE_COLOR and TERM=dumb are heard.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from conformance.report.progress import Progress
from conformance.report.text import WIDTH, render, report
from conformance.report.watching import watched


def show(verdict: dict[str, Any], sentences: dict[str, str], folder: Path | None = None) -> None:
    """Print the report of a verdict. ``folder``: where it is written as well."""
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(file=sys.stdout, width=width)
    styled = console.is_terminal
    text = in_style(verdict, sentences, folder, console.width) if styled else None
    print(text or render(verdict, sentences, folder), flush=True)


def in_style(
    verdict: dict[str, Any], sentences: dict[str, str], folder: Path | None, width: int
) -> str:
    """The report as a terminal shows it, with the colours that this one has."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
    with console.capture() as captured:
        console.print(report(verdict, sentences, folder, width))
    return captured.get()


def watching(progress: Callable[[], Progress]) -> contextlib.AbstractContextManager[None]:
    """Show how far a run is while the block runs."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(console: Console) -> Table:
        now = progress()
        grid = Table.grid(padding=(0, 1), expand=True)
        row: list[Any] = [Text(now.target or "starting", "bold", no_wrap=True, overflow="ellipsis")]
        grid.add_column(max_width=min(24, console.width // 3))
        if now.target:
            if console.width >= 60:
                grid.add_column(width=console.width // 8)
                row.append(ProgressBar(total=1.0, completed=now.share))
            grid.add_column(no_wrap=True)
            row.append(f"{now.cases:,} cases, {now.rest()}")
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        row.append(Text("; ".join(now.found()), "red"))
        grid.add_row(*row)
        return grid

    return watched(progress, line, refresh_per_second=4)
