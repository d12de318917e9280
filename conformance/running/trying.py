"""What does a loss support? One plain call for each claim: what raises is not claimed.

What returns something wrong is claimed nevertheless: a loss that is wrong is not one that promises
less, and ``check`` tells how it is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL, Domain
from conformance.cases.plans import plain, with_dtypes, with_needs, with_shapes
from conformance.judging.evidence import BadEvidence
from conformance.judging.experiments import run_experiment
from conformance.judging.observer import Lost, Unavailable
from conformance.running.probing import as_source, likely_result, names_of
from conformance.running.session import Session
from conformance.running.starter import Tried

# The experiments that a claim is tried with, in the order in which they are tried. What costs more
# comes later, and only where what it rests on was seen to work.
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "deterministic": ("determinism.repeat",),
    "double_backward": ("autograd.double_backward",),
    "forward_ad": ("autograd.forward",),
    "functorch": ("transforms.grad", "transforms.vmap"),
    "autocast": ("transforms.autocast",),
    "compile": ("transforms.fake", "transforms.compile"),
    "dynamic": ("transforms.compile_dynamic",),
    "export": ("transforms.export",),
    "weight": ("weight.value", "weight.gradient", "weight.derivative"),
    "legacy": ("legacy.reduction", "legacy.positional"),
    "module": ("module.value",),
}
RESTS_ON = {"dynamic": "compile"}
NO_CALL = ("raised ", "the call ")
UNSUPPORTED = (*NO_CALL, "no gradient", "is None, not a tensor")
PROPERTIES = ("deterministic",)  # a loss that has it not is right without it


Way = Callable[..., None]  # of the session, what was found, and the claim


def tried(session: Session) -> Tried:
    """Try what the target claims. What was seen not to work is not asked for by later calls."""
    found, stated = Tried(), session.target
    claimed = _in_its_form(session, found)
    for dtype in (d for d in FLOAT_DTYPES if d in claimed.dtypes):
        cases = {r: _plain(claimed, dtype, r) for r in claimed.reductions}
        raised = {reduction: _raised(session, case) for reduction, case in cases.items()}
        if all(raised.values()):
            found.dropped[dtype] = next(iter(raised.values()))
        else:
            found.dtypes.append(dtype)
            found.dropped |= {reduction: why for reduction, why in raised.items() if why}
    found.reductions = [r for r in claimed.reductions if r not in found.dropped]
    if found.dtypes and found.reductions:
        for claim, way in _ways(claimed, found).items():
            if claim in claimed.claims and RESTS_ON.get(claim, claim) not in found.dropped:
                session.observer.claimed = dataclasses.replace(
                    claimed,
                    claims=frozenset([*found.claims, claim]),
                    reductions=tuple(found.reductions),
                    dtypes=tuple(found.dtypes),
                )
                way(session, found, claim)
                if claim not in found.dropped:
                    found.claims.append(claim)
        session.observer.claimed = stated
    return found


def _in_its_form(session: Session, found: Tried) -> Claimed:
    """What the target claims, and the form that its results are seen to have, if it says none."""
    claimed = session.target
    result = likely_result(session) if claimed.domain == FULL else None
    if result is None:
        return claimed
    domain = Domain(result=result)
    found.domain, found.imported = as_source(domain), names_of(domain)
    return dataclasses.replace(claimed, domain=domain)


def _plain(claimed: Claimed, dtype: str, reduction: str) -> Case:
    case = plain(dtype, reduction).replace(result=claimed.domain.result)
    return with_needs(case, True, False)


def _ways(claimed: Claimed, found: Tried) -> dict[str, Way]:
    """What tries each claim: it notes why the claim is not kept, or what is wrong."""
    case = _plain(claimed, found.dtypes[0], found.reductions[-1])
    other = found.dtypes[-1] if len(found.dtypes) > 1 else "int64"
    cases = {
        "target_gradient": with_needs(case, False, True),
        "empty": with_shapes(case, (0,), (0,)),
        "broadcast": with_shapes(case, (2, 3), (3,)),
        "mixed_dtype": with_dtypes(case, found.dtypes[0], other),
    }
    ways: dict[str, Way] = {c: partial(_try_case, case=case) for c, case in cases.items()}
    return ways | {c: partial(_try_experiments, clauses=e) for c, e in EXPERIMENTS.items()}


def _try_case(session: Session, found: Tried, claim: str, case: Case) -> None:
    messages = _messages(session, case)
    unsupported = [m for m in messages if any(words in m for words in UNSUPPORTED)]
    if unsupported:
        found.dropped[claim] = unsupported[0]
    elif messages:
        found.wrong[claim] = messages[0]


def _try_experiments(session: Session, found: Tried, claim: str, clauses: tuple[str, ...]) -> None:
    for clause in clauses:
        try:
            messages, error = run_experiment(clause, session.bench(clause, found.dtypes[0]))
        except Unavailable as reason:
            found.wrong[claim] = f"not tried: {reason}"
            return
        except (Lost, BadEvidence) as lost:
            messages, error = [], f"the call {lost}"
        nothing = any(words in m for m in messages for words in UNSUPPORTED)
        if error or nothing or (messages and claim in PROPERTIES):
            found.dropped[claim] = error or messages[0]
            return
        if messages:
            found.wrong[claim] = messages[0]


def _raised(session: Session, case: Case) -> str:
    """What a call raised, or how it was lost; empty where it returned."""
    found = _messages(session, case)
    return next((m for m in found if any(words in m for words in NO_CALL)), "")


def _messages(session: Session, case: Case) -> list[str]:
    before = len(session.lost)
    found = [deviation.message for deviation in session.run(case).deviations]
    return [*found, *(f"the call {call.how}" for call in session.lost[before:])]
