"""Waivers: what they cover, when they hold, and what is said of those that are wrong."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from conformance import judge
from conformance.cases.plans import plain
from conformance.running.recheck import recheck
from conformance.verdict.configuration import Configuration, ConfigurationError, find, parse_text
from conformance.verdict.verdict import ClauseResult
from conformance.verdict.waivers import (
    Rechecked,
    Waiver,
    applied,
    check_targets,
    entry,
    parse,
    written,
)
from targets import resolve
from tests.command import inside
from tests.sessions import session_on

DAY = datetime.date(2030, 1, 1)
LATER = datetime.date(2030, 1, 2)
CASE = plain("float16", "mean")
WAIVER = Waiver("mine", "value.mean", "known", DAY, dtypes=("float16",), case=CASE)
HOLDS = Rechecked(WAIVER, "fail", 1, "off by one")
PASSES = Rechecked(WAIVER, "pass", 32)
UNKNOWN = Rechecked(WAIVER, "unavailable", 0, "no such thing here")


def row(status: str, clause: str = "value.mean", dtype: str = "float16") -> ClauseResult:
    return ClauseResult(clause, "must", status, dtype, examples=9, message="was wrong")


@pytest.mark.parametrize(
    ("found", "rechecked", "day", "status", "message"),
    [
        (row("fail"), HOLDS, DAY, "waived", "its case still fails: off by one"),
        (row("pass"), HOLDS, DAY, "waived", "still fails"),  # the search overlooked it
        (row("pass"), PASSES, DAY, "stale", "passes now (32 runs): remove it"),
        (row("fail"), PASSES, DAY, "stale", "what fails now: was wrong"),
        (row("fail"), HOLDS, LATER, "fail", "its waiver expired on 2030-01-01"),
        (row("pass"), HOLDS, LATER, "fail", "its waiver expired on 2030-01-01"),
        (row("fail"), UNKNOWN, DAY, "stale", "nobody knows whether it still fails: no such thing"),
        (row("crash"), HOLDS, DAY, "crash", "was wrong"),  # worse than what is waived
        (row("unclaimed"), HOLDS, DAY, "stale", "does not claim"),
        (row("not_in_profile"), HOLDS, DAY, "not_in_profile", ""),
        (row("unavailable"), HOLDS, DAY, "unavailable", ""),
        (row("fail", "value.sum"), HOLDS, DAY, "fail", "was wrong"),  # another clause
        (row("fail", dtype="float32"), HOLDS, DAY, "fail", "was wrong"),  # another dtype
    ],
)
def test_what_a_waiver_makes_of_a_row(
    found: ClauseResult, rechecked: Rechecked, day: datetime.date, status: str, message: str
) -> None:
    (after,) = applied([found], [rechecked], day)
    assert after.status == status
    assert message in after.message


def toml(**changes: Any) -> str:
    given = {
        "target": "builtin", "clause": "value.mean", "reason": "known", "expires": DAY,
        "case": json.dumps(CASE.to_json()),
    }  # fmt: skip
    entries = {k: v for k, v in (given | changes).items() if v is not None}
    return written(entries, Path("conformance.toml"))


def parsed(text: str) -> tuple[Waiver, ...]:
    return parse(parse_text(text, Path("conformance.toml")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (toml(clause="value.maen"), "unknown clause 'value.maen', did you mean 'value.mean'"),
        (toml(reson="x"), "unknown key 'reson', did you mean 'reason'"),
        (toml(reason=" "), "reason must be a text that is not empty"),
        (toml(target=None), "target must be a text that is not empty"),
        (toml(expires=None), "expires is missing: write a date as 2030-01-31"),
        (toml(expires="next year"), "expires is 'next year'"),
        (toml(dtypes=["float8"]), "unknown dtype 'float8'"),
        (toml(dtypes=["float32"]), "its case is float16, which its dtypes leave out"),
        (toml(dtypes="float16"), "dtypes must be a list of names"),
        (toml(device="tpu"), "unknown device 'tpu'"),
        (toml(case="{}"), "case is not one that `loss-conformance waive` writes"),
        (toml(case="no JSON"), "case is not one"),
        (toml() + toml(), "waiver 2 overlaps waiver 1: both cover value.mean of builtin"),
        ("[waivers]\n", "unknown key 'waivers', did you mean 'waiver'"),
        ("waiver = 3\n", "[[waiver]]"),
        ("[[waiver]\n", "not TOML"),
    ],
)
def test_a_wrong_waiver_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    assert message in str(caught.value)
    assert "conformance.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_waivers_of_other_dtypes_or_devices_do_not_overlap() -> None:
    assert len(parsed(toml(dtypes=["float16"]) + toml(dtypes=["float32"], case=None))) == 2
    assert len(parsed(toml(device="cpu") + toml(device="cuda"))) == 2


def test_a_waiver_survives_being_written() -> None:
    (waiver,) = parsed(toml(reason='with "quotes", ünïcode 🙂, \\ and \n a line', link="u'v"))
    assert waiver.reason == 'with "quotes", ünïcode 🙂, \\ and \n a line'
    assert waiver.case == CASE
    assert Waiver.from_json(json.loads(json.dumps(waiver.to_json()))) == waiver


def test_an_unknown_target_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="unknown target 'bultin', did you mean"):
        check_targets(parsed(toml(target="bultin")), ["mine.py:x"], lambda: ["builtin", "cpp"])
    with pytest.raises(ConfigurationError, match=r"no such file: gone\.py"):
        check_targets(parsed(toml(target="gone.py:loss")), [], list)


def test_a_file_names_the_same_target_from_wherever(tmp_path: Path) -> None:
    waiver = Waiver("./a/../mine.py:loss", "value.mean", "known", DAY)
    assert waiver.concerns("loss", "mine.py:loss", "cpu")
    assert not waiver.concerns("loss", "mine.py:other", "cpu")
    assert not waiver.concerns("loss", "yours.py:loss", "cpu")
    on_cuda = Waiver("mine", "value.mean", "known", DAY, device="cuda")
    assert on_cuda.concerns("mine", "", "cuda:1")
    assert not on_cuda.concerns("mine", "", "cpu")


def test_two_configurations_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "conformance.toml").write_text(toml())
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert len(find(tmp_path).waivers) == 1
    (tmp_path / "pyproject.toml").write_text(
        written({"target": "builtin"}, tmp_path / "pyproject.toml")
    )
    with pytest.raises(ConfigurationError, match="keep one of them"):
        find(tmp_path)
    (tmp_path / "conformance.toml").unlink()
    assert find(tmp_path).waivers == ({"target": "builtin"},)
    (tmp_path / "pyproject.toml").unlink()
    assert find(tmp_path) == Configuration()


FLAKY = """
import random, torch, torch.nn.functional as F
chance = random.Random({seed})

def loss(x, y, reduction="mean"):
    result = F.mse_loss(x, y, reduction=reduction)
    if result.dtype == torch.float16 and reduction == "mean" and chance.random() < 0.2:
        return result * 1.25
    return result{more}
"""


def flaky(folder: Path, seed: int, more: str = "") -> str:
    (folder / "flaky.py").write_text(FLAKY.format(seed=seed, more=more))
    return f"{folder / 'flaky.py'}:loss"


def test_a_flaky_deviation_is_waived_with_every_seed(tmp_path: Path) -> None:
    statuses = set()
    for seed in range(20):
        session = session_on(resolve(flaky(tmp_path, seed)), seed=seed)
        done = recheck(session, WAIVER)
        found = "pass" if seed % 2 else "fail"  # whether the search has met it or not
        (after,) = applied([row(found)], [done], DAY)
        statuses.add(after.status)
    assert statuses == {"waived"}


def test_a_mended_deviation_is_stale() -> None:
    done = recheck(session_on("builtin"), WAIVER)
    assert not done.holds
    assert done.runs == 32


def test_an_experiment_is_its_own_case() -> None:
    session = session_on("tutorial-module")
    waiver = Waiver("tutorial-module", "broadcasting.warning", "known", DAY)
    assert recheck(session, waiver).holds
    assert not recheck(session_on("builtin"), waiver).holds


def test_a_waiver_of_generated_cases_needs_its_case() -> None:
    done = recheck(session_on("builtin"), Waiver("builtin", "value.mean", "x", DAY))
    assert done.status == "unavailable"
    assert "`loss-conformance waive`" in done.message


CLAUSES = "value.mean,value.mean_overflow,value.scalar"
QUICK = ("--profile", "quick", "--clause", CLAUSES, "--jobs", "1", "--report", "out")


def test_from_a_failure_to_a_waiver_and_back(tmp_path: Path) -> None:
    """Waive what fails; a new failure shows nevertheless; what is mended makes the waiver stale."""
    head = "import torch.nn.functional as F\ndef loss(x, y, reduction='mean'):\n"
    overflows = "    if reduction == 'mean': return (x - y).square().sum() / (x - y).numel()\n"
    of_scalars = "    if x.ndim == 0: return F.l1_loss(x, y, reduction=reduction)\n"
    rest = "    return F.mse_loss(x, y, reduction=reduction)\n"
    mine, verdict = tmp_path / "mine.py", "out/loss/verdict.json"
    mine.write_text(head + overflows + rest)
    before = inside("check", "mine.py:loss", *QUICK, cwd=tmp_path)
    assert before.returncode == 1
    assert "DOES NOT CONFORM: value.mean_overflow (" in before.stdout
    waiving = ("waive", verdict, "value.mean_overflow", "--reason", "known", "--link", "issue 1")
    waived = inside(*waiving, cwd=tmp_path)
    assert waived.returncode == 0, waived.stderr
    after = inside("check", "mine.py:loss", *QUICK, cwd=tmp_path)
    assert after.returncode == 0, after.stdout
    assert "CONFORMS" in after.stdout
    assert "waived: value.mean_overflow" in after.stdout

    again = inside(*waiving, cwd=tmp_path)
    assert again.returncode == 2  # nothing fails any more: it is waived
    assert "no failure of value.mean_overflow" in again.stderr

    mine.write_text(head + overflows + of_scalars + rest)
    new = inside("check", "mine.py:loss", *QUICK, cwd=tmp_path)
    assert new.returncode == 1
    assert "DOES NOT CONFORM: value.scalar (" in new.stdout

    mine.write_text(head + rest)
    stale = inside("check", "mine.py:loss", *QUICK, cwd=tmp_path)
    assert stale.returncode == 1
    assert "stale waiver, its case passes now" in stale.stdout

    text = (tmp_path / "conformance.toml").read_text()
    (tmp_path / "conformance.toml").write_text(text.replace("value.mean_o", "value.maen_o"))
    misspelt = inside("check", "mine.py:loss", *QUICK, cwd=tmp_path)
    assert misspelt.returncode == 2
    assert "did you mean 'value.mean_overflow'" in misspelt.stderr


@pytest.mark.full
def test_what_a_waived_value_hides_makes_the_verdict_incomplete() -> None:
    """Clauses that wait for a right value say nothing; a waiver of it must not make them pass."""
    verdict = judge(lambda x, y, reduction="mean": (x - y).square().mean() * 1.25, profile="quick")
    plain_value = next(r for r in verdict.failures if r.id == "value.mean")
    body = verdict.to_json()
    waivers = [
        parse(parse_text(written(made, Path("c.toml")), Path("c.toml")))[0]
        for clause in sorted({r.id for r in (*verdict.failures, *verdict.warnings)})
        for made in [entry(body, clause, "known", "", DAY)]
    ]
    rows = applied(verdict.clauses, [Rechecked(w, "fail", 1, "x") for w in waivers], DAY)
    after = type(verdict)(**{**vars(verdict), "clauses": rows})
    assert plain_value.status == "fail"
    assert not after.failures
    assert not after.complete
    assert not after.conforms
