"""Cases that Hypothesis makes up, as many as the profile says, from a seed alone."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis

from conformance.cases.case import Case
from conformance.cases.profiles import Profile
from conformance.cases.strategies import scenarios
from targets import Target


def fuzz(target: Target, profile: Profile, salt: int, judge: Callable[[Case], float]) -> None:
    """``judge`` each case; it returns the share of the permitted error that was used."""
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
        shares = [judge(case) for case in scenario]
        if profile.climb and shares:
            hypothesis.target(max(shares), label="share of the permitted error")

    explore()
