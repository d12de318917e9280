"""The file that ``loss-conformance init`` writes: a Target, with what it was seen to support."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.cases.claimed import TAKING
from conformance.running.options import UsageError
from targets.target import DROP_IN, DTYPES, REDUCTIONS

NAME = "conformance_target.py"  # not conformance.py: that would hide the package of this name
LONGEST = 60  # characters of a reason


@dataclass
class Tried:
    """What was seen to work. ``dropped``: what is not claimed, and why; ``wrong``: what is claimed
    though its result was wrong, or could not be found out here. ``domain``: the form of its
    results as source, where that is not the usual one, which takes what is ``imported``."""

    reductions: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    domain: str = ""
    imported: str = ""

    def to_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tried:
        return cls(**data)


def place_of(source: str) -> tuple[Path, str, str]:
    """Where a starter for the loss that ``source`` names goes; its module and attribute there.

    Raises UsageError where the file could not import it.
    """
    place, colon, attribute = source.rpartition(":")
    if not colon:
        raise UsageError(
            f"{source or 'a registered target'} has its Target already: name a loss, as "
            "package.module:attribute or path/file.py:attribute"
        )
    if not place.endswith(".py"):
        return Path(NAME), place, attribute
    path = Path(place)
    if not path.stem.isidentifier():
        raise UsageError(f"{place}: a file of that name cannot be imported: rename it")
    return path.with_name(NAME), path.stem, attribute


def starter(name: str, module: str, attribute: str, tried: Tried) -> str:
    """The text of that file. ``resolve``: it takes a function, an ``nn.Module`` and a Target."""
    lines = [
        f'"""What {name} promises; ``loss-conformance check {NAME}`` judges it by that."""',
        "",
        "from dataclasses import replace",
        "",
        f"from {module} import {attribute.partition('.')[0]}",
        f"from targets import DROP_IN, {f'{tried.imported}, ' if tried.imported else ''}resolve",
        "",
        "TARGET = replace(",
        f"    resolve({attribute}),",
        *_claims(tried),
        *_chosen("reductions", tried.reductions, REDUCTIONS, tried),
        *_chosen("dtypes", tried.dtypes, DTYPES, tried),
        *([f"    domain={tried.domain},"] if tried.domain else ()),
        ")",
    ]
    return "\n".join([*lines, ""])


def _claims(tried: Tried) -> list[str]:
    """What a drop-in replacement claims, less what raised, with the reasons."""
    remarks = [f"    # {c} is claimed: {_short(why)}" for c, why in sorted(tried.wrong.items())]
    whole = "DROP_IN" + (' | {"module"}' if "module" in tried.claims else "")
    untold = {claim for claim in TAKING if claim not in tried.dropped}  # the signature says it
    dropped = sorted(DROP_IN - {*tried.claims} - untold)
    if not dropped:
        return [*remarks, f"    claims={whole},"]
    whole = f"({whole})" if "|" in whole else whole
    less = [f'        "{claim}",{_reason(tried.dropped.get(claim))}' for claim in dropped]
    return [*remarks, f"    claims={whole}", "    - {", *less, "    },"]


def _chosen(what: str, kept: list[str], known: tuple[str, ...], tried: Tried) -> list[str]:
    lines = [f"    # not {v}: {_short(tried.dropped[v])}" for v in known if v in tried.dropped]
    values = ", ".join(f'"{value}"' for value in kept) + "," * (len(kept) == 1)
    return [*lines, f"    {what}=({values}),"]


def _reason(why: str | None) -> str:
    return f"  # {_short(why)}" if why else ""


def _short(text: str) -> str:
    return textwrap.shorten(re.sub(r"\s+", " ", text), LONGEST, placeholder=" …")
