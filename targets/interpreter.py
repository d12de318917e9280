"""For kernels in Triton that run in its interpreter, with ``TRITON_INTERPRET=1``, without a GPU.

The interpreter replaces the functions of the language while a kernel runs, for all threads: two
launches at once disturb each other, which no kernel can help. It computes with NumPy, which has no
bfloat16: that it computes on bit patterns, and it takes its subnormals for other numbers.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T", bound=Callable[..., Any])

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
UNTRUSTED = frozenset({torch.bfloat16})  # dtypes that a kernel is not to read there
_LAUNCH = threading.RLock()


@contextlib.contextmanager
def launching(tensor: torch.Tensor) -> Iterator[None]:
    """Around launches on ``tensor``: on its device, or in the interpreter one thread at a time."""
    if tensor.is_cuda:
        with torch.cuda.device(tensor.device):
            yield
    else:
        with _LAUNCH:
            yield


def readable(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor``; in the interpreter as float32, where its dtype is an untrusted one.

    The kernel then writes to such a tensor, and whoever launched it converts the result.
    """
    return tensor.float() if INTERPRETED and tensor.dtype in UNTRUSTED else tensor


def one_at_a_time(launch: T) -> T:
    """A function that launches kernels, of which in the interpreter one thread runs one at a time.

    For launches in somebody else's code, which cannot be changed to use :func:`launching`.
    """
    if not INTERPRETED:
        return launch

    def locked(*args: Any, **named: Any) -> Any:
        with _LAUNCH:
            return launch(*args, **named)

    return locked  # type: ignore[return-value]
