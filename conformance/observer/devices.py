"""The device that a target is observed on: is it there, and does it still work."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch


class DeviceLost(RuntimeError):
    """A call left the device unusable: every later call in this process would fail."""


class DeviceUnavailable(RuntimeError):
    """A device that this machine does not have, or that the target does not run on."""

    status = 3


def check_device(device: str) -> None:
    """Raises DeviceUnavailable for one that is absent, or no device."""
    if device == "cpu":
        return
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceUnavailable(f"unknown device {device!r}: use cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"device {device} is not available: torch {torch.__version__} sees no CUDA device"
        )
    if match[1] and int(match[1]) >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"device {device} is not available: there are {torch.cuda.device_count()} CUDA devices"
        )


def check_alive(device: str) -> None:
    """Wait for the work of ``device``. Raises DeviceLost where no later call can succeed."""
    if device == "cpu":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        try:  # an error of one launch is told once, one that ends the context each time
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise DeviceLost(f"left {device} unusable: {reason[0]}") from None


def poison(device: str, sizes: Iterable[int]) -> None:
    """Fill free device memory with NaN, so that a result which nobody wrote is seen.

    ``sizes``: of the next allocations, in bytes. torch's CUDA allocator hands out again what was
    freed; that of the CPU does not do so dependably, and is left alone.
    """
    if device == "cpu":
        return
    held = [
        torch.full((size,), -1, dtype=torch.int8, device=device)  # all bits set: NaN in each format
        for size in sizes
        for _ in range(3)
        if size
    ]
    del held
