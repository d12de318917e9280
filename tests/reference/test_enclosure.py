"""The interval arithmetic proved: what is right lies inside, what is next to it does not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_formats import (
    ALL,
    ceil_to,
    clamp_up,
    every_format,
    floor_to,
    largest,
    nearest,
    points,
    threshold,
)

from reference.enclosure import (
    NAN,
    NEG_INF,
    POS_INF,
    VOID,
    Enclosure,
    PermittedSet,
    depth,
    enclose,
    gamma,
    ratio,
)
from reference.formats import BFLOAT16, BINARY16, BINARY32, BINARY64, Format
from reference.losses.loss import permitted_gradient
from reference.losses.mse import LOSS

Number = Fraction | float  # a float only where it is NaN or an infinity
prove = settings(derandomize=True, deadline=None, database=None, max_examples=100)
sample = settings(derandomize=True, deadline=None, database=None, max_examples=40)
NARROW = [BINARY32, BINARY16, BFLOAT16]
NON_FINITE = [math.nan, math.inf, -math.inf]
DIVISORS = st.one_of(st.integers(1, 20), st.sampled_from([997, 4096, 65_537, 10**6, 2**24 + 1]))

# -- evaluation by rounding each step to nearest, in the format or a wider one -------------------


def wider(fmt: Format) -> list[Format | None]:
    """The formats that hold all of fmt, and None for exact arithmetic."""
    held = [f for f in ALL if f.precision >= fmt.precision and f.emin <= fmt.emin]
    return [*held, None]


class Evaluation:
    """Arithmetic that rounds each result in a format picked at random among the permitted."""

    def __init__(self, fmt: Format, rng: random.Random) -> None:
        self.choices, self.rng = wider(fmt), rng

    def step(self, v: Number) -> Number:
        fmt = self.rng.choice(self.choices)
        return v if isinstance(v, float) or fmt is None else nearest(v, fmt)

    def tree(self, terms: list[Number]) -> Number:
        """The sum in a random binary tree: serial, pairwise, of any shape, or with lanes."""
        pool = list(terms)
        shape = self.rng.choice(["serial", "backward", "pairwise", "any", "lanes"])
        if shape == "lanes":
            k = self.rng.randint(1, len(pool))
            pool = [self.run(pool[i::k]) for i in range(k)]
        if shape in ("serial", "backward"):
            return self.run(pool if shape == "serial" else pool[::-1])
        while len(pool) > 1:
            i = 0 if shape == "pairwise" else self.rng.randrange(len(pool) - 1)
            a, b = pool.pop(i), pool.pop(i)
            pool.append(self.step(add(a, b)))
        return pool[0]

    def run(self, terms: list[Number]) -> Number:
        total = terms[0]
        for v in terms[1:]:
            total = self.step(add(total, v))
        return total


def add(a: Number, b: Number) -> Number:
    return a + b


def to_format(v: Number, fmt: Format) -> float:
    """``v`` rounded to nearest, as the float64 that holds it."""
    return float(v if isinstance(v, float) else nearest(v, fmt))


def value(v: float) -> Number:
    return Fraction(v) if math.isfinite(v) else v


def lower(e: Enclosure) -> list[Fraction]:
    return [-Fraction(v) for v in e.ends.reshape(2, -1)[0].tolist()]


def upper(e: Enclosure) -> list[Fraction]:
    return [Fraction(v) for v in e.ends.reshape(2, -1)[1].tolist()]


def holds(e: Enclosure, exact: list[Fraction]) -> bool:
    return all(a <= v <= b for a, v, b in zip(lower(e), exact, upper(e), strict=True))


def contains(permitted: PermittedSet, observed: float) -> bool:
    """Whether a set of one element contains ``observed``."""
    return bool(permitted.contains(np.full(permitted.lower.shape, observed)).all())


def next_above(v: float, fmt: Format) -> float:
    """The least member of fmt above the member v, by way of rationals."""
    return clamp_up(Fraction(v) + Fraction(fmt.eta) / 2, fmt)


def next_below(v: float, fmt: Format) -> float:
    return -next_above(-v, fmt)


def refuses_the_next(permitted: PermittedSet, fmt: Format) -> bool:
    """No number of fmt just outside the finite interval is permitted."""
    low, high = float(permitted.lower), float(permitted.upper)
    outside = [next_below(low, fmt), next_above(high, fmt)]
    return not any(contains(permitted, v) for v in outside if math.isfinite(v))


def vector(fmt: Format, rng: random.Random, n: int, span: int = 12) -> list[float]:
    """``n`` members of fmt whose exponents lie within ``span`` of each other, some zero."""
    p = fmt.precision
    centre = rng.randint(fmt.emin, fmt.emax)
    result = []
    for _ in range(n):
        exponent = min(max(centre + rng.randint(-span, span), fmt.emin), fmt.emax)
        m = rng.choice([0, 1, 2 ** (p - 1), 2**p - 1, rng.randrange(2**p), rng.randrange(2**p)])
        result.append(rng.choice([1, -1]) * math.ldexp(m, exponent - p + 1))
    return result


def interval(fmt: Format, *operands: Any) -> list[Enclosure]:
    return enclose(fmt, *(np.asarray(a, dtype=np.float64) for a in operands))


# -- single operations ----------------------------------------------------------------------------

Operation = Callable[[Any, Any], Any]
BINARY: dict[str, Operation] = {
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "square": lambda a, b: a**2,
    "double": lambda a, b: 2 * a,
    "negate": lambda a, b: -a,
}
every_operation = pytest.mark.parametrize("name", list(BINARY))


@every_format
@every_operation
@prove
@given(data=st.data())
def test_one_step_on_points_gives_exactly_the_two_neighbours(
    fmt: Format, name: str, data: st.DataObject
) -> None:
    a, b = data.draw(points(fmt)), data.draw(points(fmt))
    operation = BINARY[name]
    got = operation(*interval(fmt, a, b))
    exact = operation(Fraction(a), Fraction(b))
    assert holds(got, [exact])
    assert lower(got) == [floor_to(exact, fmt)]  # a point where exact is representable
    assert upper(got) == [ceil_to(exact, fmt)]
    permitted = got.rounded(fmt)
    assert contains(permitted, to_format(exact, fmt))
    assert refuses_the_next(permitted, fmt)
    if abs(exact) <= largest(fmt):
        assert not any(contains(permitted, v) for v in NON_FINITE)


@every_format
@prove
@given(data=st.data(), n=DIVISORS)
def test_a_quotient_of_a_point_is_exactly_its_two_neighbours(
    fmt: Format, data: st.DataObject, n: int
) -> None:
    a = data.draw(points(fmt))
    (point,) = interval(fmt, a)
    got, exact = point / n, Fraction(a) / n
    assert (lower(got), upper(got)) == ([floor_to(exact, fmt)], [ceil_to(exact, fmt)])
    assert contains(got.rounded(fmt), to_format(exact, fmt))
    assert refuses_the_next(got.rounded(fmt), fmt)


@every_format
@pytest.mark.parametrize("exact", [False, True])
@prove
@given(n=DIVISORS)
def test_the_constant_two_over_n_is_its_two_neighbours(fmt: Format, exact: bool, n: int) -> None:
    if exact and fmt is not BINARY64:
        return  # only binary64 has rationals
    got = ratio(fmt, 2, n, exact)
    assert got.shape == ()
    assert lower(got) == [floor_to(Fraction(2, n), fmt)]
    assert upper(got) == [ceil_to(Fraction(2, n), fmt)]


@every_format
@every_operation
@prove
@given(data=st.data())
def test_one_step_on_intervals_holds_the_result_of_every_pair_of_members(
    fmt: Format, name: str, data: st.DataObject
) -> None:
    operation = BINARY[name]
    a, b, c, d = (data.draw(points(fmt)) for _ in range(4))
    first, second, third, fourth = interval(fmt, a, b, c, d)
    got = operation(first.hull(second), third.hull(fourth))
    t = Fraction(data.draw(st.integers(0, 4)), 4)
    within = Fraction(a) * t + Fraction(b) * (1 - t)
    for x in (Fraction(a), Fraction(b), within):
        for y in (Fraction(c), Fraction(d), (Fraction(c) + Fraction(d)) / 2):
            assert holds(got, [operation(x, y)])
            assert contains(got.rounded(fmt), to_format(operation(x, y), fmt))
    # Tight: the corners attain both ends, except that a square is never negative.
    corners = [operation(Fraction(x), Fraction(y)) for x in (a, b) for y in (c, d)]
    if name == "square" and min(a, b) < 0 < max(a, b):
        corners.append(Fraction(0))
    assert lower(got) == [floor_to(min(corners), fmt)]
    assert upper(got) == [ceil_to(max(corners), fmt)]


@every_format
@prove
@given(data=st.data(), n=DIVISORS)
def test_a_quotient_of_an_interval_is_the_quotients_of_its_ends(
    fmt: Format, data: st.DataObject, n: int
) -> None:
    a, b = sorted(data.draw(points(fmt)) for _ in range(2))
    first, second = interval(fmt, a, b)
    got = first.hull(second) / n
    assert lower(got) == [floor_to(Fraction(a) / n, fmt)]
    assert upper(got) == [ceil_to(Fraction(b) / n, fmt)]


@every_format
@prove
@given(data=st.data())
def test_several_steps_in_the_format_or_wider_lie_inside(fmt: Format, data: st.DataObject) -> None:
    a, b, g = (data.draw(points(fmt)) for _ in range(3))
    n, seed = data.draw(DIVISORS), data.draw(st.integers(0, 2**32))
    x, y, w = interval(fmt, a, b, g)
    squared = ((x - y) ** 2 / n).rounded(fmt)
    slope = (2 * ((x - y) * (w / n)) - x).rounded(fmt)
    for k in range(6):
        step = Evaluation(fmt, random.Random(seed + k)).step
        d = step(value(a) - value(b))
        assert contains(squared, to_format(step(step(d * d) / n), fmt))
        product = step(d * step(value(g) / n))
        assert contains(slope, to_format(step(step(2 * product) - value(a)), fmt))


@pytest.mark.parametrize("source", ALL, ids=lambda f: f.name)
@every_format
@prove
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_conversion_gives_the_two_neighbours_in_the_other_format(
    source: Format, fmt: Format, data: st.DataObject
) -> None:
    v = data.draw(points(source))
    got = interval(source, v)[0].to(fmt)
    assert got.fmt is fmt
    assert lower(got) == [floor_to(Fraction(v), fmt)]
    assert upper(got) == [ceil_to(Fraction(v), fmt)]
    assert contains(got.rounded(fmt), to_format(Fraction(v), fmt))
    assert refuses_the_next(got.rounded(fmt), fmt)


@every_format
@prove
@given(v=st.floats(allow_nan=False, allow_infinity=False))
@example(v=65520.0)
@example(v=2049.0)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_operand_is_the_hull_of_itself_and_its_nearest(fmt: Format, v: float) -> None:
    (got,) = interval(fmt, v)
    near = nearest(Fraction(v), fmt)
    if isinstance(near, float):
        assert got.flags is not None
        assert int(got.flags) == VOID | (POS_INF if near > 0 else NEG_INF)
        assert contains(got.rounded(fmt), near)
        assert not contains(got.rounded(fmt), math.copysign(fmt.omega, near))
    else:
        assert lower(got) == [min(near, Fraction(v))]
        assert upper(got) == [max(near, Fraction(v))]


# -- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.0**-600])
def test_arrays_broadcast_reshape_and_hull_like_numpy(scale: float) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(-9, 9, (2, 1, 3)) * scale, rng.integers(-9, 9, (4, 1)) * scale
    x, y = interval(BINARY64, a, b)
    assert x.exact == (scale != 1.0)

    def check(got: Enclosure, want: NDArray[np.float64]) -> None:
        assert got.shape == want.shape
        assert got.size == want.size
        assert holds(got, [Fraction(v) for v in want.ravel().tolist()])

    check(x - y, a - b)
    check(y - x, b - a)
    check(x.reshape((3, 2)), a.reshape(3, 2))
    check(y.broadcast_to((5, 4, 2)), np.broadcast_to(b, (5, 4, 2)))
    check(x.hull(y), np.broadcast_to(a, (2, 4, 3)))
    check(x.hull(y), np.broadcast_to(b, (2, 4, 3)))
    check(-x, -a)
    low, high = (x.hull(y).rounded(BINARY64).lower, x.hull(y).rounded(BINARY64).upper)
    np.testing.assert_array_equal(low, np.minimum(a, b))
    np.testing.assert_array_equal(high, np.maximum(a, b))


@every_format
def test_shapes_keep_and_negation_swaps_the_flags(fmt: Format) -> None:
    (e,) = interval(fmt, [math.nan, math.inf, -math.inf, 1.0])
    turned = (-e.reshape((4, 1)).broadcast_to((2, 4, 3))).rounded(fmt)
    want = np.broadcast_to(-np.array([[math.nan], [math.inf], [-math.inf], [1.0]]), (2, 4, 3))
    assert turned.contains(want).all()
    assert turned.contains(-want)[:, [0]].all()
    assert not turned.contains(-want)[:, 1:].any()
    assert not turned.contains(np.zeros((2, 4, 3))).any()


@every_format
def test_a_hull_with_a_void_interval_keeps_only_the_other(fmt: Format) -> None:
    infinite, three = interval(fmt, math.inf, 3.0)
    for hull in (infinite.hull(three), three.hull(infinite)):
        permitted = hull.rounded(fmt)
        assert contains(permitted, math.inf)
        assert contains(permitted, 3.0)
        assert not any(contains(permitted, v) for v in (0.0, 2.0, math.nan, -math.inf))


@every_format
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_empty_arrays_pass_through_every_step(fmt: Format, shape: tuple[int, ...]) -> None:
    for scale in (1.0, 5e-324):  # float64 and rational ends
        x, y = interval(fmt, np.zeros(shape), scale if fmt is BINARY64 else 1.0)
        e = 2 * ((x - y) * y) ** 2 / 3
        assert e.shape == shape
        assert e.rounded(fmt).contains(np.zeros(shape)).shape == shape
        permitted = (e.sum() / 2).rounded(fmt)
        assert contains(permitted, 0.0)
        assert refuses_the_next(permitted, fmt)
        assert e.sum(axis=(0,)).rounded(fmt).contains(np.zeros(shape[1:])).all()


def test_only_squares_and_doubles_are_defined() -> None:
    (x,) = interval(BINARY32, 1.0)
    with pytest.raises(NotImplementedError):
        x**3
    with pytest.raises(NotImplementedError):
        3 * x


def test_share_is_0_in_the_middle_1_at_the_ends_and_more_outside() -> None:
    box = PermittedSet(np.array([1.0] * 5), np.array([3.0] * 5), None)
    got = box.share(np.array([2.0, 1.0, 3.0, 5.0, math.nan])).tolist()
    assert got == [0.0, 1.0, 1.0, 3.0, 0.0]
    point = PermittedSet(np.array([1.0]), np.array([1.0]), None)
    assert point.share(np.array([1.0])).tolist() == [0.0]


# -- sums -----------------------------------------------------------------------------------------


@every_format
@prove
@given(n=st.integers(1, 64), seed=st.integers(0, 2**32))
def test_a_sum_in_any_tree_lies_inside_in_the_accumulator_or_wider(
    fmt: Format, n: int, seed: int
) -> None:
    rng = random.Random(seed)
    terms = vector(fmt, rng, n)
    (e,) = interval(fmt, terms)
    total = e.sum()
    assert total.fmt is fmt.accumulator
    assert holds(total, [sum(map(Fraction, terms), Fraction(0))])
    permitted = total.rounded(fmt)
    for _ in range(6):
        evaluation = Evaluation(fmt.accumulator, rng)
        got = evaluation.tree([value(v) for v in terms])
        assert contains(permitted, to_format(got, fmt))


@every_format
@sample
@given(n=st.integers(1, 64), seed=st.integers(0, 2**32))
def test_a_mean_may_scale_its_partial_sums(fmt: Format, n: int, seed: int) -> None:
    rng = random.Random(seed)
    terms = vector(fmt, rng, n)
    (e,) = interval(fmt, terms)
    permitted = (e.sum() / n).rounded(fmt)
    k = rng.randint(1, n)
    for _ in range(4):
        evaluation = Evaluation(fmt.accumulator, rng)
        parts = [evaluation.tree([value(v) for v in terms[i::k]]) for i in range(k)]
        late = evaluation.step(evaluation.tree(parts) / n)
        early = evaluation.tree([evaluation.step(part / n) for part in parts])
        assert contains(permitted, to_format(late, fmt))
        finite = all(isinstance(part, Fraction) for part in parts)
        if finite and isinstance(late, Fraction):
            assert contains(permitted, to_format(early, fmt))


@every_format
@sample
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_sums_over_axes_lie_inside_at_once_and_axis_by_axis(
    fmt: Format, data: st.DataObject, seed: int
) -> None:
    shape = data.draw(st.sampled_from([(3, 4), (1, 5), (2, 1, 3), (2, 3, 2), (6, 0), (4, 1)]))
    axes = data.draw(st.sampled_from([(0,), (1,), (0, 1), (0, len(shape) - 1)]))
    axes = tuple(sorted(set(axes)))
    rng = random.Random(seed)
    terms = np.array(vector(fmt, rng, math.prod(shape))).reshape(shape) / 64  # cannot overflow
    (e,) = interval(fmt, terms)
    source = np.empty(shape, dtype=object)
    ends = [-Fraction(v) for v in e.ends[0].ravel().tolist()]
    source.flat = ends
    permitted = e.sum(axis=axes).rounded(fmt)
    evaluation = Evaluation(fmt.accumulator, rng)

    def collapse(v: Any, axis: int) -> Any:
        moved = np.moveaxis(v, axis, -1)
        result = np.empty(moved.shape[:-1], dtype=object)
        for i in np.ndindex(*result.shape):
            row = list(moved[i])
            result[i] = evaluation.tree(row) if row else Fraction(0)
        return result

    steps = source
    for axis in reversed(axes):
        steps = np.vectorize(lambda v: nearest(v, fmt), otypes=[object])(collapse(steps, axis))
    assert permitted.lower.shape == steps.shape
    assert permitted.contains(np.vectorize(float, otypes=[float])(steps)).all()
    at_once = source.sum(axis=axes)
    exact = np.vectorize(lambda v: to_format(Fraction(v), fmt), otypes=[float])(at_once)
    assert permitted.contains(exact).all()


@pytest.mark.parametrize("n", [1, 2, 3, 100, 4097, 100_000])
@every_format
def test_sum_and_mean_are_no_wider_than_the_stated_depth(fmt: Format, n: int) -> None:
    a, b = float(nearest(Fraction(11, 10), fmt)), 0.0
    x, y = interval(fmt, np.full(n, a), b)
    down, up = floor_to(Fraction(a) ** 2, fmt), ceil_to(Fraction(a) ** 2, fmt)
    acc = fmt.accumulator
    run = n - 1 if acc is BINARY64 else min(n - 1, 4096)
    h = 0 if n == 1 else run + 2 * math.ceil(math.log2(n)) + Fraction(n, 2**20)
    u = Fraction(acc.u)
    widening = h * u / (1 - h * u) * (1 + Fraction(1, 2**24))
    fuzz = Fraction(n, 2**50) if fmt is not BINARY64 and n > 1 else 0
    low, high = down * (1 - widening - fuzz), up * (1 + widening + fuzz)
    slack = n * Fraction(acc.eta)
    for reduction, scale in (("sum", n), ("mean", 1)):
        permitted = LOSS.permitted_loss(x - y, reduction)
        # The sum of halves may have been rounded to the format before it is divided.
        ulp = 2 * Fraction(fmt.u) if reduction == "mean" and fmt is not acc and n > 1 else 0
        least = floor_to(floor_to(low * (1 - ulp) * scale, acc) - slack, fmt)
        most = ceil_to(ceil_to(high * (1 + ulp) * scale, acc) + slack, fmt)
        if most > largest(fmt):
            continue
        assert Fraction(float(permitted.lower)) >= least
        assert Fraction(float(permitted.upper)) <= most
        assert contains(permitted, float(nearest(Fraction(a) ** 2 * scale, fmt)))
        assert not contains(permitted, next_below(float(least), fmt))
        assert not contains(permitted, next_above(float(most), fmt))
        assert refuses_the_next(permitted, fmt)


@pytest.mark.parametrize("n", [1, 7, 1000, 100_000])
@every_format
def test_gradient_is_no_wider_than_its_orders_in_directed_rounding(fmt: Format, n: int) -> None:
    a, b, g = (float(nearest(Fraction(v), fmt)) for v in ("1.3", "0.4", "0.7"))
    x, y, w = interval(fmt, np.full(n, a), np.full(n, b), g)
    permitted = permitted_gradient(LOSS.vjp(x - y, w, "mean"), (n,), fmt)
    exact = 2 * (Fraction(a) - Fraction(b)) * Fraction(g) / n
    # Four roundings, and what underflows in g/n or 2/n, relative to the smaller of them.
    least_step = min(Fraction(g) / n, Fraction(2, n))
    relative = max(2 * Fraction(fmt.u), Fraction(fmt.eta) / least_step)
    room = exact * ((1 + relative) * (1 + 2 * Fraction(fmt.u)) ** 3 - 1) + 2 * Fraction(fmt.eta)
    low = floor_to(exact - room, fmt)
    high = ceil_to(exact + room, fmt)
    assert (permitted.lower >= float(low)).all()
    assert (permitted.upper <= float(high)).all()
    for outside in (next_below(float(low), fmt), next_above(float(high), fmt)):
        assert not permitted.contains(np.full(n, outside)).any()
    first = PermittedSet(permitted.lower[0], permitted.upper[0], None)
    assert refuses_the_next(first, fmt)
    assert contains(first, float(nearest(exact, fmt)))


def test_depth_is_serial_to_4096_and_grows_with_the_tree_only() -> None:
    u = BINARY32.u
    assert depth(0, u) == depth(1, u) == 0
    assert depth(64, u) == 63 + 12 + 64 / 2**20
    assert depth(10**6, u) == 4096 + 40 + 10**6 / 2**20
    assert gamma(0.0, BINARY32.u) == 0
    assert gamma(4096.0, 2.0**-24) == pytest.approx(2.0**-12 / (1 - 2.0**-12), rel=1e-15)


def test_depth_in_binary64_is_that_of_any_order() -> None:
    u = BINARY64.u
    assert depth(1, u) == 0
    assert depth(4097, u) == depth(4097, BINARY32.u)
    for n in (2, 10**6, 2**26):
        assert depth(n, u) >= n - 1


def test_in_binary64_a_lost_one_of_up_to_2_to_the_26_equal_terms_is_outside() -> None:
    """Of n + 1 and n − 1 equal terms. Two roundings outward are of the square, and of the end."""
    u = BINARY64.u
    for n in (2, 2**16, 10**6, 2**24, 2**26):
        assert n * (gamma(depth(n, u), u) + 4 * u) < 0.51
    assert 2**27 * gamma(depth(2**27, u), u) > 1  # there the rule ends
    assert 2**13 * gamma(2**13, BINARY32.u) > 1  # and there it would in binary32


@pytest.mark.parametrize("n", [2**20, 2**22 + 1])
def test_any_order_of_a_binary64_sum_is_permitted_and_a_lost_or_doubled_term_is_not(n: int) -> None:
    (x, y) = interval(BINARY64, np.full(n, 1.1), 0.0)
    permitted = LOSS.permitted_loss(x - y, "sum")
    s = np.full(n, 1.1**2)
    running = float(np.add.accumulate(s)[-1])
    exact = Fraction(s[0]) * n
    assert abs(running - exact) / exact > gamma(4200, BINARY64.u)  # deep indeed
    lanes = np.add.accumulate(s[: n // 8 * 8].reshape(-1, 8))[-1].sum() + s[n // 8 * 8 :].sum()
    for right in (running, lanes, exact):
        assert contains(permitted, float(right))
    for wrong in (exact - Fraction(s[0]), exact + Fraction(s[0])):
        assert not contains(permitted, float(wrong))


def test_a_running_binary32_sum_of_a_million_is_refused_and_pairwise_or_blocks_permitted() -> None:
    n = 10**6
    (x, y) = interval(BINARY32, np.full(n, np.float32(1.1)), 0.0)
    permitted = LOSS.permitted_loss(x - y, "sum")
    s = np.full(n, np.float32(1.1) ** 2, dtype=np.float32)
    exact = float(s[0]) * n
    running = float(np.add.accumulate(s)[-1])
    off = abs(running - exact) / exact
    assert off > 3 * gamma(depth(n, BINARY32.u), BINARY32.u)
    assert not contains(permitted, running)
    pairwise = float(np.sum(s))
    assert pairwise == float(np.float32(pairwise))
    assert contains(permitted, pairwise)
    blocks = [np.add.accumulate(part)[-1] for part in np.array_split(s, n // 4096 + 1)]
    blocked = float(np.sum(np.array(blocks, dtype=np.float32)))
    assert blocked != pairwise
    assert contains(permitted, blocked)
    mean = LOSS.permitted_loss(x - y, "mean")
    assert not contains(mean, float(np.float32(running) / np.float32(n)))
    assert contains(mean, float(np.float32(pairwise) / np.float32(n)))


@pytest.mark.parametrize("fmt", [BINARY16, BFLOAT16], ids=lambda f: f.name)
def test_a_half_accumulator_is_refused(fmt: Format) -> None:
    n = 4096
    (x, y) = interval(fmt, np.ones(n), 0.0)
    total = Fraction(0)
    for _ in range(n):
        step = nearest(total + 1, fmt)
        assert isinstance(step, Fraction)
        total = step
    assert total < n / 2 + 1  # it stagnates
    assert not contains(LOSS.permitted_loss(x - y, "mean"), float(total / n))
    assert contains(LOSS.permitted_loss(x - y, "mean"), 1.0)


@every_format
def test_losing_one_large_element_is_refused_at_every_kind_of_position(fmt: Format) -> None:
    n = 1000
    for position in (0, 1, 499, 998, 999):
        v = np.ones(n) / 1024
        v[position] = 16.0
        x, y = interval(fmt, v, 0.0)
        permitted = LOSS.permitted_loss(x - y, "sum")
        assert contains(permitted, float(nearest(256 + Fraction(999, 2**20), fmt)))
        assert not contains(permitted, float(nearest(Fraction(999, 2**20), fmt)))


# -- sums in which no addition rounds -------------------------------------------------------------


def assert_point(permitted: PermittedSet, v: Any) -> None:
    assert float(permitted.lower) == float(permitted.upper) == v
    assert permitted.flags is None


@every_format
@sample
@given(n=st.integers(2, 64), seed=st.integers(0, 2**32))
def test_a_sum_of_small_multiples_of_a_unit_is_one_number_in_any_order(
    fmt: Format, n: int, seed: int
) -> None:
    """Their magnitudes add up to less than 2^p units: of the accumulator, here of the format."""
    rng = random.Random(seed)
    most = (2**fmt.precision - 1) // n
    unit = math.ldexp(1.0, rng.randint(max(fmt.emin, -300), -7))
    terms = [unit * rng.randint(-most, most) for _ in range(n)]
    (e,) = interval(fmt, terms)
    exact = sum(map(Fraction, terms))
    assert_point(e.sum().rounded(fmt), float(exact))
    for _ in range(4):
        assert Evaluation(fmt, rng).tree([value(v) for v in terms]) == exact


@pytest.mark.parametrize("fmt", [BINARY32, BINARY64], ids=lambda f: f.name)
def test_where_one_addition_may_round_a_sum_is_as_wide_as_ever(fmt: Format) -> None:
    """2^p units and one: 2^p + 1 + 1 is 2^p, one after the other, and 1 + 1 + 2^p is 2^p + 2."""
    big = 2.0**fmt.precision
    (just, over, half) = interval(fmt, [big - 2, 1.0], [big, 1.0, 1.0], [big - 2, 1.5])
    assert_point(just.sum().rounded(fmt), big - 1)
    permitted = over.sum().rounded(fmt)
    assert contains(permitted, big)
    assert contains(permitted, big + 2)
    assert float(half.sum().rounded(fmt).lower) < big - 0.5


@every_format
def test_a_term_that_is_rounded_is_no_point_and_its_sum_none(fmt: Format) -> None:
    a = float(nearest(Fraction(11, 10), fmt))
    x, y = interval(fmt, [a, 1.0], 0.0)
    permitted = ((x - y) ** 2).sum().rounded(fmt)
    assert float(permitted.lower) < float(permitted.upper)


@pytest.mark.parametrize("fmt", [BINARY16, BFLOAT16], ids=lambda f: f.name)
def test_a_sum_of_halves_is_exact_in_the_accumulator_and_then_rounded(fmt: Format) -> None:
    n = 2**fmt.precision + 1
    (e,) = interval(fmt, np.ones(n))
    permitted = e.sum().rounded(fmt)
    assert (float(permitted.lower), float(permitted.upper)) == (n - 1, n + 1)


@pytest.mark.parametrize("fmt", [BINARY16, BFLOAT16], ids=lambda f: f.name)
def test_a_sum_of_halves_over_two_axes_is_exact_where_it_is_in_the_format(fmt: Format) -> None:
    rows = 2 ** (fmt.precision - 2)
    for columns, point in ((3, True), (5, False)):
        (e,) = interval(fmt, np.ones((rows, columns)))
        permitted = e.sum(axis=(0, 1)).rounded(fmt)
        assert (float(permitted.lower) == float(permitted.upper) == rows * columns) == point


def test_one_sum_may_be_exact_beside_one_that_is_not() -> None:
    (e,) = interval(BINARY32, [[1.0, 2.0, 3.0], [1.0, 2.0**-30, 3.0]])
    permitted = e.sum(axis=(1,)).rounded(BINARY32)
    assert permitted.lower[0] == permitted.upper[0] == 6
    assert permitted.lower[1] < permitted.upper[1]


@pytest.mark.parametrize("n", [4096, 4097])
def test_a_mean_whose_sum_is_exact_may_be_of_scaled_parts(n: int) -> None:
    """A running mean, m + (s - m)/k, whose weights are no powers of two."""
    s = np.arange(n) % 7 + 1.0
    (x, y) = interval(BINARY32, s, 0.0)
    mean = ((x - y).sum() / n).rounded(BINARY32)
    m = np.float32(0)
    for k, v in enumerate(s.astype(np.float32)):
        m += (v - m) / np.float32(k + 1)
    assert float(m) != float(np.float32(s.mean()))
    assert contains(mean, float(m))


def test_of_a_million_exact_float32_squares_one_lost_or_doubled_shows() -> None:
    """Where they are rounded two hundred may be lost, of equal ones."""
    n = 2**20
    d = np.where(np.arange(n) % 3, 1.0, -3.0)
    (x, y) = interval(BINARY32, d, 0.0)
    permitted = LOSS.permitted_loss(x - y, "sum")
    assert_point(permitted, float((d**2).sum()))
    for wrong in (1.0, -1.0, 9.0, -9.0):
        assert not contains(permitted, float(permitted.lower) + wrong)
    (x, y) = interval(BINARY32, np.full(n, float(np.float32(1.1))), 0.0)
    rounded = LOSS.permitted_loss(x - y, "sum")
    term = float(np.float32(1.1)) ** 2
    assert contains(rounded, float(np.float32(term * (n - 200))))


# -- overflow and underflow -----------------------------------------------------------------------


@every_format
def test_beyond_the_next_power_of_two_only_the_infinity_remains(fmt: Format) -> None:
    omega, two = interval(fmt, fmt.omega, 2.0)
    beyond = {
        math.inf: [2 * omega, omega * two, omega**2, omega - (-omega), omega.hull(omega) * two],
        -math.inf: [-(2 * omega), (-omega) * two, (-omega) - omega],
    }
    for infinity, results in beyond.items():
        for e in results:
            permitted = e.rounded(fmt)
            assert contains(permitted, infinity)
            probes = [0.0, 1.0, fmt.omega, -fmt.omega, math.nan, -infinity]
            assert not any(contains(permitted, v) for v in probes)


@pytest.mark.parametrize("fmt", NARROW, ids=lambda f: f.name)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_from_the_threshold_on_a_result_is_only_infinite(fmt: Format, sign: float) -> None:
    (e,) = interval(BINARY64, sign * float(threshold(fmt)))
    permitted = e.rounded(fmt)
    assert contains(permitted, sign * math.inf)
    assert not contains(permitted, sign * fmt.omega)


@pytest.mark.parametrize("fmt", NARROW, ids=lambda f: f.name)
def test_below_the_threshold_a_conversion_permits_omega(fmt: Format) -> None:
    below = math.nextafter(float(threshold(fmt)), 0)
    (e,) = interval(BINARY64, below)
    assert contains(e.rounded(fmt), fmt.omega)
    assert not any(contains(e.rounded(fmt), v) for v in (math.nan, -math.inf, 0.0))


def test_a_binary16_mean_of_300_squared_is_22500_or_infinite_but_not_clamped() -> None:
    x, y = interval(BINARY16, [300.0, 0.0, 0.0, 0.0], 0.0)
    permitted = LOSS.permitted_loss(x - y, "mean")
    # 90,000 lies between 89,984 and 90,048 (unbounded exponents); a quarter is 22,496 to 22,512,
    # and the binary32 sum may be a little off on either side: one more number of binary16.
    assert (float(permitted.lower), float(permitted.upper)) == (22480.0, 22528.0)
    wanted = [22496.0, 22512.0, float(np.float16(22500)), math.inf]
    assert all(contains(permitted, v) for v in wanted)
    refused = [16376.0, 22464.0, 22544.0, 65504.0, 0.0, -math.inf, math.nan]
    assert not any(contains(permitted, v) for v in refused)


def test_a_binary16_mean_must_not_overflow_when_only_its_sum_passes_65504() -> None:
    x, y = interval(BINARY16, np.full(100, 200.0), 0.0)
    mean, total = LOSS.permitted_loss(x - y, "mean"), LOSS.permitted_loss(x - y, "sum")
    assert contains(mean, 40000.0)
    assert not any(contains(mean, v) for v in NON_FINITE)
    assert contains(total, math.inf)
    assert not any(contains(total, v) for v in (65504.0, 0.0, math.nan, -math.inf))


def test_a_sum_whose_accumulator_may_overflow_permits_what_any_order_gives() -> None:
    big = float(np.finfo(np.float32).max)
    (e,) = interval(BINARY32, [big, big, -big, -big])
    permitted = e.sum().rounded(BINARY32)
    for v in (0.0, math.inf, -math.inf, math.nan):
        assert contains(permitted, v)
    assert not contains(permitted, big)


def test_a_sum_that_cannot_overflow_permits_no_infinity() -> None:
    (e,) = interval(BINARY32, np.full(1000, 1e35))
    permitted = e.sum().rounded(BINARY32)
    assert not any(contains(permitted, v) for v in NON_FINITE)


@every_format
def test_underflow_permits_zero_and_eta_only(fmt: Format) -> None:
    small, third = interval(fmt, fmt.eta, 0.25)
    for e, far in ((small * third, fmt.eta), (small**2, fmt.eta), (small / 3, fmt.eta)):
        permitted = e.rounded(fmt)
        assert contains(permitted, 0.0)
        assert contains(permitted, far)
        assert not any(contains(permitted, v) for v in (-fmt.eta, 2 * fmt.eta, *NON_FINITE))
    negative = (-small * third).rounded(fmt)
    assert contains(negative, -fmt.eta)
    assert not contains(negative, fmt.eta)


def test_the_sign_of_zero_is_free() -> None:
    (e,) = interval(BINARY32, 0.0)
    assert contains(e.rounded(BINARY32), -0.0)
    assert contains((-e).rounded(BINARY32), 0.0)


# -- NaN and infinities, against numpy ------------------------------------------------------------


def special(fmt: Format) -> list[float]:
    """NaN, infinities, zero, and finite values up to the ends of the range."""
    return [*NON_FINITE, 0.0, 1.0, -3.0, fmt.omega, -fmt.omega, fmt.eta, -fmt.tiny]


PROBES = (0.0, 1.0, -1.0, 2.0, -6.0)


def check_against_ieee(permitted: PermittedSet, want: float, operands: list[float]) -> None:
    """``want`` is permitted, and where it is certainly not finite, nothing finite is."""
    assert contains(permitted, want)
    if math.isfinite(want):
        return
    if any(not math.isfinite(v) for v in operands):
        assert not any(contains(permitted, v) for v in (*PROBES, float(permitted.lower)))
        assert [contains(permitted, v) for v in NON_FINITE] == [
            math.isnan(want),
            want == math.inf,
            want == -math.inf,
        ]


@pytest.mark.parametrize("fmt", [BINARY64, BINARY32, BINARY16], ids=lambda f: f.name)
@pytest.mark.parametrize("name", [*BINARY, "divide"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_pair_of_classes_gives_the_class_of_numpy(fmt: Format, name: str) -> None:
    dtype = {"binary64": np.float64, "binary32": np.float32, "binary16": np.float16}[fmt.name]
    operation: Operation = BINARY.get(name) or (lambda a, b: a / 3)
    for a in special(fmt):
        for b in special(fmt):
            x, y = interval(fmt, a, b)
            want = float(operation(np.array([a], dtype), np.array([b], dtype))[0])
            used = [a, b] if name in ("subtract", "multiply") else [a]
            check_against_ieee(operation(x, y).rounded(fmt), want, used)


@pytest.mark.parametrize("fmt", [BINARY64, BINARY32, BINARY16], ids=lambda f: f.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_sum_with_specials_permits_what_numpy_gives_in_every_order(fmt: Format) -> None:
    dtype = np.float64 if fmt is BINARY64 else np.float32  # the accumulator
    rng = random.Random(4)
    for _ in range(400):
        terms = [rng.choice([*special(fmt), 0.0, 1.0, -3.0]) for _ in range(rng.randint(1, 4))]
        (e,) = interval(fmt, terms)
        permitted = e.sum().rounded(fmt)
        for _ in range(4):
            rng.shuffle(terms)
            total = np.add.accumulate(np.array(terms, dtype))[-1]
            want = to_format(value(float(total)), fmt)
            assert contains(permitted, want), (terms, want)
        if any(not math.isfinite(v) for v in terms):
            assert not any(contains(permitted, v) for v in PROBES), terms
        if any(math.isnan(v) for v in terms):
            assert not contains(permitted, math.inf)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinity_and_a_partial_sum_that_overflows_the_other_way_may_make_a_nan() -> None:
    big = float(np.finfo(np.float32).max)
    terms = [-big, -big, math.inf]
    assert math.isnan(np.add.accumulate(np.array(terms, np.float32))[-1])
    (e,) = interval(BINARY32, terms)
    permitted = e.sum().rounded(BINARY32)
    assert contains(permitted, math.inf)
    assert contains(permitted, math.nan)
    assert not any(contains(permitted, v) for v in (-big, 0.0, big))


@every_format
def test_a_nan_among_infinities_leaves_nothing_but_nan(fmt: Format) -> None:
    for other in (math.inf, -math.inf):
        (e,) = interval(fmt, [math.nan, other])
        permitted = e.sum().rounded(fmt)
        assert contains(permitted, math.nan)
        assert not any(contains(permitted, v) for v in (0.0, math.inf, -math.inf))


@every_format
def test_a_sum_of_zeros_is_zero_and_nothing_else(fmt: Format) -> None:
    (e,) = interval(fmt, [0.0, 0.0, 0.0])
    permitted = e.sum().rounded(fmt)
    assert contains(permitted, 0.0)
    assert not any(contains(permitted, v) for v in (fmt.eta, -fmt.eta))


def test_an_uncertain_overflow_keeps_the_interval_and_spreads_through_further_steps() -> None:
    x, y, w = interval(BINARY16, 300.0, 0.0, 0.0)
    square = (x - y) ** 2
    assert contains(square.rounded(BINARY16), math.inf)
    product = (square * w).rounded(BINARY16)  # inf·0 in the format, 0 in a wider one
    assert contains(product, math.nan)
    assert contains(product, 0.0)
    assert not contains(product, 1.0)
    difference = (square - square).rounded(BINARY16)
    for v in (0.0, math.nan, math.inf, -math.inf):
        assert contains(difference, v)
    assert not any(int(f) & NAN for f in np.ravel(square.rounded(BINARY16).flags))
