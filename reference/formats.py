"""The four floating-point formats as data, and directed rounding into them.

Values of every format are carried in float64 arrays, which hold each of them exactly.
Source of the parameters: IEEE 754-2019, table 3.5; bfloat16 is binary32 with 8 bits of precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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
    low_bits = np.int64((1 << (53 - fmt.precision)) - 1)
    bits = v.view(np.int64)
    # Sign and magnitude: adding to the bits of a positive number rounds it up, while cutting the
    # low bits of a negative one moves it towards zero, which is up as well.
    up: Floats = (np.where(v > 0, bits + low_bits, bits) & ~low_bits).view(np.float64)
    subnormal = np.abs(v) < fmt.tiny
    if subnormal.any():
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
    finite = np.where(np.isfinite(a), a, 0.0)
    # Scale so that one unit is one ulp of fmt (η below the normal range); rint ties to even.
    exponent = np.maximum(np.frexp(finite)[1] - 1, fmt.emin) - fmt.precision + 1
    near = np.ldexp(np.rint(np.ldexp(finite, -exponent)), exponent)
    near = np.where(np.abs(near) > fmt.omega, np.copysign(np.inf, near), near)
    return np.where(np.isfinite(a), near, a)
