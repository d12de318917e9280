"""The closed form for large sizes: what is lost in the last row shows, on fewer elements too."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from conformance.clauses import BY_ID
from conformance.judging.experiments import Bench, large
from conformance.judging.observer import Unavailable
from conformance.running.observers import InProcess
from reference.losses import LOSSES
from reference.reductions import REDUCTIONS
from targets import Target
from targets.builtin import BUILTIN
from tests.mutants.mutant import right
from tests.sessions import claimed

SHAPE = (129, 65)


def bench_on(target: Target, dtype: str) -> Bench:
    return Bench(InProcess(target, "cpu"), dtype, 0, LOSSES[target.loss_of].formula)


def last_row_lost(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An index of 13 bits ends at the last row, as one of 32 does beyond 2^31 elements."""
    keep = (torch.arange(x.numel()) < 2**13).reshape(x.shape)
    n = x.numel() if reduction == "mean" else 1
    squares = torch.where(keep, (x - y).square(), torch.zeros_like(x))
    return squares if reduction == "none" else squares.sum() / n


def messages(target: Target, dtype: str) -> Iterator[tuple[str, list[str]]]:
    bench = bench_on(target, dtype)
    for dense, reduction in itertools.product((True, False), target.reductions):
        yield "value", list(large._value(bench, SHAPE, dense, [reduction]))
        yield "gradient", list(large._gradient(bench, SHAPE, dense, reduction))


# float16 has no range for such a sum, nor for the gradient of such a mean.
@pytest.mark.parametrize(
    ("dtype", "reduction"),
    [("float16", "none"), *itertools.product(("float64", "float32", "bfloat16"), REDUCTIONS)],
)
def test_a_lost_row_shows_and_nothing_else_does(dtype: str, reduction: str) -> None:
    for loss, found in ((right, False), (last_row_lost, True)):
        target = Target("loss", loss, reductions=(reduction,))
        for what, texts in messages(target, dtype):
            assert bool(texts) == found, (what, texts)


def test_a_sum_that_the_dtype_cannot_hold_is_not_asked_for() -> None:
    target = Target("loss", right, reductions=("sum",))
    with pytest.raises(Unavailable, match="no range"):
        list(large._value_large(bench_on(target, "float16")))


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.observer.protocols.large._available", lambda: 2**30)
    with pytest.raises(Unavailable, match="16 GiB of memory are needed, 1 GiB are free"):
        list(large._value_wide_index(bench_on(BUILTIN, "bfloat16")))


def test_the_shapes_end_beyond_what_an_index_holds() -> None:
    for (rows, columns), limit in ((large.ABOVE_2_24, 2**24), (large.ABOVE_2_31, 2**31)):
        assert (rows - 1) * columns >= limit - columns
        assert rows * columns > limit + columns / 2


def test_the_narrowest_dtype_is_chosen_for_the_widest_index() -> None:
    assert BY_ID["value.wide_index"].dtypes_for(claimed(BUILTIN)) == ("bfloat16",)
    assert BY_ID["value.large"].dtypes_for(claimed(BUILTIN)) == ("float32",)
