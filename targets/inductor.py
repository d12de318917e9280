"""``torch.compile`` of the formula, through inductor.

The operands are broadcast and flattened before, so that one graph serves every shape.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable
from typing import Any

import torch

from targets.operands import check_reduction, prepare
from targets.registry import register
from targets.target import Target, TargetUnavailable

# torch.compile has no double backward, and its graphs no forward-mode AD or torch.func outside.
CLAIMS = frozenset(
    {"broadcast", "mixed_dtype", "empty", "target_gradient", "autocast", "deterministic"}
)
# One graph for each dtype, reduction, choice of gradients, and size 0, 1 or more.
GRAPHS = 1024
Formula = Callable[..., torch.Tensor]  # of two vectors, a reduction, and parameters as tensors
_PATCHING = threading.Lock()  # a patched limit is one of the whole process


def formula(x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    """The squared error of two vectors of one dtype; halves are computed in float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return reduced((x.to(wide) - y.to(wide)).square(), reduction).to(x.dtype)


def reduced(terms: torch.Tensor, reduction: str) -> torch.Tensor:
    """Traced with the formula that it ends."""
    if reduction == "none":
        return terms
    return terms.sum() if reduction == "sum" else terms.mean()


@functools.cache
def compiled(formula: Formula = formula) -> Formula:
    """The formula compiled, made once. Raises TargetUnavailable where nothing compiles C++."""
    from torch._inductor import config

    candidates = config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else (config.cpp.cxx,)
    if not any(name and shutil.which(name) for name in (*candidates, "g++", "clang++")):
        raise TargetUnavailable("target inductor: no C++ compiler on PATH")
    return torch.compile(formula, dynamic=True, fullgraph=True)


def called(
    formula: Formula,
    input: torch.Tensor,
    target: torch.Tensor,
    reduction: str,
    *parameters: torch.Tensor,
) -> torch.Tensor:
    """One call of the compiled formula.

    Raises RuntimeError for shapes that do not broadcast and for dtypes that are not real and
    floating; ValueError for an unknown reduction.
    """
    from torch._dynamo import config  # takes a second, and every run loads this module

    x, y = prepare(input, target)
    flat_x, flat_y = (operand.reshape(-1).contiguous() for operand in (x, y))
    patch: Any = config.patch
    with _PATCHING, patch(recompile_limit=GRAPHS, accumulated_recompile_limit=GRAPHS):
        value = compiled(formula)(flat_x, flat_y, check_reduction(reduction), *parameters)
    return value.reshape(x.shape) if reduction == "none" else value


def loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The mean squared error by one compiled graph; see :func:`called`."""
    return called(formula, input, target, reduction)


INDUCTOR = register(
    Target("inductor", loss, CLAIMS, summary="torch.compile of the formula", prepare=compiled)
)
