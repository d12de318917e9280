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

import torch
import torch.multiprocessing
from torch import overrides
from torch.utils import _python_dispatch, deterministic

np: Any = None
with contextlib.suppress(ImportError):  # the target's interpreter need not have it
    import numpy as np


@dataclass(frozen=True)
class _Setting:
    """One setting: how to read and to write it. ``unusual``: a value that programs seldom have.

    ``told``: whether its values have words; an object of Python's has an address.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    unusual: Any = None
    told: bool = True


def _numpy_errors() -> dict[str, str]:
    return dict(np.geterr()) if np else {}


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
        _numpy_errors,
        lambda errors: np and np.seterr(**errors),
        dict.fromkeys(_numpy_errors(), "ignore"),
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
    settings: tuple[_Setting, ...] = _SETTINGS

    @classmethod
    def now(cls, settings: tuple[_Setting, ...] = _SETTINGS) -> Settings:
        return cls(tuple(setting.read() for setting in settings), settings)

    @classmethod
    def of_block(cls) -> Settings:
        """With those that hold for a block of a program."""
        return cls.now(_SETTINGS + _OF_BLOCKS)

    def changes(self) -> list[str]:
        """What is no longer as it was, in words; everything is put back."""
        found = []
        for setting, value in zip(self.settings, self.values, strict=True):
            if setting.read() != value:
                words = f" from {value} to {setting.read()}" if setting.told else ""
                found.append(f"{setting.name}{words}")
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
def deterministic_mode() -> Iterator[None]:
    """As ``use_deterministic_algorithms(True)`` makes it; put back afterwards."""
    before = torch.get_deterministic_debug_mode()
    _set_debug_mode(2)
    try:
        yield
    finally:
        _set_debug_mode(before)


def _set_debug_mode(mode: int) -> None:
    """``use_deterministic_algorithms`` tells Inductor too, and imports it, with Dynamo: where that
    is not loaded, nothing is compiled."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    else:
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def fresh_randomness(seed: int) -> Iterator[None]:
    """Random states that no call can have left behind; put back afterwards."""
    before = torch.get_rng_state(), random.getstate(), np and np.random.get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    if np:
        np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        if np:
            np.random.set_state(before[2])


# What verdicts on other code rest on.
_OWNERS = (
    torch,
    torch.Tensor,
    torch.autograd,
    torch.linalg,
    torch.nn.MSELoss,
    torch.nn.functional,
    torch.testing,
    time,
    *((np, np.testing) if np else ()),
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


def note_functions() -> None:
    """A target's module was loaded, and not called: what that replaced no call has. Importing
    Lightning, say, wraps ``torch.compile``."""
    _ORIGINAL.update(_functions())


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


_DEVICES, _FILL = ("cpu", "cuda"), "fill_uninitialized_memory"
# What is too dear to look at after every call.
_FLAGS = (
    (torch.backends.cudnn, "enabled"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.mkldnn, "enabled"),
)


def _set_flags(values: tuple[bool, ...]) -> None:
    for (owner, name), value in zip(_FLAGS, values, strict=True):
        setattr(owner, name, value)


def _autocast() -> tuple[Any, ...]:
    devices = ((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES)
    return tuple(devices), torch.is_autocast_cache_enabled()


def _set_autocast(wanted: tuple[Any, ...]) -> None:
    for device, (on, dtype) in zip(_DEVICES, wanted[0], strict=True):
        torch.set_autocast_enabled(device, on)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(wanted[1])


_innermost: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _saving() -> Any:
    """The innermost hooks on what is saved for a backward; None without any, and in torch 2.6,
    which does not tell them."""
    return _innermost(True) if _innermost else None


def _set_saving(wanted: Any) -> None:
    while _saving() not in (None, wanted):
        torch._C._autograd._pop_saved_tensors_default_hooks()
    if wanted and _saving() is None:
        torch._C._autograd._push_saved_tensors_default_hooks(*wanted)


_STACKS: tuple[tuple[Callable[[], list[Any]], Any], ...] = (
    (_python_dispatch._get_current_dispatch_mode_stack, _python_dispatch),
    (overrides._get_current_function_mode_stack, overrides),
)


def _modes() -> tuple[Any, ...]:
    return tuple(tuple(stack()) for stack, _ in _STACKS)


def _set_modes(wanted: tuple[Any, ...]) -> None:
    for (stack, owner), modes in zip(_STACKS, wanted, strict=True):
        while stack():
            owner._pop_mode()
        for mode in modes:
            owner._push_mode(mode)


# What a block of a program sets for all calls in it.
_OF_BLOCKS = (
    _Setting("autocast", _autocast, _set_autocast),
    _Setting("inference mode", torch.is_inference_mode_enabled, lambda _: None),
    _Setting("the hooks on what is saved for a backward", _saving, _set_saving, told=False),
    _Setting("the modes that see every operation", _modes, _set_modes, told=False),
    _Setting(
        "whether backward may use several threads",
        torch._C._is_multithreading_enabled,
        torch._C._set_multithreading_enabled,
    ),
    _Setting(
        "the filling of fresh memory",
        lambda: getattr(deterministic, _FILL),
        lambda on: setattr(deterministic, _FILL, on),
    ),
)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _printing() -> tuple[Any, ...]:
    return dict(vars(torch._tensor_str.PRINT_OPTS)), np.get_printoptions() if np else {}


def _set_printing(options: tuple[dict[str, Any], dict[str, Any]]) -> None:
    vars(torch._tensor_str.PRINT_OPTS).update(options[0])
    if np:
        np.set_printoptions(**options[1])


def _processors() -> set[int]:
    """Of this process; none where the system does not say (no Linux)."""
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


def _set_processors(wanted: set[int]) -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, wanted)


def _handlers() -> dict[int, Any]:
    return {s: signal.getsignal(s) for s in sorted(signal.valid_signals())}


def _set_handlers(wanted: dict[int, Any]) -> None:
    for number, handler in wanted.items():
        known = signal.getsignal(number)
        if handler is not known and None not in (handler, known):  # None: it is C's
            with contextlib.suppress(ValueError):  # only the main thread may
                signal.signal(number, handler)


def _logging() -> tuple[Any, ...]:
    return logging.root.level, logging.root.disabled, tuple(logging.root.handlers)


def _set_logging(values: tuple[Any, ...]) -> None:
    logging.root.level, logging.root.disabled = values[:2]
    logging.root.handlers[:] = values[2]


_WORLD = (
    _Setting(
        "the default device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    *_OF_BLOCKS,
    _Setting("the environment", lambda: dict(os.environ), _set_environment),
    _Setting(
        "the backends of torch",
        lambda: tuple(getattr(owner, name) for owner, name in _FLAGS),
        _set_flags,
    ),
    _Setting("how tensors and arrays are printed", _printing, _set_printing),
    _Setting(
        "how tensors are shared",
        torch.multiprocessing.get_sharing_strategy,
        torch.multiprocessing.set_sharing_strategy,
    ),
    _Setting("how often threads switch", sys.getswitchinterval, sys.setswitchinterval),
    _Setting("the processors that it may run on", _processors, _set_processors),
    _Setting("the handling of signals", _handlers, _set_handlers),
    _Setting("logging", _logging, _set_logging),
    _Setting(
        "subnormal numbers (flushed to zero)",
        lambda: float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0,
        torch.set_flush_denormal,
    ),
)
_LOADED = {setting.name: setting.read() for setting in _WORLD}  # before any target was called


@contextlib.contextmanager
def as_loaded() -> Iterator[None]:
    """The world as it was when this file was loaded, so that what each call sets again shows."""
    before = {setting.name: setting.read() for setting in _WORLD}
    _write(_LOADED)
    try:
        yield
    finally:
        _write(before)


def _write(wanted: dict[str, Any]) -> None:
    for setting in _WORLD:
        if setting.read() != wanted[setting.name]:
            setting.write(wanted[setting.name])


def _numpy_random() -> dict[str, Any]:
    """NumPy's random state, with bytes for the array in it, so that states compare."""
    if not np:
        return {}
    state = dict(np.random.get_state(legacy=False))
    words = {k: bytes(v) if isinstance(v, np.ndarray) else v for k, v in state["state"].items()}
    return state | {"state": words}


def world() -> dict[str, Any]:
    """What is too dear to look at after every call: random states, filters, settings."""
    return {
        "torch's random state": torch.get_rng_state().view(torch.int64).tolist(),
        "numpy's random state": _numpy_random(),
        "Python's random state": random.getstate(),
        "the warning filters": tuple(warnings.filters),
        **{setting.name: setting.read() for setting in _WORLD},
    }


def world_changes(before: dict[str, Any]) -> list[str]:
    """The names of what :func:`world` finds changed, and of functions that were replaced."""
    after = world()
    changed = [name for name, value in before.items() if value != after[name]]
    return changed + _replaced()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """No warnings (the builtin warns about broadcasting), and one thread.

    Small cases are no faster on several threads, and results differ in bits between their numbers.
    """
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if threads != 1:
            torch.set_num_threads(threads)
