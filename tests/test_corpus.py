"""The bank as files: each stands alone, and is as right or as wrong as what it was taken from."""

from __future__ import annotations

import re
import sys
import types
from collections import Counter

import pytest
import torch

from targets import resolve
from targets.domain import FULL
from tests.corpus import Sample, samples, written
from tests.mutants import MUTANTS

IMPORT = re.compile(r"\s*(import|from) ")
EVERY = {sample.name: sample for sample in samples()}


def loaded(sample: Sample) -> types.ModuleType:
    module = types.ModuleType(f"corpus_{sample.name.replace('-', '_')}")
    sys.modules[module.__name__] = module
    exec(compile(sample.text, sample.name, "exec"), module.__dict__)
    return module


def test_it_is_nearly_the_whole_bank() -> None:
    kinds = Counter(sample.kind for sample in EVERY.values())
    assert sum(kinds.values()) >= 600
    assert kinds["right"] >= 80
    assert kinds["mutant"] >= 0.9 * len(MUTANTS)
    assert kinds["forger"] >= 40


def test_none_imports_what_only_the_suite_has() -> None:
    texts = {name: sample.text.splitlines() for name, sample in EVERY.items()}
    imports = [
        (name, line) for name, lines in texts.items() for line in lines if IMPORT.match(line)
    ]
    assert len(imports) > len(EVERY)
    assert not [each for each in imports if "conformance" in each[1] or "tests" in each[1]]


@pytest.mark.parametrize("name", [n for n in EVERY if n.startswith("right-")][::9])
def test_a_right_one_is_right(name: str) -> None:
    target = resolve(loaded(EVERY[name]).loss)
    dtype = torch.float32 if "float32" in target.dtypes else torch.float64
    if target.domain != FULL:
        pytest.skip("it takes other shapes")
    x, y = torch.arange(12, dtype=dtype).reshape(3, 4), torch.ones(3, 4, dtype=dtype)
    expected = torch.nn.functional.mse_loss(x, y, reduction=target.reductions[-1])
    assert torch.allclose(target.loss(x, y, reduction=target.reductions[-1]), expected)


def test_a_mutant_is_wrong_as_the_mutant_is() -> None:
    loss = resolve(loaded(EVERY["mutant-half-factor"]).loss).loss
    x, y = torch.ones(3), torch.zeros(3)
    assert loss(x, y, reduction="sum") == 1.5


def test_what_cannot_stand_alone_is_told() -> None:
    with pytest.raises(LookupError):
        written("mutants", "no-such-mutant")
