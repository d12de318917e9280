"""What a terminal shows: snapshots of real runs, and that nothing ever takes more than a screen."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from syrupy.assertion import SnapshotAssertion

from conformance.clauses import CLAUSES
from conformance.report import terminal, watching
from conformance.report.progress import Progress, share
from conformance.report.text import DTYPES, SCREEN, plain, render, report
from conformance.verdict.verdict import unfinished
from tests.sampling import only

Json = dict[str, Any]

RIGHT = "F.mse_loss(x, y, reduction=reduction)"
# The body of each loss, the clauses that are looked at, and the exit status.
RUNS = {
    "pass": (f"return {RIGHT}", "value.*,layout.*,errors.*", 0),
    "failure": (
        "return F.mse_loss(x, y.detach(), reduction=reduction)",
        "value.*,gradient.*,layout.*,resources.*",
        1,
    ),
    "incomplete": ("raise ValueError('not yet')", "gradient.*", 3),
    "crash": (
        "if x.dtype == torch.float16 and tuple(x.shape) == (31,) and reduction == 'sum':\n"
        f"        ctypes.string_at(0)\n    return {RIGHT}",
        "value.*",
        1,
    ),
    "many failures": (
        "same = x.shape == y.shape and x.dtype == y.dtype and x.is_contiguous()\n"
        "    if not same or x.dim() == 0 or x.numel() == 0 or x.isnan().any():\n"
        "        raise NotImplementedError('not\\n\\x1b[31m yet')\n"
        "    torch.manual_seed(0)\n"
        "    x.detach().add_(0)\n"
        "    return F.mse_loss(x, y.detach(), reduction=reduction)",
        "value.*,gradient.*,broadcasting.*,dtypes.*,layout.*,purity.*",
        1,
    ),
}
SOURCE = """
import ctypes
import torch
import torch.nn.functional as F
from targets import DROP_IN, Target

def loss(x, y, reduction="mean"):
    {body}

mine = Target("mine", loss, DROP_IN - {{"compile", "export"}}, dtypes=("float32", "float16"))
"""


def command(folder: Path, name: str, *more: str) -> list[str]:
    """The command line that judges one of RUNS."""
    body, clauses, _ = RUNS[name]
    (folder / "mine.py").write_text(SOURCE.format(body=body))
    options = ["--profile", "quick", "--jobs", "1", "--clause", clauses, *more]
    return [sys.executable, "-m", "conformance", "check", "mine.py", *options]


def normalised(text: str) -> str:
    """Without what differs from run to run: seconds, versions; an escape as a visible character."""
    text = re.sub(r"\d+\.\d s\b", "N s", text)
    text = re.sub(r"(loss-conformance|python|torch|numpy) \d[\w.+]*", r"\1 N", text)
    return text.replace("\x1b", "␛").replace("\r\n", "\n")


@only(["failure", "incomplete", "crash"], "name", RUNS)
def test_piped(name: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    done = subprocess.run(
        command(tmp_path, name, "--report", "out"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env=os.environ | {"COLUMNS": "40"},  # no part in it
    )
    assert (done.returncode, done.stderr) == (RUNS[name][2], "")
    assert normalised(done.stdout) == snapshot


def on_a_terminal(arguments: list[str], folder: Path, **environ: str) -> str:
    """What ``arguments`` write to a terminal of 80 columns, on standard output and error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TTY_COMPATIBLE")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    process = subprocess.Popen(
        arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"} | environ,
    )
    os.close(theirs)
    read = b""
    with contextlib.suppress(OSError):  # the other end has been closed
        while chunk := os.read(ours, 65536):
            read += chunk
    os.close(ours)
    process.wait()
    return read.decode()


SHOW_CURSOR = "\x1b[?25h"  # the line of progress has ended


def test_on_a_terminal(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    shown = on_a_terminal(command(tmp_path, "failure"), tmp_path)
    progress, _, rest = shown.rpartition(SHOW_CURSOR)
    assert re.search(
        r"mine.* cases, .* left.*failing: gradient\.target", progress.replace("\x1b", "")
    )
    assert progress.count("\n") == 1  # one line, written over, and gone in the end
    assert normalised(rest) == snapshot


def test_the_styles_that_are_asked_for(tmp_path: Path) -> None:
    verdict = made(row(message="result is inf, permitted: 1.0 (0x1p+0)"))
    colours = re.compile(r"\x1b\[[\d;]*3[0-9][\d;]*m")
    show = "from conformance.report.terminal import show"
    code = f"import json, sys; {show}\nshow(json.loads(sys.argv[1]), {{}})"
    arguments = [sys.executable, "-c", code, json.dumps(verdict)]
    shown = partial(on_a_terminal, arguments, tmp_path)
    assert colours.search(shown())
    assert not colours.search(shown(NO_COLOR="1"))
    assert "\x1b" not in shown(TERM="dumb")
    piped = partial(subprocess.run, arguments, capture_output=True, text=True, check=True)
    plain_environment = os.environ | {"TERM": "xterm-256color"}
    plain_environment.pop("FORCE_COLOR", None)
    assert "\x1b" not in piped(env=plain_environment).stdout
    assert colours.search(piped(env=plain_environment | {"FORCE_COLOR": "1"}).stdout)
    # Whatever the colours are, the words are the same.
    bare = re.sub(r"\x1b\[[\d;]*m", "", shown()).replace("\r\n", "\n")
    assert bare.split() == piped(env=plain_environment).stdout.split()


# -- no failure takes more than a screen ---------------------------------------------------------

CASE = {
    "input": {
        "dtype": "float32",
        "shape": [2] * 6,
        "layout": "channels_last",
        "fill": {"regime": "square_edge", "seed": 1},
    },
    "reduction": "none",
    "same": False,
    "mode": "grad",
    "needs": [True, True],
}
CASE["target"] = CASE["grad_output"] = CASE["input"]


def row(clause: str = "value.mean", dtype: str = "float32", **changes: Any) -> Json:
    """A broken row; the changes are of its counterexample."""
    found = {"message": "", "case": None, "script": ""} | changes
    return {
        "id": clause,
        "level": "must",
        "status": "fail",
        "dtype": dtype,
        "examples": 1,
        "worst": None,
        "counterexample": found,
    }


def made(*rows: Json) -> Json:
    """A verdict with these rows."""
    verdict = unfinished("mine", "mine.py:mine", "cpu", "quick", 0).to_json()
    return verdict | {"clauses": list(rows)}


UGLY = st.one_of(
    st.text(st.characters(), max_size=300),
    st.sampled_from(
        ["x", "x ", "語", "x\n", "\x1b[2J", "\udc80", "[red]", "a, permitted: ", "e\u0301"]
    ).flatmap(lambda piece: st.sampled_from([1, 80, 3000]).map(lambda n: piece * n)),
)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    width=st.sampled_from([40, 80, 100]),
    texts=st.tuples(UGLY, UGLY, UGLY, UGLY),
    case=st.sampled_from([None, CASE]),
    folder=st.sampled_from([None, Path("out"), Path("x" * 250, "y" * 250)]),
)
def test_no_failure_takes_more_than_a_screen(
    width: int, texts: tuple[str, str, str, str], case: Json | None, folder: Path | None
) -> None:
    message, script, cause, sentence = texts
    statuses = [row(dtype=d, message=message, case=case, script=script) for d in DTYPES]
    statuses[0]["counterexample"]["cause"] = {"id": "x", "text": cause}
    verdict = made(*statuses)
    begin = "value.mean"
    rendered = plain(report(verdict, {begin: sentence}, folder, width), width)
    rendered.encode()
    assert "\x1b" not in rendered
    lines = rendered.split("\n")
    assert all(cell_len(line) <= width for line in lines)
    first = next(k for k, line in enumerate(lines) if line.startswith(f"  {begin}"))
    last = next(k for k, line in enumerate(lines) if line.startswith("mine DOES NOT"))
    assert last - first <= SCREEN


def test_got_and_permitted_are_shown_together() -> None:
    text = render(made(row(message="result is 2.0 (0x1p+1), permitted: 1.0 (0x1p+0) or nan")), {})
    assert "    found      result is 2.0 (0x1p+1)\n    permitted  1.0 (0x1p+0) or nan\n" in text


def test_a_likely_cause_is_told() -> None:
    cause = {"id": "factor_2", "text": "It is twice what it should be."}
    assert "    likely     It is twice" in render(made(row(message="x", cause=cause)), {})


def test_a_script_is_shown_whole_or_not_at_all() -> None:
    short, long = "import torch\nprint(1)\n", "import torch\n" + "print(1)\n" * 30
    wide, odd = "x = [" + "1.0, " * 40 + "]", "print('\x1b')"
    assert "      import torch\n      print(1)\n" in render(made(row(script=short)), {})
    for script in (long, wide, odd):
        text = render(made(row(script=script)), {}, Path("out"))
        assert f"script     python {Path('out/repro/value.mean.py')}\n" in text
        assert "print" not in text
        assert "--report DIR" in render(made(row(script=script)), {})


def test_of_many_failures_the_first_are_in_full_and_no_other_is_left_out() -> None:
    ids = [clause.id for clause in CLAUSES[:20]]
    text = render(made(*(row(clause, message=f"about {clause}\n" * 50) for clause in ids)), {})
    assert "Broken: 20 clauses" in text
    assert "The other 15, in full with --report DIR:" in text
    for clause in ids:
        assert len(re.findall(rf"^  {clause}  fail: float32", text, re.MULTILINE)) == 1
    assert text.count("    found      about") == 5
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert text.splitlines()[-1].startswith("mine DOES NOT CONFORM: ")


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_does_not_break_the_table(width: int) -> None:
    good = {"level": "must", "status": "pass", "examples": 9, "worst": 1.0}
    rows = [{"id": f"{f}.x", "dtype": d} | good for f in ("broadcasting", "value") for d in DTYPES]
    shown = plain(report(made(*rows), {}, None, width), width)
    assert max(map(cell_len, shown.split("\n"))) <= width
    cells = [line.split() for line in shown.split("\n") if "1/1" in line]
    if width == 40:
        assert cells == [[r["id"][:-2], r["dtype"], "1/1", "1.00"] for r in rows]
    else:
        assert cells == [[f, *["1/1", "1.00"] * 4] for f in ("broadcasting", "value")]


def test_an_interrupted_verdict_is_shown_as_one() -> None:
    text = render(made(), {})
    assert text.endswith("\n\nmine INCOMPLETE: the run did not end\n")


# -- progress ------------------------------------------------------------------------------------


def test_progress_in_a_line() -> None:
    now = Progress("mine", 0.25, 10.0, 1402, ("value.mean", "layout.value"), lost=2)
    assert now.left == 30.0
    assert str(now) == (
        "mine: 1,402 cases, 25% done, 30 s left; 2 failing: value.mean, layout.value; 2 calls lost"
    )
    assert Progress("mine").left is None
    assert "3 to make smaller" in str(Progress("mine", 1.0, 9.0, 1402, shrinking=3))
    assert "20 min left" in str(Progress("mine", 0.5, 1200.0))


def test_the_share_of_the_work_counts_what_shards_take() -> None:
    planned = ["examples"] * 5 + ["experiments"]
    assert share([], planned) == 0
    assert share(["examples"] * 5, planned) == share(["experiments"], planned) == 0.5
    assert share(planned, planned) == 1


def test_progress_elsewhere_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()

    def progress() -> Progress:
        told.set()
        return Progress("mine", 0.5, 10.0, 100)

    with terminal.watching(progress):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(watching, "EVERY", 0.01)
    with terminal.watching(progress):
        assert told.wait(60)
    assert "loss-conformance: mine: 100 cases, 50% done, 10 s left\n" in capsys.readouterr().err
