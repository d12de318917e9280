"""One implementation under judgement, and what it claims to support."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.domain import FULL, Domain

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
        "dynamic",
        "export",
        "deterministic",
        "weight",
        "legacy",
        "subclass",
        "module",
    }
)
DROP_IN = CLAIMS - {"module", "subclass"}
REDUCTIONS = ("none", "sum", "mean")
DTYPES = ("float64", "float32", "float16", "bfloat16")
DEVICES = ("cpu", "cuda")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class TargetError(ValueError):
    """A target that cannot be judged. The message says what is wrong and where, for users."""

    status = 2  # the exit status: wrong usage


class UnknownTarget(TargetError):
    """No target of that name."""


class TargetUnavailable(TargetError):
    """A target that this machine cannot run: no compiler, package or device for it."""

    status = 3  # incomplete: nothing was found out about the target


@dataclass(frozen=True)
class Target:
    """One implementation with its claims.

    ``loss(input, target, reduction="mean") -> Tensor``; ``claims`` are of :data:`CLAIMS`, by
    default all that a drop-in replacement does; ``weight`` and ``legacy`` count where the loss
    takes the parameters that they are about. ``module(reduction=...)`` makes an ``nn.Module``, for
    those that claim ``module``. ``devices`` are the kinds it runs on. ``prepare()`` is called once
    in each process before the first case, to compile or to import what the loss needs; it raises
    :class:`TargetUnavailable` where that is not to be had here. ``sources`` are files beside the
    loss's own that its fingerprint covers: kernels. ``source`` says where the target was found, for
    reports. ``domain``: the inputs that it takes, where these are not all. ``loss_of``: the
    specification by which it is judged (``loss-conformance losses`` lists them); ``parameters``:
    which of those of torch's loss it takes, by keyword: those that its signature names, unless
    told.
    Raises :class:`TargetError` where a field is not valid.
    """

    name: str
    loss: Callable[..., Any]
    claims: frozenset[str] = DROP_IN
    reductions: tuple[str, ...] = REDUCTIONS
    dtypes: tuple[str, ...] = DTYPES
    summary: str = ""
    module: Callable[..., Any] | None = None
    devices: tuple[str, ...] = DEVICES
    prepare: Callable[[], object] | None = None
    sources: tuple[str, ...] = ()
    domain: Domain = FULL
    loss_of: str = "mse"
    parameters: tuple[str, ...] | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise TargetError(
                f"target name {self.name!r}: use letters, digits and . _ - (it names a folder), "
                "with a letter, digit or _ first"
            )
        if not callable(self.loss):
            raise TargetError(f"target {self.name}: loss is not callable: {self.loss!r}")
        object.__setattr__(self, "claims", frozenset(self._valid("claims", CLAIMS)))
        if not isinstance(self.domain, Domain):
            raise TargetError(f"target {self.name}: domain is {self.domain!r}, not a Domain")
        object.__setattr__(self, "reductions", self._valid("reductions", self._known_reductions()))
        object.__setattr__(self, "dtypes", self._valid("dtypes", DTYPES))
        object.__setattr__(self, "devices", self._valid("devices", DEVICES))
        for attribute in ("reductions", "dtypes", "devices"):
            if not getattr(self, attribute):
                raise TargetError(f"target {self.name}: no {attribute}, nothing can be judged")
        if not isinstance(self.loss_of, str) or not self.loss_of:
            raise TargetError(f"target {self.name}: loss_of is {self.loss_of!r}, not a name")
        if self.parameters is not None:
            if isinstance(self.parameters, str) or not all(
                isinstance(p, str) for p in self.parameters
            ):
                text = f"parameters is {self.parameters!r}, not a collection of names"
                raise TargetError(f"target {self.name}: {text}")
            object.__setattr__(self, "parameters", tuple(self.parameters))
        if isinstance(self.sources, str):
            raise TargetError(f"target {self.name}: sources is {self.sources!r}, not a collection")
        for path in self.sources:
            if not Path(path).is_file():
                raise TargetError(f"target {self.name}: no such source file: {path}")
        for attribute in ("module", "prepare"):
            given = getattr(self, attribute)
            if given is not None and not callable(given):
                raise TargetError(f"target {self.name}: {attribute} is not callable: {given!r}")
        if "module" in self.claims and self.module is None:
            raise TargetError(
                f"target {self.name} claims `module` without one: pass module=, a class or a "
                "function that makes one, module(reduction=...)"
            )

    def __hash__(self) -> int:
        """Of what tells targets apart and is hashable: a loss need not be (a dataclass is not)."""
        return hash((self.name, self.claims, self.reductions, self.dtypes, self.loss_of))

    @property
    def key(self) -> str:
        """As it is registered: its name, after that of its loss where that is not mse."""
        return self.name if self.loss_of == "mse" else f"{self.loss_of}/{self.name}"

    def _known_reductions(self) -> tuple[str, ...]:
        """A mean of another name takes the place of the usual one."""
        own = self.domain.result.mean if self.domain.result else "mean"
        return (*REDUCTIONS[:2], own)

    def _valid(self, attribute: str, known: Iterable[str]) -> tuple[str, ...]:
        given = getattr(self, attribute)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TargetError(f"target {self.name}: {attribute} is {given!r}, not a collection")
        given = tuple(given)
        for value in given:
            if value not in known:
                raise TargetError(
                    f"target {self.name}: unknown {attribute[:-1]} {value!r}"
                    f"{near(str(value), known)}; known: {', '.join(sorted(known))}"
                )
        return given


def near(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` where a known word is near."""
    matches = difflib.get_close_matches(word, list(known), n=3)
    return f", did you mean {' or '.join(map(repr, matches))}?" if matches else ""
