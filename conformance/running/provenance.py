"""Ask what a target is made of, and what it tried to do beside.

The first after everything else: compiled code does not run again in that process.
"""

from __future__ import annotations

from conformance.clauses import FORBIDDEN
from conformance.judging.evidence import BadEvidence, Evidence
from conformance.judging.observer import Lost, Outside, Raised, Unavailable
from conformance.running import sandbox
from conformance.running.observers import Interrupted, Process
from conformance.running.session import Session
from conformance.verdict.provenance import MadeOf

MOST, LONGEST = 1000, 200  # names, and characters of a name
SHAPE = (6, 5)
GRACE = 1.0  # seconds for helpers of torch's compiler, which end when their observer has


def made_of(session: Session) -> dict[str, MadeOf]:
    """What it runs in each of its dtypes, as its own process tells."""
    found: dict[str, MadeOf] = {}
    unknown = ""
    for dtype in session.target.dtypes:
        found[dtype] = MadeOf(unknown=unknown) if unknown else _made_of(session, dtype)
        unknown = found[dtype].unknown  # the next one would not tell either
    return found


def _made_of(session: Session, dtype: str) -> MadeOf:
    bench = session.bench(FORBIDDEN.id, dtype)
    operands = {"x": bench.tensor(SHAPE, 1), "y": bench.tensor(SHAPE, 2)}
    try:
        reductions = [*bench.reductions]
        seen = session.observer.ask("provenance.ran", operands, {"reductions": reductions})
        return MadeOf(
            _names(seen, "operators"), _names(seen, "kernels"), int(seen.number("returned"))
        )
    except Lost as lost:
        return MadeOf(unknown=f"the call {lost.how}")
    except Interrupted:
        return MadeOf(unknown="interrupted")
    except (Raised, Outside, Unavailable, BadEvidence) as reason:
        return MadeOf(unknown=str(reason))


def tried(observer: Process) -> list[str]:
    """What it tried in a sandbox, in words; as far as its own process tells."""
    if not (observer.hosting.bwrap and observer.running):
        return []
    try:
        return [*_names(observer.ask("provenance.tried", {}, {}), "tried")]
    except (Lost, Interrupted, Raised, Unavailable, BadEvidence):
        return []


def left_behind(observer: Process) -> list[str]:
    """End the observer; what of it is still there, in words."""
    if not (observer.hosting.bwrap and observer.running):
        return []
    root, known = sandbox.lineage(observer.pid)
    observer.close()
    number = sandbox.left(root, known, GRACE)
    return [f"leave processes behind ({number})"] if number else []


def _names(seen: Evidence, key: str) -> tuple[str, ...]:
    """Raises BadEvidence."""
    names = seen.listed(key)
    if len(names) > MOST or not all(isinstance(n, str) and len(n) <= LONGEST for n in names):
        raise BadEvidence(f"the observer's answer has in {key!r} what is no name")
    return tuple(sorted({*names}))
