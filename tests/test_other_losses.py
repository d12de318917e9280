"""The banks of the other losses: the broken ones are wrong, the right ones are not, by torch's own.

What the suite says of them all is asked by ``python -m tests power``.
"""

from __future__ import annotations

import pytest

from targets import Target, resolve
from tests.mutants.loss_probes import differs
from tests.mutants.losses import LOSS_MUTANTS
from tests.mutants.mutant import Mutant, Witness
from tests.mutants.signature_probes import reads_wrongly, takes_apart, weighs_wrongly
from tests.right.losses import RIGHT_LOSSES
from tests.right.signatures import (
    RIGHT_LEGACY,
    RIGHT_SIGNATURES,
    RIGHT_SUBCLASSED,
    RIGHT_WEIGHTED,
)

WRONG = {
    weighs_wrongly: RIGHT_WEIGHTED,
    reads_wrongly: RIGHT_LEGACY,
    takes_apart: RIGHT_SUBCLASSED,
}


@pytest.mark.parametrize("mutant", LOSS_MUTANTS, ids=lambda m: m.target.name)
def test_each_mutant_is_wrong(mutant: Mutant) -> None:
    assert mutant.witness is not None
    assert mutant.witness(mutant.target)


@pytest.mark.parametrize("target", RIGHT_LOSSES, ids=lambda t: t.name)
def test_each_right_one_is_as_torch(target: Target) -> None:
    assert not differs(resolve(target))


@pytest.mark.parametrize(
    ("wrong", "target"),
    [pytest.param(wrong, t, id=t.name) for wrong, targets in WRONG.items() for t in targets],
)
def test_each_right_one_takes_what_torch_takes(wrong: Witness, target: Target) -> None:
    assert not wrong(resolve(target))


def test_names_and_ideas_are_there_once() -> None:
    right = (*RIGHT_LOSSES, *RIGHT_SIGNATURES)
    names = [t.name for t in (*(m.target for m in LOSS_MUTANTS), *right)]
    assert len({*names}) == len(names)
    assert all(m.target.summary for m in LOSS_MUTANTS)
    assert {t.loss_of for t in right} == {m.target.loss_of for m in LOSS_MUTANTS}
