"""The elements of operands: regimes of telling values, filled from a seed with NumPy.

Each regime is a function of the random bits and the format. Values are float64 arrays; rounding to
the operand's dtype is part of making it, so what a regime gives is what the target sees.
The bits come from ``PCG64.random_raw``, whose stream NumPy guarantees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conformance.cases.case import Operand
from conformance.cases.layouts import OVERLAPPING, Placement, place
from reference.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    BINARY64,
    Floats,
    Format,
    round_nearest,
)

FORMAT_OF = {
    "float64": BINARY64,
    "float32": BINARY32,
    "float16": BINARY16,
    "bfloat16": BFLOAT16,
}
MODERATE = 300  # exponents of binary64 for which the oracle needs no rationals
FEW, MANY = 2**12, 2**17  # elements: the larger operands are, the fewer are remembered
INTEGER_GUARD = {  # in gaps and guards
    "int64": 4100,
    "int32": 4100,
    "int16": 4100,
    "int8": 127,
    "uint8": 255,
    "bool": 1,
}


@dataclass(frozen=True)
class Bits:
    """Random numbers of one operand: uniform float64 in [0, 1), and small integers."""

    generator: np.random.PCG64
    n: int

    def uniform(self) -> Floats:
        return np.asarray(self.generator.random_raw(self.n) >> np.uint64(11)) * 2.0**-53

    def below(self, stop: int) -> NDArray[np.int64]:
        return (self.uniform() * stop).astype(np.int64)

    def sign(self) -> Floats:
        return np.where(self.below(2) == 0, 1.0, -1.0)

    def scaled(self, low: int, high: int) -> Floats:
        """Random signs and significands, with exponents in low … high."""
        exponent = low + self.below(high - low + 1)
        return np.asarray(self.sign() * np.ldexp(1 + self.uniform(), exponent), np.float64)


Regime = Callable[[Bits, Format], Floats]


def _one(bits: Bits, fmt: Format) -> Floats:
    return np.ones(bits.n)


def _integers(bits: Bits, fmt: Format) -> Floats:
    return (bits.below(17) - 8).astype(np.float64)


def _steps(n: int, fmt: Format) -> int:
    """k, where differences of up to 2k + 1 add n squares up to less than 2^p, if that can be.

    At most 7: then an odd and an even number are no larger than 8, and the square of their
    difference, 225, is a number of every format.
    """
    most = math.isqrt((2**fmt.precision - 1) // max(n, 1))
    return min(max((most - 1) // 2, 0), 7)


def _odd(bits: Bits, fmt: Format) -> Floats:
    """Odd numbers, so small that squares of differences with ``even`` ones add up exactly.

    No such difference is 0: a lost element shows in the sum, and so does one that met another's.
    """
    return np.asarray(bits.sign() * (1 + 2 * bits.below(_steps(bits.n, fmt) // 2 + 1)), np.float64)


def _even(bits: Bits, fmt: Format) -> Floats:
    """Even numbers, as small as ``odd`` asks for."""
    half = (_steps(bits.n, fmt) + 1) // 2
    return np.asarray(2 * (bits.below(2 * half + 1) - half), np.float64)


def _ordinary(bits: Bits, fmt: Format) -> Floats:
    return bits.scaled(-2, 2)


def _small(bits: Bits, fmt: Format) -> Floats:
    """So small that no sum of squares is large."""
    return bits.scaled(-5, -3)


def _constant(bits: Bits, fmt: Format) -> Floats:
    """One awkward significand everywhere: the drift of a running sum has one sign."""
    return np.full(bits.n, 1.1)


def _ramp(bits: Bits, fmt: Format) -> Floats:
    """Coded by position, so that swapped or repeated elements show."""
    return (np.arange(bits.n) % 31 + 1).astype(np.float64) * 0.25


def _near(bits: Bits, fmt: Format) -> Floats:
    """``ordinary`` of the same seed, moved by a few units in the last place: cancellation."""
    base = _ordinary(bits, fmt)
    return base * (1 + (bits.below(9) - 4) * 2 * fmt.u)


def _spread(bits: Bits, fmt: Format) -> Floats:
    """Exponents as wide as squares and their sums allow (in binary64: as the oracle is fast)."""
    half = min(fmt.emax // 2 - 5, MODERATE // 2)
    return bits.scaled(-half, half)


def _spike(bits: Bits, fmt: Format) -> Floats:
    """Small everywhere but for one large element, at a position that the seed chooses."""
    v = bits.scaled(-4, -3)
    if bits.n:
        places = (0, bits.n - 1, bits.n // 2, bits.n - 2, bits.n // 3, bits.n - bits.n % 16 - 1)
        v[places[int(bits.below(len(places))[0])]] = 24.0
    return v


def _last(bits: Bits, fmt: Format) -> Floats:
    """Small everywhere but for the last element."""
    v = bits.scaled(-4, -3)
    v[-1:] = 24.0
    return v


def _uniform(bits: Bits, fmt: Format) -> Floats:
    """As ``torch.rand``."""
    return bits.uniform()


def _normal(bits: Bits, fmt: Format) -> Floats:
    """As ``torch.randn``, near enough: the sum of twelve uniform numbers, with variance 1."""
    return np.asarray(sum(bits.uniform() for _ in range(12)) - 6.0)


def _subnormal(bits: Bits, fmt: Format) -> Floats:
    """All below the smallest normal number."""
    steps = 1 + np.floor(bits.uniform() * 2.0 ** (fmt.precision - 1) * 0.99)
    return bits.sign() * np.where(bits.below(4) == 0, bits.below(8), steps) * fmt.eta


def _underflow(bits: Bits, fmt: Format) -> Floats:
    """Normal numbers whose squares are subnormal or vanish."""
    edge = (fmt.emin - fmt.precision + 1) // 2
    return bits.scaled(edge - 2, edge + fmt.precision // 2)


def _huge(bits: Bits, fmt: Format) -> Floats:
    """Up to Ω: differences and squares overflow."""
    return round_nearest(bits.scaled(fmt.emax - 1, fmt.emax) * 0.99, fmt)


def _square_edge(bits: Bits, fmt: Format) -> Floats:
    """Squares on both sides of Ω."""
    return bits.scaled(fmt.emax // 2 - 1, fmt.emax // 2)


def _total_edge(bits: Bits, fmt: Format) -> Floats:
    """Positive, every square of a difference with ``one`` finite, but not their sum."""
    return (1.25 + 0.125 * bits.uniform()) * 2.0 ** ((fmt.emax - 1) // 2)


def _sum_edge(bits: Bits, fmt: Format) -> Floats:
    """Positive, each finite, but not the sum of a few: for terms that grow as differences do."""
    return np.asarray((1.25 + 0.125 * bits.uniform()) * 2.0 ** (fmt.emax - 2))


# Where the terms of losses in pieces change, at the values of the parameters that are tried.
KINKS = (1.0, 0.5, 3.0, 1.0, 0.1, 2.0**-8, 100.0)


def _kink(bits: Bits, fmt: Format) -> Floats:
    """On a kink, next to it in the format, and on both sides of it; some are 0."""
    first = int(bits.below(len(KINKS))[0]) if bits.n else 0
    kinks = np.resize(np.roll(np.array(KINKS), first), bits.n)
    factors = np.array(
        [1, 1, 1 - 2 * fmt.u, 1 + 2 * fmt.u, 1 - 16 * fmt.u, 1 + 16 * fmt.u, 0.5, 2, 0]
    )
    return np.asarray(bits.sign() * kinks * factors[bits.below(len(factors))], np.float64)


def _nonfinite(bits: Bits, fmt: Format) -> Floats:
    """Ordinary, with NaN and infinities in places."""
    odd = np.array([np.nan, np.inf, -np.inf])[bits.below(3)]
    v = np.where(bits.below(3) == 0, odd, _ordinary(bits, fmt))
    if bits.n:
        v[bits.below(bits.n)[0]] = odd[0]
    return v


def _infinite(bits: Bits, fmt: Format) -> Floats:
    """Ordinary, with one infinity."""
    v = _ordinary(bits, fmt)
    if bits.n:
        v[bits.below(bits.n)[0]] = np.inf
    return v


def _zero(bits: Bits, fmt: Format) -> Floats:
    """Of either sign."""
    return np.copysign(0.0, bits.sign())


def _negative(bits: Bits, fmt: Format) -> Floats:
    return -np.abs(_ordinary(bits, fmt))


def _large(bits: Bits, fmt: Format) -> Floats:
    """Large factors for ``grad_output``, as loss scaling uses them."""
    exponent = min(fmt.emax // 2, MODERATE)
    return bits.scaled(exponent, exponent + 2)


def _tiny(bits: Bits, fmt: Format) -> Floats:
    exponent = max(fmt.emin // 2, -MODERATE)
    return bits.scaled(exponent, exponent + 2)


def _near_one(bits: Bits, fmt: Format) -> Floats:
    """A little more than 1, but more than rounding explains."""
    exponent = fmt.precision // 2 + bits.below(fmt.precision - 3 - fmt.precision // 2)
    return np.asarray(1 + np.ldexp(1.0, -exponent), np.float64)


# In the order in which a shrinking case prefers them.
REGIMES: dict[str, Regime] = {
    "one": _one,
    "ordinary": _ordinary,
    "integers": _integers,
    "odd": _odd,
    "even": _even,
    "zero": _zero,
    "negative": _negative,
    "near_one": _near_one,
    "small": _small,
    "constant": _constant,
    "ramp": _ramp,
    "near": _near,
    "spread": _spread,
    "spike": _spike,
    "last": _last,
    "uniform": _uniform,
    "normal": _normal,
    "large": _large,
    "tiny": _tiny,
    "subnormal": _subnormal,
    "underflow": _underflow,
    "huge": _huge,
    "square_edge": _square_edge,
    "total_edge": _total_edge,
    "sum_edge": _sum_edge,
    "kink": _kink,
    "infinite": _infinite,
    "nonfinite": _nonfinite,
}

# Elements of the regime ``table``: small arrays keep these indices under Hypothesis.
TABLE = (
    0.0,
    1.0,
    -1.0,
    2.0,
    0.5,
    3.0,
    -0.1,
    1.1,
    7.0,
    -2.5,
    100.0,
    1e-3,
    -0.0,
    1 / 3,
    12.25,
    -60.0,
)


def elements(operand: Operand) -> Floats:
    """The operand's elements: read-only float64 of its shape, every value exact in its dtype.

    A layout with overlapping elements makes them equal: the last one written counts.
    """
    if operand.size <= FEW:
        return _few(operand)
    return _many(operand) if operand.size <= MANY else _most(operand)


@functools.lru_cache(maxsize=2048)
def _few(operand: Operand) -> Floats:
    return _elements(operand)


@functools.lru_cache(maxsize=64)
def _many(operand: Operand) -> Floats:
    return _elements(operand)


@functools.lru_cache(maxsize=4)
def _most(operand: Operand) -> Floats:
    return _elements(operand)


def _elements(operand: Operand) -> Floats:
    fill, n = operand.fill, operand.size
    if operand.dtype in INTEGER_GUARD:
        flat = _integers_of(operand.dtype, fill.regime, Bits(np.random.PCG64(fill.seed), n))
    else:
        fmt = FORMAT_OF[operand.dtype]
        if fill.regime == "table":
            flat = np.resize(np.array([TABLE[i] for i in fill.table or (0,)]), n)
        else:
            flat = REGIMES[fill.regime](Bits(np.random.PCG64(fill.seed), n), fmt)
        with np.errstate(all="ignore"):
            flat = round_nearest(flat, fmt)
    result = flat.reshape(operand.shape)
    if operand.layout in OVERLAPPING:
        line = in_buffer(result, operand.layout)[0]
        result = _window(line, place(operand.layout, operand.shape), operand.shape).copy()
    result.flags.writeable = False
    return result


def raw(operand: Operand) -> NDArray[np.uint8]:
    """The bytes of the operand's buffer: its elements in its layout, with guards and gaps."""
    line = in_buffer(elements(operand), operand.layout)[0]
    if operand.dtype in INTEGER_GUARD:
        line = np.nan_to_num(line, nan=float(INTEGER_GUARD[operand.dtype]))
    return encoded(line, operand.dtype)


def encoded(values: Floats, dtype: str) -> NDArray[np.uint8]:
    """The bytes of these numbers in ``dtype``, which holds them."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
        return bits.astype(np.uint16).reshape(-1).view(np.uint8)
    with np.errstate(all="ignore"):
        return values.astype(np.dtype(dtype)).reshape(-1).view(np.uint8)


def in_buffer(values: NDArray[np.float64], layout: str) -> tuple[Floats, tuple[int, ...]]:
    """A buffer of NaN with ``values`` laid into it, and the strides in elements."""
    spot = place(layout, values.shape)
    line = np.full(spot.length, np.nan)
    _window(line, spot, values.shape)[...] = values
    return line, spot.strides


def _window(line: Floats, spot: Placement, shape: tuple[int, ...]) -> Floats:
    """The elements at ``spot`` of a buffer, as a view."""
    return np.ndarray(shape, np.float64, line, 8 * spot.offset, tuple(8 * s for s in spot.strides))


def _integers_of(dtype: str, regime: str, bits: Bits) -> Floats:
    """Small, and now and then one that float16 rounds (and whose square overflows it)."""
    if dtype == "bool":
        return bits.below(2).astype(np.float64)
    small = bits.below(9) if dtype == "uint8" else bits.below(17) - 8
    if regime == "large" and dtype in ("int64", "int32"):  # past 2^24, and past 2^31 where it fits
        wide = bits.scaled(24, 33 if dtype == "int64" else 30).astype(np.int64) | 1
        return wide.astype(np.float64)
    if dtype == "uint8":  # what a signed byte cannot hold
        wide = 128 + bits.below(128)
    elif dtype == "int8":
        wide = np.where(bits.below(2) == 0, 1, -1) * (100 + bits.below(28))
    else:
        wide = np.where(bits.below(2) == 0, 1, -1) * (2049 + bits.below(2048))
    return np.where(bits.below(8) == 0, wide, small).astype(np.float64)
