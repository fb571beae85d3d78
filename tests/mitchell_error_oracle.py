"""Error reports in fractions, straight from the definitions: slow, and right by inspection."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest

from slipstick import reference
from slipstick.mitchell import (
    ALMSOA,
    DRUM,
    ILM,
    MBM,
    REALM,
    LMul,
    LMulFormula,
    Mitchell,
    MitchW,
    OperandDecomposition,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BYTES = np.arange(256, dtype=np.uint8)


def percent(value):
    return round(100 * value, 4)


METHODS = [
    Mitchell(),
    Mitchell(0.0625),
    Mitchell(0.3),
    Mitchell(0.9),
    LMul(),
    LMul(2),
    LMul(5),
    LMulFormula(),
    LMulFormula(2),
    MBM(),
    MBM(2),
    REALM(1),
    REALM(16),
    ILM(0),
    ILM(1),
    ILM(63),
    MitchW(1),
    MitchW(3),
    DRUM(1),
    DRUM(3),
    ALMSOA(1),
    ALMSOA(3),
    OperandDecomposition(),
]


def ties_to_even(value: int, dropped: int) -> int:
    return round(Fraction(value, 1 << dropped)) << dropped


def mitchell_value(x: Fraction, y: Fraction, d: Fraction = Fraction(0)) -> Fraction:
    s = x + y + d
    return 1 + s if s < 1 else 2 * s if s < 2 else 4 * (s - 1)


def product_of(method, a: int, b: int, bits: int) -> int:
    """The product of two magnitudes of n-bit operands: fields of n - 1 bits, exact rationals."""
    if a == 0 or b == 0:
        return 0
    m = bits - 1
    k1, k2 = a.bit_length() - 1, b.bit_length() - 1
    fields = [(a - (1 << k1)) << (m - k1), (b - (1 << k2)) << (m - k2)]
    unit = Fraction(1, 1 << m)
    if isinstance(method, LMul | LMulFormula):
        own = method.bits or m
        d = Fraction(1, 1 << (own if own <= 3 else 3 if own == 4 else 4))
        if own < m:
            logs = [
                ties_to_even((k << m) + f, m - own) for k, f in zip((k1, k2), fields, strict=True)
            ]
            (k1, k2), fields = [v >> m for v in logs], [v & ((1 << m) - 1) for v in logs]
    elif isinstance(method, MBM) and method.truncate:
        t = method.truncate
        fields = [(f >> t << t) | (1 << t) for f in fields]
    elif isinstance(method, MitchW):
        dropped = m - min(method.width - 1, m)
        fields = [f >> dropped << dropped for f in fields]
    x, y = (f * unit for f in fields)
    scale = Fraction(2) ** (k1 + k2)
    match method:
        case Mitchell():
            value = mitchell_value(x, y, Fraction(method.offset)) * scale
        case LMul():
            value = mitchell_value(x, y, d) * scale
        case LMulFormula():
            value = (1 + x + y + d) * scale
        case MBM():
            value = mitchell_value(x, y)
            value = (value + Fraction(5, 64) if value + Fraction(5, 64) < 4 else value) * scale
        case REALM():
            n = method.segments
            s = Fraction(int(reference.realm_table(n)[int(n * x), int(n * y)]), 64)
            value = (mitchell_value(x, y) + s) * scale
        case ILM():
            value, left, right = Fraction(0), a, b
            for _ in range(method.iterations + 1):
                if left == 0 or right == 0:
                    break
                p, q = 1 << left.bit_length() - 1, 1 << right.bit_length() - 1
                value += p * q + (left - p) * q + (right - q) * p
                left, right = left - p, right - q
        case MitchW():
            value = mitchell_value(x, y) * scale
        case DRUM():
            kept = []
            for operand in (a, b):
                dropped = operand.bit_length() - method.width
                kept.append(operand if dropped <= 0 else ((operand >> dropped) | 1) << dropped)
            value = Fraction(kept[0] * kept[1])
        case ALMSOA():
            w = method.width
            carry = (fields[0] >> (w - 1)) & (fields[1] >> (w - 1)) & 1
            total = (((fields[0] >> w) + (fields[1] >> w) + carry) << w) | ((1 << w) - 1)
            value = mitchell_value(total * unit, Fraction(0)) * scale
        case OperandDecomposition():
            one, other = ((a & b, a | b), (a & ~b, ~a & b))
            value = Fraction(
                product_of(Mitchell(), *one, bits) + product_of(Mitchell(), *other, bits)
            )
    return math.floor(value)


@cache
def oracle_products(method, bits: int) -> dict[tuple[int, int], int]:
    # One more than unsigned operands have: |-2^(n-1)| is among them.
    operands = range(1 << bits)
    return {(a, b): product_of(method, a, b, bits) for a, b in product(operands, operands)}


def oracle(method, bits, signed, first, second, count_zeros):
    """The figures of all pairs of two Counters, by fractions and sorting."""
    limit = (1 << (2 * bits - signed)) - 1
    products = oracle_products(method, bits)
    relative, distances, wrong, total = Counter(), Counter(), 0, 0
    worst: dict[Fraction, set] = {}
    for (a, na), (b, nb) in product(first.items(), second.items()):
        exact = abs(a * b)
        distance = min(products[abs(a), abs(b)], limit) - exact
        distances[abs(distance)] += na * nb
        wrong += (distance != 0) * na * nb
        total += na * nb
        if exact == 0:
            relative[Fraction(0)] += na * nb * count_zeros
            continue
        error = Fraction(distance, exact)
        relative[error] += na * nb
        if error:
            worst.setdefault(abs(error), set()).add((a, b))
    count = sum(relative.values())
    relative = Counter({error: n for error, n in relative.items() if n})
    mean = sum(error * n for error, n in relative.items()) / count
    quantiles, below, places = [], 0, iter(QUANTILES)
    wanted = math.ceil(next(places) * count)
    for error in sorted(relative):
        below += relative[error]
        while wanted is not None and below >= wanted:
            quantiles.append(float(error))
            share = next(places, None)
            wanted = None if share is None else math.ceil(share * count)
    med = Fraction(sum(d * n for d, n in distances.items()), total)
    largest = (1 << (2 * bits - 2)) if signed else ((1 << bits) - 1) ** 2
    return {
        "bias": float(mean),
        "mred": float(sum(abs(error) * n for error, n in relative.items()) / count),
        "peak_low": float(min(relative)),
        "peak_high": float(max(relative)),
        "variance": float(sum((e - mean) ** 2 * n for e, n in relative.items()) / count),
        "med": float(med),
        "nmed": float(med / largest),
        "error_rate": wrong / total,
        "worst_case": max(distances),
        "worst_pairs": worst[max(worst)] if worst else set(),
        "quantiles": tuple(quantiles),
        "pairs": total,
        "relative_pairs": count,
    }


def assert_report(report, expected, resolution=0.0):
    # Sums of at most 2^20 doubles: 2^20 ulps at the very most, of terms below 1.
    for name in ("bias", "mred", "variance"):
        assert getattr(report, name) == pytest.approx(expected[name], rel=1e-12, abs=1e-15)
    for name in ("med", "nmed", "error_rate"):
        assert getattr(report, name) == pytest.approx(expected[name], rel=4e-16)
    for name in ("peak_low", "peak_high", "worst_case", "pairs", "relative_pairs"):
        assert getattr(report, name) == expected[name], name
    assert report.worst_count == len(expected["worst_pairs"])
    if report.worst_count <= 256:
        assert set(report.worst_pairs) == expected["worst_pairs"]
    else:
        assert len(set(report.worst_pairs)) == 256
        assert set(report.worst_pairs) < expected["worst_pairs"]
    key = [(abs(a), abs(b), a, b) for a, b in report.worst_pairs]
    assert key == sorted(key)
    np.testing.assert_allclose(report.quantiles, expected["quantiles"], rtol=0, atol=resolution)
    assert report.quantile_resolution == resolution


def operands_of(bits, signed):
    low = -(1 << (bits - 1)) if signed else 0
    return Counter(range(low, low + (1 << bits)))


def fits(method, bits):
    limits = {"truncate": bits - 2, "width": bits - 1}
    name = {MBM: "truncate", ALMSOA: "width"}.get(type(method))
    return name is None or getattr(method, name) <= limits[name]
