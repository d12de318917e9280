"""The values that options may have, and what to say when they have others."""

from __future__ import annotations

import re

from conformance.cases.profiles import PROFILES, Profile
from targets import Target, prepare


class UsageError(ValueError):
    """A wrong option; the message is for users."""

    status = 2


class DeviceUnavailable(RuntimeError):
    """A device that this machine does not have, or that the target does not run on."""

    status = 3


def check_profile(name: str) -> Profile:
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}: use {', '.join(PROFILES)}")
    return PROFILES[name]


def make_ready(target: Target, device: str) -> None:
    """Once before the first case. Raises UsageError, DeviceUnavailable or TargetError."""
    check_device(device)
    if device.partition(":")[0] not in target.devices:
        raise DeviceUnavailable(
            f"target {target.name} runs on {' and '.join(target.devices)}, not on {device}"
        )
    prepare(target)


def check_device(device: str) -> None:
    """Raises UsageError for a name that is none, DeviceUnavailable for a device that is absent."""
    import torch

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
