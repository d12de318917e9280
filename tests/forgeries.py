"""``python -m tests forgers``: every forger, judged over the wall as a user's file is."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.verdict.verdict import broken_rows
from tests.forgers.forger import KINDS, Forger

HOME = Path(__file__).parent.parent
FILES = ("judges", "memories", "answers", "calls", "figures", "recognisers")
SANDBOXED = "surroundings"  # the file of those that only a sandbox stops
FILE_OF = {
    forger.name: file
    for file in (*FILES, SANDBOXED)
    for forger in importlib.import_module(f"tests.forgers.{file}").FORGERS
}
FORGERS: tuple[Forger, ...] = tuple(
    forger for file in FILES for forger in importlib.import_module(f"tests.forgers.{file}").FORGERS
)
OF_SURROUNDINGS: tuple[Forger, ...] = importlib.import_module(f"tests.forgers.{SANDBOXED}").FORGERS
JUDGED = """
from forgers.{file} import FORGERS

loss = next(found for found in FORGERS if found.name == {name!r}).target
"""
LIMIT = 400.0  # seconds
# The command, which takes no time to explain what it found.
COMMAND = """
import sys
from conformance.running import supervisor
supervisor.EXPLAINING = 0.0
from conformance.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Judged:
    """What came of it. ``broken``: the clauses of its verdict; ``left``: processes that stayed;
    ``source``: the file that was judged, as it is now."""

    name: str
    status: int
    seconds: float
    conforms: bool | None
    broken: tuple[str, ...]
    left: tuple[str, ...]
    source: str

    @property
    def refused(self) -> bool:
        judged = self.status == 1 and self.conforms is False and bool(self.broken)
        return judged and not self.left and self.name in self.source


def judged(name: str, *options: str) -> Judged:
    """One forger, by the command, in profile quick."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "forgers").symlink_to(HOME / "tests" / "forgers")
        Path(folder, "mine.py").write_text(JUDGED.format(file=FILE_OF[name], name=name))
        mark = f"{folder}/"  # of all processes of this run: it stands in their environment
        command = [sys.executable, "-P", "-c", COMMAND, "check", "mine.py:loss"]
        options = ("--profile", "quick", "--seed", "5", "--timeout", "5", *options)
        environment = os.environ | {"PYTHONPATH": str(HOME), "TMP_OF_RUN": mark}
        start = time.monotonic()
        done = subprocess.run(
            [*command, *options, "--report", "out"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
        seconds = time.monotonic() - start
        time.sleep(0.5)  # an observer ends when its parent has
        source = Path(folder, "mine.py").read_text()
        found = *_verdict(Path(folder)), _left(mark), source
        return Judged(name, done.returncode, seconds, *found)


def _verdict(folder: Path) -> tuple[bool | None, tuple[str, ...]]:
    """Whether it conforms, None where there is no verdict of a run that ended; what it broke."""
    for path in (folder / "out").glob("*/verdict.json"):
        verdict = json.loads(path.read_text())
        broken = tuple(dict.fromkeys(row["id"] for row in broken_rows(verdict)))
        return (verdict["conforms"] if verdict["clauses"] else None), broken
    return None, ()


def _left(mark: str) -> tuple[str, ...]:
    """The command lines of processes that still have it in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return tuple(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests forgers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[f.name for f in FORGERS], metavar="NAME")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="of these alone")
    parser.add_argument("--sandbox", choices=("none", "bwrap"), default="none")
    options = parser.parse_args(arguments)
    chosen = [f for f in FORGERS if not options.only or f.name in options.only]
    chosen = [f for f in chosen if f.kind in (options.kinds or KINDS)]
    print("| forger | kind | refused | s | by |\n|---|---|---|---|---|")
    holes = 0
    for forger in chosen:
        found = judged(forger.name, "--sandbox", options.sandbox)
        holes += not found.refused
        what = "yes" if found.refused else f"NO: status {found.status}, {found.left}"
        by = ", ".join(found.broken[:4]) + (", …" if len(found.broken) > 4 else "")
        print(
            f"| {forger.name} | {forger.kind} | {what} | {found.seconds:.0f} | {by} |", flush=True
        )
    print(f"{len(chosen)} forgers, {holes} of them not refused")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
