"""One judge for every loss: what a target is of, its parameters, and what a failure shows."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

import conformance
from conformance.cases.case import Case
from conformance.cases.claimed import UnknownLoss
from conformance.cases.plans import examples, pairs
from conformance.cases.profiles import PROFILES
from conformance.judging.findings import merged
from conformance.judging.permitted_shown import shown
from conformance.report.scripts import script
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import Shard, plan
from reference.losses import LOSSES
from targets import Target, TargetError, resolve
from tests.command import inside
from tests.mutants.losses import LOSS_MUTANTS
from tests.sampling import only
from tests.sessions import claimed, session_on

NAMES = [name for name in LOSSES if name != "mse"]
KERNEL = """
import torch
import torch.nn.functional as F

def loss(input, target, reduction="mean", *, delta=1.0):
    # the threshold is 1, whatever the parameter
    d = input - target
    s = torch.where(d.abs() <= 1, 0.5 * d * d, delta * (d.abs() - 0.5 * delta))
    return s if reduction == "none" else s.sum() if reduction == "sum" else s.mean()
"""


def first_shard(session: Session) -> dict[tuple[str, str], object]:
    return dict(run_shard(session, Shard("examples", 0), PROFILES["quick"]).findings)


@pytest.mark.parametrize("name", NAMES)
def test_the_builtin_is_right_and_another_loss_is_not(name: str) -> None:
    own, other = resolve("builtin", name), resolve("builtin")
    assert not first_shard(session_on(own))
    stranger = Target("stranger", other.loss, loss_of=name)
    assert first_shard(session_on(stranger))


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_the_builtin_conforms(name: str) -> None:
    session, profile = session_on(resolve("builtin", name)), PROFILES["quick"]
    total = merged([run_shard(session, shard, profile) for shard in plan(session.target, profile)])
    assert not [f for f in total.findings.values() if session.level(f.clause) == "must"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_kink_is_tried(name: str) -> None:
    target = claimed(resolve("builtin", name))
    cases = examples(target)
    assert {case.loss for case in cases} == {name}
    assert any(case.input.fill.regime == "kink" for case in cases)
    for parameter in LOSSES[name].parameters:
        for value in (parameter.default, *parameter.tried):
            own = [c for c in cases if c.parameters == ((parameter.name, value),)]
            assert {c.reduction for c in own} == {"none", "sum", "mean"}, value
    assert any(c.parameters and c.input.layout != "contiguous" for c in pairs(target)) or not (
        LOSSES[name].parameters
    )


def test_mse_has_the_cases_and_clauses_that_it_had_without_the_others() -> None:
    target = claimed(resolve("builtin"))
    assert not any(case.parameters for case in examples(target))
    assert '"loss"' not in examples(target)[0].key()
    assert not [c for c in examples(target) if c.input.fill.regime in ("kink", "sum_edge")]


def test_a_parameter_that_is_not_taken_is_unclaimed() -> None:
    target = Target("fixed", resolve("builtin", "huber").loss, loss_of="huber", parameters=())
    assert claimed(target).parameters == ()
    assert not any(case.parameters for case in examples(claimed(target)))


@pytest.mark.parametrize("value", [0.5, math.inf, 1e-300])
def test_a_case_with_parameters_survives_json(value: float) -> None:
    case = next(c for c in examples(claimed(resolve("builtin", "huber"))) if c.parameters)
    case = case.replace(parameters=(("delta", value),))
    assert Case.from_json(case.to_json()) == case
    assert f"delta={value!r}" in str(case)


def test_an_unknown_loss_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UnknownLoss, match=r"unknown loss 'hubert'\. Known: huber, l1, mse"):
        claimed(Target("mine", lambda x, y, reduction="mean": x, loss_of="hubert"))
    done = inside("check", "builtin", "--loss", "hubert")
    assert done.returncode == 2
    assert done.stderr.startswith("loss-conformance: unknown loss 'hubert'. Known: huber, l1, mse")


def test_a_target_of_another_loss_is_refused() -> None:
    target = Target("mine", lambda x, y, reduction="mean": x, loss_of="huber")
    with pytest.raises(TargetError, match="mine is of the loss huber, not of l1"):
        resolve(target, "l1")
    with pytest.raises(TargetError, match="unknown target 'l1/function'"):
        resolve("function", "l1")


def test_the_losses_are_listed() -> None:
    done = inside("losses")
    assert done.returncode == 0
    assert done.stdout.split("\n")[:4] == [
        "huber 1.0        torch.nn.functional.huber_loss (delta=1)",
        "l1 1.0           torch.nn.functional.l1_loss",
        "mse 1.0          torch.nn.functional.mse_loss",
        "smooth_l1 1.0    torch.nn.functional.smooth_l1_loss (beta=1)",
    ]


@only(["value.parameter"], "clause", ["value.parameter", "gradient.parameter"])
def test_a_script_shows_the_failure_by_itself_and_not_of_torchs_own(
    clause: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(KERNEL)
    session = session_on(resolve(f"{tmp_path / 'mine.py'}:loss", "huber"))
    every = plan(session.target, PROFILES["quick"])
    shards = [s for s in every if s.phase == "examples"]
    total = merged([run_shard(session, shard, PROFILES["quick"]) for shard in shards])
    finding = next(f for (c, _), f in total.findings.items() if c == clause)
    path = tmp_path / "repro.py"
    path.write_text(script(session.target, finding, shown(finding), "cpu", 0))
    ran = [
        subprocess.run(
            [sys.executable, str(path), *other], cwd=tmp_path, capture_output=True, text=True
        )
        for other in ((), ("torch.nn.functional:huber_loss",))
    ]
    assert [r.returncode for r in ran] == [1, 0], ran
    assert "permitted" in ran[0].stdout


def test_the_script_of_an_experiment_has_the_formula(tmp_path: Path) -> None:
    mutant = next(m.target for m in LOSS_MUTANTS if m.target.name == "smooth_l1-limit-unchecked")
    session = session_on(mutant, selected="errors.parameter")
    every = plan(session.target, PROFILES["quick"])
    total = merged(
        [run_shard(session, s, PROFILES["quick"]) for s in every if s.phase == "experiments"]
    )
    finding = total.findings["errors.parameter", "float32"]
    path = tmp_path / "repro.py"
    path.write_text(script(session.target, finding, shown(finding), "cpu", 0))
    command = [sys.executable, str(path), "torch.nn.functional:smooth_l1_loss"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_the_suite_names_a_loss_but_its_specification_and_targets() -> None:
    """mse is the one that is meant where none is named."""
    home = Path(conformance.__file__).parent
    for path in home.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(huber|smooth_l1|l1_loss)\b", text), path
