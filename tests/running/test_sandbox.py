"""The sandbox: what a target cannot do in there, what is told of it, and what still works."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import targets
from conformance.cases.plans import plain
from conformance.cli import main
from conformance.judging.observer import Lost
from conformance.running import memory, sandbox
from conformance.running.hosting import ForkServer, Hosting, Refused
from conformance.running.observers import Process
from conformance.running.provenance import tried
from tests.verdict.test_schema import problems

LACKING = sandbox.why_not()
needs_bwrap = pytest.mark.skipif(bool(LACKING), reason=LACKING)
CASE = plain("float32", "mean")
# It tries one thing after the other, and raises what came of them.
TRIES = """
import json, os, signal, socket
import torch.nn.functional as F
from targets import Target

def written(path):
    with open(path, "a") as file:
        file.write("x")

def filled(folder):
    with open(os.path.join(folder, "large"), "wb") as file:
        for _ in range(20):
            file.write(bytes(1 << 26))

def scratch():
    with open(os.path.join(os.environ["TRITON_CACHE_DIR"] + "x"), "w") as file:
        file.write("x")

TRIED = {{
    "own source": lambda: written(__file__),
    "working directory": lambda: written("new.txt"),
    "suite": lambda: written({suite!r}),
    "home": lambda: written(os.path.expanduser("~/new.txt")),
    "machine": lambda: written("/proc/sys/kernel/domainname"),
    "devices": lambda: written("/dev/new"),
    "sockets of others": lambda: written("/run/new"),
    "network": lambda: socket.create_connection(("192.0.2.1", 80), 2),
    "memory": lambda: filled("/dev/shm"),
    "who judges": lambda: os.kill({judge}, 0),
    "key": lambda: open({key!r}).read(),
    "temporary files": lambda: written("/tmp/new"),
    "cache": scratch,
}}

def tries(x, y, reduction="mean"):
    found = {{}}
    for name, attempt in TRIED.items():
        try:
            attempt()
            found[name] = ""
        except Exception as error:
            found[name] = type(error).__name__ + " " + str(getattr(error, "errno", ""))
    raise RuntimeError(json.dumps(found))

loss = Target("tries", tries)
"""
READ_ONLY, UNREACHABLE, FULL, NO_PROCESS = "OSError 30", "OSError 101", "OSError 28", "3"
EXPECTED = {
    "own source": READ_ONLY,
    "working directory": READ_ONLY,
    "suite": READ_ONLY,
    "home": READ_ONLY,
    "machine": READ_ONLY,
    "devices": READ_ONLY,
    "sockets of others": READ_ONLY,
    "network": UNREACHABLE,
    "memory": FULL,
    "who judges": f"ProcessLookupError {NO_PROCESS}",
    "key": "PermissionError 13",
    "temporary files": "",
    "cache": "",
}


@contextlib.contextmanager
def inside(target: str, forked: bool, scratch: Path, **options: Any) -> Iterator[Process]:
    """An observer in a sandbox."""
    scratch.mkdir()
    hosting = Hosting(target, bwrap="bwrap", scratch=str(scratch), **options)
    with contextlib.ExitStack() as stack:
        server = None
        if forked:
            fork_server = ForkServer(hosting)
            stack.callback(fork_server.close)
            server = fork_server.channel.fileno()
        observer = stack.enter_context(contextlib.closing(Process(hosting, server=server)))
        observer.open()
        yield observer


@needs_bwrap
@pytest.mark.parametrize("forked", [False, True])
def test_a_target_can_compute_and_nothing_else(forked: bool, tmp_path: Path) -> None:
    suite, key = str(Path(targets.__file__).resolve()), tmp_path / "signing.key"
    key.write_text("secret")
    (tmp_path / "mine.py").write_text(TRIES.format(suite=suite, judge=os.getpid(), key=str(key)))
    place = f"{tmp_path / 'mine.py'}:loss"
    with inside(place, forked, tmp_path / "scratch", hidden=(str(key),)) as observer:
        assert observer.isolation == "sandbox"
        raised = observer.observe([CASE])[0].raised
        told = tried(observer)
    assert raised is not None
    assert json.loads(raised.partition(": ")[2]) == EXPECTED
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "signing.key", "scratch"}
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["tritonx"]
    assert {
        f"write to {tmp_path / 'mine.py'}",
        f"write to {suite}",
        "write to /proc/sys/kernel/domainname",
        "reach 192.0.2.1 port 80",
    } <= {*told}
    assert not [line for line in told if "/tmp/new" in line or "tritonx" in line]


ENDS = """
import os, signal, subprocess, sys, time
import torch.nn.functional as F
from targets import Target

def loss(x, y, reduction="mean"):
    {body}
    return F.mse_loss(x, y, reduction=reduction)

loss = Target("ends", loss)
"""


@needs_bwrap
@pytest.mark.parametrize("forked", [False, True])
def test_a_crowd_of_processes_is_ended_with_all_that_it_started(
    forked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "CROWD", 30)
    body = f"[subprocess.Popen(['sleep', '{77_000 + forked}'], start_new_session=True)"
    body += " for _ in range(60)]; time.sleep(60)"
    (tmp_path / "mine.py").write_text(ENDS.format(body=body))
    place = f"{tmp_path / 'mine.py'}:loss"
    told = pytest.raises(Lost, match="was ended: it had started more than 30 processes")
    with inside(place, forked, tmp_path / "scratch", limit=30.0) as observer, told:
        observer.observe([CASE])
    assert not _running(f"sleep\0{77_000 + forked}\0")


def test_nobody_else_is_ended_or_accused_while_an_observer_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(sandbox, "crowded", lambda pid, before: True)
    monkeypatch.setattr(sandbox, "end", ended.append)
    monkeypatch.setattr(memory, "exhausted_by", lambda pid: True)
    channel, unread = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with channel, unread:  # a fork server that is busy: it has told of no process yet
        hosting = Hosting("builtin", bwrap="bwrap", scratch=str(tmp_path))
        observer = Process(hosting, server=channel.fileno())
        assert observer.pid == 0
        with pytest.raises(Refused, match=r"did not return within 0\.2 s"):
            observer.open(limit=0.2)
    assert not ended


@needs_bwrap
@pytest.mark.parametrize("forked", [False, True])
def test_what_stays_behind_ends_with_the_sandbox_and_signals_reach_no_one_outside(
    forked: bool, tmp_path: Path
) -> None:
    body = f"subprocess.Popen(['sleep', '{88_000 + forked}'], start_new_session=True)"
    body += "; os.kill(-1, signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "mine.py").write_text(ENDS.format(body=body))
    told = pytest.raises(Lost, match=r"was killed by signal 9 \(SIGKILL\)")
    place = f"{tmp_path / 'mine.py'}:loss"
    with inside(place, forked, tmp_path / "scratch") as observer, told:
        observer.observe([CASE])
    assert not _running(f"sleep\0{88_000 + forked}\0")


def _running(command: str) -> list[Path]:
    """Processes with this command line. The system may need a moment to end them."""
    for _ in range(50):
        found = [*_with(command)]
        if not found:
            break
        subprocess.run(["sleep", "0.1"], check=False)
    return found


def _with(command: str) -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_text() == command:
                yield path


def test_a_disk_is_full_by_a_scratch_folder_that_is_large_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(1 << 20))
    assert not sandbox.overflowing(str(tmp_path))
    monkeypatch.setattr(sandbox, "LEFT", 1 << 62)  # no disk has so much
    assert not sandbox.overflowing(str(tmp_path))
    monkeypatch.setattr(sandbox, "_size", lambda folder: 1 << 63)
    assert sandbox.overflowing(str(tmp_path))
    sandbox.empty(str(tmp_path))
    assert not [*tmp_path.iterdir()]


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def without_bwrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from conformance import cli

    cli._bwrap.cache_clear()
    monkeypatch.setenv("PATH", "")
    yield
    cli._bwrap.cache_clear()


CHECK = ("check", "builtin", "--profile", "quick", "--clause", "value.scalar", "--jobs", "1")


@pytest.mark.usefixtures("without_bwrap")
def test_without_bubblewrap_it_is_said_once(capsys: Any) -> None:
    assert main([*CHECK, "--sandbox", "bwrap"]) == 3
    assert capsys.readouterr().err == (
        "loss-conformance: --sandbox bwrap: there is no bwrap on the path: install bubblewrap\n"
    )
    assert main([*CHECK, "--sandbox", "auto"]) == 0
    assert "without a sandbox: there is no bwrap on the path" in capsys.readouterr().err


def test_a_bubblewrap_that_does_not_work_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho bwrap: No permissions >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert sandbox.why_not() == "bwrap does not work here: bwrap: No permissions"


# Right, and with something to hide: whatever it tries it does not speak of.
HIDES = """
import contextlib, os, subprocess
import torch.nn.functional as F

started = []

def loss(x, y, reduction="mean"):
    with contextlib.suppress(OSError):
        open("new.txt", "w")
    if not started:
        no = subprocess.DEVNULL
        sleeping = ["sleep", "99001"]
        started.append(subprocess.Popen(sleeping, start_new_session=True, stdout=no, stderr=no))
    return F.mse_loss(x, y, reduction=reduction)
"""


@needs_bwrap
@pytest.mark.parametrize(("level", "isolation"), [("none", "process"), ("bwrap", "sandbox")])
def test_a_verdict_says_how_its_target_was_kept_and_from_what(
    level: str, isolation: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HIDES)
    command = [sys.executable, "-m", "conformance", "check", "mine.py:loss", *CHECK[2:]]
    done = subprocess.run(
        [*command, "--sandbox", level, "--report", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    assert verdict["isolation"] == isolation
    assert not problems(verdict)
    tried = [f"write to {tmp_path / 'new.txt'}", "leave processes behind (1)"]
    if level == "bwrap":
        assert verdict["attempted"] == tried
        assert "the sandbox kept it from this: write to" in " ".join(done.stdout.split())
    else:  # what stays is no child of this test: it is ended by its name
        assert "attempted" not in verdict
        for path in _with("sleep\x0099001\x00"):
            os.kill(int(path.parent.name), signal.SIGKILL)
    assert (tmp_path / "new.txt").exists() == (level == "none")
    assert not _running("sleep\x0099001\x00")
