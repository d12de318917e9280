"""SPEC.md, the clauses as data and the experiments say the same."""

from __future__ import annotations

import re
from pathlib import Path

import conformance
from conformance.cases.features import FEATURES
from conformance.clauses import BY_ID, CLAUSES
from conformance.judging.experiments import EXPERIMENTS
from conformance.running.shards import EXPERIMENT_SHARDS, experiment_shards, experiments_of
from conformance.verdict.verdict import SPEC

TEXT = (Path(conformance.__file__).parent.parent / "reference" / "SPEC.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z_.]+)` \| (must|should) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def test_spec_and_clauses_have_the_same_ids_levels_and_sentences_in_the_same_order() -> None:
    written = [(id, level, sentence) for id, level, sentence, _ in ROW.findall(TEXT)]
    assert written == [(c.id, c.level, c.sentence) for c in CLAUSES]


def test_spec_says_which_version_it_is() -> None:
    assert TEXT.startswith(f"# The specification: {SPEC}\n")


def test_every_clause_that_a_feature_or_experiment_names_exists() -> None:
    named = {f.value for f in FEATURES} | {f.gradient for f in FEATURES} | set(EXPERIMENTS)
    assert named <= set(BY_ID)


def test_ids_are_dotted_lower_case_and_unique() -> None:
    assert len(BY_ID) == len(CLAUSES)
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", c.id) for c in CLAUSES)


def test_every_experiment_is_in_one_shard_and_in_its_profile() -> None:
    for id in EXPERIMENTS:
        shards = [s for s in experiment_shards("release") if BY_ID[id] in experiments_of(s)]
        assert [EXPERIMENT_SHARDS[s.index][0] for s in shards] == [BY_ID[id].profile], id
