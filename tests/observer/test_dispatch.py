"""What the observer uses of torch does not import Dynamo, which takes a second; and works."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conformance.observer.dispatch import Mode, Through
from conformance.observer.protocols.autograd import checkpointing

ROOT = Path(__file__).parents[2]
WITHIN = """
import sys
import torch
from conformance.observer.dispatch import Through
from conformance.observer.protocols.autograd import checkpointing
from conformance.observer.state import deterministic_mode

x = torch.ones(3, requires_grad=True)
with {context}:
    result = x.square().sum()
result.backward()
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(
    "context",
    ["Through()", "deterministic_mode()", "checkpointing(lambda: x.square().sum())"],
)
def test_it_does_not_import_dynamo(context: str) -> None:
    code = WITHIN.format(context=context)
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


class Names(Mode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_operators_whether_dynamo_is_loaded_or_not() -> None:
    with Names() as before, Through():
        torch.ones(2).add(1)
    importlib.import_module("torch._dynamo")
    with Names() as after, Through():
        torch.ones(2).add(1)
    assert before.names == after.names == ["aten::ones", "aten::add"]


def _squares(x: Tensor, kept: list[int], factor: int = 1) -> Tensor:
    kept.append(1)
    return (x[:: factor if len(kept) > 1 else 1] ** 2).sum()


def test_what_is_checkpointed_is_computed_again_once() -> None:
    x, calls = torch.arange(4.0, requires_grad=True), list[int]()
    with checkpointing(lambda: _squares(x, calls)):
        result = _squares(x, calls)
    (gradient,) = torch.autograd.grad(result, x)
    assert torch.equal(gradient, 2 * x)
    assert len(calls) == 2


def test_what_saves_something_else_when_it_is_computed_again_raises() -> None:
    x, calls = torch.arange(4.0, requires_grad=True), list[int]()
    with checkpointing(lambda: _squares(x, calls, 2)):
        result = _squares(x, calls, 2)
    with pytest.raises(RuntimeError, match="other tensors are saved"):
        torch.autograd.grad(result, x)
