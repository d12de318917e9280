"""Which inputs does a target take? Found out by trying, where it does not take all.

Each limit of a :class:`~conformance.cases.domain.Domain` is looked for by itself, around a pair of
operands that works. It is a guess to begin with: the author knows better, and the verdict tells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import fields, replace

from conformance.cases.case import Case
from conformance.cases.domain import FULL, Domain, Result
from conformance.cases.plans import plain, with_layouts, with_needs, with_shapes
from conformance.judging.checks import judge_observation
from conformance.judging.evidence import BadEvidence
from conformance.judging.observer import Lost
from conformance.running.session import LEFT_OUT, Session

Shape = tuple[int, ...]
# One that works is likely among these.
SHAPES: tuple[Shape, ...] = (
    (5,),
    (3, 5),
    (6, 1),
    (4, 32),
    (4, 128),
    (2, 3, 5),
    (2, 3, 32),
    (2, 3, 4, 5),
    (1024,),
    (32, 1024),
)
RANKS = 7  # dimensions that are tried
MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LIMITS = tuple(2**k for k in range(0, 14))

# Forms of a result, from the usual one on.
FORMS: tuple[Result | None, ...] = (
    None,
    Result(scalar=(1,)),
    Result(flat=True),
    Result(scalar=(1,), flat=True),
    Result(over=(1, None)),
    Result(over=(-1, None)),
    Result(divisor=(0, 1)),
    Result(divisor=(1, None)),
    Result(dtype="float32"),
    Result(rounded=("", "float32")),
    Result(dtype="float32", rounded=("float32", "float32")),
)
SMALL = 200  # elements of a shape that forms are told by

Works = Callable[[Shape, str], bool]


def likely_domain(session: Session) -> Domain:
    """What the target seems to take; the full domain where nothing or everything works."""
    result = likely_result(session)
    for backward in (True, False):
        works = _trying(session, backward, result)
        base = next((shape for shape in SHAPES if works(shape, "contiguous")), None)
        if base is not None and (backward or _has_none(session, base, result)):
            return replace(_around(base, works), backward=backward, result=result)
    return FULL


def likely_result(session: Session) -> Result | None:
    """The first form that all results have which a few calls return; None where none has."""
    plainly = itertools.product(session.target.dtypes, session.target.reductions, SHAPES)
    cases = [
        with_needs(with_shapes(plain(dtype, reduction), shape, shape), False, False)
        for dtype, reduction, shape in plainly
        if math.prod(shape) <= SMALL
    ]
    try:
        seen = session.observer.observe(cases)
    except (Lost, BadEvidence):
        return None  # whatever that is, it is no form
    pairs = [(case, one) for case, one in zip(cases, seen, strict=True) if one.value is not None]
    for form in FORMS if pairs else ():
        if not any(judge_observation(c.replace(result=form), one).deviations for c, one in pairs):
            return form
    return None


def _has_none(session: Session, shape: Shape, result: Result | None) -> bool:
    """Whether there is no gradient at all; one that is wrong is another matter."""
    found = session.run(_case(session, shape, True, result)).deviations
    return bool(found) and all(
        "no grad_fn" in d.message or d.message.startswith("backward raised") for d in found
    )


def _case(session: Session, shape: Shape, backward: bool, result: Result | None) -> Case:
    case = plain(session.target.dtypes[0], session.target.reductions[0]).replace(result=result)
    target_too = "target_gradient" in session.target.claims
    return with_needs(with_shapes(case, shape, shape), backward, backward and target_too)


def _trying(session: Session, backward: bool, result: Result | None) -> Works:
    """Whether operands of such a shape and layout give what they should, as far as is known."""

    def works(shape: Shape, layout: str) -> bool:
        case = with_layouts(_case(session, shape, backward, result), layout, layout)
        return not session.lost and _is_right(session, case)

    return works


def _is_right(session: Session, case: Case) -> bool:
    judgement = session.run(case)
    return judgement is not LEFT_OUT and not judgement.deviations


def _around(base: Shape, works: Works) -> Domain:
    ranks = [r for r in range(RANKS) if works(_of_rank(base, r), "contiguous")]
    least, most = min(ranks, default=len(base)), max(ranks, default=len(base))
    columns = _columns(base, lambda n: works((*base[:-1], n), "contiguous"))
    return Domain(
        ranks=(least, 64 if most == RANKS - 1 else most),
        columns=columns,
        layout=_layout(base, columns[0], works),
    )


def _of_rank(base: Shape, rank: int) -> Shape:
    """A shape of so many dimensions, with the base's columns."""
    if rank == len(base):
        return base
    return (*((2,) * (rank - 1)), base[-1]) if rank else ()


def _columns(base: Shape, works: Callable[[int], bool]) -> tuple[int, int]:
    """What their number is a multiple of, and its limit; (1, 0) where there is none."""
    multiple = next((m for m in MULTIPLES if works(3 * m) and works(5 * m)), 0)
    if not multiple:  # this very size, perhaps
        return (1, base[-1]) if base[-1] == 1 else (base[-1], base[-1])
    limits = [n for n in LIMITS if n >= 8 * multiple]
    largest = next((n for n in limits if works(n) and not works(n + multiple)), 0)
    return multiple, largest


def _layout(base: Shape, multiple: int, works: Works) -> str:
    shape = base if len(base) > 1 else (max(base[-1], 2 * multiple),)
    if works(shape, "transposed" if len(shape) > 1 else "strided") and works(shape, "strided"):
        return "any"
    return "dense_rows" if len(shape) > 1 and works(shape, "narrow") else "contiguous"


def as_source(domain: Domain | Result) -> str:
    """As its author writes it."""
    usual = type(domain)()
    changed = [f.name for f in fields(domain) if getattr(domain, f.name) != getattr(usual, f.name)]
    values = {name: getattr(domain, name) for name in changed}
    texts = (f"{k}={as_source(v) if isinstance(v, Result) else repr(v)}" for k, v in values.items())
    return f"{type(domain).__name__}({', '.join(texts)})"


def names_of(domain: Domain) -> str:
    """What its author imports for that."""
    return "Domain" if domain.result is None else "Domain, Result"
