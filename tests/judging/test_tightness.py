"""The oracle is tight from both sides: what it permits is accepted, the next number refused.

``value`` and ``gradient`` are each looked at twice: on the permitted set itself, and end to end,
where a target returns exactly the numbers that a test chose and a session judges it.

Sizes go to 65,537 in every format and reduction. 1,000,003 elements: float32 and float16, values
of every reduction, gradients of the mean. 10,000,000: in float32 the mean, and the set alone of its
gradient of input; in bfloat16 the set of the sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conformance.cases import values
from conformance.cases.case import FLOAT_DTYPES, Case
from conformance.cases.plans import (
    EXACT,
    plain,
    with_fills,
    with_grad_output,
    with_needs,
    with_shapes,
)
from conformance.cases.values import FORMAT_OF, elements
from conformance.judging import oracle
from conformance.observer import tensors
from conformance.observer.tensors import DTYPES
from reference.enclosure import VOID, PermittedSet
from reference.formats import BINARY64, Floats
from reference.reductions import REDUCTIONS
from targets import Target
from targets.builtin import BUILTIN
from tests.sampling import only
from tests.sessions import session_on

Singles = NDArray[np.float32]
Size = tuple[int, str, str]  # n, dtype, reduction

OPERANDS = ("input", "target")
SMALL: list[Size] = list(
    itertools.product((1, 2, 3, 17, 129, 4097, 65_537), FLOAT_DTYPES, REDUCTIONS)
)
MILLION: list[Size] = list(itertools.product((1_000_003,), ("float32", "float16"), REDUCTIONS))
VALUES = [*SMALL, *MILLION]
FEW = [size for size in SMALL if size[0] in (1, 3, 129, 4097)]  # what the fast run takes
GRADIENTS = [*SMALL, *(size for size in MILLION if size[2] == "mean")]
TEN_MILLION = 10_000_000
NATIVE: dict[str, Any] = {"float64": np.float64, "float32": np.float32, "float16": np.float16}
BITS = {
    "float64": torch.int64,
    "float32": torch.int32,
    "float16": torch.int16,
    "bfloat16": torch.int16,
}

every_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES)
every_operand = pytest.mark.parametrize("operand", OPERANDS)
totals = pytest.mark.parametrize("reduction", ["sum", "mean"])


@pytest.fixture(autouse=True)
def _memory_returned() -> Iterator[None]:
    """What the suite remembers of a case is dropped: ten million elements are 500 MB of it."""
    yield
    for module in (oracle, tensors, values):
        for remembered in vars(module).values():
            if hasattr(remembered, "cache_clear"):
                remembered.cache_clear()


# -- numbers of a format --------------------------------------------------------------------------


def tensor(v: Floats, dtype: str) -> torch.Tensor:
    """``v`` in ``dtype``, where every element is representable."""
    made = torch.from_numpy(np.array(v)).to(DTYPES[dtype])
    assert np.array_equal(made.double().numpy(), v), "not numbers of the format"
    return made


def ordinal(v: Floats, dtype: str) -> NDArray[np.int64]:
    """The place of each number in the format: neighbours differ by 1, both zeros are at 0."""
    kind = BITS[dtype]
    bits = tensor(v, dtype).view(kind).numpy().astype(np.int64)
    return np.asarray(np.where(bits < 0, torch.iinfo(kind).min - bits, bits))


def next_to(v: Floats, dtype: str, up: bool) -> Floats:
    """The next number of the format above, or below, each of ``v``."""
    if dtype == "bfloat16":
        place = ordinal(v, dtype) + (1 if up else -1)
        bits = np.where(place < 0, torch.iinfo(torch.int16).min - place, place).astype(np.int16)
        found: Floats = torch.from_numpy(bits).view(torch.bfloat16).double().numpy()
    else:
        there = NATIVE[dtype](np.inf if up else -np.inf)
        found = np.nextafter(v.astype(NATIVE[dtype]), there).astype(np.float64)
    assert np.isfinite(found).all()
    assert (found > v).all() if up else (found < v).all()
    return found


@every_dtype
@pytest.mark.parametrize("up", [False, True])
def test_the_next_number_is_one_place_away(dtype: str, up: bool) -> None:
    fmt = FORMAT_OF[dtype]
    edges = [0.0, fmt.eta, fmt.tiny - fmt.eta, fmt.tiny, 1 - fmt.u, 1.0, 2.0, fmt.omega / 2]
    v = np.array([*edges, *(-e for e in edges)])
    moved = ordinal(next_to(v, dtype, up), dtype) - ordinal(v, dtype)
    assert (moved == (1 if up else -1)).all()


# -- cases, and targets that return what they are told --------------------------------------------


def case_of(n: int, dtype: str, reduction: str) -> Case:
    """A plain case of n elements whose result is finite in the format; grad_output is not 1."""
    case = with_shapes(plain(dtype, reduction), (n,), (n,))
    if dtype == "float16" and reduction == "sum":  # of ordinary ones, 4,097 squares pass 65,504
        case = with_fills(case, "small", "small", False)
    return with_grad_output(case, "ordinary", "contiguous")


def value_case(n: int, dtype: str, reduction: str) -> Case:
    return with_needs(case_of(n, dtype, reduction), False, False)


def gradient_case(n: int, dtype: str, reduction: str, operand: str) -> Case:
    return with_needs(case_of(n, dtype, reduction), operand == "input", operand == "target")


def finite(permitted: PermittedSet) -> PermittedSet:
    """``permitted``, after a look that every element has a finite interval."""
    assert permitted.flags is None or not (permitted.flags & VOID).any()
    assert (permitted.lower <= permitted.upper).all()
    assert np.isfinite(permitted.lower).all()
    assert np.isfinite(permitted.upper).all()
    return permitted


def value_set(case: Case) -> PermittedSet:
    return finite(oracle.permitted_value(case, case.dtype))


def gradient_set(case: Case, operand: str) -> PermittedSet:
    return finite(oracle.permitted_gradient(case, case.dtype, operand))


def returning(case: Case, value: Floats, gradient: Floats | None = None) -> Target:
    """A target whose loss is ``value`` and whose gradient, of either operand, ``gradient``."""
    result = tensor(value, case.dtype)
    slope = None if gradient is None else tensor(gradient, case.dtype)

    class Given(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return result.clone()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            return slope, slope

    def loss(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        function: Any = Given
        given: torch.Tensor = function.apply(x, y)
        return given

    return Target("given", loss)


def aspects(target: Target, case: Case) -> list[str]:
    """What is wrong with ``target`` on ``case``; there was a result in any case."""
    judgement = session_on(target).run(case)
    assert judgement.returned
    return [d.aspect for d in judgement.deviations]


def one_moved(v: Floats, k: int, dtype: str, up: bool) -> Floats:
    """``v`` with its k-th element replaced by the next number."""
    moved = v.reshape(-1).copy()
    moved[k] = next_to(moved[k : k + 1], dtype, up)[0]
    assert np.count_nonzero(moved != v.reshape(-1)) == 1
    return moved.reshape(v.shape)


def ways_out(permitted: PermittedSet, dtype: str) -> Iterator[Floats]:
    """All at one end but for one element (first, middle, last), which is just outside."""
    size = permitted.lower.size
    for k in sorted({0, size // 2, size - 1}):
        yield one_moved(permitted.lower, k, dtype, up=False)
        yield one_moved(permitted.upper, k, dtype, up=True)


def assert_refuses_the_next(permitted: PermittedSet, dtype: str) -> None:
    """Every end is permitted, and no number that is one place outside."""
    assert permitted.lower.size
    for end, up in ((permitted.lower, False), (permitted.upper, True)):
        assert permitted.contains(end).all()
        assert not permitted.contains(next_to(end, dtype, up)).any()


# -- the ends, and one place outside --------------------------------------------------------------


@only(FEW, "n, dtype, reduction", VALUES)
def test_the_set_of_values_ends_where_it_ends(n: int, dtype: str, reduction: str) -> None:
    assert_refuses_the_next(value_set(value_case(n, dtype, reduction)), dtype)


@only(FEW, "n, dtype, reduction", GRADIENTS)
def test_the_set_of_gradients_ends_where_it_ends(n: int, dtype: str, reduction: str) -> None:
    for operand in OPERANDS:
        case = gradient_case(n, dtype, reduction, operand)
        assert_refuses_the_next(gradient_set(case, operand), dtype)


@only(FEW, "n, dtype, reduction", VALUES)
def test_a_session_accepts_the_ends_of_a_value_and_refuses_the_next(
    n: int, dtype: str, reduction: str
) -> None:
    case = value_case(n, dtype, reduction)
    permitted = value_set(case)
    for end in (permitted.lower, permitted.upper):
        assert aspects(returning(case, end), case) == []
    for moved in ways_out(permitted, dtype):
        assert aspects(returning(case, moved), case) == ["value"]


@every_operand
@only(FEW, "n, dtype, reduction", GRADIENTS)
def test_a_session_accepts_the_ends_of_a_gradient_and_refuses_the_next(
    n: int, dtype: str, reduction: str, operand: str
) -> None:
    case = gradient_case(n, dtype, reduction, operand)
    value, permitted = value_set(case).upper, gradient_set(case, operand)
    for end in (permitted.lower, permitted.upper):
        assert aspects(returning(case, value, end), case) == []
    for moved in ways_out(permitted, dtype):
        assert aspects(returning(case, value, moved), case) == [f"gradient.{operand}"]


@pytest.mark.full
def test_ten_million_elements_the_mean_in_float32() -> None:
    """Its set; end to end the next number above."""
    case = value_case(TEN_MILLION, "float32", "mean")
    permitted = value_set(case)
    assert_refuses_the_next(permitted, "float32")
    above = next_to(permitted.upper, "float32", up=True)
    assert aspects(returning(case, above), case) == ["value"]


@pytest.mark.full
def test_ten_million_elements_the_sum_in_bfloat16() -> None:
    """Its set alone."""
    assert_refuses_the_next(value_set(value_case(TEN_MILLION, "bfloat16", "sum")), "bfloat16")


@pytest.mark.full
def test_ten_million_elements_the_gradient_of_the_mean_in_float32() -> None:
    """Its set alone."""
    case = gradient_case(TEN_MILLION, "float32", "mean", "input")
    assert_refuses_the_next(gradient_set(case, "input"), "float32")


# -- width: not tight merely because it is huge ---------------------------------------------------


@every_dtype
@pytest.mark.parametrize("fill", ["ordinary", "small", "spread"])
def test_a_square_has_at_most_two_permitted_numbers_five_where_the_difference_is_rounded(
    dtype: str, fill: str
) -> None:
    """Outward rounding of d and of d² leaves 5 numbers, of d² alone 2.

    Let the difference lie between the neighbours m and m + 1, integers of p bits (in units of its
    last place). Their squares are 2m + 1 apart, and numbers beside m² are 2^(p-1) apart where
    m² < 2^(2p-1), else 2^p. In the first case (2m + 1)/2^(p-1) < 2√2 + 2^(1-p), in the second
    (2m + 1)/2^p < 2. Rounding outward adds less than one place at each end: less than 4.84 places,
    so 4, between 5 numbers. Where d is a number of the format only the places at the ends are left:
    less than 2, so 1, between 2 numbers. The same holds below the normal range, where d is exact.
    """
    case = with_fills(value_case(4097, dtype, "none"), "ordinary", fill, False)
    permitted = value_set(case)
    places = ordinal(permitted.upper, dtype) - ordinal(permitted.lower, dtype)
    held = differences_held(case)
    assert held.any()
    assert (~held).any()
    assert places[held].max() == 1
    assert 2 <= places[~held].max() <= 4


@every_dtype
def test_a_square_of_an_exact_difference_has_at_most_two_permitted_numbers(dtype: str) -> None:
    """Neighbours cancel without an error (Sterbenz)."""
    case = with_fills(value_case(4097, dtype, "none"), "ordinary", "near", True)
    permitted = value_set(case)
    assert differences_held(case).all()
    assert (ordinal(permitted.upper, dtype) - ordinal(permitted.lower, dtype)).max() <= 1


@every_dtype
@only((1, 3, 129, 4097), "n", [1, 2, 3, 17, 129, 4097, 65_537])
@totals
def test_a_total_of_n_terms_is_as_wide_as_gamma_and_a_few_roundings(
    n: int, dtype: str, reduction: str
) -> None:
    assert_total_is_narrow(value_case(n, dtype, reduction))


@totals
def test_a_total_of_a_million_float32_terms_is_as_wide_as_gamma_and_a_few_roundings(
    reduction: str,
) -> None:
    assert_total_is_narrow(value_case(10**6, "float32", reduction))


def assert_total_is_narrow(case: Case) -> None:
    """Relative half-width: at least γ_h(n), at most γ_h(n) + (2r + 1)·u with r roundings.

    Rounding outward multiplies an end by 1 ± 2u at most. A term is rounded as d, which is squared,
    and as d²: a factor of (1 ± 2u)³. The sum is widened by γ_h times the sum of the magnitudes. One
    more rounding gives the format: of the quotient for a mean, of the sum for halves. A mean of
    halves has three: of the sum, of the quotient in the accumulator, of the quotient. With
    r roundings of the format that is γ_h + 2r·u; one u is for the products of these, for rounding
    in the accumulator, n·η, and the oracle's own arithmetic (n·2^-52).
    """
    fmt, n = FORMAT_OF[case.dtype], case.input.size
    widening = stated_widening(n, Fraction(fmt.accumulator.u))
    half = fmt.accumulator is not fmt
    roundings = 3 + (case.reduction == "mean") + half
    exact = exact_total(case)
    assert exact > 0
    permitted = value_set(case)
    lower, upper = Fraction(float(permitted.lower)), Fraction(float(permitted.upper))
    assert lower <= exact <= upper
    width = (upper - lower) / exact / 2
    least = widening * (1 - Fraction(1, 2**50))  # the oracle's own γ_h is a float
    assert least <= width <= widening + (2 * roundings + 1) * Fraction(fmt.u)


def stated_widening(n: int, u: Fraction) -> Fraction:
    """γ_h(n) as the specification states it, written apart from the oracle."""
    if n == 1:
        return Fraction(0)
    run = n - 1 if u == Fraction(BINARY64.u) else min(n - 1, 4096)
    h = run + 2 * (n - 1).bit_length() + Fraction(n, 2**20)
    return h * u / (1 - h * u)


def exact_total(case: Case) -> Fraction:
    """The sum of squares, or their mean, in integers."""
    scale = 64  # 2^-5 is the smallest exponent of ordinary and small elements: 2^-57 the last place
    x, y = (np.ldexp(elements(o), scale).tolist() for o in (case.input, case.target))
    assert all(v.is_integer() for v in (*x, *y))
    total = Fraction(sum((int(a) - int(b)) ** 2 for a, b in zip(x, y, strict=True)), 4**scale)
    return total / len(x) if case.reduction == "mean" else total


def differences_held(case: Case) -> NDArray[np.bool_]:
    """For each element, whether x - y is a number of the format."""
    x, y = (elements(o) for o in (case.input, case.target))
    rounded = (tensor(x, case.dtype) - tensor(y, case.dtype)).double().numpy()
    pairs = zip(x.tolist(), y.tolist(), rounded.tolist(), strict=True)
    return np.array([Fraction(a) - Fraction(b) == Fraction(c) for a, b, c in pairs])


@every_dtype
@pytest.mark.parametrize("n", [1, 3, 129])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_gradient_is_as_wide_as_its_roundings(n: int, dtype: str, reduction: str) -> None:
    """No order rounds more than four times (d, 2/n or g/n, two products): (1 ± 2u)⁴, or 9u.

    Without a mean it is twice: (1 ± 2u)², or 5u. Elements near 0 are left out, whose intermediate
    results lie below the normal range of float16.
    """
    case = with_fills(gradient_case(n, dtype, reduction, "input"), "ordinary", "ordinary", False)
    fmt, permitted = FORMAT_OF[dtype], gradient_set(case, "input")
    x, y, g = (
        np.broadcast_to(elements(o), (n,)) for o in (case.input, case.target, case.grad_output)
    )
    most = (9 if reduction == "mean" else 5) * Fraction(fmt.u)
    seen = 0
    for k in np.flatnonzero(np.abs(x - y) >= 2.0**-5):
        d, slope = Fraction(x[k]) - Fraction(y[k]), 2 * Fraction(g[k])
        exact = d * slope / (n if reduction == "mean" else 1)
        lower, upper = Fraction(permitted.lower[k]), Fraction(permitted.upper[k])
        assert lower <= exact <= upper
        assert (upper - lower) / 2 <= most * abs(exact)
        seen += 1
    assert seen >= n - n // 16


# -- sums in which nothing rounds: one number ------------------------------------------------------


@every_dtype
@only((1, 5, 129, 4097), "n", [1, 2, 5, 33, 129, 255, 2047, 4097, 65_537, 2**20 + 3, 2**22 + 1])
def test_a_sum_of_odd_less_even_numbers_is_one_number_and_no_difference_is_nothing(
    n: int, dtype: str
) -> None:
    """As far as the format counts; so any element that is lost or doubled leaves the set."""
    if n >= 2 ** FORMAT_OF[dtype].precision:
        return
    case = with_fills(value_case(n, dtype, "sum"), *EXACT)
    d = elements(case.input) - elements(case.target)
    permitted = value_set(case)
    assert np.abs(d).min() >= 1
    assert float(permitted.lower) == float(permitted.upper) == (d * d).sum()


@pytest.mark.parametrize("fills", [("constant", "zero"), ("ordinary", "ordinary"), EXACT[:2]])
def test_of_a_million_ordinary_float32_elements_a_lost_or_doubled_one_shows_where_sums_are_exact(
    fills: tuple[str, str],
) -> None:
    """The one in the middle; no filling of before shows it."""
    case = with_fills(value_case(2**20, "float32", "sum"), *fills, False)
    d = elements(case.input) - elements(case.target)
    terms = np.float32(d).astype(np.float64) ** 2
    for sign in (-1, 1):
        moved = np.asarray(float(np.float32(terms.sum() + sign * terms[2**19])))
        wrong = aspects(returning(case, moved), case)
        assert wrong == (["value"] if fills == EXACT[:2] else [])


# -- how a sum may be accumulated -----------------------------------------------------------------

Add = Callable[[Singles], Singles]


def running(terms: Singles) -> Singles:
    """One accumulator, over the last axis."""
    return np.asarray(np.add.accumulate(terms, axis=-1)[..., -1])


def pairwise(terms: Singles) -> Singles:
    """A binary tree."""
    while terms.size > 1:
        half = terms.size // 2
        terms = np.append(terms[:half] + terms[half : 2 * half], terms[2 * half :])
    return terms.reshape(())


def blocked(terms: Singles) -> Singles:
    """Runs of 4,096 serial additions, combined in a tree."""
    return pairwise(running(padded(terms).reshape(-1, 4096)))


def lanes(terms: Singles) -> Singles:
    """4,096 accumulators, each for every 4,096th term, combined in a tree."""
    return pairwise(running(padded(terms).reshape(-1, 4096).T))


def padded(terms: Singles) -> Singles:
    return np.append(terms, np.zeros(-terms.size % 4096, np.float32))


def accumulating(add: Add) -> Target:
    """A float32 loss in numpy whose terms ``add`` sums."""

    def loss(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        d = (x - y).numpy()
        total = add(d * d)
        assert total.dtype == np.float32
        return torch.tensor(total / np.float32(d.size) if reduction == "mean" else total)

    return Target(add.__name__, loss, dtypes=("float32",))


def million(fill: str, reduction: str) -> Case:
    other = "zero" if fill == "constant" else fill
    return with_fills(value_case(10**6, "float32", reduction), fill, other, False)


drifting = only(["constant"], "fill", ["constant", "ordinary"])


@drifting
@totals
def test_a_running_float32_sum_of_a_million_is_refused(fill: str, reduction: str) -> None:
    case = million(fill, reduction)
    value_set(case)
    assert aspects(accumulating(running), case) == ["value"]


@drifting
@totals
@pytest.mark.parametrize("add", [pairwise, blocked, lanes])
def test_a_float32_sum_of_permitted_depth_is_accepted(fill: str, reduction: str, add: Add) -> None:
    assert aspects(accumulating(add), million(fill, reduction)) == []


@drifting
@totals
def test_the_builtin_is_accepted_at_a_million(fill: str, reduction: str) -> None:
    assert aspects(BUILTIN, million(fill, reduction)) == []


@totals
def test_a_running_float32_sum_of_4097_is_accepted(reduction: str) -> None:
    """That much is one block."""
    case = with_fills(value_case(4097, "float32", reduction), "constant", "zero", False)
    assert aspects(accumulating(running), case) == []


def running_in(accumulator: torch.dtype) -> Target:
    """A loss whose running sum is rounded to ``accumulator`` at each step."""

    def loss(x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        terms = (x - y).square().to(accumulator)
        total = torch.zeros((), dtype=accumulator)
        for term in terms:
            total = total + term
        return (total / len(terms) if reduction == "mean" else total).to(x.dtype)

    return Target("running", loss)


halves = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
half_fills = pytest.mark.parametrize(("x", "y"), [("constant", "zero"), ("small", "small")])


def half_case(dtype: str, x: str, y: str, reduction: str) -> Case:
    case = with_fills(value_case(4097, dtype, reduction), x, y, False)
    value_set(case)
    return case


@halves
@half_fills
@totals
def test_a_running_sum_in_a_half_format_is_refused(
    dtype: str, x: str, y: str, reduction: str
) -> None:
    case = half_case(dtype, x, y, reduction)
    assert aspects(running_in(DTYPES[dtype]), case) == ["value"]


@halves
@half_fills
@totals
def test_a_running_sum_of_a_half_format_in_float32_is_accepted(
    dtype: str, x: str, y: str, reduction: str
) -> None:
    case = half_case(dtype, x, y, reduction)
    assert aspects(running_in(torch.float32), case) == []
