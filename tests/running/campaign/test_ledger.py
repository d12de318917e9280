"""The ledger: whole verdicts or none, once each, under all that they follow from."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.running.campaign.kernels import Kernel
from conformance.running.campaign.ledger import Circumstances, Ledger, worker_killed
from conformance.running.campaign.task import Answer
from conformance.running.options import UsageError
from conformance.verdict.outcome import Outcome

OWN = Circumstances("mse 1.0", "0.1", "abc", "python 3.11")
CONFORMS = Answer(Outcome("conforms", "conforms"), None, 0.5, 2.0, True, "here:1")
BROKEN = replace(CONFORMS, outcome=Outcome("broken", "value", "value.none", message="off by one"))
UNCLEAR = replace(CONFORMS, outcome=Outcome("incomplete", "time"))
KERNEL = Kernel("mine", "text", "/nowhere/mine.py")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as found:
        found.register([KERNEL])
        yield found


def told(ledger: Ledger, own: Circumstances = OWN) -> dict[tuple[str, str], str]:
    return {(e.kernel, e.stage): e.outcome.outcome for e in ledger.entries(own)}


def test_a_verdict_stands_and_is_not_made_twice(ledger: Ledger) -> None:
    assert ledger.record(OWN, "k", ["screen", "quick"], CONFORMS)
    assert not ledger.record(OWN, "k", ["screen", "quick"], BROKEN)
    assert told(ledger) == {
        ("k", "compile"): "conforms",
        ("k", "screen"): "conforms",
        ("k", "quick"): "conforms",
    }


@pytest.mark.parametrize("what", ["spec", "suite", "seed", "environment"])
def test_it_is_of_what_it_follows_from_and_of_nothing_else(ledger: Ledger, what: str) -> None:
    ledger.record(OWN, "k", ["screen"], CONFORMS)
    other = replace(OWN, **{what: "another"})
    assert told(ledger, other) == {}
    assert ledger.judged_elsewhere(other) == {"k"}
    assert ledger.judged_elsewhere(OWN) == set()
    assert ledger.record(other, "k", ["screen"], BROKEN)
    assert told(ledger)["k", "screen"] == "conforms"


def test_what_is_half_written_is_not_there(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(CONFORMS, worker=object())  # what SQLite cannot hold, in the second row
    with pytest.raises(sqlite3.Error):
        ledger.record(OWN, "k", ["screen", "quick"], broken)  # type: ignore[arg-type]
    assert told(ledger) == {}


def test_what_told_nothing_is_forgotten_and_the_rest_is_kept(ledger: Ledger) -> None:
    for kernel, answer in (("a", CONFORMS), ("b", BROKEN), ("c", UNCLEAR)):
        ledger.record(OWN, kernel, ["screen"], answer)
    ledger.record(OWN, "d", ["screen"], worker_killed(ledger.lose(OWN, "d", "screen", "ended")))
    assert ledger.forget(OWN, ["a", "b", "c", "d"]) == 2
    assert {kernel for kernel, stage in told(ledger) if stage == "screen"} == {"a", "b"}
    assert ledger.lose(OWN, "d", "screen", "again") == ["again"]


def test_the_seed_is_there_before_it_is_used_and_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        first = ledger.secret()
    with Ledger(tmp_path) as ledger:
        assert ledger.secret(7).seed == 7
        assert ledger.secret() == first
    mode = (tmp_path / "ledger.sqlite").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_kernel_is_kept_with_its_text_under_its_last_name(ledger: Ledger) -> None:
    ledger.register([replace(KERNEL, text="later")])
    assert [*ledger.kernels()] == [replace(KERNEL, text="later")]


def test_one_run_at_a_time(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another campaign runs there"):
        Ledger(tmp_path)


@pytest.mark.parametrize("damage", ["no database at all, but long enough to be one" * 40, ""])
def test_a_damaged_ledger_is_told_and_not_begun_anew(damage: str, tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.register([KERNEL])
    path = tmp_path / "ledger.sqlite"
    if damage:
        path.write_text(damage)
    else:
        with sqlite3.connect(path) as file:
            file.execute("pragma user_version = 99")
    with pytest.raises(UsageError, match=r"ledger\.sqlite.*not a ledger, or a damaged one"):
        Ledger(tmp_path)
