"""The ledger of a campaign: one SQLite file, in which a verdict stands once it is whole.

A row stands under all that it follows from: the kernel, the specification, the suite, the stage,
the seed that was committed to, the environment. Where one of these changes, nothing is found, and
the kernel is judged anew. Whoever is killed leaves what was written before, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.running.campaign.kernels import Kernel
from conformance.running.campaign.stages import COMPILING
from conformance.running.campaign.task import Answer
from conformance.running.options import UsageError
from conformance.verdict.commitment import Secret
from conformance.verdict.outcome import BROKEN, CONFORMS, INCOMPLETE, Outcome
from conformance.verdict.verdict import digest

FORM = 1  # of the tables
_SCHEMA = """
create table if not exists seeds (
    seed text primary key, value integer not null, nonce text not null, since real not null
);
create table if not exists kernels (
    kernel text primary key, text blob not null, path text not null, attribute text not null,
    since real not null
);
create table if not exists names (name text primary key, kernel text not null);
create table if not exists verdicts (
    kernel text not null, spec text not null, suite text not null, stage text not null,
    seed text not null, environment text not null,
    outcome text not null, reason text not null, clause text not null, dtype text not null,
    message text not null, cause text not null, explanation text not null, found blob not null,
    compiling real not null, seconds real not null, ended real not null, worker text not null,
    verdict blob,
    primary key (kernel, spec, suite, stage, seed, environment)
);
create table if not exists losses (
    kernel text not null, spec text not null, suite text not null, stage text not null,
    seed text not null, environment text not null,
    how text not null, at real not null
);
"""
_KEY = "kernel, spec, suite, stage, seed, environment"
_TOLD = ("outcome", "reason", "clause", "dtype", "message", "cause", "explanation")


@dataclass(frozen=True)
class Circumstances:
    """What the verdicts of one run have in common. ``seed``: what it was committed to by."""

    spec: str
    suite: str
    seed: str
    environment: str


@dataclass(frozen=True)
class Entry:
    """A kernel at one stage, as the ledger has it. ``ended``: seconds since 1970."""

    kernel: str
    stage: str
    outcome: Outcome
    compiling: float
    seconds: float
    ended: float


class Ledger:
    """The ledger in a folder, for one run at a time. Raises UsageError where another one has it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise UsageError(f"cannot write {folder}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UsageError(f"{folder}: another campaign runs there") from None
        try:
            self._file = self._opened()
        except sqlite3.Error as error:
            os.close(self._lock)
            raise UsageError(f"{self.path}: {error}: not a ledger, or a damaged one") from None

    def _opened(self) -> sqlite3.Connection:
        # It holds the seed: whoever is judged, and is not kept from it otherwise, is by this.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        file = sqlite3.connect(self.path, isolation_level=None)
        file.execute("pragma journal_mode = wal")
        file.execute("pragma synchronous = full")
        (form,) = file.execute("pragma user_version").fetchone()
        if form not in (0, FORM):
            raise sqlite3.DatabaseError(f"its form is {form}, and this suite's is {FORM}")
        file.executescript(_SCHEMA)
        file.execute(f"pragma user_version = {FORM}")
        return file

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- before the first kernel -----------------------------------------------------------------

    def secret(self, seed: int | None = None) -> Secret:
        """The seed of this ledger's verdicts: ``seed``, or the last secret one; drawn at first.

        It is in the file before it is used.
        """
        if seed is not None:
            secret = Secret(seed, "")
        else:
            query = "select value, nonce from seeds where nonce != '' order by since desc limit 1"
            found = self._file.execute(query).fetchone()
            secret = Secret(*found) if found else Secret.draw()
        with self._transaction():
            row = (secret.commitment, secret.seed, secret.nonce, time.time())
            self._file.execute("insert or ignore into seeds values (?, ?, ?, ?)", row)
        return secret

    def register(self, kernels: Iterable[Kernel]) -> None:
        """Make them known."""
        now = time.time()
        with self._transaction():
            for kernel in kernels:
                row = (
                    kernel.digest,
                    zlib.compress(kernel.data),
                    kernel.path,
                    kernel.attribute,
                    now,
                )
                self._file.execute("insert or ignore into kernels values (?, ?, ?, ?, ?)", row)
                names = (kernel.name, kernel.digest)
                self._file.execute("insert or replace into names values (?, ?)", names)

    def judged_elsewhere(self, own: Circumstances) -> set[str]:
        """The kernels that were judged by another suite, with another seed or somewhere else."""
        query = "select distinct kernel from verdicts where (spec, suite, seed, environment) != "
        return {row[0] for row in self._file.execute(f"{query} (?, ?, ?, ?)", _values(own))}

    def forget(self, own: Circumstances, kernels: Iterable[str]) -> int:
        """What told nothing of these kernels is to be tried again; how many verdicts that were."""
        with self._transaction():
            gone = 0
            for kernel in kernels:
                where = (kernel, *_values(own))
                gone += self._file.execute(_FORGET, (*where, INCOMPLETE)).rowcount
                self._file.execute(f"delete from losses where {_OWN}", where)
        return gone

    # -- while they are judged -------------------------------------------------------------------

    def record(
        self, own: Circumstances, kernel: str, stages: Iterable[str], answer: Answer
    ) -> bool:
        """Write what came of it, at these stages; all of it or nothing.

        Whether it was not there before: a verdict that stands is not changed.
        """
        now, verdict = time.time(), answer.verdict
        blob = zlib.compress(json.dumps(verdict).encode()) if verdict else None
        refused = verdict is None and answer.outcome.reason in ("import", "unavailable")
        ready = answer.outcome if refused else Outcome(CONFORMS, CONFORMS)
        rows: list[tuple[str, Outcome, float, bytes | None]] = []
        if answer.compiling:
            rows.append((COMPILING, ready, answer.compiling, None))
        rows += [(stage, answer.outcome, answer.seconds, blob) for stage in stages]
        with self._transaction():
            fresh = 0
            for stage, told_of, seconds, kept in rows:
                outcome = told_of.printable()
                found = json.dumps({"case": outcome.case, "script": outcome.script})
                told = [outcome.outcome, outcome.reason, outcome.clause, outcome.dtype]
                told += [outcome.message, outcome.cause, outcome.explanation]
                times = (answer.compiling, seconds, now, answer.worker)
                place = _place(own, kernel, stage)
                row = (*place, *told, zlib.compress(found.encode()), *times, kept)
                marks = ", ".join("?" * len(row))
                done = self._file.execute(f"insert or ignore into verdicts values ({marks})", row)
                fresh += done.rowcount if stage != COMPILING else 0
        return fresh > 0

    def lose(self, own: Circumstances, kernel: str, stage: str, how: str) -> list[str]:
        """Whoever judged it has ended; how that was, each time."""
        place = _place(own, kernel, stage)
        with self._transaction():
            row = (*place, how, time.time())
            self._file.execute("insert into losses values (?, ?, ?, ?, ?, ?, ?, ?)", row)
        where = " and ".join(f"{column} = ?" for column in _KEY.split(", "))
        query = f"select how from losses where {where} order by at"
        return [row[0] for row in self._file.execute(query, place)]

    # -- what it has -----------------------------------------------------------------------------

    def entries(self, own: Circumstances) -> Iterator[Entry]:
        """All verdicts of these circumstances, in the order in which they came."""
        columns = ("kernel", "stage", *_TOLD, "found", "compiling", "seconds", "ended")
        query = f"select {', '.join(columns)} from verdicts where spec = ?"
        query += " and suite = ? and seed = ? and environment = ? order by ended, rowid"
        for row in self._file.execute(query, _values(own)):
            kernel, stage, *told = row[:9]
            found, *times = row[9:]
            fields = dict(zip(_TOLD, told, strict=True)) | json.loads(zlib.decompress(found))
            yield Entry(kernel, stage, Outcome.from_json(fields), *times)

    def verdict(self, own: Circumstances, kernel: str, stage: str) -> dict[str, Any] | None:
        """The whole verdict; None where there is none. Raises UsageError where it is damaged."""
        query = f"select verdict from verdicts where {_OWN} and stage = ?"
        row = self._file.execute(query, (kernel, *_values(own), stage)).fetchone()
        if row is None or row[0] is None:
            return None
        with contextlib.suppress(ValueError, zlib.error):
            found: dict[str, Any] = json.loads(zlib.decompress(row[0]))
            if found.get("digest") == digest(found):
                return found
        raise UsageError(f"{self.path}: the verdict on {kernel} is damaged")

    def kernels(self) -> Iterator[Kernel]:
        """All that are known, by name."""
        query = "select name, text, path, attribute from names join kernels using (kernel)"
        for name, text, path, attribute in self._file.execute(f"{query} order by name"):
            source = zlib.decompress(text).decode("utf-8", "surrogateescape")
            yield Kernel(name, source, path, attribute)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("begin immediate")
        try:
            yield
            self._file.execute("commit")
        except BaseException:
            self._file.execute("rollback")
            raise


_OWN = "kernel = ? and spec = ? and suite = ? and seed = ? and environment = ?"
# Also that whoever judged it was killed: that may have been somebody else's doing.
_FORGET = f"delete from verdicts where {_OWN} and (outcome = ? or reason = 'worker')"


def _place(own: Circumstances, kernel: str, stage: str) -> tuple[str, ...]:
    return kernel, own.spec, own.suite, stage, own.seed, own.environment


def _values(own: Circumstances) -> tuple[str, str, str, str]:
    return own.spec, own.suite, own.seed, own.environment


def worker_killed(how: list[str]) -> Answer:
    """What came of a kernel with which whoever judged it has ended, again and again."""
    message = f"{len(how)} workers that judged it ended: the last one {how[-1]}"
    outcome = Outcome(BROKEN, "worker", message=message)
    return Answer(outcome, None, 0.0, 0.0, False, "")
