"""Reports on more pairs of integers than an array should hold, row by row: a and all of b."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick.mitchell._base import Method
from slipstick.mitchell._pairs import in_order

# Pairs in a call: half a second at the slowest. Between calls the interpreter sees Ctrl-C.
_CHUNK = 1 << 26
# A little more than a report lists.
_LISTED = 256


@dataclass
class Totals:
    """Sums over all pairs; `nonzero` of them have operands other than 0."""

    pairs: int
    nonzero: int
    relative: float
    magnitude: float
    square: float
    low: float
    high: float
    furthest: int
    distance: int
    wrong: int
    worst_pairs: tuple[tuple[int, int], ...]
    worst_count: int
    histogram: NDArray[np.int64]
    weighted: bool


@dataclass
class _Side:
    """One operand's values as magnitudes: ascending, without 0."""

    magnitudes: NDArray[np.uint32]
    weights: NDArray[np.int64] | None  # how often a magnitude occurs, of either sign
    signs: NDArray[np.uint8] | None  # how many values have it
    values: NDArray[np.int64]
    total: int

    def with_magnitude(self, magnitude: int) -> list[int]:
        return [v for v in {magnitude, -magnitude} if np.isin(v, self.values)]


def _side(values: NDArray[np.int64], counts: NDArray[np.int64] | None) -> _Side:
    total = len(values) if counts is None else int(counts.sum())
    nonzero = values != 0
    some = values[nonzero]
    if counts is None and len(some) and some[0] > 0:
        return _Side(some.astype(np.uint32), None, None, some, total)
    magnitudes, place = np.unique(np.abs(some), return_inverse=True)
    weights = np.zeros(len(magnitudes), np.int64)
    np.add.at(weights, place, 1 if counts is None else counts[nonzero])
    signs = np.bincount(place, minlength=len(magnitudes)).astype(np.uint8)
    return _Side(magnitudes.astype(np.uint32), weights, signs, some, total)


def row_totals(
    method: Method,
    bits: int,
    signed: bool,
    histograms: Any,
    progress: Callable[[float], Any] | None,
    chunk: int = _CHUNK,
) -> Totals:
    """Sum over all pairs of operands, or those of two arrays as (values, counts) each."""
    if histograms is None:
        values = np.arange(2**bits, dtype=np.int64) - (2 ** (bits - 1) if signed else 0)
        first = second = _side(values, None)
        same = True
    else:
        (a, count_a), (b, count_b) = histograms
        first = _side(a.astype(np.int64), count_a.astype(np.int64))
        second = _side(b.astype(np.int64), count_b.astype(np.int64))
        same = np.array_equal(a, b) and np.array_equal(count_a, count_b)
    native = method._native
    symmetric = same and _cpu.is_commutative(native)
    operands = first.magnitudes, second.magnitudes
    histogram = np.zeros(_cpu.error_bins, np.int64)
    reals, integers = [np.zeros((0, 6))], [np.zeros((0, 3), np.uint64)]
    n = len(first.magnitudes)
    step = max(1, chunk // max(1, len(second.magnitudes)))
    weights = first.weights, second.weights
    for begin in range(0, n, step):
        end = min(n, begin + step)
        real, integer = _cpu.error_rows(
            native, bits, signed, *operands, *weights, symmetric, begin, end, histogram
        )
        reals.append(real)
        integers.append(integer)
        if progress is not None:
            left = (n - end) / n
            progress(1 - left**2 if symmetric else 1 - left)
    return _combine(
        native,
        bits,
        signed,
        first,
        second,
        symmetric,
        np.concatenate(reals),
        np.concatenate(integers),
        histogram,
        weighted=histograms is not None,
    )


def _combine(
    native: Any,
    bits: int,
    signed: bool,
    first: _Side,
    second: _Side,
    symmetric: bool,
    reals: NDArray[np.float64],
    integers: NDArray[np.uint64],
    histogram: NDArray[np.int64],
    *,
    weighted: bool,
) -> Totals:
    n, columns = len(first.magnitudes), len(second.magnitudes)
    weights = np.ones(n, np.int64) if first.weights is None else first.weights
    second_total = columns if second.weights is None else int(second.weights.sum())
    times = weights.tolist()
    pairs = first.total * second.total
    empty = n == 0 or columns == 0
    # fsum rounds once.
    sums = [0.0] * 3 if empty else [math.fsum(column) for column in (reals[:, :3].T * weights)]
    if empty:
        worst: tuple[tuple[tuple[int, int], ...], int] = ((), 0)
    else:
        worst = _worst(native, bits, signed, first, second, symmetric, reals)
    return Totals(
        pairs=pairs,
        nonzero=int(weights.sum()) * second_total,
        relative=sums[0],
        magnitude=sums[1],
        square=sums[2],
        low=0.0 if empty else float(reals[:, 3].min()),
        high=0.0 if empty else float(reals[:, 4].max()),
        furthest=0 if empty else int(reals[:, 5].max()),
        distance=sum(
            t * (low | high << 64)
            for t, low, high in zip(
                times, integers[:, 0].tolist(), integers[:, 1].tolist(), strict=True
            )
        ),
        wrong=sum(t * k for t, k in zip(times, integers[:, 2].tolist(), strict=True)),
        worst_pairs=worst[0],
        worst_count=worst[1],
        histogram=histogram,
        weighted=weighted,
    )


def _worst(
    native: Any,
    bits: int,
    signed: bool,
    first: _Side,
    second: _Side,
    symmetric: bool,
    reals: NDArray[np.float64],
) -> tuple[tuple[tuple[int, int], ...], int]:
    magnitude = np.maximum(-reals[:, 3], reals[:, 4])
    largest = float(magnitude.max())
    if largest == 0:
        return (), 0
    rows = np.flatnonzero(magnitude == largest).astype(np.int64)
    _, _, count, a, b = _cpu.worst_pairs(
        native,
        bits,
        signed,
        first.magnitudes,
        second.magnitudes,
        symmetric,
        rows,
        largest,
        first.signs,
        second.signs,
        _LISTED,
    )
    found = set()
    for left, right in zip(a.tolist(), b.tolist(), strict=True):
        for x in first.with_magnitude(left):
            for y in second.with_magnitude(right):
                found.add((x, y))
                if symmetric:
                    found.add((y, x))
    return tuple(in_order(found)[:_LISTED]), count
