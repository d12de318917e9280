"""Judge every one of them and write the table: ``python -m tests.third_parties [PROFILE]``.

Exits with 1 where a verdict is not the recorded one: a package, or this suite, has changed.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.verdict.verdict import broken_rows, read_verdict, reasons_of

HERE = Path(__file__).parent
# What each broke when this was last looked at, all of level must; what follows the package's name
# says within which domain.
RECORDED: dict[str, frozenset[str]] = {
    "deepxde": frozenset(),
    "gpytorch": frozenset(),
    "keras": frozenset({"errors.devices", "transforms.meta"}),
    "neuralforecast": frozenset(),
    "neuraloperator": frozenset(),
    "torchmetrics": frozenset(
        {
            "autograd.double_backward",
            "autograd.forward",
            "autograd.grad_output_derivative",
            "autograd.nonleaf",
            "determinism.concurrent",
            "layout.value",
            "purity.alias",
            "transforms.compile",
            "transforms.deterministic_mode",
            "transforms.fake",
            "transforms.meta",
        }
    ),
    "torchmetrics_contiguous": frozenset(),
}
QUICK = "quick"  # where what the further profiles add is not looked for


def broken(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The first broken row of each clause, those that another explains left out."""
    rows = {r["id"]: r for r in reversed(broken_rows(verdict))}
    explained = {c for cause in reasons_of(verdict).values() for c in cause["clauses"][1:]}
    return {clause: row for clause, row in rows.items() if clause not in explained}


def told(verdict: dict[str, Any]) -> Iterator[str]:
    """The clauses, what was found and the smallest case, for a cell of the table."""
    reasons = reasons_of(verdict)
    for clause, row in broken(verdict).items():
        found = row["counterexample"]
        case = f" ({Case.from_json(found['case'])})" if found["case"] else ""
        others = [f"`{other}`" for other in reasons.get(clause, {"clauses": []})["clauses"][1:]]
        rest = f"; for the same reason {', '.join(others)}" if others else ""
        yield f"`{clause}`: {found['message']}{case}{rest}"


def is_stale(name: str, verdict: dict[str, Any], profile: str) -> bool:
    """Whether other clauses are broken than is recorded; in a quick run, one that is not."""
    found = {row["id"] for row in broken_rows(verdict)}
    recorded = RECORDED[name]
    if profile == QUICK:
        return not found <= recorded or bool(found) != bool(recorded)
    return found != recorded


def main(profile: str = "default") -> int:
    changed = []
    print("| package | version | for | verdict | what is broken |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in RECORDED:
            target = str(HERE / f"{name}_target.py")
            command = [sys.executable, "-m", "conformance", "check", target]
            options = ["--profile", profile, "--report", folder]
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
            if done.returncode not in (0, 1):
                print(f"| {name} | | | status {done.returncode}: {done.stderr.strip()} | |")
                changed.append(name)
                continue
            verdict = read_verdict(Path(folder, name, "verdict.json"))
            changed += [name] if is_stale(name, verdict, profile) else []
            print(_row(name, verdict), flush=True)
    for name in changed:
        print(f"{name}: not what is recorded in {Path(__file__).name}", file=sys.stderr)
    return 1 if changed else 0


def _row(name: str, verdict: dict[str, Any]) -> str:
    package = name.partition("_")[0]
    says = "conforms" if verdict["conforms"] else "does not conform"
    cells = (package, importlib.metadata.version(package), verdict["domain"], says)
    return f"| {' | '.join(cells)} | {'; '.join(told(verdict)) or '—'} |"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
