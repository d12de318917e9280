"""Arrays of intervals with outward rounding: formulas run on them give permitted sets.

An :class:`Enclosure` holds, for each element, every number that an implementation may hold which
performs the same steps in the format *or wider*: a finite interval, and flags for NaN, +inf and
-inf. Exponents are unbounded inside: a step that may overflow the format raises a flag and keeps
its interval, because an implementation with a wider format does not overflow there. The last step,
:meth:`Enclosure.rounded`, returns to the format.

Finite ends are float64 arrays. The three narrow formats fit into them with room to spare (products
of two are exact, no step leaves the exponent range). binary64 uses error-free transformations while
no step can over- or underflow, and exact rationals where one could (:func:`needs_rationals`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.formats import BINARY64, Floats, Format, ceil_precision, round_nearest

NAN, NEG_INF, POS_INF, VOID = 1, 2, 4, 8  # flags; VOID: no finite value is possible
Flags = NDArray[np.uint8]

# binary64 stays in float64 while every operand lies in 2^±SAFE: then a difference, its square and
# any product of three operands keep their rounding errors representable (2^-(3·340+53) > 2^-1074).
SAFE = 340


@dataclass(frozen=True)
class PermittedSet:
    """What an implementation may return: per element an interval, NaN, and the infinities.

    ``lower``, ``upper``: float64 arrays of representable numbers; ``flags``: see the constants.
    """

    lower: Floats
    upper: Floats
    flags: Flags | None

    def contains(self, observed: Floats) -> NDArray[np.bool_]:
        """For each element of ``observed`` (float64, same shape), whether it is permitted."""
        inside: NDArray[np.bool_] = (observed >= self.lower) & (observed <= self.upper)
        if self.flags is None:
            return inside
        permitted = (
            (inside & (self.flags & VOID == 0))
            | (np.isnan(observed) & (self.flags & NAN != 0))
            | ((observed == np.inf) & (self.flags & POS_INF != 0))
            | ((observed == -np.inf) & (self.flags & NEG_INF != 0))
        )
        return np.asarray(permitted, dtype=bool)

    def share(self, observed: Floats) -> Floats:
        """The distance from the middle as a share of the permitted distance; 0 for a point.

        At most 1 inside, above 1 outside; elements that are not finite count 0.
        """
        with np.errstate(all="ignore"):
            below, above = observed - self.lower, self.upper - observed
            ratio: Floats = np.abs(below - above) / (self.upper - self.lower)
        return np.where(np.isfinite(ratio), ratio, 0.0)


@dataclass(frozen=True, eq=False)
class Guard:
    """What a comparison may be, for each element: ``certain`` to hold, or at least ``possible``."""

    certain: NDArray[np.bool_]
    possible: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Enclosure:
    """An array of intervals ``[-ends[0], ends[1]]``.

    The lower ends are stored negated, so that rounding outward is rounding *up* on both.

    ``ends``: shape ``(2, *shape)``, float64, or object (:class:`~fractions.Fraction`).
    ``flags``: shape ``shape``, or None where every element is finite.
    ``terms``: how many numbers were added to make it, ``kept``: the format of these numbers, where
    it is a sum; a quotient makes allowances for both (see ``/``).
    ``loose``: where some are sums in which no addition rounds, the ends that all would have if they
    did: a quotient takes these.
    """

    fmt: Format
    ends: NDArray[Any]
    flags: Flags | None = None
    terms: int = 1
    kept: Format | None = None
    loose: Floats | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.ends.shape[1:]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def exact(self) -> bool:
        """Whether the ends are rationals."""
        return bool(self.ends.dtype.hasobject)

    # -- elementwise steps, each rounded outward to the format -------------------------------

    def __sub__(self, other: Enclosure) -> Enclosure:
        a, b = self._align(other)
        b = b[::-1]  # -(x - y) = -x + y pairs the ends crosswise
        if self.exact:
            ends = a + b
        else:
            total = a + b
            rest = total - a
            ends = _above(total, (a - (total - rest)) + (b - rest))
        return self._step(ends, _combined(self, other, _SUBTRACT))

    def __mul__(self, other: Enclosure) -> Enclosure:
        a, b = self._align(other)
        # The four products of ends: lo·lo and hi·hi, then lo·hi and hi·lo.
        down, up = self._products(a, b)
        down_mixed, up_mixed = self._products(a, -b[::-1])
        low, high = np.minimum(down, down_mixed), np.maximum(up, up_mixed)
        ends = np.empty_like(high)
        ends[0], ends[1] = -np.minimum(low[0], low[1]), np.maximum(high[0], high[1])
        return self._step(ends, _combined(self, other, _MULTIPLY))

    def __rmul__(self, two: int) -> Enclosure:
        """2·d, which is exact unless it overflows."""
        if two != 2:
            raise NotImplementedError(f"only 2·d is exact, not {two}·d")
        return self._step(self.ends + self.ends, self.flags)

    def __pow__(self, two: int) -> Enclosure:
        """d², that is d·d of one and the same d: never negative."""
        if two != 2:
            raise NotImplementedError(f"d**{two}")
        ends = np.empty_like(self.ends)  # the magnitudes of the nearest and the farthest number
        ends[0] = np.maximum(-np.minimum(self.ends[0], self.ends[1]), 0)
        ends[1] = np.maximum(self.ends[0], self.ends[1])
        down, up = self._products(ends, ends)
        ends[0], ends[1] = -down[0], up[1]
        return self._step(ends, _squared_flags(self))

    def __abs__(self) -> Enclosure:
        """|d|, which is exact."""
        ends = np.empty_like(self.ends)  # the magnitudes of the nearest and the farthest number
        ends[0] = np.minimum(np.minimum(self.ends[0], self.ends[1]), 0)
        ends[1] = np.maximum(self.ends[0], self.ends[1])
        return Enclosure(self.fmt, ends, _squared_flags(self), self.terms)

    def __add__(self, other: Enclosure) -> Enclosure:
        return self - (-other)

    def __le__(self, other: Enclosure) -> Guard:
        """A comparison, which NaN fails, as it does all; ``other`` is finite."""
        a, b = self._align(other)
        certain = np.asarray(a[1] + b[0] <= 0, dtype=bool)
        possible = np.asarray(a[0] + b[1] >= 0, dtype=bool)
        if self.flags is None:
            return Guard(certain, possible)
        never = self.flags & (VOID | NEG_INF) == VOID
        return Guard(certain & (self.flags & ~np.uint8(NEG_INF) == 0), possible & ~never)

    def __truediv__(self, n: Any) -> Enclosure:
        """The quotient by the positive number ``n``, or by an array of them (not of rationals); or
        by a positive constant, which may be rounded or not.

        A sum may have been rounded to the format of its terms before (it must not overflow there).
        An implementation may divide partial sums instead of their sum; each then may underflow, so
        a sum of k > 1 terms is allowed an error of k·η; and where the sum is exact, its parts, once
        scaled, are not.
        """
        if isinstance(n, Enclosure):
            quotients: tuple[Enclosure, Enclosure] = self / -n.ends[0], self / n.ends[1]
            return quotients[0].hull(quotients[1])
        dividend: NDArray[Any] = self.ends if self.loose is None else self.loose
        if self.kept is not None:
            dividend = ceil_precision(dividend, self.kept)
        if self.exact:
            ends: NDArray[Any] = dividend / Fraction(n)
        else:
            ends = dividend / n
            # q·n against the dividend tells on which side of the true quotient q lies.
            product = ends * n
            rest = (dividend - product) - _product_error(ends, np.asarray(n, np.float64), product)
            ends = _above(ends, rest)
        result = self._step(ends, self.flags)
        if self.terms == 1:
            return result
        slack = _number(self.terms, self.exact) * _number(self.fmt.eta, self.exact)
        return Enclosure(self.fmt, _same_side(result.ends, result.ends + slack), result.flags)

    # -- sums --------------------------------------------------------------------------------

    def sum(self, axis: tuple[int, ...] | None = None) -> Enclosure:
        """The sum over ``axis`` (all if None) in any order of permitted depth, unrounded.

        Where an addition can round, widened by γ_h relative to the sum of magnitudes, in the
        accumulator's unit roundoff; each further axis may be summed, and rounded to the format, by
        itself.
        """
        axes = tuple(range(len(self.shape))) if axis is None else axis
        n = math.prod(self.shape[k] for k in axes)
        left = tuple(size for k, size in enumerate(self.shape) if k not in axes)
        acc = self.fmt.accumulator
        if not axes:
            return Enclosure(acc, self.ends, self.flags)
        order = (*(k for k in range(len(self.shape)) if k not in axes), *axes)
        # Contiguous, so that the order in which NumPy adds does not depend on what lies beside.
        rows = np.ascontiguousarray(self.ends.transpose(0, *(k + 1 for k in order)))
        rows = rows.reshape(2, *left, n)
        flags = None
        if self.flags is not None:
            flags = _summed_flags(self.flags.transpose(order).reshape(*left, n))
        if n <= 1:
            ends = rows[..., 0] if n else np.zeros((2, *left))
            if self.exact and not n:
                ends = np.full(ends.shape, Fraction(0), dtype=object)
            return Enclosure(acc, ends, flags)
        rounds = 0 if axis is None else len([k for k in axes if self.shape[k] > 1]) - 1
        unrounded = _adds_exactly(rows, acc if rounds <= 0 else self.fmt)
        widening = gamma(depth(n, acc.u), acc.u) + max(rounds, 0) * 2 * self.fmt.u
        magnitude = np.maximum(rows[0], rows[1])
        if self.exact:
            total = rows.sum(axis=-1)
            ends = total + magnitude.sum(axis=-1) * Fraction(widening)
        else:
            total, error = _exact_sum(rows) if self.fmt is BINARY64 else _plain_sum(rows)
            bound = magnitude.sum(axis=-1) * (1 + n * 2.0**-52)
            ends = np.nextafter(total + (error + bound * widening), np.inf)
        # A partial sum is at most the sum of the terms of one sign.
        parts = np.maximum(rows, 0).sum(axis=-1)
        ends = np.where(parts == 0, np.minimum(ends, 0), ends)  # no slack leads past zero
        kept = None if self.fmt is acc else self.fmt
        if unrounded is None:
            return Enclosure(acc, ends, _sum_overflow(parts, widening, acc, flags), n, kept)
        tight = np.where(unrounded, rows.sum(axis=-1), ends)
        flags = _sum_overflow(parts, np.where(unrounded, 0.0, widening), acc, flags)
        return Enclosure(acc, tight, flags, n, kept, ends)

    # -- conversions -------------------------------------------------------------------------

    def to(self, fmt: Format) -> Enclosure:
        """Rounded outward to ``fmt``, exponents still unbounded."""
        return Enclosure(fmt, self.ends)._step(self.ends, self.flags)

    def cast(self, fmt: Format) -> Enclosure:
        """Rounded outward to ``fmt``, whole or in halves; they differ where these are subnormal.

        Two paths may lead to an operand, each with its own cast.
        """
        half = Enclosure(self.fmt, self.ends * _number(0.5, self.exact), self.flags)
        return 2 * half.to(fmt)

    def reshape(self, shape: tuple[int, ...]) -> Enclosure:
        flags = None if self.flags is None else self.flags.reshape(shape)
        return Enclosure(self.fmt, self.ends.reshape(2, *shape), flags, self.terms)

    def __getitem__(self, part: slice | NDArray[np.intp]) -> Enclosure:
        """Some elements of a one-dimensional enclosure."""
        flags = None if self.flags is None else self.flags[part]
        if flags is not None and not flags.any():
            flags = None
        return Enclosure(self.fmt, self.ends[:, part], flags, self.terms)

    def broadcast_to(self, shape: tuple[int, ...]) -> Enclosure:
        shaped = self.ends.reshape(2, *(1,) * (len(shape) - len(self.shape)), *self.shape)
        flags = None if self.flags is None else np.broadcast_to(self.flags, shape)
        return Enclosure(self.fmt, np.broadcast_to(shaped, (2, *shape)), flags)

    def __neg__(self) -> Enclosure:
        if self.flags is None:
            return Enclosure(self.fmt, self.ends[::-1], None, self.terms)
        same, up, down = (self.flags & bits for bits in (NAN | VOID, POS_INF, NEG_INF))
        flags: Flags = np.asarray(same | up >> 1 | down << 1, dtype=np.uint8)
        return Enclosure(self.fmt, self.ends[::-1], flags, self.terms)

    def hull(self, other: Enclosure) -> Enclosure:
        """The smallest enclosure that holds both."""
        a, b = self._align(other)
        if self.flags is None and other.flags is None:
            return Enclosure(self.fmt, np.maximum(a, b))
        ends = np.maximum(a, b)
        f, g = (np.broadcast_to(e._flags(), ends.shape[1:]) for e in (self, other))
        ends = np.where(f & VOID != 0, b, np.where(g & VOID != 0, a, ends))
        flags = (f | g) & ~np.uint8(VOID) | (f & g & VOID)
        return Enclosure(self.fmt, ends, np.asarray(flags, dtype=np.uint8))

    def rounded(self, fmt: Format) -> PermittedSet:
        """The permitted set: rounded outward to ``fmt``; beyond Ω + ½ulp only infinities remain."""
        if not self.exact and np.abs(self.ends).max(initial=0.0) <= fmt.omega:
            ends, flags = ceil_precision(self.ends, fmt), self.flags
        else:
            ends, flags = self._clipped(fmt)
        return PermittedSet(0.0 - ends[0], ends[1], flags)  # 0.0 rather than -0.0

    # -- the parts ---------------------------------------------------------------------------

    def _flags(self) -> Flags:
        return np.zeros(self.shape, np.uint8) if self.flags is None else self.flags

    def _align(self, other: Enclosure) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both arrays of ends with as many dimensions, so that they broadcast."""
        a, b = self.ends, other.ends
        if a.ndim < b.ndim:
            a = a.reshape(2, *(1,) * (b.ndim - a.ndim), *self.shape)
        elif b.ndim < a.ndim:
            b = b.reshape(2, *(1,) * (a.ndim - b.ndim), *other.shape)
        return a, b

    def _products(self, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """a·b, rounded down and rounded up where float64 does not hold it."""
        product = a * b
        if self.fmt is not BINARY64 or self.exact:
            return product, product
        rest = _product_error(a, b, product)
        return -_above(-product, -rest), _above(product, rest)

    def _clipped(self, fmt: Format) -> tuple[NDArray[Any], Flags | None]:
        """Ends and flags in ``fmt``, where some end may be beyond its range."""
        wide = self.to(fmt)
        if wide.exact:
            clipped = [_clip_fraction(v, fmt) for v in wide.ends.ravel()]
            ends = np.array(clipped, dtype=np.float64).reshape(wide.ends.shape)
            if _moderate(self.ends, fmt):
                return ends, wide.flags
        else:
            ends = np.clip(wide.ends, -fmt.omega, fmt.omega)
        limit = _overflow_threshold(fmt, wide.exact)
        gone = np.asarray((self.ends[0] <= -limit) | (self.ends[1] <= -limit), dtype=bool)
        if not gone.any():
            return ends, wide.flags
        return ends, wide._flags() | np.where(gone, np.uint8(VOID), np.uint8(0))

    def _step(self, ends: NDArray[Any], flags: Flags | None) -> Enclosure:
        """Finish one operation: round the ends up in the format and flag a possible overflow."""
        fmt = self.fmt
        if self.exact:
            up = _objects([_fraction_up(v, fmt) for v in ends.ravel()], ends.shape)
        elif fmt is BINARY64:  # already rounded up, and in the safe range
            return Enclosure(fmt, ends, flags)
        else:
            up = ceil_precision(ends, fmt)
        if self.exact and _moderate(ends, fmt):
            return Enclosure(fmt, up, flags)
        over = np.asarray(ends >= _overflow_threshold(fmt, self.exact), dtype=bool)
        if np.count_nonzero(over):
            flags = _with_infinities(flags, over)
        return Enclosure(fmt, up, flags)


def depth(n: int, u: float) -> float:
    """h(n), the permitted depth of a sum of n terms in an accumulator of unit roundoff ``u``.

    Serial runs of 4,096 terms, combined in a tree; in binary64 of any length, so any order of all.
    Up to 2²⁶ terms a lost one still shows there: it is 1/n of equal ones, and γ_h about half of it.
    """
    if n <= 1:
        return 0.0
    run = n - 1 if u <= BINARY64.u else min(n - 1, 4096)
    return run + 2 * math.ceil(math.log2(n)) + n / 2**20


def gamma(h: float, u: float) -> float:
    """γ_h = h·u/(1 − h·u) (Higham, Accuracy and Stability of Numerical Algorithms, 3.1)."""
    return h * u / (1 - h * u)


def enclose(fmt: Format, *operands: Floats) -> list[Enclosure]:
    """All operands of one evaluation in ``fmt``, with the carrier that they need."""
    exact = needs_rationals(fmt, *operands)
    return [enclosed(fmt, a, exact) for a in operands]


def needs_rationals(fmt: Format, *operands: Floats) -> bool:
    """Whether an evaluation on these could over- or underflow in binary64."""
    return fmt is BINARY64 and not all(_is_safe(a) for a in operands)


def enclosed(fmt: Format, a: Floats, exact: bool) -> Enclosure:
    """An operand in ``fmt``: for each element, the hull of itself and its nearest-rounded value.

    An element that the format holds becomes a point. ``exact``: carried by rationals.
    """
    near, flags = round_nearest(a, fmt), None
    finite = np.isfinite(near)
    if np.count_nonzero(finite) != near.size:
        flags = np.select(
            [np.isnan(near), near == np.inf, near == -np.inf],
            [np.uint8(NAN | VOID), np.uint8(POS_INF | VOID), np.uint8(NEG_INF | VOID)],
            np.uint8(0),
        )
        near = np.where(finite, near, 0.0)
        a = np.where(finite, a, 0.0)
    if exact:
        both = np.stack([-near, near])
        ends = _objects([Fraction(v) for v in both.ravel().tolist()], both.shape)
    else:
        ends = np.empty((2, *a.shape))
        ends[0], ends[1] = np.maximum(-near, -a), np.maximum(near, a)
    return Enclosure(fmt, ends, flags)


def concatenate(parts: list[Enclosure]) -> Enclosure:
    """One-dimensional enclosures of one format, end to end."""
    flags = None
    if any(e.flags is not None for e in parts):
        flags = np.concatenate([e._flags() for e in parts])
    return Enclosure(parts[0].fmt, np.concatenate([e.ends for e in parts], axis=1), flags)


def constant(fmt: Format, value: float, exact: bool) -> Enclosure:
    """A number that ``fmt`` may not hold: it may be rounded or not. 0-dimensional."""
    return enclosed(fmt, np.asarray(value, np.float64), exact)


@functools.lru_cache(maxsize=256)
def ratio(fmt: Format, p: int, q: int, exact: bool = False) -> Enclosure:
    """The constant p/q, rounded outward to ``fmt``: a 0-dimensional enclosure."""
    number: Any = Fraction(p) if exact else float(p)
    point = np.array([-number, number], dtype=object if exact else np.float64)
    return Enclosure(fmt, point) / q


def ratios(fmt: Format, p: int, q: NDArray[Any], exact: bool = False) -> Enclosure:
    """The same for each of ``q``; never of rationals."""
    point = np.array([[-float(p)], [float(p)]])
    return Enclosure(fmt, point) / q


def _objects(values: list[Fraction], shape: tuple[int, ...]) -> NDArray[Any]:
    """An object array; ``np.array`` would look into 0-d ones."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _is_safe(a: Floats) -> bool:
    magnitude = np.abs(a)
    safe = (magnitude >= 2.0**-SAFE) & (magnitude <= 2.0**SAFE)
    if np.count_nonzero(safe) == a.size:
        return True
    return bool((safe | (magnitude == 0) | ~np.isfinite(a)).all())


def _number(value: float, exact: bool) -> Any:
    return Fraction(value) if exact else float(value)


def _overflow_threshold(fmt: Format, exact: bool) -> Any:
    """Ω + ½ulp(Ω), from which on rounding to nearest overflows; binary64 in float64 never does."""
    if fmt is BINARY64:
        return Fraction(2) ** 1024 - Fraction(2) ** 970 if exact else np.inf
    return fmt.threshold


def _above(v: Floats, rest: Floats) -> Floats:
    """The least float64 >= v + rest, where ``rest`` is the rounding error of v."""
    inexact = rest > 0
    return np.where(inexact, np.nextafter(v, np.inf), v) if np.count_nonzero(inexact) else v


def _same_side(ends: NDArray[Any], wider: NDArray[Any]) -> NDArray[Any]:
    """``wider``, but an end that bounds one sign goes on doing so: no slack leads past zero."""
    return np.where(ends <= 0, np.minimum(wider, 0), wider)


def _product_error(a: Floats, b: Floats, product: Floats) -> Floats:
    """a·b − product exactly (Dekker 1971, Veltkamp's splitting), away from over- and underflow."""
    c, d = 134217729.0 * a, 134217729.0 * b
    a1, b1 = c - (c - a), d - (d - b)
    a2, b2 = a - a1, b - b1
    error: Floats = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
    return error


def _adds_exactly(rows: NDArray[Any], fmt: Format) -> NDArray[np.bool_] | None:
    """For each sum over the last axis, whether no addition in ``fmt`` rounds, in whatever order.

    That is so where every term is a multiple of a power of two q >= η and their magnitudes add up
    to less than 2^p·q: each partial sum is then such a multiple as well, and a number of ``fmt``.
    The least q for the sum of the magnitudes will do. That sum is exact below 2^p·q, and does not
    seem less if it is not, since rounding is monotonic. None: it is so of none. Rationals, which
    hold extreme numbers, are left out; and what was rounded is seldom a point, so a look at the
    first terms tells most of the others.
    """
    if rows.dtype.hasobject:
        return None
    for some in (rows[..., :8], rows):
        points = (some[0] == -some[1]).all(axis=-1)
        if not points.any():
            return None
    exponent = np.frexp(np.abs(rows[1]).sum(axis=-1))[1] - fmt.precision
    q = np.maximum(np.ldexp(1.0, exponent), fmt.eta)[..., None]
    multiples = np.rint(rows[1] / q) * q == rows[1]
    return np.asarray(points & multiples.all(axis=-1))


def _plain_sum(rows: Floats) -> tuple[Floats, Floats]:
    """The float64 sum over the last axis, and a bound on its error in any order."""
    n = rows.shape[-1]
    magnitude = np.abs(rows).sum(axis=-1)
    return rows.sum(axis=-1), magnitude * (n * 2.0**-52)


def _exact_sum(rows: Floats) -> tuple[Floats, Floats]:
    """The sum over the last axis as total + error, by a tree of two-sums.

    The error terms themselves are added in float64; what that loses, relative to them, is bounded
    and added to the result, which is thus an upper bound to within 2^-100 of the magnitudes.
    """
    v = rows
    error = np.zeros(rows.shape[:-1])
    magnitude = np.zeros(rows.shape[:-1])
    n = rows.shape[-1]
    while v.shape[-1] > 1:
        half = v.shape[-1] // 2
        a, b, odd = v[..., :half], v[..., half : 2 * half], v[..., 2 * half :]
        total = a + b
        rest = total - a
        lost = (a - (total - rest)) + (b - rest)
        error = error + lost.sum(axis=-1)
        magnitude = magnitude + np.abs(lost).sum(axis=-1)
        v = np.concatenate([total, odd], axis=-1) if odd.shape[-1] else total
    return v[..., 0], error + magnitude * (n * 2.0**-51)


def _fraction_up(v: Fraction, fmt: Format) -> Fraction:
    """The least number with fmt's precision and spacing, but any exponent, that is >= v."""
    p, q = v.numerator, v.denominator
    if (
        p.bit_length() <= fmt.precision
        and q <= 1 << fmt.precision - 1 - fmt.emin
        and not q & (q - 1)
    ):
        return v  # it has the precision and the spacing
    exponent = p.bit_length() - q.bit_length()  # floor(log2 |v|), or one more
    if abs(p) << max(-exponent, 0) < q << max(exponent, 0):
        exponent -= 1
    k = max(exponent, fmt.emin) - fmt.precision + 1
    if k >= 0:
        return Fraction(-(-p // (q << k)) << k)
    return Fraction(-(-(p << -k) // q), 1 << -k)


def _moderate(ends: NDArray[Any], fmt: Format) -> bool:
    """Whether the magnitudes of rationals are below 2^emax, by counting bits: most are."""
    return all(
        v.numerator.bit_length() - v.denominator.bit_length() < fmt.emax for v in ends.ravel()
    )


def _clip_fraction(v: Fraction, fmt: Format) -> float:
    """``v``, which ``fmt`` holds but for its range, within that range."""
    try:
        return min(max(float(v), -fmt.omega), fmt.omega)
    except OverflowError:
        return fmt.omega if v > 0 else -fmt.omega


# -- NaN and infinities: IEEE 754 on the classes of numbers ------------------------------------

# An element's class set, as six bits: which of these it may be.
_REPRESENTATIVES = np.array([np.nan, -np.inf, np.inf, -1.0, 0.0, 1.0])
_NEGATIVE, _ZERO, _POSITIVE = 8, 16, 32


def _class_table(operation: np.ufunc) -> Flags:
    """For each pair of class sets, the flags that ``operation`` can give."""
    with np.errstate(all="ignore"):
        results = operation(_REPRESENTATIVES[:, None], _REPRESENTATIVES[None, :])
    outcome = np.select(
        [np.isnan(results), results == -np.inf, results == np.inf], [NAN, NEG_INF, POS_INF], 0
    )
    void = np.array([[int(max(i, j) >= 3 and min(i, j) >= 3) for j in range(6)] for i in range(6)])
    table = np.zeros((64, 64), np.uint8)
    finite = np.zeros((64, 64), bool)
    members = (np.arange(64)[:, None] >> np.arange(6)) & 1 == 1
    for i in range(6):
        for j in range(6):
            both = members[:, i][:, None] & members[:, j][None, :]
            table |= np.where(both, outcome[i, j], 0).astype(np.uint8)
            finite |= both & bool(void[i, j])
    table[~finite] |= VOID
    return table


_SUBTRACT = _class_table(np.subtract)
_MULTIPLY = _class_table(np.multiply)


def _classes(e: Enclosure) -> NDArray[np.uint8]:
    lower, upper = -e.ends[0], e.ends[1]
    finite = (
        np.where(lower < 0, _NEGATIVE, 0)
        | np.where((lower <= 0) & (upper >= 0), _ZERO, 0)
        | np.where(upper > 0, _POSITIVE, 0)
    )
    flags = e._flags()
    classes: NDArray[np.uint8] = ((flags & 7) | np.where(flags & VOID != 0, 0, finite)).astype(
        np.uint8
    )
    return classes


def _combined(a: Enclosure, b: Enclosure, table: Flags) -> Flags | None:
    if a.flags is None and b.flags is None:
        return None
    return np.asarray(table[_classes(a), _classes(b)])


def _squared_flags(e: Enclosure) -> Flags | None:
    if e.flags is None:
        return None
    infinite = e.flags & (POS_INF | NEG_INF) != 0
    squared = (e.flags & (NAN | VOID)) | np.where(infinite, POS_INF, 0)
    return np.asarray(squared, dtype=np.uint8)


def _summed_flags(flags: Flags) -> Flags:
    """Flags of a sum over the last axis: both infinities together make a NaN.

    Where a NaN or both infinities are certain, nothing but NaN is left.
    """
    total = np.bitwise_or.reduce(flags, axis=-1, initial=0)
    both = total & (POS_INF | NEG_INF) == POS_INF | NEG_INF
    total = np.asarray(total | np.where(both, NAN, 0).astype(np.uint8))
    nan, up, down = ((flags == bit | VOID).any(axis=-1) for bit in (NAN, POS_INF, NEG_INF))
    return np.where(nan | (up & down), np.uint8(NAN | VOID), total)


def _sum_overflow(
    parts: NDArray[Any], widening: float | Floats, acc: Format, flags: Flags | None
) -> Flags | None:
    """Flag what a sum may do when a partial sum passes the accumulator's range.

    ``parts``: bounds of the partial sums' magnitudes, below and above zero.
    """
    exact = parts.dtype.hasobject
    if acc is BINARY64 and not exact:
        return flags  # the safe range cannot overflow
    factor: Any = 1 + widening
    if exact:
        factor = Fraction(factor)
    over = np.asarray(parts * factor >= _overflow_threshold(acc, exact), dtype=bool)
    if not over.any():
        return flags
    result = _with_infinities(flags, over)
    both = (over[0] | (result & NEG_INF != 0)) & (over[1] | (result & POS_INF != 0))
    return np.asarray(result | np.where(both, NAN, 0).astype(np.uint8))


def _with_infinities(flags: Flags | None, over: NDArray[np.bool_]) -> Flags:
    """``flags`` with the infinity of each end that is ``over`` the range, where it is finite."""
    old = np.zeros(over.shape[1:], np.uint8) if flags is None else flags
    infinities = np.where(over[0], NEG_INF, 0) | np.where(over[1], POS_INF, 0)
    return np.asarray(old | np.where(old & VOID == 0, infinities, 0).astype(np.uint8))
