"""What a target is made of: wrappers are told, what is forbidden breaks a clause, the gate asks."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conformance.cli import main
from conformance.report.text import header
from conformance.running.provenance import made_of
from conformance.verdict.gate import Policy, rule
from conformance.verdict.provenance import LIBRARY, MadeOf, matching, rows, together
from conformance.verdict.verdict import digest
from tests.sampling import only
from tests.sessions import session_on
from tests.verdict.test_schema import problems

Json = dict[str, Any]
NOW = datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC)


class Wrapper(torch.nn.Module):
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.inner = torch.nn.MSELoss(reduction=reduction)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.inner(x, y)  # type: ignore[no-any-return]


def own(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    squares = (x - y) ** 2
    return squares if reduction == "none" else getattr(squares, reduction)()  # type: ignore[no-any-return]


COMPILED = torch.compile(F.mse_loss, backend="aot_eager")


def compiled(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return COMPILED(x, y, reduction=reduction)


@torch.library.custom_op("wrapped::loss", mutates_args=())
def hidden(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(x, y)


def in_an_operator(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return hidden(x, y)  # type: ignore[no-any-return]


def now_and_then(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Torch's own for what a kernel finds hard."""
    return (own if x.is_contiguous() else F.mse_loss)(x, y, reduction=reduction)


def raising(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    raise ValueError("no luck")


def ran(target: Any) -> MadeOf:
    found = together(made_of(session_on(target)).values())
    assert found is not None
    return found


@only(
    ["builtin", Wrapper, in_an_operator, now_and_then],
    "target",
    ["builtin", Wrapper, compiled, in_an_operator, now_and_then],
)
def test_a_wrapper_of_torchs_own_loss_is_told(target: Any) -> None:
    assert "aten::mse_loss" in matching(ran(target).operators, LIBRARY)


@pytest.mark.parametrize("target", [own, "function"])
def test_a_loss_of_its_own_is_none(target: Any) -> None:
    found = ran(target)
    assert not matching(found.operators, LIBRARY)
    assert {"aten::sub", "aten::mul"} <= {*found.operators}, "of the backward, too"
    assert found.kernels == ()


def test_what_never_returns_is_not_known() -> None:
    parts = made_of(session_on(raising))
    assert together(parts.values()) is None
    assert {(row.status, row.message) for row in rows(parts, ["aten::*"])} == {
        ("unavailable", "no call returned")
    }


def test_what_is_forbidden_breaks_a_clause_in_the_dtypes_that_ran_it() -> None:
    parts = {
        "float32": MadeOf(("aten::mse_loss", "aten::sum"), ("void gemm<float>()",), 3),
        "float16": MadeOf(("aten::sum",), (), 3),
        "bfloat16": MadeOf(unknown="the call hung"),
    }
    found = {row.dtype: (row.status, row.message) for row in rows(parts, ["aten::mse*", "*gemm*"])}
    assert found == {
        "float32": (
            "fail",
            "ran aten::mse_loss, void gemm<float>(), permitted: none of aten::mse*, *gemm*",
        ),
        "float16": ("pass", ""),
        "bfloat16": ("unavailable", "the call hung"),
    }


def test_an_answer_of_another_form_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_on(own)
    real = session.observer.exchange

    def forged(request: Json, calls: Any) -> Json:
        answer = real(request, calls)
        answer["evidence"]["items"]["operators"] = [{"other": "x"}]
        return answer

    monkeypatch.setattr(session.observer, "exchange", forged)
    assert "what is no name" in made_of(session)["float32"].unknown


# -- the command and the gate ------------------------------------------------------------------

CHECK = ("check", "--profile", "quick", "--clause", "value.scalar", "--jobs", "1")


def check(folder: Path, *more: str) -> tuple[int, Json]:
    """By the command, in a process of its own: what it prints is a terminal's."""
    command = [sys.executable, "-m", "conformance", *CHECK, "builtin", *more]
    done = subprocess.run([*command, "--report", str(folder)], capture_output=True, check=False)
    return done.returncode, json.loads((folder / "builtin" / "verdict.json").read_text())


def test_the_command_tells_what_it_is_made_of(tmp_path: Path) -> None:
    status, verdict = check(tmp_path)
    assert status == 0
    assert "aten::mse_loss_backward" in verdict["made_of"]["operators"]
    assert "forbidden" not in verdict
    assert not problems(verdict)
    assert "made of torch's own loss: aten::mse_loss" in header(verdict).plain


def test_the_command_refuses_what_is_forbidden(tmp_path: Path) -> None:
    status, verdict = check(tmp_path, "--forbid", "aten::mse_loss*", "--forbid", "aten::dot")
    assert status == 1
    assert verdict["forbidden"] == ["aten::mse_loss*", "aten::dot"]
    assert {row["id"] for row in verdict["clauses"] if row["status"] == "fail"} == {
        "provenance.forbidden"
    }
    assert not problems(verdict)
    assert main(["replay", str(tmp_path / "builtin" / "verdict.json")]) == 3
    assert "provenance.forbidden" in (tmp_path / "builtin" / "report.html").read_text()


def test_the_gate_can_forbid_it_too(tmp_path: Path) -> None:
    verdict: Json = {
        "target": "mine", "device": "cpu", "profile": "default", "seed": 0, "selected": "*",
        "complete": True, "conforms": True,
        "clauses": [{"id": "value.mean", "level": "must", "status": "pass", "dtype": "float32"}],
    }  # fmt: skip

    def reasons(made_of: Json | None, **policy: Any) -> str:
        body = verdict | ({"made_of": made_of} if made_of else {})
        (tmp_path / "v.json").write_text(json.dumps(body | {"digest": digest(body)}))
        (ruling,) = rule([tmp_path / "v.json"], Policy(**policy), NOW)
        return "; ".join(ruling.reasons)

    library = {"operators": ["aten::mse_loss"], "kernels": []}
    assert reasons(library) == ""
    assert reasons(library, forbid=("aten::huber*",)) == ""
    assert reasons(library, forbid=("aten::mse*",)) == (
        "its target runs what is forbidden: aten::mse_loss"
    )
    assert reasons(None, forbid=("x",)) == "it does not say what its target is made of"
    assert "isolation none, less than sandbox" in reasons(library, isolation="sandbox")
