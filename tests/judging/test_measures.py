"""Accuracy by size and exponent, coverage of cells, and where the wrong elements lie."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from conformance import judge
from conformance.cases.case import Case, Fill, Operand
from conformance.judging.checks import BEYOND, SHOWN
from conformance.judging.measures import exponent, layout_family, measure, path
from conformance.running.session import Session
from targets import DROP_IN, Target
from tests.sessions import session_on

Json = dict[str, Any]


def builtin(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)


def cut(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Loses whatever lies behind element 64."""
    loss = torch.nn.functional.mse_loss(input, target, reduction=reduction)
    if reduction != "none" or loss.numel() <= 64:
        return loss
    return torch.where(torch.arange(loss.numel()).view_as(loss) < 64, loss, 0.0)


def noisy(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Wrong by a part in a thousand beyond 16 elements."""
    loss = torch.nn.functional.mse_loss(input, target, reduction=reduction)
    return loss * (1.001 if input.numel() > 16 else 1.0)


def session(loss: Any) -> Session:
    return session_on(Target("mine", loss, DROP_IN))


def case(n: int, reduction: str = "none", **changes: Any) -> Case:
    x, y = (Operand((n,), "float32", fill=Fill("ordinary", seed)) for seed in (1, 2))
    g = Operand((n,) if reduction == "none" else (), "float32", fill=Fill("one"))
    return Case(x, y, reduction, g).replace(**changes)


def measured(loss: Any, case: Case) -> tuple[dict[Any, float], dict[Any, int]]:
    accuracy: dict[Any, float] = {}
    coverage: dict[Any, int] = {}
    measure(case, session(loss).run(case), accuracy, coverage)
    return accuracy, coverage


def test_wrong_elements_are_named_where_they_lie() -> None:
    (deviation,) = session(cut).run(case(70, needs=(False, False))).deviations
    assert deviation.where is not None
    assert deviation.where.to_json() == {
        "of": "result",
        "shape": [70],
        "wrong": [64, 65, 66, 67, 68, 69],
        "count": 6,
    }


def test_of_many_wrong_elements_some_are_named_from_the_first_to_the_last() -> None:
    (deviation,) = session(cut).run(case(5000, needs=(False, False))).deviations
    where = deviation.where
    assert where is not None
    assert where.count == 5000 - 64
    assert len(where.wrong) == SHOWN
    assert (where.wrong[0], where.wrong[-1]) == (64, 4999)
    assert list(where.wrong) == sorted(set(where.wrong))


def test_an_error_counts_in_its_bins_of_size_and_exponent() -> None:
    accuracy, coverage = measured(builtin, case(70, "mean"))
    power = exponent(case(70))
    assert set(accuracy) == {
        (aspect, "float32", axis, bin)
        for aspect in ("value", "gradient")
        for axis, bin in (("size", 6), ("exponent", power))
    }
    assert all(0 <= share <= 1 for share in accuracy.values())
    assert coverage == {("float32", "mean", "contiguous", "both"): 1}


def test_an_error_outside_of_what_is_permitted_is_above_one() -> None:
    accuracy, _ = measured(noisy, case(70, "mean"))
    assert 1 < accuracy["value", "float32", "size", 6] < BEYOND
    lost, _ = measured(lambda x, y, reduction: builtin(x, y, reduction) * float("nan"), case(3))
    assert lost["value", "float32", "size", 1] == BEYOND


def test_the_worst_of_a_bin_stays() -> None:
    accuracy: dict[Any, float] = {}
    for loss in (noisy, builtin):
        measure(case(70, "mean"), session(loss).run(case(70, "mean")), accuracy, {})
    assert accuracy["value", "float32", "size", 6] > 1


@pytest.mark.parametrize(
    ("layouts", "family"),
    [
        (("contiguous", "contiguous"), "contiguous"),
        (("offset", "contiguous"), "misaligned"),
        (("contiguous", "transposed"), "permuted"),
        (("filled", "strided"), "stride 0"),
    ],
)
def test_layout_families(layouts: tuple[str, str], family: str) -> None:
    plain = case(3)
    x, y = (
        o.replace(layout=layout)
        for o, layout in zip((plain.input, plain.target), layouts, strict=True)
    )
    assert layout_family(plain.replace(input=x, target=y)) == family


def test_autograd_paths() -> None:
    assert path(case(3)) == "both"
    assert path(case(3, needs=(True, False))) == "input"
    assert path(case(3, needs=(False, True))) == "target"
    assert path(case(3, needs=(False, False))) == "none"
    assert path(case(3, same=True)) == "input"
    assert path(case(3, mode="no_grad")) == "no_grad"


def test_the_exponent_is_of_the_largest_finite_difference() -> None:
    values = Fill("table", table=(0,))
    same = case(3).replace(input=Operand((3,), fill=values), target=Operand((3,), fill=values))
    assert exponent(same) is None
    assert exponent(case(3, same=True)) is None
    assert exponent(case(0)) is None
    huge = case(3).replace(input=Operand((3,), fill=Fill("huge", 1)))
    assert (exponent(huge) or 0) > 30


def test_a_verdict_counts_every_case_once_and_says_where_a_broken_one_is_wrong() -> None:
    target = Target("mine", cut, frozenset(), reductions=("none",), dtypes=("float32",))
    verdict: Json = json.loads(json.dumps(judge(target, profile="quick").to_json()))
    assert sum(row["examples"] for row in verdict["coverage"]) == verdict["examples"]
    assert {row["dtype"] for row in verdict["coverage"]} == {"float32"}
    assert max(a["worst"] for a in verdict["accuracy"]) == BEYOND  # 0 is far from any square
    places = {
        row["id"]: row["counterexample"].get("where")
        for row in verdict["clauses"]
        if row["status"] == "fail"
    }
    assert places["value.size"]["wrong"][0] == 64
