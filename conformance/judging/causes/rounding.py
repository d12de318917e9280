"""Whether a sum is rounded or overflows as it is accumulated: told without knowing its order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, Operand
from conformance.cases.plans import with_reduction
from conformance.cases.values import FORMAT_OF
from conformance.judging.cause import Cause
from conformance.judging.causes.asking import Laid, Subject, answers, length, positions
from conformance.judging.causes.trials import PLAIN, Trial, trials
from reference.formats import Floats, round_nearest

QUIET = PLAIN | {"small", "near_one", "spike", "spread", "total_edge"}


def accumulator_cause(subject: Subject, t: Trial) -> Cause | None:
    """The elements are right one by one and counted once; small integers add up exactly; and the
    error is the same at another scale, or gone if it was an overflow. Rounding is what is left."""
    case = t.case
    if not t.is_value or t.reduction == "none" or t.n < 2 or t.seen is None or case.same:
        return None
    if {case.input.fill.regime, case.target.fill.regime} - QUIET or t.seen.values.shape != ():
        return None
    alone = with_reduction(case, "none")
    if subject.allows(alone) and trials(subject, [alone], "value")[0].wrong:
        return None
    if not _adds_integers(subject, t):
        return None
    seen, right = float(t.seen.values), float(t.right)
    if np.isinf(seen) and np.isfinite(right):
        if _scales(subject, t, [2.0**-4], right):
            text = f"The sum overflows in {t.dtype} as it is accumulated: too narrow for it."
            return Cause("narrow_accumulator", text)
        return None
    if not np.isfinite(seen) or (t.is_right() and not t.wrong):
        return None
    if not _scales(subject, t, [2.0**-3, 2.0**-1], seen):
        return None
    error = abs(seen - right) / abs(right)
    text = (
        f"Adding {t.n} terms rounds too much: an error of {error:.1e}, though every element is "
        "right and small integers add up exactly. The accumulator is too narrow, or one for all."
    )
    return Cause("narrow_accumulator", text)


def _adds_integers(subject: Subject, t: Trial) -> bool:
    """Whether sums come out that no accumulator has to round."""
    few = (1.1 if t.fmt.precision < 24 else 2.1) * t.fmt.u  # the rounding of what is exact
    calls, exact = [], []
    for salt in range(12):
        x, y = _ones(t, salt)
        total = float(np.broadcast_to((x - y) ** 2, t.shape).sum())
        if total > 2**t.fmt.precision:
            return False
        calls.append(_laid(t, x, y))
        exact.append(total / t.n if t.reduction == "mean" else total)
    return _are_near(answers(subject, calls, "value"), exact, few)


def _ones(t: Trial, salt: int) -> tuple[Floats, Floats]:
    """Some ones among zeros in either operand, so few that every partial sum is exact."""
    random = np.random.Generator(np.random.PCG64(salt))
    x = np.zeros(t.case.input.shape)
    most = min(2 ** (t.fmt.precision - 1), x.size)
    ones = random.permutation(x.size)[: max(int(most * random.uniform(0.1, 0.6)), 1)]
    x.reshape(-1)[ones] = 1.0
    return x, np.where(random.uniform(size=t.case.target.shape) < 0.1, 1.0, 0.0)


def _scales(subject: Subject, t: Trial, factors: Sequence[float], unscaled: float) -> bool:
    """Whether operands times powers of two give ``unscaled`` times their squares."""
    assert t.seen is not None
    few = 4 * t.fmt.u if np.isfinite(float(t.seen.values)) else 64 * t.fmt.u
    got = answers(subject, [_laid(t, t.x * f, t.y * f) for f in factors], "value")
    return _are_near(got, [unscaled * f * f for f in factors], few)


def _are_near(got: Sequence[Floats | None], wanted: Sequence[float], few: float) -> bool:
    return all(
        g is not None and g.shape == () and abs(float(g) - w) <= few * abs(w)
        for g, w in zip(got, wanted, strict=True)
    )


def _laid(t: Trial, x: Floats, y: Floats) -> Laid:
    """The trial's case with these elements, and zeros around them."""
    return Laid(t.case, _line(t.case.input, x), _line(t.case.target, y))


def _line(operand: Operand, values: Floats) -> Floats:
    line = np.zeros(length(operand))
    exact = operand.dtype in FLOAT_DTYPES
    line[positions(operand)] = round_nearest(values, FORMAT_OF[operand.dtype]) if exact else values
    return line
