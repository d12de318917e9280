"""The losses proved: over rationals, against native orders of operations, and with each other."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.cases.values import KINKS
from reference.enclosure import Enclosure, PermittedSet, enclose
from reference.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    BINARY64,
    FORMATS,
    Floats,
    Format,
    round_nearest,
)
from reference.losses import LOSSES, Loss
from reference.losses.loss import permitted_gradient
from reference.reductions import REDUCTIONS

Rationals = NDArray[Any]
EVERY = [
    pytest.param(loss.given(given), id=f"{loss.name}{''.join(f'-{v:g}' for _, v in given)}")
    for loss in LOSSES.values()
    for given in [(), *(((p.name, v),) for p in loss.parameters for v in p.tried)]
]
FINITE = [p for p in EVERY if all(map(math.isfinite, p.values[0].at))]  # type: ignore[attr-defined]
every_loss = pytest.mark.parametrize("loss", EVERY)
every_finite = pytest.mark.parametrize("loss", FINITE)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
NATIVE: list[tuple[Format, Any]] = [
    (BINARY64, np.float64),
    (BINARY32, np.float32),
    (BINARY16, np.float16),
]
every_native = pytest.mark.parametrize(
    ("fmt", "dtype"), [pytest.param(fmt, dtype, id=fmt.name) for fmt, dtype in NATIVE]
)


def rationals(seed: int, *shape: int, step: int = 8) -> Rationals:
    random = np.random.default_rng(seed)
    made = np.empty(math.prod(shape), dtype=object)
    made[:] = [Fraction(int(k), step) for k in random.integers(-32, 33, math.prod(shape))]
    return made.reshape(shape)


def differences(fmt: Format, seed: int, n: int = 400) -> Floats:
    """At and around every kink, equal ones, and ordinary ones."""
    random = np.random.default_rng(seed)
    kinks = random.choice(KINKS, n) * (1 + random.integers(-9, 10, n) * 2 * fmt.u)
    values = np.where(random.random(n) < 0.5, kinks, random.standard_normal(n) * 3)
    values[::17] = 0
    rounded: Floats = np.asarray(values * random.choice([-1.0, 1.0], n), np.float32).astype(float)
    return rounded


def given(name: str, value: float) -> Loss:
    loss = LOSSES[name]
    return loss.given(((loss.parameters[0].name, value),))


def held(fmt: Format, values: Floats) -> tuple[Floats, Enclosure]:
    """Numbers of the format, and that as an enclosure."""
    near = round_nearest(values, fmt)
    (enclosed,) = enclose(fmt, near)
    return near, enclosed


@every_finite
def test_all_orders_of_the_term_are_one_formula(loss: Loss) -> None:
    d = rationals(1, 40)
    for order in loss.terms(d, *loss.at):
        assert np.array_equal(order, loss.formula.value(d, "none"))


@every_finite
@every_reduction
def test_all_orders_of_the_gradient_are_one_formula(loss: Loss, reduction: str) -> None:
    d, g = rationals(1, 3, 4), rationals(2, 3, 4)
    wanted = loss.formula.vjp(d, g, reduction)
    orders = list(loss.orders(d, g, reduction, Fraction))
    assert len(orders) >= 1
    for order in orders:
        assert np.array_equal(order, wanted)


@every_finite
def test_slope_and_curvature_are_the_derivatives(loss: Loss) -> None:
    """Between the kinks the term is a quadratic, so that central differences have no error."""
    d, h = rationals(3, 200, step=7), Fraction(1, 2**30)
    kinks = [Fraction(k) for k in loss.formula.kinks(*loss.at)]
    off = np.array([all(abs(abs(v) - k) > h for k in kinks) for v in d])
    d = d[off]
    formula, at = loss.formula, loss.at
    slope = (formula.term(d + h, *at) - formula.term(d - h, *at)) / (2 * h)
    assert np.array_equal(slope, formula.slope(d, *at))
    curvature = (formula.slope(d + h, *at) - formula.slope(d - h, *at)) / (2 * h)
    assert np.array_equal(curvature, formula.curvature(d, *at))


@every_loss
@every_native
def test_what_native_steps_give_is_permitted(loss: Loss, fmt: Format, dtype: Any) -> None:
    """In every order, the constants rounded to the format."""
    d, enclosed = held(fmt, differences(fmt, 5))
    permitted = loss.permitted_loss(enclosed, "none")
    with np.errstate(all="ignore"):
        for k, order in enumerate(loss.terms(d.astype(dtype), *loss.at)):
            got = np.asarray(order).astype(dtype).astype(float)
            assert permitted.contains(got).all(), k


@every_loss
@every_native
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradients_by_native_steps_are_permitted(
    loss: Loss, fmt: Format, dtype: Any, reduction: str
) -> None:
    d, enclosed = held(fmt, differences(fmt, 6, 60))
    g, by = held(fmt, differences(fmt, 7, 60) if reduction == "none" else np.asarray(0.7))
    gradient = loss.vjp(enclosed, by, reduction)
    permitted = permitted_gradient(gradient, d.shape, fmt)

    def ratio(p: int, q: int) -> Any:
        return dtype(p) / dtype(q)

    with np.errstate(all="ignore"):
        native = (v.astype(dtype) for v in (d, np.asarray(g)))
        for k, order in enumerate(loss.orders(*native, reduction, ratio)):
            got = np.asarray(order).astype(dtype).astype(float)
            assert permitted.contains(np.broadcast_to(got, d.shape)).all(), k


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "loss", [LOSSES["l1"], given("smooth_l1", 0.0)], ids=lambda loss: loss.name
)
def test_a_tie_times_infinity_is_nan_or_nothing(loss: Loss, reduction: str) -> None:
    shape = (3,) if reduction == "none" else ()
    d, g = enclose(BINARY32, np.array([0.0, 2.0, -2.0]), np.full(shape, np.inf))
    permitted = permitted_gradient(loss.vjp(d, g, reduction), (3,), BINARY32)
    for tie in (np.nan, 0.0):
        assert permitted.contains(np.array([tie, np.inf, -np.inf])).all()
    assert not permitted.contains(np.array([np.inf, 0.0, np.nan])).any()


@every_native
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("limit", [1.0, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("name", ["smooth_l1", "huber"])
def test_the_gradient_of_half_a_square_may_begin_with_half_of_a_subnormal_number(
    name: str, limit: float, reduction: str, fmt: Format, dtype: Any
) -> None:
    """As autograd finds it for d² · (½/β), d²/2/β and d²/β/2."""
    random = np.random.default_rng(9)
    count = 60
    d = round_nearest(random.uniform(-1, 1, count) * min(limit, 3), fmt)
    g = random.integers(1, 200, count if reduction == "none" else ()) * fmt.eta
    enclosed, by = enclose(fmt, d, g)
    loss = given(name, limit)
    permitted = permitted_gradient(loss.vjp(enclosed, by, reduction), d.shape, fmt)
    over = dtype(limit if name == "smooth_l1" else 1)
    two, half, twice = dtype(2), dtype(0.5), dtype(2) * d.astype(dtype)
    start = g.astype(dtype) / dtype(count if reduction == "mean" else 1)
    for first in (start * (half / over), start / over / two, start / two / over):
        got = np.broadcast_to((first * twice).astype(float), d.shape)
        assert permitted.contains(got).all()


def ulps(permitted: PermittedSet, fmt: Format) -> Floats:
    """How wide it is, in units in the last place of its larger end."""
    size = np.maximum(np.abs(permitted.lower), np.abs(permitted.upper))
    ulp = np.maximum(2 * fmt.u * 2.0 ** np.floor(np.log2(np.maximum(size, fmt.tiny))), fmt.eta)
    return np.asarray((permitted.upper - permitted.lower) / ulp)


@every_loss
@every_format
def test_no_more_is_permitted_than_some_roundings(loss: Loss, fmt: Format) -> None:
    """Four steps of a term, five of a gradient, each up to an ulp to either side.

    Away from subnormal squares, which a quotient makes large again.
    """
    values = differences(fmt, 8)
    values = np.where(values**2 < 2**8 * fmt.tiny, 1.0, values)
    d, enclosed = held(fmt, values)
    permitted = loss.permitted_loss(enclosed, "none")
    assert ulps(permitted, fmt).max() <= 10
    (one,) = enclose(fmt, np.asarray(1.0))
    slopes = permitted_gradient(loss.vjp(enclosed, one, "none"), d.shape, fmt)
    quotients = np.abs(d) >= 2**8 * fmt.tiny  # of d / δ
    assert ulps(slopes, fmt)[quotients].max() <= 12


@every_loss
@every_format
def test_nothing_vacuous_is_permitted(loss: Loss, fmt: Format) -> None:
    """Zeros, ones, the difference itself and its slope in the place of the value."""
    if loss.name == "smooth_l1" and math.isinf(loss.at[0]):
        return  # it is zero everywhere
    d, enclosed = held(fmt, differences(fmt, 9))
    permitted = loss.permitted_loss(enclosed, "none")
    for vacuous in (0 * d, 0 * d + 1, d, -d):
        assert not permitted.contains(vacuous).all()
    (one,) = enclose(fmt, np.asarray(1.0))
    slopes = permitted_gradient(loss.vjp(enclosed, one, "none"), d.shape, fmt)
    for vacuous in (0 * d, 0 * d + 1, abs(d), -np.sign(d)):
        assert not slopes.contains(vacuous).all()


@every_finite
def test_cases_have_elements_on_every_kink(loss: Loss) -> None:
    """Of every parameter that is tried; ties are among them anyway."""
    assert {*loss.formula.kinks(*loss.at)} <= {0.0, *KINKS}


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.0])
def test_huber_is_a_multiple_of_smooth_l1(limit: float) -> None:
    d = rationals(11, 100)
    huber, smooth = given("huber", limit).formula, given("smooth_l1", limit).formula
    for one, other in ((huber.value, smooth.value),):
        assert np.array_equal(one(d, "none"), Fraction(limit) * other(d, "none"))
    assert np.array_equal(huber.vjp(d, 1, "none"), Fraction(limit) * smooth.vjp(d, 1, "none"))


def test_losses_meet_at_the_limits_of_their_parameters() -> None:
    d = rationals(12, 100)
    l1, mse = LOSSES["l1"].formula, LOSSES["mse"].formula
    sharp, wide = given("smooth_l1", 0.0).formula, given("huber", math.inf).formula
    flat = given("smooth_l1", math.inf).formula
    assert np.array_equal(sharp.value(d, "sum"), l1.value(d, "sum"))
    assert np.array_equal(sharp.vjp(d, 1, "mean"), l1.vjp(d, 1, "mean"))
    assert np.array_equal(2 * wide.value(d, "sum"), mse.value(d, "sum"))
    assert np.array_equal(2 * wide.vjp(d, 1, "sum"), mse.vjp(d, 1, "sum"))
    assert not flat.value(d, "none").any()


@pytest.mark.parametrize("name", ["l1", "smooth_l1", "huber"])
def test_of_nan_the_gradient_is_nan_or_zero_and_of_infinity_the_limit(name: str) -> None:
    loss = LOSSES[name]
    d = np.array([np.nan, np.inf, -np.inf, 0.0, 2.0])
    enclosed, one = enclose(BINARY32, d, np.ones(5))
    value = loss.permitted_loss(enclosed, "none")
    assert value.contains(
        np.array([np.nan, np.inf, np.inf, 0.0, loss.formula.term(2.0, *loss.at)])
    ).all()
    assert not value.contains(np.array([0.0, 1.0, 1.0, 1.0, 0.0])).any()
    slopes = permitted_gradient(loss.vjp(enclosed, one, "none"), (5,), BINARY32)
    for of_nan in (np.nan, 0.0):
        assert slopes.contains(np.array([of_nan, 1.0, -1.0, 0.0, 1.0])).all()
    assert not slopes.contains(np.array([1.0, np.inf, 0.0, 1.0, -1.0])).any()
    of_infinity = slopes.contains(np.array([0.0, np.nan, np.nan, 0.0, 1.0]))
    assert of_infinity.tolist() == [True, name != "l1", name != "l1", True, True]


def test_the_sign_of_a_difference_that_may_be_rounded_to_a_tie() -> None:
    """Of two dtypes: the narrower may have been rounded before the difference was taken."""
    loss = LOSSES["l1"]
    (wide,) = enclose(BFLOAT16, np.array([1 + 2.0**-12]))  # 1, or a little more
    (one, g) = enclose(BFLOAT16, np.ones(1), np.ones(1))
    slopes = permitted_gradient(loss.vjp(wide - one, g, "none"), (1,), BFLOAT16)
    assert slopes.contains(np.zeros(1)).all()
    assert slopes.contains(np.ones(1)).all()
    assert not slopes.contains(-np.ones(1)).any()


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="mse has no parameter delta"):
        LOSSES["mse"].given((("delta", 1.0),))
