"""A right loss conforms whatever part of it is claimed: what is not claimed is never missing."""

from __future__ import annotations

import torch
from torch import Tensor

from conformance import judge
from targets import DROP_IN, Target
from tests.sampling import every


def loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)


def for_input_alone(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return loss(input, target.detach(), reduction)


@every(
    2,
    "target",
    [
        Target("nothing", for_input_alone, claims=frozenset(), dtypes=("float32",)),
        Target("mean", for_input_alone, frozenset(), ("mean",), ("float16",)),
        Target("none", loss, DROP_IN - {"broadcast", "mixed_dtype"}, ("none",), ("float16",)),
        Target("input", for_input_alone, DROP_IN - {"target_gradient"}),
    ],
    ids=lambda target: target.name,
)
def test_claiming_less_leaves_nothing_missing(target: Target) -> None:
    verdict = judge(target, profile="quick")
    assert [(row.id, row.dtype, row.message) for row in verdict.failures] == []
    assert [(row.id, row.dtype, row.message) for row in verdict.missing] == []
    assert verdict.conforms


def test_a_wrong_gradient_is_found_where_only_inputs_is_claimed() -> None:
    def doubled(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        value = for_input_alone(input, target, reduction)
        return value.detach() + 2 * (value - value.detach())

    target = Target("doubled", doubled, claims=frozenset(), dtypes=("float32",))
    found = {row.clause for row in judge(target, profile="quick").failures}
    assert "gradient.input" in found
