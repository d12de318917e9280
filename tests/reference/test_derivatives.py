"""The reference's tangents and second derivatives, in exact rationals, and the bound for them.

The loss is a quadratic, so a central difference is its derivative without any error.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.cases.values import FORMAT_OF
from reference.bounds import ROUNDINGS, counted, slack
from reference.enclosure import depth, gamma
from reference.formats import FORMATS, Format, round_nearest
from reference.losses.mse import FORMULA, LOSS
from reference.reductions import REDUCTIONS

Rationals = NDArray[Any]
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)


def rationals(seed: int, *shape: int) -> Rationals:
    random = np.random.default_rng(seed)
    flat = [Fraction(int(k), 8) for k in random.integers(-32, 33, int(np.prod(shape)))]
    made = np.empty(len(flat), dtype=object)
    made[:] = flat
    return made.reshape(shape)


def gradient(d: Rationals, g: Rationals, reduction: str) -> Rationals:
    return next(LOSS.orders(d, g, reduction, Fraction))


@every_reduction
def test_jvp_is_the_central_difference(reduction: str) -> None:
    d, t = rationals(1, 2, 3), rationals(2, 2, 3)
    ahead, behind = (FORMULA.value(d + sign * t, reduction) for sign in (1, -1))
    assert np.array_equal(FORMULA.jvp(d, t, reduction), (ahead - behind) / 2)


@every_reduction
def test_second_vjp_is_the_central_difference_of_the_gradient(reduction: str) -> None:
    d, w, t = rationals(1, 2, 3), rationals(2, 2, 3), rationals(3, 2, 3)
    g = rationals(4, 2, 3) if reduction == "none" else rationals(4, 1)[0]
    by_x, by_g = FORMULA.second_vjp(d, g, w, reduction)
    ahead, behind = ((w * gradient(d + s * t, g, reduction)).sum() for s in (1, -1))
    assert (by_x * t).sum() == (ahead - behind) / 2
    ahead, behind = ((w * gradient(d, g + s, reduction)).sum() for s in (1, -1))
    assert np.sum(by_g) == (ahead - behind) / 2


@every_reduction
def test_the_vjp_and_the_jvp_are_transposes(reduction: str) -> None:
    d, t = rationals(1, 5), rationals(2, 5)
    g = rationals(4, 5) if reduction == "none" else rationals(4, 1)[0]
    assert (gradient(d, g, reduction) * t).sum() == np.sum(g * FORMULA.jvp(d, t, reduction))


@every_format
def test_every_order_of_rounded_steps_is_within_the_bound(fmt: Format) -> None:
    """2·w·g/n with a rounding after each step, in all orders of the factors."""
    random = np.random.default_rng(5)
    w, g = (random.integers(1, 33, 500) / 8 for _ in range(2))
    n = 500
    rounded = [
        round_nearest(round_nearest(round_nearest(2 * w, fmt) * g, fmt) / n, fmt),
        round_nearest(round_nearest(2 / n, fmt) * round_nearest(w * g, fmt), fmt),
        round_nearest(round_nearest(round_nearest(g / n, fmt) * w, fmt) * 2, fmt),
    ]
    exact = FORMULA.second_vjp(np.zeros(n), g, w, "mean")[0]
    permitted = counted(fmt, exact, abs(exact))
    assert all(permitted.contains(v).all() for v in rounded)


@every_format
def test_what_a_defect_changes_is_outside_the_bound(fmt: Format) -> None:
    """A factor of 2, a lost 1/n, a lost term of 40, a wrong sign."""
    d, t = (np.arange(1.0, 41.0) / 8 for _ in range(2))
    exact = np.asarray(FORMULA.jvp(d, t, "sum"))
    permitted = counted(fmt, exact, abs(exact), d.size)
    for wrong in (exact / 2, exact / d.size, exact - 2 * d[-1] * t[-1], -exact):
        assert not permitted.contains(round_nearest(np.asarray(wrong), fmt)).any()


def test_subnormal_gradients_round_to_multiples_of_eta_and_are_not_flushed() -> None:
    """2·d/n below the smallest normal number: relative errors alone do not bound its roundings."""
    fmt, n = FORMAT_OF["float16"], 193
    d = np.arange(1.0, 200.0) * 2.0**-12
    exact = 2 * d / n
    assert exact[0] < fmt.eta * 2**10  # subnormal
    half = round_nearest(d / n, fmt)
    orders = (
        round_nearest(exact, fmt),
        half + half,
        round_nearest(d * round_nearest(2 / n, fmt), fmt),
    )
    permitted = counted(fmt, exact, exact)
    assert all(permitted.contains(v).all() for v in orders)
    relative = slack(fmt.u, fmt.accumulator.u, 0.0, exact)
    assert (abs(half + half - exact) > relative).any()  # so it takes the η
    assert not permitted.contains(np.zeros_like(d)).any()  # flushed to zero
    assert not counted(fmt, np.zeros(1), np.zeros(1)).contains(np.full(1, fmt.eta)).any()


def test_the_bound_is_the_count_of_roundings_and_the_depth_of_the_sum() -> None:
    fmt = FORMAT_OF["float16"]
    permitted = counted(fmt, np.ones(1), np.ones(1), 1000)
    half = gamma(ROUNDINGS, 2.0**-11) + gamma(depth(1000, 2.0**-24), 2.0**-24) + 2 * fmt.eta
    assert permitted.upper[0] - 1 == pytest.approx(half, rel=1e-9)
    assert half < 0.007


def test_a_running_binary64_tangent_is_within_the_bound_and_a_lost_term_outside() -> None:
    fmt, n, term = FORMAT_OF["float64"], 2**20, 1.1 * 1.1
    exact = np.asarray(n * term)
    permitted = counted(fmt, exact, exact, n)
    running = np.add.accumulate(np.full(n, term))[-1]
    assert abs(running - exact) / exact > gamma(n / 8, fmt.u)
    assert permitted.contains(running)
    assert not any(permitted.contains(exact + sign * term) for sign in (1, -1))
