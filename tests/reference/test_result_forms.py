"""Sums over some dimensions, and means with another divisor: as torch computes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conformance.cases.case import Case
from conformance.cases.domain import Result
from conformance.cases.plans import plain, with_dtypes, with_fills, with_shapes
from conformance.cases.values import elements
from conformance.judging.oracle import grad_output, permitted_gradient, permitted_value
from reference.losses import LOSSES
from reference.reductions import EVERYTHING, Form, reduced

FORMS = (
    Form(over=(1, None)),
    Form(over=(-1, None)),
    Form(divisor=(0, 1)),
    Form(divisor=(1, None)),
    Form(over=(1, None), divisor=(0, 1)),
    Form(scalar=(1,), flat=True),
)
SHAPES = ((3,), (1,), (2, 3), (3, 2, 5), (1, 4), (4, 1))


def by_torch(form: Form, d: torch.Tensor, reduction: str) -> torch.Tensor:
    s, shape = d.square(), d.shape
    if reduction == "none":
        return s.flatten() if form.flat else s
    axes = [*range(len(shape))][slice(*form.over)]
    total = s.sum(axes) if axes else s
    if reduction == "mean":
        spans = form.over if form.divisor is None else form.divisor
        total = total / math.prod(shape[slice(*spans)])
    return total if total.dim() else total.reshape(form.scalar)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_value_and_gradient_are_torchs(form: Form, shape: tuple[int, ...], reduction: str) -> None:
    formula = LOSSES["mse"].formula
    formed = type(formula)(**{**vars(formula), "form": form})
    x = torch.arange(1.0, math.prod(shape) + 1, dtype=torch.float64).reshape(shape)
    x.requires_grad_()
    result = by_torch(form, x, reduction)
    assert form.shape(shape, reduction) == tuple(result.shape)
    g = torch.linspace(-1, 2, result.numel(), dtype=torch.float64).reshape(result.shape)
    (slope,) = torch.autograd.grad(result, x, g)
    d = x.detach().numpy()
    assert np.allclose(formed.value(d, reduction), result.detach().numpy())
    assert np.allclose(formed.vjp(d, g.numpy(), reduction), slope.numpy())


def test_everything_is_as_ever() -> None:
    terms = np.arange(6.0).reshape(2, 3)
    for reduction in ("none", "sum", "mean"):
        assert np.array_equal(EVERYTHING.reduced(terms, reduction), reduced(terms, reduction))
        assert EVERYTHING.divide(terms, "mean").tolist() == (terms / 6).tolist()


def formed(result: Result, dtype: str, reduction: str = "sum") -> Case:
    case = with_shapes(plain(dtype, reduction), (2, 3), (2, 3))
    return with_dtypes(case, dtype, dtype).replace(result=result)


def test_a_narrow_result_excuses_no_rounded_operand() -> None:
    """The exact difference is permitted, that of rounded operands is not, unless that is said."""
    case = with_fills(formed(Result(dtype="float32"), "float64", "none"), "ordinary", "near", True)
    x, y = elements(case.input), elements(case.target)
    with np.errstate(all="ignore"):
        exact = ((x - y) ** 2).astype(np.float32).astype(np.float64)
        rounded = ((x.astype(np.float32) - y.astype(np.float32)) ** 2).astype(np.float64)
    permitted = permitted_value(case, "float32")
    assert permitted.contains(exact).all()
    assert not permitted.contains(rounded).all()
    said = case.replace(result=Result(dtype="float32", rounded=("float32", "float32")))
    assert permitted_value(said, "float32").contains(exact).all()
    assert permitted_value(said, "float32").contains(rounded).all()


def test_a_gradient_of_samples_is_each_ones_own() -> None:
    case = formed(Result(over=(1, None)), "float64")
    assert grad_output(case, "float64").shape == (2,)
    g = elements(grad_output(case, "float64"))
    gradient = 2 * (elements(case.input) - elements(case.target)) * g[:, None]
    permitted = permitted_gradient(case, "float64", "input")
    assert permitted.contains(gradient).all()
    assert not permitted.contains(gradient * (1 + 2.0**-40)).any()
