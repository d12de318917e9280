"""The four floating-point formats as data, and directed rounding into them.

Values of every format are carried in float64 arrays, which hold each of them exactly.
Source of the parameters: IEEE 754-2019, table 3.5; bfloat16 is binary32 with 8 bits of precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_SIGN = np.array(63)  # where the sign lies among the bits of a float64


@dataclass(frozen=True)
class Format:
    """A binary format with ``precision`` significant bits and exponents ``emin … emax``."""

    name: str
    precision: int
    emin: int
    emax: int

    @cached_property
    def u(self) -> float:
        """Unit roundoff, 2^-p."""
        return 2.0**-self.precision

    @cached_property
    def tiny(self) -> float:
        """Smallest normal number, 2^emin."""
        return 2.0**self.emin

    @cached_property
    def eta(self) -> float:
        """η, the smallest subnormal number: the spacing of everything below ``tiny``."""
        return 2.0 ** (self.emin - self.precision + 1)

    @cached_property
    def omega(self) -> float:
        """Ω, the largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax

    @cached_property
    def threshold(self) -> float:
        """Ω + ½ulp(Ω), from which on rounding to nearest overflows; inf for binary64."""
        half_ulp = 2.0 ** (self.emax - self.precision)
        return math.inf if self.precision == 53 else self.omega + half_ulp

    @cached_property
    def low_bits(self) -> NDArray[np.int64]:
        """The bits of a float64 beyond this precision; 0-d, which NumPy adds faster than an int."""
        return np.array((1 << (53 - self.precision)) - 1)

    @cached_property
    def high_bits(self) -> NDArray[np.int64]:
        return np.array(~self.low_bits)

    @cached_property
    def accumulator(self) -> Format:
        """The format that a sum of such numbers is accumulated in: binary32 for the halves."""
        return BINARY32 if self.precision < BINARY32.precision else self


BINARY64 = Format("binary64", 53, -1022, 1023)
BINARY32 = Format("binary32", 24, -126, 127)
BINARY16 = Format("binary16", 11, -14, 15)
BFLOAT16 = Format("bfloat16", 8, -126, 127)
FORMATS = {f.name: f for f in (BINARY64, BINARY32, BINARY16, BFLOAT16)}


def ceil_precision(v: Floats, fmt: Format) -> Floats:
    """The least number with fmt's precision and subnormal spacing, but any exponent, that is >= v.

    ``v``: finite float64 array. Exponents above emax stay: the caller decides about overflow.
    """
    if fmt.precision == 53:
        return v
    bits = v.view(np.int64)
    # Sign and magnitude: adding to the bits of a positive number rounds it up, while cutting the
    # low bits of a negative one (whose ~bits >> 63 are 0) moves it towards zero, which is up too.
    up: Floats = (bits + (~bits >> _SIGN & fmt.low_bits) & fmt.high_bits).view(np.float64)
    subnormal = np.abs(up) < fmt.tiny
    if np.count_nonzero(subnormal):
        up = np.where(subnormal, np.ceil(v / fmt.eta) * fmt.eta, up)
    return up


def round_up(v: ArrayLike, fmt: Format) -> Floats:
    """The least member of ``fmt`` (+inf included) that is >= v, for a float64 array ``v``."""
    a = np.asarray(v, dtype=np.float64)
    finite = np.isfinite(a)
    up = ceil_precision(np.where(finite, a, 0.0), fmt)
    up = np.where(up > fmt.omega, np.inf, np.maximum(up, -fmt.omega))
    return np.where(finite, up, np.where(a == -np.inf, -np.inf, a))


def round_down(v: ArrayLike, fmt: Format) -> Floats:
    """The greatest member of ``fmt`` (-inf included) that is <= v, for a float64 array ``v``."""
    return -round_up(-np.asarray(v, dtype=np.float64), fmt)


def round_nearest(v: ArrayLike, fmt: Format) -> Floats:
    """``v`` rounded to ``fmt`` to nearest, ties to even; beyond Ω + ½ulp(Ω) infinite."""
    a = np.asarray(v, dtype=np.float64)
    if fmt.precision == 53:
        return a
    bits = a.view(np.int64)
    # Half a unit, less one where the last bit that stays is even: only a tie needs it to carry.
    half = (fmt.low_bits >> 1) + (bits >> (53 - fmt.precision) & 1)
    near: Floats = (bits + half & fmt.high_bits).view(np.float64)
    magnitude = np.abs(a)
    regular = (magnitude >= fmt.tiny) & (magnitude < fmt.threshold)
    if np.count_nonzero(regular) != a.size:
        # The sum with 2^52·η is a multiple of η: that is the spacing of float64 there.
        shift = 2.0**52 * fmt.eta
        small = np.where(magnitude < fmt.tiny, magnitude + shift - shift, np.inf)
        rest = np.where(np.isnan(a), a, np.copysign(small, a))
        near = np.where(regular, near, rest)
    return near
