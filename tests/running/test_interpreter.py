"""``--python``: the target in another interpreter, which has torch and nothing of the suite."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sampling import only

LOSS = """
import importlib.util
import torch

for name in ("numpy", "hypothesis", "pytest", "jinja2_of_the_suite"):
    assert importlib.util.find_spec(name) is None, name

def loss(input, target, reduction="mean"):
    return torch.nn.functional.mse_loss(input, target, reduction=reduction) * FACTOR
"""


def needed(name: str, seen: set[str]) -> Iterator[importlib.metadata.Distribution]:
    """A distribution and what it needs, but for extras."""
    found = importlib.metadata.distribution(name)
    if found.metadata["Name"].lower() in seen:
        return
    seen.add(found.metadata["Name"].lower())
    yield found
    for line in found.requires or []:
        if "extra ==" not in line:
            inner = line.partition(";")[0].split("[")[0]
            for mark in "<>=!~ (":
                inner = inner.partition(mark)[0]
            try:
                yield from needed(inner, seen)
            except importlib.metadata.PackageNotFoundError:
                continue  # for another system


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which torch and what it needs are links to this one's."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for found in needed("torch", set()):
        tops = {Path(str(f)).parts[0] for f in found.files or [] if not str(f).startswith("..")}
        for top in tops:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                os.symlink(source, packages / top)
    return folder / "bin" / "python"


@only(
    [("1.01", 1, "value.mean")],
    "factor, status, clauses",
    [("1", 0, "value.*,gradient.*"), ("1.01", 1, "value.mean")],
)
def test_a_loss_in_another_interpreter_is_judged(
    interpreter: Path, factor: str, status: int, clauses: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(LOSS.replace("FACTOR", factor))
    command = [sys.executable, "-m", "conformance", "check", "mine.py:loss", "--python"]
    options = ["--profile", "quick", "--clause", clauses, "--report", "out"]
    done = subprocess.run(
        [*command, str(interpreter), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    assert verdict["conforms"] is (status == 0)
    assert verdict["environment"]["numpy"]  # the judge's own


def test_an_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "conformance", "check", "builtin", "--python", "no/such"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "loss-conformance: --python no/such: no such interpreter\n"


def test_an_interpreter_without_torch_is_told(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    command = [sys.executable, "-m", "conformance", "check", "builtin", "--python", str(python)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("loss-conformance: ")
    assert "torch" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
