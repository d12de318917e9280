"""What makes a case more than plain, and which clauses speak about it.

A plain case has equal small shapes, one floating dtype, dense operands, ordinary values, ones as
``grad_output`` and gradients of both operands. Each feature knows how to recognise itself and how
to take itself away; so a deviation on a case with many features can be traced to the one that
matters (``attribution.py``), and a case counts for the clauses of the features that it has.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from conformance.cases.case import FLOAT_DTYPES, Case, Fill, Operand
from conformance.cases.domain import Result
from conformance.cases.values import elements
from reference.formats import BINARY16
from reference.losses import LOSSES, Loss
from reference.reductions import EVERYTHING, Form

NONFINITE = frozenset({"infinite", "nonfinite"})
SUBNORMAL = frozenset({"subnormal", "underflow"})
OVERFLOW = frozenset({"huge", "square_edge", "total_edge", "sum_edge"})
KINK = frozenset({"kink"})
SMALL = 33  # elements: beyond, a case has the feature "size"


@dataclass(frozen=True, eq=False)
class Feature:
    """One way in which a case is special. ``value``, ``gradient``: the ids of its clauses."""

    name: str
    value: str
    gradient: str
    present: Callable[[Case], bool]
    without: Callable[[Case], Case]


def _reshaped(case: Case, shape: tuple[int, ...], other: tuple[int, ...] | None = None) -> Case:
    """The case with other shapes; ``grad_output`` follows."""
    x = case.input.replace(shape=shape)
    y = case.target.replace(shape=shape if other is None else other)
    moved = case.replace(input=x, target=y)
    g_shape = moved.shape if case.reduction == "none" else ()
    return moved.replace(grad_output=case.grad_output.replace(shape=g_shape))


def _regime(regimes: frozenset[str]) -> Callable[[Case], bool]:
    return lambda case: case.input.fill.regime in regimes or case.target.fill.regime in regimes


def _without_regime(regimes: frozenset[str]) -> Callable[[Case], Case]:
    def calm(operand: Operand) -> Operand:
        if operand.fill.regime not in regimes:
            return operand
        return operand.replace(fill=Fill("ordinary", operand.fill.seed))

    return lambda case: case.replace(input=calm(case.input), target=calm(case.target))


def _without_empty(case: Case) -> Case:
    def filled(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(2 if n == 0 else n for n in shape)

    return _reshaped(case, filled(case.input.shape), filled(case.target.shape))


def _without_size(case: Case) -> Case:
    """At most 32 elements in as many dimensions, broadcast where they were."""
    most = 3 if len(case.shape) <= 3 else 2

    def small(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(n, most if len(shape) - k <= 5 else 1) for k, n in enumerate(shape))

    return _reshaped(case, small(case.input.shape), small(case.target.shape))


def _without_integer(case: Case) -> Case:
    dtype = case.dtype
    return case.replace(
        input=case.input.replace(dtype=dtype), target=case.target.replace(dtype=dtype)
    )


def _without_layout(case: Case) -> Case:
    dense = {"layout": "contiguous"}
    return case.replace(input=case.input.replace(**dense), target=case.target.replace(**dense))


def _plain_gradient(case: Case, **changes: object) -> Case:
    return case.replace(grad_output=case.grad_output.replace(**changes))


def _is_integer(case: Case) -> bool:
    return any(o.dtype not in FLOAT_DTYPES for o in (case.input, case.target))


def _has_gradient(case: Case) -> bool:
    return bool(case.differentiated)


def _all_needs(case: Case) -> tuple[bool, bool]:
    """A gradient for each operand whose dtype can have one."""
    return case.input.dtype in FLOAT_DTYPES, case.target.dtype in FLOAT_DTYPES


def loss_of(case: Case) -> Loss:
    """The specification that a case is judged by, with its parameters."""
    return LOSSES[case.loss].given(case.parameters)


@functools.lru_cache(maxsize=64)
def form_of(result: Result | None) -> Form:
    """What the reference needs to know of it."""
    if result is None:
        return EVERYTHING
    return Form(result.over, result.divisor, result.scalar, result.flat)


def result_shape(case: Case) -> tuple[int, ...]:
    """The shape that the result must have."""
    if case.result is None:
        return case.shape if case.reduction == "none" else ()
    return form_of(case.result).shape(case.shape, case.reduction)


def _total_overflows(case: Case) -> bool:
    """A mean in float16 of finite terms whose sum passes 65,504.

    There, and nowhere else, the accumulator is wider in range than the format.
    """
    if case.dtype != "float16" or case.reduction != "mean":
        return False
    with np.errstate(all="ignore"):
        terms = loss_of(case).formula.value(elements(case.input) - elements(case.target), "none")
    omega = BINARY16.omega
    return bool(terms.size and terms.max() <= omega and terms.sum() > 0.99 * omega)


def _without_total(case: Case) -> Case:
    x, y = (o.replace(fill=Fill("small", o.fill.seed)) for o in (case.input, case.target))
    return case.replace(input=x, target=y)


# In order of precedence, for a deviation that needs several features at once.
FEATURES: tuple[Feature, ...] = (
    Feature(
        "empty",
        "value.empty",
        "gradient.empty",
        lambda c: 0 in c.shape,
        _without_empty,
    ),
    Feature(
        "same",
        "value.same_tensor",
        "gradient.same_tensor",
        lambda c: c.same,
        lambda c: c.replace(same=False),
    ),
    Feature(
        "mean_overflow",
        "value.mean_overflow",
        "gradient.mean_overflow",
        _total_overflows,
        _without_total,
    ),
    Feature(
        "nonfinite",
        "value.nonfinite",
        "gradient.nonfinite",
        _regime(NONFINITE),
        _without_regime(NONFINITE),
    ),
    Feature(
        "subnormal",
        "value.subnormal",
        "gradient.subnormal",
        _regime(SUBNORMAL),
        _without_regime(SUBNORMAL),
    ),
    Feature(
        "overflow",
        "value.overflow",
        "gradient.overflow",
        _regime(OVERFLOW),
        _without_regime(OVERFLOW),
    ),
    Feature("kink", "value.kink", "gradient.kink", _regime(KINK), _without_regime(KINK)),
    Feature(
        "parameter",
        "value.parameter",
        "gradient.parameter",
        lambda c: bool(c.parameters),
        lambda c: c.replace(parameters=()),
    ),
    Feature(
        "integer",
        "dtypes.integer_value",
        "dtypes.integer_gradient",
        _is_integer,
        _without_integer,
    ),
    Feature(
        "mixed",
        "dtypes.mixed_value",
        "dtypes.mixed_gradient",
        lambda c: c.input.dtype != c.target.dtype and not _is_integer(c),
        _without_integer,
    ),
    Feature(
        "broadcast",
        "broadcasting.value",
        "broadcasting.gradient",
        lambda c: c.input.shape != c.target.shape,
        lambda c: _reshaped(c, c.shape),
    ),
    Feature(
        "layout",
        "layout.value",
        "layout.gradient",
        lambda c: (c.input.layout, c.target.layout) != ("contiguous", "contiguous"),
        _without_layout,
    ),
    Feature(
        "size",
        "value.size",
        "gradient.size",
        lambda c: math.prod(c.shape) > SMALL,
        _without_size,
    ),
    Feature(
        "scalar",
        "value.scalar",
        "gradient.scalar",
        lambda c: c.shape == (),
        lambda c: _reshaped(c, (3,)),
    ),
    Feature(
        "partial",
        "value.requires_grad",
        "gradient.partial",
        lambda c: c.needs != _all_needs(c),
        lambda c: c.replace(needs=_all_needs(c)),
    ),
    Feature(
        "mode",
        "value.grad_mode",
        "gradient.partial",
        lambda c: c.mode != "grad",
        lambda c: c.replace(mode="grad"),
    ),
    Feature(
        "grad_output_nonfinite",
        "value.none",
        "grad_output.nonfinite",
        lambda c: _has_gradient(c) and c.grad_output.fill.regime in NONFINITE,
        lambda c: _plain_gradient(c, fill=Fill("one")),
    ),
    Feature(
        "grad_output_layout",
        "value.none",
        "grad_output.layout",
        lambda c: _has_gradient(c) and c.grad_output.layout != "contiguous",
        lambda c: _plain_gradient(c, layout="contiguous"),
    ),
    Feature(
        "grad_output_value",
        "value.none",
        "grad_output.value",
        lambda c: _has_gradient(c) and c.grad_output.fill.regime not in NONFINITE | {"one"},
        lambda c: _plain_gradient(c, fill=Fill("one")),
    ),
)


@functools.lru_cache(maxsize=1024)
def features(case: Case) -> tuple[Feature, ...]:
    """The features of a case, in order of precedence."""
    return tuple(f for f in FEATURES if f.present(case))


def keep_only(case: Case, kept: tuple[Feature, ...]) -> Case:
    """The case with every other feature taken away."""
    for feature in FEATURES:
        if feature not in kept and feature.present(case):
            case = feature.without(case)
    return case


def clause_of(aspect: str, case: Case, feature: Feature | None) -> str:
    """The id of the clause that ``aspect`` (value, gradient.input, gradient.target) falls under."""
    return _clause_of(aspect, case.reduction, feature)


def _clause_of(aspect: str, reduction: str, feature: Feature | None) -> str:
    if aspect == "value":
        silent = feature is None or feature.name.startswith("grad_output")
        return f"value.{reduction}" if silent or feature is None else feature.value
    return aspect if feature is None else feature.gradient


def clauses_of(case: Case, aspects: Container[str]) -> tuple[str, ...]:
    """The ids of all clauses that a case is evidence for, once these ``aspects`` were right.

    A case that is special only in what needs a gradient is evidence for the plain clauses too: the
    gradient that it has is the plain one, and all that a target without target's has.
    """
    wanted = [f"gradient.{operand}" for operand in case.differentiated]
    right = tuple(aspect for aspect in ("value", *wanted) if aspect in aspects)
    return _clauses_of(features(case), case.reduction, right)


@functools.lru_cache(maxsize=1024)
def _clauses_of(
    special: tuple[Feature, ...], reduction: str, right: tuple[str, ...]
) -> tuple[str, ...]:
    present: tuple[Feature | None, ...] = special
    if all(f.name == "partial" for f in special):
        present = (*special, None)
    return tuple(sorted({_clause_of(aspect, reduction, f) for aspect in right for f in present}))
