"""``loss-conformance smoke``: what is wrong with an adapter, in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import main
from conformance.running.smoke import smoke
from tests.sessions import session_on

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


def adapter(folder: Path, problem: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"{HEAD}def loss(x, y, reduction='mean'):\n    {PROBLEMS[problem][0]}\n")
    return f"{path}:loss"


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "dies"])
def test_a_wrong_adapter_is_explained(problem: str, tmp_path: Path) -> None:
    found = smoke(session_on(adapter(tmp_path, problem)))
    assert PROBLEMS[problem][1] in "\n".join(found)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", adapter(tmp_path, "dies")]) == 1
    assert PROBLEMS["dies"][1] in capsys.readouterr().out


def test_a_module_that_is_none_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}mine = Target('mine', F.mse_loss, DROP_IN | {{'module'}})\n")
    assert main(["smoke", f"{path}:mine"]) == 2
    assert "mine claims `module` without one: pass module=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["builtin", "module", "function"])
def test_a_right_adapter_works(name: str) -> None:
    assert smoke(session_on(name)) == []


def test_an_unknown_target_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "bultin"]) == 2
    assert "did you mean 'builtin'" in capsys.readouterr().err
