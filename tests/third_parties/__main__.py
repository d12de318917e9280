"""Judge every one of them and write the table: ``python -m tests.third_parties [PROFILE]``.

Exits with 1 where a verdict is not the recorded one: a package, or this suite, has changed.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.verdict.verdict import broken_rows, read_verdict

HERE = Path(__file__).parent
# What each broke when this was last looked at, all of level must.
RECORDED: dict[str, set[str]] = {
    "deepxde": set(),
    "gpytorch": set(),
    "keras": {"errors.devices", "transforms.meta"},
    "neuralforecast": set(),
    "neuraloperator": set(),
    "torchmetrics": {"layout.value"},
}


def broken(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The first broken row of each clause."""
    return {r["id"]: r for r in reversed(broken_rows(verdict))}


def told(row: dict[str, Any]) -> str:
    """The clause, what was found and the smallest case, as a cell of the table."""
    found = row["counterexample"]
    case = f" ({Case.from_json(found['case'])})" if found["case"] else ""
    return f"`{row['id']}`: {found['message']}{case}"


def main(profile: str = "default") -> int:
    changed = []
    print("| package | version | verdict | what is broken |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in RECORDED:
            target = str(HERE / f"{name}_target.py")
            command = [sys.executable, "-m", "conformance", "check", target]
            options = ["--profile", profile, "--report", folder]
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
            if done.returncode not in (0, 1):
                print(f"| {name} | | status {done.returncode}: {done.stderr.strip()} | |")
                changed.append(name)
                continue
            verdict = read_verdict(Path(folder, name, "verdict.json"))
            found = broken(verdict)
            changed += [name] if set(found) != RECORDED[name] else []
            says = "conforms" if verdict["conforms"] else "does not conform"
            version = importlib.metadata.version(name)
            print(
                f"| {name} | {version} | {says} | {'; '.join(map(told, found.values())) or '—'} |"
            )
    for name in changed:
        print(f"{name}: not what is recorded in {Path(__file__).name}", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
