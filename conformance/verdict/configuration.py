"""The configuration: ``conformance.toml``, or ``[tool.loss-conformance]`` in pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.target import near

NAMES = ("conformance.toml", "pyproject.toml")
SECTIONS = ("waiver", "gate")


class ConfigurationError(ValueError):
    """A wrong configuration; the message names the file, what is wrong and what is valid."""

    status = 2


@dataclass(frozen=True)
class Configuration:
    """What the file says, not yet validated but for its sections. ``path``: None where none is."""

    path: Path | None = None
    waivers: tuple[dict[str, Any], ...] = ()
    gate: dict[str, Any] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.waivers or self.gate)


def find(folder: Path | None = None) -> Configuration:
    """The configuration of ``folder``, by default the current one; empty where it has none.

    Raises ConfigurationError, also where both files have one: neither is silently ignored.
    """
    here = folder or Path()
    found = [c for c in (read(here / n) for n in NAMES if (here / n).is_file()) if not c.empty]
    if len(found) > 1:
        raise ConfigurationError(
            f"{found[0].path} and [tool.loss-conformance] in {found[1].path}: keep one of them"
        )
    return found[0] if found else Configuration()


def read(path: Path) -> Configuration:
    """The configuration in ``path``; of a ``pyproject.toml``, its ``[tool.loss-conformance]``.

    Raises ConfigurationError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    return parse_text(text, path)


def parse_text(text: str, path: Path) -> Configuration:
    """The configuration that ``path`` would hold with this text. Raises ConfigurationError."""
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    if path.name == "pyproject.toml":
        data = data.get("tool", {}).get("loss-conformance", {})
    check_keys(data, SECTIONS, str(path))
    waivers, gate = data.get("waiver", []), data.get("gate", {})
    if not isinstance(waivers, list) or not all(isinstance(w, dict) for w in waivers):
        raise ConfigurationError(f"{path}: write each waiver as a table [[waiver]]")
    if not isinstance(gate, dict):
        raise ConfigurationError(f"{path}: write the policy of the gate as a table [gate]")
    return Configuration(path, tuple(waivers), gate)


def check_keys(data: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigurationError for a key that is not ``known``."""
    for key in data:
        check_known(key, known, f"{where}: unknown key")


def check_known(word: str, known: Iterable[str], what: str) -> None:
    """Raises ConfigurationError where ``word`` is none of ``known``, with those."""
    known = list(known)
    if word not in known:
        guess = near(word, known).removesuffix("?")
        raise ConfigurationError(f"{what} {word!r}{guess}; known: {', '.join(sorted(known))}")
