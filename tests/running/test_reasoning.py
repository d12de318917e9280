"""Asked again without the calls of a kind, bystanders hold, and a second defect still fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cases.plans import plain, with_layouts, with_needs, within
from conformance.cases.profiles import PROFILES
from conformance.judging.findings import merged
from conformance.judging.reasons import REDUCTIONS
from conformance.running.reasoning import reasoned
from conformance.running.run import run_shard
from conformance.running.shards import Shard
from targets import Target
from tests.mutants.mutant import EAGER, Loss, right
from tests.sessions import session_on

CLAIMS = EAGER | {"double_backward"}
CLAUSES = "layout.*,broadcasting.*,autograd.double_backward,autograd.accumulate,value.*"


def refuses_strides(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if not (x.is_contiguous() and y.is_contiguous()):
        raise RuntimeError("view size is not compatible")
    return right(x, y, reduction)


def strides_and_broadcasts(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result = refuses_strides(x, y, reduction)
    return result / 2 if x.shape != y.shape else result


def mean_and_strides(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result = right(x, y, reduction)
    if not (x.is_contiguous() and y.is_contiguous()):
        result = result * 3
    return result / 2 if reduction == "mean" else result


def weighted_over_n(
    x: Tensor, y: Tensor, reduction: str = "mean", *, weight: Tensor | None = None
) -> Tensor:
    if weight is None:
        return right(x, y, reduction)
    s = right(x, y, "none") * weight
    return s if reduction == "none" else s.sum() if reduction == "sum" else s.mean()


def weighted_and_strides(
    x: Tensor, y: Tensor, reduction: str = "mean", *, weight: Tensor | None = None
) -> Tensor:
    refuses_strides(x, y, reduction)
    return weighted_over_n(x, y, reduction, weight=weight)


def told(loss: Loss, clauses: str = CLAUSES) -> list[tuple[str, ...]]:
    """The clauses of each reason."""
    target = Target("mine", loss, CLAIMS | {"weight"}, dtypes=("float32",))
    session = session_on(target, selected=clauses)
    shards = [Shard("examples", 0), Shard("examples", 1), Shard("experiments", 0)]
    shards += [Shard("experiments", 1)]
    found = merged(run_shard(session, shard, PROFILES["quick"]) for shard in shards)
    return [reason.clauses for reason in reasoned(session, found.findings.values())]


def test_one_defect_is_one_reason() -> None:
    (clauses,) = told(refuses_strides)
    assert clauses[0] == "layout.value"
    assert "broadcasting.gradient" in clauses, "whose grad_output is expanded"


def test_two_defects_are_two_reasons() -> None:
    first, second = told(strides_and_broadcasts)
    assert {first[0], second[0]} == {"layout.value", "broadcasting.value"}
    assert "autograd.double_backward" in first, "which fails for both"


def test_what_a_weight_breaks_is_told_once_and_apart_from_another_defect() -> None:
    (clauses,) = told(weighted_over_n, "weight.value,weight.gradient,weight.derivative,layout.*")
    assert clauses == ("weight.value", "weight.gradient", "weight.derivative")
    heads = {clauses[0] for clauses in told(weighted_and_strides, "weight.value,layout.*")}
    assert heads == {"layout.value", "weight.value"}


def test_a_defect_of_special_cases_is_not_hidden_by_a_plain_one() -> None:
    found = told(mean_and_strides, "value.*,layout.*")
    heads = {clauses[0] for clauses in found}
    assert {"value.mean", "layout.value"} <= heads


@pytest.mark.parametrize(
    ("when", "part", "differ"),
    [
        ("strided", "all", {"value", "gradient"}),
        ("always", "value", {"value"}),
        ("always", "gradient", {"gradient"}),
        ("always", "gradient.target", set[str]()),
        ("broadcast", "all", set[str]()),
        ("grad_output", "all", set[str]()),
    ],
)
def test_what_is_answered_by_torch_is_that_part_of_such_calls(
    when: str, part: str, differ: set[str]
) -> None:
    session = session_on(Target("mine", lambda x, y, reduction: right(x, y, reduction) * 3, EAGER))
    case = with_layouts(plain("float32", "mean"), "strided", "contiguous")
    case = with_needs(case, True, False)
    asked = {"loss": "mse_loss", "when": when, "reductions": [*REDUCTIONS], "part": part}
    with session.observer.standing_in([asked]):
        wrong = {d.aspect.partition(".")[0] for d in session.run(case).deviations}
    assert wrong == {"value", "gradient"} - differ
    assert len(session.run(case).deviations) == 2, "afterwards the loss answers again"


def test_a_backward_is_torchs_where_its_grad_output_is_another_one() -> None:
    class OfOne(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            ctx.save_for_backward(x, y)
            return (x - y).square().sum()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            x, y = ctx.saved_tensors
            return 2 * (x - y), 2 * (y - x)

    def loss(x: Tensor, y: Tensor, reduction: str = "sum") -> Any:
        apply: Any = OfOne.apply
        return apply(x, y)

    session = session_on(Target("mine", loss, EAGER, ("sum",), ("float32",)))
    whole = plain("float32", "sum")
    whole = whole.replace(grad_output=whole.grad_output.replace(fill=whole.input.fill))
    (case,) = within(session.target, whole)
    assert session.run(case).deviations
    asked = {"loss": "mse_loss", "when": "grad_output", "reductions": ["sum"], "part": "all"}
    with session.observer.standing_in([asked]):
        assert not session.run(case).deviations
