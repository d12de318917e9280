"""Run one shard of the plan: its cases, every clause on each, and the findings, in order."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from conformance.cases.case import Case
from conformance.cases.features import clause_of, clauses_of, features
from conformance.cases.plans import derive
from conformance.cases.profiles import Profile
from conformance.clauses import BY_ID
from conformance.judging.attribution import attribute
from conformance.judging.checks import ASPECTS, Deviation, Judgement
from conformance.judging.findings import (
    INTERMITTENT,
    REPEAT,
    ShardResult,
    lost_call,
)
from conformance.judging.measures import measure_all
from conformance.judging.repeats import comes_again, intermittent
from conformance.running.experimenting import run_experiments
from conformance.running.observers import Interrupted
from conformance.running.session import LEFT_OUT, Session
from conformance.running.shards import Shard, experiments_of, fixed_cases

BATCH = 120  # cases that are handed to the observer at once
ELEMENTS = 2**19  # of these, or one case: what was made to call them is there when they are judged
UNSTEADY = 8  # deviations of one kind that may go by until one comes again


def run_shard(session: Session, shard: Shard, profile: Profile) -> ShardResult:
    """All cases of ``shard``; the result depends on target, seed, profile and shard alone."""
    result, before = ShardResult(shard.name), len(session.lost)
    judge = _Judge(session, result)
    with contextlib.suppress(Interrupted):
        _run_phase(session, shard, profile, judge, result)
    if shard.phase != "experiments":
        result.digest = judge.digest.hexdigest()
    for call in session.lost[before:]:
        result.add(lost_call(call.text, call.status, call.how, call.alone))
    if judge.left_out:
        text = f"{judge.left_out} cases like those whose calls were lost are left out"
        result.gave_up.append(f"{shard.name}: {text}")
    if session.stopped():
        result.gave_up.append(f"{shard.name}: interrupted")
    return result


def _run_phase(
    session: Session, shard: Shard, profile: Profile, judge: _Judge, result: ShardResult
) -> None:
    if shard.phase == "experiments":
        run_experiments(session, experiments_of(shard), result)
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
        self.left_out = 0  # cases, since others like them were lost

    def all(self, cases: Sequence[Case]) -> list[float]:
        """Run them; for each the largest share of the permitted error that it used."""
        shares: list[float] = []
        for batch in batches(cases):
            shares += self._batch(batch)
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
        lost = len(session.lost)
        judged = dict(zip(wanted, session.run_all(wanted), strict=True))
        without = sum(found is LEFT_OUT for found in judged.values())
        self.left_out += max(without - (len(session.lost) - lost), 0)
        seconds = (time.perf_counter() - began) / len(wanted)
        ran = [(case, found) for case, found in judged.items() if found is not LEFT_OUT]
        measure_all(ran, self.result.accuracy, self.result.coverage)
        return [self._one(case, judged[case], seconds) if case in judged else 0.0 for case in cases]

    def _given_up(self, more: int) -> bool:
        """Whether no further case is to run; that is noted once."""
        session = self.session
        if session.stopped():
            return True
        if not session.lost_enough():
            return False
        if not self.result.gave_up:
            text = f"{self.result.shard}: too many calls were lost, the rest is left out"
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
                result.add(attribute(case, deviation, self.session.run, self.session.target))
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


def batches(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    """Parts of ``cases``, in order."""
    start = elements = 0
    for end, case in enumerate(cases):
        size = 3 * math.prod(case.shape)
        if end - start == BATCH or (end > start and elements + size > ELEMENTS):
            yield cases[start:end]
            start, elements = end, 0
        elements += size
    if cases:
        yield cases[start:]


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
