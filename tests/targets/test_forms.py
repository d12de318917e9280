"""Files in the forms of benchmarks are taken for what they are, and judged as that."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cases.profiles import PROFILES
from conformance.running.run import run_shard
from conformance.running.shards import Shard
from targets import resolve
from tests.sessions import session_on

KERNEL_BENCH = """
import torch
import torch.nn as nn

class Model(nn.Module):
    def forward(self, predictions, targets):
        return torch.nn.functional.smooth_l1_loss(predictions, targets)

class ModelNew(nn.Module):
    def forward(self, predictions, targets):
        d = predictions - targets
        return {term}.mean()

def get_inputs():
    return [torch.rand(128, 4096), torch.rand(128, 4096)]

def get_init_inputs():
    return []
"""
RIGHT = "torch.where(d.abs() < 1, 0.5 * d * d, d.abs() - 0.5)"
QUADRATIC = "(0.5 * d * d)"
BACKEND_BENCH = """
import torch

def {op}_kernel_impl(self, target, reduction=1, {parameter}=1.0):
    return torch.ops.aten.{op}(self, target, reduction, {parameter})

def {op}_backward_kernel_impl(grad_output, self, target, reduction, {parameter}):
    return torch.ops.aten.{op}_backward(grad_output, self, target, reduction, {wrong})
"""


def broken(path: Path, loss: str) -> set[str]:
    """What the first cases show."""
    session = session_on(resolve(str(path), loss))
    result = run_shard(session, Shard("examples", 0), PROFILES["quick"])
    later = run_shard(session, Shard("examples", 1), PROFILES["quick"])
    return {f.clause for r in (result, later) for f in r.findings.values()}


@pytest.mark.parametrize(("term", "right"), [(RIGHT, True), (QUADRATIC, False)])
def test_kernel_benchs_problem_96(term: str, right: bool, tmp_path: Path) -> None:
    """Its operands lie in [0, 1): the linear piece never runs there."""
    path = tmp_path / "problem.py"
    path.write_text(KERNEL_BENCH.replace("{term}", term))
    target = resolve(str(path), "smooth_l1")
    assert (target.name, target.reductions) == ("KernelBench.ModelNew", ("mean",))
    assert not target.domain.backward
    found = broken(path, "smooth_l1")
    assert ("value.mean" in found) == (not right), found


@pytest.mark.parametrize(("op", "parameter"), [("huber_loss", "delta"), ("smooth_l1_loss", "beta")])
@pytest.mark.parametrize("right", [True, False])
def test_kernels_as_backend_bench_has_them(
    op: str, parameter: str, right: bool, tmp_path: Path
) -> None:
    """A backward that is not handed its parameter."""
    path = tmp_path / "kernels.py"
    wrong = parameter if right else "1.0"
    path.write_text(BACKEND_BENCH.format(op=op, parameter=parameter, wrong=wrong))
    target = resolve(str(path))
    assert target.name == f"BackendBench.{op}"
    assert target.loss_of == op.removesuffix("_loss")
    assert target.parameters == (parameter,)
    session = session_on(target)
    found: set[str] = set()
    for index in range(3):
        result = run_shard(session, Shard("examples", index), PROFILES["quick"])
        found |= {f.clause for f in result.findings.values()}
    assert ("gradient.parameter" in found) == (not right), found
    assert "value.mean" not in found


def test_a_forward_alone_is_judged_without_a_gradient(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    source = "import torch\n\ndef l1_loss_kernel_impl(self, target, reduction=1):\n"
    path.write_text(f"{source}    return torch.ops.aten.l1_loss(self, target, reduction)\n")
    target = resolve(str(path))
    assert (target.loss_of, target.domain.backward) == ("l1", False)
    assert not broken(path, "l1")
