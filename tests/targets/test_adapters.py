"""Kernels as backends write them, and backends that take over torch's own loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from conformance import judge
from conformance.cases.profiles import PROFILES
from conformance.judging.findings import merged
from conformance.running.run import run_shard
from conformance.running.shards import plan
from targets import Target
from targets.adapters import from_aten, overriding
from tests.sessions import session_on

aten = torch.ops.aten


def broken(target: Target) -> set[str]:
    """The clauses of value and gradient that plain examples show ``target`` to break."""
    session, profile = session_on(target, selected="value.*,gradient.*"), PROFILES["quick"]
    shards = [shard for shard in plan(session.target, profile) if shard.phase == "examples"]
    found = merged(run_shard(session, shard, profile) for shard in shards).findings.values()
    return {finding.clause for finding in found if finding.status == "fail"}


def test_the_builtin_pair_conforms() -> None:
    target = from_aten("pair", aten.mse_loss, aten.mse_loss_backward)
    verdict = judge(target, profile="quick")
    assert verdict.conforms, verdict


def test_a_backward_that_ignores_the_reduction_is_rejected() -> None:
    def backward(g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, reduction: int) -> torch.Tensor:
        return 2 * g * (x - y)

    target = from_aten("pair", aten.mse_loss, backward)
    assert "gradient.input" in broken(target)


def test_a_backward_that_reads_grad_output_as_full_is_rejected() -> None:
    def backward(g: torch.Tensor, x: torch.Tensor, y: torch.Tensor, reduction: int) -> torch.Tensor:
        scale = 2 / x.numel() if reduction == 1 else 2
        flat = torch.as_strided(g, (x.numel(),), (1,)) if g.is_contiguous() else g
        return scale * flat.reshape(x.shape) * (x - y)

    target = from_aten("pair", aten.mse_loss, backward)
    assert "gradient.input" in broken(target)


def test_a_forward_with_the_reductions_confused_is_rejected() -> None:
    def forward(x: torch.Tensor, y: torch.Tensor, reduction: int) -> torch.Tensor:
        return aten.mse_loss(x, y, (0, 2, 1)[reduction])

    target = from_aten("pair", forward, aten.mse_loss_backward)
    assert broken(target) >= {"value.mean", "value.sum"}


def test_a_backend_that_changes_nothing_conforms() -> None:
    assert judge(overriding("nothing", contextlib.nullcontext), profile="quick").conforms


@contextlib.contextmanager
def half_the_gradient() -> Iterator[None]:
    """Takes over both operators, with a factor missing in the backward."""

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            return result / 2 if func is aten.mse_loss_backward.default else result

    with Mode():
        yield


def test_a_backend_with_a_wrong_backward_is_rejected() -> None:
    assert "gradient.input" in broken(overriding("half", half_the_gradient))


@contextlib.contextmanager
def constant_forward() -> Iterator[None]:
    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            return torch.ones_like(result) if func is aten.mse_loss.default else result

    with Mode():
        yield


def test_a_backend_with_a_wrong_forward_is_rejected() -> None:
    assert broken(overriding("ones", constant_forward)) >= {"value.mean"}
