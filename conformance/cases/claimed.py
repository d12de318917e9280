"""What a target says of itself, as data: it crosses the wall, and nothing of the target does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance.cases.domain import FULL, Domain

DEVICES = ("cpu", "cuda")  # the kinds; a test holds them in step with ``targets``


@dataclass(frozen=True)
class Claimed:
    """Name and claims of a target (see ``targets.Target``), and where it was found.

    ``fingerprint``: SHA-256 of its sources. ``script``: where a script finds the loss, as
    ``module:attribute`` or ``file.py:attribute``; empty where it has no such name.
    """

    name: str
    claims: frozenset[str]
    reductions: tuple[str, ...]
    dtypes: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    source: str = ""
    fingerprint: str = ""
    script: str = ""
    domain: Domain = FULL

    def to_json(self) -> dict[str, Any]:
        listed = ("reductions", "dtypes", "devices")
        changed = {"claims": sorted(self.claims), "domain": self.domain.to_json()}
        return vars(self) | changed | {k: [*vars(self)[k]] for k in listed}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Claimed:
        """The inverse of :meth:`to_json`. Raises ValueError where ``data`` is none."""
        lists = ("claims", "reductions", "dtypes", "devices")
        texts = ("name", "source", "fingerprint", "script")
        try:
            if not all(isinstance(w, str) for name in lists for w in data[name]):
                raise ValueError("a claim that is no text")
            if not all(isinstance(data[name], str) for name in texts):
                raise ValueError("a name that is no text")
            return cls(
                data["name"],
                frozenset(data["claims"]),
                tuple(data["reductions"]),
                tuple(data["dtypes"]),
                tuple(data["devices"]),
                data["source"],
                data["fingerprint"],
                data["script"],
                Domain.from_json(data["domain"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what a target claims: {error!r}") from error
