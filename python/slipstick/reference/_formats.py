"""Numbers taken apart: fields of the formats, and integers as a power of two and a fraction."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Format(NamedTuple):
    """A binary floating-point format: the unsigned type of its bits, the widths of its fields."""

    bits: type[np.unsignedinteger[Any]]
    fraction: int
    exponent: int

    @property
    def all_ones(self) -> int:
        """The exponent field of infinities and NaN."""
        return (1 << self.exponent) - 1

    @property
    def bias(self) -> int:
        """The exponent field of 1.0."""
        return self.all_ones >> 1

    @property
    def one(self) -> int:
        """The pattern of 1.0."""
        return self.bias << self.fraction


FORMATS = {
    "float16": Format(np.uint16, 10, 5),
    "bfloat16": Format(np.uint16, 7, 8),  # ml_dtypes.bfloat16, known by its name alone
    "float32": Format(np.uint32, 23, 8),
    "float64": Format(np.uint64, 52, 11),
}

PRODUCT_DTYPES = {
    "int8": np.int16,
    "int16": np.int32,
    "int32": np.int64,
    "uint8": np.uint16,
    "uint16": np.uint32,
    "uint32": np.uint64,
}


class Fields(NamedTuple):
    """The fields of floating-point numbers, int64 each, and the classes that decide the edges.

    A subnormal number counts as zero.
    """

    sign: Array
    exponent: Array
    fraction: Array
    is_nan: Array
    is_inf: Array
    is_zero: Array


def fields(x: Array, fmt: Format) -> Fields:
    """Take floating-point numbers apart."""
    word = fmt.bits
    bits = x.view(word)
    sign = (bits >> word(fmt.exponent + fmt.fraction)).astype(np.int64)
    exponent = ((bits >> word(fmt.fraction)) & word(fmt.all_ones)).astype(np.int64)
    fraction = (bits & word((1 << fmt.fraction) - 1)).astype(np.int64)
    special = exponent == fmt.all_ones
    return Fields(
        sign,
        exponent,
        fraction,
        special & (fraction != 0),
        special & (fraction == 0),
        exponent == 0,
    )


def assemble(
    dtype: np.dtype[Any],
    fmt: Format,
    sign: Array,
    exponent: Array,
    fraction: Array,
    *,
    nan: Array,
    inf: Array,
    zero: Array,
) -> Array:
    """Fields to numbers: `fraction` carries into or borrows from `exponent`, then the edges.

    The edges in order of precedence: NaN (the positive quiet one), infinity and zero as told, zero
    below the normal range, infinity above the finite one.
    """
    exponent = exponent + (fraction >> fmt.fraction)  # >> floors, so a negative fraction borrows
    fraction = fraction & ((1 << fmt.fraction) - 1)
    zero = zero | (~inf & (exponent < 1))
    inf = inf | (~zero & (exponent >= fmt.all_ones))
    exponent = np.where(nan | inf, fmt.all_ones, np.where(zero, 0, exponent))
    fraction = np.where(nan, 1 << (fmt.fraction - 1), np.where(inf | zero, 0, fraction))
    magnitude = ((exponent << fmt.fraction) | fraction).astype(fmt.bits)
    sign_bit = np.where(nan, 0, sign).astype(fmt.bits) << fmt.bits(fmt.exponent + fmt.fraction)
    return np.asarray(magnitude | sign_bit).view(dtype)


class Split(NamedTuple):
    """Integers as sign 2^power (1 + fraction / 2^m), Python ints or int64; zero has fraction 0."""

    negative: Array
    power: Array
    fraction: Array
    is_zero: Array


def split(x: Array, m: int, work: type[Any]) -> Split:
    """Take integers of m + 1 bits apart, in arrays of dtype `work`."""
    value = x.astype(object)
    magnitude = np.asarray(np.abs(value))
    power = np.asarray(np.frompyfunc(lambda a: max(a.bit_length() - 1, 0), 1, 1)(magnitude))
    is_zero = np.asarray(x == 0)
    below = np.where(is_zero, 0, magnitude - (np.ones_like(power) << power))
    return Split(
        np.asarray(x < 0), power.astype(work), (below << (m - power)).astype(work), is_zero
    )


def offset_units(bias: float, fraction: int) -> int:
    """Return an offset in units of the last of `fraction` bits, ties to even."""
    numerator, denominator = float(bias).as_integer_ratio()  # the denominator is a power of two
    half = denominator >> 1
    floor, rest = divmod(numerator << fraction, denominator)
    return floor + (rest > half or (rest == half and floor % 2 == 1 and half > 0))
