"""Run one shard of the plan: its cases, every clause on each, and the findings, in order."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch

from conformance.cases.case import Case, cost
from conformance.cases.features import clause_of, clauses_of, features
from conformance.cases.plans import Shard, derive, experiments_of, fixed_cases, plain, within
from conformance.cases.profiles import Profile
from conformance.clauses import Clause, selects
from conformance.judging.attribution import Finding, attribute
from conformance.judging.causes import Cause, explain
from conformance.judging.checks import ASPECTS, Deviation, Judgement, Where, judge_observation
from conformance.judging.measures import Bin, Cell, measure
from conformance.judging.minimise import minimise
from conformance.observer.devices import DeviceLost, check_alive
from conformance.observer.observation import observe
from conformance.observer.protocols import EXPERIMENTS, Bench, Unavailable, run_experiment
from conformance.report.observability import Observer
from conformance.verdict.verdict import BLOCKED
from targets import Target

Row = tuple[str, str]  # clause id, dtype
LOST_DEVICE = 86  # the exit status of a process whose device is lost
LEFT_OUT = Judgement((), {})  # of a case that did not run


class Box(Protocol):
    """Where a call is written down before it is made, so that a crash leaves it behind."""

    def enter(self, text: str) -> None: ...
    def fail(self, reason: str) -> None: ...
    def leave(self) -> None: ...


@dataclass
class ShardResult:
    """What a shard found. ``tally``: examples per clause and dtype. ``worst``: share and case.

    ``accuracy``: the worst error in each bin. ``coverage``: the cases that ran in each cell.
    """

    shard: str
    cases: int = 0
    digest: str = ""
    tally: dict[Row, int] = field(default_factory=dict)
    worst: dict[Row, tuple[float, Case]] = field(default_factory=dict)
    findings: dict[Row, Finding] = field(default_factory=dict)
    accuracy: dict[Bin, float] = field(default_factory=dict)
    coverage: dict[Cell, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "cases": self.cases,
            "digest": self.digest,
            "tally": [[*row, n] for row, n in self.tally.items()],
            "worst": [[*row, share, case.to_json()] for row, (share, case) in self.worst.items()],
            "findings": [finding_to_json(f) for f in self.findings.values()],
            "accuracy": [[*place, worst] for place, worst in self.accuracy.items()],
            "coverage": [[*cell, n] for cell, n in self.coverage.items()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShardResult:
        found = [finding_from_json(f) for f in data["findings"]]
        return cls(
            data["shard"],
            data["cases"],
            data["digest"],
            {(c, d): n for c, d, n in data["tally"]},
            {(c, d): (share, Case.from_json(case)) for c, d, share, case in data["worst"]},
            {(f.clause, f.dtype): f for f in found},
            {(a, d, axis, i): worst for a, d, axis, i, worst in data["accuracy"]},
            {(d, r, layout, path): n for d, r, layout, path, n in data["coverage"]},
        )

    def add(self, finding: Finding) -> None:
        """Keep the simplest finding of each row; one without a case yields to one with."""
        row = (finding.clause, finding.dtype)
        known = self.findings.get(row)
        if known is None or _order(finding) < _order(known):
            self.findings[row] = finding

    def count(self, row: Row) -> None:
        self.tally[row] = self.tally.get(row, 0) + 1


def finding_to_json(finding: Finding) -> dict[str, Any]:
    data = {k: v for k, v in asdict(finding).items() if k not in ("case", "where")}
    return data | {
        "case": finding.case.to_json() if finding.case else None,
        "where": finding.where.to_json() if finding.where else None,
    }


def finding_from_json(data: dict[str, Any]) -> Finding:
    case = Case.from_json(data["case"]) if data["case"] else None
    where = Where.from_json(data["where"]) if data["where"] else None
    cause = Cause(**data["cause"]) if data["cause"] else None
    plain_ones = {k: data[k] for k in ("clause", "dtype", "message", "aspect", "status")}
    return Finding(**plain_ones, case=case, where=where, cause=cause)


def _order(finding: Finding) -> tuple[Any, ...]:
    return (finding.case is None, cost(finding.case) if finding.case else (), finding.message)


@dataclass
class Session:
    """Everything that running a case takes.

    ``selected``: globs of clause ids; other clauses are not looked at. ``box``: where each call is
    written down. ``skip``: the keys of calls to leave out. ``observer``: who is told of each case.
    """

    target: Target
    device: str
    seed: int
    selected: str = "*"
    box: Box | None = None
    skip: frozenset[str] = frozenset()
    observer: Observer | None = None

    def run(self, case: Case) -> Judgement:
        """One run of one case, and every clause on what was seen."""
        if self.box is not None and case.key() in self.skip:
            return LEFT_OUT
        with self.in_box(case.key):
            seen = observe(self.target, case, self.device)
        return judge_observation(case, seen)

    @contextlib.contextmanager
    def in_box(self, text: Callable[[], str]) -> Iterator[None]:
        """Around a call of the target. Raises DeviceLost, or ends a process that has a box."""
        if self.box is not None:
            self.box.enter(text())
        try:
            yield
        finally:
            try:
                check_alive(self.device)
            except DeviceLost as lost:
                if self.box is None:
                    raise
                self.box.fail(f"{lost}")
                os._exit(LOST_DEVICE)  # nothing else can be found out in this process
            if self.box is not None:
                self.box.leave()

    def wants(self, clause: str) -> bool:
        return selects(self.selected, clause)


def replayed(session: Session, clause: str, dtype: str, case: Case | None) -> list[str]:
    """What deviates when ``case``, or the experiment of ``clause``, runs now.

    Raises Unavailable where an experiment cannot run here.
    """
    with settled():
        if case is not None:
            return [f"{d.aspect}: {d.message}" for d in session.run(case).deviations]
        if clause not in EXPERIMENTS:
            raise Unavailable(f"there is no experiment on {clause}")
        bench = Bench(session.target, dtype, session.device, session.seed)
        with session.in_box(lambda: f"experiment {clause} {dtype}"):
            messages, error = run_experiment(clause, bench)
        return [*messages, *([f"raised {error}"] if error else [])]


def lost_call(text: str, status: str, how: str) -> Finding:
    """The finding for a call (as written in the box) that ended its process."""
    message = f"the call {how}"
    if text.startswith("experiment "):
        _, clause, dtype = text.split(" ")
        return Finding(clause, dtype, message, None, status=status)
    case = Case.from_json(json.loads(text))
    present = features(case)
    clause = clause_of("value", case, present[0] if present else None)
    return Finding(clause, case.dtype, message, case, "value", status)


def run_shard(session: Session, shard: Shard, profile: Profile) -> ShardResult:
    """All cases of ``shard``; the result depends on target, seed, profile and shard alone."""
    result = ShardResult(shard.name)
    with settled():
        if shard.phase == "experiments":
            _run_experiments(session, experiments_of(shard), result)
        else:
            judge = _Judge(session, result)
            if shard.phase == "fuzz":
                from conformance.cases.fuzz import (
                    fuzz,  # Hypothesis takes a tenth of a second to import
                )

                fuzz(session.target, profile, derive(session.seed, shard.name), judge.one)
            else:
                judge.all(fixed_cases(session.target, profile, session.seed, shard))
            result.digest = judge.digest.hexdigest()
    return result


def minimised(session: Session, finding: Finding) -> Finding:
    """The same finding with a smaller case."""
    if finding.case is None or finding.status != "fail":
        return finding
    limit = len(features(finding.case))
    last = Deviation(finding.aspect, finding.message, finding.where)

    def still_fails(case: Case) -> bool:
        nonlocal last
        present = features(case)
        if len(present) > limit or case.dtype != finding.dtype:
            return False
        if list(within(session.target, case)) != [case]:
            return False
        for deviation in session.run(case).deviations:
            if deviation.aspect == finding.aspect:
                clause = clause_of(deviation.aspect, case, present[0] if present else None)
                if finding.aspect not in ASPECTS or clause == finding.clause:
                    last = deviation
                    return True
        return False

    with settled():
        case = minimise(finding.case, still_fails)
    return Finding(
        finding.clause, finding.dtype, last.message, case, finding.aspect, where=last.where
    )


def explained(session: Session, finding: Finding) -> Finding:
    """The same finding with its likely cause, where that can be told."""
    with settled():
        return replace(finding, cause=explain(session, finding))


class _Judge:
    """Runs cases one after the other into a result."""

    def __init__(self, session: Session, result: ShardResult) -> None:
        self.session, self.result = session, result
        self.digest = hashlib.sha256()
        self.explained: set[tuple[Any, ...]] = set()

    def all(self, cases: Iterable[Case]) -> None:
        for case in cases:
            self.one(case)

    def one(self, case: Case) -> float:
        """Run ``case``; returns the largest share of the permitted error that it used."""
        if not any(map(self.session.wants, (*clauses_of(case, ASPECTS), *_ALWAYS))):
            return 0.0
        self.result.cases += 1
        self.digest.update(case.key().encode())
        began = time.perf_counter()
        judgement = self.session.run(case)
        if self.session.observer is not None:
            seconds, ran = time.perf_counter() - began, judgement is not LEFT_OUT
            self.session.observer.see(case, judgement, self.result.shard, seconds, ran)
        names = tuple(f.name for f in features(case))
        always = _ALWAYS if judgement.returned else ()
        for clause in (*clauses_of(case, judgement.shares), *always):
            self.result.count((clause, case.dtype))
        for deviation in judgement.deviations:
            where = (deviation.aspect, names, case.dtype, case.reduction)
            if where not in self.explained:  # one explanation for each kind of case is enough
                self.explained.add(where)
                self.result.add(attribute(case, deviation, self.session.run))
        self._worst(case, judgement)
        if judgement is not LEFT_OUT:
            measure(case, judgement, self.result.accuracy, self.result.coverage)
        return max(judgement.shares.values(), default=0.0)

    def _worst(self, case: Case, judgement: Judgement) -> None:
        present = features(case)
        for aspect, share in judgement.shares.items():
            row = (clause_of(aspect, case, present[0] if present else None), case.dtype)
            known = self.result.worst.get(row)
            if known is None or share > known[0]:
                self.result.worst[row] = (share, case)


# Clauses that look at every run, whatever the case.
_ALWAYS = (
    "value.tensor",
    "dtypes.result",
    "gradient.unneeded",
    "purity.inputs",
    "purity.grad_output",
    "purity.alias",
    "purity.attributes",
)


# Families that ask what becomes of a right value and gradient: where these are wrong in a plain
# call, they have no evidence of their own.
_DERIVED = ("autograd", "transforms", "determinism", "metamorphic", "resources")


def _run_experiments(session: Session, clauses: Iterable[Clause], result: ShardResult) -> None:
    """Of those of ``clauses`` that have an experiment, in each dtype that they apply to."""

    @functools.cache
    def works(dtype: str) -> bool:
        plain_cases = (plain(dtype, reduction) for reduction in session.target.reductions)
        cases = (case for whole in plain_cases for case in within(session.target, whole))
        return not any(session.run(case).deviations for case in cases)

    for clause in clauses:
        if clause.id not in EXPERIMENTS:
            continue
        for dtype in session.target.dtypes:
            text = f"experiment {clause.id} {dtype}"
            if not session.wants(clause.id) or text in session.skip:
                continue
            if not (clause.is_about(session.device) and clause.applies(session.target, dtype)):
                continue
            if clause.family in _DERIVED and not works(dtype):
                result.add(Finding(clause.id, dtype, BLOCKED, None, clause.id, "unavailable"))
                continue
            _run_experiment(session, clause.id, dtype, text, works, result)


def _run_experiment(
    session: Session,
    clause: str,
    dtype: str,
    text: str,
    works: Callable[[str], bool],
    result: ShardResult,
) -> None:
    bench = Bench(session.target, dtype, session.device, session.seed)
    try:
        with session.in_box(lambda: text):
            messages, error = run_experiment(clause, bench)
    except Unavailable as reason:
        result.add(Finding(clause, dtype, str(reason), None, clause, "unavailable"))
        return
    if error and not works(dtype):
        result.add(Finding(clause, dtype, BLOCKED, None, clause, "unavailable"))
        return
    result.count((clause, dtype))
    for message in (*messages, *([f"raised {error}"] if error else [])):
        result.add(Finding(clause, dtype, message, None, clause))


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """No warnings (the builtin warns about broadcasting), and one thread.

    Small cases are no faster on several threads, and results differ in bits between their numbers.
    """
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if threads != 1:
            torch.set_num_threads(threads)
