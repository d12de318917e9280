"""Permitted sets remembered from run to run, in a file in the user's cache.

They follow from the case and from how they are computed, never from a target. An entry stands under
a digest of all that it follows from: where a source changes, or NumPy, nothing is found. What is
found is checked, and where it is damaged computed anew. Whatever becomes of the file (read-only,
full, locked, deleted, rubbish) costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import sqlite3
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

import reference
from conformance.cases import case, layouts, values
from conformance.judging import looks, oracle
from conformance.judging.looks import Look
from reference.enclosure import PermittedSet

LIMIT = 256 * 2**20  # bytes of the file
LARGEST = 2**13  # numbers in an entry, 128 KiB: all cases of 2,049 elements and nearly all others
PATIENCE = 2.0  # seconds to wait for another process that writes
AT_ONCE = 500  # keys in a query: SQLite may be built to take 999
DAY = 86_400
Row = tuple[bytes, bytes, int]  # as the table has them
T = TypeVar("T")

_HEADER = struct.Struct("<I?")  # how many numbers, whether there are flags; a checksum is before
_SCHEMA = """
pragma journal_mode = wal;
pragma synchronous = normal;
create table if not exists permitted (key blob primary key, entry blob, used integer);
"""


def sources() -> Iterator[bytes]:
    """All that permitted sets follow from, besides the case."""
    for module in (case, layouts, values, looks, oracle):
        yield Path(str(module.__file__)).read_bytes()
    for path in sorted(Path(str(reference.__file__)).parent.rglob("*.py")):
        yield path.read_bytes()
    yield f"{np.__version__} {platform.machine()} {sys.byteorder}".encode()


class Memory:
    """A file of permitted sets, open for one thread of one process.

    ``hits``, ``misses``: of looks. ``told``: what was wrong with the file, for people.
    """

    def __init__(self, path: Path, limit: int = LIMIT, follows: Iterable[bytes] = ()) -> None:
        self.path, self.limit = path, limit
        self.hits = self.misses = 0
        self.told: list[str] = []
        self._basis = hashlib.sha256()
        for part in follows or sources():
            self._basis.update(hashlib.sha256(part).digest())
        self._file = self._open()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get_many(self, looks: Sequence[Look]) -> list[PermittedSet | None]:
        """For each look its permitted set, flat; None where it is not remembered."""
        keys = [self._key(look) for look in looks]
        nothing: dict[bytes, bytes] = {}
        found = self._attempt(lambda file: _found(file, keys), nothing)
        sets = [self._decoded(key, found[key]) if key in found else None for key in keys]
        self.hits += len(sets) - sets.count(None)
        self.misses += sets.count(None)
        return sets

    def put_many(self, looks: Sequence[Look], sets: Sequence[PermittedSet]) -> None:
        """Remember the sets, flat, but for those that are large."""
        now, rows = _today(), []
        for look, permitted in zip(looks, sets, strict=True):
            if permitted.lower.size <= LARGEST:
                key = self._key(look)
                rows.append((key, _encoded(key, permitted), now))
        if rows:
            self._attempt(lambda file: self._store(file, rows), None)

    # -- keys and entries --------------------------------------------------------------------

    def _key(self, look: Look) -> bytes:
        digest = self._basis.copy()
        digest.update(f"{look.dtype} {look.orders} {look.case.key()}".encode())
        return digest.digest()

    def _decoded(self, key: bytes, entry: bytes) -> PermittedSet | None:
        try:
            return _decoded(key, entry)
        except (ValueError, TypeError, struct.error) as error:
            self._tell(f"an entry is damaged ({error}): it is computed anew")
            return None

    # -- the file ----------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection | None:
        """None where there can be no file; one that is none of SQLite's is begun anew."""
        try:
            return self._opened()
        except (sqlite3.OperationalError, OSError) as error:
            self._tell(f"{error}: nothing is remembered")
            return None
        except sqlite3.DatabaseError as error:
            return self._begun_anew(error)

    def _begun_anew(self, error: Exception) -> sqlite3.Connection | None:
        self._tell(f"{error}: it is begun anew")
        try:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            return self._opened()
        except (sqlite3.Error, OSError) as again:
            self._tell(f"{again}: nothing is remembered")
            return None

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            file.executescript(_SCHEMA)
        except BaseException:
            file.close()
            raise
        return file

    def _attempt(self, act: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What ``act`` gives; ``otherwise`` where the file does not let it, or there is none."""
        if self._file is None:
            return otherwise
        try:
            return act(self._file)
        except sqlite3.OperationalError as error:  # full, locked, read-only, gone
            self._tell(f"{error}: nothing more is remembered")
            self.close()
        except sqlite3.DatabaseError as error:
            self.close()
            self._file = self._begun_anew(error)
        return otherwise

    def _tell(self, text: str) -> None:
        self.told.append(f"{self.path}: {text}")

    def _store(self, file: sqlite3.Connection, rows: list[Row]) -> None:
        with _transaction(file):
            file.executemany("insert or replace into permitted values (?, ?, ?)", rows)
            while _size(file) > self.limit and file.execute(_FORGET).rowcount > 0:
                pass


def _found(file: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, bytes]:
    found, stale, today = {}, [], _today()
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"select key, entry, used from permitted where key in ({marks})"
        for key, entry, used in file.execute(query, some):
            found[key] = entry
            if used != today:
                stale.append((today, key))
    if stale:  # once a day: reading is seldom writing
        with _transaction(file):
            file.executemany("update permitted set used = ? where key = ?", stale)
    return found


@contextlib.contextmanager
def _transaction(file: sqlite3.Connection) -> Iterator[None]:
    file.execute("begin immediate")
    try:
        yield
        file.execute("commit")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            file.execute("rollback")
        raise


def _size(file: sqlite3.Connection) -> int:
    """Bytes of the file that are in use."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, each = (file.execute(f"pragma {name}").fetchone()[0] for name in names)
    return int((pages - free) * each)


# The quarter that has not been used for longest: one entry at least.
_FORGET = """
delete from permitted where rowid in (
    select rowid from permitted order by used, rowid
    limit (select (count(*) + 3) / 4 from permitted)
)
"""


def _today() -> int:
    return int(time.time() // DAY)


def _encoded(key: bytes, permitted: PermittedSet) -> bytes:
    flags = b"" if permitted.flags is None else permitted.flags.tobytes()
    header = _HEADER.pack(permitted.lower.size, bool(flags))
    body = b"".join((header, permitted.lower.tobytes(), permitted.upper.tobytes(), flags))
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little") + body


def _decoded(key: bytes, entry: bytes) -> PermittedSet:
    """Raises where ``entry`` is not what was stored under ``key``."""
    body = memoryview(entry)[4:]
    if zlib.crc32(body, zlib.crc32(key)) != int.from_bytes(entry[:4], "little"):
        raise ValueError("its checksum is wrong")
    n, flagged = _HEADER.unpack_from(body)
    ends = np.frombuffer(body, np.float64, 2 * n, _HEADER.size)
    flags = np.frombuffer(body, np.uint8, n, _HEADER.size + 16 * n) if flagged else None
    return PermittedSet(ends[:n], ends[n:], flags)
