"""Calls that are lost: what is told of them, and that the rest is judged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from conformance.cases.case import Case
from conformance.cases.plans import plain, with_shapes
from conformance.cases.profiles import PROFILES
from conformance.judging.findings import EXPERIMENT, ShardResult, merged
from conformance.judging.observer import Lost
from conformance.running.losses import LOST_PER_KIND
from conformance.running.observers import InProcess
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import Shard, fixed_cases, plan
from targets import Target
from tests.mutants.mutant import right

EXAMPLES, EXPERIMENTS = Shard("examples", 0), Shard("experiments", 0)
CLAIMS = frozenset({"target_gradient", "empty", "broadcast"})


class Losing(InProcess):
    """Loses the calls that ``lost`` says, of what is announced and of how many are made."""

    limit = 10.0
    lost: Callable[[str, int], bool]
    status = "crash"

    def exchange(self, request: Any, calls: Sequence[str]) -> Any:
        for call in calls:
            if self.lost(call, len(calls)):
                raise Lost(call, self.status, "was lost", self.limit)
        return super().exchange(request, calls)


def session_that_loses(
    lost: Callable[[str, int], bool], loss: Callable[..., Tensor] = right, status: str = "crash"
) -> Session:
    target = Target("mine", loss, CLAIMS, dtypes=("float32", "float64"))
    observer = Losing(target, "cpu")
    observer.lost, observer.status = lost, status
    return Session(observer, 0)


def ran(session: Session, shard: Shard = EXAMPLES) -> ShardResult:
    return run_shard(session, shard, PROFILES["quick"])


def of(call: str) -> Case | None:
    return None if call.startswith(EXPERIMENT) else Case.from_json(json.loads(call))


def empty(call: str, calls: int) -> bool:
    case = of(call)
    return case is not None and 0 in case.shape


def test_all_that_is_unlike_a_lost_call_is_judged() -> None:
    session, other = session_that_loses(empty), session_that_loses(lambda call, calls: False)
    shards = [shard for shard in plan(session.target, PROFILES["quick"]) if shard.phase == "pairs"]
    result, whole = (merged(ran(one, s) for s in [EXAMPLES, *shards]) for one in (session, other))
    found = {f.clause for f in result.findings.values()}
    assert found == {"value.empty"}
    assert {clause for clause, _ in whole.tally.keys() - result.tally.keys()} <= {
        "value.empty",
        "gradient.empty",
    }
    assert result.tally["value.size", "float32"] == whole.tally["value.size", "float32"]
    assert len(session.lost) <= 2 * LOST_PER_KIND
    assert "like those whose calls were lost are left out" in result.gave_up[0]


def test_what_seldom_ends_its_process_costs_no_other_case() -> None:
    session = session_that_loses(lambda call, calls: call == mine)
    mine = next(iter(_cases(session)))
    result = ran(session)
    assert [call.text for call in session.lost] == [mine]
    assert not result.gave_up


def _cases(session: Session) -> list[str]:
    cases = fixed_cases(session.target, PROFILES["quick"], 0, EXAMPLES)
    return [case.key() for case in cases if case.shape == (31,) or case.shape == (5,)]


@pytest.mark.parametrize("shard", [EXAMPLES, EXPERIMENTS])
def test_a_target_that_always_ends_its_process_is_given_up_soon(shard: Shard) -> None:
    session = session_that_loses(lambda call, calls: True)
    assert ran(session, shard).gave_up
    assert len(session.lost) <= 2 * LOST_PER_KIND


def test_what_is_not_lost_alone_accuses_nobody() -> None:
    session = session_that_loses(lambda call, calls: calls > 1 and empty(call, calls))
    found = [f for f in ran(session).findings.values() if f.status == "crash"]
    assert {f.clause for f in found} == {"determinism.intermittent"}
    assert all("not alone in a fresh process" in f.message for f in found)


def test_a_lost_call_of_an_experiment_names_its_operands() -> None:
    clause = "broadcasting.gradient"
    session = session_that_loses(lambda call, calls: call.startswith(f"{EXPERIMENT}{clause} "))
    found = [f for f in ran(session, EXPERIMENTS).findings.values() if f.status == "crash"]
    assert {f.clause for f in found} == {clause}
    assert all("x float" in f.message for f in found)


def waits(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    time.sleep(x.numel() * 1e-3)
    return right(x, y, reduction)


def large(call: str, calls: int) -> bool:
    case = of(call)
    return case is not None and case.shape == (4099,)


@pytest.mark.parametrize(("loss", "status"), [(right, "timeout"), (waits, "unavailable")])
def test_a_call_that_is_slow_is_told_from_one_that_hangs(
    loss: Callable[..., Tensor], status: str
) -> None:
    session = session_that_loses(large, loss, "timeout")
    session.run(with_shapes(plain("float32", "sum"), (4099,), (4099,)))
    (lost,) = session.lost
    assert lost.status == status
    assert ("raise --timeout" in lost.how) == (status == "unavailable")


def test_what_hangs_at_small_sizes_too_is_not_slow() -> None:
    session = session_that_loses(lambda call, calls: True, status="timeout")
    ran(session)
    assert {call.status for call in session.lost} == {"timeout"}
