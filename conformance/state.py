"""The global state that a loss has no business with: read it, compare it, put it back."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import warnings
from collections.abc import Callable, Iterator
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
    (
        "the precision of float32 matmul",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    ("numpy's handling of errors", np.geterr, lambda errors: np.seterr(**errors)),
    ("the garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
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


@contextlib.contextmanager
def fresh_randomness(seed: int) -> Iterator[None]:
    """Random states that no call can have left behind; put back afterwards."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


# Functions that verdicts on other code rest on, as they were before any target was called.
_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (torch.nn.functional, "mse_loss"),
    (torch, "allclose"),
    (torch, "equal"),
    (torch.testing, "assert_close"),
    (torch.autograd, "grad"),
    (torch.autograd, "backward"),
    (torch.Tensor, "backward"),
    (torch.Tensor, "__sub__"),
    (torch.Tensor, "mean"),
    (np, "allclose"),
    (np, "array_equal"),
    (np, "isclose"),
    (np.testing, "assert_allclose"),
)
_ORIGINAL = tuple(getattr(owner, name) for owner, name in _FUNCTIONS)


def _replaced() -> list[str]:
    """Functions of torch and NumPy that are not their own any more."""
    return [
        f"{owner.__name__}.{name}"
        for (owner, name), original in zip(_FUNCTIONS, _ORIGINAL, strict=True)
        if getattr(owner, name) is not original
    ]


def world() -> dict[str, Any]:
    """What is too dear to look at after every call: random states, filters, settings."""
    return {
        "torch's random state": bytes(torch.get_rng_state().numpy()),
        "numpy's random state": repr(np.random.get_state(legacy=False)),
        "Python's random state": random.getstate(),
        "the warning filters": tuple(warnings.filters),
        "the default device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "the environment": dict(os.environ),
        "subnormal numbers (flushed to zero)": float(torch.tensor(1e-310, dtype=torch.float64) * 1),
    }


def world_changes(before: dict[str, Any]) -> list[str]:
    """The names of what :func:`world` finds changed, and of functions that were replaced."""
    after = world()
    changed = [name for name, value in before.items() if value != after[name]]
    return changed + _replaced()
