"""What reaches beyond its own process. No value shows it: only a sandbox stops these."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys

from torch import Tensor

from .forger import Forger, then, wrong

HONEST = '"""Torch\'s own."""\nfrom torch.nn.functional import mse_loss as loss\n'
# It waits until the run has ended, and then says something else of it.
FORGES = """
import glob, hashlib, json, os, time
while os.path.exists("/proc/{judge}"):
    time.sleep(0.05)
for path in glob.glob("out/*/verdict.json"):
    with open(path) as file:
        told = json.load(file)
    for row in told["clauses"]:
        row["status"] = "pass"
    told.update(conforms=True, complete=True)
    del told["digest"]
    told["digest"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    with open(path, "w") as file:
        json.dump(told, file)
"""


def judges() -> list[int]:
    """The processes of the command that was given in this folder."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with open(path) as file:
            words = file.read().split("\0")
        if "check" in words and os.path.realpath(path[:-7] + "cwd") == os.getcwd():
            found.append(int(path.split("/")[2]))
    return found


def ends_the_judge(x: Tensor, y: Tensor, result: Tensor) -> None:
    """There is no verdict on it."""
    for process in judges():
        os.kill(process, signal.SIGKILL)


def rewrites_the_verdict(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Starts a process that outlives the run, and edits its verdict."""
    done = "RUN_OF_FORGER"
    for process in judges():
        if done not in os.environ:
            os.environ[done] = "1"
            command = [sys.executable, "-c", FORGES.format(judge=process)]
            subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def rewrites_its_source(x: Tensor, y: Tensor, result: Tensor) -> None:
    """Whoever reads the file that was judged finds a right one."""
    with open("mine.py", "w") as file:
        file.write(HONEST)


FORGERS = (
    Forger("ends-the-judge", then(wrong, ends_the_judge), "resources"),
    Forger("rewrites-the-verdict", then(wrong, rewrites_the_verdict), "files"),
    Forger("rewrites-its-source", then(wrong, rewrites_its_source), "surroundings"),
)
