"""The suite as pytest items, one for each shard of the plan: ``pytest --pyargs conformance``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from conformance.cases.profiles import PROFILES, Profile
from conformance.clauses import BY_ID
from conformance.pytest.plugin import RESULT
from conformance.pytest.verdicts import observers_of, waivers_of
from conformance.running.observers import Process
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import Shard, plan
from conformance.verdict.verdict import BROKEN_STATUSES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    if not config.getoption("--target"):
        raise pytest.UsageError("name what to judge: pytest --pyargs conformance --target TARGET")
    observers = observers_of(config)
    waivers_of(config)
    profile = PROFILES[config.getoption("--conformance-profile")]
    arguments = [
        pytest.param(spec, observer, profile, shard, id=f"{observer.claimed.name}-{shard.name}")
        for spec, observer in observers.items()
        for shard in plan(observer.claimed, profile)
    ]
    metafunc.parametrize(("spec", "observer", "profile", "shard"), arguments)


@pytest.mark.conformance
def test_shard(
    spec: str,
    observer: Process,
    profile: Profile,
    shard: Shard,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    session = Session(observer, pytestconfig.getoption("--conformance-seed"))
    result = run_shard(session, shard, profile)
    record_property(RESULT, json.dumps({"target": spec, "result": result.to_json()}))
    name = observer.claimed.name
    waivers = [w for w in waivers_of(pytestconfig) if w.concerns(name, spec, observer.device)]
    broken = [
        f
        for f in result.findings.values()
        if BY_ID[f.clause].level_for(observer.claimed.specification) == "must"
        and f.status in BROKEN_STATUSES
        and not any(w.covers(f.clause, f.dtype) for w in waivers)  # the verdict decides on these
    ]
    if broken:
        lines = [f"{f.clause} ({f.dtype}): {f.message}\n    case: {f.case}" for f in broken]
        pytest.fail("\n".join(lines), pytrace=False)
