"""The verdict: clause × dtype × device results for one target, with environment and seed."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.clauses import BLOCKED, ONE_GPU
from conformance.verdict.commitment import kept

SCHEMA = 1
SPEC = "mse 1.0"
BROKEN_STATUSES = ("fail", "crash", "timeout", "stale")
ISOLATION = ("none", "process", "sandbox")  # each keeps more from the target than the one before


class DamagedVerdict(ValueError):
    """A verdict file that is cut, edited or none at all."""


@dataclass(frozen=True)
class ClauseResult:
    """One row: a clause for one dtype.

    ``status``: pass, fail, crash, timeout, waived, stale, unclaimed, unavailable, not_in_profile.
    ``worst``: the largest share of the permitted error that a passing case used. ``case``: the
    counterexample, or the worst passing case, as JSON. ``where``: the wrong elements (checks.py).
    ``cause``: the likely one of a failure, its ``id`` and ``text``, where it could be told.
    ``self_reported``: it rests on what only the target's own process can see and say. ``because``:
    the clause that tells of the reason for which this one fails, where that is another one.
    """

    id: str
    level: str
    status: str
    dtype: str
    examples: int = 0
    worst: float | None = None
    message: str = ""
    case: dict[str, Any] | None = None
    script: str = ""
    where: dict[str, Any] | None = None
    waiver: dict[str, str] | None = None
    self_reported: bool = False
    cause: dict[str, str] | None = None
    because: str = ""

    @property
    def clause(self) -> str:
        return self.id

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": self.id,
            "level": self.level,
            "status": self.status,
            "dtype": self.dtype,
            "examples": self.examples,
            "worst": self.worst,
        }
        if self.self_reported:
            row["self_reported"] = True
        if self.because:
            row["because"] = self.because
        if self.status in (*BROKEN_STATUSES, "waived"):
            row["counterexample"] = {
                "message": self.message,
                "case": self.case,
                "script": self.script,
            }
            if self.where is not None:
                row["counterexample"]["where"] = self.where
            if self.cause is not None:
                row["counterexample"]["cause"] = self.cause
        elif self.message:
            row["message"] = self.message
        if self.status == "pass" and self.case is not None:
            row["worst_case"] = self.case
        return row if self.waiver is None else row | {"waiver": self.waiver}


@dataclass(frozen=True)
class Verdict:
    """What the suite says of one target on one device. ``ended``: the run was not cut short;
    ``interrupted``: somebody cut it short.

    ``seed``: None as long as it is secret; ``commitment``: of one that was, see commitment.py.
    ``isolation``: of the target's calls from all else: none, process or sandbox.
    ``made_of``: what it ran, see provenance.py; None where nobody looked. ``forbidden``: patterns
    of what it was not to run. ``attempted``: what a sandbox kept it from, in words. ``causes``: for
    which reasons clauses are broken: ``text``, the ``likely`` cause of the first one, and the
    ``clauses``. ``accuracy``, ``coverage``: see measures.py. ``domain``: the inputs that it speaks
    of, in words; empty for all. ``spec``: the specification, by its title.
    """

    target: str
    device: str
    profile: str
    seed: int | None
    clauses: tuple[ClauseResult, ...]
    examples: int
    duration_s: float
    cases: str = ""
    fingerprint: str = ""
    source: str = ""
    selected: str = "*"
    ended: bool = True
    interrupted: bool = False
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    coverage: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    created: str = ""
    domain: str = ""
    spec: str = SPEC
    causes: list[dict[str, Any]] = field(default_factory=list)
    commitment: dict[str, str] | None = None
    isolation: str = "none"
    made_of: dict[str, list[str]] | None = None
    forbidden: tuple[str, ...] = ()
    attempted: tuple[str, ...] = ()

    @property
    def failures(self) -> list[ClauseResult]:
        """Broken ``must`` clauses; each has clause, dtype, message and script."""
        return [
            row for row in self.clauses if row.status in BROKEN_STATUSES and row.level == "must"
        ]

    @property
    def warnings(self) -> list[ClauseResult]:
        """Broken ``should`` clauses."""
        return [
            row for row in self.clauses if row.status in BROKEN_STATUSES and row.level == "should"
        ]

    @property
    def missing(self) -> list[ClauseResult]:
        """Required cells that did not run, though nothing that failed explains it.

        What is waived explains nothing: where a waived value stands in the way of other clauses,
        nobody knows whether they hold.
        """
        waived = any(row.status == "waived" for row in self.clauses)
        explained = (ONE_GPU,) if waived and not self.failures else (BLOCKED, ONE_GPU)
        rows = (row for row in self.clauses if row.status == "unavailable")
        return [row for row in rows if row.message not in explained]

    @property
    def complete(self) -> bool:
        """Every required cell ran, and at least one did."""
        ran = any(row.examples for row in self.clauses)
        return self.ended and ran and not self.missing

    @property
    def conforms(self) -> bool:
        """Complete and without a broken ``must``."""
        return self.complete and not self.failures

    def to_json(self) -> dict[str, Any]:
        body = {
            "schema": SCHEMA,
            "spec": self.spec,
            "suite": suite_version(),
            "target": self.target,
            "source": self.source,
            "device": self.device,
            "profile": self.profile,
            "seed": self.seed,
            "selected": self.selected,
            "domain": self.domain or "full",
            "isolation": self.isolation,
            "conforms": self.conforms,
            "complete": self.complete,
            "interrupted": self.interrupted,
            "examples": self.examples,
            "cases": self.cases,
            "duration_s": round(self.duration_s, 3),
            "environment": self.environment,
            "fingerprint": self.fingerprint,
            "commit": self.commit,
            "created": self.created,
            "causes": self.causes,
            "clauses": [row.to_json() for row in self.clauses],
            "accuracy": self.accuracy,
            "coverage": self.coverage,
        }
        if self.made_of is not None:
            body["made_of"] = self.made_of
        if self.attempted:
            body["attempted"] = [*self.attempted]
        if self.forbidden:
            body["forbidden"] = [*self.forbidden]
        if self.commitment is not None:
            body["commitment"] = self.commitment
        return body | {"digest": digest(body)}


def unfinished(
    target: str,
    source: str,
    device: str,
    profile: str,
    seed: int | None,
    selected: str = "*",
    commitment: dict[str, str] | None = None,
    spec: str = SPEC,
) -> Verdict:
    """The verdict of a run that has not ended: incomplete, without a row."""
    return Verdict(
        target=target,
        device=device,
        profile=profile,
        seed=seed,
        clauses=(),
        examples=0,
        duration_s=0.0,
        source=source,
        selected=selected,
        ended=False,
        created=now(),
        commitment=commitment,
        spec=spec,
    )


def write_verdict(path: Path, verdict: dict[str, Any]) -> None:
    """Replace ``path`` atomically by a verdict's JSON. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in path.parent.glob(f"{path.stem}.[0-9]*"):
        if not _runs(part.suffix[1:]):  # its process was killed while it wrote
            part.unlink(missing_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(in_file(verdict))
    fresh.replace(path)


def in_file(verdict: dict[str, Any]) -> bytes:
    """What a file of it holds."""
    return (json.dumps(verdict, indent=1) + "\n").encode()


def _runs(process: str) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def digest(body: dict[str, Any]) -> str:
    """SHA-256 of everything but the digest itself, in canonical form."""
    rest = {k: v for k, v in body.items() if k != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_verdict(path: Path) -> dict[str, Any]:
    """The JSON of a verdict file. Raises DamagedVerdict where it is cut, edited or none."""
    return parse_verdict(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Raises DamagedVerdict."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedVerdict(f"{path}: {error.strerror}") from None


def parse_verdict(text: bytes, path: Path) -> dict[str, Any]:
    """The JSON of a verdict that was read from ``path``. Raises DamagedVerdict."""
    try:
        data = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedVerdict(f"{path}: not whole JSON ({error})") from None
    if not isinstance(data, dict) or "digest" not in data or "clauses" not in data:
        raise DamagedVerdict(f"{path}: not a verdict")
    if data["digest"] != digest(data):
        raise DamagedVerdict(f"{path}: its digest does not match: it was edited")
    if not kept(data):
        raise DamagedVerdict(f"{path}: its seed is not the one that it was committed to")
    return data


def broken_rows(verdict: dict[str, Any], level: str = "must") -> list[dict[str, Any]]:
    """The broken rows of a verdict's JSON, of this level."""
    rows = verdict["clauses"]
    return [r for r in rows if r["status"] in BROKEN_STATUSES and r["level"] == level]


def reasons_of(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The causes of a verdict's JSON, by each clause that they cover."""
    causes = verdict.get("causes", ())
    return {clause: cause for cause in causes for clause in cause["clauses"]}


def suite_version() -> str:
    try:
        return importlib.metadata.version("loss-conformance")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def revision() -> str:
    """The commit of the present folder; with ``+changes`` where tracked files differ from it.

    Empty outside a repository, and where there is no git.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
