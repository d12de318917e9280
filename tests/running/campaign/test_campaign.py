"""Whole campaigns on this machine: verdicts as ``check`` has them, and what bad kernels come to."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from conformance import cli
from conformance.running.campaign.ledger import Circumstances, Ledger
from conformance.running.campaign.task import Limits
from conformance.running.options import UsageError
from conformance.verdict.verdict import read_verdict
from tests.running.campaign.samples import RIGHT, folder, kernel, run, wrong

# Each waits for nobody, or for longer than a test may take.
BAD = {
    "forks": kernel("while True:\n    os.fork()"),
    "fills-memory": kernel("while True:\n    kept.append(torch.ones(2**26))", "kept = []"),
    "fills-disk": kernel(
        'with open("big", "wb") as file:\n    while True:\n        file.write(bytes(2**24))'
    ),
    "hangs": kernel("while True:\n    time.sleep(1)"),
    "ends": kernel("os._exit(3)"),
    "says-no-text": kernel('raise RuntimeError("\\ud800\\0</script>")'),
    "no-module": "import no_such_module\n",
    "no-python": "def loss(\n",
    "hangs-as-imported": "import time\ntime.sleep(1000)\n",
    "kills-its-judge": kernel(
        'line = open(f"/proc/{os.getppid()}/stat").read()\n'
        'os.kill(int(line.rpartition(")")[2].split()[1]), 9)'
    ),
    "leaves-a-daemon": kernel(
        "if not os.fork():\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
        f"    os.environ.clear()\n    time.sleep(1000)\nreturn {wrong(0.5).split('return ')[1]}"
    ),
}
REASONS = {
    "forks": {"processes"},
    "fills-memory": {"memory"},
    "fills-disk": {"disk"},
    "hangs": {"hang"},
    "ends": {"crash"},
    "says-no-text": {"value"},
    "no-module": {"import"},
    "no-python": {"import"},
    "hangs-as-imported": {"import"},
    "kills-its-judge": {"worker"},
    "leaves-a-daemon": {"value", "processes"},
    "right": {"conforms"},
}


def results(out: Path) -> dict[str, Any]:
    lines = (out / "results.jsonl").read_text().splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").glob("[0-9]*")}


@pytest.mark.full
def test_bad_kernels_are_findings_of_their_own_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "kernels", BAD | {"right": RIGHT})
    monkeypatch.setenv("BELONGS_TO_THIS_TEST", str(tmp_path))
    limits = Limits(compiling=40.0, memory=2**30, disk=2**28, processes=40)
    progress = run(source, tmp_path / "out", 8.0, jobs=2, limits=limits)
    found = results(tmp_path / "out")
    assert {name: found[name]["reason"] in REASONS[name] for name in found} == dict.fromkeys(
        REASONS, True
    ), {name: row["reason"] for name, row in found.items()}
    assert found["kills-its-judge"]["message"].startswith("3 workers that judged it ended")
    assert (progress.conforming, progress.broken, progress.lost) == (1, len(BAD), 3)
    assert not (tmp_path / "out" / "scratch").exists()
    left = [pid for pid in processes() if _has(pid, f"BELONGS_TO_THIS_TEST={tmp_path}")]
    assert left == [os.getpid()] * (os.getpid() in left)
    assert not list(tmp_path.rglob("big"))


def _has(pid: int, text: str) -> bool:
    try:
        return text.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


@pytest.mark.full
def test_a_verdict_is_that_of_check(tmp_path: Path) -> None:
    texts = {"right": RIGHT, "halves": wrong(0.5)}
    source = folder(tmp_path / "kernels", texts)
    run(source, tmp_path / "out", until="quick", seed=11, jobs=2)
    with Ledger(tmp_path / "out") as ledger:
        (row,) = {*ledger._file.execute("select spec, suite, seed, environment from verdicts")}
        kernels = {kernel.name: kernel.digest for kernel in ledger.kernels()}
        own = Circumstances(*row)
        whole = ledger.verdict(own, kernels["right"], "quick")
        screened = ledger.verdict(own, kernels["halves"], "screen")
    assert whole
    assert screened
    for name in texts:
        options = ["--profile", "quick", "--seed", "11", "--jobs", "1"]
        report = ["--report", str(tmp_path / name)]
        cli.main(["check", f"{source / name}.py:loss", *options, *report])
    checked = {name: read_verdict(tmp_path / name / "loss" / "verdict.json") for name in texts}
    same = ("spec", "suite", "device", "profile", "seed", "examples", "cases", "fingerprint")
    assert {k: whole[k] for k in same} == {k: checked["right"][k] for k in same}
    assert _told(whole) == _told(checked["right"])
    assert whole["conforms"]
    assert not screened["conforms"]
    assert _broken(screened) <= _broken(checked["halves"])
    assert results(tmp_path / "out")["halves"]["cause"] == "constant_factor"


def _told(verdict: dict[str, Any]) -> list[Any]:
    """The rows; what is measured (of memory, of time) is another each time."""
    return [[row[k] for k in ("id", "dtype", "status", "examples")] for row in verdict["clauses"]]


def _broken(verdict: dict[str, Any]) -> set[tuple[str, str]]:
    return {(r["id"], r["dtype"]) for r in verdict["clauses"] if r["status"] == "fail"}


@pytest.mark.full
def test_the_same_text_is_judged_once_and_a_changed_one_again(tmp_path: Path) -> None:
    source = folder(tmp_path / "kernels", {"a": wrong(2), "b": wrong(2)})
    out = tmp_path / "out"
    assert run(source, out).done == 1
    assert {*results(out)} == {"a", "b"}
    assert run(source, out).done == 0
    folder(source, {"b": wrong(3)})
    assert run(source, out).done == 1


@pytest.mark.full
def test_what_lies_beside_a_kernel_can_be_imported(tmp_path: Path) -> None:
    source = tmp_path / "mine.txt"
    folder(tmp_path, {"helper": RIGHT, "mine": "from helper import loss as right\nloss = right\n"})
    source.write_text("mine.py:loss\n")
    assert run(source, tmp_path / "out").conforming == 1


@pytest.mark.parametrize("option", ["loss", "until", "engine"])
def test_an_option_that_is_not_known_is_named(option: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "kernels", {"a": RIGHT})
    with pytest.raises(UsageError, match=f"--{option} nothing: use "):
        run(source, tmp_path / "out", **{option: "nothing"})


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "kernels", {"a": wrong(2)})
    options = ["--out", str(tmp_path / "out"), "--jobs", "1"]
    assert cli.main(["campaign", str(source), *options]) == 1
    output = capsys.readouterr().out
    assert output.startswith("committed to a secret seed, SHA-256 ")
    assert "0 of 1 kernels conform, 1 are broken, 0 unclear\n" in output
    assert cli.main(["campaign", str(tmp_path / "nowhere"), *options]) == 2
    assert tempfile.gettempdir() not in capsys.readouterr().out.replace(str(tmp_path), "")
