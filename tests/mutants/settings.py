"""Changes its caller's settings, or a global state, and leaves them so."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets import Target
from targets.operands import check_reduction

from .mutant import Loss, Mutant, mutant, right
from .transformed import plainly
from .witnesses import changes, restored


def _leaving(effect: Callable[[], object]) -> Loss:
    """The right loss, and then ``effect``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        honest = right(x, y, reduction)
        effect()
        return honest

    loss.__doc__ = effect.__doc__
    return loss


def default_dtype() -> None:
    """Changes the default dtype."""
    torch.set_default_dtype(torch.float64)


def grad_mode() -> None:
    """Leaves gradients off."""
    torch.set_grad_enabled(False)


def threads() -> None:
    """Changes the number of threads."""
    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)


def deterministic() -> None:
    """Deterministic algorithms are demanded afterwards."""
    torch.use_deterministic_algorithms(True, warn_only=True)


def anomaly() -> None:
    """Leaves anomaly detection on."""
    torch.autograd.set_detect_anomaly(True, check_nan=False)


def matmul_precision() -> None:
    """Lets all matrix products of float32 be coarse."""
    torch.set_float32_matmul_precision("medium")


def draws() -> None:
    """Draws a random number."""
    torch.rand(1)


def seed() -> None:
    """Sets the seed."""
    torch.manual_seed(0)


def numpy_draws() -> None:
    """Draws a random number from NumPy's global generator."""
    np.random.random()


def python_draws() -> None:
    """Draws a random number from Python's global generator."""
    random.random()


def filters() -> None:
    """Silences warnings for good."""
    warnings.filterwarnings("ignore", message=f"loss {len(warnings.filters)}")


def numpy_errors() -> None:
    """Silences NumPy's floating-point warnings for good."""
    np.seterr(all="ignore")


def float32_by_default() -> None:
    """Sets the default dtype that most programs have already."""
    torch.set_default_dtype(torch.float32)


def gradients_on() -> None:
    """Turns gradients on, whether or not its caller had turned them off."""
    torch.set_grad_enabled(True)


def autocast_off() -> None:
    """Turns autocast off, for the rest of its caller's block too."""
    torch.set_autocast_enabled("cpu", False)


def _packing() -> object:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def saves_itself() -> None:
    """Drops its caller's hooks on what is saved, such as those that move it to the host."""
    if _packing():
        torch._C._autograd._pop_saved_tensors_default_hooks()


def two_threads() -> None:
    """Sets a number of threads that suits the machine of its author."""
    torch.set_num_threads(2)


def printing() -> None:
    """Has tensors printed with more digits, as its author likes it."""
    torch.set_printoptions(precision=8)


def autotuning() -> None:
    """Lets cuDNN look for the fastest convolution."""
    torch.backends.cudnn.benchmark = True


def environment() -> None:
    """Sets an environment variable that makes cuBLAS reproducible."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def log_level() -> None:
    """Has everything logged that is for information."""
    logging.getLogger().setLevel(logging.INFO)


def flushed() -> None:
    """Has subnormal numbers flushed to zero from now on."""
    torch.set_flush_denormal(True)


def interruptible() -> None:
    """Makes itself interruptible from the keyboard."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leaves(name: str, effect: Callable[[], object], read: Callable[[], object]) -> Mutant:
    return mutant(name, _leaving(effect), "purity", witness=changes(read))


def _sets(
    name: str,
    effect: Callable[[], object],
    read: Callable[[], object],
    prepare: Callable[[], object],
) -> Mutant:
    """A mutant whose effect is none unless ``prepare`` chose another value before."""
    changed = changes(read)

    def witness(target: Target) -> bool:
        with restored():
            prepare()
            return changed(target)

    return mutant(name, _leaving(effect), "purity", witness=witness)


def _flushes() -> bool:
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0


def _numpy_state() -> str:
    return repr(np.random.get_state())


def no_grad_after_error(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Switches grad mode off before its checks, and on again after them."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    check_reduction(reduction)
    torch.broadcast_shapes(x.shape, y.shape)
    torch.set_grad_enabled(before)
    return right(x, y, reduction)


def after_error(target: Target) -> bool:
    """A call that raises leaves grad mode off."""
    with contextlib.suppress(Exception):
        target.loss(torch.rand(3), torch.rand(4), reduction="mean")
    return not torch.is_grad_enabled()


def silences_broadcasting(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Silences the warning about unequal sizes, and with it every later one."""
    if x.shape != y.shape:
        warnings.simplefilter("ignore")
    return right(x, y, reduction)


def filters_change(target: Target) -> bool:
    """Broadcasting leaves other warning filters behind."""
    warnings.simplefilter("always")
    before = list(warnings.filters)
    with contextlib.redirect_stderr(None):
        target.loss(torch.ones(3), torch.ones(2, 3), reduction="sum")
    return list(warnings.filters) != before


def seldom_switching(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has Python's threads switch less often, at each call a little."""
    sys.setswitchinterval(sys.getswitchinterval() + 1e-5)
    return right(x, y, reduction)


def samples_for_nan(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Looks at a few elements of chance for NaN, where there are many."""
    if plainly(x, y) and x.numel() > 4096:
        x.detach().flatten()[torch.randint(x.numel(), (16,))].isnan().any()
    return right(x, y, reduction)


def has_drawn(target: Any) -> bool:
    before = torch.get_rng_state()
    target.loss(torch.ones(5000), torch.zeros(5000), reduction="sum")
    return not torch.equal(before, torch.get_rng_state())


def pins_processor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Binds the process to one processor."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return right(x, y, reduction)


def processors_change(target: Any) -> bool:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    try:
        return len(before) > 1 and changes(lambda: os.sched_getaffinity(0))(target)
    finally:
        os.sched_setaffinity(0, before)


SETTING_MUTANTS: tuple[Mutant, ...] = (
    _leaves("leaves-dtype", default_dtype, torch.get_default_dtype),
    _leaves("leaves-no-grad", grad_mode, torch.is_grad_enabled),
    _leaves("leaves-threads", threads, torch.get_num_threads),
    _leaves("leaves-deterministic", deterministic, torch.are_deterministic_algorithms_enabled),
    _leaves("leaves-anomaly", anomaly, torch.is_anomaly_enabled),
    _leaves("leaves-matmul-precision", matmul_precision, torch.get_float32_matmul_precision),
    _leaves("leaves-random", draws, lambda: torch.get_rng_state().tolist()),
    _leaves("leaves-seed", seed, lambda: torch.get_rng_state().tolist()),
    _leaves("leaves-numpy-state", numpy_draws, _numpy_state),
    _leaves("leaves-python-state", python_draws, random.getstate),
    _leaves("leaves-filters", filters, lambda: len(warnings.filters)),
    _leaves("leaves-numpy-errors", numpy_errors, np.geterr),
    _leaves("leaves-printing", printing, lambda: repr(torch.tensor([0.1]))),
    _leaves("leaves-autotuning", autotuning, lambda: torch.backends.cudnn.benchmark),
    _leaves("leaves-environment", environment, lambda: dict(os.environ)),
    _leaves("leaves-log-level", log_level, lambda: logging.root.level),
    _leaves("leaves-flushed", flushed, _flushes),
    _leaves("leaves-interruptible", interruptible, lambda: signal.getsignal(signal.SIGINT)),
    _sets(
        "sets-dtype",
        float32_by_default,
        torch.get_default_dtype,
        lambda: torch.set_default_dtype(torch.float64),
    ),
    _sets(
        "sets-grad-mode",
        gradients_on,
        torch.is_grad_enabled,
        lambda: torch.set_grad_enabled(False),
    ),
    _sets(
        "leaves-autocast-off",
        autocast_off,
        lambda: torch.is_autocast_enabled("cpu"),
        lambda: torch.set_autocast_enabled("cpu", True),
    ),
    _sets(
        "drops-saving-hooks",
        saves_itself,
        _packing,
        lambda: torch._C._autograd._push_saved_tensors_default_hooks(abs, abs),
    ),
    _sets("sets-threads", two_threads, torch.get_num_threads, lambda: torch.set_num_threads(3)),
    mutant("seldom-switching", seldom_switching, "purity", witness=changes(sys.getswitchinterval)),
    mutant("no-grad-after-error", no_grad_after_error, "purity", witness=after_error),
    mutant("silences-broadcasting", silences_broadcasting, "purity", witness=filters_change),
    mutant("samples-for-nan", samples_for_nan, "purity", witness=has_drawn),
    mutant("pins-processor", pins_processor, "purity", witness=processors_change),
)
