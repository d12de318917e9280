"""Run cases, whatever becomes of the observer: everything that running one takes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.features import form_of
from conformance.clauses import BY_ID, selects
from conformance.judging.batch import judge_observations
from conformance.judging.cache import Memory
from conformance.judging.checks import Judgement
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import Bench, run_experiment
from conformance.judging.findings import (
    EXPERIMENT,
    INTERMITTENT,
)
from conformance.judging.observer import Lost, Observer, Raised, Unavailable
from conformance.running.losses import (
    Kinds,
    LostCall,
    Pace,
    hopeless,
    pace,
    rubbish,
    slow,
    weight,
)
from conformance.running.observers import SHARES

LEFT_OUT = Judgement((), {})  # of a case that did not run
LOST_PER_RUN = 20  # calls that may be lost before the rest of the run is given up


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
    observer; ``kinds``: what of these is alike. ``paces``: that of the target, once it is known.
    ``lost_before``: how much was lost elsewhere in this run, weighted. ``stopped``: whether to end
    as soon as may be.
    """

    observer: Observer
    seed: int
    selected: str = "*"
    skip: frozenset[str] = frozenset()
    recorder: Recorder | None = None
    memory: Memory | None = None
    lost: list[LostCall] = field(default_factory=list)
    lost_before: int = 0
    kinds: Kinds = field(default_factory=Kinds)
    paces: list[Pace | None] = field(default_factory=list)
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
        """One run of each. A call that ends the observer is noted, and the others run again.

        What is like a case that was lost comes last.
        """
        gone = {call.text for call in self.lost} | self.skip
        left = [case for case in cases if case.key() not in gone]
        found: dict[Case, Judgement] = {}
        for like in (False, True):
            self._run_into(found, [case for case in left if case not in found], like)
        return [found.get(case, LEFT_OUT) for case in cases]

    def _run_into(self, found: dict[Case, Judgement], cases: list[Case], like: bool) -> None:
        """Run those that are like none that was lost; or if ``like`` those whose kind is not spent.

        Those before a call that was lost have returned, so they run again.
        """
        returned: set[Case] = set()
        waiting = [cases]
        while waiting and not self.lost_enough():
            lost = {call.text for call in self.lost}
            left_out = self.kinds.spent if like else self.kinds.like
            some = [
                case
                for case in waiting.pop(0)
                if case.key() not in lost and (case in returned or not left_out(case))
            ]
            if not some:
                continue
            try:
                seen = self.observer.observe(some)
            except Lost as error:
                at = self._lose(error, some)
                returned.update(some[:at])
                waiting[:0] = [some[:at], some[at + 1 :]]
                continue
            except BadEvidence as bad:
                if len(some) == 1:
                    self.note(rubbish(bad), some[0].key())
                else:  # which of them it was shows where each is alone
                    found |= self._one_by_one(some)
                continue
            self.kinds.keep(some)
            judged = judge_observations(list(zip(some, seen, strict=True)), self.memory)
            found |= dict(zip(some, judged, strict=True))

    def _lose(self, lost: Lost, cases: Sequence[Case]) -> int:
        """Note a lost call, the first of its kind as a fresh process has it; which it was."""
        keys = [case.key() for case in cases]
        at = keys.index(lost.call) if lost.call in keys else 0
        case = cases[at]
        alone = True
        if lost.status == "timeout":
            lost = self._paced(lost, lambda known: known.of(math.prod(case.shape)))
        elif self.kinds.sure.isdisjoint(self.kinds.like(case)):
            alone = self._is_lost(lambda: self.observer.observe([case]))
        self.kinds.lose(case, alone)
        self.note(lost, keys[at], alone)
        return at

    def lose_experiment(self, lost: Lost, clause: str, bench: Bench) -> None:
        """Note a call of an experiment that was lost; the first of a clause as a case."""
        alone = True
        if lost.status == "timeout":
            lost = self._paced(lost, lambda known: known.of_experiment(lost.elements))
        elif not any(call.text.startswith(f"{EXPERIMENT}{clause} ") for call in self.lost):
            with self.limited(clause):
                alone = self._is_lost(lambda: run_experiment(clause, bench))
        self.note(lost, bench.announced, alone)

    def _is_lost(self, call: Callable[[], object]) -> bool:
        """Whether it ends an observer that has called nothing yet, as this one is now."""
        try:
            call()
        except (Lost, BadEvidence):
            return True
        except (Raised, Unavailable):
            return False
        return False

    def _paced(self, lost: Lost, expected: Callable[[Pace], float]) -> Lost:
        """A call that did not return: whether it hangs, or is slow, which is no evidence."""
        if not self.paces:
            self.paces.append(pace(self.observer))
        known = self.paces[0]
        how = slow(lost, expected(known)) if known and lost.limit else ""
        return Lost(lost.call, "unavailable", how) if how else lost

    def repeat(self, case: Case, count: int) -> list[Judgement]:
        """So many runs of one case; none where one was lost, which is noted."""
        try:
            seen = self.observer.observe([case] * count)
        except Lost as lost:
            self.note(lost, case.key())
        except BadEvidence as bad:
            self.note(rubbish(bad), case.key())
        else:
            return judge_observations([(case, one) for one in seen], self.memory)
        return []

    def _one_by_one(self, cases: Sequence[Case]) -> dict[Case, Judgement]:
        found: dict[Case, Judgement] = {}
        before = len(self.lost)
        for case in cases:
            if self.lost_enough() or hopeless(len(self.lost) - before, len(found)):
                break
            judged = self.run(case)
            if judged is not LEFT_OUT:
                found[case] = judged
        return found

    def note(self, lost: Lost, otherwise: str, alone: bool = True) -> None:
        """Remember a lost call; ``otherwise``: its text where nobody can say."""
        how = lost.how + lost.asked
        if not alone and self.wants(INTERMITTENT):
            how += ", but not alone in a fresh process: an earlier call may have damaged something"
        alone = alone or not self.wants(INTERMITTENT)
        self.lost.append(LostCall(lost.call or otherwise, lost.status, how, alone))

    def lost_enough(self) -> bool:
        return self.lost_before + weight(self.lost) >= LOST_PER_RUN

    def wants(self, clause: str) -> bool:
        return selects(self.selected, clause)

    def level(self, clause: str) -> str:
        """Of a clause, for the loss that is judged."""
        return BY_ID[clause].level_for(self.target.specification)

    def bench(self, clause: str, dtype: str) -> Bench:
        """For the experiment of a clause."""
        formula = replace(
            self.target.specification.formula, form=form_of(self.target.domain.result)
        )
        return Bench(self.observer, dtype, self.seed, formula, f"{EXPERIMENT}{clause} {dtype}")

    def limited(self, clause: str) -> contextlib.AbstractContextManager[None]:
        """Around an experiment: it takes no longer than so many calls."""
        return self.observer.within(SHARES[BY_ID[clause].profile])
