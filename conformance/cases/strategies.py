"""Hypothesis strategies: the structure of scenarios, a few calls on one pair of operands.

One drawn structure serves several calls, with other reductions, other ``grad_output`` and other
needs: drawing costs more than running, and sequences of calls on equal shapes are what caches break
on. Only booleans and integers below 30 are drawn: Hypothesis mixes constants that it finds in local
modules into larger ones, and the same seed would then give other cases in another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from conformance.cases import plans
from conformance.cases.case import INTEGER_DTYPES, Case, Fill, Operand
from conformance.cases.claimed import Claimed
from conformance.cases.layouts import LAYOUTS
from conformance.cases.values import TABLE

CALLS = 8  # of one scenario
T = TypeVar("T")

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33)
LONG = (65, 70, 129, 200)  # rows and columns of a matrix, past what one block works on
LINES = (1, 2, 3, 5, 8, 13, 31, 32, 33, 63, 65, 100, 127, 129, 192, 255, 257, 384, 513, 1000, 1025)
RANKS = (0, 1, 2, 3, 4, 5, 6, 9)
SIZES_OF = {2: (*SIZES, *LONG), 3: SIZES, 9: (1, 1, 2)}
OPERAND_LAYOUTS = tuple(LAYOUTS)
PLAIN_FILLS = (("ordinary", "ordinary", False), *plans.FILLS, plans.EXACT)


def _pick(draw: Any, options: Sequence[T]) -> T:
    index: int = draw(st.integers(0, len(options) - 1))
    return options[index]


@st.composite
def scenarios(draw: Any, target: Claimed, salt: int) -> tuple[Case, ...]:
    """``CALLS`` cases on one pair of shapes, dtypes and layouts, all within the target's claims."""
    x_shape, y_shape = _shapes(draw, target)
    x_dtype, y_dtype = _dtypes(draw, target)
    layouts = ("contiguous", "contiguous")
    if draw(st.booleans()):
        layouts = (_pick(draw, OPERAND_LAYOUTS), _pick(draw, OPERAND_LAYOUTS))
    kinks = plans.KINK_FILLS if target.specification.formula.has_kinks() else ()
    fills = _pick(draw, (*PLAIN_FILLS, *kinks))
    entropy = plans.derive(salt, draw(st.integers(0, 29)), draw(st.integers(0, 29)))
    table: tuple[int, ...] = ()
    if not draw(st.integers(0, 3)):
        table = tuple(draw(st.lists(st.integers(0, len(TABLE) - 1), min_size=1, max_size=6)))
    base = Case(
        Operand(x_shape, x_dtype, layouts[0], Fill(fills[0], entropy)),
        Operand(y_shape, y_dtype, layouts[1], Fill(fills[1], entropy if fills[2] else entropy + 1)),
    )
    if table:
        base = base.replace(input=base.input.replace(fill=Fill("table", 0, table)))
    found: list[Case] = []
    for k in range(CALLS):
        found += plans.within(target, _call(target, base, entropy, k))
    return tuple(found)


def _call(target: Claimed, base: Case, entropy: int, k: int) -> Case:
    """The k-th call: reductions go round, then come new contents; the rest follows from a hash."""
    turn, which = divmod(k, len(target.reductions))
    if turn:
        base = _renewed(base, plans.derive(entropy, "contents", turn))
    bits = plans.derive(entropy, "call", k)
    case = plans.with_reduction(base, target.reductions[which])
    if bits & 1:
        case = plans.with_grad_output(case, *_at(plans.GRAD_OUTPUTS, bits >> 1))
        fill = Fill(case.grad_output.fill.regime, entropy + turn)
        case = case.replace(grad_output=case.grad_output.replace(fill=fill))
    needs = _at(plans.NEEDS, bits >> 9) if bits >> 8 & 1 else (True, True)
    case = plans.with_needs(case, *needs)
    if plans.parameters(target) and bits >> 25 & 1:
        case = case.replace(parameters=(_at(plans.parameters(target), bits >> 26),))
    if not bits >> 13 & 7:
        case = case.replace(mode=_at(plans.MODES, bits >> 16))
    return case if bits >> 20 & 31 else plans.same_tensor(case)


def _renewed(base: Case, entropy: int) -> Case:
    """Other elements for the same shapes: ordinary ones half of the time."""
    fills = _at(PLAIN_FILLS, entropy >> 1) if entropy & 1 else PLAIN_FILLS[0]
    return plans.with_fills(plans.reseeded(base, entropy), *fills)


def _at(options: Sequence[T], bits: int) -> T:
    return options[bits % len(options)]


def _shapes(draw: Any, target: Claimed) -> tuple[tuple[int, ...], tuple[int, ...]]:
    dims = _pick(draw, RANKS)
    if dims <= 1:
        shape: tuple[int, ...] = (_pick(draw, LINES),) if dims else ()
    else:
        long = 1 < dims < 5 and not draw(st.integers(0, 7))  # one line among few
        sizes = SIZES[:3] if long else SIZES_OF.get(dims, SIZES[:4])
        shape = tuple(_pick(draw, sizes) for _ in range(dims))
        if long:
            where = draw(st.integers(0, dims - 1))
            shape = (*shape[:where], _pick(draw, LINES), *shape[where + 1 :])
    if "empty" in target.claims and dims and not draw(st.integers(0, 15)):
        where = draw(st.integers(0, dims - 1))
        shape = (*shape[:where], 0, *shape[where + 1 :])
    if "broadcast" not in target.claims or not draw(st.booleans()):
        return shape, shape
    one, other = (_stretched(draw, shape) for _ in range(2))
    return one, other


def _stretched(draw: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape`` or to less: leading dimensions cut, others set to 1."""
    cut = draw(st.integers(0, len(shape)))
    kept = shape[cut:] if cut < 3 else shape
    return tuple(1 if not draw(st.integers(0, 2)) else n for n in kept)


def _dtypes(draw: Any, target: Claimed) -> tuple[str, str]:
    x = _pick(draw, target.dtypes)
    if "mixed_dtype" not in target.claims or draw(st.integers(0, 3)):
        return x, x
    others = (*target.dtypes, *INTEGER_DTYPES)
    y = _pick(draw, others)
    return (x, y) if draw(st.booleans()) else (y, x)
