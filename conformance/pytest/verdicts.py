"""What the pytest plugin does with the results of a session, once a target has been asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from conformance.judging.findings import ShardResult, merged
from conformance.pytest.reaching import opened
from conformance.report.exports import export, withdraw
from conformance.running.concluding import conclude
from conformance.running.explaining import explain_all
from conformance.running.hosting import Hosting, Refused
from conformance.running.observers import Process
from conformance.running.options import UsageError, check_profile
from conformance.running.reasoning import reasoned
from conformance.running.recheck import recheck_all
from conformance.running.session import Session
from conformance.running.shards import plan
from conformance.verdict.configuration import ConfigurationError, find
from conformance.verdict.verdict import unfinished, write_verdict
from conformance.verdict.waivers import Waiver, parse

OBSERVERS = pytest.StashKey[dict[str, Process]]()


def waivers_of(config: pytest.Config) -> tuple[Waiver, ...]:
    """Those of the configuration in pytest's root folder. Raises pytest.UsageError."""
    try:
        return parse(find(config.rootpath))
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None


def observers_of(config: pytest.Config) -> dict[str, Process]:
    """For each target the observer of this process. Raises pytest.UsageError."""
    if OBSERVERS not in config.stash:
        device = config.getoption("--conformance-device")
        worker = getattr(config, "workerinput", {"workerid": "gw0"})["workerid"]
        place = int(worker.removeprefix("gw"))
        found: dict[str, Process] = {}
        config.stash[OBSERVERS] = found
        config.add_cleanup(functools.partial(_close, found))
        try:
            check_profile(config.getoption("--conformance-profile"))
            for spec in config.getoption("--target"):
                found[spec] = opened(Hosting(spec, device, place=place))
        except (Refused, UsageError) as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[OBSERVERS]


def _close(observers: dict[str, Process]) -> None:
    for observer in observers.values():
        observer.close()


def begin_session(config: pytest.Config) -> None:
    """Write a verdict for each target that says it is incomplete, until the session has ended.

    Raises pytest.UsageError where it cannot be written.
    """
    if not config.getoption("--conformance-report"):
        return
    profile = config.getoption("--conformance-profile")
    device, seed = config.getoption("--conformance-device"), config.getoption("--conformance-seed")
    for observer in observers_of(config).values():
        target = observer.claimed
        path = _path(config, target.name)
        title = target.specification.title
        body = unfinished(target.name, target.source, device, profile, seed, spec=title).to_json()
        try:
            write_verdict(path, body)
            withdraw(path.parent)
        except OSError as error:
            raise pytest.UsageError(f"cannot write {path}: {error.strerror}") from None


def _path(config: pytest.Config, name: str) -> Path:
    return Path(config.getoption("--conformance-report"), name, "verdict.json")


def conclude_session(
    config: pytest.Config, results: dict[str, list[dict[str, Any]]], duration_s: float
) -> list[dict[str, Any]]:
    """A verdict for each target; a shard without a result makes it incomplete."""
    seed = config.getoption("--conformance-seed")
    try:
        profile = check_profile(config.getoption("--conformance-profile"))
        observers = observers_of(config)
    except (pytest.UsageError, UsageError):
        return []  # said at collection
    verdicts = []
    waivers = waivers_of(config)
    for spec, observer in observers.items():
        found = [ShardResult.from_json(r) for r in results.get(spec, [])]
        total = merged(found)
        session = Session(observer, seed)
        explain_all(session, total)
        verdict = conclude(
            session,
            total,
            profile=profile.name,
            duration_s=duration_s,
            rechecked=recheck_all(session, waivers),
            reasons=reasoned(session, total.findings.values()),
            ended={r.shard for r in found} == {s.name for s in plan(session.target, profile)},
        ).to_json()
        if config.getoption("--conformance-report"):
            path = _path(config, verdict["target"])
            write_verdict(path, verdict)
            export(path.parent, verdict)
        verdicts.append(verdict)
    return verdicts
