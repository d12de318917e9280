"""What the pytest plugin does with the results of a session, once a target has been asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.merging import conclude, merged, to_minimise
from conformance.options import check_profile
from conformance.plans import plan
from conformance.shards import Session, ShardResult, minimised
from targets import TargetError, resolve


def conclude_session(
    config: pytest.Config, results: dict[str, list[dict[str, Any]]], duration_s: float
) -> list[dict[str, Any]]:
    """A verdict for each target; a shard without a result makes it incomplete."""
    device, seed = config.getoption("--conformance-device"), config.getoption("--conformance-seed")
    verdicts = []
    for spec in config.getoption("--target"):
        try:
            target = resolve(spec)
            profile = check_profile(config.getoption("--conformance-profile"))
        except (TargetError, ValueError):
            continue  # said at collection
        found = [ShardResult.from_json(r) for r in results.get(spec, [])]
        total = merged(found)
        session = Session(target, device, seed)
        for finding in to_minimise(total):
            smaller = minimised(session, finding)
            total.findings[(smaller.clause, smaller.dtype)] = smaller
        verdict = conclude(
            target,
            total,
            device=device,
            profile=profile.name,
            seed=seed,
            duration_s=duration_s,
            ended={r.shard for r in found} == {s.name for s in plan(target, profile)},
        )
        if config.getoption("--conformance-report"):
            folder = Path(config.getoption("--conformance-report"))
            verdict.write(folder / target.name / "verdict.json")
        verdicts.append(json.loads(json.dumps(verdict.to_json())))
    return verdicts
