"""A stranger's package: installed beside the suite, found, judged, tested and gated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "strange-losses"
version = "1.0"

[project.entry-points."loss_conformance.targets"]
strange = "strange_losses:TARGET"

[tool.setuptools]
py-modules = ["strange_losses"]
"""
SOURCE = """
import torch.nn.functional as F
from targets import DROP_IN, Target

def loss(input, target, reduction="mean"):
    result = F.mse_loss(input, target, reduction=reduction)
    return result{defect}

# torch.compile is not claimed: its tests would take most of the time here.
TARGET = Target("strange", loss, DROP_IN - {{"compile", "export"}}, dtypes=("float32",))
"""
TESTS = """
import pytest
from conformance.pytest import conformance_test, parametrize_with_clauses

test_in_one_line = conformance_test("strange", profile="quick")

@pytest.mark.numerics
@parametrize_with_clauses("strange", profile="quick")
def test_with_my_own_fixture(conformance_check, number):
    assert number == 3
    conformance_check()
"""
GATE = """
[gate]
targets = ["strange"]
dtypes = ["float32"]
same_source = true
"""
CONFTEST = """
import pytest

@pytest.fixture
def number():
    return 3
"""


class Package:
    """A package in ``folder``, installed into a folder of its own that is on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site"
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    numerics: ours\n")
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "test_strange.py").write_text(TESTS)
        paths = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def install(self, defect: str = "") -> None:
        (self.folder / "strange_losses.py").write_text(SOURCE.format(defect=defect))
        (self.folder / "conformance.toml").write_text(GATE)
        self.python(
            "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade",
            "--target", str(self.site), str(self.folder),
        ).check_returncode()  # fmt: skip

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "conformance", *arguments)

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return Package(tmp_path_factory.mktemp("strange"))


@pytest.mark.full
def test_a_right_loss_is_found_judged_tested_and_accepted(package: Package) -> None:
    package.install()
    listed = package.run("targets")
    assert "strange " in listed.stdout
    smoke = package.run("smoke", "strange")
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    checked = package.run("check", "strange", "--report", "out")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "strange CONFORMS" in checked.stdout
    gated = package.run("gate", "out/strange/verdict.json")
    assert gated.returncode == 0, gated.stdout
    tested = package.pytest("-n", "2")
    assert tested.returncode == 0, tested.stdout
    for test in ("test_in_one_line", "test_with_my_own_fixture"):
        assert f"PASSED test_strange.py::{test}[gradient.input]" in tested.stdout
        assert tested.stdout.count(f"{test}[value.mean]") == 1
    assert "unclaimed" in tested.stdout


@pytest.mark.full
def test_a_broken_loss_is_refused_everywhere(package: Package) -> None:
    package.install()
    judging = ("check", "strange", "--profile", "quick", "--clause", "value.*,gradient.*")
    package.run(*judging, "--report", "out")
    package.install(" * (1 + 1e-4)")
    changed = package.run("gate", "out/strange/verdict.json")
    assert changed.returncode == 1
    assert "the source of strange" in changed.stdout
    checked = package.run(*judging, "--report", "out")
    assert checked.returncode == 1
    assert "strange DOES NOT CONFORM" in checked.stdout
    gated = package.run("gate", "out/strange/verdict.json")
    assert gated.returncode == 1
    assert "the target does not conform" in gated.stdout
    broken = json.loads((package.folder / "out/strange/verdict.json").read_text())
    names = {r["id"] for r in broken["clauses"] if r["status"] == "fail" and r["level"] == "must"}
    tested = package.pytest("-k", "one_line and (value or gradient)")
    assert tested.returncode == 1
    for clause in ("value.mean", "gradient.input"):
        assert clause in names
        assert f"FAILED test_strange.py::test_in_one_line[{clause}]" in tested.stdout


@pytest.mark.full
def test_a_waived_clause_is_an_expected_failure(package: Package) -> None:
    """The overflow of a float16 sum, in a package whose own tests read its conformance.toml."""
    source = SOURCE.format(defect="").replace("float32", "float16")
    overflows = "(input - target).square().sum() / max((input - target).numel(), 1)"
    source = source.replace(
        "    result =", f"    if reduction == 'mean': return {overflows}\n    result ="
    )
    (package.folder / "over.py").write_text(source)
    checked = package.run("check", "over.py:TARGET", "--profile", "quick", "--report", "out")
    assert checked.returncode == 1, checked.stdout
    rows = json.loads((package.folder / "out/strange/verdict.json").read_text())["clauses"]
    broken = {r["id"] for r in rows if r["status"] == "fail" and r["level"] == "must"}
    assert "value.mean_overflow" in broken
    (package.folder / "conformance.toml").unlink(missing_ok=True)
    for clause in broken:
        waiving = ("waive", "out/strange/verdict.json", clause, "--reason", "narrow sum")
        assert package.run(*waiving).returncode == 0
    (package.folder / "test_over.py").write_text(
        "from conformance.pytest import conformance_test\n"
        "test_over = conformance_test('over.py:TARGET', profile='quick')\n"
    )
    tested = package.pytest("test_over.py")
    assert "XFAIL test_over.py::test_over[value.mean_overflow] - " in tested.stdout
    assert "waived: narrow sum" in tested.stdout
    assert tested.returncode == 0, tested.stdout
