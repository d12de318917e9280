"""The steps of action.yml, run as the shell would; the schema is checked by `tox -e lint`."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
INPUTS = {"targets": "builtin mine.py:loss", "profile": "quick", "seed": "3", "report": "out"}


def steps() -> dict[str, dict[str, Any]]:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    return {s["name"]: s for s in action["runs"]["steps"] if "run" in s}


def run(name: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A step with its inputs filled in, in the shell that GitHub runs it with."""
    step = steps()[name]
    context = {f"${{{{ inputs.{k} }}}}": v for k, v in ({"package": ""} | INPUTS).items()}
    context["${{ github.action_path }}"] = str(ROOT)
    given = {key: context[value] for key, value in step["env"].items()}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path} | given | environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.full
def test_the_suite_is_installed(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    path = os.pathsep.join([str(tmp_path / "venv" / "bin"), os.environ["PATH"]])
    done = run("Install the suite", tmp_path, PATH=path, PIP_NO_DEPS="1")
    assert done.returncode == 0, done.stderr
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    assert (site / "conformance" / "cli.py").is_file()
    assert (site / "reference" / "SPEC.md").is_file()


@pytest.mark.full
def test_a_broken_loss_fails_the_job_with_annotations_and_a_summary(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch.nn.functional as F\n"
        "def loss(x, y, reduction='mean'):\n"
        "    return F.mse_loss(x, y, reduction=reduction) * (2 if reduction == 'sum' else 1)\n"
    )
    page = tmp_path / "page.md"
    done = run("Judge", tmp_path, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 1
    assert "::error title=loss breaks value." in done.stdout
    assert page.read_text().count("### ") == 2
    for target in ("builtin", "loss"):
        names = {p.name for p in (tmp_path / "out" / target).iterdir()}
        files = {"verdict.json", "junit.xml", "summary.md", "badge.json", "report.html", "repro"}
        assert names == files
