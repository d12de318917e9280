"""``python -m tests cost``: what observing and judging a case costs, over the bare calls.

Observing is what the observer does; crossing, what it takes to hand operands in and to read what
came back, without the way between two processes.

All of it is measured in one run and in turns, one batch after the other, so that whatever else the
machine does meets all alike; of several rounds the least counts for each batch. The bare call of a
case is torch's own loss, forward and backward, on operands that are there already.
"""

from __future__ import annotations

import argparse
import gc
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from conformance.cases import features as features_module
from conformance.cases import values
from conformance.cases.case import Case
from conformance.cases.features import clauses_of, features
from conformance.cases.profiles import PROFILES
from conformance.judging import measures, oracle
from conformance.judging.batch import judge_observations
from conformance.judging.cache import Memory
from conformance.judging.checks import Judgement, judge_observation
from conformance.judging.seen import Observation
from conformance.observer.state import settled
from conformance.running.observers import InProcess
from conformance.running.shards import fixed_cases, plan
from targets.builtin import BUILTIN
from tests.sessions import claimed, tensor_of

SMALL = 4096  # elements
FIXED = ("examples", "pairs", "scale")


class Timed(InProcess):
    """Tells apart what the observer does, and what it takes to ask it."""

    observing = 0.0

    def exchange(self, request: dict[str, Any], calls: Sequence[str]) -> dict[str, Any]:
        began = time.process_time()
        answer = super().exchange(request, calls)
        self.observing += time.process_time() - began
        return answer


def cases_of(profile: str, seed: int = 0) -> list[Case]:
    """The fixed cases of a profile, in the order of the plan."""
    chosen = PROFILES[profile]
    shards = [shard for shard in plan(claimed(BUILTIN), chosen) if shard.phase in FIXED]
    return [case for shard in shards for case in fixed_cases(claimed(BUILTIN), chosen, seed, shard)]


def bare(cases: Sequence[Case]) -> Callable[[], None]:
    """The bare calls of ``cases``, to be timed."""
    made = [_operands(case) for case in cases]

    def call() -> None:
        for case, x, y, g in made:
            if case.mode != "grad":
                with torch.no_grad():
                    torch.nn.functional.mse_loss(x, y, reduction=case.reduction)
                continue
            result = torch.nn.functional.mse_loss(x, y, reduction=case.reduction)
            wanted = [x if name == "input" else y for name in case.differentiated]
            if wanted:
                torch.autograd.grad(result, wanted, g)

    return call


def _operands(case: Case) -> tuple[Case, torch.Tensor, torch.Tensor, torch.Tensor]:
    x = tensor_of(case.input, case.needs[0])
    y = x if case.same else tensor_of(case.target, case.needs[1])
    return case, x, y, tensor_of(oracle.grad_output(case, case.dtype))


def forget() -> None:
    """All that this process remembers of cases, but for their elements, which observing made."""
    for module in (oracle, features_module):
        for remembered in vars(module).values():
            own = getattr(remembered, "__module__", "") == module.__name__
            if own and hasattr(remembered, "cache_clear"):
                remembered.cache_clear()


def fresh(cases: Sequence[Case]) -> list[Case]:
    """The same, which remember nothing of themselves."""
    return [Case.from_json(case.to_json()) for case in cases]


def evidence(cases: Sequence[Case], judgements: Sequence[Judgement]) -> None:
    """What a run does besides with each judgement: features, clauses, measures."""
    for case, judgement in zip(cases, judgements, strict=True):
        case.key()
        features(case)
        clauses_of(case, judgement.shares)
    measures.measure_all(zip(cases, judgements, strict=True), {}, {})


def seconds(act: Callable[[], object]) -> float:
    """Of this process: what others do meanwhile counts little."""
    start = time.process_time()
    act()
    return time.process_time() - start


def batch_costs(cases: Sequence[Case], memory: Memory) -> dict[str, float]:
    """The seconds that each thing takes of a batch."""
    call, observer = bare(cases), Timed(BUILTIN, "cpu")
    call()
    for case in cases:
        for operand in (case.input, case.target, case.grad_output):
            values.elements(operand)
    seen: list[Observation] = []
    costs = {"bare": seconds(call)}
    both = seconds(lambda: seen.extend(observer.observe(cases)))
    costs |= {"observing": observer.observing, "crossing": both - observer.observing}
    pairs = list(zip(cases, seen, strict=True))
    forget()
    costs["judging, one by one"] = seconds(lambda: [judge_observation(*pair) for pair in pairs])
    forget()
    costs["judging, cold"] = seconds(lambda: judge_observations(pairs))
    judgements = judge_observations(pairs, memory)
    forget()
    anew = fresh(cases)
    costs["evidence"] = seconds(lambda: evidence(anew, judgements))
    forget()
    pairs = list(zip(anew, seen, strict=True))  # their keys are made: a run takes these anyway
    costs["judging, remembered"] = seconds(lambda: judge_observations(pairs, memory))
    return costs


def costs(cases: Sequence[Case], size: int, rounds: int) -> dict[str, float]:
    """The seconds of all cases, in batches of ``size``."""
    total: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "sets") as memory:
        for start in range(0, len(cases), size):
            batch = cases[start : start + size]
            times = [batch_costs(batch, memory) for _ in range(rounds)]
            for name in times[0]:
                total[name] = total.get(name, 0.0) + min(t[name] for t in times)
        print(*memory.told, sep="\n", end="")
    return total


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests cost", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--batch", type=int, default=240, help="cases in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    every = cases_of(chosen.profile)
    small = [case for case in every if math.prod(case.shape) <= SMALL]
    large = [case for case in every if math.prod(case.shape) > SMALL]
    gc.collect()
    gc.freeze()  # as workers do: torch is some 345,000 objects, which all stay
    with settled():
        for name, cases in (("small", small), ("large", large)):
            total = costs(cases, chosen.batch, chosen.rounds)
            print(f"{len(cases)} {name} cases (to, or beyond, {SMALL} elements)")
            for what, spent in total.items():
                each, ratio = 1e6 * spent / len(cases), spent / total["bare"]
                print(f"  {what:20} {each:9.1f} us a case {ratio:8.2f} x bare")
    return 0
