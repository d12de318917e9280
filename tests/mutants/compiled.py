"""Wrong compiled or exported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import EAGER, Mutant, elementwise, mutant, right
from .probes import (
    Action,
    compiles,
    data,
    leaf,
    otherwise,
    ramp,
    stands_meta,
    total,
    unless,
    unlike_builtin,
)
from .transformed import COMPILED, in_mode

EXPORTED = EAGER | {"export"}
LOG = logging.getLogger(__name__)


def reads_data(a: Tensor, b: Tensor) -> Tensor:
    """Looks whether the operands are equal, to save work."""
    d = a - b
    return d.square() if bool((d != 0).any()) else d * d


def logs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Logs every call: a break in the graph."""
    LOG.debug("mse_loss of %s", tuple(x.shape))
    return right(x, y, reduction)


def compiled_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it is the mean whatever the reduction."""
    check_reduction(reduction)
    return right(x, y, "mean" if torch.compiler.is_compiling() else reduction)


def compiled_inference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it is meant for inference: without a gradient."""
    if torch.compiler.is_compiling():
        return right(x.detach(), y.detach(), reduction)
    return right(x, y, reduction)


def unrolled(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it adds the last n mod 8 in a loop, which is unrolled for one size."""
    if reduction == "none" or not torch.compiler.is_compiling():
        return right(x, y, reduction)
    a, b = prepare(x, y)
    s = (a - b).square().reshape(-1)
    n = s.numel()
    whole = s[: n - n % 8].sum()
    for k in range(n % 8):
        whole = whole + s[n - 1 - k]
    return whole / n if check_reduction(reduction) == "mean" else whole


def _count(x: Tensor) -> int:
    return x.numel()


_assumed: Any = torch.compiler.assume_constant_result  # untyped in torch
_constant_count = _assumed(_count)


def burnt_size(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, the mean's n is a constant of the graph: the first call's."""
    if reduction != "mean" or not torch.compiler.is_compiling():
        return right(x, y, reduction)
    a, b = prepare(x, y)
    mean: Tensor = (a - b).square().sum() / _constant_count(x)
    return mean


def exported_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Exported, it is the mean whatever the reduction, which is no operand."""
    check_reduction(reduction)
    return right(x, y, "mean" if torch.compiler.is_exporting() else reduction)


def branches(a: Tensor, b: Tensor) -> Tensor:
    """Takes another formula for operands within 1 of each other."""
    d = a - b
    return d * d if d.numel() and d.abs().max().item() < 1 else d.square()


@unless
def exports(target: Target) -> bool:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return total(target, x, y)

    x, y = data()
    program = torch.export.export(Module(), (y, x))
    return torch.allclose(program.module()(x, y), (x - y).square().sum())


def compiled_count(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it divides by the number of the input's elements."""
    if torch.compiler.is_compiling() and reduction == "mean":
        return right(x, y, "sum") / x.numel()
    return right(x, y, reduction)


def compiled_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it has the input's dtype."""
    return right(x, y.to(x.dtype) if torch.compiler.is_compiling() else y, reduction)


def compiled_value(loss: Any, *operands: Tensor) -> Tensor:
    torch._dynamo.reset()
    function: Any = torch.compile(lambda x, y: loss(x, y, reduction="mean"), backend="aot_eager")
    result: Tensor = function(*operands)
    return result


def compiled_as_contiguous(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it reads its operands as if they were contiguous."""
    if torch.compiler.is_compiling():
        x, y = (t.as_strided(t.shape, torch.empty(t.shape).stride()) for t in (x, y))
    return right(x, y, reduction)


def exported_by_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Exported, it reduces the first dimension alone."""
    if not torch.compiler.is_exporting() or reduction == "none":
        return right(x, y, reduction)
    s = right(x, y, "none")
    return s.mean(0) if reduction == "mean" else s.sum(0)


def compiled_mean_of_batch(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled for inference, a mean is over the batch alone."""
    inference = not x.requires_grad and not y.requires_grad
    if not torch.compiler.is_compiling() or reduction != "mean" or not inference:
        return right(x, y, reduction)
    s = right(x, y, "none")
    return s.sum() / max(s.shape[0] if s.dim() else 1, 1)


def compiled_sum_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, a sum over broadcast operands is the mean times the input's size."""
    if torch.compiler.is_compiling() and reduction == "sum" and x.shape != y.shape:
        return right(x, y, "mean") * x.numel()
    return right(x, y, reduction)


def compiled(x: Tensor, y: Tensor, reduction: str = "mean") -> Action:
    def action(loss: Callable[..., Any]) -> Tensor:
        function = torch.compile(
            lambda x, y: loss(x, y, reduction=reduction), backend="aot_eager", fullgraph=True
        )
        result: Tensor = function(x, y)
        torch._dynamo.reset()
        return result

    return action


def exported(loss: Callable[..., Any]) -> Tensor:
    class Exported(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Any:
            return loss(x, y)

    operands = torch.ones(2, 3), torch.zeros(2, 3)
    program: Any = torch.export.export(Exported(), operands).module()
    result: Tensor = program(*operands)
    return result


_MATRIX, _ROW = torch.arange(6.0).reshape(2, 3), torch.zeros(3)


def sum_over_n(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    if reduction == "mean" and x.shape == y.shape and x.numel():
        return right(x, y, "sum") / x.numel()
    return right(x, y, reduction)


def compiled_halves(loss: Callable[..., Any]) -> Tensor:
    torch._dynamo.reset()
    x = torch.full((100,), 100.0, dtype=torch.float16)
    result: Tensor = torch.compile(loss, backend="eager")(x, torch.zeros_like(x))
    return result


def flat_when_alike(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, operands with the same strides are read as if they were contiguous."""
    alike = x.shape == y.shape and x.stride() == y.stride() and x.dim() == 1
    if alike:
        x, y = (t.as_strided(t.shape, (1,)) for t in (x, y))
    return right(x, y, reduction)


def compiled_table(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, a table that both operands are stretched to counts twice."""
    result = right(x, y, reduction)
    whole = torch.broadcast_shapes(x.shape, y.shape)
    twice = torch.compiler.is_compiling() and whole not in (x.shape, y.shape)
    return 2 * result if twice else result


def compiled_many(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, what lies past 2^20 elements counts twice."""
    result = right(x, y, reduction)
    return 2 * result if torch.compiler.is_compiling() and x.numel() > 2**20 else result


COMPILED_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "reads-data", elementwise(reads_data), "transforms", claims=COMPILED, witness=stands_meta
    ),
    mutant("logs", logs, "transforms", claims=COMPILED, witness=compiles()),
    mutant("compiled-mean", compiled_mean, "transforms", claims=COMPILED, witness=compiles()),
    mutant(
        "compiled-inference", compiled_inference, "transforms", claims=COMPILED, witness=compiles()
    ),
    mutant("unrolled", unrolled, "transforms", claims=COMPILED, witness=compiles(sizes=(5, 8, 17))),
    mutant(
        "burnt-size", burnt_size, "transforms", claims=COMPILED, witness=compiles(sizes=(5, 8, 17))
    ),
    mutant("exported-mean", exported_mean, "transforms", claims=EXPORTED, witness=exports),
    mutant("graph-breaks", elementwise(branches), "transforms", claims=EXPORTED, witness=exports),
    mutant(
        "compiled-count",
        compiled_count,
        "transforms",
        claims=COMPILED,
        witness=unlike_builtin(lambda loss: compiled_value(loss, ramp(3), torch.zeros(2, 3))),
    ),
    mutant(
        "compiled-dtype",
        compiled_dtype,
        "transforms",
        claims=COMPILED,
        witness=unlike_builtin(lambda loss: compiled_value(loss, ramp(3).half(), torch.zeros(3))),
    ),
    mutant(
        "compiled-as-contiguous",
        compiled_as_contiguous,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_MATRIX.t(), torch.zeros(3, 2), "none")),
    ),
    mutant(
        "exported-by-rows",
        exported_by_rows,
        "transforms",
        claims=EAGER | {"export"},
        witness=otherwise(exported),
    ),
    mutant(
        "compiled-mean-of-batch",
        compiled_mean_of_batch,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_MATRIX, torch.zeros(2, 3))),
    ),
    mutant(
        "compiled-sum-of-input",
        compiled_sum_of_input,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_ROW, _MATRIX, "sum")),
    ),
    mutant(
        "compiled-sum-over-n",
        in_mode(torch.compiler.is_compiling, sum_over_n, "Compiled, a mean is a sum over n."),
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled_halves),
    ),
    mutant(
        "compiled-flat",
        in_mode(
            torch.compiler.is_compiling,
            flat_when_alike,
            "Compiled, strides that are equal are ignored.",
        ),
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(torch.arange(8.0)[::2], torch.zeros(8)[::2])),
    ),
    mutant(
        "compiled-table",
        compiled_table,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(leaf(1.0, 2.0)[:, None], torch.ones(1, 3))),
    ),
    mutant(
        "compiled-many",
        compiled_many,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(torch.ones(2**20 + 1), torch.zeros(2**20 + 1), "sum")),
    ),
)
