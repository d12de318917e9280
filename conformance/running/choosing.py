"""Which file is meant where no target is named."""

from __future__ import annotations

from pathlib import Path

from conformance.running.options import UsageError
from conformance.running.starter import NAME

NOT_LOSSES = ("conftest", "setup", "test_")  # how files begin that hold no loss
HOW = "name a target: a registered name, package.module:attribute or path/file.py:attribute"


def only_file(folder: Path) -> str:
    """The starter that ``init`` wrote, else the one Python file of ``folder`` that may hold a loss.

    Raises UsageError where there is none, or more than one.
    """
    if (folder / NAME).is_file():
        return NAME
    names = sorted(p.name for p in folder.glob("*.py") if not p.name.startswith(NOT_LOSSES))
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(f"{HOW}. In this folder there is no Python file that could be meant")
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    raise UsageError(f"{HOW}. In this folder there are several Python files: {shown}")
