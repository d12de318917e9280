"""The formulas proved: over rationals, over floats, over intervals, and against native orders."""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_formats import ALL, every_format, nearest, quantum

from reference.enclosure import Enclosure, PermittedSet, enclose
from reference.formats import BFLOAT16, BINARY16, BINARY32, BINARY64, Format
from reference.losses.loss import permitted_gradient
from reference.losses.mse import FORMULA, LOSS
from reference.reductions import REDUCTIONS, steps, unbroadcast

prove = settings(derandomize=True, deadline=None, database=None, max_examples=50)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
NATIVE: list[tuple[Format, type[np.floating[Any]]]] = [
    (BINARY64, np.float64),
    (BINARY32, np.float32),
    (BINARY16, np.float16),
]
every_native = pytest.mark.parametrize(
    ("fmt", "dtype"), [pytest.param(fmt, dtype, id=fmt.name) for fmt, dtype in NATIVE]
)
# (x, y): every kind of broadcasting, and none
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()),
    ((1,), (1,)),
    ((5,), (5,)),
    ((3,), ()),
    ((), (2, 2)),
    ((4, 1), (1, 3)),
    ((2, 3), (3,)),
    ((1, 3), (2, 1, 3)),
    ((2, 3, 2), (2, 3, 2)),
    ((1, 1), (3, 2)),
]
shapes = st.sampled_from(SHAPES)
# numpy turns 0-d object arrays into bare Fractions, which have no shape: not among the kinds.
exact_shapes = st.sampled_from(SHAPES[1:])
seeds = st.integers(0, 2**32)


def numbers(fmt: Format, rng: random.Random, shape: tuple[int, ...], low: int, high: int) -> Any:
    """An array of members of fmt with exponents ``low … high``, some of them zero or equal."""
    p = fmt.precision
    flat = []
    for _ in range(math.prod(shape)):
        m = rng.choice([0, 2 ** (p - 1), 2**p - 1, *(rng.randrange(2 ** (p - 1), 2**p),) * 5])
        exponent = max(rng.randint(low, high), fmt.emin) - p + 1
        flat.append(rng.choice([1.0, -1.0]) * math.ldexp(m, exponent))
    return np.array(flat, dtype=np.float64).reshape(shape)


def rational(a: NDArray[np.float64]) -> Any:
    """``a`` as an object array of rationals."""
    result = np.empty(a.shape, dtype=object)
    result.flat = [Fraction(v) for v in a.ravel().tolist()]
    return result


def flat(v: Any) -> list[Any]:
    return list(np.asarray(v, dtype=object).ravel())


def to_format(v: Any, fmt: Format) -> NDArray[np.float64]:
    """An array of rationals rounded to nearest in fmt, as float64."""
    a = np.asarray(v, dtype=object)
    rounded = [float(nearest(Fraction(x), fmt)) for x in a.ravel()]
    return np.array(rounded, dtype=np.float64).reshape(a.shape)


def wide(v: Any) -> NDArray[np.float64]:
    return np.asarray(v, dtype=np.float64)


def all_inside(permitted: PermittedSet, observed: NDArray[np.float64]) -> bool:
    assert permitted.lower.shape == observed.shape
    return bool(permitted.contains(observed).all())


def cotangent_shape(shape: tuple[int, ...], reduction: str) -> tuple[int, ...]:
    return shape if reduction == "none" else ()


# -- exact arithmetic -----------------------------------------------------------------------------


def plain_loss(x: Any, y: Any, reduction: str) -> list[Fraction]:
    """The loss by loops over the broadcast elements, written apart from the formula."""
    terms = [(a - b) * (a - b) for a, b in np.broadcast(x, y)]
    if reduction == "none":
        return terms
    total = sum(terms, Fraction(0))
    return [total if reduction == "sum" else total / len(terms)]


@every_reduction
@prove
@given(pair=exact_shapes, seed=seeds)
def test_loss_over_rationals_is_the_definition(
    reduction: str, pair: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    rng = random.Random(seed)
    x, y = (rational(numbers(BINARY64, rng, s, -40, 40)) for s in pair)
    got = FORMULA.value(x - y, reduction)
    assert flat(got) == plain_loss(x, y, reduction)
    shape = np.broadcast_shapes(*pair) if reduction == "none" else ()
    assert np.shape(got) == shape


@every_reduction
@prove
@given(pair=exact_shapes, seed=seeds)
def test_every_order_of_the_vjp_is_equal_over_rationals(
    reduction: str, pair: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    rng = random.Random(seed)
    x, y = (rational(numbers(BINARY64, rng, s, -400, 400)) for s in pair)
    d = np.asarray(x - y, dtype=object)
    g = rational(numbers(BINARY64, rng, cotangent_shape(d.shape, reduction), -400, 400))
    orders = [flat(v) for v in LOSS.orders(d, g, reduction, Fraction)]
    count = len(steps(d.shape))
    assert len(orders) == (9 + 6 * count if reduction == "mean" else 3)
    scale = Fraction(2, d.size) if reduction == "mean" else 2
    want = [scale * a * b for a, b in np.broadcast(d, g)]
    assert all(order == want for order in orders)


@every_reduction
@prove
@given(pair=exact_shapes, seed=seeds)
def test_the_vjp_is_the_derivative_of_the_loss(
    reduction: str, pair: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    """The loss is quadratic: a central difference is its derivative exactly, over rationals."""
    rng = random.Random(seed)
    x, y = (rational(numbers(BINARY64, rng, s, -4, 4)) for s in pair)
    d = np.asarray(x - y, dtype=object)
    g = rational(numbers(BINARY64, rng, cotangent_shape(d.shape, reduction), -4, 4))
    full = np.asarray(next(iter(LOSS.orders(d, g, reduction, Fraction))), dtype=object)

    def weighted(x: Any, y: Any) -> Fraction:
        losses = np.asarray(FORMULA.value(x - y, reduction), dtype=object)
        return sum((a * b for a, b in np.broadcast(losses, g)), Fraction(0))

    h = Fraction(1, 7)
    for gradient, operand in ((full, 0), (-full, 1)):
        at = (x, y)[operand]
        got = unbroadcast(gradient, at.shape)
        assert got.shape == at.shape
        for i in np.ndindex(*at.shape):
            ends = []
            for step in (h, -h):
                moved = at.copy()
                moved[i] = at[i] + step
                ends.append(weighted(moved, y) if operand == 0 else weighted(x, moved))
            assert got[i] == (ends[0] - ends[1]) / (2 * h)


# -- one formula, three kinds of number -----------------------------------------------------------


@every_reduction
@prove
@given(pair=exact_shapes, seed=seeds, fmt=st.sampled_from(ALL))
def test_rationals_float64_and_intervals_agree(
    reduction: str, pair: tuple[tuple[int, ...], tuple[int, ...]], seed: int, fmt: Format
) -> None:
    rng = random.Random(seed)
    x, y = (numbers(fmt, rng, s, -3, 3) for s in pair)
    a, b = rational(x), rational(y)
    shape = np.broadcast_shapes(*pair)
    g = numbers(fmt, rng, cotangent_shape(shape, reduction), -3, 3)
    e, f, w = enclose(fmt, x, y, g)

    exact = np.asarray(FORMULA.value(a - b, reduction), dtype=object)
    close = wide(FORMULA.value(x - y, reduction))
    np.testing.assert_allclose(close, exact.astype(float), rtol=1e-13, atol=1e-300)
    permitted = LOSS.permitted_loss(e - f, reduction)
    assert all_inside(permitted, to_format(exact, fmt))
    assert all_inside(permitted, to_format(rational(close), fmt))

    gradient = LOSS.vjp(e - f, w, reduction)
    assert gradient.shape == shape
    orders = list(LOSS.orders(a - b, rational(g), reduction, Fraction))
    floats = list(LOSS.orders(x - y, g, reduction, operator.truediv))
    for sign, operand in ((1, x), (-1, y)):
        want = unbroadcast(sign * np.asarray(orders[0], dtype=object), operand.shape)
        enclosed = gradient if sign == 1 else -gradient
        permitted = permitted_gradient(enclosed, operand.shape, fmt)
        assert all_inside(permitted, to_format(want, fmt))
        for v in floats:
            near = unbroadcast(sign * wide(v), operand.shape)
            assert all_inside(permitted, to_format(rational(near), fmt))


@every_reduction
def test_rationals_in_binary64_give_the_same_sets_as_float64(reduction: str) -> None:
    """Far exponents switch the carrier: scaled by a power of two, the sets stay the same."""
    rng = random.Random(5)
    for pair in SHAPES:
        x, y = (numbers(BINARY64, rng, s, -8, 8) for s in pair)
        g = numbers(BINARY64, rng, cotangent_shape(np.broadcast_shapes(*pair), reduction), -8, 8)
        scale = 2.0**-350
        near, far = enclose(BINARY64, x, y, g), enclose(BINARY64, x * scale, y * scale, g)
        assert not near[0].exact
        if not (x.any() or y.any()):
            continue
        assert far[0].exact
        sets = []
        for (e, f, w), back in ((near, 1.0), (far, 2.0**350)):
            value = LOSS.permitted_loss(e - f, reduction)
            gradient = permitted_gradient(LOSS.vjp(e - f, w, reduction), x.shape, BINARY64)
            sets.append((value, gradient, back))
        (value, gradient, _), (other_value, other_gradient, back) = sets
        for a, b, s in ((value, other_value, back * back), (gradient, other_gradient, back)):
            for end in ("lower", "upper"):
                want, got = getattr(a, end), getattr(b, end) * s
                np.testing.assert_allclose(got, want, rtol=2e-15, atol=0)


# -- native evaluations ---------------------------------------------------------------------------


def native_ratio(dtype: type[np.floating[Any]]) -> Callable[[int, int], Any]:
    """p/q in the dtype, or, as torch does, in float64 and then cast."""
    return lambda p, q: dtype(p / q)


RANGES = {"middle": (0.0, 0.1), "overflow": (0.45, 0.55), "underflow": (-0.55, -0.45)}
whereabouts = pytest.mark.parametrize("where", [*RANGES, "far"])


def exponents(fmt: Format, where: str) -> tuple[int, int]:
    """Exponents at which squares stay, overflow, underflow, or anything happens."""
    if where == "far":
        return fmt.emin - 2, fmt.emax
    low, high = RANGES[where]
    return int(low * fmt.emax), int(high * fmt.emax)


@every_native
@every_reduction
@whereabouts
@prove
@given(pair=shapes, seed=seeds)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_native_order_of_the_vjp_lies_inside(
    fmt: Format,
    dtype: type[np.floating[Any]],
    reduction: str,
    where: str,
    pair: tuple[tuple[int, ...], tuple[int, ...]],
    seed: int,
) -> None:
    rng = random.Random(seed)
    low, high = exponents(fmt, where)
    x, y = (numbers(fmt, rng, s, low, high).astype(dtype) for s in pair)
    shape = np.broadcast_shapes(*pair)
    g = numbers(fmt, rng, cotangent_shape(shape, reduction), low, high).astype(dtype)
    e, f, w = enclose(fmt, wide(x), wide(y), wide(g))
    full = LOSS.vjp(e - f, w, reduction)
    permitted = permitted_gradient(full, shape, fmt)
    acc = np.float32 if dtype is np.float16 else dtype
    summed = permitted_gradient(full, x.shape, fmt)
    negated = permitted_gradient(-full, y.shape, fmt)
    # As arrays: numpy's rules for scalars would change the dtype.
    d = np.asarray(np.subtract(x, y))
    for order in LOSS.orders(d, g, reduction, native_ratio(dtype)):
        assert order.dtype == dtype
        assert all_inside(permitted, wide(order))
        grown = np.asarray(order).astype(acc)
        into_x = np.asarray(unbroadcast(grown, x.shape)).astype(dtype)
        into_y = np.asarray(unbroadcast(-grown, y.shape)).astype(dtype)
        assert all_inside(summed, wide(into_x))
        assert all_inside(negated, wide(into_y))
    # The same in the wider formats, rounded once at the end.
    for wider in (np.float32, np.float64):
        if np.finfo(wider).nmant <= np.finfo(dtype).nmant:
            continue
        widest = np.subtract(x.astype(wider), y.astype(wider))
        for order in LOSS.orders(widest, g.astype(wider), reduction, native_ratio(wider)):
            assert all_inside(permitted, wide(np.asarray(order).astype(dtype)))


@every_native
@every_reduction
@whereabouts
@prove
@given(pair=shapes, seed=seeds)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_native_losses_lie_inside(
    fmt: Format,
    dtype: type[np.floating[Any]],
    reduction: str,
    where: str,
    pair: tuple[tuple[int, ...], tuple[int, ...]],
    seed: int,
) -> None:
    rng = random.Random(seed)
    x, y = (numbers(fmt, rng, s, *exponents(fmt, where)).astype(dtype) for s in pair)
    e, f = enclose(fmt, wide(x), wide(y))
    permitted = LOSS.permitted_loss(e - f, reduction)
    acc = np.float32 if dtype is np.float16 else dtype
    for inner, outer in itertools.product((dtype, acc, np.float64), (acc, np.float64)):
        if np.finfo(inner).nmant < np.finfo(dtype).nmant:
            continue
        d = np.asarray(np.subtract(x.astype(inner), y.astype(inner)))
        s = np.asarray(d * d)
        if reduction == "none":
            assert all_inside(permitted, wide(s.astype(dtype)))
            continue
        terms = s.astype(outer).ravel()
        running = [np.add.accumulate(v)[-1] for v in (terms, terms[::-1])]
        for total in (np.sum(terms), *running):
            result = total if reduction == "sum" else total / outer(d.size)
            assert all_inside(permitted, wide(outer(result).astype(dtype)))


# -- mixed formats --------------------------------------------------------------------------------

MIXED = [
    (BINARY64, BINARY32),
    (BINARY64, BINARY16),
    (BINARY32, BINARY16),
    (BINARY32, BFLOAT16),
    (BINARY64, BFLOAT16),
]


@pytest.mark.parametrize(("promoted", "narrow"), MIXED, ids=lambda f: f.name)
@pytest.mark.parametrize("scale", [0, 20, -20])
@prove
@given(seed=seeds, n=st.integers(2, 40))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_narrower_operand_may_cast_then_sum_or_sum_then_cast(
    promoted: Format, narrow: Format, scale: int, seed: int, n: int
) -> None:
    rng = random.Random(seed)
    x = numbers(narrow, rng, (1,), -3, 3)
    y = numbers(promoted, rng, (n,), -3, 3)
    g = np.array(2.0**scale)
    e, f, w = enclose(promoted, x, y, g)
    permitted = permitted_gradient(LOSS.vjp(e - f, w, "sum"), (1,), narrow)
    terms = [2 * (Fraction(x[0]) - Fraction(v)) * Fraction(2) ** scale for v in y.tolist()]
    promoted_terms = [nearest(v, promoted) for v in terms]
    sum_then_cast = nearest(sum(map(Fraction, promoted_terms), Fraction(0)), narrow)
    assert all_inside(permitted, np.array([float(sum_then_cast)]))
    cast_terms = [nearest(Fraction(v), narrow) for v in promoted_terms]
    if any(isinstance(v, float) for v in cast_terms):
        total = np.sum([float(v) for v in cast_terms])
        assert all_inside(permitted, np.array([total]))
    else:
        exact = sum(map(Fraction, cast_terms), Fraction(0))
        assert all_inside(permitted, np.array([float(nearest(exact, narrow))]))


def test_cast_then_sum_differs_from_sum_then_cast_and_the_set_ends_near_them() -> None:
    """Each of 64 terms 1 + 2^-12 loses 2^-12 in a cast to binary16: 64 against 64.015625."""
    term = 1 + 2.0**-12
    e, f, w = enclose(BINARY32, np.zeros(1), np.full(64, -term / 2), np.array(1.0))
    permitted = permitted_gradient(LOSS.vjp(e - f, w, "sum"), (1,), BINARY16)
    assert all_inside(permitted, np.array([64.0]))
    assert all_inside(permitted, np.array([float(np.float16(64 * term))]))
    assert not permitted.contains(np.array([63.90625])).any()
    assert not permitted.contains(np.array([64.25])).any()


@pytest.mark.parametrize(("promoted", "narrow"), MIXED, ids=lambda f: f.name)
@prove
@given(seed=seeds, n=st.integers(1, 9))
def test_each_half_of_a_gradient_may_be_cast_by_itself(
    promoted: Format, narrow: Format, seed: int, n: int
) -> None:
    """(x − y)·(x − y) has two paths to y: near η two casts are not the cast of the sum."""
    rng = random.Random(seed)
    y = numbers(narrow, rng, (n,), narrow.emin, narrow.emin + 2)
    x = numbers(promoted, rng, (n,), narrow.emin - 8, narrow.emin + 2)
    e, f, w = enclose(promoted, x, y, np.array(1.0))
    permitted = permitted_gradient(-LOSS.vjp(e - f, w, "none"), (n,), narrow)
    d = to_format(rational(y) - rational(x), promoted)
    half = to_format(rational(d), narrow)
    assert all_inside(permitted, to_format(2 * rational(half), narrow))
    assert all_inside(permitted, to_format(2 * rational(d), narrow))


def test_two_casts_make_a_difference_of_one_subnormal_unit_and_no_more() -> None:
    """d = 936.3 η of binary16: 2d rounds to 1873 η, and two casts give 1872 η."""
    eta = BINARY16.eta
    d = np.array([936.3 * eta])
    e, f, w = enclose(BINARY32, to_format(rational(d), BINARY32), np.zeros(1), np.array(1.0))
    permitted = permitted_gradient(LOSS.vjp(e - f, w, "none"), (1,), BINARY16)
    assert (permitted.lower[0] / eta, permitted.upper[0] / eta) == (1872, 1874)
    (e, f, w) = enclose(BINARY32, np.array([2.0**-3 + 2.0**-20]), np.zeros(1), np.array(1.0))
    normal = permitted_gradient(LOSS.vjp(e - f, w, "none"), (1,), BINARY16)
    assert (normal.lower[0], normal.upper[0]) == (0.25, 0.25 + 2.0**-12)


# -- what the sets must not hold ------------------------------------------------------------------


def mistaken(d: Any, g: Any, n: int) -> dict[str, Any]:
    """Gradients of a mean that look right: each is off by a factor or a sign."""
    return {
        "no factor 2": d * g / n,
        "divides by n - 1": 2 * d * g / (n - 1),
        "forgets n": 2 * d * g,
        "ignores grad_output": 2 * d / n,
        "sign": -2 * d * g / n,
    }


@every_format
def test_wrong_formulas_lie_outside(fmt: Format) -> None:
    rng = random.Random(6)
    x, y = (np.abs(numbers(fmt, rng, (16,), 0, 2)) + sign for sign in (16.0, 1.0))
    x, y = to_format(rational(x), fmt), to_format(rational(y), fmt)
    e, f, w = enclose(fmt, x, y, np.array(3.0))
    permitted = permitted_gradient(LOSS.vjp(e - f, w, "mean"), (16,), fmt)
    d = rational(x) - rational(y)
    assert all_inside(permitted, to_format(2 * d * 3 / 16, fmt))
    for name, v in mistaken(d, 3, 16).items():
        assert not permitted.contains(to_format(v, fmt)).any(), name
    value = LOSS.permitted_loss(e - f, "mean")
    right = sum(d * d) / Fraction(16)
    assert all_inside(value, to_format(right, fmt))
    for wrong in (right * 16, right * 16 / 15, right / 2, sum(abs(d)) / 16):
        assert not value.contains(to_format(wrong, fmt)).any()


@every_format
def test_a_single_elements_loss_is_its_square_within_two_roundings(fmt: Format) -> None:
    x = float(nearest(Fraction(11, 10), fmt))
    for reduction in REDUCTIONS:
        (e, f) = enclose(fmt, np.array([x]), np.array([0.0]))
        permitted = LOSS.permitted_loss(e - f, reduction)
        exact = Fraction(x) ** 2
        width = Fraction(float(permitted.upper.ravel()[0])) - Fraction(
            float(permitted.lower.ravel()[0])
        )
        assert width == quantum(exact, fmt)


@every_format
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_equal_operands_have_the_loss_zero_and_nothing_else(fmt: Format, reduction: str) -> None:
    e, f = enclose(fmt, np.array([1.5, -2.0]), np.array([1.5, -2.0]))
    permitted = LOSS.permitted_loss(e - f, reduction)
    assert all_inside(permitted, np.zeros(permitted.lower.shape))
    for v in (fmt.eta, -fmt.eta):
        assert not permitted.contains(np.full(permitted.lower.shape, v)).any()


@every_format
@every_reduction
def test_no_loss_is_negative(fmt: Format, reduction: str) -> None:
    for scale in (0.0, fmt.eta, 1.0):
        e, f = enclose(fmt, scale * np.arange(3.0), np.zeros(3))
        assert (LOSS.permitted_loss(e - f, reduction).lower >= 0).all()


# -- nothing --------------------------------------------------------------------------------------


@every_format
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 1, 2)])
def test_the_mean_of_nothing_is_nan_only(fmt: Format, shape: tuple[int, ...]) -> None:
    e, f = enclose(fmt, np.zeros(shape), np.zeros(()))
    permitted = LOSS.permitted_loss(e - f, "mean")
    assert all_inside(permitted, np.array(math.nan))
    for v in (0.0, 1.0, -1.0, math.inf, -math.inf, fmt.omega):
        assert not permitted.contains(np.array(v)).any()


@every_format
@every_reduction
def test_the_sum_of_nothing_is_zero_and_its_gradients_are_empty_or_zero(
    fmt: Format, reduction: str
) -> None:
    e, f, w = enclose(fmt, np.zeros((0, 3)), np.zeros((1, 3)), np.array(1.0))
    if reduction == "sum":
        permitted = LOSS.permitted_loss(e - f, reduction)
        assert all_inside(permitted, np.array(0.0))
        assert not permitted.contains(np.array(fmt.eta)).any()
    g: Enclosure = w if reduction != "none" else w.broadcast_to((0, 3))
    gradient = LOSS.vjp(e - f, g, reduction)
    assert permitted_gradient(gradient, (0, 3), fmt).lower.shape == (0, 3)
    into_y = permitted_gradient(-gradient, (1, 3), fmt)
    assert all_inside(into_y, np.zeros((1, 3)))
    assert not into_y.contains(np.full((1, 3), fmt.eta)).any()


# -- NaN and infinities through the whole formula --------------------------------------------------


@every_native
@every_reduction
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_specials_go_through_loss_and_gradient_as_in_ieee(
    fmt: Format, dtype: type[np.floating[Any]], reduction: str
) -> None:
    values = [math.nan, math.inf, -math.inf, 0.0, 1.5, -2.0]
    for a, b, c in itertools.product(values, values, values):
        x, y = np.array([a, 1.0], dtype), np.array([b, 0.5], dtype)
        g = np.array([c, 1.0] if reduction == "none" else c, dtype)
        e, f, w = enclose(fmt, wide(x), wide(y), wide(g))
        s = (x - y) ** 2
        want = s if reduction == "none" else s.sum() if reduction == "sum" else s.mean()
        permitted = LOSS.permitted_loss(e - f, reduction)
        assert all_inside(permitted, wide(want))
        certain = ~np.isfinite(wide(want))
        for probe in (0.0, 0.25, 1.0, 9.0):
            assert not (permitted.contains(np.full(np.shape(want), probe)) & certain).any()
        gradient = permitted_gradient(LOSS.vjp(e - f, w, reduction), (2,), fmt)
        results = [wide(v) for v in LOSS.orders(x - y, g, reduction, native_ratio(dtype))]
        for v in results:
            assert all_inside(gradient, v)
        never_finite = ~np.isfinite(np.stack(results)).any(axis=0)
        for probe in (0.0, 0.5, 1.0, -2.0):
            assert not (gradient.contains(np.full(2, probe)) & never_finite).any()
        certain_nan = np.isnan(np.stack(results)).all(axis=0)
        for infinity in (math.inf, -math.inf):
            assert not (gradient.contains(np.full(2, infinity)) & certain_nan).any()


@pytest.mark.parametrize(
    ("y", "g", "permitted"),
    [
        ((2.0, -3.0), math.inf, [math.inf]),
        ((2.0, 3.0), math.inf, [-math.inf]),
        ((0.0, 2.0), math.inf, [math.nan]),  # a sum of 0
        ((0.0, 2.0, 1 - 2.0**-24), math.inf, [math.nan, math.inf, -math.inf]),  # of 0, as rounded
        ((2.0, -3.0), math.nan, [math.nan]),
    ],
)
def test_a_factor_that_is_no_number_may_follow_the_sum(
    y: tuple[float, ...], g: float, permitted: list[float]
) -> None:
    e, f, w = enclose(BINARY32, np.ones(1), np.array(y), np.array(g))
    found = LOSS.permitted_with_factor(e - f, w, (1,), BINARY32, 1)
    for probe in (math.inf, -math.inf, math.nan, 0.0, 6.0):
        wanted = any(probe == v or (v != v and probe != probe) for v in permitted)
        assert bool(found.contains(np.full(1, probe)).all()) == wanted, probe
