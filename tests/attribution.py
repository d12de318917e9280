"""How well a defect is told once: over the bank, or a sample of it.

``python -m tests attribution`` judges mutants as ``causes`` does, asks for which reasons their
clauses fail, and tells of each mutant which clauses fail, which of these are of its own families,
and how many others are named beside them: as heads of a reason, where the reasons are told, or each
by itself, where they are not. Exit status 0 if the first reason covers all that fails for at least
90% of the mutants, and the median of those named beside is 0.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from conformance.clauses import BY_ID
from conformance.running.explaining import explain_all
from conformance.running.reasoning import reasoned
from tests.causes import broken_total
from tests.mutants import MUTANTS
from tests.pool import in_processes
from tests.power import BANK, FAMILIES, Task, session_of

COVERED_SHARE, BESIDE = 0.90, 0


@dataclass(frozen=True)
class Told:
    """What was told of one mutant. ``broken``: the clauses that fail; ``own``: its families.

    ``reasons``: for each reason its text and the clauses that it covers, the head first.
    """

    name: str
    own: frozenset[str]
    broken: tuple[str, ...]
    reasons: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def before(self) -> list[str]:
        """The clauses that are named beside its own, were each named by itself."""
        return [clause for clause in self.broken if not self._is_own(clause)]

    @property
    def beside(self) -> list[str]:
        """Of the clauses that lead a reason, those of other families than its own."""
        return [clauses[0] for _, clauses in self.reasons if not self._is_own(clauses[0])]

    @property
    def covered(self) -> bool:
        """Whether the first reason covers all that fails."""
        return not self.broken or set(self.reasons[0][1]) >= set(self.broken)

    def _is_own(self, clause: str) -> bool:
        return BY_ID[clause].family in self.own


def told(name: str) -> Told:
    """Judge one mutant and ask why its clauses fail, in a process of its own."""
    session = session_of(BANK[name], Task(name, "quick"))
    total = broken_total(session)
    explain_all(session, total)
    rows = sorted(total.findings.values(), key=lambda f: (f.clause, f.dtype))
    broken = tuple(dict.fromkeys(f.clause for f in rows if f.status != "unavailable"))
    reasons = tuple((r.text, r.clauses) for r in reasoned(session, rows))
    return Told(name, FAMILIES[name], broken, reasons)


def measure(names: Sequence[str], jobs: int) -> Iterator[Told]:
    """What was told of each, as they end."""

    def line(done: Told) -> str:
        return f"{done.name}: {len(done.broken)} clauses, {len(done.reasons)} reasons"

    return in_processes(told, names, jobs, line)


def summary(every: Sequence[Told]) -> str:
    """Markdown, for people."""
    lines = ["# One defect, told once", ""]
    for name, counts in (
        ("clauses that fail", [len(t.broken) for t in every]),
        ("of other families, were each named by itself", [len(t.before) for t in every]),
        ("reasons", [len(t.reasons) for t in every]),
        ("reasons led by a clause of another family", [len(t.beside) for t in every]),
    ):
        lines.append(f"- {name}: median {statistics.median(counts):g}, {_tenth(counts)}")
    lines += [f"- one reason covers all: {_share(sum(t.covered for t in every), len(every))}", ""]
    for t in every:
        if not t.covered or t.beside:
            lines.append(f"- {t.name} ({', '.join(sorted(t.own))})")
            lines += [f"  - {text}: {', '.join(clauses)}" for text, clauses in t.reasons]
    return "\n".join(lines) + "\n"


def _tenth(counts: Sequence[int]) -> str:
    return f"90th percentile {sorted(counts)[max(-(-len(counts) * 9 // 10) - 1, 0)]}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(whole, 1):.0%})"


def is_good(every: Sequence[Told]) -> bool:
    """Whether it is told as well as it should be."""
    covered = sum(t.covered for t in every) >= COVERED_SHARE * len(every)
    return covered and statistics.median(len(t.beside) for t in every) <= BESIDE


def assemble(found: Iterable[Told]) -> list[Told]:
    return sorted(found, key=lambda t: t.name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests attribution", description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these mutants")
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn from the bank")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    names = options.only or [m.target.name for m in MUTANTS]
    if options.sample:
        names = random.Random(options.seed).sample(names, min(options.sample, len(names)))
    every = assemble(measure(names, options.jobs))
    print(summary(every))
    return 0 if is_good(every) else 1
