"""One implementation under judgement, and what it claims to support."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

CLAIMS = frozenset(
    {
        "broadcast",
        "mixed_dtype",
        "empty",
        "target_gradient",
        "double_backward",
        "forward_ad",
        "functorch",
        "autocast",
        "compile",
        "export",
        "deterministic",
        "module",
    }
)
DROP_IN = CLAIMS - {"module"}
REDUCTIONS = ("none", "sum", "mean")
DTYPES = ("float64", "float32", "float16", "bfloat16")


class TargetError(ValueError):
    """A target that cannot be judged. The message says what is wrong and where, for users."""


class UnknownTarget(TargetError):
    """No target of that name."""


@dataclass(frozen=True)
class Target:
    """One implementation with its claims.

    ``loss(input, target, reduction="mean") -> Tensor``; ``claims`` ⊆ :data:`CLAIMS`, by default
    everything that a drop-in replacement does. ``module(reduction=...)`` makes an ``nn.Module``,
    for those that claim ``module``. Raises :class:`TargetError` where a field is not valid.
    """

    name: str
    loss: Callable[..., Any]
    claims: frozenset[str] = DROP_IN
    reductions: tuple[str, ...] = REDUCTIONS
    dtypes: tuple[str, ...] = DTYPES
    summary: str = ""
    module: Callable[..., Any] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.+-]+", self.name):
            raise TargetError(
                f"target name {self.name!r}: use letters, digits and . _ + - (it names a folder)"
            )
        if not callable(self.loss):
            raise TargetError(f"target {self.name}: loss is not callable: {self.loss!r}")
        object.__setattr__(self, "claims", frozenset(self._valid("claims", CLAIMS)))
        object.__setattr__(self, "reductions", self._valid("reductions", REDUCTIONS))
        object.__setattr__(self, "dtypes", self._valid("dtypes", DTYPES))
        for field in ("reductions", "dtypes"):
            if not getattr(self, field):
                raise TargetError(f"target {self.name}: {field} is empty, nothing can be judged")

    def _valid(self, field: str, known: Iterable[str]) -> tuple[str, ...]:
        given = getattr(self, field)
        if isinstance(given, str):
            raise TargetError(f"target {self.name}: {field} is the text {given!r}, not a collection")
        for value in given:
            if value not in known:
                raise TargetError(
                    f"target {self.name}: unknown {field[:-1]} {value!r}{near(str(value), known)}; "
                    f"known: {', '.join(sorted(known))}"
                )
        return tuple(given)


def near(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` where a known word is near."""
    matches = difflib.get_close_matches(word, list(known), n=3)
    return f", did you mean {' or '.join(map(repr, matches))}?" if matches else ""
