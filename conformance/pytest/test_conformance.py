"""The suite as pytest items, one for each shard of the plan: ``pytest --pyargs conformance``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from conformance.cases.plans import Shard, plan
from conformance.cases.profiles import Profile
from conformance.clauses import BY_ID
from conformance.pytest.plugin import RESULT, box_of
from conformance.pytest.verdicts import waivers_of
from conformance.running.options import (
    DeviceUnavailable,
    UsageError,
    check_device,
    check_profile,
    make_ready,
)
from conformance.running.shards import Session, run_shard
from conformance.verdict.verdict import BROKEN_STATUSES
from targets import Target, TargetError, resolve


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    specs = config.getoption("--target")
    if not specs:
        raise pytest.UsageError("name what to judge: pytest --pyargs conformance --target TARGET")
    try:
        profile = check_profile(config.getoption("--conformance-profile"))
        check_device(config.getoption("--conformance-device"))
        targets = [(spec, resolve(spec)) for spec in specs]
        waivers_of(config)
    except (TargetError, UsageError, DeviceUnavailable) as error:
        raise pytest.UsageError(str(error)) from None
    arguments = [
        pytest.param(spec, target, profile, shard, id=f"{target.name}-{shard.name}")
        for spec, target in targets
        for shard in plan(target, profile)
    ]
    metafunc.parametrize(("spec", "target", "profile", "shard"), arguments)


@pytest.mark.conformance
def test_shard(
    spec: str,
    target: Target,
    profile: Profile,
    shard: Shard,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    device = pytestconfig.getoption("--conformance-device")
    try:
        make_ready(target, device)
    except (TargetError, DeviceUnavailable) as error:
        pytest.fail(str(error), pytrace=False)
    seed = pytestconfig.getoption("--conformance-seed")
    session = Session(target, device, seed, box=box_of(pytestconfig, spec))
    result = run_shard(session, shard, profile)
    record_property(RESULT, json.dumps({"target": spec, "result": result.to_json()}))
    waivers = [w for w in waivers_of(pytestconfig) if w.concerns(target.name, spec, device)]
    broken = [
        f
        for f in result.findings.values()
        if BY_ID[f.clause].level == "must"
        and f.status in BROKEN_STATUSES
        and not any(w.covers(f.clause, f.dtype) for w in waivers)  # the verdict decides on these
    ]
    if broken:
        lines = [f"{f.clause} ({f.dtype}): {f.message}\n    case: {f.case}" for f in broken]
        pytest.fail("\n".join(lines), pytrace=False)
