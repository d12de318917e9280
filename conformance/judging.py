"""Judge a target in this process: ``from conformance import judge``."""

from __future__ import annotations

import time
from typing import Any

from conformance.merging import conclude, merged, minimise_all
from conformance.options import check_profile, make_ready
from conformance.plans import plan
from conformance.shards import Session, run_shard
from conformance.verdict import Verdict
from targets import resolve


def judge(target: Any, *, device: str = "cpu", profile: str = "default", seed: int = 0) -> Verdict:
    """The verdict on ``target``, found in this process without a pytest session.

    ``target``: whatever :func:`targets.resolve` takes; a bare callable or ``nn.Module`` claims
    everything. It cannot survive a target that kills the process; the command line can.
    Raises TargetError for a target that cannot be had, ValueError for an unknown profile, and
    DeviceUnavailable for a device that is absent or that the target does not run on.
    """
    found = resolve(target)
    chosen = check_profile(profile)
    make_ready(found, device)
    start = time.perf_counter()
    session = Session(found, device, seed)
    total = merged([run_shard(session, shard, chosen) for shard in plan(found, chosen)])
    minimise_all(session, total)
    duration = time.perf_counter() - start
    return conclude(found, total, device=device, profile=profile, seed=seed, duration_s=duration)
