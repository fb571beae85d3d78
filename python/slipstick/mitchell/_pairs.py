"""Pairs of operands held in arrays: all of them where there are few, else a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick.mitchell._base import Method
from slipstick.mitchell._elementwise import multiply
from slipstick.mitchell._table_method import Table

FLOATS = ("float32", "float64", "float16", "bfloat16")
FRACTION_BITS = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}
# A sample has GRID * GRID pairs; so many distinct pairs are taken without one.
GRID = 2048
_KEY = 0x51195  # of Philox: any number will do, but always the same one

Worst = tuple[tuple[tuple[int | float, int | float], ...], int]


@dataclass
class Pairs:
    """Operands a[i], b[i], with P - T and T: of magnitudes, or signed.

    error
        int64, or float64 for floats.
    exact
        float64; `exact_integer` (uint64) is its magnitude for integers, None for floats.
    weights
        How often each pair occurs; None for once each.
    relative
        P / T - 1 where `error` and `exact` may lie beyond the range of float64.
    """

    a: NDArray[Any]
    b: NDArray[Any]
    error: NDArray[Any]
    exact: NDArray[Any]
    exact_integer: NDArray[np.uint64] | None
    weights: NDArray[np.int64] | None = None
    relative: NDArray[Any] | None = None
    sampled: bool = False
    weighted: bool = False

    def relative_errors(self) -> NDArray[Any]:
        """Return RE, 0 where T is 0."""
        if self.relative is not None:
            return self.relative
        result = np.zeros(len(self.error))
        np.divide(self.error, self.exact, where=self.exact != 0, out=result)
        return result

    def worst(self, limit: int) -> Worst:
        """Return the first pairs of largest magnitude of RE, and how many there are."""
        magnitude = np.abs(self.relative_errors())
        largest = magnitude.max()
        if not largest > 0:
            return (), 0
        if self.exact_integer is None:
            chosen = np.flatnonzero(magnitude == largest)
        else:
            # P - T, T and their quotient are rounded once each: 2^-51 holds all that can be equal.
            chosen = np.flatnonzero(magnitude >= largest * (1 - 2.0**-51))
            error = np.abs(self.error[chosen]).astype(np.uint64)
            exact = self.exact_integer[chosen]
            divisor = np.gcd(error, exact)
            ratios = np.stack([error // divisor, exact // divisor], axis=1)
            distinct, place = np.unique(ratios, axis=0, return_inverse=True)
            best, top = 0, (0, 1)
            for i, (numerator, denominator) in enumerate(distinct.tolist()):
                if numerator * top[1] > top[0] * denominator:
                    best, top = i, (numerator, denominator)
            chosen = chosen[place.ravel() == best]
        found = set(zip(self.a[chosen].tolist(), self.b[chosen].tolist(), strict=True))
        return tuple(in_order(found)[:limit]), len(found)


def in_order(pairs: Any) -> list[Any]:
    """Sort pairs by the magnitudes of their operands, then by their signs."""
    return sorted(pairs, key=lambda pair: (abs(pair[0]), abs(pair[1]), pair))


def integer_pairs(
    method: Method, bits: int, signed: bool, a: NDArray[np.int64], b: NDArray[np.int64]
) -> Pairs:
    """Return the pairs a[i], b[i] of operands of `bits` bits."""
    if isinstance(method, Table):
        product = method.array[a & 0xFF, b & 0xFF].astype(np.int64)
        exact = a * b
        magnitude = np.abs(exact).astype(np.uint64)
        return Pairs(a, b, product - exact, exact.astype(np.float64), magnitude)
    left, right = np.abs(a).astype(np.uint32), np.abs(b).astype(np.uint32)
    products = _cpu.products_of_bits(method._native, bits, signed, left, right)
    magnitude = left.astype(np.uint64) * right
    # A product of 64 bits is less than 2^63 away from the exact one, so the difference wraps right.
    error = (products - magnitude).view(np.int64)
    return Pairs(a, b, error, magnitude.astype(np.float64), magnitude)


def grid(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return each element of `first` with each of `second`."""
    return np.repeat(first, len(second)), np.tile(second, len(first))


def all_pairs(method: Method, bits: int, signed: bool) -> Pairs:
    """Return all pairs of operands of `bits` bits."""
    values = np.arange(2**bits, dtype=np.int64) - (2 ** (bits - 1) if signed else 0)
    return integer_pairs(method, bits, signed, *grid(values, values))


def _cells(bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One pair of numbers below 2**bits from each of GRID * GRID cells."""
    rest = bits - (GRID.bit_length() - 1)
    generator = np.random.Generator(np.random.Philox(key=_KEY))
    low = generator.integers(0, 2**rest, (2, GRID * GRID), dtype=np.int64)
    cell = np.arange(GRID, dtype=np.int64) << rest
    first, second = grid(cell, cell)
    return first | low[0], second | low[1]


def sampled_pairs(method: Method, bits: int, signed: bool) -> Pairs:
    """Return a sample of the pairs of operands of `bits` bits, 17 to 32."""
    a, b = _cells(bits)
    shift = 2 ** (bits - 1) if signed else 0
    pairs = integer_pairs(method, bits, signed, a - shift, b - shift)
    pairs.sampled = True
    return pairs


def _steps(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """GRID values at equal steps through the sorted array that has values[i] counts[i] times."""
    below = np.cumsum(counts)
    wanted = (2 * np.arange(GRID) + 1) / (2 * GRID) * below[-1]
    return np.asarray(values[np.searchsorted(below, wanted, side="right")])


def _weighted(
    first: tuple[NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]:
    (a, count_a), (b, count_b) = first, second
    if len(a) * len(b) <= GRID * GRID:
        weights = np.multiply.outer(count_a.astype(np.int64), count_b.astype(np.int64)).ravel()
        return *grid(a, b), weights
    return *grid(_steps(a, count_a), _steps(b, count_b)), None


def weighted_pairs(method: Method, bits: int, signed: bool, first: Any, second: Any) -> Pairs:
    """Return pairs of integers given as (values, how often each occurs)."""
    a, b, weights = _weighted(first, second)
    pairs = integer_pairs(method, bits, signed, a.astype(np.int64), b.astype(np.int64))
    pairs.weights, pairs.sampled, pairs.weighted = weights, weights is None, True
    return pairs


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ModuleNotFoundError:
            raise ImportError(
                "error_report: `bits` must be a dtype that NumPy has while the package ml_dtypes "
                "is not installed, got 'bfloat16'"
            ) from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def significands(name: str, fraction: NDArray[np.int64]) -> NDArray[Any]:
    """Return 1 + fraction / 2**m in a dtype with m fraction bits."""
    dtype = _dtype(name)
    pattern = fraction.astype(f"u{dtype.itemsize}")
    one = np.array(1, dtype).view(pattern.dtype)
    return np.asarray((pattern | one).view(dtype))


def float_products(
    method: Method, a: NDArray[Any], b: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return P and T; T is exact but for float64."""
    product = np.asarray(multiply(a, b, method=method)).astype(np.float64)
    return product, a.astype(np.float64) * b.astype(np.float64)


def float_pairs(method: Method, name: str) -> Pairs:
    """Return all pairs of mantissas, or a sample of those of float32 and float64."""
    m = FRACTION_BITS[name]
    sampled = 2**m > GRID
    values = np.arange(min(2**m, GRID), dtype=np.int64)
    x, y = _cells(m) if sampled else grid(values, values)
    a, b = significands(name, x), significands(name, y)
    product, exact = float_products(method, a, b)
    # Listed as Python floats: bfloat16 has no other spelling.
    listed = a.astype(np.float64), b.astype(np.float64)
    return Pairs(*listed, product - exact, exact, None, sampled=sampled)


def float_array_pairs(method: Method, first: NDArray[Any], second: NDArray[Any]) -> Pairs:
    """Return the pairs of two arrays, multiplied as significands: exponents do not matter."""
    dtype = first.dtype
    histograms = [
        np.unique(array.astype(np.float64), return_counts=True) for array in (first, second)
    ]
    a, b, weights = _weighted(*histograms)
    smallest = float(_smallest_normal(dtype))
    parts = [np.frexp(np.where(np.abs(side) < smallest, 0.0, side)) for side in (a, b)]
    left, right = (2 * fraction for fraction, _ in parts)
    product, exact = float_products(method, left.astype(dtype), right.astype(dtype))
    error = product - exact
    relative = np.divide(error, exact, where=exact != 0, out=np.zeros(len(exact)))
    exponent = parts[0][1] + parts[1][1] - 2
    with np.errstate(over="ignore", under="ignore"):
        error, exact = np.ldexp(error, exponent), np.ldexp(exact, exponent)
    return Pairs(
        a, b, error, exact, None, weights, relative, sampled=weights is None, weighted=True
    )


def _smallest_normal(dtype: np.dtype[Any]) -> Any:
    return 2.0**-126 if dtype.name == "bfloat16" else np.finfo(dtype).smallest_normal
