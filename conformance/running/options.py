"""The values that options may have, and what to say when they have others."""

from __future__ import annotations

from conformance.cases.profiles import PROFILES, Profile


class UsageError(ValueError):
    """A wrong option; the message is for users."""

    status = 2


def check_profile(name: str) -> Profile:
    """The profile of that name. Raises UsageError."""
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}: use {', '.join(PROFILES)}")
    return PROFILES[name]
