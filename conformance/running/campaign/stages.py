"""The stages of a campaign, what each looks at, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.running.session import LOST_PER_RUN


@dataclass(frozen=True)
class Stage:
    """``profile``: what it runs. ``first``: it stops at the first broken ``must``, and explains it.

    ``seconds``: after which it is cut short. ``explaining``: seconds to make a case smaller, and
    as many for its cause. ``lost_before``: of the calls that a run may lose, so many count as lost.
    """

    name: str
    profile: str
    first: bool
    seconds: float
    explaining: float
    lost_before: int = 0


# One call that does not return, or four that end their process, are enough to screen by.
SCREEN = Stage("screen", "quick", True, 400.0, 6.0, LOST_PER_RUN - 4)
# What screening does not break it has seen through, in the same cases: that is quick's verdict.
QUICK = Stage("quick", "quick", False, 600.0, 60.0)
DEFAULT = Stage("default", "default", False, 1800.0, 60.0)
STAGES = {stage.name: stage for stage in (SCREEN, QUICK, DEFAULT)}
COMPILING = "compile"  # the import of a kernel, in the ledger; it has a limit of its own
