"""The fixed cases: examples, pairs and large sizes. They depend on what a target claims alone.

The *examples* change one axis of a plain case at a time, *pairs* every two axes: each value of each
axis meets each value of every other once, in a case so simple that a failure explains itself.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from conformance.cases.case import FLOAT_DTYPES, INTEGER_DTYPES, Case, Fill, Operand
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL, Domain, dense, fitted_pair
from conformance.cases.features import NONFINITE, OVERFLOW, SUBNORMAL, features
from conformance.cases.layouts import place
from conformance.cases.values import FORMAT_OF

RATIONAL = 64  # elements: the oracle for extreme binary64 is exact rationals, which are slow


def derive(*parts: object) -> int:
    """A 32-bit number from the seed and a place: the one source of randomness but Hypothesis."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def reseeded(case: Case, seed: int) -> Case:
    """The case with elements that depend on ``seed``; equal seeds of two operands stay equal."""

    def mixed(operand: Operand) -> Operand:
        fill = operand.fill
        return operand.replace(fill=Fill(fill.regime, derive(seed, fill.seed), fill.table))

    return case.replace(
        input=mixed(case.input), target=mixed(case.target), grad_output=mixed(case.grad_output)
    )


# -- the axes ----------------------------------------------------------------------------------

Change = Callable[[Case], Case]

SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((1,), (1,)),
    ((2, 3), (2, 3)),
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 2, 4), (2, 3, 2, 4)),
    ((1, 2, 1, 3, 1, 2), (1, 2, 1, 3, 1, 2)),
    ((1, 2, 1, 1, 2, 1, 1, 1, 3), (1, 2, 1, 1, 2, 1, 1, 1, 3)),
    ((3, 1), (1, 4)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 3), ()),
    ((), (4,)),
    ((1,), (4,)),
    ((4, 1), (4, 3)),
    ((4, 3), (4, 1)),
    ((4, 1), (4,)),
    ((3, 3), (3,)),
    ((2,), (2, 2, 2)),
    ((2, 1, 3), (5, 1)),
    ((2, 3, 2), (2, 1, 2)),
    ((1, 2, 1, 3), (2, 2, 3, 3)),
    ((0,), (0,)),
    ((2, 0), (2, 0)),
    ((0, 3), (1, 3)),
    ((17,), (17,)),
    ((33,), (33,)),
    ((130,), (130,)),
    ((9, 57), (9, 57)),
    ((130, 3), (130, 3)),
    ((3, 70), (3, 70)),
)
KERNEL_BENCH = (128, 4096)
TAILS = (*range(2, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 1000, 1023, 1025, 2049)
LAYOUT_PAIRS = (
    ("strided", "contiguous"),
    ("contiguous", "strided"),
    ("transposed", "contiguous"),
    ("contiguous", "transposed"),
    ("transposed", "transposed"),
    ("offset", "offset"),
    ("permuted", "contiguous"),
    ("contiguous", "permuted"),
    ("narrow", "contiguous"),
    ("contiguous", "narrow"),
    ("channels_last", "channels_last"),
    ("contiguous", "channels_last"),
    ("channels_last", "contiguous"),
    ("expanded", "contiguous"),
    ("contiguous", "expanded"),
    ("overlapping", "contiguous"),
    ("contiguous", "overlapping"),
)
# Those that differ from these in three dimensions and more.
DEEP_PAIRS = (("cropped", "contiguous"), ("contiguous", "cropped"))
# (input, target, whether both come from the same seed)
FILLS = (
    ("integers", "integers", False),
    ("ordinary", "near", True),
    ("ordinary", "ordinary", True),
    ("constant", "zero", False),
    ("zero", "constant", False),
    ("zero", "zero", False),
    ("ramp", "zero", False),
    ("spread", "spread", False),
    ("spike", "zero", False),
    ("zero", "spike", False),
    ("subnormal", "subnormal", False),
    ("underflow", "zero", False),
    ("huge", "huge", False),
    ("square_edge", "zero", False),
    ("infinite", "ordinary", False),
    ("ordinary", "infinite", False),
    ("nonfinite", "ordinary", False),
    ("ordinary", "nonfinite", False),
    ("nonfinite", "nonfinite", True),
)
# The sum of squares is one number, in any order. No axis has it: of few elements each shows anyway.
EXACT = ("odd", "even", False)
# Of losses in pieces.
KINK_FILLS = (("kink", "zero", False), ("zero", "kink", False), ("sum_edge", "zero", False))
GRAD_OUTPUTS = (
    ("ordinary", "contiguous"),
    ("negative", "contiguous"),
    ("zero", "contiguous"),
    ("near_one", "contiguous"),
    ("large", "contiguous"),
    ("tiny", "contiguous"),
    ("subnormal", "contiguous"),
    ("nonfinite", "contiguous"),
    ("ordinary", "filled"),
    ("ordinary", "strided"),
    ("ordinary", "transposed"),
    ("ordinary", "permuted"),
    ("ordinary", "narrow"),
    ("ordinary", "expanded"),
    ("ordinary", "repeated"),
    ("ordinary", "weighted"),
    ("ordinary", "overlapping"),
    ("ordinary", "offset"),
)
NEEDS = ((True, False), (False, True), (False, False))
MODES = ("no_grad", "inference")


def plain(dtype: str, reduction: str) -> Case:
    """The case that every other one is a change of."""
    x = Operand((5,), dtype, fill=Fill("ordinary", 1))
    y = Operand((5,), dtype, fill=Fill("ordinary", 2))
    return with_reduction(Case(x, y), reduction)


def with_reduction(case: Case, reduction: str) -> Case:
    shape = case.shape if reduction == "none" else ()
    g = case.grad_output.replace(shape=shape, dtype=case.dtype)
    return case.replace(reduction=reduction, grad_output=g)


def with_shapes(case: Case, x: tuple[int, ...], y: tuple[int, ...]) -> Case:
    moved = case.replace(input=case.input.replace(shape=x), target=case.target.replace(shape=y))
    return with_reduction(moved, case.reduction)


def with_dtypes(case: Case, x: str, y: str) -> Case:
    moved = case.replace(input=case.input.replace(dtype=x), target=case.target.replace(dtype=y))
    return with_needs(with_reduction(moved, case.reduction), *case.needs)


def with_needs(case: Case, x: bool, y: bool) -> Case:
    """Which operands need a gradient, as far as their dtypes can have one."""
    floating = case.input.dtype in FLOAT_DTYPES, case.target.dtype in FLOAT_DTYPES
    return case.replace(needs=(x and floating[0], y and floating[1]))


def with_layouts(case: Case, x: str, y: str) -> Case:
    return case.replace(input=case.input.replace(layout=x), target=case.target.replace(layout=y))


def with_fills(case: Case, x: str, y: str, together: bool) -> Case:
    first = case.input.fill.seed
    second = first if together else case.target.fill.seed
    return case.replace(
        input=case.input.replace(fill=Fill(x, first)),
        target=case.target.replace(fill=Fill(y, second)),
    )


def with_grad_output(case: Case, regime: str, layout: str) -> Case:
    if case.reduction != "none" and layout != "offset":  # one number has no other layout
        layout = "contiguous"
    return case.replace(grad_output=case.grad_output.replace(fill=Fill(regime, 3), layout=layout))


def with_parameter(case: Case, name: str, value: float, fill: str) -> Case:
    """Passed by keyword; ``kink``: of elements on both sides of where it tells."""
    filled = with_fills(case, "kink", "zero", False) if fill == "kink" else case
    return filled.replace(parameters=((name, value),))


def parameters(target: Claimed) -> list[tuple[str, float]]:
    """The values of parameters that are tried, of those that the target takes."""
    own = [p for p in target.specification.parameters if p.name in target.parameters]
    return [(p.name, value) for p in own for value in (p.default, *p.tried)]


def axes(target: Claimed) -> list[list[Change]]:
    """For each axis, its values beyond the plain one, as changes of a case."""
    pairs = itertools.combinations(target.dtypes, 2)
    dtypes = [pair if k % 2 else pair[::-1] for k, pair in enumerate(pairs)]
    dtypes += [(d, "int64") for d in target.dtypes]
    dtypes += [(target.dtypes[0], i) for i in INTEGER_DTYPES[1:]]
    dtypes += [("int64", target.dtypes[-1])]
    wide = [("total_edge", "one", False)] if "float16" in target.dtypes else []
    kinks = KINK_FILLS if target.specification.formula.has_kinks() else ()
    given = [(*one, fill) for one in parameters(target) for fill in ("ordinary", "kink")]
    return [
        _changes(with_shapes, SHAPES),
        _changes(with_layouts, LAYOUT_PAIRS),
        _changes(with_fills, (*FILLS, *wide, *kinks)),
        _changes(with_grad_output, GRAD_OUTPUTS),
        _changes(with_needs, NEEDS) + _changes(with_mode, [(mode,) for mode in MODES]),
        _changes(with_dtypes, dtypes),
        [same_tensor],
        *([_changes(with_parameter, given)] if given else []),
    ]


def _changes(change: Callable[..., Case], options: Iterable[tuple[Any, ...]]) -> list[Change]:
    return [functools.partial(_changed, change, option) for option in options]


def _changed(change: Callable[..., Case], option: tuple[Any, ...], case: Case) -> Case:
    return change(case, *option)


def with_mode(case: Case, mode: str) -> Case:
    return case.replace(mode=mode)


def same_tensor(case: Case) -> Case:
    return case.replace(target=case.input, same=True)


def starts(target: Claimed) -> Iterator[Case]:
    for reduction, dtype in itertools.product(target.reductions, target.dtypes):
        yield plain(dtype, reduction)


@functools.lru_cache(maxsize=8)
def examples(target: Claimed) -> tuple[Case, ...]:
    """The plain cases, and each change of them alone; every size of a tail."""
    return tuple(distinct(target, _examples(target)))


def _examples(target: Claimed) -> Iterator[Case]:
    # First as a validation before any training: what is made then must serve a gradient too.
    yield from (with_mode(case, "inference") for case in starts(target))
    yield from starts(target)
    for case in starts(target):
        for axis in axes(target):
            yield from (change(case) for change in axis)
    for case in starts(target):
        if case.input.dtype in ("float32", "float16") or len(target.dtypes) == 1:
            for n in TAILS:
                tail = with_shapes(case, (n,), (n,))
                yield with_fills(tail, *EXACT) if case.reduction == "sum" else tail
            first = target.reductions.index(case.reduction)
            for n in range(40 + first, 48, len(target.reductions)):  # past an aligned address, by n
                yield with_layouts(with_shapes(case, (n,), (n,)), "offset", "offset")
        for n, fill in itertools.product((19, 40), ("nonfinite", "infinite", "subnormal", "spike")):
            yield with_fills(with_shapes(case, (n,), (n,)), fill, "zero", False)
        if case.input.dtype == "float16":  # more terms than one: the sum passes Ω, no term does
            for edge in ("total_edge", *(["sum_edge"] * target.specification.formula.has_kinks())):
                yield with_fills(with_shapes(case, (16,), (16,)), edge, "one", False)
        if target.specification.formula.has_kinks():  # every factor at every kink
            yield with_fills(with_shapes(case, (100,), (100,)), "kink", "zero", False)
        yield with_fills(with_shapes(case, (1,), (257,)), "constant", "zero", False)
        yield with_shapes(case, (1, 3), (0, 3))
    yield from _deep_layouts(target)
    yield from _large_integers(target)
    if target.domain.result is not None:
        yield from _single(target)


def _single(target: Claimed) -> Iterator[Case]:
    """One sample, one column, one number: what squeezes a result confounds these. And nothing of
    some, or some of nothing."""
    shapes = ((1, 3), (3, 1), (1, 1), (1,), (1, 1, 3), (1, 5, 1), (2, 1, 3), (0, 3), (3, 0))
    for case, shape in itertools.product(starts(target), shapes):
        yield with_shapes(case, shape, shape)


def _deep_layouts(target: Claimed) -> Iterator[Case]:
    """Layouts of two dimensions and more, where they are not all the same; reductions go round.

    The square has equal strides in another order: transposed, it differs in nothing else. Eight
    channels are what vectors of them are made of.
    """
    reductions = target.reductions
    for i, shape in enumerate(((3, 3), (2, 3, 2, 4), (2, 3, 2, 2, 3), (2, 8, 2, 3))):
        for k, layouts in enumerate((*LAYOUT_PAIRS, *DEEP_PAIRS), i):
            case = plain(_usual(target), reductions[k % len(reductions)])
            yield with_layouts(with_shapes(case, shape, shape), *layouts)
    case = plain(_usual(target), "none")
    for regime, layout in GRAD_OUTPUTS:
        if layout != "contiguous":
            yield with_grad_output(with_shapes(case, (4, 3), (4, 3)), regime, layout)
            yield with_grad_output(with_shapes(case, (4, 1), (4, 3)), regime, layout)
            yield with_grad_output(with_shapes(case, (2, 3, 2, 4), (2, 3, 2, 4)), regime, layout)


def _large_integers(target: Claimed) -> Iterator[Case]:
    """Past what float32 counts and what 32 bits hold; halves would overflow."""
    for case in starts(target):
        if case.dtype in ("float64", "float32"):
            for kind in ("int64", "int32"):
                mixed = with_dtypes(case, case.dtype, kind)
                yield with_fills(mixed, "ordinary", "large", False)


@functools.lru_cache(maxsize=8)
def pairs(target: Claimed, step: int = 1) -> tuple[Case, ...]:
    """Every pair of values of two axes once (every ``step``-th); dtype and reduction go round."""
    return tuple(distinct(target, _pairs(target, step)))


def _pairs(target: Claimed, step: int) -> Iterator[Case]:
    both = (
        changes
        for one, other in itertools.combinations(axes(target), 2)
        for changes in itertools.product(one, other)
    )
    around = zip(both, itertools.cycle(starts(target)), strict=False)
    for (first, second), start in itertools.islice(around, 0, None, step):
        yield second(first(start))


def scale(target: Claimed, n: int, seed: int) -> Iterator[Case]:
    """Large sizes: drifting sums, a spike at a telling position, gradients, and exact sums.

    To 2^13 elements every dtype meets every filling, to 2^17 one of them, beyond it one dtype does.
    """
    dtypes = [d for d in ("float32", "float16", "bfloat16", "float64") if d in target.dtypes]
    reductions = [r for r in ("mean", "sum", "none") if r in target.reductions]
    fills = (("constant", "zero"), ("spike", "zero"), ("ordinary", "ordinary"))
    for k, reduction in enumerate(reductions[:1] if n > 2**21 else reductions):
        for i, dtype in enumerate(dtypes if n <= 2**17 else [dtypes[(n + k) % len(dtypes)]]):
            case = with_shapes(plain(dtype, reduction), (n,), (n,))
            for j in range(3) if n <= 2**13 else [(i + k) % 3]:
                filled = reseeded(with_fills(case, *fills[j], False), seed + j)
                if n > 2**18 or (n > 2**17 and k):
                    filled = with_needs(filled, False, False)
                yield from within(target, filled)
    further = {4097: _benchmarks, 65537: _wide, 2**20 + 3: _outer}.get(n)
    for case in (*_exact(target, n), *(further(target) if further else ())):
        yield from within(target, reseeded(case, seed))


def _usual(target: Claimed) -> str:
    """The dtype that most kernels are written for."""
    return "float32" if "float32" in target.dtypes else target.dtypes[0]


def _exact(target: Claimed, n: int) -> Iterator[Case]:
    """A sum of n terms in which nothing rounds, so that one lost or doubled among them shows."""
    if n < 2 ** FORMAT_OF[_usual(target)].precision:
        case = with_shapes(plain(_usual(target), "sum"), (n,), (n,))
        yield with_needs(with_fills(case, *EXACT), False, False)


def _benchmarks(target: Claimed) -> Iterator[Case]:
    """What benchmarks feed to kernels: ``rand`` and ``randn``. Their mean is known beforehand.

    And images, which make a batch of their own.
    """
    shapes = ((128, 64), "uniform"), ((128, 64), "normal"), ((2, 3, 32, 32), "normal")
    for reduction, (shape, fill) in itertools.product(target.reductions, shapes):
        case = with_shapes(plain(_usual(target), reduction), shape, shape)
        yield with_fills(case, fill, fill, False)
    for k, reduction in enumerate(("mean", "sum")):  # KernelBench's; alike in nothing but the shape
        case = with_shapes(plain(_usual(target), reduction), KERNEL_BENCH, KERNEL_BENCH)
        yield with_needs(with_fills(case, *((("uniform",) * 2, EXACT[:2])[k]), False), False, False)


def _outer(target: Claimed) -> Iterator[Case]:
    """A column beside a row, both one number: more differences than some like to write down."""
    for reduction in ("sum", "mean"):
        case = with_shapes(plain(_usual(target), reduction), (1025, 1), (1, 1025))
        yield with_needs(with_fills(case, "constant", "constant", True), False, False)


def _wide(target: Claimed) -> Iterator[Case]:
    """More rows, and longer rows, than a grid or a block has; what is last is largest.

    Then operands for which many kernels have a path of their own: transposed, broadcast, of two
    dtypes, and a transposed ``grad_output``.
    """
    n, usual, reductions = 65537, _usual(target), itertools.cycle(target.reductions[::-1])
    matrix = (256, n // 256 + 1)
    for x, y in (((n, 2),) * 2, ((2, n),) * 2, ((n, 2), (2,)), (matrix, matrix)):
        case = with_shapes(plain(usual, next(reductions)), x, y)
        case = with_layouts(case, "transposed", "contiguous") if x == matrix else case
        yield with_fills(case, "last", "zero", False)
    case = with_shapes(plain(usual, "sum"), (n, 2), (2,))
    yield with_fills(case, "odd", "zero", False)  # the gradient of target adds up exactly
    narrow = "bfloat16" if "bfloat16" in target.dtypes else "float16"
    case = with_dtypes(with_shapes(plain(usual, next(reductions)), (n,), (n,)), usual, narrow)
    yield with_fills(case, "last", "zero", False)
    case = with_fills(with_shapes(plain(usual, "none"), matrix, matrix), "constant", "zero", False)
    yield with_grad_output(case, "ordinary", "transposed")


def within(target: Claimed, case: Case) -> Iterator[Case]:
    """The case cut down to what the target claims, or nothing."""
    claims = target.claims
    if case.loss != target.loss_of:
        case = case.replace(loss=target.loss_of)
    if case.result != target.domain.result:
        case = case.replace(result=target.domain.result)
    if case.parameters and not _is_tried(target, case):
        return
    if target.domain != FULL:
        inside = fitted(target.domain, case)
        if inside is None:
            return
        case = inside
    if case.reduction not in target.reductions:
        return
    floating = {d for d in (case.input.dtype, case.target.dtype) if d in FLOAT_DTYPES}
    if not floating <= set(target.dtypes) or case.dtype not in target.dtypes:
        return
    names = {f.name for f in features(case)}
    if "broadcast" in names and "broadcast" not in claims:
        return
    if "empty" in names and "empty" not in claims:
        return
    if names & {"mixed", "integer"} and "mixed_dtype" not in claims:
        return
    extreme = SUBNORMAL | OVERFLOW
    if case.dtype == "float64" and math.prod(case.shape) > RATIONAL and extreme & _regimes(case):
        return
    if "target_gradient" not in claims:
        case = case.replace(needs=(case.needs[0] and not case.same, False))
    if case.same and target.domain.result and any(target.domain.result.rounded):
        return  # it is not the same after it
    if case.same:
        needed = any(case.needs)
        case = case.replace(target=case.input, needs=(needed, needed))
        case = with_reduction(case, case.reduction)
    yield case


def _is_tried(target: Claimed, case: Case) -> bool:
    """Whether the target takes these parameters. Beside an infinite one infinity is free."""
    names = {name for name, _ in case.parameters}
    infinite = any(math.isinf(value) for _, value in case.parameters)
    return names <= {*target.parameters} and not (
        infinite and (NONFINITE | OVERFLOW) & _regimes(case)
    )


def fitted(domain: Domain, case: Case) -> Case | None:
    """The case with shapes and layouts that the domain has; None where it has none like these."""
    shapes = fitted_pair(domain, case.input.shape, case.target.shape)
    if shapes is None:
        return None
    case = with_shapes(case, *shapes)
    case = case.replace(
        input=_laid(domain, case.input),
        target=_laid(domain, case.target),
        needs=case.needs if domain.backward else (False, False),
    )
    return case.replace(target=case.input) if case.same else case


def _laid(domain: Domain, operand: Operand) -> Operand:
    """In its own layout, or in the first that the domain has and that differs from the plain."""
    for layout in (operand.layout, "narrow", "offset"):
        if dense(domain, operand.shape, place(layout, operand.shape).strides):
            return operand.replace(layout=layout)
    return operand.replace(layout="contiguous")


def _regimes(case: Case) -> set[str]:
    return {o.fill.regime for o in (case.input, case.target, case.grad_output)}


def distinct(target: Claimed, cases: Iterator[Case]) -> Iterator[Case]:
    seen = set()
    for whole in cases:
        for case in within(target, whole):
            if case not in seen:
                seen.add(case)
                yield case
