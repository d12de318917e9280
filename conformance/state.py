"""The global state that a loss has no business with: read it, compare it, put it back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Looked at after every call: name, how to read it, how to put it back.
_SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    ("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("the number of threads", torch.get_num_threads, torch.set_num_threads),
    (
        "deterministic mode",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    ("anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
)


@dataclass(frozen=True)
class Settings:
    """The settings of torch at one moment; cheap enough to take around every call."""

    values: tuple[Any, ...]

    @classmethod
    def now(cls) -> Settings:
        return cls(tuple(read() for _, read, _ in _SETTINGS))

    def changes(self) -> list[str]:
        """What is no longer as it was, in words; everything is put back."""
        found = []
        for (name, read, write), value in zip(_SETTINGS, self.values, strict=True):
            if read() != value:
                found.append(f"{name} from {value} to {read()}")
                write(value)
        return found


def world() -> dict[str, Any]:
    """What is too dear to look at after every call: random states, filters, functions."""
    return {
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": np.random.get_state()[1].tobytes(),  # type: ignore[index, union-attr]
        "the warning filters": tuple(warnings.filters),
        "torch.nn.functional.mse_loss": torch.nn.functional.mse_loss,
        "torch.allclose": torch.allclose,
        "torch.Tensor.backward": torch.Tensor.backward,
        "numpy.array_equal": np.array_equal,
    }


def world_changes(before: dict[str, Any]) -> list[str]:
    """The names of what :func:`world` finds changed; torch's random state is put back."""
    after = world()
    found = [name for name, value in before.items() if not _equal(value, after[name])]
    torch.set_rng_state(before["torch's random state"])
    return found


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)
