"""The banks of the other losses: the broken ones are wrong, the right ones are not, by torch's own.

What the suite says of them all is asked by ``python -m tests power``.
"""

from __future__ import annotations

import pytest

from targets import Target, resolve
from tests.mutants.loss_probes import differs
from tests.mutants.losses import LOSS_MUTANTS
from tests.mutants.mutant import Mutant
from tests.right.losses import RIGHT_LOSSES


@pytest.mark.parametrize("mutant", LOSS_MUTANTS, ids=lambda m: m.target.name)
def test_each_mutant_is_wrong(mutant: Mutant) -> None:
    assert differs(mutant.target)


@pytest.mark.parametrize("target", RIGHT_LOSSES, ids=lambda t: t.name)
def test_each_right_one_is_as_torch(target: Target) -> None:
    assert not differs(resolve(target))


def test_names_and_ideas_are_there_once() -> None:
    names = [m.target.name for m in LOSS_MUTANTS] + [t.name for t in RIGHT_LOSSES]
    assert len({*names}) == len(names)
    assert all(m.target.summary for m in LOSS_MUTANTS)
    assert {t.loss_of for t in RIGHT_LOSSES} == {m.target.loss_of for m in LOSS_MUTANTS}
