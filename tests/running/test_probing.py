"""The domain that is guessed for a loss is the one that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conformance.cases.domain import FULL, Domain, Result
from conformance.cli import main
from conformance.running.probing import as_source, likely_domain, likely_result
from targets import Domain as Written
from targets import Result as WrittenResult
from targets import Target
from tests.mutants.mutant import EAGER, right
from tests.right.forms import RIGHT_FORMS
from tests.sessions import claimed, session_on

Takes = Callable[[Tensor], bool]


def taking(takes: Takes) -> Callable[..., Tensor]:
    """A right loss that raises for other operands."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if not (takes(x) and takes(y)):
            raise ValueError("not these")
        return right(x, y, reduction)

    return loss


@torch.no_grad()
def forward_only(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return right(x, y, reduction)


@pytest.mark.parametrize(
    ("loss", "domain"),
    [
        (right, FULL),
        (taking(lambda t: t.dim() == 2), Domain(ranks=(2, 2))),
        (taking(lambda t: t.dim() >= 2), Domain(ranks=(2, 64))),
        (taking(lambda t: 0 < t.dim() < 4), Domain(ranks=(1, 3))),
        (taking(Tensor.is_contiguous), Domain(layout="contiguous")),
        (
            taking(lambda t: t.dim() > 1 and t.stride(-1) == 1),
            Domain(ranks=(2, 64), layout="dense_rows"),
        ),
        (
            taking(lambda t: t.dim() == 2 and t.shape[1] % 32 == 0 and t.shape[1] <= 1024),
            Domain(ranks=(2, 2), columns=(32, 1024)),
        ),
        (taking(lambda t: t.dim() == 2 and t.shape[1] == 1), Domain(ranks=(2, 2), columns=(1, 1))),
        (forward_only, Domain(backward=False)),
        (lambda x, y, reduction: right(x, y, reduction) * 2, FULL),
    ],
)
def test_a_domain_is_found_by_trying(loss: Callable[..., Tensor], domain: Domain) -> None:
    session = session_on(Target("mine", loss, EAGER, dtypes=("float32",)))
    assert likely_domain(session) == domain


def test_it_is_written_as_its_author_would() -> None:
    found = Domain(ranks=(2, 2), columns=(32, 1024), layout="contiguous")
    text = "Domain(ranks=(2, 2), columns=(32, 1024), layout='contiguous')"
    assert as_source(found) == text
    assert eval(text, {"Domain": Written}) == Written(*vars(found).values())
    formed = Domain(result=Result(over=(1, None), dtype="float32"))
    text = "Domain(result=Result(over=(1, None), dtype='float32'))"
    assert as_source(formed) == text
    said = eval(text, {"Domain": Written, "Result": WrittenResult})
    assert said == Written(result=WrittenResult(over=(1, None), dtype="float32"))


# All but those that differ in the name of a mean, or for two dtypes alone.
LOOKED_FOR = [t for t in RIGHT_FORMS if t.name not in ("gives-by-batch", "gives-as-input")]


@pytest.mark.parametrize("target", LOOKED_FOR, ids=lambda t: t.name)
def test_a_form_is_found_by_trying(target: Target) -> None:
    plain = replace(target, domain=Written(ranks=target.domain.ranks))
    assert likely_result(session_on(plain)) == claimed(target).domain.result


def test_smoke_prints_a_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch.nn.functional as F\n"
        "def loss(x, y, reduction='mean'):\n"
        "    result = F.mse_loss(x, y, reduction=reduction)\n"
        "    return result if reduction == 'none' else result.reshape(1)\n"
    )
    assert main(["smoke", f"{path}:loss"]) == 1
    out = capsys.readouterr().out
    assert "it seems to give a result of shape (1,): mend that, or say so" in out
    assert "from targets import Domain, Result" in out
    assert "domain=Domain(result=Result(scalar=(1,)))" in out


def test_smoke_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch.nn.functional as F\n"
        "def loss(x, y, reduction='mean'):\n"
        "    assert x.dim() == 2, 'two dimensions'\n"
        "    return F.mse_loss(x, y, reduction=reduction)\n"
    )
    assert main(["smoke", f"{path}:loss"]) == 1
    assert "domain=Domain(ranks=(2, 2))" in capsys.readouterr().out
