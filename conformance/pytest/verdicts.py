"""What the pytest plugin does with the results of a session, once a target has been asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.cases.plans import plan
from conformance.judging.merging import conclude, explain_all, merged
from conformance.report.exports import export, withdraw
from conformance.running.options import check_profile
from conformance.running.recheck import recheck_all
from conformance.running.shards import Session, ShardResult, lost_call
from conformance.verdict.configuration import ConfigurationError, find
from conformance.verdict.verdict import unfinished, write_verdict
from conformance.verdict.waivers import Waiver, parse
from targets import Target, TargetError, resolve


def waivers_of(config: pytest.Config) -> tuple[Waiver, ...]:
    """Those of the configuration in pytest's root folder. Raises pytest.UsageError."""
    try:
        return parse(find(config.rootpath))
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None


def begin_session(config: pytest.Config) -> None:
    """Write a verdict for each target that says it is incomplete, until the session has ended.

    Raises pytest.UsageError where it cannot be written.
    """
    if not config.getoption("--conformance-report"):
        return
    profile = config.getoption("--conformance-profile")
    device, seed = config.getoption("--conformance-device"), config.getoption("--conformance-seed")
    for spec in config.getoption("--target"):
        try:
            target = resolve(spec)
        except TargetError:
            continue  # said at collection
        path = _path(config, target)
        body = unfinished(target.name, target.source, device, profile, seed).to_json()
        try:
            write_verdict(path, body)
            withdraw(path.parent)
        except OSError as error:
            raise pytest.UsageError(f"cannot write {path}: {error.strerror}") from None


def _path(config: pytest.Config, target: Target) -> Path:
    return Path(config.getoption("--conformance-report"), target.name, "verdict.json")


def conclude_session(
    config: pytest.Config,
    results: dict[str, list[dict[str, Any]]],
    lost: dict[str, list[tuple[str, str]]],
    duration_s: float,
) -> list[dict[str, Any]]:
    """A verdict for each target; a shard without a result makes it incomplete.

    ``lost``: for each target the calls that ended their process, and how.
    """
    device, seed = config.getoption("--conformance-device"), config.getoption("--conformance-seed")
    verdicts = []
    waivers = waivers_of(config)
    for spec in config.getoption("--target"):
        try:
            target = resolve(spec)
            profile = check_profile(config.getoption("--conformance-profile"))
        except (TargetError, ValueError):
            continue  # said at collection
        found = [ShardResult.from_json(r) for r in results.get(spec, [])]
        total = merged(found)
        for call, how in lost.get(spec, []):
            total.add(lost_call(call, "crash", how))
        session = Session(target, device, seed)
        explain_all(session, total)
        verdict = conclude(
            target,
            total,
            device=device,
            profile=profile.name,
            seed=seed,
            duration_s=duration_s,
            rechecked=recheck_all(session, waivers),
            ended={r.shard for r in found} == {s.name for s in plan(target, profile)},
        )
        if config.getoption("--conformance-report"):
            path = _path(config, target)
            write_verdict(path, verdict.to_json())
            export(path.parent, verdict.to_json())
        verdicts.append(verdict.to_json())
    return verdicts
