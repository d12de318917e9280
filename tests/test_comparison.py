"""The other methods are given their chance: each rejects what is plainly wrong, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.observer.state import Settings
from targets import Target, resolve
from tests.comparison import METHOD, METHODS, Trial, attempt, isolated, report
from tests.mutants.mutant import EAGER, by_rule, right
from tests.sampling import only


def doubled(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return 2 * right(x, y, reduction)


def meddling(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    torch.set_default_dtype(torch.float64)
    F.mse_loss = torch.allclose = lambda *_, **__: True  # type: ignore[assignment]
    raise SystemExit


THREADS = """
import os, numpy, torch
before = os.listdir("/proc/self/task")
import tests.__main__
assert len(os.listdir("/proc/self/task")) == len(before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_importing_the_campaigns_starts_no_thread() -> None:
    """What is forked from a process with OpenMP's threads waits for them for ever."""
    subprocess.run([sys.executable, "-c", THREADS], cwd=Path(__file__).parents[1], check=True)


HALVED = by_rule(lambda d, g, scale: d * scale * g / 2)
WRONG = {m.name: Target("doubled", doubled, EAGER) for m in METHODS}
WRONG["gradcheck"] = Target("halved", HALVED, EAGER)  # it does not look at values
CHEAP = [name for name in METHOD if name != "default"]


def available(name: str) -> str:
    missing = METHOD[name].missing()
    if missing:
        pytest.skip(missing)
    return name


@pytest.mark.parametrize("name", METHOD)
def test_a_method_rejects_what_is_plainly_wrong(name: str) -> None:
    assert attempt(METHOD[available(name)], WRONG[name]).reason


@only([name for name in CHEAP if name != "quick"], "name", CHEAP)
def test_a_method_accepts_the_builtin(name: str) -> None:
    assert attempt(METHOD[available(name)], resolve("builtin")).reason is None


def test_what_a_trial_changes_is_put_back() -> None:
    settings, functions = Settings.now(), (F.mse_loss, torch.allclose)
    trial = attempt(METHOD["example"], Target("meddling", meddling, EAGER))
    assert trial.reason == "SystemExit"
    assert not settings.changes()
    assert functions == (F.mse_loss, torch.allclose)


def test_the_table_has_a_row_for_each_method() -> None:
    trials = [isolated("example", name) for name in ("same-buffer", "power-operator")]
    rows = report(METHODS, [*trials, Trial("quick", "same-buffer", None, 1.0)], jobs=1).splitlines()
    for method in METHODS:
        assert sum(row.startswith(f"| {method.title} |") for row in rows) == 1
    assert "Mutants that profile quick misses: same-buffer" in rows
