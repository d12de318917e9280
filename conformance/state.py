"""The global state that a loss has no business with: read it, compare it, put it back."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.multiprocessing


@dataclass(frozen=True)
class _Setting:
    """One setting: how to read it, how to write it, and a value of it that programs seldom have."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    unusual: Any


# Looked at after every call.
_SETTINGS = (
    _Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled, False),
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads, 3),
    _Setting(
        "the deterministic mode",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
        0,  # the usual one: in another some losses rightly refuse to run
    ),
    _Setting("anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, True),
    _Setting(
        "the precision of float32 matmul",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "high",
    ),
    _Setting(
        "numpy's handling of errors",
        np.geterr,
        lambda errors: np.seterr(**errors),
        dict.fromkeys(np.geterr(), "ignore"),
    ),
    _Setting(
        "the garbage collector",
        gc.isenabled,
        lambda on: gc.enable() if on else gc.disable(),
        False,
    ),
)


@dataclass(frozen=True)
class Settings:
    """The settings of torch at one moment; cheap enough to take around every call."""

    values: tuple[Any, ...]

    @classmethod
    def now(cls) -> Settings:
        return cls(tuple(setting.read() for setting in _SETTINGS))

    def changes(self) -> list[str]:
        """What is no longer as it was, in words; everything is put back."""
        found = []
        for setting, value in zip(_SETTINGS, self.values, strict=True):
            if setting.read() != value:
                found.append(f"{setting.name} from {value} to {setting.read()}")
                setting.write(value)
        return found


@contextlib.contextmanager
def unusual_settings() -> Iterator[Settings]:
    """Each setting at its unusual value, so that a call that sets the usual one shows."""
    before = Settings.now()
    for setting in _SETTINGS:
        setting.write(setting.unusual)
    try:
        yield Settings.now()
    finally:
        before.changes()


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


_sharing_strategy: Callable[[], str] = torch.multiprocessing.get_sharing_strategy

# What verdicts on other code rest on.
_OWNERS = (
    torch,
    torch.Tensor,
    torch.autograd,
    torch.linalg,
    torch.nn.MSELoss,
    torch.nn.functional,
    torch.testing,
    np,
    np.testing,
    time,
)


def _functions() -> dict[tuple[str, str], Any]:
    """The functions of each owner, by the names of both."""
    return {
        (owner.__name__, name): value
        for owner in _OWNERS
        for namespace in reversed(getattr(owner, "__mro__", (owner,)))
        for name, value in vars(namespace).items()
        if callable(value) and not isinstance(value, type)  # torch replaces classes as it loads
    }


_ORIGINAL = _functions()  # before any target was called
_TORCH = os.path.dirname(torch.__file__)


def _replaced() -> list[str]:
    """Functions of torch, NumPy and ``time`` that are not their own any more.

    torch replaces one or two of its own when it compiles.
    """
    now = _functions()
    return [
        f"{owner}.{name}"
        for (owner, name), original in _ORIGINAL.items()
        if (value := now.get((owner, name))) is not original
        and not getattr(getattr(value, "__code__", None), "co_filename", "").startswith(_TORCH)
    ]


def _backends() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, torch.backends.mkldnn.enabled)


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
        "the backends of torch": _backends(),
        "how tensors and arrays are printed": (
            repr(torch._tensor_str.PRINT_OPTS),
            np.get_printoptions(),
        ),
        "how tensors are shared": _sharing_strategy(),
        "how often threads switch": sys.getswitchinterval(),
        "the handling of signals": [signal.getsignal(s) for s in sorted(signal.valid_signals())],
        "logging": (logging.root.level, logging.root.disabled, *logging.root.handlers),
        "subnormal numbers (flushed to zero)": float(torch.tensor(1e-310, dtype=torch.float64) * 1),
    }


def world_changes(before: dict[str, Any]) -> list[str]:
    """The names of what :func:`world` finds changed, and of functions that were replaced."""
    after = world()
    changed = [name for name, value in before.items() if value != after[name]]
    return changed + _replaced()
