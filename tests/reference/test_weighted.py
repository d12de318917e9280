"""Weighted losses, over rationals and against native steps."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference.bounds import slack
from reference.formats import BINARY16, BINARY32, BINARY64, Floats, Format
from reference.losses import LOSSES, Loss
from reference.losses.weighted import Weighted
from reference.reductions import REDUCTIONS, unbroadcast

Rationals = NDArray[Any]
WEIGHTED = [pytest.param(loss, id=loss.name) for loss in LOSSES.values() if loss.formula.weight]
every_loss = pytest.mark.parametrize("loss", WEIGHTED)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
# Shapes of d, and of the weight.
every_shape = pytest.mark.parametrize(
    ("shape", "own"), [((3, 4), (3, 4)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((1,), (1,))]
)
NATIVE: list[tuple[Format, Any]] = [
    (BINARY64, np.float64),
    (BINARY32, np.float32),
    (BINARY16, np.float16),
]
H = Fraction(1, 64)


def rationals(seed: int, shape: tuple[int, ...], step: int = 16) -> Rationals:
    """Odd multiples of 1/``step``: never on a kink, and more than ``H`` away from each."""
    random = np.random.default_rng(seed)
    made = np.empty(math.prod(shape), dtype=object)
    made[:] = [Fraction(2 * int(k) + 1, step) for k in random.integers(-16, 16, made.size)]
    return made.reshape(shape)


def operands(shape: tuple[int, ...], own: tuple[int, ...], reduction: str) -> tuple[Rationals, ...]:
    """d, w and g."""
    d, w = rationals(1, shape), rationals(2, own)
    return d, abs(w), rationals(3, shape if reduction == "none" else ())


def paired(v: Any, g: Any) -> Any:
    """g and a loss, or what it changes by, multiplied: the sum of the products."""
    return np.asarray(v * g, dtype=object).sum()


def changed(a: Rationals, index: tuple[int, ...], h: Fraction) -> Rationals:
    made = a.copy()
    made[index] += h
    return made


@every_loss
@every_reduction
@every_shape
def test_the_gradient_by_the_difference_is_the_derivative(
    loss: Loss, reduction: str, shape: tuple[int, ...], own: tuple[int, ...]
) -> None:
    """Central differences are exact: each piece is a polynomial of second degree at most."""
    d, w, g = operands(shape, own, reduction)
    found = Weighted(loss.formula, d, w, reduction).vjp(g)
    for index in np.ndindex(shape):
        up, down = (
            paired(Weighted(loss.formula, changed(d, index, h), w, reduction).value(), g)
            for h in (H, -H)
        )
        assert np.asarray(found)[index] == (up - down) / (2 * H)


@every_loss
@every_reduction
@every_shape
def test_the_gradient_by_the_weight_is_the_derivative(
    loss: Loss, reduction: str, shape: tuple[int, ...], own: tuple[int, ...]
) -> None:
    """A quotient by Σw changes by h·(ℓ·Σw − Σwℓ)/(Σw·(Σw + h)); everything else is linear."""
    d, w, g = operands(shape, own, reduction)
    by_weights = reduction == "mean" and loss.formula.weight == "weights"
    found = Weighted(loss.formula, d, w, reduction).weight_vjp(g)
    assert np.shape(found) == own
    for index in np.ndindex(own):
        one, other = (
            paired(Weighted(loss.formula, d, v, reduction).value(), g)
            for v in (w, changed(w, index, H))
        )
        grown = (w.sum() + H) / w.sum() if by_weights else 1
        assert np.asarray(found)[index] == (other - one) / H * grown


@every_loss
@every_reduction
def test_a_weight_of_ones_is_none(loss: Loss, reduction: str) -> None:
    d, w, g = operands((3, 4), (3, 4), reduction)
    one = Weighted(loss.formula, d, w * 0 + 1, reduction)
    assert np.all(one.value() == loss.formula.value(d, reduction))
    assert np.all(one.vjp(g) == loss.formula.vjp(d, g, reduction))


@every_loss
def test_a_mean_over_the_weights_does_not_depend_on_their_scale(loss: Loss) -> None:
    d, w, _ = operands((3, 4), (3, 4), "mean")
    one, other = (Weighted(loss.formula, d, v, "mean").value() for v in (w, 3 * w))
    assert (one == other) == (loss.formula.weight == "weights")


@every_loss
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("fmt", "dtype"), [pytest.param(f, d, id=f.name) for f, d in NATIVE])
def test_native_steps_in_every_order_are_permitted(
    loss: Loss, signed: bool, fmt: Format, dtype: Any
) -> None:
    random = np.random.default_rng(7)
    d = random.integers(-32, 33, 60) / 8
    w = random.integers(1, 33, 60) / 8
    w[::3] = -0.125 if signed else w[::3]
    g = 0.625
    exact = Weighted(loss.formula, d, w, "mean")
    s, v = (a.astype(dtype) for a in (loss.formula.value(d, "none"), w))
    n = dtype(v.sum(dtype=wide(dtype))) if loss.formula.weight == "weights" else dtype(d.size)
    total = dtype((s * v).sum(dtype=wide(dtype)))
    shares = dtype((s * (v / n)).sum(dtype=wide(dtype)))
    value, size = np.asarray(exact.value()), np.asarray(exact.size())
    for got in (total / n, shares):
        assert abs(float(got) - value) <= allowed(fmt, size, d.size)
    by, size = exact.weight_vjp(g), exact.weight_vjp_size(g)
    less = total / n if loss.formula.weight == "weights" else dtype(0)
    for found in ((s - less) * dtype(g) / n, s * (dtype(g) / n) - less * (dtype(g) / n)):
        assert (abs(found.astype(np.float64) - by) <= allowed(fmt, size, d.size)).all()


def wide(dtype: Any) -> Any:
    return np.float32 if dtype is np.float16 else dtype


def allowed(fmt: Format, size: Floats, terms: int) -> Floats:
    return slack(fmt.u, fmt.accumulator.u, fmt.eta, size, terms)


@every_loss
def test_what_is_wrong_is_not_permitted_in_any_format(loss: Loss) -> None:
    """The other divisor, and a gradient by the weight without or with −L."""
    random = np.random.default_rng(8)
    d, w = random.integers(1, 33, 12) / 8, random.integers(1, 33, 12) / 8
    exact, s = Weighted(loss.formula, d, w, "mean"), loss.formula.value(d, "none")
    over_weights = loss.formula.weight == "weights"
    divisor = w.sum() if over_weights else 12
    wrong_value = (s * w).sum() / (12 if over_weights else w.sum())
    wrong_by = s / divisor if over_weights else (s - exact.value()) / divisor
    for fmt in (BINARY64, BINARY32, BINARY16):
        assert abs(wrong_value - exact.value()) > allowed(fmt, np.asarray(exact.size()), 12)
        off = abs(wrong_by - exact.weight_vjp(1.0)) > allowed(fmt, exact.weight_vjp_size(1.0), 12)
        assert off.any()


@every_reduction
def test_the_gradient_of_input_is_summed_as_that_of_the_loss_is(reduction: str) -> None:
    d, w, g = operands((2, 3), (3,), reduction)
    formula = LOSSES["mse"].formula
    found = unbroadcast(Weighted(formula, d, w, reduction).vjp(g), (3,))
    divisor = w.sum() if reduction == "mean" else 1
    each = 2 * d * w * g / divisor
    assert all(found[k] == sum(each[i, k] for i in range(2)) for k in range(3))


def test_who_takes_a_weight_is_said_of_each_loss() -> None:
    told = {name: loss.formula.weight for name, loss in LOSSES.items()}
    own = {"mse": "weights", "l1": "weights", "huber": "elements", "smooth_l1": ""}
    assert {name: told[name] for name in own} == own
