"""Scripts of failures: each exits with 1 on what failed and with 0 on the builtin, by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.cases.case import Case, Fill, Operand
from conformance.cases.layouts import LAYOUTS
from conformance.cases.plans import plain, with_needs
from conformance.cases.values import REGIMES
from conformance.clauses import BY_ID
from conformance.judging.attribution import Finding
from conformance.observer.protocols import EXPERIMENTS
from conformance.observer.tensors import make
from conformance.report.bundle import Bundle
from conformance.report.scripts import script
from targets import Target, resolve
from targets.builtin import BUILTIN
from targets.tutorial import TUTORIAL_FUNCTION
from tests.scripts import BANK, FUNCTION, MODULE, imports, measure

# One or two of each theme of the bank: they break every family of clauses but that of CUDA.
SAMPLE = (
    "half-factor",
    "gradient-lost-tail",
    "nan-is-zero",
    "integers-wrap",
    "no-strides",
    "leaves-seed",
    "refused-with-gradient",
    "peels-target",
    "module-unreduced-in-eval",
    "adds-grad",
    "always-float32",
    "first-call-wrong",
    "grid-65536",
)


def test_the_scripts_of_a_sample_tell_the_mutant_from_the_builtin() -> None:
    outcomes = list(measure(SAMPLE, jobs=2))
    assert not [(o.script.clause, o.script.mutant, o.said) for o in outcomes if not o.right]
    assert {o.script.mutant for o in outcomes} == set(SAMPLE)
    assert {o.script.kind for o in outcomes} >= {"case", "experiment"}
    for outcome in outcomes:
        assert not imports(outcome.script.source) & {"conformance", "reference", "targets"}


@pytest.mark.parametrize("clause", sorted(EXPERIMENTS))
def test_every_experiment_can_be_copied_out_of_the_suite(clause: str) -> None:
    source = script(BUILTIN, Finding(clause, "float32", "it failed", None), "cpu", 0)
    assert not imports(source) & {"conformance", "reference", "targets"}
    compile(source, clause, "exec")
    assert EXPERIMENTS[clause].__name__ in source


def run(path: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def written(
    tmp_path: Path, clause: str, body: str, case: Case | None, status: str = "fail"
) -> Path:
    """The script of a finding on a loss in a file."""
    file = tmp_path / "mine.py"
    file.write_text(f"import os, torch\ndef loss(x, y, reduction='mean'):\n    {body}\n")
    aspect = "value" if case else clause
    finding = Finding(clause, "float32", "said\nin two lines", case, aspect, status)
    path = tmp_path / f"{clause}.py"
    path.write_text(script(resolve(f"{file}:loss"), finding, "cpu", 0))
    return path


def test_a_script_runs_on_its_own_and_takes_another_loss(tmp_path: Path) -> None:
    path = written(tmp_path, "errors.reduction", "return ((x - y) ** 2).mean()", None)
    own = run(path)
    assert own.returncode == 1, own.stderr
    assert "instead of an error" in own.stdout
    assert run(path, FUNCTION).returncode == 0
    assert run(path, MODULE).returncode == 0
    for name in ("no.such.module:loss", str(tmp_path / "absent.py:loss"), "torch:no_such_loss"):
        done = run(path, name)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_what_raises_or_ends_the_process_fails_its_script(tmp_path: Path) -> None:
    case = plain("float32", "mean")
    raises = run(written(tmp_path, "value.mean", "raise ValueError('no')", case))
    assert (raises.returncode, raises.stdout) == (1, "raised ValueError: no\n")
    path = written(tmp_path, "value.mean", "os._exit(7)", case, "crash")
    assert "ended its process" in path.read_text().splitlines()[2]
    assert run(path).returncode == 7
    assert run(path, FUNCTION).returncode == 0
    path = written(tmp_path, "value.mean", "return 0", case, "timeout")
    assert "faulthandler.dump_traceback_later(" in path.read_text()


def test_a_loss_without_a_name_has_to_be_given_one() -> None:
    target = Target("mine", lambda x, y, reduction="mean": 2 * x)
    source = script(target, Finding("errors.operands", "float32", "", None), "cpu", 0)
    assert "LOSS = ''  # nothing that can be imported: name one" in source


def test_targets_that_come_with_the_project_are_named_by_their_home() -> None:
    source = script(TUTORIAL_FUNCTION, Finding("errors.operands", "float32", "", None), "cpu", 0)
    assert "LOSS = 'targets.tutorial:TUTORIAL_FUNCTION'" in source


def test_the_script_of_a_target_without_claims_asks_for_none() -> None:
    target = Target("mine", BUILTIN.loss, frozenset(), ("mean",))
    names: dict[str, Any] = {"__name__": __name__}
    exec(script(target, Finding("autograd.retain", "float32", "", None), "cpu", 0), names)
    assert not list(names["deviations"](SimpleNamespace(loss=BUILTIN.loss), 0, 0))


def test_a_script_of_an_interpreted_run_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("value.mean", "float32", "", plain("float32", "mean"), "value")
    set_up = 'os.environ["TRITON_INTERPRET"] = "1"'
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert set_up not in script(BUILTIN, finding, "cpu", 0)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    source = script(BUILTIN, finding, "cpu", 0)
    assert "import os\n" in source
    assert set_up in source


OPERANDS = [
    *(Operand((3, 4, 2), layout=layout) for layout in LAYOUTS),
    *(Operand((2, 3), dtype, "transposed") for dtype in ("float64", "bfloat16", "int64", "bool")),
    *(Operand((700,), dtype, "strided", Fill(regime, 5))
      for regime in REGIMES for dtype in ("float32", "float16")),
    Operand((70, 9), "bfloat16", "transposed", Fill("near", 5)),
    Operand((900,), "float64", "contiguous", Fill("table", 0, (7, 12, 3))),
    *(Operand((900,), dtype, "offset") for dtype in ("uint8", "int64", "bool")),
    Operand((0, 3)),
    Operand(()),
]  # fmt: skip


@pytest.mark.parametrize("operand", OPERANDS, ids=str)
def test_a_script_makes_the_very_tensors(operand: Operand) -> None:
    other = operand.replace(dtype="float32", layout="contiguous", fill=Fill("one"))
    case = with_needs(Case(operand, other, "sum"), True, False)
    source = script(BUILTIN, Finding("value.sum", "float32", "", case, "value"), "cpu", 0)
    seen: list[torch.Tensor] = []
    names: dict[str, object] = {"__name__": __name__}
    exec(source, names)

    class Watching:
        @staticmethod
        def loss(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
            seen.append(x)
            return torch.zeros(())

    names["deviations"](Watching, 0, 0)  # type: ignore[operator]
    made = make(operand, "cpu", case.needs[0])
    x = seen[-1]
    assert (x._base is None) == (made.tensor._base is None) == (operand.layout == "contiguous")
    memory = x.detach().as_strided(made.buffer.shape, (1,), 0)
    for got, wanted in ((x, made.tensor), (memory, made.buffer)):
        assert (got.shape, got.stride(), got.storage_offset(), got.dtype, got.requires_grad) == (
            wanted.shape, wanted.stride(), wanted.storage_offset(), wanted.dtype,
            wanted.requires_grad,
        )  # fmt: skip
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


def test_two_things_of_one_name_cannot_be_copied() -> None:
    bundle = Bundle()
    bundle.add("conformance.observer.protocols.modes", "_operands")
    with pytest.raises(ValueError, match="_operands"):
        bundle.add("conformance.observer.protocols.autograd", "_operands")


def test_a_report_has_a_script_for_each_broken_clause_and_replay_runs_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def loss(x, y, reduction='mean'):\n    return ((x - y) ** 2).mean() / 2\n")
    command = [sys.executable, "-m", "conformance"]
    stale = tmp_path / "loss" / "repro" / "value.stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    check = ["check", f"{file}:loss", "--profile", "quick", "--clause", "*.reduction", "--report"]
    subprocess.run([*command, *check, str(tmp_path)], check=False, capture_output=True)
    assert [p.name for p in stale.parent.iterdir()] == ["errors.reduction.py"]
    verdict = tmp_path / "loss" / "verdict.json"
    rows = json.loads(verdict.read_text())["clauses"]
    broken = [row for row in rows if row["status"] == "fail"]
    assert len(broken) == 4
    assert sum(bool(row["counterexample"]["script"]) for row in broken) == 1
    replay = [*command, "replay", str(verdict)]
    done = subprocess.run(replay, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.count("instead of an error") == 4
    done = subprocess.run([*replay, "--target", "builtin"], check=False, capture_output=True)
    assert done.returncode == 0


def test_the_sample_reaches_the_families() -> None:
    families = {family for name in SAMPLE for family in BANK[name].families}
    assert families >= {"value", "gradient", "dtypes", "layout", "purity", "autograd", "module"}
    assert families <= {clause.family for clause in BY_ID.values()}
