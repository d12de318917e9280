"""A secret seed: told when the run has ended, and until then bound by what was published of it."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

BITS = 52  # what every reader of JSON takes for an integer


@dataclass(frozen=True)
class Secret:
    """``nonce``: without it, whoever tries all seeds would find the one that was committed to."""

    seed: int
    nonce: str

    @classmethod
    def draw(cls) -> Secret:
        return cls(secrets.randbits(BITS), secrets.token_hex(32))

    @property
    def commitment(self) -> str:
        """SHA-256 of the seed, a space and the nonce, as text."""
        return hashlib.sha256(f"{self.seed} {self.nonce}".encode()).hexdigest()

    def opened(self) -> dict[str, str]:
        """Of a verdict whose run has ended."""
        return {"sha256": self.commitment, "nonce": self.nonce}


def kept(verdict: dict[str, Any]) -> bool:
    """Whether a verdict's JSON tells the seed that it was committed to, where it was."""
    told: dict[str, str] = verdict.get("commitment", {})
    seed: int | None = verdict.get("seed")
    if seed is None:
        return bool(told) and "nonce" not in told
    return not told or Secret(seed, told.get("nonce", "")).opened() == told
