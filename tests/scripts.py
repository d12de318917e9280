"""The scripts of failures: what they say of the mutant and of torch's own loss.

``python -m tests scripts`` judges every mutant, writes the script of each clause that it breaks,
and runs each one twice: it must exit with 1 on the mutant and with 0 on the builtin.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import io
import os
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from conformance.cases.case import FLOAT_DTYPES
from conformance.cases.profiles import PROFILES
from conformance.clauses import BY_ID
from conformance.judging.findings import EXPERIMENT, merged
from conformance.report.repro import simplest
from conformance.running.concluding import conclude
from conformance.running.explaining import explain_all
from conformance.running.run import run_shard
from conformance.running.shards import plan
from tests.mutants import LENIENT, MUTANTS
from tests.pool import pool
from tests.power import TOO_LARGE
from tests.right.forms import RIGHT_FORMS
from tests.sessions import session_on

BANK = {m.target.name: m for m in (*MUTANTS, *LENIENT)}
FUNCTION, MODULE = "torch.nn.functional:mse_loss", "torch.nn:MSELoss"
# Until one of them breaks a clause
STAGES = (
    ("quick", ("examples", "experiments")),
    ("quick", ("pairs", "fuzz", "scale")),
    ("default", ("experiments", "pairs", "fuzz", "scale")),
    ("release", ("experiments",)),
)
BANK_SOURCE = """
from tests.scripts import BANK
globals().update({name.replace("-", "_"): mutant.target for name, mutant in BANK.items()})
"""


@dataclass(frozen=True)
class Script:
    """One script of a mutant. ``kind``: how the failure is shown."""

    mutant: str
    clause: str
    kind: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """The exit statuses on the mutant and on the builtin, and what was printed."""

    script: Script
    mutant: int
    builtin: int
    said: str

    @property
    def right(self) -> bool:
        return (self.mutant, self.builtin) == (1, 0)


def write_bank(folder: Path) -> Path:
    """A file whose attributes are the targets of the bank, so that a script can name them."""
    path = folder / "bank.py"
    path.write_text(BANK_SOURCE, encoding="utf-8")
    return path


def scripts_of(name: str, bank: Path) -> list[Script]:
    """One for each clause that the mutant breaks, by profile quick or else by later ones."""
    torch.set_num_threads(1)
    left_out = frozenset(f"{EXPERIMENT}{c} {d}" for c in TOO_LARGE for d in FLOAT_DTYPES)
    session = session_on(f"{bank}:{name.replace('-', '_')}", skip=left_out)
    for profile, phases in STAGES:
        shards = [s for s in plan(session.target, PROFILES[profile]) if s.phase in phases]
        total = merged(run_shard(session, shard, PROFILES[profile]) for shard in shards)
        explain_all(session, total)
        verdict = conclude(session, total, profile=profile, duration_s=0.0)
        rows = simplest(verdict.to_json())
        if rows:
            break
    found = []
    for row in rows:
        counterexample = row["counterexample"]
        kind = "experiment" if counterexample["case"] is None else "case"
        if "laid_out" in counterexample["script"]:
            kind = "large case"
        found.append(Script(name, row["id"], kind, counterexample["script"]))
    return found


def status(source: str, loss: str) -> tuple[int, str]:
    """The exit status of a script and its output, in this process: it must be a fresh one."""
    torch.set_num_threads(1)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(source, encoding="utf-8")
        sys.argv = [str(path), *([loss] if loss else [])]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                return int(end.code or 0), said.getvalue()
            except Exception:
                traceback.print_exc()
    return -1, said.getvalue()


def builtin_for(script: Script) -> str:
    """Where there is a right one: of a form of its own, that of the same form."""
    result = BANK[script.mutant].target.domain.result
    if result is not None:
        (right,) = [t.loss for t in RIGHT_FORMS if t.domain.result == result]
        return f"{right.__module__}:{right.__qualname__}"
    return MODULE if BY_ID[script.clause].family == "module" else FUNCTION


def imports(source: str) -> set[str]:
    """The top-level packages that a script imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def measure(names: Sequence[str], jobs: int, most: int = sys.maxsize) -> Iterator[Outcome]:
    """``most``: of one mutant's scripts, spread over its clauses."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pool(scripts_of.__module__, jobs) as processes,
        concurrent.futures.ThreadPoolExecutor(jobs) as threads,
    ):
        bank = write_bank(Path(folder))

        def run(source: str, loss: str) -> tuple[int, str]:
            ended, said = processes.submit(status, source, loss).result()
            if ended > 128:  # what is forked beside threads has crashed, once in some 2,000 runs
                ended, said = processes.submit(status, source, loss).result()
            return ended, said

        def one(name: str) -> list[Outcome]:
            outcomes = []
            made = processes.submit(scripts_of, name, bank).result()
            for script in made[:: -(-len(made) // most) or 1]:
                mutant, said = run(script.source, "")
                builtin, also = run(script.source, builtin_for(script))
                outcomes.append(Outcome(script, mutant, builtin, said + also))
            return outcomes

        done = [threads.submit(one, name) for name in names]
        for number, future in enumerate(concurrent.futures.as_completed(done), 1):
            outcomes = future.result()
            wrong = [o for o in outcomes if not o.right]
            name = outcomes[0].script.mutant if outcomes else "one without a script"
            print(f"[{number}/{len(names)}] {name}: {len(outcomes)}", file=sys.stderr, flush=True)
            for o in wrong:
                text = f"  {o.script.clause} ({o.script.kind}): {o.mutant}, {o.builtin}: {o.said}"
                print(text, file=sys.stderr, flush=True)
            yield from outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests scripts", description=__doc__)
    parser.add_argument("--only", nargs="+", help="the names of mutants")
    parser.add_argument("--every", type=int, default=1, help="only each N-th")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    names = options.only or list(BANK)[:: options.every]
    outcomes = list(measure(names, options.jobs))
    for kind in ("case", "large case", "experiment"):
        some = [o for o in outcomes if o.script.kind == kind]
        print(f"{kind}: {sum(o.right for o in some)} of {len(some)} scripts tell the two apart")
    silent = sorted(set(names) - {o.script.mutant for o in outcomes})
    print(f"mutants without a script: {', '.join(silent) or 'none'}")
    print(f"{len(names)} mutants, {time.perf_counter() - start:.0f} s with {options.jobs} jobs")
    return 0 if all(o.right for o in outcomes) and not silent else 1
