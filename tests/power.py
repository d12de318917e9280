"""The suite's power: all mutants and all right implementations against all clauses.

``python -m tests power`` shows every mutant the examples of profile ``quick`` and the experiments
of all profiles, then ``default`` to those that survive, and judges the right ones in ``default``.
It writes, to a folder, the table mutant × clause, what survived, what was rejected though right,
and the times to the first failing clause. ``--quick``, the form for CI, stops at the first failing
clause of each mutant, and judges the right ones in ``quick``. Exit status 0 if the suite is as
strong and as fair as it says.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from conformance.cases.case import FLOAT_DTYPES
from conformance.cases.profiles import PROFILES, Profile
from conformance.clauses import BY_ID, CLAUSES, Clause
from conformance.judging.findings import ShardResult, merged
from conformance.running.concluding import conclude
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import Shard, experiment_shards, plan
from targets import Target
from tests.mutants import CUDA_MUTANTS, LENIENT, MUTANTS, Mutant
from tests.mutants.losses import LOSS_MUTANTS
from tests.pool import ended, gpu_pool, in_processes
from tests.right import RIGHT
from tests.right.losses import RIGHT_LOSSES
from tests.right.signatures import RIGHT_SIGNATURES
from tests.sessions import session_on

ON_CPU = (*MUTANTS, *LOSS_MUTANTS)
SOUND = (*RIGHT, *RIGHT_LOSSES, *RIGHT_SIGNATURES)
BROKEN = (*ON_CPU, *CUDA_MUTANTS)
BANK = {t.name: t for t in (*(m.target for m in (*BROKEN, *LENIENT)), *SOUND)}
# Tens of gigabytes and of seconds for each: tests/observer/test_large.py shows them fail, on less.
TOO_LARGE = ("value.wide_index", "gradient.wide_index")


@dataclass(frozen=True)
class Trial:
    """What the suite made of one implementation. Sent between processes, so plain data.

    ``broken``: the clauses that failed, of level must and should. ``first``: seconds until the
    first failing must clause. ``missing``: rows without evidence, but for those that are too large
    here. ``profile``: how far it went.
    """

    name: str
    seed: int
    profile: str
    seconds: float
    first: float | None = None
    must: tuple[str, ...] = ()
    should: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    messages: tuple[str, ...] = field(default=(), compare=False)

    @property
    def families(self) -> set[str]:
        return {BY_ID[clause].family for clause in self.must}


@dataclass(frozen=True)
class Task:
    """``early``: stop at the first failing must clause, and go on to ``default`` without one."""

    name: str
    profile: str
    seed: int = 0
    early: bool = False
    device: str = "cpu"


def trial(task: Task) -> Trial:
    """Judge one implementation, in a process of its own: some leave the world changed."""
    torch.set_num_threads(1)
    return early(BANK[task.name], task) if task.early else whole(BANK[task.name], task)


def early(target: Target, task: Task) -> Trial:
    """Up to the first failing must clause: in profile quick, then what default and release add."""
    start, done, session = time.perf_counter(), set[Shard](), session_of(target, task)
    for profile in (PROFILES["quick"], PROFILES["default"], PROFILES["release"]):
        shards = [shard for shard in _shards(session, profile) if shard not in done]
        done.update(shard for shard in shards if shard.phase not in BY_PROFILE)
        for result in results_of(session, profile, shards):
            must = _broken(session, result, "must")
            if must:
                first = time.perf_counter() - start
                return Trial(task.name, task.seed, profile.name, first, first, must)
    return Trial(task.name, task.seed, "release", time.perf_counter() - start)


def _shards(session: Session, profile: Profile) -> list[Shard]:
    """Of ``release`` its experiments alone: its cases take minutes."""
    whole = plan(session.target, profile)
    return experiment_shards("release")[-1:] if profile.name == "release" else whole


def whole(target: Target, task: Task) -> Trial:
    """All of the profile. Mutants: its fixed cases without pairs, which name no further clause, and
    every experiment; one that survives meets all of ``default``.
    """
    start, first, results = time.perf_counter(), None, []
    profile, session = PROFILES[task.profile], session_of(target, task)
    is_mutant = target.name in MUTANT_NAMES
    planned = plan(session.target, profile)
    shards = [s for s in planned if not is_mutant or s.phase not in COMBINED]
    for result in results_of(session, profile, shards):
        if first is None and _broken(session, result, "must"):
            first = time.perf_counter() - start
        results.append(result)
    seconds = time.perf_counter() - start
    if is_mutant or target.name in LENIENT_NAMES:
        later = [s for s in experiment_shards("release") if s not in planned]
        results += results_of(session, PROFILES["release"], later)
        if is_mutant and not _broken(session, merged(results), "must"):
            profile = PROFILES["default"]
            results += results_of(session, profile, plan(session.target, profile))
    total = merged(results)
    verdict = conclude(session, total, profile=profile.name, duration_s=seconds)
    messages = [f"{f.clause} {f.dtype}: {f.message}" for f in total.findings.values()]
    return Trial(
        task.name,
        task.seed,
        profile.name,
        seconds,
        first,
        _broken(session, total, "must"),
        _broken(session, total, "should"),
        tuple(f"{row.id} {row.dtype}" for row in verdict.missing if row.id not in TOO_LARGE),
        tuple(messages),
    )


FAMILIES = {m.target.name: m.families for m in BROKEN}
COMBINED = ("pairs", "fuzz")
BY_PROFILE = (*COMBINED, "scale")  # the phases whose shards differ with the profile
MUTANT_NAMES, LENIENT_NAMES = frozenset(FAMILIES), frozenset(m.target.name for m in LENIENT)


def session_of(target: Target, task: Task) -> Session:
    left_out = (f"experiment {c} {d}" for c in TOO_LARGE for d in FLOAT_DTYPES)
    return session_on(target, task.device, task.seed, skip=frozenset(left_out))


def results_of(
    session: Session, profile: Profile, shards: Iterable[Shard]
) -> Iterator[ShardResult]:
    return (run_shard(session, shard, profile) for shard in shards)


def _broken(session: Session, result: ShardResult, level: str) -> tuple[str, ...]:
    found = {f.clause for f in result.findings.values() if f.status != "unavailable"}
    return tuple(sorted(clause for clause in found if session.level(clause) == level))


@dataclass(frozen=True)
class Power:
    """All trials of one run, and what is wrong with the suite by them."""

    mutants: tuple[Trial, ...]
    lenient: tuple[Trial, ...]
    right: tuple[Trial, ...]
    complete: bool  # every mutant met every clause, so that what breaks a clause is known
    device: str = "cpu"

    def survivors(self) -> list[str]:
        return [t.name for t in self.mutants if not t.must]

    def rejected(self) -> list[str]:
        """Right ones with a broken must clause, or with a cell that did not run."""
        return [
            f"{t.name} ({t.profile}, seed {t.seed}): {', '.join(t.must + t.missing)}"
            for t in self.right
            if t.must or t.missing
        ]

    def misjudged(self) -> list[str]:
        """Lenient ones that do not conform, or whose should clause went unseen."""
        return [
            f"{t.name}: {', '.join(t.must) or 'nothing reported'}"
            for t in self.lenient
            if t.must or not t.should
        ]

    def judged(self) -> list[Clause]:
        return [c for c in CLAUSES if c.is_about(self.device) and c.id not in TOO_LARGE]

    def unbroken(self) -> list[str]:
        """Clauses that nothing in the bank breaks."""
        broken = {c for t in (*self.mutants, *self.lenient) for c in (*t.must, *t.should)}
        return [c.id for c in self.judged() if c.id not in broken]

    def never_alone(self) -> list[str]:
        """Clauses of level must that no mutant breaks without breaking another family too."""
        alone = {c for t in self.mutants if len(t.families) == 1 for c in t.must}
        every = [c.id for c in self.judged() if c.level == "must"]
        return [clause for clause in every if clause not in alone]

    def problems(self) -> dict[str, list[str]]:
        found = {
            "mutants that survive": self.survivors(),
            "right implementations that are rejected": self.rejected(),
            "lenient implementations that are misjudged": self.misjudged(),
        }
        if self.complete:
            found["clauses that nothing breaks"] = self.unbroken()
            found["clauses that no mutant breaks in its family alone"] = self.never_alone()
        return found


def measure(tasks: Sequence[Task], jobs: int) -> Iterator[Trial]:
    """The trials, as they end."""

    def line(done: Trial) -> str:
        return f"{done.name}: {', '.join(done.must) or ', '.join(done.should) or 'nothing'}"

    if all(task.device == "cpu" for task in tasks):
        return in_processes(trial, tasks, jobs, line)
    clean = not any(task.name in FAMILIES for task in tasks)  # what is right leaves nothing behind
    return ended(lambda: gpu_pool(jobs, 8 if clean else 1), trial, tasks, line)


def assemble(trials: Iterable[Trial], *, complete: bool, device: str = "cpu") -> Power:
    lenient = {m.target.name for m in LENIENT}
    ordered = sorted(trials, key=lambda t: (t.name, t.seed, t.profile))
    return Power(
        tuple(t for t in ordered if t.name in MUTANT_NAMES),
        tuple(t for t in ordered if t.name in lenient),
        tuple(t for t in ordered if t.name not in MUTANT_NAMES | lenient),
        complete,
        device,
    )


def summary(power: Power) -> str:
    """Markdown, for people."""
    seconds = [t.first for t in power.mutants if t.first is not None]
    quick = sum(t.profile == "quick" and bool(t.must) for t in power.mutants)
    lines = [
        "# The power of the suite",
        "",
        f"- mutants: {len(power.mutants)}, rejected: {len(power.mutants) - len(power.survivors())}",
        f"- right implementations: {len({t.name for t in power.right})}, "
        f"trials: {len(power.right)}, rejected: {len(power.rejected())}",
    ]
    if not power.complete:
        lines.append(f"- rejected by profile quick: {quick}")
    if seconds:
        worst = max(seconds)
        lines.append(
            f"- seconds to the first failing clause: median {statistics.median(seconds):.2f}, "
            f"largest {worst:.2f}"
        )
    for what, names in power.problems().items():
        lines += ["", f"## {what[0].upper()}{what[1:]}: {len(names) or 'none'}", ""]
        lines += [f"- {name}" for name in names]
    lines += ["", "## What rejects each mutant", "", "| mutant | s | clauses |", "|---|---|---|"]
    for t in (*power.mutants, *power.lenient):
        first = "" if t.first is None else f"{t.first:.2f}"
        lines.append(f"| {t.name} | {first} | {', '.join((*t.must, *t.should))} |")
    return "\n".join(lines) + "\n"


def write(power: Power, folder: Path) -> None:
    """``power.md``, and ``power.csv``: a row for each mutant, a column for each clause."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "power.md").write_text(summary(power), encoding="utf-8")
    with (folder / "power.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["mutant", "seconds", *(c.id for c in CLAUSES)])
        for t in (*power.mutants, *power.lenient):
            cells = [int(c.id in (*t.must, *t.should)) for c in CLAUSES]
            rows.writerow([t.name, "" if t.first is None else f"{t.first:.3f}", *cells])


@dataclass(frozen=True)
class Part:
    """Each ``step``-th mutant, from ``first`` on: neighbours in the bank are alike."""

    first: int = 0
    step: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """From ``K/N``: the K-th of N parts. Raises ArgumentTypeError."""
        first, _, step = text.partition("/")
        if not (first.isdecimal() and step.isdecimal() and int(first) < int(step)):
            raise argparse.ArgumentTypeError(f"{text!r} is not K/N, with K below N")
        return cls(int(first), int(step))

    def of(self, mutants: Sequence[Mutant]) -> Sequence[Mutant]:
        return mutants[self.first :: self.step]


def tasks_of(options: argparse.Namespace) -> list[Task]:
    kind = options.device.partition(":")[0]
    judged = ON_CPU if kind == "cpu" else BROKEN
    broken = options.only or [m.target.name for m in options.part.of(judged)]
    lenient = [] if options.only else [m.target.name for m in LENIENT]
    right = [t for t in SOUND if kind in t.devices and not (options.only or options.mutants_only)]
    tasks = [
        Task(target.name, profile, seed, device=options.device)
        for seed in range(options.seed, options.seed + options.seeds)
        for target in right[seed % options.every :: options.every]
        for profile in options.profiles
    ]
    if not options.right_only:
        tasks += [
            Task(name, "quick", options.seed, options.quick, options.device) for name in broken
        ]
        tasks += [Task(name, "quick", options.seed, device=options.device) for name in lenient]
    return tasks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests power", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="stop at a mutant's first failure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many, for the right ones")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, help="for the right ones")
    parser.add_argument("--only", nargs="+", help="the names of mutants; no right ones")
    parser.add_argument(
        "--every", type=int, default=1, help="only each N-th right one, other ones with each seed"
    )
    parser.add_argument(
        "--part", type=Part.parse, default=Part(), metavar="K/N", help="of the mutants, each N-th"
    )
    parser.add_argument("--mutants-only", action="store_true", help="leave the right ones out")
    parser.add_argument("--right-only", action="store_true", help="leave the mutants out")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("power"), help="the folder to write")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - FAMILIES.keys():
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    options.profiles = options.profiles or ["quick" if options.quick else "default"]
    start = time.perf_counter()
    trials = measure(tasks_of(options), options.jobs)
    complete = not (options.quick or options.right_only or options.only or options.part.step > 1)
    power = assemble(trials, complete=complete, device=options.device)
    write(power, options.out)
    print(summary(power))
    print(f"{time.perf_counter() - start:.0f} s with {options.jobs} jobs; {options.out}/power.csv")
    return 1 if any(power.problems().values()) else 0
