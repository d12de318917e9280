"""What the command line shows: the report on standard output, and progress on standard error.

Colour, and progress that moves, only on a terminal; NO_COLOR, FORCE_COLOR and TERM=dumb are heard.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from conformance.report.progress import Progress
from conformance.report.text import WIDTH, render, report

EVERY = 60.0  # seconds between two lines of progress where there is no terminal


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


@contextlib.contextmanager
def watching(progress: Callable[[], Progress]) -> Iterator[None]:
    """Show how far a run is while the block runs.

    On a terminal in a line that is gone in the end; elsewhere in a line every minute, so that the
    log of a short run holds none.
    """
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


def _live(console: Console, progress: Callable[[], Progress]) -> Any:
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line() -> Table:
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

    return Live(
        console=console,
        get_renderable=line,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
