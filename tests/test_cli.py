"""The command line as a user meets it: exit statuses, messages, reports, crashes and hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import inside
from tests.pages import verdict
from tests.sampling import VERDICTS, every, only

PRELUDE = "import os, ctypes, sys, time\nimport torch\nimport torch.nn.functional as F\n"
RIGHT = "def loss(x, y, reduction='mean'):\n    return F.mse_loss(x, y, reduction=reduction)\n"


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300
    )


def write(folder: Path, source: str, name: str = "mine.py") -> str:
    """A file with ``source``; how to name its loss on the command line."""
    (folder / name).write_text(PRELUDE + source)
    return f"{folder / name}:loss"


def check(target: str, *more: str) -> subprocess.CompletedProcess[str]:
    return run("check", target, "--profile", "quick", "--jobs", "1", *more)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("check", "biultin"), 2, "unknown target 'biultin', did you mean 'builtin'?"),
        (("check", "no_such_module:loss"), 2, "cannot import no_such_module"),
        (("check", "missing.py:loss"), 2, "no such file: missing.py"),
        (("check", "builtin", "--profile", "slow"), 2, "unknown profile 'slow'"),
        (("check", "builtin", "--seed", "x"), 2, "--seed 'x'"),
        (("check", "builtin", "--jobs", "0"), 2, "'0' is not a positive whole number"),
        (("check", "builtin", "--timeout", "-1"), 2, "positive number of seconds"),
        (("check", "builtin", "--clause", "value.maen"), 2, "did you mean 'value.mean'"),
        (("check", "builtin", "--device", "tpu"), 3, "unknown device 'tpu'"),
        (("check", "builtin", "--device", "cuda:99"), 3, "not available"),
        (("replay", "missing.json"), 2, "missing.json"),
        (("gate", "missing.json"), 1, "REFUSED"),
        (("nonsense",), 2, "invalid choice"),
        ((), 2, "required"),
    ],
)
def test_bad_input_gets_one_clear_message(
    arguments: tuple[str, ...], status: int, message: str, tmp_path: Path
) -> None:
    result = inside(*arguments, cwd=tmp_path)
    assert result.returncode == status
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@every(
    5,
    "source, message",
    [
        ("import nothing_like_it\n", "ModuleNotFoundError"),
        ("loss = 3\n", "not callable"),
        ("def lose(x, y): pass\n", "did you mean 'lose'"),
        ("raise SystemExit(7)\n", "SystemExit"),
        ("def loss(:\n", "SyntaxError"),
        ("os._exit(7)\n", "ended with status 7 while it was imported"),
    ],
)
def test_a_file_that_gives_no_loss_is_explained(source: str, message: str, tmp_path: Path) -> None:
    result = check(write(tmp_path, source))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@every(
    4,
    "body, message",
    [
        ("return 1.0", "returned float"),
        ("return (x, y)", "returned tuple"),
        ("return None", "returned NoneType"),
        ("return torch.zeros(3, 7) + (x.sum() - y.sum())", "the result has shape"),
        ("raise ValueError('no luck')", "raised ValueError: no luck"),
        ("raise SystemExit(0)", "raised SystemExit"),
        ("return F.mse_loss(x, y, reduction=reduction).detach()", "no grad_fn"),
        ("return F.mse_loss(x, y, reduction=reduction).to_sparse()", "dense"),
    ],
)
def test_rubbish_is_a_finding(body: str, message: str, tmp_path: Path) -> None:
    target = write(tmp_path, f"def loss(x, y, reduction='mean'):\n    {body}\n")
    result = check(target, "--clause", "value.*,gradient.*")
    assert result.returncode == 1, result.stderr
    assert message in result.stdout
    assert "DOES NOT CONFORM" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_right_loss_conforms_and_its_verdict_is_written(tmp_path: Path) -> None:
    result = check(write(tmp_path, RIGHT), "--report", str(tmp_path / "out"))
    assert result.returncode == 0, result.stdout + result.stderr
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    assert verdict["conforms"]
    assert verdict["complete"]
    assert verdict["examples"] > 1000
    # It is no module, and its signature has neither a weight nor the deprecated flags.
    of_others = {"not_in_profile", "unclaimed"}
    lacked = ("module.", "weight.", "legacy.", "subclass.")
    passed = {row["id"] for row in verdict["clauses"] if row["status"] == "pass"}
    rest = {row["id"] for row in verdict["clauses"] if row["status"] != "pass"} - passed
    assert {row["status"] for row in verdict["clauses"]} == {"pass", *of_others}
    assert all(
        clause.startswith((*lacked, "transforms.", "value.wide", "gradient.", "resources."))
        for clause in rest
    )


CRASHES = {
    "segfault": ("ctypes.string_at(0)", "SIGSEGV", "crash"),
    "exit": ("os._exit(9)", "ended with status 9", "crash"),
    "hang": ("time.sleep(1000)", "did not return within 6 s", "timeout"),
    "spin": ("ctypes.PyDLL(None).pause()", "did not return within 6 s", "timeout"),
}


@only(["segfault"], "kind", CRASHES)
def test_a_call_that_ends_its_process_is_a_finding_and_the_rest_is_judged(
    kind: str, tmp_path: Path
) -> None:
    action, message, status = CRASHES[kind]
    source = (
        "def loss(x, y, reduction='mean'):\n"
        f"    if (x.shape, x.dtype, reduction) == ((31,), torch.float16, 'sum'): {action}\n"
        "    return F.mse_loss(x, y, reduction=reduction)\n"
    )
    folder = tmp_path / "out"
    target = write(tmp_path, source)
    result = run("check", target, "builtin", "--profile", "quick", "--jobs", "1", "--timeout", "6",
                 "--clause", "value.sum", "--report", str(folder))  # fmt: skip
    assert result.returncode == 1, result.stdout + result.stderr
    assert message in result.stdout
    rows = json.loads((folder / "loss" / "verdict.json").read_text())["clauses"]
    lost = [row for row in rows if row["status"] == status]
    assert lost
    assert lost[0]["counterexample"]["case"]["input"]["shape"]
    assert json.loads((folder / "builtin" / "verdict.json").read_text())["conforms"]


@pytest.mark.full
def test_only_the_first_call_may_take_longer_as_if_it_compiled(tmp_path: Path) -> None:
    source = (
        "calls = []\n"
        "def loss(x, y, reduction='mean'):\n"
        "    calls.append(x.shape)\n"
        "    if len(calls) == {0} and not os.path.exists({1!r}):\n"
        "        open({1!r}, 'w').close()\n"
        "        time.sleep(4)\n"
        "    return F.mse_loss(x, y, reduction=reduction)\n"
    )
    for call, status in ((1, 0), (2, 1)):
        slept = str(tmp_path / f"slept{call}")
        target = write(tmp_path, source.format(call, slept), f"slow{call}.py")
        result = run("check", target, "--profile", "quick", "--jobs", "1", "--timeout", "2",
                     "--clause", "value.mean")  # fmt: skip
        assert result.returncode == status, result.stdout + result.stderr
        assert ("did not return within 2 s" in result.stdout) == (status == 1)


@pytest.mark.full
def test_a_crash_under_pytest_xdist_is_a_finding_with_its_case(tmp_path: Path) -> None:
    source = (
        "from targets import Target\n"
        "def crashes(x, y, reduction='mean'):\n"
        "    if (x.shape, reduction) == ((31,), 'sum'): ctypes.string_at(0)\n"
        "    return F.mse_loss(x, y, reduction=reduction)\n"
        "loss = Target('loss', crashes, claims=frozenset(), dtypes=('float16',))\n"
    )
    command = [sys.executable, "-m", "pytest", "--pyargs", "conformance", "-q", "-n", "1"]
    options = ["--target", write(tmp_path, source), "--conformance-profile", "quick"]
    report = ["--conformance-report", str(tmp_path / "out"), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, *report], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    lost = [row for row in verdict["clauses"] if row["status"] == "crash"]
    assert lost
    assert lost[0]["counterexample"]["case"]["input"]["shape"]


def test_without_a_result_no_clause_has_evidence(tmp_path: Path) -> None:
    target = write(tmp_path, "def loss(x, y, reduction='mean'):\n    raise ValueError('no')\n")
    result = check(target, "--clause", "gradient.*")
    assert result.returncode == 3
    assert "INCOMPLETE" in result.stdout


STYLES = {
    "plain": RIGHT.replace("return", "return 1.01 *"),
    "mean only": "def loss(x, y):\n    return 1.01 * ((x - y) ** 2).mean()",
    "class": "class loss(torch.nn.MSELoss):\n"
    "    def forward(self, x, y):\n        return 1.01 * super().forward(x, y)",
    "bare class": "class loss(torch.nn.Module):\n"
    "    def forward(self, x, y):\n        return 1.01 * F.mse_loss(x, y)",
    "target": RIGHT.replace("return", "return 1.01 *").replace("loss(", "wrong(", 1)
    + "from targets import Target\nloss = Target('mine', wrong)\n",
}


@only(["target"], "style", STYLES)
def test_the_script_of_a_failure_runs_by_itself(style: str, tmp_path: Path) -> None:
    target = write(tmp_path, STYLES[style])
    check(target, "--clause", "value.mean", "--report", str(tmp_path))
    (path,) = tmp_path.glob("*/verdict.json")
    rows = json.loads(path.read_text())["clauses"]
    script = next(r["counterexample"]["script"] for r in rows if r["status"] == "fail")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("result is ")


def test_a_terminated_run_leaves_no_worker_and_an_incomplete_verdict(tmp_path: Path) -> None:
    source = (
        "from pathlib import Path\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def loss(x, y, reduction='mean'):\n"
        "    (folder / f'{os.getpid()}.pid').touch()\n"
        "    while True: time.sleep(0.01)\n"
    )
    command = [sys.executable, "-m", "conformance", "check", write(tmp_path, source), "--report"]
    process = subprocess.Popen([*command, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not (pids := list(tmp_path.glob("*.pid"))):
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 3
    assert "interrupted" in (process.stderr.read() if process.stderr else "")
    assert not json.loads((tmp_path / "loss" / "verdict.json").read_text())["complete"]
    time.sleep(1)
    assert not [pid for pid in pids if Path("/proc", pid.stem).exists()]


@VERDICTS
def test_gate_accepts_whole_verdicts_only(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(verdict("builtin")))
    quick = inside("gate", str(path))
    assert quick.returncode == 1
    assert "profile quick, less than default" in quick.stdout
    path.write_text(path.read_text().replace('"quick"', '"default"'))
    edited = inside("gate", str(path))
    assert edited.returncode == 1
    assert "it was edited" in edited.stdout
    path.write_text(path.read_text()[:500])
    assert "not whole JSON" in inside("gate", str(path)).stdout


def test_replay_runs_the_counterexamples_against_the_present_code(tmp_path: Path) -> None:
    wrong = RIGHT.replace("return F", "return 0.5 * F")
    target = write(tmp_path, wrong)
    check(target, "--clause", "value.mean", "--report", str(tmp_path))
    verdict = str(tmp_path / "loss" / "verdict.json")
    broken = run("replay", verdict)
    assert broken.returncode == 1
    assert "value: result is" in broken.stdout
    write(tmp_path, RIGHT)
    mended = run("replay", verdict)
    assert mended.returncode == 0, mended.stdout
    assert "as permitted now" in mended.stdout


def test_selected_clauses_alone_are_looked_at(tmp_path: Path) -> None:
    check("builtin", "--clause", "layout.*", "--report", str(tmp_path))
    verdict = json.loads((tmp_path / "builtin" / "verdict.json").read_text())
    seen = {row["id"] for row in verdict["clauses"]}
    assert seen == {"layout.value", "layout.gradient", "layout.shared", "layout.negative"}
    assert verdict["complete"]


def test_clauses_may_be_selected_in_several_ways(tmp_path: Path) -> None:
    options = ("--clause", "layout.value", "--clause", "errors.*,value.mean")
    check("builtin", *options, "--report", str(tmp_path))
    verdict = json.loads((tmp_path / "builtin" / "verdict.json").read_text())
    assert verdict["selected"] == "layout.value,errors.*,value.mean"
    seen = {row["id"] for row in verdict["clauses"]}
    assert {"layout.value", "value.mean"} < seen
    assert {clause for clause in seen if not clause.startswith("errors.")} == {
        "layout.value",
        "value.mean",
    }
    wrong = inside("check", "builtin", "--clause", "layout.*,value.maen")
    assert (wrong.returncode, "did you mean 'value.mean'" in wrong.stderr) == (2, True)


def test_output_that_nobody_reads_to_the_end(tmp_path: Path) -> None:
    options = ("--profile", "quick", "--jobs", "1", "--clause", "layout.*", "--report", "out")
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance", "check", "builtin", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()
    assert json.loads((tmp_path / "out" / "builtin" / "verdict.json").read_text())["complete"]


def test_output_that_cannot_hold_every_character() -> None:
    command = [sys.executable, "-m", "conformance", "clauses"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "every element is \\u2113(x - y)." in done.stdout


def test_lists() -> None:
    assert "tutorial-function" in inside("targets").stdout
    assert "broadcasting.gradient" in inside("clauses").stdout
    assert run("--version").stdout.startswith("loss-conformance ")
