"""What the right implementations share: their kinds of claims, the reduction, the wider format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targets import DROP_IN
from targets.operands import check_reduction, prepare

WIDE = ("float64", "float32")
WITHIN_FLOAT64 = ("float32", "float16", "bfloat16")
# A formula on the bare operands keeps halves under autocast, and may pass integers through.
FORMULA = DROP_IN - {"autocast"}
# A Function without vmap and jvp, or Python code that looks at sizes.
EAGER = DROP_IN - {"double_backward", "forward_ad", "functorch", "compile", "dynamic", "export"}
TWICE = EAGER | {"double_backward"}
TRACED = EAGER | {"compile", "dynamic", "export"}
TRANSFORMED = TWICE | {"forward_ad", "functorch"}

Loss = Callable[[Tensor, Tensor, str], Tensor]


def reduce(s: Tensor, reduction: str) -> Tensor:
    """none, sum or mean of ``s``. Raises RuntimeError for integers, which may have wrapped."""
    if not (s.is_floating_point() or s.is_complex()):
        raise RuntimeError(f"mean squared error needs a real floating dtype, not {s.dtype}")
    if check_reduction(reduction) == "none":
        return s
    return s.sum() if reduction == "sum" else s.mean()


def widened(v: Tensor) -> Tensor:
    """``v`` in float32 at least."""
    return v.to(torch.promote_types(v.dtype, torch.float32))


def by(function: Any, *options: Any, prepared: bool = True) -> Loss:
    """A Function or operator as a loss, after broadcasting and promotion where it wants them done.

    ``function(x, y, reduction, *options)``.
    """

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        check_reduction(reduction)
        if prepared:
            x, y = prepare(x, y)
        result: Tensor = function(x, y, reduction, *options)
        return result

    return loss
