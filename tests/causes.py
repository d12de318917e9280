"""How often the likely cause is right: over the bank, against what is truly wrong with each mutant.

``python -m tests causes`` judges every mutant as ``power`` does, tells the likely cause of each of
its findings, and compares with the labels of ``tests/mutants/causes.py``. For one mutant the causes
are *right* if each that was told is among its labels, *wrong* if one is not, *silent* if none was
told. Exit status 0 if at least 70% of the mutants with a label are right and at most 5% of all are
wrong.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from conformance.cases.profiles import PROFILES
from conformance.judging.findings import ShardResult, merged
from conformance.running.explaining import explain_all
from conformance.running.session import Session
from conformance.running.shards import experiment_shards, plan
from tests.mutants import LENIENT, MUTANTS
from tests.mutants.causes import labels_of
from tests.pool import in_processes
from tests.power import BANK, COMBINED, Task, results_of, session_of

RIGHT_SHARE, WRONG_SHARE = 0.70, 0.05
Told = tuple[str, str, str]  # clause, id of the cause, its text


@dataclass(frozen=True)
class Explained:
    """The causes told for one implementation, and those that it has."""

    name: str
    told: tuple[Told, ...]
    labels: frozenset[str]
    broken: tuple[str, ...]

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(id for _, id, _ in self.told)

    @property
    def verdict(self) -> str:
        """right, wrong, or silent."""
        if not self.ids:
            return "silent"
        return "right" if self.ids <= self.labels else "wrong"


def explained(name: str) -> Explained:
    """Judge one implementation and explain what it breaks, in a process of its own."""
    session = session_of(BANK[name], Task(name, "quick"))
    total = broken_total(session)
    explain_all(session, total)
    found = sorted(total.findings.values(), key=lambda f: (f.clause, f.dtype))
    told = tuple((f.clause, f.cause.id, f.cause.text) for f in found if f.cause is not None)
    broken = tuple(dict.fromkeys(f.clause for f in found if f.status == "fail"))
    return Explained(name, told, labels_of(name), broken)


def broken_total(session: Session) -> ShardResult:
    """The examples of profile ``quick`` and the experiments up to ``default``; where these find
    nothing, the pairs of ``default`` too."""
    quick, default = PROFILES["quick"], PROFILES["default"]
    shards = [s for s in plan(session.target, quick) if s.phase not in COMBINED]
    results = list(results_of(session, quick, shards))
    later = [s for s in experiment_shards("default") if s not in shards]
    results += results_of(session, default, later)
    if not any(f.status == "fail" for r in results for f in r.findings.values()):
        more = [s for s in plan(session.target, default) if s.phase == "pairs"]
        results += results_of(session, default, more)
    return merged(results)


def measure(names: Sequence[str], jobs: int) -> Iterator[Explained]:
    """What was told of each, as they end."""

    def line(done: Explained) -> str:
        return f"{done.name}: {done.verdict}: {', '.join(sorted(done.ids)) or '-'}"

    return in_processes(explained, names, jobs, line)


@dataclass(frozen=True)
class Figures:
    """The counts of one run."""

    every: tuple[Explained, ...]

    @property
    def labelled(self) -> list[Explained]:
        return [e for e in self.every if e.labels]

    @property
    def right(self) -> list[Explained]:
        return [e for e in self.labelled if e.verdict == "right"]

    @property
    def wrong(self) -> list[Explained]:
        return [e for e in self.every if e.verdict == "wrong"]

    @property
    def told(self) -> list[Explained]:
        return [e for e in self.every if e.told]

    @property
    def good(self) -> bool:
        enough = len(self.right) >= RIGHT_SHARE * len(self.labelled)
        return enough and len(self.wrong) <= WRONG_SHARE * len(self.every)


def summary(figures: Figures) -> str:
    """Markdown, for people."""
    right, labelled = len(figures.right), len(figures.labelled)
    wrong, told, every = len(figures.wrong), len(figures.told), len(figures.every)
    lines = [
        "# The likely causes",
        "",
        f"- right: {_share(right, labelled)} of those that have a cause of the list",
        f"- wrong: {_share(wrong, every)} of all, {_share(wrong, told)} of those told a cause",
        "",
        "| cause | mutants that have it | right | silent | wrong |",
        "|---|---|---|---|---|",
    ]
    having = Counter((label, e.verdict) for e in figures.every for label in e.labels)
    for label in sorted({label for label, _ in having}):
        counts = [having[label, verdict] for verdict in ("right", "silent", "wrong")]
        lines.append(f"| {label} | {sum(counts)} | {' | '.join(map(str, counts))} |")
    lines += ["", "## Wrong, or silent though there is a cause", ""]
    for e in figures.every:
        if e.verdict == "wrong" or (e.verdict == "silent" and e.labels):
            lines.append(f"- {e.name}: {e.verdict}; has {', '.join(sorted(e.labels)) or 'none'}")
            lines += [f"  - {c}: {id}: {text}" for c, id, text in e.told if id not in e.labels]
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(whole, 1):.0%})"


def assemble(found: Iterable[Explained]) -> Figures:
    return Figures(tuple(sorted(found, key=lambda e: e.name)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests causes", description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these, with all they are told")
    parser.add_argument("--every", type=int, default=1, help="each so many'th mutant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    names = options.only or [m.target.name for m in (*MUTANTS, *LENIENT)][:: options.every]
    figures = assemble(measure(names, options.jobs))
    for e in figures.every if options.only else ():
        print(f"{e.name}: {e.verdict}; has {', '.join(sorted(e.labels)) or 'none'}")
        print(*(f"  {clause}: {id}: {text}" for clause, id, text in e.told), sep="\n")
    print(summary(figures))
    return 0 if figures.good else 1
