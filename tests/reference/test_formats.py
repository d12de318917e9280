"""Directed rounding proved against exact rationals, numpy's casts, and every half pattern."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from reference.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    BINARY64,
    FORMATS,
    Format,
    ceil_precision,
    round_down,
    round_nearest,
    round_up,
)

ALL = list(FORMATS.values())
HALVES = [BINARY16, BFLOAT16]
NATIVE: dict[str, DTypeLike] = {
    "binary64": np.float64,
    "binary32": np.float32,
    "binary16": np.float16,
}
every_format = pytest.mark.parametrize("fmt", ALL, ids=lambda f: f.name)
each_half = pytest.mark.parametrize("fmt", HALVES, ids=lambda f: f.name)
prove = settings(derandomize=True, deadline=None, database=None, max_examples=200)

# -- an independent rounding, in exact arithmetic ------------------------------------------------


def quantum(v: Fraction, fmt: Format) -> Fraction:
    """The spacing of ``fmt`` at v, were its exponents unbounded above."""
    exponent = fmt.emin
    if abs(v) >= Fraction(2) ** fmt.emin:
        exponent = abs(v).numerator.bit_length() - v.denominator.bit_length() - 1
        while abs(v) >= Fraction(2) ** (exponent + 1):
            exponent += 1
    return Fraction(2) ** (exponent - (fmt.precision - 1))


def floor_to(v: Fraction, fmt: Format) -> Fraction:
    """The greatest number of fmt's spacing <= v, exponents unbounded above."""
    q = quantum(v, fmt)
    return math.floor(v / q) * q


def ceil_to(v: Fraction, fmt: Format) -> Fraction:
    """The least number of fmt's spacing >= v, exponents unbounded above."""
    return -floor_to(-v, fmt)


def largest(fmt: Format) -> Fraction:
    """Ω as a rational."""
    return (2**fmt.precision - 1) * Fraction(2) ** (fmt.emax - fmt.precision + 1)


def threshold(fmt: Format) -> Fraction:
    """The midpoint between Ω and the power of two above it: it and all beyond overflow."""
    return (largest(fmt) + Fraction(2) ** (fmt.emax + 1)) / 2


def nearest(v: Fraction, fmt: Format) -> Fraction | float:
    """IEEE 754 round to nearest, ties to even (a float only where it is an infinity)."""
    if abs(v) >= threshold(fmt):
        return math.inf if v > 0 else -math.inf
    q = quantum(v, fmt)
    return round(v / q) * q  # Fraction.__round__ ties to even


def as_float(v: Fraction | float) -> float:
    """A member of a format as a float64, which holds it exactly."""
    result = float(v)
    assert isinstance(v, float) or Fraction(result) == v
    return result


def clamp_up(v: Fraction, fmt: Format) -> float:
    """The least member of fmt, infinities included, that is >= v."""
    up = ceil_to(v, fmt)
    return math.inf if up > largest(fmt) else as_float(max(up, -largest(fmt)))


def same(a: float, b: float) -> bool:
    """Equal, or both NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))


@st.composite
def points(draw: st.DrawFn, fmt: Format) -> float:
    """A member of ``fmt``: every exponent alike, subnormals, zero, Ω and powers of two."""
    p = fmt.precision
    exponent = draw(st.integers(fmt.emin - 1, fmt.emax))
    corners = st.sampled_from([0, 1, 2 ** (p - 2), 2 ** (p - 1) - 1])
    fraction = draw(st.one_of(st.integers(0, 2 ** (p - 1) - 1), corners))
    hidden = 0 if exponent < fmt.emin else 2 ** (p - 1)
    magnitude = math.ldexp(hidden + fraction, max(exponent, fmt.emin) - p + 1)
    return draw(st.sampled_from([1.0, -1.0])) * magnitude


@st.composite
def between(draw: st.DrawFn, fmt: Format) -> float:
    """A float64 on a member of fmt, on a midpoint, or a float64 neighbour of one of these."""
    v = draw(points(fmt))
    if draw(st.booleans()):
        v += float(quantum(Fraction(v), fmt) / 2)
    for _ in range(draw(st.integers(0, 1))):
        v = math.nextafter(v, draw(st.sampled_from([math.inf, -math.inf])))
    return v if math.isfinite(v) else draw(points(fmt))


def decoded(fmt: Format) -> NDArray[np.float64]:
    """The values of all 65,536 patterns of a half format, decoded by hand."""
    width = fmt.precision - 1
    bias = fmt.emax
    values = []
    for pattern in range(1 << 16):
        sign = -1.0 if pattern >> 15 else 1.0
        fraction = pattern & ((1 << width) - 1)
        exponent = (pattern >> width) & ((1 << (15 - width)) - 1)
        if exponent == (1 << (15 - width)) - 1:
            values.append(math.nan if fraction else sign * math.inf)
        elif exponent == 0:
            values.append(sign * math.ldexp(fraction, 1 - bias - width))
        else:
            values.append(sign * math.ldexp((1 << width) + fraction, exponent - bias - width))
    return np.array(values)


def finite_members(fmt: Format) -> NDArray[np.float64]:
    """Every finite value of a half format, ascending, zero once."""
    values = decoded(fmt)
    return np.unique(values[np.isfinite(values)])


# -- the parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NATIVE))
def test_parameters_equal_finfo(name: str) -> None:
    fmt, info = FORMATS[name], np.finfo(NATIVE[name])
    assert fmt.u == float(info.eps) / 2
    assert fmt.tiny == float(info.smallest_normal)
    assert fmt.eta == float(info.smallest_subnormal)
    assert fmt.omega == float(info.max)
    assert fmt.precision == info.nmant + 1


def test_bfloat16_parameters_are_binary32_with_sixteen_bits_cut_off() -> None:
    largest_bits = np.array([0x7F7F0000, 0x00010000, 0x00800000, 0x3C000000], np.uint32)
    omega, eta, tiny, two_u = largest_bits.view(np.float32).astype(float).tolist()
    assert (BFLOAT16.omega, BFLOAT16.eta, BFLOAT16.tiny) == (omega, eta, tiny)
    assert two_u == 2 * BFLOAT16.u


def test_parameters_are_exact_and_halves_accumulate_in_binary32() -> None:
    for fmt in ALL:
        assert Fraction(fmt.omega) == largest(fmt)
        assert Fraction(fmt.eta) == Fraction(2) ** (fmt.emin - fmt.precision + 1)
        assert Fraction(fmt.u) == Fraction(1, 2**fmt.precision)
    assert [f.accumulator for f in (BINARY64, BINARY32, BINARY16, BFLOAT16)] == [
        BINARY64,
        BINARY32,
        BINARY32,
        BINARY32,
    ]


# -- rounding, against rationals ------------------------------------------------------------------


def check_rounding(v: float, fmt: Format) -> None:
    """All four roundings of a finite ``v`` against the independent ones."""
    exact = Fraction(v)
    assert float(round_up(v, fmt)) == clamp_up(exact, fmt)
    assert float(round_down(v, fmt)) == -clamp_up(-exact, fmt)
    assert float(round_nearest(v, fmt)) == nearest(exact, fmt)
    up = ceil_to(exact, fmt)
    if abs(up) <= largest(BINARY64):
        assert Fraction(float(ceil_precision(np.array(v), fmt))) == up


@every_format
@prove
@given(data=st.data())
def test_rounding_equals_rationals_at_members_midpoints_and_their_neighbours(
    fmt: Format, data: st.DataObject
) -> None:
    check_rounding(data.draw(between(fmt)), fmt)


@every_format
@prove
@given(v=st.floats(allow_nan=False, allow_infinity=False))
@example(v=5e-324)
@example(v=-5e-324)
@example(v=1.7976931348623157e308)
@example(v=-1.7976931348623157e308)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_rounding_equals_rationals_for_any_float64(fmt: Format, v: float) -> None:
    check_rounding(v, fmt)


@every_format
def test_rounding_is_elementwise_so_that_neighbours_in_an_array_do_not_matter(fmt: Format) -> None:
    v = np.array([[fmt.omega, fmt.eta, -fmt.tiny], [math.nan, -math.inf, 0.7 * fmt.tiny]])
    for rounding in (round_up, round_down, round_nearest):
        whole = rounding(v[:, ::2], fmt)  # not contiguous either
        single = [[float(rounding(x, fmt)) for x in row] for row in v[:, ::2].tolist()]
        np.testing.assert_array_equal(whole, np.array(single))


@every_format
def test_rounding_keeps_nan_and_infinities(fmt: Format) -> None:
    for rounding in (round_up, round_down, round_nearest):
        got = rounding([math.nan, math.inf, -math.inf], fmt).tolist()
        assert all(map(same, got, [math.nan, math.inf, -math.inf]))


@every_format
def test_overflow_threshold_is_omega_and_half_an_ulp(fmt: Format) -> None:
    omega, limit = fmt.omega, threshold(fmt)
    assert float(round_nearest(omega, fmt)) == omega
    if fmt is BINARY64:  # no float64 lies beyond
        assert nearest(limit, fmt) == math.inf
        assert nearest(limit - Fraction(fmt.eta), fmt) == Fraction(omega)
        return
    at = as_float(limit)
    below, above = math.nextafter(at, 0), math.nextafter(omega, math.inf)
    for sign in (1, -1):
        assert float(round_nearest(sign * at, fmt)) == sign * math.inf
        assert float(round_nearest(sign * below, fmt)) == sign * omega
    assert float(round_up(above, fmt)) == math.inf
    assert float(round_down(above, fmt)) == omega
    assert float(round_up(-above, fmt)) == -omega
    assert float(round_down(-above, fmt)) == -math.inf
    assert float(round_up(1e308, fmt)) == math.inf
    assert float(round_down(1e308, fmt)) == omega


@pytest.mark.parametrize("fmt", ALL[1:], ids=lambda f: f.name)
def test_subnormals_have_the_spacing_eta(fmt: Format) -> None:
    for k in (0, 1, 2, 3, 2 ** (fmt.precision - 1) - 1, 2 ** (fmt.precision - 1)):
        v = (k + 0.5) * fmt.eta
        assert float(round_down(v, fmt)) == k * fmt.eta
        if k < 2 ** (fmt.precision - 1):
            assert float(round_up(v, fmt)) == (k + 1) * fmt.eta
            assert float(round_nearest(v, fmt)) == (k + k % 2) * fmt.eta
    assert float(round_up(5e-324, fmt)) == fmt.eta
    assert float(round_down(5e-324, fmt)) == 0
    assert float(round_up(-5e-324, fmt)) == 0
    assert float(round_down(-5e-324, fmt)) == -fmt.eta


# -- rounding, against numpy ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binary32", "binary16"])
@prove
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_nearest_equals_numpys_cast(name: str, data: st.DataObject) -> None:
    fmt = FORMATS[name]
    v = data.draw(st.one_of(between(fmt), st.floats()))
    cast = float(np.array(v).astype(NATIVE[name]))
    assert same(float(round_nearest(v, fmt)), cast)


@pytest.mark.parametrize("name", ["binary32", "binary16"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_directed_rounding_steps_to_numpys_neighbour(name: str) -> None:
    fmt, dtype = FORMATS[name], NATIVE[name]
    rng = np.random.default_rng(1)
    v = np.ldexp(rng.uniform(-2, 2, 100_000), rng.integers(fmt.emin - 30, fmt.emax + 3, 100_000))
    cast = v.astype(dtype)
    up = np.where(cast.astype(float) < v, np.nextafter(cast, dtype(np.inf)), cast)
    down = np.where(cast.astype(float) > v, np.nextafter(cast, dtype(-np.inf)), cast)
    np.testing.assert_array_equal(round_nearest(v, fmt), cast.astype(float))
    np.testing.assert_array_equal(round_up(v, fmt), up.astype(float))
    np.testing.assert_array_equal(round_down(v, fmt), down.astype(float))


# -- exhaustive over the halves -------------------------------------------------------------------


def test_hand_decoded_patterns_equal_numpys_float16() -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(decoded(BINARY16), patterns.astype(float))


@each_half
def test_every_pattern_of_a_half_is_fixed_by_every_rounding(fmt: Format) -> None:
    values = decoded(fmt)
    assert np.isfinite(values).sum() > 63_000
    for rounding in (round_up, round_down, round_nearest):
        np.testing.assert_array_equal(rounding(values, fmt), values)


@each_half
def test_everything_between_two_neighbours_of_a_half_rounds_to_one_of_them(fmt: Format) -> None:
    members = finite_members(fmt)
    low, high = members[:-1], members[1:]
    middle = (low + high) / 2  # exact
    assert (low < middle).all()
    assert (middle < high).all()
    for v in (np.nextafter(low, np.inf), middle, np.nextafter(high, -np.inf)):
        np.testing.assert_array_equal(round_up(v, fmt), high)
        np.testing.assert_array_equal(round_down(v, fmt), low)
    np.testing.assert_array_equal(round_nearest(np.nextafter(middle, -np.inf), fmt), low)
    np.testing.assert_array_equal(round_nearest(np.nextafter(middle, np.inf), fmt), high)
    # Of two neighbours, the one whose last bit is 0 is even: patterns count magnitudes upward.
    even_low = np.array([Fraction(v) / quantum(Fraction(v), fmt) % 2 == 0 for v in low[::17]])
    assert even_low.any()
    np.testing.assert_array_equal(
        round_nearest(middle[::17], fmt), np.where(even_low, low[::17], high[::17])
    )


@each_half
def test_directed_rounding_equals_a_search_among_all_members(fmt: Format) -> None:
    members = finite_members(fmt).tolist()
    rng = np.random.default_rng(2)
    v = np.ldexp(rng.uniform(-2, 2, 5_000), rng.integers(fmt.emin - 12, fmt.emax + 2, 5_000))
    padded = [-math.inf, *members, math.inf]
    ups = [padded[bisect_left(padded, x)] for x in v.tolist()]
    downs = [padded[bisect_right(padded, x) - 1] for x in v.tolist()]
    np.testing.assert_array_equal(round_up(v, fmt), ups)
    np.testing.assert_array_equal(round_down(v, fmt), downs)
