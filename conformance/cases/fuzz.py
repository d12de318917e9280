"""Cases that Hypothesis makes up, as many as the profile says, from a seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import hypothesis

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.profiles import Profile
from conformance.cases.strategies import scenarios


def fuzz(
    target: Claimed, profile: Profile, salt: int, judge: Callable[[Sequence[Case]], list[float]]
) -> None:
    """``judge`` each scenario; for each case it gives the share of the permitted error."""
    phases = [hypothesis.Phase.generate]
    if profile.climb:
        phases.append(hypothesis.Phase.target)

    # Every field is set: with CI in the environment Hypothesis would load other defaults.
    @hypothesis.seed(salt)
    @hypothesis.settings(
        max_examples=profile.examples,
        derandomize=False,
        database=None,
        verbosity=hypothesis.Verbosity.quiet,
        phases=phases,
        stateful_step_count=50,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        deadline=None,
        print_blob=False,
        backend="hypothesis",
    )
    @hypothesis.given(scenarios(target, salt))
    def explore(scenario: tuple[Case, ...]) -> None:
        shares = judge(scenario)
        if profile.climb and shares:
            hypothesis.target(max(shares), label="share of the permitted error")

    explore()
