"""A secret seed is committed to when a run begins, and told when it has ended, never before."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.plans import plain
from conformance.judging.experiments import run_experiment
from conformance.running.observers import InProcess
from conformance.running.session import Session
from conformance.verdict.commitment import Secret, kept
from conformance.verdict.verdict import DamagedVerdict, digest, read_verdict

Json = dict[str, Any]
# Right; it keeps what the files of the run say, and the command lines of all processes.
READER = """
import glob, os, torch

SEEN = {seen!r}

def text(path):
    try:
        return open(path).read().replace(chr(0), " ")
    except OSError:
        return ""

def loss(input, target, reduction="mean"):
    if not os.path.exists(SEEN):
        lines = map(text, glob.glob("/proc/[0-9]*/cmdline"))
        open(SEEN, "w").write(text({verdict!r}) + " ".join(lines))
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", "check", "mine.py:loss", "--profile", "quick"]
    return subprocess.run(
        [*command, "--clause", "value.size", "--jobs", "1", "--report", "out", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_committed_to_and_told_in_the_end(tmp_path: Path) -> None:
    path, seen = tmp_path / "out/loss/verdict.json", tmp_path / "seen"
    source = READER.format(seen=str(seen), verdict=str(path))
    (tmp_path / "mine.py").write_text(source)
    done = run(tmp_path, "--seed", "secret")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = read_verdict(path)
    seed, told = verdict["seed"], verdict["commitment"]
    text = f"{seed} {told['nonce']}".encode()
    assert hashlib.sha256(text).hexdigest() == told["sha256"]
    first, *_, last = done.stdout.partition("\n")
    assert told["sha256"] in first
    assert str(seed) not in first
    assert f"seed {seed})" in last
    assert told["nonce"] in last
    during = seen.read_text()
    begun, _ = json.JSONDecoder().raw_decode(during)
    assert begun["seed"] is None
    assert begun["commitment"] == {"sha256": told["sha256"]}
    assert kept(begun)
    assert str(seed) not in during
    assert told["nonce"] not in during
    assert run(tmp_path, "--seed", str(seed)).returncode == 0
    assert read_verdict(path)["cases"] == verdict["cases"]


class Recording(InProcess):
    """Keeps what it is asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []

    def exchange(self, request: Json, calls: Any) -> Json:
        self.asked.append(json.dumps(request))
        return super().exchange(request, calls)


def test_no_request_holds_the_seed() -> None:
    seed = 3_141_592_653_589
    observer = Recording.of("builtin", "cpu")
    assert isinstance(observer, Recording)
    session = Session(observer, seed)
    session.run(plain("float32", "mean"))
    for clause in ("purity.state", "autograd.retain", "value.size"):
        run_experiment(clause, session.bench(clause, "float32"))
    assert len(observer.asked) > 3
    assert not [line for line in observer.asked if str(seed) in line]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(seed=v["seed"] + 1),
        lambda v: v.update(seed=None),
        lambda v: v.pop("commitment") and v.update(seed=None),
        lambda v: v["commitment"].pop("nonce"),
        lambda v: v["commitment"].update(nonce="0" * 64),
    ],
)
def test_another_seed_is_refused(change: Any, tmp_path: Path) -> None:
    secret = Secret.draw()
    verdict: Json = {"seed": secret.seed, "commitment": secret.opened(), "clauses": []}
    assert kept(verdict)
    change(verdict)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(verdict | {"digest": digest(verdict)}))
    with pytest.raises(DamagedVerdict, match="committed"):
        read_verdict(path)
