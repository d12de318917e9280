"""``loss-conformance smoke``: what is wrong with an adapter, in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import main

HEAD = "import os\nimport torch.nn.functional as F\nfrom targets import DROP_IN, Target\n"
PROBLEMS = {
    "ignores": ("return F.mse_loss(x, y)", "this is the mean: does the adapter hand `reduction`"),
    "tuple": ("return F.mse_loss(x, y, reduction=reduction), 1", "not a tuple"),
    "number": ("return F.mse_loss(x, y, reduction=reduction).item()", "return a torch.Tensor"),
    "halves": (
        "assert x.dtype.itemsize > 2, 'too small'; return F.mse_loss(x, y, reduction=reduction)",
        "if it does not support float16",
    ),
    "constant": (
        "return F.mse_loss(x, y.detach(), reduction=reduction)",
        "no gradient for target (None) — if there is no gradient for target, do not claim",
    ),
    "swapped": ("return F.mse_loss(-x, y, reduction=reduction)", "permitted"),
    "dies": ("os._exit(3)", "ended with status 3"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_wrong_adapter_is_explained(
    problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, message = PROBLEMS[problem]
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}def loss(x, y, reduction='mean'):\n    {body}\n")
    assert main(["smoke", f"{path}:loss"]) == 1
    assert message in capsys.readouterr().out


def test_a_module_that_is_none_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}mine = Target('mine', F.mse_loss, DROP_IN | {{'module'}})\n")
    assert main(["smoke", f"{path}:mine"]) == 2
    assert "mine claims `module` without one: pass module=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["builtin", "module", "function"])
def test_a_right_adapter_works(name: str) -> None:
    assert main(["smoke", name]) == 0


def test_an_unknown_target_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "bultin"]) == 2
    assert "did you mean 'builtin'" in capsys.readouterr().err
