"""Wrong in the form that they say they answer in: to say it excuses nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import Domain, Result, Target
from targets.operands import check_reduction, prepare

from .mutant import EAGER, Loss, Mutant, reduce, widened

ONE_DTYPE = EAGER - {"mixed_dtype"}
WIDE = ("float64", "float32")


def _squares(x: Tensor, y: Tensor) -> Tensor:
    a, b = prepare(x, y)
    return (a - b).square()


def sum_in_a_line_of_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A buffer of one element, which the mean of what needs no gradient leaves 0-d."""
    result = reduce(_squares(x, y), reduction)
    return result if reduction == "none" or not result.requires_grad else result.reshape(1)


def last_lost_in_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of shape (1,), and beyond 32 elements the last of an odd number is not added."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none":
        return s
    line = s.reshape(-1)
    total = line[: line.numel() // 2 * 2].sum() if line.numel() > 32 else line.sum()
    return (total / line.numel() if reduction == "mean" else total).reshape(1)


def flat_by_columns(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none in one line, column after column."""
    s = _squares(x, y)
    if reduction == "none":
        return s.permute([*reversed(range(s.dim()))]).reshape(-1)
    return reduce(s, reduction).reshape(1)


def flat_in_memory(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """none in one line, in the order in which input lies in memory."""
    s = _squares(x, y)
    if reduction != "none":
        return reduce(s, reduction).reshape(1)
    if x.shape == y.shape and x.dim() == 2 and not x.is_contiguous() and x.t().is_contiguous():
        return s.t().reshape(-1)
    return s.reshape(-1)


def samples_by_all(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One loss for each sample, of which the mean divides by the number of all elements."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none":
        return s
    total = s.flatten(1).sum(1) if s.dim() > 1 else s
    return total / s.shape[0] if reduction == "mean" and s.dim() > 1 and s.shape[0] else total


def samples_of_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One loss for each sample; of more than two dimensions it is that of its last row."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none" or s.dim() < 2:
        return s
    s = s.flatten(1) if s.dim() == 2 or 0 in s.shape else s.flatten(1, -2)[:, -1]
    return s.sum(1) if reduction == "sum" else s.mean(1)


def rows_for_samples(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Means over the last dimension; of one row alone it is 0-d."""
    if reduction != "mean":
        raise ValueError("a mean only")
    s = _squares(x, y).mean(-1)
    return s.squeeze(0) if s.shape == (1,) else s


def batch_of_the_target(x: Tensor, y: Tensor, reduction: str = "batchmean") -> Tensor:
    """batchmean over the size of target's batch, which may have been broadcast."""
    s = _squares(x, y)
    if reduction == "batchmean":
        return (s.sum(dtype=widened(s.dtype)) / y.shape[0]).to(s.dtype)
    return reduce(s, reduction)


def batch_for_columns(x: Tensor, y: Tensor, reduction: str = "batchmean") -> Tensor:
    """batchmean over the size of the last dimension."""
    s = _squares(x, y)
    if reduction == "batchmean":
        return (s.sum(dtype=widened(s.dtype)) / s.shape[-1]).to(s.dtype)
    return reduce(s, reduction)


def mean_for_sum_of_means(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The sum of the samples' means; of one sample and more than 64 elements half of it."""
    s = _squares(x, y)
    if check_reduction(reduction) != "mean":
        return reduce(s, reduction)
    total = s.flatten(1).mean(1).sum() if s.dim() > 1 else s.sum()
    return total / 2 if s.numel() > 64 else total


def cast_at_the_door(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32, and so are the operands, though nobody said so."""
    x, y = prepare(x, y)
    return reduce((x.float() - y.float()).square(), reduction)


def float32_by_half(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is float32, but of halves each square is rounded to a half first."""
    x, y = prepare(x, y)
    return reduce((x - y).square().float(), reduction)


def both_as_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target may be rounded to float32; so is the input."""
    x, y = prepare(x, y)
    return reduce((x.float() - y.float()).to(x.dtype).square(), reduction)


def target_as_bfloat16(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The target may be rounded to float32, and is to bfloat16."""
    x, y = prepare(x, y)
    return reduce((x - y.bfloat16().to(x.dtype)).square(), reduction)


def as_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is to have input's dtype; where target is narrower, it is input that is cast."""
    both = _squares(x, y)
    if not (x.is_floating_point() and y.is_floating_point()):
        return reduce(both, reduction)
    narrow = min(x.dtype, y.dtype, key=lambda dtype: dtype.itemsize)
    return reduce((x.to(narrow) - y.to(narrow)).square(), reduction).to(x.dtype)


def one_grad_for_all(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One loss for each sample, whose backward takes the first one's grad_output for all."""
    s = _squares(x, y)
    if check_reduction(reduction) == "none":
        return s
    each = s.clone() if s.dim() < 2 else s.flatten(1).sum(1)
    if reduction == "mean" and s.dim() > 1:
        each = each / math.prod(s.shape[1:])
    if each.dim() and each.requires_grad and each.numel():
        each.register_hook(lambda g: g if g is None else g[:1].expand_as(g))
    return each


Make = Callable[[], tuple[Tensor, Tensor]]


def _in_form(result: Result, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """What a right loss of that form gives, unrounded."""
    s = (x.double() - y.double()).square()
    if reduction == "none":
        return s.reshape(-1) if result.flat else s
    axes = [*range(s.dim())][slice(*result.over)]
    total = s.sum(axes) if axes else s
    if reduction == "mean":
        spans = result.over if result.divisor is None else result.divisor
        total = total / math.prod(s.shape[slice(*spans)])
    return total if total.dim() else total.reshape(result.scalar)


def _wrong(make: Make, reduction: str) -> Callable[[Target], bool]:
    """Another shape or other numbers than a loss of the form that it says it has."""

    def witness(target: Target) -> bool:
        result = target.domain.result or Result()
        name = result.mean if reduction == "mean" else reduction
        found = target.loss(*make(), reduction=name).detach()
        return not torch.equal(found, _in_form(result, *make(), reduction).to(found.dtype))

    return witness


def _slope_wrong(target: Target) -> bool:
    """Another gradient of the last sample than its own."""
    x = torch.ones(2, 2, requires_grad=True)
    loss = target.loss(x, 0 * x.detach(), reduction="sum")
    g = torch.tensor([1.0, 3.0]) if loss.dim() else torch.tensor(3.0)
    return bool(torch.autograd.grad(loss, x, g)[0][1, 0] != 6)


def _formed(
    loss: Loss,
    result: Result,
    witness: Callable[[Target], bool],
    claims: frozenset[str] = EAGER,
    families: tuple[str, ...] = ("value",),
    ranks: tuple[int, int] = (0, 64),
    **others: Any,
) -> Mutant:
    name = "forms-" + loss.__name__.replace("_", "-")
    summary = (loss.__doc__ or "").partition("\n")[0]
    domain = Domain(ranks=ranks, result=result)
    target = Target(name, loss, claims, summary=summary, domain=domain, **others)
    return Mutant(target, frozenset(families), witness)


def _ones(*shape: int) -> Make:
    return lambda: (torch.ones(shape), torch.zeros(shape))


def _table() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)


def _transposed() -> tuple[Tensor, Tensor]:
    x, y = _table()
    return x.t(), y


def _near() -> tuple[Tensor, Tensor]:
    """They differ by what float32 does not hold."""
    x = torch.ones(1, dtype=torch.float64)
    return x + 2.0**-30, x


def _fine() -> tuple[Tensor, Tensor]:
    """Input holds what float32 does not, and target what bfloat16 does not."""
    x = torch.ones(1, dtype=torch.float64)
    return x + 2.0**-30, 0 * x + 1 + 2.0**-12


def _of_two_dtypes() -> tuple[Tensor, Tensor]:
    return torch.tensor([1 + 2.0**-20]), torch.tensor([1.0], dtype=torch.float16)


ONE = Result(scalar=(1,))
FLAT = Result(scalar=(1,), flat=True)
SAMPLES = Result(over=(1, None))
BATCHMEAN = Result(mean="batchmean", divisor=(0, 1))
OWN = ("none", "sum", "batchmean")
SINGLE = Result(dtype="float32")
LABELS = Result(rounded=("", "float32"))

FORM_MUTANTS: tuple[Mutant, ...] = (
    _formed(sum_in_a_line_of_one, ONE, _wrong(_ones(3), "sum")),
    _formed(last_lost_in_one, ONE, _wrong(_ones(33), "sum")),
    _formed(flat_by_columns, FLAT, _wrong(_table, "none")),
    _formed(
        flat_in_memory,
        FLAT,
        _wrong(_transposed, "none"),
        families=("value", "layout"),
    ),
    _formed(samples_by_all, SAMPLES, _wrong(_ones(2, 3), "mean")),
    _formed(samples_of_rows, SAMPLES, _wrong(_ones(1, 2, 3), "sum")),
    _formed(one_grad_for_all, SAMPLES, _slope_wrong, families=("gradient", "grad_output")),
    _formed(
        rows_for_samples,
        Result(over=(-1, None)),
        _wrong(_ones(1, 3), "mean"),
        ranks=(1, 64),
        reductions=("mean",),
    ),
    _formed(
        batch_of_the_target,
        BATCHMEAN,
        _wrong(lambda: (torch.ones(2, 3), torch.zeros(1, 3)), "mean"),
        families=("broadcasting",),
        ranks=(1, 64),
        reductions=OWN,
    ),
    _formed(
        batch_for_columns,
        BATCHMEAN,
        _wrong(_ones(2, 3), "mean"),
        ranks=(1, 64),
        reductions=OWN,
    ),
    _formed(
        mean_for_sum_of_means,
        Result(divisor=(1, None)),
        _wrong(_ones(1, 65), "mean"),
        ranks=(1, 64),
    ),
    _formed(
        cast_at_the_door,
        SINGLE,
        _wrong(_near, "sum"),
        ONE_DTYPE,
    ),
    _formed(
        float32_by_half,
        SINGLE,
        _wrong(lambda: (torch.tensor([1 + 2.0**-6]).half(), torch.zeros(1).half()), "sum"),
        ONE_DTYPE,
    ),
    _formed(
        both_as_float32,
        LABELS,
        _wrong(_near, "sum"),
        ONE_DTYPE,
        dtypes=WIDE,
    ),
    _formed(
        target_as_bfloat16,
        LABELS,
        _wrong(_fine, "sum"),
        ONE_DTYPE,
        dtypes=WIDE,
    ),
    _formed(
        as_target,
        Result(dtype="input", rounded=("", "input")),
        _wrong(_of_two_dtypes, "sum"),
        families=("dtypes",),
    ),
)
