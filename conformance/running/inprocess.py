"""Judge a target in this process: ``from conformance import judge``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from conformance.cases.plans import plan
from conformance.judging.merging import conclude, explain_all, merged
from conformance.running.options import check_profile, make_ready
from conformance.running.recheck import recheck_all
from conformance.running.shards import Session, run_shard
from conformance.verdict.verdict import Verdict
from conformance.verdict.waivers import Waiver
from targets import Target, resolve


def judge(target: Any, *, device: str = "cpu", profile: str = "default", seed: int = 0) -> Verdict:
    """The verdict on ``target``, found in this process without a pytest session.

    ``target``: whatever :func:`targets.resolve` takes; a bare callable or ``nn.Module`` claims
    everything. It cannot survive a target that kills the process; the command line can.
    Raises TargetError for a target that cannot be had, ValueError for an unknown profile, and
    DeviceUnavailable for a device that is absent or that the target does not run on.
    """
    return judged(resolve(target), device, profile, seed)


def judged(
    target: Target, device: str, profile: str, seed: int, waivers: Sequence[Waiver] = ()
) -> Verdict:
    """As :func:`judge`, with the waivers that concern the target taken into account."""
    chosen = check_profile(profile)
    make_ready(target, device)
    start = time.perf_counter()
    session = Session(target, device, seed)
    total = merged([run_shard(session, shard, chosen) for shard in plan(target, chosen)])
    explain_all(session, total)
    return conclude(
        target,
        total,
        device=device,
        profile=profile,
        seed=seed,
        rechecked=recheck_all(session, waivers),
        duration_s=time.perf_counter() - start,
    )
