"""Importing costs nothing until a target is asked for. (What may import what: `tox -e lint`.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "import conformance",
        "import conformance.pytest.plugin",
        "import conformance.cli",
        "import targets",
    ],
)
def test_importing_it_imports_nothing_that_is_slow(statement: str) -> None:
    slow = {"torch", "numpy", "hypothesis"}
    code = f"{statement}; import sys; print({slow} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_pytest_run_without_a_target_imports_neither(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not {'torch', 'hypothesis.core'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "test_it.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_somebody_elses_targets_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "targets.py").write_text("")
    command = [sys.executable, "-m", "conformance", "targets"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert f"resolves to {tmp_path / 'targets.py'}" in run.stderr
    assert "Traceback" not in run.stderr
