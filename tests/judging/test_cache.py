"""The memory of permitted sets: never believed where it is wrong, never in the way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cases.case import Case
from conformance.cases.plans import plain, with_shapes
from conformance.cases.profiles import PROFILES
from conformance.judging import cache
from conformance.judging.batch import judge_observations
from conformance.judging.cache import LARGEST, Memory
from conformance.judging.looks import Look, joined, permitted_sets
from conformance.judging.seen import Observation
from conformance.running.observers import InProcess
from conformance.running.shards import Shard, fixed_cases
from reference.enclosure import PermittedSet
from targets.builtin import BUILTIN
from tests.sessions import claimed

Pair = tuple[Case, Observation]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    cases = fixed_cases(claimed(BUILTIN), PROFILES["quick"], 0, Shard("pairs", 0))
    return list(zip(cases, InProcess(BUILTIN, "cpu").observe(cases), strict=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sets"


def looks_of(pairs: list[Pair]) -> list[Look]:
    return [Look(case, case.dtype) for case, _ in pairs]


def remember(path: Path, pairs: list[Pair], **options: int) -> None:
    with Memory(path, **options) as memory:
        judge_observations(pairs, memory)
        assert not memory.told


def test_verdicts_are_the_same_with_and_without_it(file: Path, pairs: list[Pair]) -> None:
    without = judge_observations(pairs)
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == without
        assert memory.hits == 0
        missed = memory.misses
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == without
        assert (memory.hits, memory.misses, memory.told) == (missed, 0, [])


def test_what_is_found_is_what_was_computed(file: Path, pairs: list[Pair]) -> None:
    remember(file, pairs)
    looks = looks_of(pairs)
    with Memory(file) as memory:
        for found, made in zip(memory.get_many(looks), permitted_sets(looks), strict=True):
            assert found is not None
            assert same(found, joined(made))


def same(one: PermittedSet, other: PermittedSet) -> bool:
    flags = [
        b"" if s.flags is None or not s.flags.any() else s.flags.tobytes() for s in (one, other)
    ]
    ends = [(s.lower.tobytes(), s.upper.tobytes()) for s in (one, other)]
    return ends[0] == ends[1] and flags[0] == flags[1]


@pytest.mark.parametrize("place", [0, 3, 4, 8, 20, -1])
def test_a_flipped_bit_is_told_and_computed_anew(file: Path, pairs: list[Pair], place: int) -> None:
    remember(file, pairs)
    flip(file, place)
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert memory.misses > 0
        assert len(memory.told) == memory.misses
        assert "damaged" in memory.told[0]
    with Memory(file) as memory:
        judge_observations(pairs, memory)
        assert (memory.misses, memory.told) == (0, [])


def flip(file: Path, place: int) -> None:
    """One bit in each entry."""
    with sqlite3.connect(file) as connection:
        rows = connection.execute("select rowid, entry from permitted").fetchall()
        for row, entry in rows:
            damaged = bytearray(entry)
            damaged[min(place, len(entry) - 1)] ^= 4
            connection.execute("update permitted set entry = ? where rowid = ?", (damaged, row))
    connection.close()


def test_an_entry_under_the_key_of_another_is_not_believed(file: Path, pairs: list[Pair]) -> None:
    remember(file, pairs)
    with sqlite3.connect(file) as connection:
        entry = connection.execute("select entry from permitted limit 1").fetchone()[0]
        connection.execute("update permitted set entry = ?", (entry,))
    connection.close()
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert memory.hits == 1


@pytest.mark.parametrize("rubbish", [None, 1.5, "text", b"", b"short"])
def test_an_entry_of_another_kind_is_not_believed(
    file: Path, pairs: list[Pair], rubbish: object
) -> None:
    remember(file, pairs[:3])
    with sqlite3.connect(file) as connection:
        connection.execute("update permitted set entry = ?", (rubbish,))
    connection.close()
    with Memory(file) as memory:
        assert judge_observations(pairs[:3], memory) == judge_observations(pairs[:3])
        assert memory.hits == 0


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 10_000, 60_000])
def test_a_truncated_file_is_begun_anew(file: Path, pairs: list[Pair], keep: int) -> None:
    remember(file, pairs)
    file.write_bytes(file.read_bytes()[:keep])
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert memory.told or keep < 100  # less is an empty file to SQLite
    remember(file, pairs)


def test_a_file_of_something_else_is_begun_anew(file: Path, pairs: list[Pair]) -> None:
    file.parent.mkdir()
    file.write_text("not a database, and longer than the hundred bytes of a header " * 9)
    with Memory(file) as memory:
        judge_observations(pairs, memory)
        assert "begun anew" in memory.told[0]
    remember(file, pairs)


def test_a_deleted_file_does_no_harm(file: Path, pairs: list[Pair]) -> None:
    with Memory(file) as memory:
        judge_observations(pairs[:20], memory)
        for path in file.parent.iterdir():
            path.unlink()
        file.parent.rmdir()
        assert judge_observations(pairs, memory) == judge_observations(pairs)
    remember(file, pairs)


def test_where_no_file_can_be_nothing_is_remembered(tmp_path: Path, pairs: list[Pair]) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "sets", tmp_path, Path("/proc/none/sets")):
        with Memory(path) as memory:
            assert judge_observations(pairs[:9], memory) == judge_observations(pairs[:9])
            assert memory.hits == 0
            assert "nothing is remembered" in memory.told[0]


def test_a_full_disk_does_no_harm(file: Path, pairs: list[Pair]) -> None:
    remember(file, pairs[:9])
    with Memory(file) as memory:
        assert memory._file is not None
        memory._file.execute("pragma max_page_count = 20")
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert "full" in memory.told[0]
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert len(memory.told) == 1
    remember(file, pairs)


def test_while_another_process_writes_for_long_nothing_waits_for_it(
    file: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(file, pairs[:9])
    monkeypatch.setattr(cache, "PATIENCE", 0.01)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("begin immediate")
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert "locked" in memory.told[0]
    other.close()


WRITER = """
import sys
from pathlib import Path
from conformance.running.shards import Shard, fixed_cases
from conformance.cases.profiles import PROFILES
from conformance.judging.cache import Memory
from conformance.judging.looks import Look, joined, permitted_sets
from targets.builtin import BUILTIN
from tests.sessions import claimed

cases = fixed_cases(claimed(BUILTIN), PROFILES["quick"], 0, Shard("pairs", 0))
looks = [Look(case, case.dtype) for case in cases]
sets = [joined(parts) for parts in permitted_sets(looks)]
with Memory(Path(sys.argv[1])) as memory:
    for start in [*range(0, len(looks), 7)] * 5:
        memory.put_many(looks[start : start + 7], sets[start : start + 7])
        memory.get_many(looks)
    print(memory.told)
"""


@pytest.mark.full
def test_processes_write_at_once(file: Path, pairs: list[Pair]) -> None:
    command = [sys.executable, "-c", WRITER, str(file)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert (writer.returncode, out.strip()) == (0, "[]")
    with Memory(file) as memory:
        assert judge_observations(pairs, memory) == judge_observations(pairs)
        assert memory.hits >= len(pairs)
        assert not memory.told


def test_the_file_has_a_limit_and_the_longest_unused_goes(
    file: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 64 * 2**10
    old, new = looks_of(pairs[:60]), looks_of(pairs[60:])
    with Memory(file, limit) as memory:
        for day, looks in enumerate((old, new, old[:5], new)):
            monkeypatch.setattr(cache, "_today", lambda day=day: day)
            missing = [
                look for look, s in zip(looks, memory.get_many(looks), strict=True) if s is None
            ]
            memory.put_many(missing, [joined(parts) for parts in permitted_sets(missing)])
            assert cache._size(memory._file) <= limit
        found = [s is not None for s in memory.get_many([*old, *new])]
        assert 0 < sum(found) < len(found)
        assert sum(found[5 : len(old)]) <= sum(found[len(old) :])


def test_what_is_large_is_not_kept(file: Path) -> None:
    large = with_shapes(plain("float32", "none"), (LARGEST,), (LARGEST,))
    look = Look(large.replace(needs=(True, False)), "float32")
    with Memory(file) as memory:
        memory.put_many([look], [joined(permitted_sets([look])[0])])
        assert memory.get_many([look]) == [None]


def test_where_a_source_changes_nothing_is_found(file: Path, pairs: list[Pair]) -> None:
    remember(file, pairs)
    parts = list(cache.sources())
    assert any(b"def gamma" in part for part in parts)
    assert any(b"def permitted_gradient" in part for part in parts)
    assert any(b"def elements" in part for part in parts)
    for k in range(len(parts)):
        changed = [part + b" " * (i == k) for i, part in enumerate(parts)]
        with Memory(file, follows=changed) as memory:
            assert memory.get_many(looks_of(pairs[:3])) == [None] * 3


def test_each_look_has_a_key_of_its_own(file: Path, pairs: list[Pair]) -> None:
    looks = [
        Look(case, dtype, orders)
        for case, _ in pairs
        for dtype in ("float32", "float16")
        for orders in (1, 6, None)
    ]
    with Memory(file) as memory:
        assert len({memory._key(look) for look in looks}) == len(looks)
