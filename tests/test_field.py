"""Kinds of what users met: further inputs beside those of the bank, right ones and wrong ones.

Each row names the kind, the clauses that are looked at, and those that must break; none of a right
loss.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.running.inprocess import judged
from conformance.running.observers import InProcess
from targets import DROP_IN, Target
from tests.mutants.mutant import EAGER, Loss, prepare, reduce, right, right_rule

# --- what a result holds on to after its backward


class _Attribute(torch.autograd.Function):
    """An operand is an attribute of ctx, and not saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.d = (x - y, reduction)
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        d, reduction = ctx.d
        scale = 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        gradient = right_rule(d, g.expand(d.shape), scale)
        return gradient, -gradient, None


def pair_of_ctx(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    result: Tensor = _Attribute.apply(*prepare(x, y), reduction)  # type: ignore[no-untyped-call]
    return result


def in_closure(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A hook on the result remembers the differences, for a plot of the largest."""
    result, d = right(x, y, reduction), (x.detach() - y.detach()).clone()
    if result.requires_grad:
        result.register_hook(lambda g: None if d is not None else g)
    return result


# --- cost that nobody would accept


def each_prefix(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A running sum, each part of which is added up anew."""
    s = right(x, y, "none")
    if reduction == "none" or not 64 < s.numel() < 2**14:
        return reduce(s, reduction)
    line = s.reshape(-1)
    total = torch.stack([line[: k + 1].sum() for k in range(line.numel())])[-1]
    return total / line.numel() if reduction == "mean" else total


# --- changes in place of the result


class _View(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.mean = reduction == "mean"
        s = reduce((x - y).square(), reduction)
        return s.reshape(-1).view(s.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        (d,) = ctx.saved_tensors
        scale = 2 / max(d.numel(), 1) if ctx.mean else 2.0
        gradient = right_rule(d, g.expand(d.shape), scale)
        return gradient, -gradient, None


def view_of_a_function(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A view that was made inside of a Function: torch refuses to change it."""
    result: Tensor = _View.apply(*prepare(x, y), reduction)  # type: ignore[no-untyped-call]
    return result


# --- state within modes


def leaves_inference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Grad mode is off in the rest of a block without gradients that had it on."""
    result = right(x, y, reduction)
    if not result.requires_grad and torch.is_grad_enabled():
        torch.set_grad_enabled(False)
    return result


# --- what is wrong now and then


def now_and_then(often: int) -> Loss:
    calls = itertools.count(1)

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return right(x, y, reduction) * (1 if next(calls) % often else 1.5)

    return loss


# --- right ones, of less than a drop-in promises


def of_one_shape(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if x.shape != y.shape:
        raise ValueError("two shapes")
    return right(x, y, reduction)


def of_one_rank(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if x.dim() != y.dim():
        raise ValueError("two ranks")
    return right(x, y, reduction)


def of_labels(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Labels have no history."""
    if y.requires_grad or y.grad_fn is not None:
        raise ValueError("a target that needs a gradient")
    return right(x, y, reduction)


def not_a_number(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where an operand is NaN all of a result is: a fresh tensor each time."""
    result = right(x, y, reduction)
    return torch.where(torch.isnan(result), torch.full_like(result, torch.nan), result)


def all_not_a_number(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Wrong, but no result is another's memory."""
    return right(x, y, reduction) * torch.nan


def over_halves(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A loop in Python over pieces, as many as there are elements in 64."""
    x, y = prepare(x, y)
    if reduction == "none" or x.numel() < 2:
        return reduce((x - y).square(), reduction)
    pieces = zip(x.reshape(-1).split(64), y.reshape(-1).split(64), strict=True)
    wide = torch.promote_types(x.dtype, torch.float32)
    total = sum((a.to(wide) - b.to(wide)).square().sum() for a, b in pieces)
    assert isinstance(total, Tensor)
    return (total / x.numel() if reduction == "mean" else total).to(x.dtype)


WITHOUT_BROADCAST = EAGER - {"broadcast"}
FOR_INPUT = EAGER - {"target_gradient"}
COMPILED = DROP_IN - {"dynamic", "functorch", "double_backward", "forward_ad", "autocast"}
Row = tuple[str, Loss, frozenset[str], str, set[str]]
ROWS: tuple[Row, ...] = (
    ("held after backward", pair_of_ctx, EAGER, "resources.released", {"resources.released"}),
    ("held after backward", in_closure, EAGER, "resources.released", {"resources.released"}),
    ("cost", each_prefix, EAGER, "resources.time", {"resources.time"}),
    ("changed in place", view_of_a_function, EAGER, "autograd.inplace", {"autograd.inplace"}),
    ("state in modes", leaves_inference, EAGER, "value.*,purity.state", {"purity.state"}),
    ("unequal shapes unclaimed", of_one_shape, WITHOUT_BROADCAST, "dtypes.*", set()),
    ("unequal shapes unclaimed", of_one_rank, WITHOUT_BROADCAST, "dtypes.*", set()),
    ("target without gradient", of_labels, FOR_INPUT, "purity.*,gradient.*", set()),
    ("NaN is no alias", not_a_number, EAGER, "purity.*", set()),
    ("NaN is no alias", all_not_a_number, EAGER, "purity.*", set()),
)
SLOW: Row = ("compile without dynamic", over_halves, COMPILED, "transforms.compile", set())
DEFAULT = ("transforms.compile", "resources.released")  # what quick does not look at


@pytest.mark.parametrize(
    ("kind", "loss", "claims", "clauses", "broken"),
    [*ROWS, pytest.param(*SLOW, marks=pytest.mark.full)],
)
def test_a_kind_is_seen_and_a_right_one_left_alone(
    kind: str, loss: Loss, claims: frozenset[str], clauses: str, broken: set[str]
) -> None:
    target = Target(loss.__name__, loss, claims, dtypes=("float64", "float32"))
    profile = "default" if clauses in DEFAULT else "quick"
    verdict = judged(InProcess.of(target, "cpu"), profile, 0, clauses=clauses)
    found = {row.clause for row in verdict.clauses if row.status not in STATUSES}
    assert found == broken, kind


STATUSES = ("pass", "unclaimed", "not_in_profile", "unavailable")


@pytest.mark.parametrize("often", [29, 997])
def test_what_is_wrong_now_and_then_accuses_no_clause_but_its_own(often: int) -> None:
    target = Target("now-and-then", now_and_then(often), EAGER, dtypes=("float32",))
    verdict = judged(InProcess.of(target, "cpu"), "quick", 0, clauses="value.*,determinism.*")
    assert not verdict.conforms
    assert {row.clause for row in verdict.failures} <= {
        "determinism.intermittent",
        "determinism.repeat",
    }


# --- one defect of a loss whose target has no gradient: blamed once, with its cause


def as_dense(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The input's memory is read from its first element on."""
    dense = torch.empty(x.shape).stride()
    return right(x if x.is_contiguous() else x.as_strided(x.shape, dense), y, reduction)


def mean_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    s = right(x, y, "none")
    return s.sum() / x.numel() if reduction == "mean" else reduce(s, reduction)


def first_thousand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    s = right(x, y, "none")
    if reduction == "none":
        return s
    total = s.reshape(-1)[:1024].sum()
    return total / s.numel() if reduction == "mean" else total


@pytest.mark.parametrize(
    ("loss", "clauses", "blamed", "cause"),
    [
        (as_dense, "value.*,gradient.*,layout.*", "layout.value", "strides_ignored"),
        (mean_of_input, "value.*,broadcasting.*", "broadcasting.value", "wrong_count"),
        (first_thousand, "value.*", "value.size", "lost_tail"),
    ],
)
def test_without_a_gradient_of_target_one_clause_is_blamed(
    loss: Loss, clauses: str, blamed: str, cause: str
) -> None:
    target = Target(loss.__name__, loss, FOR_INPUT, dtypes=("float32",))
    failures = judged(InProcess.of(target, "cpu"), "quick", 0, clauses=clauses).failures
    (first,) = [row for row in failures if not row.because]
    assert first.clause == blamed
    assert first.cause is not None
    assert first.cause["id"] == cause
    assert {row.because for row in failures if row is not first} <= {blamed}


# --- what raises inside of an experiment


def no_autocast(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        raise RuntimeError("no such kernel")
    return right(x, y, reduction)


def no_tangents(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        raise RuntimeError("no such kernel")
    return right(x, y, reduction)


@pytest.mark.parametrize(
    ("loss", "clause", "told"),
    [
        (no_autocast, "transforms.autocast", ("modes.autocast", "'bfloat16'", "x float16[5]")),
        (no_tangents, "autograd.forward", ("float16", "reduction=")),
    ],
)
def test_what_raises_in_an_experiment_names_its_mode_and_dtypes(
    loss: Loss, clause: str, told: tuple[str, ...]
) -> None:
    target = Target(loss.__name__, loss, DROP_IN, dtypes=("float16",))
    verdict = judged(InProcess.of(target, "cpu"), "quick", 0, clauses=clause)
    (row,) = verdict.failures
    assert "RuntimeError: no such kernel" in row.message
    assert all(part in row.message for part in told), row.message
