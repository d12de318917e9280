"""Show how far something is while it goes on: on a terminal in one line that is gone in the end;
elsewhere in a line every minute, so that the log of what is short holds none."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich takes longer to import than most commands do
    from rich.console import Console
    from rich.table import Table

EVERY = 60.0  # seconds between two lines, where there is no terminal


@contextlib.contextmanager
def watched(
    progress: Callable[[], object], line: Callable[[Console], Table], refresh_per_second: int
) -> Iterator[None]:
    """While the block runs: ``line``, of a terminal; else what ``progress`` is as text."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        with Live(
            console=console,
            get_renderable=lambda: line(console),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=refresh_per_second,
        ):
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
