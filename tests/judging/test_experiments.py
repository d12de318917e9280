"""What becomes of experiments that cannot tell: blocked by a failure, or not able to run here."""

from __future__ import annotations

import math
import threading
import time

import pytest
import torch
from torch import Tensor

from conformance.cases.profiles import PROFILES
from conformance.clauses import BLOCKED, BY_ID
from conformance.judging.evidence import Evidence
from conformance.judging.experiments import EXPERIMENTS, Bench, modes, run_experiment
from conformance.judging.experiments.bench import LARGE, Messages, shared_out
from conformance.judging.experiments.determinism import PATIENCE
from conformance.judging.findings import ShardResult, merged
from conformance.judging.observer import Raised, Unavailable
from conformance.observer.protocols.kit import text_of
from conformance.running.concluding import conclude
from conformance.running.experimenting import run_experiments
from conformance.running.observers import InProcess
from conformance.running.run import run_shard
from conformance.running.shards import experiment_shards, experiments_of, plan
from conformance.verdict.verdict import Verdict
from reference.losses import LOSSES
from targets import Target
from targets.builtin import BUILTIN
from tests.mutants import MUTANTS
from tests.mutants.mutant import right
from tests.right import RIGHT
from tests.sessions import session_on


def bench_on(target: Target, dtype: str = "float32", seed: int = 0) -> Bench:
    return Bench(InProcess(target, "cpu"), dtype, seed, LOSSES[target.loss_of].formula)


def verdict_of(target: Target, clause: str) -> Verdict:
    session, profile = session_on(target, selected=clause), PROFILES["quick"]
    planned = plan(session.target, profile)
    shards = [s for s in planned if s.phase in ("experiments", "examples")]
    total = merged(run_shard(session, shard, profile) for shard in shards)
    return conclude(session, total, profile="quick", duration_s=0.0)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", "ValueError"),
        ("no", "ValueError: no"),
        ("no\nand more", "ValueError: no"),
        ("at 1:18:\ndef f(x: Any)\n     ^\nno Any here\n", "ValueError: at 1:18: no Any here"),
        ("nothing after:", "ValueError: nothing after:"),
    ],
)  # fmt: skip
def test_an_exception_is_told_with_its_reason(message: str, told: str) -> None:
    assert text_of(ValueError(message)) == told


@pytest.mark.parametrize(
    ("name", "clause", "seed"),
    [
        ("builtin", "transforms.fake", 9403),  # a subnormal gradient
        ("vmapped", "transforms.fake", 9419),
        ("vmapped", "transforms.autocast", 9714),  # a gradient that is a sum which cancels
        ("vmapped", "transforms.autocast", 9740),
    ],
)
def test_a_right_loss_is_right_with_awkward_seeds(name: str, clause: str, seed: int) -> None:
    target = {t.name: t for t in (*RIGHT, BUILTIN)}[name]
    assert run_experiment(clause, bench_on(target, "float16", seed)) == ([], None)


def test_what_a_wrong_plain_gradient_blocks_is_not_judged_and_not_missing() -> None:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return 2 * right(x, y, reduction)

    verdict = verdict_of(Target("loss", loss, dtypes=("float32",)), "autograd.retain")
    assert [(r.status, r.message) for r in verdict.clauses] == [("unavailable", BLOCKED)]
    assert not verdict.missing
    assert not verdict.conforms


def test_what_cannot_run_here_is_missing_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(bench: Bench) -> Messages:
        raise Unavailable("no such thing here")
        yield

    monkeypatch.setitem(EXPERIMENTS, "autograd.retain", refuses)
    verdict = verdict_of(BUILTIN, "autograd.retain")
    assert {r.message for r in verdict.missing} == {"no such thing here"}
    assert not verdict.complete


def test_nan_is_no_sign_of_memory_that_is_used_again() -> None:
    def nan(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return right(x, y, reduction) * math.nan

    assert run_experiment("purity.result", bench_on(Target("nan", nan))) == ([], None)


class InterpreterError(Exception):
    """Of the name that Triton's has."""


def test_what_tritons_interpreter_does_to_threads_is_not_held_against_a_kernel() -> None:
    def interpreted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if threading.current_thread() is not threading.main_thread():
            raise InterpreterError("two launches at once")
        return right(x, y, reduction)

    verdict = verdict_of(Target("mine", interpreted), "determinism.concurrent")
    assert not verdict.complete
    assert not verdict.failures
    assert {"one launch at a time" in (row.message or "") for row in verdict.missing} == {True}


def test_a_loop_in_python_is_not_called_for_minutes_by_threads() -> None:
    large = []

    def slow(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        if x.numel() == LARGE:
            large.append(reduction)
            time.sleep(2 * PATIENCE)
        return right(x, y, reduction)

    bench = bench_on(Target("slow", slow, frozenset({"target_gradient"})))
    assert run_experiment("determinism.concurrent", bench) == ([], None)
    assert len(large) == 1


def test_a_right_loss_passes_every_row_of_an_experiment() -> None:
    verdict = verdict_of(BUILTIN, "autograd.retain")
    assert {r.status for r in verdict.clauses} == {"pass"}


def test_a_loss_that_does_not_run_compiled_is_told_though_its_numbers_are_right() -> None:
    target = Target("loss", torch.compiler.disable(right), dtypes=("float32",))
    with pytest.raises(Raised, match="disable"):  # fullgraph: it may not run eagerly
        list(modes._compiled(bench_on(target), "aot_eager", (5,), dynamic=False))


def test_each_shard_of_experiments_stands_for_itself() -> None:
    session, profile = session_on(BUILTIN, selected="value.default"), PROFILES["quick"]
    for shard in experiment_shards("quick"):
        here = {"value.default"} & {clause.id for clause in experiments_of(shard)}
        assert {clause for clause, _ in run_shard(session, shard, profile).tally} == here


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_dtypes_take_turns_and_each_meets_every_reduction(number: int) -> None:
    dtypes = ("float32", "float16", "bfloat16", "float64")[:number]
    target = Target("loss", right, dtypes=dtypes)
    every = [(k, reduction) for k in range(12) for reduction in target.reductions]
    parts = [list(shared_out(bench_on(target, dtype), range(12))) for dtype in dtypes]
    assert sorted(pair for part in parts for pair in part) == sorted(every)
    for part in parts:
        assert {reduction for _, reduction in part} == set(target.reductions)


WRITERS = ("result-in-input", "scratch-input", "scratch-target")
WRITTEN_TO = [m.target for m in MUTANTS if m.target.name in WRITERS]


@pytest.mark.parametrize("target", WRITTEN_TO, ids=lambda t: t.name)
@pytest.mark.parametrize("clause", ["dtypes.unsupported", "value.default"])
def test_operands_that_a_call_wrote_to_mislead_no_experiment(target: Target, clause: str) -> None:
    """Only ``purity`` speaks of it: what is compared with must not be what the call left."""
    assert run_experiment(clause, bench_on(target)) == ([], None)


@pytest.mark.parametrize(("parts", "alone"), [((), False), ((7,), True)])
def test_what_the_dtypes_take_turns_at_is_said_to_be_seen_in_one_alone(
    parts: tuple[int, ...], alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deviates(bench: Bench) -> Messages:
        for _ in shared_out(bench, parts):
            yield "wrong"
        yield "wrong"

    monkeypatch.setitem(EXPERIMENTS, "value.size", deviates)
    session = session_on(Target("mine", right, dtypes=("float32",) + ("float64",) * alone))
    result = ShardResult("")
    run_experiments(session, [BY_ID["value.size"]], result)
    for finding in result.findings.values():
        said = f"seen in {finding.dtype}, others not looked at: wrong"
        assert finding.message == (said if alone else "wrong")


def test_an_exception_inside_of_an_experiment_names_what_was_asked_for() -> None:
    def raises(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no roll here")
        return right(x, y, reduction)

    bench = bench_on(Target("mine", raises), "bfloat16")
    _, error = run_experiment("transforms.autocast", bench)
    assert error is not None
    assert error.startswith("RuntimeError: no roll here (in modes.")
    assert "x bfloat16[" in error
    assert "reduction=" in error


@pytest.mark.parametrize(
    ("own", "torchs", "interpreted", "said"),
    [
        ([1e-3, 4e-3, 0.016], [1e-5, 1e-5, 2e-5], False, ""),
        ([0.01, 0.04, 0.16], [1e-4, 4e-4, 16e-4], False, ""),
        ([0.012, 0.05], [1e-5, 1e-5], False, "4096 elements take 1200 times as long as the"),
        ([0.006, 0.09], [1e-4, 1e-3], False, "16384 elements take 15 times as long as 4096"),
        ([1e-4, 2e-3], [1e-5, 1e-5], False, ""),  # too short to say how it grows
        ([0.012, 0.05], [1e-5, 1e-5], True, ""),
    ],
)
def test_time_is_told_by_ratios(
    monkeypatch: pytest.MonkeyPatch,
    own: list[float],
    torchs: list[float],
    interpreted: bool,
    said: str,
) -> None:
    seen = Evidence({"own": own, "torchs": torchs, "interpreted": interpreted})
    monkeypatch.setattr(InProcess, "ask", lambda *_: seen)
    messages, error = run_experiment("resources.time", bench_on(BUILTIN))
    assert error is None
    assert [message.startswith(said) for message in messages] == [True] * bool(said)


def slow_but_whole(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Many passes over the operands, in float64: slow, and vectorised."""
    for _ in range(20):
        result = right(x.double(), y.double(), reduction).to(x.dtype)
    return result


def released(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Three tensors are saved, and freed by a backward."""
    a, b = x.double(), y.double()
    return ((a - b) * (a - b).abs().sqrt().square()).abs().to(x.dtype).sum() * (
        1 if reduction == "sum" else 1 / x.numel()
    )


def test_what_is_slow_and_vectorised_takes_no_thousand_times_as_long() -> None:
    target = Target("mine", slow_but_whole, dtypes=("float32",))
    assert run_experiment("resources.time", bench_on(target)) == ([], None)


def test_what_autograd_has_freed_is_not_held() -> None:
    target = Target("mine", released, reductions=("sum", "mean"), dtypes=("float32",))
    assert run_experiment("resources.released", bench_on(target)) == ([], None)
