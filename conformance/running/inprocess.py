"""Judge a target in this process: ``from conformance import judge``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from conformance.judging.findings import merged
from conformance.judging.observer import Observer
from conformance.running.concluding import conclude
from conformance.running.explaining import explain_all
from conformance.running.observers import InProcess
from conformance.running.options import check_profile
from conformance.running.reasoning import reasoned
from conformance.running.recheck import recheck_all
from conformance.running.run import run_shard
from conformance.running.session import Session
from conformance.running.shards import plan
from conformance.verdict.verdict import Verdict
from conformance.verdict.waivers import Waiver


def judge(
    target: Any, *, device: str = "cpu", profile: str = "default", seed: int = 0, loss: str = ""
) -> Verdict:
    """The verdict on ``target``, found in this process without a pytest session.

    ``target``: whatever :func:`targets.resolve` takes; a bare callable or ``nn.Module`` claims
    everything. ``loss``: the name of its specification, where the target does not say it. There is
    no wall: it cannot survive a target that kills the process, nor one that
    attacks the judge; the command line can.
    Raises TargetError for a target that cannot be had, ValueError for an unknown profile, and
    DeviceUnavailable for a device that is absent or that the target does not run on.
    """
    check_profile(profile)
    return judged(InProcess.of(target, device, loss), profile, seed)


def judged(
    observer: Observer,
    profile: str,
    seed: int,
    waivers: Sequence[Waiver] = (),
    clauses: str = "*",
) -> Verdict:
    """The verdict on what ``observer`` observes, with the waivers that concern it.

    ``clauses``: globs of those that are looked at.
    """
    chosen, start = check_profile(profile), time.perf_counter()
    session = Session(observer, seed, clauses)
    total = merged([run_shard(session, s, chosen) for s in plan(session.target, chosen)])
    explain_all(session, total)
    reasons = reasoned(session, total.findings.values())
    return conclude(
        session,
        total,
        profile=profile,
        rechecked=recheck_all(session, waivers),
        reasons=reasons,
        duration_s=time.perf_counter() - start,
    )
