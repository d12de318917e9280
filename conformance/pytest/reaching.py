"""Reach what a test suite names as a target from a process of its own."""

from __future__ import annotations

import sys
from typing import Any

from conformance.cases.claimed import Claimed
from conformance.judging.observer import Observer
from conformance.running.hosting import Hosting, Refused
from conformance.running.observers import InProcess, Process


def observer_of(target: Any, device: str) -> Observer:
    """Behind the wall where another process can find the target by a name; else in this process.

    Raises Refused, TargetError and DeviceUnavailable.
    """
    paths = tuple(sys.path)
    if isinstance(target, str):
        return opened(Hosting(target, device, paths=paths))
    near = InProcess.of(target, device)
    for name in _names(target):
        try:
            found = opened(Hosting(name, device, paths=paths))
        except Refused:
            continue
        if _alike(found.claimed, near.claimed):
            return found
        found.close()
    return near


def opened(hosting: Hosting) -> Process:
    """An observer that has imported its target. Raises Refused."""
    observer = Process(hosting)
    observer.open()
    return observer


def _alike(one: Claimed, other: Claimed) -> bool:
    """Whether these are the same target, found in two ways."""
    claims = [(c.claims, c.reductions, c.dtypes, c.devices, c.fingerprint) for c in (one, other)]
    return claims[0] == claims[1]


def _names(target: Any) -> list[str]:
    """``module:attribute`` wherever the very object is bound to a name."""
    return [
        f"{module}:{attribute}"
        for module, found in list(sys.modules.items())
        if module != "__main__" and getattr(found, "__file__", None)
        for attribute, value in list(vars(found).items())
        if value is target
    ]
