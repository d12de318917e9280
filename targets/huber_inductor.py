"""``torch.compile`` of Huber's formula, through inductor; see ``inductor.py``.

The parameter is a tensor: of a float that changes between calls, inductor takes one value for good.
"""

from __future__ import annotations

import functools

import torch

from targets.inductor import CLAIMS, called, compiled, reduced
from targets.operands import above_zero
from targets.registry import register
from targets.target import Target


def formula(x: torch.Tensor, y: torch.Tensor, reduction: str, delta: torch.Tensor) -> torch.Tensor:
    """d²/2 where |d| <= delta, else delta·(|d| - delta/2); halves are computed in float32.

    An infinite delta is the largest number instead: the piece that is not taken has a gradient
    too, which is multiplied by 0.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    d = x.to(wide) - y.to(wide)
    limit = delta.to(wide).clamp(max=torch.finfo(wide).max)
    size = d.abs()
    terms = torch.where(size <= limit, d * d / 2, limit * (size - limit / 2))
    return reduced(terms, reduction).to(x.dtype)


def loss(
    input: torch.Tensor, target: torch.Tensor, reduction: str = "mean", *, delta: float = 1.0
) -> torch.Tensor:
    """Huber's loss by one compiled graph. Raises ValueError where ``delta`` is not above 0."""
    limit = torch.tensor(above_zero(delta), dtype=torch.float64, device=input.device)
    return called(formula, input, target, reduction, limit)


HUBER = register(
    Target(
        "inductor",
        loss,
        CLAIMS,
        summary="torch.compile of the formula",
        loss_of="huber",
        prepare=functools.partial(compiled, formula),
    )
)
