"""Is the adapter itself right? A few plain calls, and what is wrong with it in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.cases.domain import FULL, Domain
from conformance.cases.plans import plain, within
from conformance.judging.observer import Raised
from conformance.judging.oracle import permitted_value
from conformance.running.probing import as_source, likely_domain, names_of
from conformance.running.session import Session


def smoke(session: Session) -> list[str]:
    """What is wrong with the plainest calls that the target claims; empty where nothing is.

    One line for each dtype and reduction, with the likely mistake of the adapter where the result
    tells which one it is.
    """
    return [*_problems(session), *_narrower(session)]


def _narrower(session: Session) -> Iterator[str]:
    """The domain to claim, where the target seems to take less than it says."""
    if session.target.domain != FULL:
        return
    found = likely_domain(session)
    if found != FULL:
        yield (
            f"it seems to {_seen(found)}: mend that, or say so:\n"
            f"    from targets import {names_of(found)}\n    domain={as_source(found)}"
        )


def _seen(domain: Domain) -> str:
    """What it does of its own."""
    inputs = replace(domain, result=None)
    parts = [f"give {text}" for text in (domain.result.words() if domain.result else ())]
    if inputs != FULL:
        parts.append(f"take {inputs.words()}, and is wrong or raises for other operands")
    return " and ".join(parts)


def _problems(session: Session) -> Iterator[str]:
    target = session.target
    for dtype in (d for d in FLOAT_DTYPES if d in target.dtypes):
        for reduction in target.reductions:
            case = next(within(target, plain(dtype, reduction)), None)
            if case is None:
                yield f"its domain, {target.domain.words()}, has no operands of a few elements"
                return
            deviations = session.run(case).deviations
            if deviations:
                hint = _hint(session, case, deviations[0].message)
                yield f"{dtype} {reduction}: {deviations[0].message}{hint}"
            for call in session.lost:
                yield f"{dtype} {reduction}: the call {call.how}"
                return
    if "module" in target.claims:
        yield from _module_problems(session)


def _hint(session: Session, case: Case, message: str) -> str:
    """What the author has probably overlooked; empty where the result does not tell."""
    if message.startswith("returned tuple"):
        return " — return the loss alone, not a tuple"
    if message.startswith("returned "):
        return " — return a torch.Tensor"
    if "unexpected keyword" in message and "reduction" in message:
        return f" — take `reduction`, or claim reductions=({case.reduction!r},) and ignore it"
    if message.startswith("raised "):
        return f" — if it does not support {case.dtype} or {case.reduction!r}, do not claim it"
    for other in ("none", "sum", "mean"):
        if other != case.reduction and _is_value(session, case, case.replace(reduction=other)):
            return f" — this is the {other}: does the adapter hand `reduction` on?"
    if "no gradient for target (None)" in message:
        return " — if there is no gradient for target, do not claim target_gradient"
    return ""


def _is_value(session: Session, case: Case, other: Case) -> bool:
    """Whether the result for ``case`` is what ``other`` asks for."""
    value = session.observer.observe([case])[0].value
    if value is None or value.values.shape != (other.shape if other.reduction == "none" else ()):
        return False
    return bool(permitted_value(other, other.dtype).contains(value.values).all())


def _module_problems(session: Session) -> Iterator[str]:
    bench = session.bench("module.value", session.target.dtypes[0])
    for reduction in session.target.reductions:
        try:
            made = bench.ask("plain.module", reduction=reduction)
        except Raised as raised:
            yield f"module(reduction={reduction!r}) raised {raised}"
            continue
        if not made.flag("is_module"):
            yield f"module(reduction={reduction!r}) is a {made['kind']}, not an nn.Module"
