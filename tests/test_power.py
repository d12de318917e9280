"""The power run itself: it tells what survives, what is rejected though right, and what is slow."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from conformance.clauses import CLAUSES
from tests import power
from tests.mutants import CUDA_MUTANTS, LENIENT, MUTANTS
from tests.mutants.witnesses import restored
from tests.pool import Pool, ended
from tests.power import Power, Task, Trial, assemble, main, trial, write
from tests.right import RIGHT


def forked() -> Pool:
    return Pool(1, multiprocessing.get_context("fork"))


def dies_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def dies(path: Path) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def test_a_trial_whose_process_died_is_tried_again(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    assert sorted(ended(forked, dies_once, paths, str)) == ["a", "b", "c"]


def test_one_whose_process_always_dies_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f"5 times a process died.*{tmp_path.name}"):
        list(ended(forked, dies, [tmp_path], str))


def judged(name: str, *, early: bool = False) -> Trial:
    with restored():
        return trial(Task(name, "quick", early=early))


def test_a_mutant_is_rejected_at_its_first_failing_clause() -> None:
    seen = judged("none-reduced", early=True)
    assert seen.must
    assert seen.profile == "quick"
    assert seen.first == seen.seconds


def test_a_right_implementation_has_neither_failures_nor_gaps() -> None:
    seen = judged("square-method")
    assert (seen.must, seen.missing, seen.first) == ((), (), None)


@pytest.mark.full
def test_a_lenient_one_breaks_a_should_alone() -> None:
    seen = judged("silent-broadcast")
    assert (seen.must, seen.should) == ((), ("broadcasting.warning",))


@pytest.mark.parametrize(
    ("bank", "must", "problem"),
    [
        ("mutants", (), "mutants that survive"),
        ("right", ("value.none",), "right implementations that are rejected"),
        ("lenient", (), "lenient implementations that are misjudged"),
        ("lenient", ("value.none",), "lenient implementations that are misjudged"),
    ],
)
def test_what_is_misjudged_is_a_problem(bank: str, must: tuple[str, ...], problem: str) -> None:
    wrong = Trial("one", 0, "quick", 1.0, must=must)
    banks = {"mutants": (), "right": (), "lenient": ()} | {bank: (wrong,)}
    problems = Power(**banks, complete=False).problems()
    assert [what for what, names in problems.items() if names] == [problem]
    assert "one" in problems[problem][0]


def test_a_right_one_without_evidence_is_a_problem() -> None:
    trials = (Trial("one", 0, "quick", 1.0, missing=("value.none float32",)),)
    assert Power((), (), trials, complete=False).rejected() == [
        "one (quick, seed 0): value.none float32"
    ]


def test_a_clause_that_nothing_breaks_is_a_problem() -> None:
    both = Trial("both", 0, "quick", 1.0, must=("value.none", "layout.value"))
    alone = Trial("alone", 0, "quick", 1.0, must=("layout.value", "layout.gradient"))
    found = Power((both, alone), (), (), complete=True)
    assert "value.none" not in found.unbroken()
    assert "value.sum" in found.unbroken()
    assert "value.none" in found.never_alone()
    assert "layout.value" not in found.never_alone()


def test_the_table_has_a_row_for_each_mutant_and_a_column_for_each_clause(tmp_path: Path) -> None:
    seen = Trial(MUTANTS[0].target.name, 0, "quick", 1.0, 0.5, ("value.none",))
    write(assemble([seen], complete=False), tmp_path)
    rows = list(csv.DictReader((tmp_path / "power.csv").open(encoding="utf-8")))
    assert [row["mutant"] for row in rows] == [seen.name]
    assert list(rows[0])[2:] == [c.id for c in CLAUSES]
    assert [c for c, cell in rows[0].items() if cell == "1"] == ["value.none"]
    assert f"| {seen.name} | 0.50 | value.none |" in (tmp_path / "power.md").read_text("utf-8")


@pytest.mark.parametrize(("must", "status"), [(("value.none",), 0), ((), 1)])
def test_the_exit_status_says_whether_anything_survived(
    must: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Trial(MUTANTS[0].target.name, 0, "quick", 1.0, 0.5, must)
    monkeypatch.setattr(power, "measure", lambda tasks, jobs: [seen])
    assert main(["--only", seen.name, "--out", str(tmp_path)]) == status


def test_every_implementation_has_a_name_of_its_own() -> None:
    names = [m.target.name for m in (*MUTANTS, *CUDA_MUTANTS, *LENIENT)] + [t.name for t in RIGHT]
    assert len(names) == len(set(names))
    assert (len(MUTANTS) >= 150, len(RIGHT) >= 40) == (True, True)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_what_runs_on_a_gpu_alone_is_judged_there_alone(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Task] = []
    monkeypatch.setattr(power, "measure", lambda tasks, jobs: asked.extend(tasks) or [])
    main(["--device", device, "--out", str(tmp_path)])
    names = {task.name for task in asked}
    on_gpu = device != "cpu"
    assert {m.target.name for m in MUTANTS} <= names
    assert names.issuperset(m.target.name for m in CUDA_MUTANTS) == on_gpu
    assert ("masked" in names) != on_gpu
    assert {task.device for task in asked} == {device}


def test_a_mutant_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "half-factor", "no-such-one"])
    assert capsys.readouterr().err.endswith("error: no such mutant: no-such-one\n")


def test_five_seeds_of_every_fifth_right_one_are_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Task] = []
    monkeypatch.setattr(power, "measure", lambda tasks, jobs: asked.extend(tasks) or [])
    main(["--right-only", "--every", "5", "--seed", "7", "--seeds", "5", "--out", str(tmp_path)])
    assert sorted(t.name for t in asked) == sorted(t.name for t in power.SOUND)
    assert {t.seed for t in asked} == set(range(7, 12))


def test_three_parts_are_all_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Task] = []
    monkeypatch.setattr(power, "measure", lambda tasks, jobs: asked.extend(tasks) or [])
    for part in ("0/3", "1/3", "2/3"):
        main(["--mutants-only", "--quick", "--part", part, "--out", str(tmp_path)])
    lenient = {m.target.name for m in LENIENT}
    names = [task.name for task in asked if task.name not in lenient]
    assert sorted(names) == sorted(m.target.name for m in power.ON_CPU)


@pytest.mark.parametrize("part", ["3/3", "1", "-1/3", "a/b"])
def test_a_part_that_is_none_is_named(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([f"--part={part}"])
    assert f"'{part}' is not K/N, with K below N" in capsys.readouterr().err
