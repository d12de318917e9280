"""The clause that tells a defect: that of the simplest case which shows it, and no other."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from torch import Tensor

from conformance.cases.case import Case, Operand
from conformance.cases.features import FEATURES, features, keep_only
from conformance.cases.layouts import place
from conformance.cases.profiles import PROFILES
from conformance.judging.findings import merged
from conformance.judging.repeats import Runs, run_again
from conformance.running.run import run_shard
from conformance.running.shards import Shard, plan
from targets import Target
from tests.mutants.mutant import EAGER, Loss, Pair, by_gradients, memory, right, right_gradients
from tests.sessions import session_on


def grad_output_strides(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    dense = g if 0 in g.stride() or g.is_contiguous() else memory(g)
    return right_gradients(x, y, dense, scale)


def past_33(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    first, second = right_gradients(x, y, g, scale)
    return (2 * first if first.numel() > 33 else first), second


def broadcast_halved(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result = right(x, y, reduction)
    return result / 2 if x.shape != y.shape else result


def strided_halved(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result = right(x, y, reduction)
    return result if x.is_contiguous() and y.is_contiguous() else result / 2


def of_views_only(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return right(x if x._is_view() else x.detach(), y, reduction)


@pytest.mark.parametrize(
    ("loss", "clauses"),
    [
        (by_gradients(grad_output_strides), {"grad_output.layout"}),
        (by_gradients(past_33), {"gradient.size"}),
        (broadcast_halved, {"broadcasting.value", "broadcasting.gradient"}),
        (strided_halved, {"layout.value", "layout.gradient"}),
        (of_views_only, {"gradient.input"}),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_defect_is_told_by_its_own_clauses(loss: Loss, clauses: set[str]) -> None:
    target = Target("mine", loss, EAGER - {"mixed_dtype"}, dtypes=("float32",))
    quick, session = PROFILES["quick"], session_on(target)
    shards = [s for s in plan(session.target, quick) if s.phase in ("examples", "pairs")]
    found = merged([run_shard(session, shard, quick) for shard in shards]).findings.values()
    assert {finding.clause for finding in found} == clauses


def now_and_then(of: int, first: int) -> Loss:
    """Wrong in the ``first``-th call, and in each ``of``-th from there on."""
    calls = itertools.count()

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result = right(x, y, reduction)
        return 2 * result + 1 if next(calls) % of == first else result

    return loss


@pytest.mark.parametrize(("of", "said"), [(41, r"in \d of 201 calls"), (10**6, "in 1 of 201")])
def test_what_does_not_come_again_accuses_no_innocent_clause(of: int, said: str) -> None:
    claims = EAGER - {"deterministic", "mixed_dtype"}
    target = Target("mine", now_and_then(of, 30), claims, dtypes=("float32",))
    quick, session = PROFILES["quick"], session_on(target)
    shards = [s for s in plan(session.target, quick) if s.phase == "examples"]
    found = merged([run_shard(session, shard, quick) for shard in shards]).findings.values()
    assert [finding.clause for finding in found] == ["determinism.intermittent"]
    assert all(re.match(said, finding.message) for finding in found)


def test_experiments_are_no_evidence_where_the_same_call_swings() -> None:
    target = Target("mine", now_and_then(3, 1), EAGER - {"mixed_dtype"}, dtypes=("float32",))
    quick, session = PROFILES["quick"], session_on(target)
    shards = [Shard("examples", 0), Shard("experiments", 0)]
    found = merged([run_shard(session, shard, quick) for shard in shards]).findings.values()
    told = {finding.clause for finding in found if finding.status == "fail"}
    assert told == {"determinism.intermittent", "determinism.repeat"}


@pytest.mark.parametrize("again", [["a", "a"], ["b", "c", "d", "e", "f"]])
def test_an_experiment_deviates_that_does_so_each_time(again: list[str]) -> None:
    runs = run_again(iter(again).__next__, "a")
    assert runs.failed == runs.runs == len(again) + 1


def test_an_experiment_that_ran_without_a_deviation_deviates_now_and_then() -> None:
    assert run_again(iter(["", "a", "", "", "b"]).__next__, "a") == Runs(3, 6)


SHAPES = [((7, 11), (11,)), ((2, 9, 1), (9, 8)), ((3,) * 4, (3, 1, 3, 3)), ((2,) * 7, (2,) * 7)]


@pytest.mark.parametrize(("x", "y"), SHAPES)
def test_what_is_large_becomes_small_and_is_broadcast_as_before(
    x: tuple[int, ...], y: tuple[int, ...]
) -> None:
    case = Case(Operand(x), Operand(y), "mean")
    assert "size" in {f.name for f in features(case)}
    others = tuple(f for f in FEATURES if f.name != "size")
    simpler = keep_only(case, others)
    assert (len(simpler.input.shape), len(simpler.target.shape)) == (len(x), len(y))
    assert (simpler.input.shape != simpler.target.shape) == (x != y)
    assert math.prod(simpler.shape) <= 32


def test_a_permuted_operand_is_never_contiguous() -> None:
    for rank in (2, 3, 4):
        for shape in itertools.product((2, 3, 5), repeat=rank):
            assert place("permuted", shape).strides != place("contiguous", shape).strides
