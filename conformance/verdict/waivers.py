"""Known deviations: which clause of which target, why, until when, and the case that shows it.

A waiver covers its clause, in the dtypes that it names. Whether it still holds is decided by
running its own case again, never by what a search happened to find: as long as the case fails the
clause is *waived*; once it passes the waiver is *stale*, which fails. A clause with experiments
instead of cases has its experiment run again (``recheck.py``). Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.clauses import BY_ID
from conformance.verdict.configuration import (
    Configuration,
    ConfigurationError,
    check_keys,
    check_known,
)
from conformance.verdict.verdict import BROKEN_STATUSES, ClauseResult
from targets.target import DEVICES

KEYS = ("target", "clause", "reason", "link", "expires", "device", "dtypes", "case")
DAYS = 90  # for which a waiver is written, unless told
LOST = ("crash", "timeout")  # what ends the process; a waiver of a wrong number does not cover it


@dataclass(frozen=True)
class Waiver:
    """One entry. ``dtypes``: the rows that it covers. ``case``: None for an experiment.

    ``device``: cpu or cuda; empty for every device.
    """

    target: str
    clause: str
    reason: str
    expires: datetime.date
    link: str = ""
    device: str = ""
    dtypes: tuple[str, ...] = FLOAT_DTYPES
    case: Case | None = None

    def covers(self, clause: str, dtype: str) -> bool:
        return clause == self.clause and dtype in self.dtypes

    def concerns(self, name: str, source: str, device: str) -> bool:
        """Whether it speaks of the target of this name, found at ``source``, on ``device``."""
        here = self.device in ("", device.partition(":")[0])
        return here and (self.target == name or _same(self.target, source))

    def overlaps(self, other: Waiver) -> list[str]:
        """The dtypes that both cover."""
        apart = self.device != other.device and self.device and other.device
        if (self.target, self.clause) != (other.target, other.clause) or apart:
            return []
        return [d for d in self.dtypes if d in other.dtypes]

    def expired(self, today: datetime.date) -> bool:
        """It holds on the day that it names, and no longer."""
        return today > self.expires

    def to_json(self) -> dict[str, Any]:
        changed = {
            "expires": self.expires.isoformat(),
            "dtypes": list(self.dtypes),
            "case": self.case.to_json() if self.case else None,
        }
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changed

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Waiver:
        changed = {
            "expires": datetime.date.fromisoformat(data["expires"]),
            "dtypes": tuple(data["dtypes"]),
            "case": Case.from_json(data["case"]) if data["case"] else None,
        }
        return cls(**(data | changed))


@dataclass(frozen=True)
class Rechecked:
    """A waiver whose case has run again: in how many runs, until it failed or was believed to pass.

    ``status``: pass, fail, crash, timeout, or unavailable where it could not run.
    """

    waiver: Waiver
    status: str
    runs: int
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        told = {"status": self.status, "runs": self.runs, "message": self.message}
        return told | {"waiver": self.waiver.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Rechecked:
        return cls(**(data | {"waiver": Waiver.from_json(data["waiver"])}))

    @property
    def holds(self) -> bool:
        """Whether what is waived still fails."""
        return self.status in BROKEN_STATUSES

    @property
    def how(self) -> str:
        """How its case fared, in words."""
        what = "case" if self.waiver.case else "experiment"
        if self.holds:
            return f"its {what} still fails: {self.message}"
        return f"its {what} passes now ({self.runs} runs)"


def today() -> datetime.date:
    """The date in UTC, the same on every machine."""
    return datetime.datetime.now(datetime.UTC).date()


def parse(configuration: Configuration) -> tuple[Waiver, ...]:
    """The waivers of a configuration. Raises ConfigurationError: one line, with what is valid.

    Whether their targets exist is for :func:`check_targets`.
    """
    found: list[Waiver] = []
    for number, entry in enumerate(configuration.waivers, 1):
        where = f"{configuration.path}: waiver {number}"
        waiver = _parsed(entry, where)
        for before, other in enumerate(found, 1):
            if shared := waiver.overlaps(other):
                raise ConfigurationError(
                    f"{where} overlaps waiver {before}: both cover {waiver.clause} of "
                    f"{waiver.target} for {', '.join(shared)}; keep one of them"
                )
        found.append(waiver)
    return tuple(found)


def _parsed(entry: dict[str, Any], where: str) -> Waiver:
    check_keys(entry, KEYS, where)
    texts = {key: entry.get(key, "") for key in ("target", "clause", "reason", "link", "device")}
    for key, text in texts.items():
        if not isinstance(text, str) or not (text.strip() or key in ("link", "device")):
            raise ConfigurationError(f"{where}: {key} must be a text that is not empty")
    clause = texts["clause"]
    check_known(clause, BY_ID, f"{where}: unknown clause")
    if texts["device"]:
        check_known(texts["device"], DEVICES, f"{where}: unknown device")
    case = _case(entry.get("case"), where)
    dtypes = entry.get("dtypes", list(BY_ID[clause].dtypes))
    if not isinstance(dtypes, list) or not dtypes:
        raise ConfigurationError(f"{where}: dtypes must be a list of names")
    for dtype in dtypes:
        check_known(str(dtype), FLOAT_DTYPES, f"{where}: unknown dtype")
    if case is not None and case.dtype not in dtypes:
        raise ConfigurationError(f"{where}: its case is {case.dtype}, which its dtypes leave out")
    return Waiver(
        target=texts["target"],
        clause=clause,
        reason=texts["reason"].strip(),
        expires=parse_date(entry.get("expires"), where),
        link=texts["link"].strip(),
        device=texts["device"],
        dtypes=tuple(d for d in FLOAT_DTYPES if d in dtypes),
        case=case,
    )


def parse_date(value: Any, where: str) -> datetime.date:
    """A date from TOML's own or from ISO text. Raises ConfigurationError."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.date.fromisoformat(value)
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        given = "is missing" if value is None else f"is {value!r}"
        raise ConfigurationError(f"{where}: expires {given}: write a date as 2030-01-31")
    return value


def _case(value: Any, where: str) -> Case | None:
    if value is None:
        return None
    try:
        return Case.from_json(json.loads(value))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{where}: case is not one that `loss-conformance waive` writes: {error}"
        ) from None


def check_targets(
    waivers: Iterable[Waiver], judged: Collection[str], registered: Callable[[], Collection[str]]
) -> None:
    """Raises ConfigurationError for a waiver whose target is nowhere to be found.

    ``judged``: the targets of this run, as they are named on the command line; ``registered`` is
    called only for a waiver of none of these.
    """
    for waiver in waivers:
        if waiver.target in judged:
            continue
        place = waiver.target.rpartition(":")[0] or waiver.target
        if place.endswith(".py"):
            if not Path(place).is_file():
                raise ConfigurationError(f"waiver of {waiver.clause}: no such file: {place}")
        elif ":" not in waiver.target:
            check_known(waiver.target, registered(), f"waiver of {waiver.clause}: unknown target")


def _same(spec: str, source: str) -> bool:
    """Whether two ways of naming a target, ``place:attribute``, name the same."""
    (place, _, name), (other, _, other_name) = spec.rpartition(":"), source.rpartition(":")
    if not place or name != other_name:
        return False
    files = place.endswith(".py") and other.endswith(".py")
    return Path(place).resolve() == Path(other).resolve() if files else place == other


def applied(
    rows: Iterable[ClauseResult], rechecked: Sequence[Rechecked], day: datetime.date
) -> tuple[ClauseResult, ...]:
    """The rows of a verdict with the waivers of its target taken into account."""
    return tuple(_applied(row, rechecked, day) for row in rows)


def _applied(row: ClauseResult, rechecked: Sequence[Rechecked], day: datetime.date) -> ClauseResult:
    done = next((r for r in rechecked if r.waiver.covers(row.id, row.dtype)), None)
    if done is None or row.status in ("not_in_profile", "unavailable"):
        return row
    waiver, broken = done.waiver, row.status in BROKEN_STATUSES
    decides = row.dtype == (waiver.case.dtype if waiver.case else waiver.dtypes[0])
    if not broken and not decides:
        return row  # another dtype tells whether the waiver still holds
    if row.status == "unclaimed":
        return _with(row, "stale", done, "stale waiver: the target does not claim this clause")
    if waiver.expired(day):
        why = row.message if broken else done.how
        return _with(row, "fail", done, f"{why} (its waiver expired on {waiver.expires})")
    if done.status == "unavailable":
        return _with(row, "stale", done, f"nobody knows whether it still fails: {done.message}")
    if not done.holds:
        new = f"; what fails now: {row.message}" if broken else ""
        advice = "see whether this is the same defect" if broken else "remove it"
        return _with(row, "stale", done, f"stale waiver, {done.how}{new}: {advice}")
    if row.status in LOST and done.status not in LOST:
        return row  # worse than what is waived
    return _with(row, "waived", done, done.how)


def _with(row: ClauseResult, status: str, done: Rechecked, message: str) -> ClauseResult:
    waiver = done.waiver
    case = row.case if row.status in BROKEN_STATUSES else None
    if case is None and waiver.case is not None:
        case = waiver.case.to_json()
    told = {"reason": waiver.reason, "link": waiver.link, "expires": waiver.expires.isoformat()}
    return dataclasses.replace(
        row,
        status=status,
        message=message,
        case=case,
        worst=None,
        examples=max(row.examples, done.runs),
        waiver=told,
    )


def entry(
    verdict: dict[str, Any], clause: str, reason: str, link: str, expires: datetime.date
) -> dict[str, Any]:
    """A waiver of what is broken of ``clause`` in a verdict, with its smallest case.

    Raises ConfigurationError where the verdict has no failure of that clause.
    """
    check_known(clause, BY_ID, "unknown clause")
    rows = [r for r in verdict["clauses"] if r["id"] == clause and r["status"] in BROKEN_STATUSES]
    if not rows:
        broken = sorted({r["id"] for r in verdict["clauses"] if r["status"] in BROKEN_STATUSES})
        raise ConfigurationError(
            f"the verdict has no failure of {clause}: it has {', '.join(broken) or 'none'}"
        )
    cases = [r["counterexample"]["case"] for r in rows if r["counterexample"]["case"]]
    found: dict[str, Any] = {
        "target": verdict.get("source") or verdict["target"],
        "clause": clause,
        "reason": reason,
        "link": link,
        "expires": expires,
        "device": verdict["device"].partition(":")[0],
        "dtypes": [r["dtype"] for r in rows],
    }
    if cases:
        found["case"] = json.dumps(min(cases, key=lambda c: len(json.dumps(c))))
    return found


def written(entry: dict[str, Any], path: Path) -> str:
    """``entry`` as the TOML to append to ``path``."""
    table = "tool.loss-conformance.waiver" if path.name == "pyproject.toml" else "waiver"
    return f"\n[[{table}]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in entry.items())


def _toml(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    # JSON inside a string is easier to read without escapes.
    literal = isinstance(value, str) and '"' in value and value.isprintable() and "'" not in value
    return f"'{value}'" if literal else text
