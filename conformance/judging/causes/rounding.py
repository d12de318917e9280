"""Whether a sum is rounded or overflows as it is accumulated: told without knowing its order."""

from __future__ import annotations

import numpy as np

from conformance.cases.case import Case
from conformance.cases.plans import with_reduction
from conformance.judging.causes.cause import Cause
from conformance.judging.causes.memory import length, positions, run
from conformance.judging.causes.trials import PLAIN, Subject, Trial, trial
from reference.formats import Floats

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
    if subject.allows(alone) and trial(subject, alone, "value").wrong:
        return None
    if not all(_adds_integers(subject, t, salt) for salt in range(12)):
        return None
    seen, right = float(t.seen.values), float(t.right)
    if np.isinf(seen) and np.isfinite(right):
        if _scaled(subject, t, 2.0**-4, right):
            text = f"The sum overflows in {t.dtype} as it is accumulated: too narrow for it."
            return Cause("narrow_accumulator", text)
        return None
    if not np.isfinite(seen) or (t.is_right() and not t.wrong):
        return None
    if not (_scaled(subject, t, 2.0**-3, seen) and _scaled(subject, t, 2.0**-1, seen)):
        return None
    error = abs(seen - right) / abs(right)
    text = (
        f"Adding {t.n} terms rounds too much: an error of {error:.1e}, though every element is "
        "right and small integers add up exactly. The accumulator is too narrow, or one for all."
    )
    return Cause("narrow_accumulator", text)


def _buffers(case: Case, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    lines = np.zeros(length(case.input)), np.zeros(length(case.target))
    lines[0][positions(case.input)] = x
    lines[1][positions(case.target)] = y
    return lines


def _adds_integers(subject: Subject, t: Trial, salt: int) -> bool:
    """Some ones among zeros in either operand, so few that every partial sum is exact."""
    random = np.random.Generator(np.random.PCG64(salt))
    x = np.zeros(t.case.input.shape)
    most = min(2 ** (t.fmt.precision - 1), x.size)
    ones = random.permutation(x.size)[: max(int(most * random.uniform(0.1, 0.6)), 1)]
    x.reshape(-1)[ones] = 1.0
    y = np.where(random.uniform(size=t.case.target.shape) < 0.1, 1.0, 0.0)
    total = float(np.broadcast_to((x - y) ** 2, t.shape).sum())
    if total > 2**t.fmt.precision:
        return False
    got = run(subject, t.case, *_buffers(t.case, x, y)).value
    exact = total / t.n if t.reduction == "mean" else total
    few = (1.1 if t.fmt.precision < 24 else 2.1) * t.fmt.u  # the rounding of what is exact
    return got is not None and got.shape == () and abs(float(got) - exact) <= few * exact


def _scaled(subject: Subject, t: Trial, factor: float, unscaled: float) -> bool:
    """Whether operands times a power of two give ``unscaled`` times its square."""
    got = run(subject, t.case, *_buffers(t.case, t.x * factor, t.y * factor)).value
    wanted = unscaled * factor * factor
    few = 4 * t.fmt.u if np.isfinite(float(t.seen.values)) else 64 * t.fmt.u  # type: ignore[union-attr]
    return got is not None and got.shape == () and abs(float(got) - wanted) <= few * abs(wanted)
