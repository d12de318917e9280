"""What an observer tells of its target, and of the machine beside it, before the first call."""

from __future__ import annotations

import dataclasses
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from conformance.observer.devices import DeviceUnavailable, check_device
from targets import Target, fingerprint, prepare
from targets.target import REDUCTIONS

Json = dict[str, Any]


def make_ready(target: Target, device: str) -> None:
    """Once before the first call. Raises DeviceUnavailable or TargetError."""
    check_device(device)
    if device.partition(":")[0] not in target.devices:
        raise DeviceUnavailable(
            f"target {target.name} runs on {' and '.join(target.devices)}, not on {device}"
        )
    prepare(target)


def described(target: Target) -> Json:
    """The fields of ``cases.claimed.Claimed``."""
    return {
        "name": target.name,
        "claims": sorted(target.claims),
        "reductions": [r if r in REDUCTIONS else "mean" for r in target.reductions],
        "dtypes": list(target.dtypes),
        "devices": list(target.devices),
        "source": target.source,
        "fingerprint": fingerprint(target),
        "script": name_of(target),
        "domain": dataclasses.asdict(target.domain),
        "loss_of": target.loss_of,
        "parameters": list(target.parameters or ()),
    }


def environment() -> dict[str, str]:
    """Versions and hardware."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": f"{sys.platform} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found


def name_of(target: Target) -> str:
    """Where a script finds the loss; empty where it has no name that can be imported."""
    path, _, attribute = target.source.rpartition(":")
    if target.source.endswith(".py"):
        return str(Path(target.source).resolve())
    if target.source:
        return f"{Path(path).resolve()}:{attribute}" if path.endswith(".py") else target.source
    for name, module in list(sys.modules.items()):
        if name.startswith("targets."):  # one that comes with the project
            for attribute, value in list(vars(module).items()):
                if value is target:
                    return f"{name}:{attribute}"
    home = getattr(target.loss, "__module__", "")
    own_name = getattr(target.loss, "__qualname__", "<none>")
    return "" if "<" in own_name or home in ("", "__main__") else f"{home}:{own_name}"
