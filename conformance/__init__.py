"""The conformance suite. Importing it imports neither torch nor hypothesis: ``judge`` is lazy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.running.inprocess import judge
    from conformance.verdict.verdict import Verdict

__all__ = ["Verdict", "judge"]


def __getattr__(name: str) -> Any:
    if name == "judge":
        from conformance.running.neighbours import check_neighbours

        check_neighbours()
        from conformance.running.inprocess import judge

        return judge
    if name == "Verdict":
        from conformance.verdict.verdict import Verdict

        return Verdict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
