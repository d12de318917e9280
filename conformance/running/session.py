"""Run one shard of the plan: its cases, every clause on each, and the findings, in order."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.features import clause_of, clauses_of, features
from conformance.cases.plans import derive, plain, within
from conformance.cases.profiles import Profile
from conformance.clauses import BLOCKED, BY_ID, Clause, selects
from conformance.judging.attribution import attribute
from conformance.judging.batch import judge_observations
from conformance.judging.cache import Memory
from conformance.judging.checks import ASPECTS, Deviation, Judgement
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import EXPERIMENTS, Bench, run_experiment
from conformance.judging.findings import (
    EXPERIMENT,
    INTERMITTENT,
    REPEAT,
    Finding,
    ShardResult,
    lost_call,
)
from conformance.judging.measures import measure_all
from conformance.judging.observer import Lost, Observer, Unavailable
from conformance.judging.repeats import comes_again, intermittent, run_again
from conformance.running.observers import SHARES, Interrupted
from conformance.running.shards import Shard, experiments_of, fixed_cases

LEFT_OUT = Judgement((), {})  # of a case that did not run
BATCH = 120  # cases that are handed to the observer at once
LOST_PER_SHARD = 3  # calls that may be lost before the rest of a shard is given up
LOST_PER_RUN = 20  # and before the rest of the run is: the verdict is clear by then
UNSTEADY = 8  # deviations of one kind that may go by until one comes again
LOST_BY_TIMEOUT = 4  # a call that times out counts as so many: each costs the whole limit


class Recorder(Protocol):
    """Who is told of each case; see report/observability.py."""

    def see(
        self, case: Case, judgement: Judgement, shard: str, seconds: float, ran: bool = True
    ) -> None:
        """``seconds``: what it took; ``ran``: whether it was run at all."""


@dataclass
class Session:
    """Everything that running a case takes.

    ``selected``: globs of clause ids; other clauses are not looked at. ``skip``: the texts of calls
    to leave out. ``memory``: permitted sets of other runs. ``lost``: the calls that ended the
    observer: text, status and how.
    ``lost_before``: how much was lost elsewhere in this run, weighted. ``stopped``: whether to end
    as soon as may be.
    """

    observer: Observer
    seed: int
    selected: str = "*"
    skip: frozenset[str] = frozenset()
    recorder: Recorder | None = None
    memory: Memory | None = None
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    lost_before: int = 0
    stopped: Callable[[], bool] = lambda: False

    @property
    def target(self) -> Claimed:
        """What the target claims."""
        return self.observer.claimed

    @property
    def device(self) -> str:
        return self.observer.device

    def run(self, case: Case) -> Judgement:
        """One run of one case, and every clause on what was seen."""
        return self.run_all([case])[0]

    def run_all(self, cases: Sequence[Case]) -> list[Judgement]:
        """One run of each. A call that ends the observer is noted, and the others run again."""
        gone = {text for text, _, _ in self.lost} | self.skip
        left = [case for case in cases if case.key() not in gone]
        found: dict[Case, Judgement] = {}
        while left:
            try:
                seen = self.observer.observe(left)
            except Lost as lost:
                self.note(lost, left[0].key())
                gone.add(self.lost[-1][0])
                left = [case for case in left if case.key() not in gone]
                if self.lost_enough():
                    break
                continue
            except BadEvidence as bad:
                if len(left) == 1:
                    self.note(_rubbish(bad), left[0].key())
                else:  # which of them it was shows where each is alone
                    found = self._one_by_one(left)
                break
            judged = judge_observations(list(zip(left, seen, strict=True)), self.memory)
            found |= dict(zip(left, judged, strict=True))
            break
        return [found.get(case, LEFT_OUT) for case in cases]

    def repeat(self, case: Case, count: int) -> list[Judgement]:
        """So many runs of one case; none where one was lost, which is noted."""
        try:
            seen = self.observer.observe([case] * count)
        except Lost as lost:
            self.note(lost, case.key())
        except BadEvidence as bad:
            self.note(_rubbish(bad), case.key())
        else:
            return judge_observations([(case, one) for one in seen], self.memory)
        return []

    def _one_by_one(self, cases: Sequence[Case]) -> dict[Case, Judgement]:
        found = {}
        before = len(self.lost)
        for case in cases:
            if self.lost_enough() or len(self.lost) - before >= LOST_PER_SHARD:
                break
            found[case] = self.run(case)
        return found

    def note(self, lost: Lost, otherwise: str) -> None:
        """Remember a lost call; ``otherwise``: its text where nobody can say."""
        self.lost.append((lost.call or otherwise, lost.status, lost.how))

    def lost_enough(self) -> bool:
        return self.lost_before + weight(self.lost) >= LOST_PER_RUN

    def wants(self, clause: str) -> bool:
        return selects(self.selected, clause)

    def bench(self, clause: str, dtype: str) -> Bench:
        """For the experiment of a clause."""
        return Bench(self.observer, dtype, self.seed, f"{EXPERIMENT}{clause} {dtype}")

    def limited(self, clause: str) -> contextlib.AbstractContextManager[None]:
        """Around an experiment: it takes no longer than so many calls."""
        return self.observer.within(SHARES[BY_ID[clause].profile])


def _rubbish(bad: BadEvidence) -> Lost:
    """What is not in the form of an answer is as good as none."""
    return Lost("", "crash", f"was not answered: {bad}")


def weight(lost: Iterable[Sequence[str]]) -> int:
    """How much was lost, by these calls."""
    return sum(LOST_BY_TIMEOUT if status == "timeout" else 1 for _, status, _ in lost)


def run_shard(session: Session, shard: Shard, profile: Profile) -> ShardResult:
    """All cases of ``shard``; the result depends on target, seed, profile and shard alone."""
    result, before = ShardResult(shard.name), len(session.lost)
    judge = _Judge(session, result)
    with contextlib.suppress(Interrupted):
        _run_phase(session, shard, profile, judge, result)
    if shard.phase != "experiments":
        result.digest = judge.digest.hexdigest()
    for text, status, how in session.lost[before:]:
        result.add(lost_call(text, status, how))
    if session.stopped():
        result.gave_up.append(f"{shard.name}: interrupted")
    return result


def _run_phase(
    session: Session, shard: Shard, profile: Profile, judge: _Judge, result: ShardResult
) -> None:
    if shard.phase == "experiments":
        _run_experiments(session, experiments_of(shard), result)
    elif shard.phase == "fuzz":
        from conformance.cases.fuzz import fuzz  # Hypothesis takes a tenth of a second to import

        fuzz(session.target, profile, derive(session.seed, shard.name), judge.all)
    else:
        judge.all(fixed_cases(session.target, profile, session.seed, shard))


class _Judge:
    """Runs cases one batch after the other into a result."""

    def __init__(self, session: Session, result: ShardResult) -> None:
        self.session, self.result = session, result
        self.digest = hashlib.sha256()
        self.explained: set[tuple[Any, ...]] = set()
        self.unsteady: Counter[tuple[Any, ...]] = Counter()
        self.before = len(session.lost)

    def all(self, cases: Sequence[Case]) -> list[float]:
        """Run them; for each the largest share of the permitted error that it used."""
        shares: list[float] = []
        for start in range(0, len(cases), BATCH):
            shares += self._batch(cases[start : start + BATCH])
        return shares

    def _batch(self, cases: Sequence[Case]) -> list[float]:
        session = self.session
        wanted = [
            case
            for case in cases
            if any(map(session.wants, (*clauses_of(case, ASPECTS), *_ALWAYS)))
        ]
        if not wanted or self._given_up(len(wanted)):
            return [0.0] * len(cases)
        began = time.perf_counter()
        judged = dict(zip(wanted, session.run_all(wanted), strict=True))
        seconds = (time.perf_counter() - began) / len(wanted)
        ran = [(case, found) for case, found in judged.items() if found is not LEFT_OUT]
        measure_all(ran, self.result.accuracy, self.result.coverage)
        return [self._one(case, judged[case], seconds) if case in judged else 0.0 for case in cases]

    def _given_up(self, more: int) -> bool:
        """Whether no further case is to run; that is noted once."""
        session, lost = self.session, len(self.session.lost) - self.before
        if session.stopped():
            return True
        if lost < LOST_PER_SHARD and not session.lost_enough():
            return False
        if not self.result.gave_up:
            text = f"{self.result.shard}: {lost} calls were lost, the rest is left out"
            self.result.gave_up.append(text)
        return True

    def _one(self, case: Case, judgement: Judgement, seconds: float) -> float:
        result, ran = self.result, judgement is not LEFT_OUT
        result.cases += 1
        self.digest.update(case.key().encode())
        if self.session.recorder is not None:
            self.session.recorder.see(case, judgement, result.shard, seconds, ran)
        always = _ALWAYS if judgement.returned else ()
        for clause in (*clauses_of(case, judgement.shares), *always):
            result.count((clause, case.dtype))
        for deviation in judgement.deviations:
            names = tuple(f.name for f in features(case))
            where = (deviation.aspect, names, case.dtype, case.reduction)
            if where in self.explained or self.unsteady[where] >= UNSTEADY:
                continue  # one explanation for each kind of case is enough
            if self._is_steady(case, deviation):
                self.explained.add(where)
                result.add(attribute(case, deviation, self.session.run))
            else:
                self.unsteady[where] += 1
        self._worst(case, judgement)
        return max(judgement.shares.values(), default=0.0)

    def _is_steady(self, case: Case, deviation: Deviation) -> bool:
        """Whether it comes again; where it does not, that is the finding."""
        session = self.session
        if not session.wants(INTERMITTENT) or comes_again(case, deviation, session.repeat):
            return True
        if (INTERMITTENT, case.dtype) not in self.result.findings:
            found = intermittent(case, deviation, session.repeat)
            self.result.add(found)
            if BY_ID[REPEAT].applies(session.target, case.dtype):
                self.result.add(replace(found, clause=REPEAT))
        return False

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
    INTERMITTENT,
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
        cases = [case for whole in plain_cases for case in within(session.target, whole)]
        return not any(judgement.deviations for judgement in session.run_all(cases))

    before = len(session.lost)
    for clause, dtype in _applicable(session, clauses):
        if session.stopped():
            return
        if session.lost_enough() or len(session.lost) - before >= LOST_PER_SHARD:
            result.gave_up.append(f"{result.shard}: too many calls were lost, the rest is left out")
            return
        if clause.family in _DERIVED and not works(dtype):
            result.add(Finding(clause.id, dtype, BLOCKED, None, clause.id, "unavailable"))
        else:
            _run_experiment(session, clause.id, dtype, works, result)


def _applicable(session: Session, clauses: Iterable[Clause]) -> Iterator[tuple[Clause, str]]:
    for clause in clauses:
        if clause.id not in EXPERIMENTS or not session.wants(clause.id):
            continue
        for dtype in session.target.dtypes:
            skipped = f"{EXPERIMENT}{clause.id} {dtype}" in session.skip
            about = clause.is_about(session.device) and clause.applies(session.target, dtype)
            if about and not skipped:
                yield clause, dtype


def _run_experiment(
    session: Session,
    clause: str,
    dtype: str,
    works: Callable[[str], bool],
    result: ShardResult,
) -> None:
    bench = session.bench(clause, dtype)
    try:
        with session.limited(clause):
            messages, error = run_experiment(clause, bench)
    except Unavailable as reason:
        result.add(Finding(clause, dtype, str(reason), None, clause, "unavailable"))
        return
    except Lost as lost:
        session.note(lost, bench.announced)
        return
    except BadEvidence as bad:
        session.note(_rubbish(bad), bench.announced)
        return
    if error and not works(dtype):
        result.add(Finding(clause, dtype, BLOCKED, None, clause, "unavailable"))
        return
    result.count((clause, dtype))
    for message in told(messages, error):
        result.add(_of_experiment(session, clause, dtype, message))


def told(messages: Iterable[str], error: str | None) -> list[str]:
    """What an experiment said, as it is told."""
    return [*messages, *([f"raised {error}"] if error else [])]


# What these look for is there once: what a call leaves behind is there when they run again.
_ONCE = ("purity", "resources")


def _of_experiment(session: Session, clause: str, dtype: str, message: str) -> Finding:
    """Of the clause where the experiment says so again, else of a loss that is wrong now and then.

    A broken ``should`` stays one: it is told by nothing else.
    """
    own = Finding(clause, dtype, message, None, clause)
    if BY_ID[clause].family in _ONCE or not session.wants(INTERMITTENT):
        return own
    if BY_ID[clause].level == "should":
        return own
    runs = run_again(lambda: _said(session, clause, dtype), message)
    if runs.failed == runs.runs:
        return own
    text = f"in {runs.failed} of {runs.runs} runs of what {clause} asks for {message}"
    return replace(own, clause=INTERMITTENT, message=text)


def _said(session: Session, clause: str, dtype: str) -> str | None:
    """The first deviation that an experiment meets now; None where it cannot be told."""
    try:
        with session.limited(clause):
            found = told(*run_experiment(clause, session.bench(clause, dtype)))
    except (Lost, BadEvidence, Unavailable):
        return None
    return found[0] if found else ""
