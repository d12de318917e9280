"""What is permitted for many cases at once.

Small cases of one format lie end to end in one array, on which the formulas of the reference run as
on that of a case alone: element by element, and for sums row by row, where the rows of one array
have as many terms each. So a case is permitted the very same numbers, whatever lies beside it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from conformance.cases.case import Case, Operand
from conformance.cases.features import loss_of
from conformance.cases.values import FORMAT_OF, elements
from conformance.judging.oracle import (
    CHUNK,
    grad_output,
    permitted_gradient,
    permitted_value,
)
from reference.enclosure import (
    Enclosure,
    PermittedSet,
    concatenate,
    enclosed,
    needs_rationals,
)
from reference.formats import Floats
from reference.losses.loss import of_nothing
from reference.losses.loss import permitted_gradient as summed_gradient
from reference.reductions import reduced

FIRST = 1  # order of operations: the builtin's, inside which most gradients are
TOGETHER = 2**13  # numbers in one array: its temporaries then stay in the processor's cache
K = TypeVar("K")
Parts = list[PermittedSet]
Places = NDArray[np.intp]


class Look(NamedTuple):
    """What is asked of a case at once, where its result is of ``dtype``.

    ``orders``: of operations, for gradients, as in :func:`permitted_gradient`. A look at the first
    includes the value, which has but one.
    """

    case: Case
    dtype: str
    orders: int | None = FIRST

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what its permitted set holds, end to end."""
        wanted = self.case.differentiated
        return ("value", *wanted) if self.orders == FIRST else wanted


def permitted_sets(looks: Sequence[Look]) -> list[Parts]:
    """For each look the permitted sets of its parts, in their order and flat."""
    found: list[Parts] = [[] for _ in looks]
    for kind, alike in _grouped(map(_kind, looks)).items():
        for run in runs(math.prod(looks[i].case.shape) for i in alike):
            some = [looks[i] for i in alike[run]]
            for i, parts in zip(alike[run], _together(some, kind is not None), strict=True):
                found[i] = parts
    return found


def _kind(look: Look) -> Hashable:
    """What looks agree on that can be one array; None: a look that goes alone, since it is large
    or its result has a form of its own."""
    case = look.case
    if math.prod(case.shape) > CHUNK or case.result is not None:
        return None
    whole = case.shape if look.orders is None else ()  # a mean of means depends on it
    mean = case.reduction == "mean"
    return look.dtype, mean, look.orders, whole, case.loss, case.parameters


def _grouped(keys: Iterable[K]) -> dict[K, list[int]]:
    """The places of each key."""
    groups: dict[K, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return groups


def runs(sizes: Iterable[int]) -> Iterator[slice]:
    """Parts of a sequence with about ``TOGETHER`` numbers each, where its things have ``sizes``."""
    start, total, k = 0, 0, 0
    for k, size in enumerate(sizes, 1):
        total += size
        if total >= TOGETHER:
            yield slice(start, k)
            start, total = k, 0
    if start < k:
        yield slice(start, k)


def _together(looks: list[Look], small: bool) -> Iterable[Parts]:
    """The sets of looks of one kind."""
    if not small:
        return map(_alone, looks)
    fmt, operands = FORMAT_OF[looks[0].dtype], [_operands(look) for look in looks]
    x, y, g = (np.concatenate(column) for column in zip(*operands, strict=True))
    if not needs_rationals(fmt, x, y, g):
        return _EndToEnd(looks, *(enclosed(fmt, a, exact=False) for a in (x, y, g))).parts
    extreme = [needs_rationals(fmt, *three) for three in operands]
    calm = [look for look, alone in zip(looks, extreme, strict=True) if not alone]
    rest = iter(_together(calm, True)) if calm else iter(())
    return [_alone(look) if a else next(rest) for look, a in zip(looks, extreme, strict=True)]


def _operands(look: Look) -> tuple[Floats, Floats, Floats]:
    """Input, target and ``grad_output`` over the broadcast shape, flat."""
    shape, case = look.case.shape, look.case
    g = elements(grad_output(case, look.dtype))
    spread = g.reshape(-1) if g.shape == shape else np.full(math.prod(shape), g)
    return _over(shape, case.input), _over(shape, case.target), spread


def _over(shape: tuple[int, ...], operand: Operand) -> Floats:
    a = elements(operand)
    return (a if a.shape == shape else np.broadcast_to(a, shape)).reshape(-1)


def _alone(look: Look) -> Parts:
    """The same from the oracle."""
    case, dtype = look.case, look.dtype
    return [
        _flat(
            permitted_value(case, dtype)
            if part == "value"
            else permitted_gradient(case, dtype, part, look.orders)
        )
        for part in look.parts
    ]


def _flat(permitted: PermittedSet) -> PermittedSet:
    flags = None if permitted.flags is None else permitted.flags.reshape(-1)
    return PermittedSet(permitted.lower.reshape(-1), permitted.upper.reshape(-1), flags)


class _EndToEnd:
    """Looks of one kind, the elements of all their differences one after the other.

    ``parts``: the sets of each look.
    """

    def __init__(self, looks: list[Look], x: Enclosure, y: Enclosure, g: Enclosure) -> None:
        self.looks, self.d, self.g = looks, x - y, g
        self.loss = loss_of(looks[0].case)
        self.sizes = [math.prod(look.case.shape) for look in looks]
        self.starts = [0, *itertools.accumulate(self.sizes)]
        self.parts: list[Parts] = [[] for _ in looks]
        if looks[0].orders == FIRST:
            self._values()
        if any(look.case.differentiated for look in looks):
            self._gradients()

    def _values(self) -> None:
        terms = self.loss.permitted_terms(self.d)
        ways = [look.case.reduction for look in self.looks]
        sizes = [0 if way == "none" else n for way, n in zip(ways, self.sizes, strict=True)]
        groups = _grouped(zip(ways, sizes, strict=True))
        for i in groups.pop(("mean", 0), []):  # of nothing
            self.parts[i].append(_flat(of_nothing()))
        elementwise = groups.pop(("none", 0), [])
        if elementwise:
            self._deal_elements(terms.rounded(self.d.fmt), elementwise)
        if groups:
            losses = [
                reduced(terms[self._places(alike, np.arange(n))], way, axis=(1,))
                for (way, n), alike in groups.items()
            ]
            owners = [i for alike in groups.values() for i in alike]
            self._deal(concatenate(losses).rounded(self.d.fmt), owners, [1] * len(owners))

    def _gradients(self) -> None:
        first, each = self.looks[0], np.repeat(self.sizes, self.sizes)
        whole, n = (first.case.shape, None) if first.orders is None else (None, each)
        gradient = self.loss.vjp(self.d, self.g, first.case.reduction, whole, first.orders, n)
        self._gradients_of("input", gradient)
        self._gradients_of("target", -gradient)

    def _gradients_of(self, operand: str, gradient: Enclosure) -> None:
        """For each look that wants that of ``operand``."""
        wanted = [i for i, look in enumerate(self.looks) if operand in look.case.differentiated]
        terms = {i: _terms_of(self.looks[i].case, operand) for i in wanted}
        dtypes = [getattr(self.looks[i].case, operand).dtype for i in wanted]
        forms = [terms[i].shape[1:] for i in wanted]
        for (dtype, form), where in _grouped(zip(dtypes, forms, strict=True)).items():
            alike, fmt = [wanted[k] for k in where], FORMAT_OF[dtype]
            if not form:
                permitted = summed_gradient(gradient, gradient.shape, fmt)
                self._deal_elements(permitted, alike)
            else:
                rows = gradient[np.concatenate([self.starts[i] + terms[i] for i in alike])]
                summed = (rows.shape[0], *(1,) * len(form))
                permitted = summed_gradient(rows, summed, fmt)
                self._deal(permitted, alike, [len(terms[i]) for i in alike])

    def _places(self, alike: list[int], within: Places) -> Places:
        """Where what lies ``within`` each of ``alike`` is: a row for each."""
        return np.array([self.starts[i] for i in alike])[:, None] + within

    def _deal(self, permitted: PermittedSet, alike: list[int], counts: list[int]) -> None:
        """To each of ``alike`` so many of what is ``permitted``, in order."""
        flat, ends = _flat(permitted), itertools.accumulate(counts)
        for i, end, count in zip(alike, ends, counts, strict=True):
            self.parts[i].append(_part(flat, end - count, end))

    def _deal_elements(self, permitted: PermittedSet, alike: list[int]) -> None:
        """To each of ``alike`` what its elements are ``permitted``."""
        for i in alike:
            self.parts[i].append(_part(permitted, self.starts[i], self.starts[i + 1]))


_ITSELF: Places = np.arange(0)  # of gradients that nothing is added for


def _terms_of(case: Case, operand: str) -> Places:
    wanted: Operand = getattr(case, operand)
    return _ITSELF if wanted.shape == case.shape else _terms(case.shape, wanted.shape)


@functools.lru_cache(maxsize=1024)
def _terms(wide: tuple[int, ...], narrow: tuple[int, ...]) -> Places:
    """Which elements of ``wide`` are added to make each of ``narrow``: a row for each.

    The row has a dimension for each that is summed over; where none is, each element is itself.
    """
    padded = (*(1,) * (len(wide) - len(narrow)), *narrow)
    axes = [k for k, (n, m) in enumerate(zip(wide, padded, strict=True)) if n != m]
    kept = [k for k in range(len(wide)) if k not in axes]
    places = np.arange(math.prod(wide)).reshape(wide).transpose(*kept, *axes)
    return places.reshape(math.prod(narrow), *(wide[k] for k in axes))


def _part(permitted: PermittedSet, start: int, stop: int) -> PermittedSet:
    flags = None if permitted.flags is None else permitted.flags[start:stop]
    return PermittedSet(permitted.lower[start:stop], permitted.upper[start:stop], flags)


def joined(sets: Sequence[PermittedSet]) -> PermittedSet:
    """One flat set of all, end to end."""
    flags = None
    if any(s.flags is not None for s in sets):
        every = (np.zeros(s.lower.size, np.uint8) if s.flags is None else s.flags for s in sets)
        flags = np.concatenate(list(every))
    lower, upper = np.concatenate([s.lower for s in sets]), np.concatenate([s.upper for s in sets])
    return PermittedSet(lower, upper, flags)
