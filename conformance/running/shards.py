"""Which cases and experiments a profile runs, in shards that stand for themselves.

A shard's cases depend on the target's claims, the seed, and nothing else: not on the process that
runs it, the number of jobs or the order.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.plans import examples, pairs, reseeded, scale
from conformance.cases.profiles import PROFILE_ORDER, Profile
from conformance.clauses import CLAUSES, Clause

ALL = tuple(dict.fromkeys(c.family for c in CLAUSES))
# The experiments, in shards: the profile that adds them, and which, by family or clause; what is
# named by its clause is in no other. A defect is told when its shard ends: they are small, and what
# finds most in the least time comes first. What needs Dynamo is together: importing it is slow;
# and so is what needs forward-mode AD.
EXPERIMENT_SHARDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "quick",
        (
            *("broadcasting", "dtypes", "layout", "metamorphic", "module", "errors", "domain"),
            *("weight", "legacy", "subclass"),
        ),
    ),
    ("quick", ("autograd",)),
    ("quick", ("transforms", "autograd.hooks", "autograd.forward", "errors.devices")),
    ("quick", ("purity", "resources", "cuda")),
    ("quick", ("value", "gradient")),
    ("quick", ("determinism",)),
    ("default", ALL),
    ("release", ALL),
)
SHARD = 120  # cases in a shard of fixed ones


@dataclass(frozen=True)
class Shard:
    """One unit of work. ``phase``: experiments, examples, pairs, fuzz or scale."""

    phase: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.index}"


def plan(target: Claimed, profile: Profile) -> list[Shard]:
    """All shards, in the order in which a typical defect is met soonest.

    The plainest examples, then what takes several calls: the further examples find a quarter as
    many of the mutants, in as much time. What compiles comes after these.
    """
    fixed = len(examples(target)), len(pairs(target, profile.pairs_step))
    chunks = [-(-n // SHARD) for n in fixed]
    all_examples = [Shard("examples", k) for k in range(chunks[0])]
    all_experiments = experiment_shards(profile.name)
    quick = len(experiment_shards("quick"))
    return [
        *all_examples[:1],
        *all_experiments[:quick],
        *all_examples[1:],
        *all_experiments[quick:],
        *(Shard("fuzz", k) for k in range(profile.fuzz_shards)),
        *(Shard("pairs", k) for k in range(chunks[1])),
        *(Shard("scale", k) for k in range(len(profile.sizes))),
    ]


def experiment_shards(profile: str) -> list[Shard]:
    """Those that ``profile`` runs."""
    limit = PROFILE_ORDER.index(profile)
    return [
        Shard("experiments", k)
        for k, (first, _) in enumerate(EXPERIMENT_SHARDS)
        if PROFILE_ORDER.index(first) <= limit
    ]


def experiments_of(shard: Shard) -> list[Clause]:
    """The clauses whose experiments, where they have any, ``shard`` runs; in the spec's order."""
    profile, names = EXPERIMENT_SHARDS[shard.index]
    elsewhere = {n for p, others in EXPERIMENT_SHARDS if p == profile for n in others} - {*names}
    return [
        clause
        for clause in CLAUSES
        if clause.profile == profile
        and (clause.id in names or (clause.family in names and clause.id not in elsewhere))
    ]


def fixed_cases(target: Claimed, profile: Profile, seed: int, shard: Shard) -> list[Case]:
    """The cases of a shard that needs no Hypothesis."""
    if shard.phase == "scale":
        return list(scale(target, profile.sizes[shard.index], seed))
    step = profile.pairs_step
    every = examples(target) if shard.phase == "examples" else pairs(target, step)
    chosen = every[shard.index * SHARD : (shard.index + 1) * SHARD]
    return [reseeded(case, seed) for case in chosen]
