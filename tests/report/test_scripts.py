"""Scripts of failures: each exits with 1 on what failed and with 0 on the builtin, by itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conformance.cases.case import Case, Fill, Operand
from conformance.cases.layouts import LAYOUTS, place
from conformance.cases.plans import plain, with_needs
from conformance.cases.values import REGIMES
from conformance.clauses import BY_ID
from conformance.judging.experiments import EXPERIMENTS
from conformance.judging.experiments.bench import same_bits
from conformance.judging.findings import Finding
from conformance.judging.observer import Given, Raised
from conformance.judging.permitted_shown import shown
from conformance.observer.protocols import plain as plain_protocols
from conformance.observer.protocols.kit import Kit
from conformance.report import bench_alone, scripts, standalone
from conformance.report.bundle import Bundle
from conformance.report.scripts import protocols_in
from conformance.report.sources import references
from conformance.running.observers import InProcess
from reference.formats import FORMATS, round_nearest
from targets import Target, resolve
from targets.builtin import BUILTIN
from targets.tutorial import TUTORIAL_FUNCTION
from tests.sampling import only
from tests.scripts import BANK, FUNCTION, MODULE, imports, measure
from tests.sessions import claimed

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
# Of which kinds their scripts are
FEW = {"always-float32": "case", "leaves-seed": "experiment"}


@only([*FEW], "name", SAMPLE)
def test_its_scripts_tell_a_mutant_from_the_builtin(name: str) -> None:
    """``python -m tests scripts`` has all scripts of all mutants."""
    outcomes = list(measure([name], jobs=1, most=10))
    assert outcomes
    assert not [(o.script.clause, o.said) for o in outcomes if not o.right]
    if name in FEW:
        assert FEW[name] in {o.script.kind for o in outcomes}
    for outcome in outcomes:
        assert not imports(outcome.script.source) & {"conformance", "reference", "targets"}


def script(target: Target, finding: Finding) -> str:
    return scripts.script(claimed(target), finding, shown(finding), "cpu", 0)


@pytest.mark.parametrize("clause", sorted(EXPERIMENTS))
def test_every_experiment_can_be_copied_out_of_the_suite(clause: str) -> None:
    source = script(BUILTIN, Finding(clause, "float32", "it failed", None))
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
    path.write_text(script(resolve(f"{file}:loss"), finding))
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
    ended = run(path)
    assert (ended.returncode, ended.stdout) == (1, "the call ended its process: exit status 7\n")
    assert run(path, FUNCTION).returncode == 0
    path = written(tmp_path, "value.mean", "return 0", case, "timeout")
    assert "faulthandler.dump_traceback_later(" in path.read_text()


def test_a_loss_without_a_name_has_to_be_given_one() -> None:
    target = Target("mine", lambda x, y, reduction="mean": 2 * x)
    source = script(target, Finding("errors.operands", "float32", "", None))
    assert "LOSS = ''  # nothing that can be imported: name one" in source


def test_targets_that_come_with_the_project_are_named_by_their_home() -> None:
    source = script(TUTORIAL_FUNCTION, Finding("errors.operands", "float32", "", None))
    assert "LOSS = 'targets.tutorial:TUTORIAL_FUNCTION'" in source


def test_the_script_of_a_target_without_claims_asks_for_none() -> None:
    target = Target("mine", BUILTIN.loss, frozenset(), ("mean",))
    names: dict[str, Any] = {"__name__": __name__}
    exec(script(target, Finding("autograd.retain", "float32", "", None)), names)
    assert not list(names["deviations"](BUILTIN, 0, 0))


def test_a_script_of_an_interpreted_run_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("value.mean", "float32", "", plain("float32", "mean"), "value")
    set_up = 'os.environ["TRITON_INTERPRET"] = "1"'
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert set_up not in script(BUILTIN, finding)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    source = script(BUILTIN, finding)
    assert "import os\n" in source
    assert set_up in source


@pytest.mark.parametrize(
    "aspect",
    [
        "value",
        "value.tensor",
        "gradient.input",
        "gradient.unneeded",
        "dtypes.result",
        "purity.inputs",
        "purity.grad_output",
        "purity.state",
        "purity.attributes",
        "purity.alias",
    ],
)
def test_whatever_a_script_looks_at_the_builtin_does_not_deviate(aspect: str) -> None:
    case = with_needs(plain("float32", "mean"), aspect != "gradient.unneeded", False)
    clause = "value.mean" if aspect == "value" else aspect
    names: dict[str, Any] = {"__name__": __name__}
    exec(script(BUILTIN, Finding(clause, "float32", "", case, aspect)), names)
    assert not list(names["deviations"](BUILTIN, 0, 1))


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
    source = script(BUILTIN, Finding("value.sum", "float32", "", case, "value"))
    seen: list[tuple[Any, torch.Tensor]] = []
    names: dict[str, Any] = {"__name__": __name__}
    exec(source, names)

    spot = place(operand.layout, operand.shape)

    def loss(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        memory = x.detach().as_strided((spot.length,), (1,), 0).clone()
        form = (x.shape, x.stride(), x.storage_offset(), x.dtype, x.requires_grad, x._base is None)
        seen.append((form, memory))
        return torch.zeros(())

    names["deviations"](SimpleNamespace(loss=loss), 0, 0)
    InProcess(Target("watching", loss), "cpu").observe([case])
    (form, memory), (wanted_form, wanted) = seen
    assert form == wanted_form
    assert form[-1] == (operand.layout == "contiguous")
    torch.testing.assert_close(memory, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_a_script_rounds_as_the_reference_does(fmt: Any) -> None:
    bits = np.random.PCG64(5).random_raw(40_000).view(np.float64)
    near = 2.0 ** (fmt.emin - fmt.precision) * np.arange(-50, 50) / 4
    ends = [0.0, fmt.omega, fmt.threshold, np.nextafter(fmt.threshold, 0), np.inf, np.nan]
    v = np.concatenate([bits, near, ends, np.negative(ends)])
    with np.errstate(all="ignore"):
        wanted = round_nearest(v, fmt)
    np.testing.assert_array_equal(standalone.round_nearest(v, fmt), wanted)


ONES = Given(np.ones(2), "float32")
ASKED = ("plain.loss", {"x": ONES, "y": ONES}, {"reduction": "sum"})


def both_observers(target: Target) -> tuple[bench_alone.Observer, InProcess]:
    judges, kit = InProcess(target, "cpu"), Kit(target, "cpu")
    return bench_alone.Observer(kit, judges.claimed, {"plain.loss": plain_protocols.loss}), judges


STRANGE = [
    torch.tensor([[1.5, float("nan")]], dtype=torch.bfloat16),
    torch.ones(3).expand(2, 3),
    torch.ones(2, dtype=torch.uint16),
    torch.ones(2, dtype=torch.complex64),
    torch.eye(2).to_sparse(),
    torch.ones(2, 3, device="meta"),
    torch.zeros(0, 3),
    (1, 2.5, None, True, "text", {"of": [torch.ones(())]}),
    torch.float32,
    len,
]


@pytest.mark.parametrize("result", STRANGE, ids=str)
def test_a_script_sees_what_the_judge_sees(result: Any) -> None:
    own, judges = both_observers(Target("strange", lambda x, y, reduction="mean": result))
    got, wanted = own.ask(*ASKED)["result"], judges.ask(*ASKED)["result"]
    assert repr(got) == repr(wanted)
    assert not isinstance(result, torch.Tensor) or same_bits(got, wanted) or got == wanted


def test_in_a_script_what_a_protocol_raises_is_as_the_judge_is_told() -> None:
    def loss(x: Any, y: Any, reduction: str = "mean") -> Any:
        raise SystemExit(3)

    for observer in both_observers(Target("raising", loss)):
        with pytest.raises(Raised, match="SystemExit: 3") as raised:
            observer.ask(*ASKED)
        assert raised.value.kind == "SystemExit"


def test_of_two_things_of_one_name_the_second_has_its_module_before_it() -> None:
    bundle = Bundle()
    first, second = (f"conformance.judging.experiments.{m}" for m in ("modes", "autograd"))
    for module in (first, second):
        bundle.add(module, "_operands")
    assert bundle.name(first, "_operands") == "_operands"
    assert bundle.name(second, "_operands") == "_autograd_operands"
    text = "\n".join(bundle.texts(bundle.parts))
    assert "def _operands(" in text
    assert "def _autograd_operands(" in text


def test_what_a_function_calls_its_own_is_not_renamed() -> None:
    bundle = Bundle(reserved=("number",))
    bundle.add("conformance.report.standalone", "compare")
    (text,) = bundle.texts([bundle.part("conformance.report.standalone", "compare")])
    assert "checks_number(low)" in text


def test_methods_that_nothing_mentions_are_left_out() -> None:
    bundle = Bundle()
    bundle.add("conformance.cases.claimed", "Claimed")
    text = "\n".join(bundle.texts(bundle.parts))
    assert "script: str" in text
    assert "to_json" not in text


def test_what_cannot_be_copied_is_told() -> None:
    (asks, imports_own) = ast.parse("""
def f(bench): bench.ask(f"plain.{1}")
def f(): from conformance.clauses import BY_ID
""").body
    with pytest.raises(ValueError, match="put together"):
        protocols_in(asks)
    with pytest.raises(ValueError, match="inside of a function"):
        references(imports_own)


def test_making_a_script_imports_neither_what_judges_nor_what_observes() -> None:
    code = """
import sys
from types import SimpleNamespace
from conformance.cases.claimed import Claimed
from conformance.report.scripts import script
claimed = Claimed("mine", frozenset(), ("mean",), ("float32",))
failure = SimpleNamespace(
    clause="errors.reduction", dtype="float32", message="", case=None, aspect="", status="fail",
    is_intermittent=False,
)
assert script(claimed, failure, {}, "cpu", 0)
print({m for m in sys.modules if m == "torch" or m.startswith(("conformance.j", "conformance.o"))})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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
