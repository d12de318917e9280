"""``loss-conformance init``: a Target that claims what was seen to work."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.running.choosing import only_file
from conformance.running.options import UsageError
from conformance.running.starter import NAME, Tried, place_of, starter
from conformance.running.trying import tried
from targets import DROP_IN, Domain, Result, Target, resolve
from tests.command import inside
from tests.mutants.mutant import right
from tests.sessions import session_on

PICKY = """
import torch
from targets import DROP_IN, Target

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        if x.dtype.itemsize < 4:
            raise TypeError("no halves")
        ctx.save_for_backward(x, y)
        return (x - y).square().mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return 2 * (x - y) * g / x.numel(), None

def loss(x, y):
    if x.shape != y.shape:
        raise ValueError("shapes differ")
    return Square.apply(x, y)

# What compiles takes most of the time, and is tried elsewhere.
mine = Target("loss", loss, DROP_IN - {"compile", "dynamic", "export"}, ("mean",))
"""
NOT_COMPILED = DROP_IN - {"compile", "dynamic", "export"}


FORMED = """
import torch.nn.functional as F
from targets import DROP_IN, Target

def loss(x, y, reduction="mean"):
    result = F.mse_loss(x, y, reduction=reduction)
    return result if reduction == "none" else result.reshape(1)

mine = Target("loss", loss, DROP_IN - {"compile", "dynamic", "export"})
"""


def test_a_loss_with_results_of_a_form_of_its_own_gets_a_target_that_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(FORMED)
    done = inside("init", "mine.py:mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    target = resolve(str(tmp_path / NAME))
    assert target.domain == Domain(result=Result(scalar=(1,)))
    assert target.claims == NOT_COMPILED


def test_a_picky_loss_gets_a_target_that_claims_what_it_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PICKY)
    done = inside("init", "mine.py:mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {NAME}; judge it with: loss-conformance check {NAME}\n")
    assert "not claimed: broadcast: raised ValueError: shapes differ" in done.stdout
    target = resolve(str(tmp_path / NAME))
    assert (target.name, target.reductions, target.dtypes) == (
        "loss",
        ("mean",),
        ("float64", "float32"),
    )
    refused = {"broadcast", "target_gradient", "double_backward", "forward_ad", "functorch"}
    assert refused <= DROP_IN - target.claims
    assert target.claims >= {"empty", "mixed_dtype", "deterministic"}

    again = inside("init", "mine.py:mine", cwd=tmp_path)
    assert (again.returncode, f"{NAME} is there already" in again.stderr) == (2, True)


def test_a_right_loss_claims_all_that_was_tried() -> None:
    found = tried(session_on(Target("right", right, NOT_COMPILED)))
    assert {*found.claims} == NOT_COMPILED - {"weight", "legacy"}  # it takes neither
    assert (found.dropped, found.wrong) == ({}, {})


def test_what_is_wrong_is_claimed_so_that_it_is_told() -> None:
    def cut(x, y, reduction="mean"):  # type: ignore[no-untyped-def]
        return right(x[:1], y[:1], reduction) if x.shape != y.shape else right(x, y, reduction)

    found = tried(session_on(Target("cut", cut, frozenset({"broadcast"}))))
    assert found.claims == ["broadcast"]
    assert "result" in found.wrong["broadcast"]


def test_a_weight_that_the_signature_has_is_tried() -> None:
    def refuses(x, y, reduction="mean", *, weight=None):  # type: ignore[no-untyped-def]
        if weight is not None:
            raise NotImplementedError("no weights yet")
        return right(x, y, reduction)

    found = tried(session_on(Target("refuses", refuses, frozenset({"empty", "weight", "legacy"}))))
    assert found.claims == ["empty"]
    assert "no weights yet" in found.dropped["weight"]
    lines = starter("mine", "package.losses", "mine", found).splitlines()
    assert any(line.startswith('        "weight",  # NotImplementedError') for line in lines)
    assert not any("legacy" in line for line in lines)  # which its signature does not have


def test_where_no_plain_call_works_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def loss(x, y, reduction='mean'): raise ValueError('no')\n")
    done = inside("init", "mine.py:loss", cwd=tmp_path)
    assert done.returncode == 1
    assert "no plain call works: raised ValueError: no" in done.stderr
    assert not (tmp_path / NAME).exists()


def test_a_module_is_resolved_and_a_reason_is_one_short_line() -> None:
    whole = Tried(["mean"], ["float32"], [*DROP_IN, "module"], {"float16": "raised\n" + "x " * 99})
    text = starter("Mine", "package.losses", "Mine", whole)
    assert "from package.losses import Mine\nfrom targets import DROP_IN, resolve\n" in text
    assert 'TARGET = replace(\n    resolve(Mine),\n    claims=DROP_IN | {"module"},\n' in text
    assert max(map(len, text.splitlines())) <= 100
    compile(text, NAME, "exec")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("mine.py:loss", (Path(NAME), "mine", "loss")),
        ("folder/mine.py:Loss.apply", (Path("folder", NAME), "mine", "Loss.apply")),
        ("package.losses:loss", (Path(NAME), "package.losses", "loss")),
    ],
)
def test_the_file_stands_where_it_can_import_the_loss(
    source: str, place: tuple[Path, str, str]
) -> None:
    assert place_of(source) == place


@pytest.mark.parametrize("source", ["", "builtin", "my-loss.py:loss"])
def test_a_loss_that_no_file_could_import_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match=r"name a loss|rename it"):
        place_of(source)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["mine.py"], "mine.py"),
        (["mine.py", "test_mine.py", "conftest.py", "setup.py"], "mine.py"),
        (["mine.py", "other.py", NAME], NAME),
        ([], "there is no Python file"),
        (["test_mine.py"], "there is no Python file"),
        (["a.py", "b.py"], "there are several Python files: a.py, b.py"),
    ],
)
def test_without_a_name_the_one_file_of_the_folder_is_meant(
    files: list[str], chosen: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    if chosen.endswith(".py") and chosen in files:
        assert only_file(tmp_path) == chosen
    else:
        with pytest.raises(UsageError, match=chosen):
            only_file(tmp_path)


def test_check_without_a_name_says_what_it_judges(tmp_path: Path) -> None:
    none = inside("check", cwd=tmp_path)
    assert (none.returncode, "name a target: a registered name" in none.stderr) == (2, True)
    (tmp_path / "mine.py").write_text("import no_such_package_here.part\n")
    done = inside("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "no target is named: judging mine.py" in done.stderr
    assert "install no_such_package_here, or name the interpreter that has it" in done.stderr
    assert "--python" in done.stderr
