"""The suite's power: every mutant is rejected, and nothing that is right."""

from __future__ import annotations

import pytest

from conformance import judge
from conformance.attribution import Finding
from conformance.clauses import BY_ID
from conformance.plans import PROFILES, plan
from conformance.shards import Session, run_shard
from targets import Target
from tests.mutants import MUTANTS
from tests.mutants.witnesses import restored
from tests.right import RIGHT

# Profile quick does not reach the sizes at which these are wrong.
LARGE_ONLY = {"dot-product"}


def first_findings(target: Target) -> list[Finding]:
    """The broken `must` clauses of the first shard that meets any."""
    profile = PROFILES["default" if target.name in LARGE_ONLY else "quick"]
    session = Session(target, "cpu", 0)
    for shard in plan(target, profile):
        found = run_shard(session, shard, profile).findings.values()
        broken = [f for f in found if BY_ID[f.clause].level == "must"]
        if broken:
            return broken
    return []


BROKEN = [m.target for m in MUTANTS]


@pytest.mark.parametrize("target", BROKEN, ids=lambda t: t.name)
def test_a_mutant_is_rejected(target: Target) -> None:
    with restored():
        assert first_findings(target)


@pytest.mark.parametrize("target", RIGHT, ids=lambda t: t.name)
def test_a_right_implementation_conforms(target: Target) -> None:
    verdict = judge(target, profile="quick")
    broken = [f"{f.clause} {f.dtype}: {f.message}\n{f.script}" for f in verdict.failures]
    assert not broken, "\n".join(broken)
    assert verdict.complete, [f"{row.id} {row.dtype}" for row in verdict.missing]
