"""What is asked of whoever judges, and what is answered: data, which crosses to other machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from conformance.running.campaign.kernels import Kernel
from conformance.verdict.outcome import Outcome

Json = dict[str, Any]
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Of one kernel. ``compiling``: seconds for its import, apart from all others.

    ``memory`` and ``disk``: bytes that its processes may hold, and may write; ``processes``: so
    many at once.
    """

    compiling: float = 300.0
    memory: int = 4 * GIB
    disk: int = GIB
    processes: int = 128


@dataclass(frozen=True)
class Setting:
    """What all tasks of a run have in common. ``hosting``: of an observer; see ``hosting.py``."""

    spec: str
    seed: int
    commitment: dict[str, str] | None
    hosting: Json
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Setting:
        return cls(**data | {"limits": Limits(**data["limits"])})


@dataclass(frozen=True)
class Task:
    """One kernel at one stage."""

    kernel: Kernel
    stage: str

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Task:
        return cls(Kernel(**data["kernel"]), data["stage"])


@dataclass(frozen=True)
class Answer:
    """``verdict``: None where the kernel could not be imported. ``compiling``, ``seconds``: for its
    import, and in all. ``whole``: whether everything was looked at. ``worker``: who judged."""

    outcome: Outcome
    verdict: Json | None
    compiling: float
    seconds: float
    whole: bool
    worker: str

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Answer:
        return cls(**data | {"outcome": Outcome.from_json(data["outcome"])})
