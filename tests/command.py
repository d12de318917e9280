"""The command line without a process of its own: all that it takes is what it does."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
from pathlib import Path

from conformance.cli import main


def inside(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command with these arguments, in this process: its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main([*arguments])
    except SystemExit as ended:  # as argparse does
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
