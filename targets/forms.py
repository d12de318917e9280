"""Files in the forms that others ask for: what is in them is found, and taken for what it is."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from targets.domain import Domain
from targets.target import DROP_IN, Target

# By the operators that they stand for: the losses that can be judged.
OPERATORS = {
    "mse_loss": "mse",
    "l1_loss": "l1",
    "smooth_l1_loss": "smooth_l1",
    "huber_loss": "huber",
}
SUFFIX = "_kernel_impl"


def in_some_form(module: ModuleType, loss: str) -> Target | None:
    """The target that a file has in a form of one of the benchmarks; None where it has none.

    ``loss``: the one that was named, if any. The target's name tells the form.
    """
    return _of_kernel_bench(module, loss) or _of_backend_bench(module, loss)


def _of_kernel_bench(module: ModuleType, loss: str) -> Target | None:
    """``class ModelNew(nn.Module)``, made with ``get_init_inputs()``, whose ``forward(predictions,
    targets)`` gives the mean. The problems ask for no gradient."""
    torch = sys.modules.get("torch")
    kind = getattr(module, "ModelNew", None)
    if torch is None or not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        return None
    made: list[Any] = []

    def forward(input: Any, target: Any, reduction: str = "mean") -> Any:
        if not made:
            made.append(kind(*getattr(module, "get_init_inputs", list)()))
        return made[0](input, target)

    forward.__wrapped__ = kind.forward  # type: ignore[attr-defined]  # its source is the target's
    return Target(
        "KernelBench.ModelNew",
        forward,
        DROP_IN - {"target_gradient"},
        ("mean",),
        summary="ModelNew, in KernelBench's form: the mean, without a gradient",
        domain=Domain(backward=False),
        loss_of=loss or "mse",
        parameters=(),
    )


def _of_backend_bench(module: ModuleType, loss: str) -> Target | None:
    """``mse_loss_kernel_impl(self, target, reduction)``, as ATen calls it, and its backward."""
    for operator, name in OPERATORS.items():
        forward = getattr(module, operator + SUFFIX, None)
        if callable(forward) and loss in ("", name):
            # With torch, which whoever looks for targets does not need.
            adapters: Any = importlib.import_module("targets.adapters")
            return adapters.from_aten(  # type: ignore[no-any-return]
                f"BackendBench.{operator}",
                forward,
                getattr(module, f"{operator}_backward{SUFFIX}", None),
                adapters.CLAIMS - ({"mixed_dtype"} if name == "huber" else set()),
                loss_of=name,
                summary=f"{operator}{SUFFIX}, in BackendBench's form",
            )
    return None
