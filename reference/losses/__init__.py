"""The losses that can be judged: a file for each, found by itself (see CONTRIBUTING)."""

from __future__ import annotations

import importlib
import pkgutil

from reference.losses.formula import Formula
from reference.losses.loss import Loss, Parameter, Values

__all__ = ["LOSSES", "Formula", "Loss", "Parameter", "Values"]


def _found() -> dict[str, Loss]:
    names = (info.name for info in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    losses = [module.LOSS for module in modules if hasattr(module, "LOSS")]
    return {loss.name: loss for loss in losses}


LOSSES = _found()
