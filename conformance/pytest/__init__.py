"""One test for each clause, in your own test suite.

    from conformance.pytest import conformance_test, parametrize_with_clauses

    test_my_loss = conformance_test("mine.py:loss")     # in one line

    @pytest.mark.slow                                   # or with markers and fixtures of yours
    @parametrize_with_clauses(my_loss, profile="quick")
    def test_my_loss_too(conformance_check):
        conformance_check()

The target is judged once, by the first of the tests that runs; pytest-xdist's workers share the
verdict. A broken ``must`` fails, a broken ``should`` and what is waived are expected failures, and
what the target does not claim is skipped. Waivers are read from the configuration of pytest's root
folder. The target runs in a process of its own, where it can be found by a name there: what crashes
fails its clause, and ends nothing. What has no name (a local function) runs in the test's process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance.clauses import CLAUSES, ONE_GPU, Clause
from conformance.running.options import check_profile
from conformance.verdict.verdict import BROKEN_STATUSES


@dataclass(frozen=True)
class Judging:
    """What is to be judged, and how. ``target``: whatever :func:`targets.resolve` takes."""

    target: Any
    device: str
    profile: str
    seed: int

    def verdict(self, root: Path) -> dict[str, Any]:
        """The verdict as JSON, with the waivers of ``root``. Raises TargetError and others."""
        from conformance.pytest.reaching import observer_of
        from conformance.running.inprocess import judged
        from conformance.verdict.configuration import find
        from conformance.verdict.waivers import parse

        waivers = parse(find(root))
        with contextlib.closing(observer_of(self.target, self.device)) as observer:
            return judged(observer, self.profile, self.seed, waivers).to_json()

    def shared(self, folder: Path, root: Path, key: str) -> dict[str, Any]:
        """The verdict, made by the first process of this test run that asks for it."""
        path = folder / f"loss-conformance-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                fresh = path.with_suffix(f".{os.getpid()}")
                fresh.write_text(json.dumps(self.verdict(root)), encoding="utf-8")
                fresh.replace(path)
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found


@dataclass(frozen=True)
class Check:
    """The test of one clause: call it. ``verdict()`` is made on the first call in a test run."""

    clause: str
    verdict: Callable[[], dict[str, Any]]

    def __call__(self) -> None:
        """Pass, fail, skip or fail as expected, in pytest's ways."""
        rows = [r for r in self.verdict()["clauses"] if r["id"] == self.clause]
        broken = [r for r in rows if r["status"] in BROKEN_STATUSES]
        waived = [r for r in rows if r["status"] == "waived"]
        without = [r for r in rows if r["status"] == "unavailable" and r.get("message") != ONE_GPU]
        if broken:
            from conformance.report.text import failures

            text = "\n".join(failures(broken, {c.id: c.sentence for c in CLAUSES}))
            if broken[0]["level"] == "must":
                pytest.fail(text, pytrace=False)
            pytest.xfail(f"not as it should be: {text}")
        if waived:
            pytest.xfail(f"waived: {waived[0]['waiver']['reason']}")
        if without:
            why = without[0].get("message") or "it did not run"
            pytest.fail(f"{self.clause} has no evidence: {why}", pytrace=False)
        if not any(r["status"] == "pass" for r in rows):
            why = {r["status"].replace("_", " ") for r in rows} or {"unclaimed"}
            pytest.skip(f"{self.clause}: {', '.join(sorted(why))}")


def parametrize_with_clauses(
    target: Any, *, device: str = "cpu", profile: str = "default", seed: int = 0
) -> pytest.MarkDecorator:
    """Run the decorated test, which takes ``conformance_check``, once for each clause.

    ``target``, ``device``, ``profile``, ``seed``: as for :func:`conformance.judge`. Raises
    UsageError for an unknown profile; a target that cannot be had fails the tests.
    """
    check_profile(profile)
    judging = Judging(target, device, profile, seed)
    params = [pytest.param((judging, c), id=c.id) for c in _about(device)]
    return pytest.mark.parametrize("conformance_check", params, indirect=True)


def conformance_test(
    target: Any, *, device: str = "cpu", profile: str = "default", seed: int = 0
) -> Callable[..., None]:
    """A test function for a module of yours: ``test_my_loss = conformance_test(my_loss)``."""

    def test(conformance_check: Check) -> None:
        conformance_check()

    return parametrize_with_clauses(target, device=device, profile=profile, seed=seed)(test)


def _about(device: str) -> list[Clause]:
    return [c for c in CLAUSES if c.is_about(device)]


def check_of(request: pytest.FixtureRequest, folder: Path) -> Check:
    """The check that a test has been parametrised with; its verdict lies in ``folder``.

    The session keeps what it has read, and why nothing could be judged.
    """
    from targets import TargetError

    judging, clause = request.param
    known = request.config.stash.setdefault(VERDICTS, {})
    # Equal in every worker: which of the tests of this file and function it is the verdict for.
    definition = request.node.nodeid.partition("[")[0]

    def verdict() -> dict[str, Any]:
        if definition not in known:
            try:
                known[definition] = judging.shared(folder, request.config.rootpath, definition)
            except (TargetError, ValueError, RuntimeError) as error:
                known[definition] = str(error)
        found: dict[str, Any] | str = known[definition]
        if isinstance(found, str):
            pytest.fail(found, pytrace=False)
        return found

    return Check(clause.id, verdict)


VERDICTS = pytest.StashKey[dict[str, Any]]()
