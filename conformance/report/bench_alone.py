"""What the scripts of experiments have in common: it is copied into them (see scripts.py).

An :class:`Observer` asks and performs in one process: there is no wall, and nothing is put down in
an arena. What it gives is as ``observer/desk.py`` writes it and ``judging/evidence.py`` reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from conformance.cases.claimed import Claimed
from conformance.judging.evidence import BadEvidence, Evidence, Other, Unread
from conformance.judging.experiments.bench import Messages
from conformance.judging.observer import Given, Raised
from conformance.judging.seen import Seen
from conformance.observer.protocols.kit import Kit, Unavailable, brief, text_of


def first_message(messages: Messages) -> list[str]:
    """What an experiment says first, if anything; or what the target raised."""
    try:
        return list(itertools.islice(messages, 1))
    except Raised as raised:
        return [f"raised {raised}"]
    except BadEvidence as bad:
        return [str(bad)]


@dataclass(frozen=True)
class Observer:
    """Performs what an experiment asks for. ``protocols``: functions of a Kit, by name.

    ``said``: what the target claimed that was judged; the loss that was found may have no module.
    """

    kit: Kit
    said: Claimed
    protocols: dict[str, Callable[..., Any]]

    @property
    def claimed(self) -> Claimed:
        missing = set() if self.kit.target.module else {"module"}
        return replace(self.said, claims=self.said.claims - missing)

    @property
    def device(self) -> str:
        return self.kit.device

    def ask(
        self, protocol: str, given: dict[str, Given], settings: dict[str, Any], announced: str = ""
    ) -> Evidence:
        """What a protocol saw. Raises Raised where it raised."""
        tensors = {name: tensor_of(one, self.device) for name, one in given.items()}
        try:
            return Evidence(seen_of(self.protocols[protocol](self.kit, **tensors, **settings)))
        except (KeyboardInterrupt, Unavailable):
            raise
        except BaseException as error:
            raise Raised(text_of(error), type(error).__name__) from error


def tensor_of(given: Given, device: str) -> torch.Tensor:
    """A tensor with exactly these elements."""
    dtype = getattr(torch, given.dtype)
    return torch.tensor(given.values, dtype=dtype, device=device).requires_grad_(given.needs)


def seen_of(value: Any) -> Any:
    """A copy of what a protocol returns; of tensors, their elements as an array."""
    if isinstance(value, torch.Tensor):
        dtype, device = str(value.dtype).removeprefix("torch."), value.device.type
        if value.layout != torch.strided or value.is_complex():
            return Other(f"a tensor of dtype {value.dtype} and layout {value.layout}")
        if device == "meta":
            return Unread(tuple(value.shape), dtype, device)
        copied = torch.empty(value.shape, dtype=torch.float64).copy_(value.detach())
        return Seen(copied.numpy(), dtype, device)
    if isinstance(value, dict):
        return {str(name): seen_of(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [seen_of(one) for one in value]
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else Other(brief(value))
