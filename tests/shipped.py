"""Judge the shipped CPU targets, and hold the verdicts to what is recorded here.

The conforming ones must conform; the tutorial's two must be rejected for exactly these clauses.
With arguments, judges those targets instead: ``python tests/shipped.py mine.py:loss``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

RECORDED: dict[str, set[str]] = {
    "builtin": set(),
    "module": set(),
    "function": set(),
    "tutorial-module": {"dtypes.unsupported", "value.mean_overflow"},
    "tutorial-function": {
        "broadcasting.gradient",
        "dtypes.unsupported",
        "gradient.empty",
        "gradient.target",
        "value.mean_overflow",
    },
}


def main(arguments: list[str]) -> int:
    check = ["loss-conformance", "check"]  # the installed one
    if arguments:
        return subprocess.run([*check, *arguments], check=False).returncode
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*check, *RECORDED, "--report", folder], check=False)
        surprises = [s for name, broken in RECORDED.items() for s in surprise(folder, name, broken)]
    print("\n".join(surprises) if surprises else "Every shipped target was judged as recorded.")
    return 1 if surprises else 0


def surprise(folder: str, name: str, broken: set[str]) -> list[str]:
    """What differs from the record, in words."""
    path = Path(folder, name, "verdict.json")
    if not path.exists():
        return [f"{name}: no verdict"]
    verdict = json.loads(path.read_text())
    bad = ("fail", "crash", "timeout", "stale")
    found = {c["id"] for c in verdict["clauses"] if c["status"] in bad and c["level"] == "must"}
    if not verdict["complete"]:
        return [f"{name}: the verdict is incomplete"]
    if found != broken:
        return [f"{name}: breaks {sorted(found)}, recorded are {sorted(broken)}"]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
