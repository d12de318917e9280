"""That a mutant of another loss than mse is wrong, beside torch's own; coarsely."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from targets import Target
from tests.right.losses import NAMES, TORCH


def _outcome(function: Any, x: Tensor, y: Tensor, g: Tensor, **given: Any) -> list[Tensor | None]:
    """The value and both gradients."""
    a, b = (
        t.detach().as_strided(t.shape, t.stride()).requires_grad_(t.requires_grad) for t in (x, y)
    )
    result = function(a, b, **given)
    needed = [t for t in (a, b) if t.requires_grad]
    by = g.expand(result.shape).to(result.dtype) if g.dim() <= result.dim() else g.sum()
    return [result, *torch.autograd.grad(result, needed, by, allow_unused=True)]


def _probes() -> Iterator[tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    on_kinks = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 0.1, -0.1, 100.0, 0.001, -20.0])
    yield on_kinks, torch.zeros(12)
    yield torch.randn(4, 5) * 3, torch.randn(4, 5)
    yield (torch.randn(5, 4) * 3).t(), torch.randn(4, 5)
    yield torch.randn(2, 3), torch.randn(3)
    yield torch.tensor([1.0, math.nan, 2.0]), torch.zeros(3)
    yield torch.randn(1500), torch.randn(1500)
    yield torch.full((16,), 1e4).half(), torch.zeros(16).half()


def differs(target: Target) -> bool:
    """Whether it is not torch's own, coarsely: an error, a dtype, or a number."""
    own = NAMES[target.loss_of]
    limits = [None] if own is None else [None, 0.5, 3.0, 0.01, math.inf, -1.0]
    for (x, y), reduction, limit in itertools.product(_probes(), ("none", "sum", "mean"), limits):
        given: dict[str, Any] = {"reduction": reduction} | ({str(own): limit} if limit else {})
        for needs in ((True, True), (False, True)):
            a, b = (t.detach().requires_grad_(n) for t, n in zip((x, y), needs, strict=True))
            g = torch.linspace(0.5, 2, max(x.numel(), 1), dtype=x.dtype).reshape(x.shape)
            if x.shape != y.shape or reduction != "none":
                g = torch.tensor(0.75, dtype=x.dtype)
            if limit == math.inf and not (x.isfinite().all() and x.abs().max() < 1e3):
                continue  # where infinity is free
            seen = [_or_error(f, a, b, g, **given) for f in (target.loss, TORCH[target.loss_of])]
            if x.isnan().any():  # of which the gradient is free
                seen = [one and one[:1] for one in seen]
            if not _same(*seen):
                return True
    return False


def _or_error(function: Any, *operands: Tensor, **given: Any) -> list[Tensor | None] | None:
    try:
        return _outcome(function, *operands, **given)
    except (ValueError, RuntimeError):
        return None


def _same(one: list[Tensor | None] | None, other: list[Tensor | None] | None) -> bool:
    if one is None or other is None:
        return one is other
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
        elif (
            a.dtype != b.dtype
            or a.shape != b.shape
            or not torch.allclose(
                a, b, 1e-2 if a.dtype == torch.half else 1e-4, 1e-6, equal_nan=True
            )
        ):
            return False
    return True
