"""Error reports: published figures, an oracle in fractions, weights, pictures, messages."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import product

import ml_dtypes
import numpy as np
import pytest

import slipstick
from slipstick import _cpu, cli, reference
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
    Table,
    _report,
    _rows,
    error_report,
    multiply,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BYTES = np.arange(256, dtype=np.uint8)


def percent(value):
    return round(100 * value, 4)


# --- Published figures ---


def test_mitchell_on_bytes():
    report = error_report("mitchell", 8)
    assert percent(report.mred) == 3.7878
    assert report.bias == -report.mred
    assert report.peak_low == float(Fraction(-1, 9))
    assert report.peak_high == 0
    threes = [3 << i for i in range(7)]
    assert set(report.worst_pairs) == set(product(threes, threes))
    assert report.worst_count == 49
    assert report.worst_case == 4096
    assert multiply(np.uint8([192]), np.uint8([192])).item() == 192 * 192 - 4096
    assert round(report.variance, 7) == 8.889e-4
    assert round(report.med, 3) == 606.398
    assert round(100 * report.nmed, 5) == 0.93256
    assert round(100 * report.error_rate, 3) == 93.092
    assert (report.pairs, report.relative_pairs) == (65536, 65025)


def test_the_511_pairs_with_a_zero_may_count():
    report = error_report("mitchell", 8, count_zeros=True)
    assert percent(report.mred) == 3.7583
    assert report.relative_pairs == 65536
    assert round(report.med, 3) == 606.398


@pytest.mark.parametrize(
    ("iterations", "mean"), [(0, 8.9131), (1, 0.8337), (2, 0.0708), (3, 0.0048)]
)
def test_babic(iterations, mean):
    assert percent(error_report(ILM(iterations)).mred) == mean


def rows_of_16_bits(method):
    """All pairs of every 61st operand with every operand: 70 million."""
    every = np.arange(65536)
    return error_report(method, 16, operands=(every[30::61], every))


def test_mbm_on_16_bits():
    """The figures come from 4e6 random pairs: 4 standard errors of their means."""
    report = rows_of_16_bits(MBM())
    error = 4 * math.sqrt(report.variance / 4e6)
    assert report.bias == pytest.approx(-0.092e-2, abs=error)
    assert report.mred == pytest.approx(2.5825e-2, abs=error)
    assert 1e4 * report.variance == pytest.approx(10.02, abs=0.02)
    assert round(100 * report.peak_high, 2) == 7.81
    # Small operands lose the correction to the floor. Without one:
    assert round(100 * error_report(MBM(), "float32").peak_low, 2) == -7.64


@pytest.mark.parametrize(("width", "mean"), [(3, 11.90), (5, 2.94), (7, 0.73)])
def test_drum_on_16_bits(width, mean):
    # Half a unit of the last published place, and 1e-3 for taking one row in 61.
    assert 100 * rows_of_16_bits(DRUM(width)).mred == pytest.approx(mean, abs=0.006)


def test_mitchell_on_16_bits():
    """Exhaustive, 2**32 pairs. The published mean is that of a sample, 3.846 +- 0.002."""
    shares = []
    report = error_report("mitchell", 16, progress=shares.append)
    assert 100 * report.mred == pytest.approx(3.846, abs=3 * 0.002)
    assert report.pairs == 2**32
    assert report.relative_pairs == 65535**2
    threes = [3 << i for i in range(15)]
    assert set(report.worst_pairs) == set(product(threes, threes))
    assert report.worst_case == 2**28
    assert report.peak_low == float(Fraction(-1, 9))
    assert shares == sorted(shares)
    assert len(shares) > 10
    assert shares[-1] == 1.0


def test_limits_of_mitchell_on_uniform_mantissas():
    """One pair from each of 2048^2 cells: the sample's means are good to 1e-5 of the spread."""
    report = error_report("mitchell", "float32")
    assert 100 * report.bias == pytest.approx(-3.848799, abs=1e-4)
    assert report.variance == pytest.approx(8.6313e-4, abs=1e-7)
    expected = (-9.36, -6.03, -3.27, -1.27, -0.17)
    assert tuple(round(100 * value, 2) for value in report.quantiles) == expected
    assert report.sample_size == 2**22
    assert 1 - report.med / 2.25 == pytest.approx(26 / 27, abs=1e-6)  # E[P] / E[T]


@pytest.mark.parametrize(
    ("method", "bias", "mred"), [(LMul(), 0.41, 2.65), (LMulFormula(), -6.41, 7.58)]
)
def test_both_readings_of_l_mul(method, bias, mred):
    report = error_report(method, "float32")
    assert 100 * report.bias == pytest.approx(bias, abs=0.006)
    assert 100 * report.mred == pytest.approx(mred, abs=0.006)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_realm_on_a_grid_of_mantissas(dtype):
    grid = (1 + (np.arange(1500) + 0.5) / 1500).astype(dtype)
    report = error_report(REALM(16), operands=(grid, grid))
    assert report.sample_size is None
    assert report.pairs == 1500**2
    assert round(100 * report.bias, 3) == 0.009
    assert round(100 * report.mred, 3) == 0.419
    assert round(100 * report.peak_low, 3) == -2.080
    # 1.7705 in the middle of the cells; on their corners it is 1.786.
    assert 100 * report.peak_high == pytest.approx(1.771, abs=1e-3)
    assert round(1e4 * report.variance, 3) == 0.281


# --- The oracle ---

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


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize(("bits", "signed"), [(2, False), (4, False), (4, True), (6, True)])
def test_report_equals_the_oracle(method, bits, signed):
    if not fits(method, bits):
        pytest.skip("the method needs wider operands")
    count_zeros = bits == 4 and not signed
    values = operands_of(bits, signed)
    report = error_report(method, bits, signed=signed, count_zeros=count_zeros)
    assert_report(report, oracle(method, bits, signed, values, values, count_zeros))


def report_by_rows(method, bits, signed, histograms=None, count_zeros=False, chunk=200):
    """What wider operands go through."""
    totals = _rows.row_totals(method, bits, signed, histograms, None, chunk)
    largest = (1 << (2 * bits - 2)) if signed else ((1 << bits) - 1) ** 2
    return _report._report_of_rows(totals, method, bits, signed, count_zeros, largest)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("signed", [False, True])
def test_rows_equal_the_oracle(isa, method, signed):
    values = operands_of(6, signed)
    expected = oracle(method, 6, signed, values, values, signed)
    assert_report(report_by_rows(method, 6, signed, count_zeros=signed), expected, 2.0**-16)


WEIGHTED = [
    ([0, 1, 1, 3, 3, 3, 12, 31, 31], [63, 63, 5, 0, 0, 17, 1, 2, 9, 48]),
    ([7] * 5 + [40, 41, 41], [7] * 5 + [40, 41, 41]),
    ([0, 0], [1, 2, 3, 3]),
]


@pytest.mark.parametrize("method", [Mitchell(), DRUM(3), REALM(16)], ids=repr)
@pytest.mark.parametrize("shift", [0, -32], ids=["unsigned", "signed"])
@pytest.mark.parametrize("pair", WEIGHTED)
def test_weighted_operands(method, shift, pair):
    a, b = (np.array(side) + shift for side in pair)
    signed = shift < 0
    expected = oracle(method, 6, signed, Counter(a.tolist()), Counter(b.tolist()), True)
    report = error_report(method, 6, signed=signed, operands=(a, b), count_zeros=True)
    assert report.weighted
    assert report.sample_size is None
    assert_report(report, expected)
    histograms = [np.unique(side, return_counts=True) for side in (a, b)]
    by_rows = report_by_rows(method, 6, signed, histograms, count_zeros=True)
    assert_report(by_rows, expected, 2.0**-16)


@pytest.mark.parametrize("bits", [8, 12])
def test_only_zeros(bits):
    report = error_report("mitchell", bits, operands=(np.zeros(3, int), np.arange(4)))
    assert (report.pairs, report.relative_pairs, report.worst_pairs) == (12, 0, ())
    assert math.isnan(report.bias)
    assert math.isnan(report.quantiles[0])
    assert report.med == report.error_rate == report.worst_case == 0
    figures = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert figures["bias"] is None


def test_rows_of_16_bits_equal_the_products_of_multiply(isa):
    columns = np.arange(1, 65536, dtype=np.uint32)
    for method, row in product(METHODS, (1, 777, 49153, 65535)):
        if method == ILM(63):
            continue  # exact, and slow
        histogram = np.zeros(_cpu.error_bins, np.int64)
        native, operand = method._native, np.uint32([row])
        real, integer = _cpu.error_rows(
            native, 16, False, operand, columns, None, None, False, 0, 1, histogram
        )
        products = multiply(operand.astype(np.uint16), columns.astype(np.uint16), method=method)
        exact = row * columns.astype(np.int64)
        error = products.astype(np.int64) - exact
        relative = error / exact
        sums = [math.fsum(values) for values in (relative, abs(relative), relative**2)]
        # 8 lanes of 8192 terms each below 1.
        np.testing.assert_allclose(real[0, :3], sums, rtol=1e-12, atol=1e-11)
        assert real[0, 3:].tolist() == [relative.min(), relative.max(), abs(error).max()]
        assert integer[0].tolist() == [abs(error).sum(), 0, np.count_nonzero(error)]
        expected = np.bincount(((relative + 1) * 2**16).astype(int), minlength=len(histogram))
        np.testing.assert_array_equal(histogram, expected)


@pytest.mark.parametrize("method", ["mitchell", "realm", "operand-decomposition"])
def test_the_number_of_threads_does_not_matter(method):
    before = slipstick.get_num_threads()
    reports = []
    try:
        for count in (1, 2, 7):
            slipstick.set_num_threads(count)
            reports.append(error_report(method, 12, signed=True).to_dict())
    finally:
        slipstick.set_num_threads(before)
    assert reports[0] == reports[1] == reports[2]


def test_more_worst_pairs_than_are_listed():
    report = error_report("mitchell", 16, signed=True, operands=(np.int16([-96, 3, -3, 6]),) * 2)
    assert report.worst_count == 16
    everything = Table(np.zeros((256, 256), np.uint16))
    report = error_report(everything)
    assert report.worst_count == 255 * 255
    assert len(report.worst_pairs) == 256
    assert report.worst_pairs[:2] == ((1, 1), (1, 2))


# --- Tables ---


def test_table_gives_the_report_of_its_method():
    for signed, dtype in ((False, np.uint8), (True, np.int8)):
        operands = BYTES.view(dtype)
        table = Table(multiply(operands[:, np.newaxis], operands, method="drum"))
        direct = error_report("drum", signed=signed)
        report = error_report(table, signed=signed)
        assert table.sha256 in report.method
        assert table.sha256 in str(report)
        same = {**report.to_dict(), "method": direct.method}
        assert same == direct.to_dict()


def test_asymmetric_table_with_an_error_at_zero():
    exact = np.multiply.outer(BYTES.astype(np.uint16), BYTES.astype(np.uint16))
    entries = exact.copy()
    entries[0, 7] = 5
    entries[3, 200] = 3000
    report = error_report(Table(entries))
    assert report.worst_pairs == ((3, 200),)
    assert report.peak_high == 4
    assert report.worst_case == 2400
    assert report.error_rate == 2 / 65536
    assert report.med == 2405 / 65536
    assert report.mred == pytest.approx(4 / 65025)
    assert not _cpu.is_commutative(Table(entries)._native)


# --- Floats and wide integers ---


@pytest.mark.parametrize(
    ("name", "m"), [("bfloat16", 7), ("float16", 10)], ids=["bfloat16", "float16"]
)
def test_all_mantissas_of_16_bit_floats(name, m):
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)
    values = (1 + np.arange(2**m) / 2**m).astype(dtype)
    products = multiply(values[:, np.newaxis], values, method="minimax").astype(np.float64)
    exact = np.multiply.outer(values.astype(np.float64), values.astype(np.float64))
    relative = (products - exact) / exact
    report = error_report("minimax", name)
    assert report.sample_size is None
    assert report.pairs == 4**m
    assert report.bits == name
    assert report.bias == pytest.approx(relative.mean(), rel=1e-12)
    assert report.peak_high == relative.max()
    assert report.med == pytest.approx(np.abs(products - exact).mean(), rel=1e-12)
    assert report.nmed == pytest.approx(report.med / exact.max(), rel=1e-12)


def test_float_arrays_as_weights():
    """Exponents, signs, zeros and subnormals."""
    a = np.float32([3e30, -3e30, 3e30, 0.0, 1.0])
    b = np.float32([1.5e30, 7e-39])  # the second is subnormal and counts as zero
    report = error_report("mitchell", "float32", operands=(a, b))
    assert report.pairs == 10
    assert report.relative_pairs == 4  # the products overflow, their significands do not
    x, y = np.frexp(np.float64(a[0]))[0] * 2 - 1, np.frexp(np.float64(b[0]))[0] * 2 - 1
    error = float(
        mitchell_value(Fraction(x), Fraction(y)) / (Fraction(1 + x) * Fraction(1 + y)) - 1
    )
    assert report.mred == pytest.approx(abs(error) * 3 / 4, rel=1e-6)
    assert report.worst_pairs == ((-float(a[0]), float(b[0])), (float(a[0]), float(b[0])))


def test_many_float_operands_are_sampled():
    rng = np.random.default_rng(0)
    a, b = np.exp2(rng.uniform(0, 1, (2, 5000))).astype(np.float32)  # log-uniform mantissas
    report = error_report("mitchell", operands=(a, b))
    assert report.sample_size == 2**22
    assert "sample" in str(report)
    # The mean of Benford's law, -(1 - 2 / (3 ln 2)); 5000 draws of standard deviation 2.9 %, two
    # operands: 4 standard errors.
    expected = -(1 - 2 / (3 * math.log(2)))
    assert report.bias == pytest.approx(expected, abs=4 * 0.029 * math.sqrt(2 / 5000))


@pytest.mark.parametrize(("bits", "signed"), [(17, False), (32, False), (32, True)])
def test_wide_integers_are_sampled(bits, signed):
    report = error_report(Mitchell(0.5), bits, signed=signed)
    assert report.sample_size == report.pairs == 2**22
    # Unsigned products of the largest operands saturate.
    lowest = 8 / (3 - 0.5) ** 2 - 1 if signed else 0
    assert lowest - 1e-6 <= report.peak_low < report.peak_high <= 0.5
    assert report.to_dict() == error_report(Mitchell(0.5), bits, signed=signed).to_dict()
    a, b = report.worst_pairs[0]
    dtype = np.dtype(f"{'int' if signed else 'uint'}32")
    if bits == 32:
        exact, made = (
            a * b,
            int(multiply(dtype.type([a]), dtype.type([b]), method=Mitchell(0.5))[0]),
        )
        assert abs(made - exact) / abs(exact) == pytest.approx(
            max(-report.peak_low, report.peak_high), rel=1e-15
        )


# --- What is printed and drawn ---


def test_text_states_the_conventions():
    text = str(error_report("mitchell"))
    assert "Mitchell() on 8-bit unsigned integers, all 65,536 pairs" in text
    assert "-3.7878 %" in text
    assert "percent" in text
    assert "left out (65,025 pairs)" in text
    assert "at 49 pairs: (3, 3), (3, 6)" in text
    assert "count as RE = 0 (65,536 pairs)" in str(error_report("mitchell", count_zeros=True))
    exact = error_report(ILM(7))
    assert "no pair has an error" in str(exact)
    assert exact.worst_pairs == ()


def test_dictionary_is_json():
    report = error_report(DRUM(3), 6, signed=True)
    figures = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert figures["quantiles"]["0.5"] == report.quantiles[2]
    assert figures["worst_pairs"][0] == list(report.worst_pairs[0])
    assert figures["method"] == "DRUM(width=3)"
    assert not any(name.startswith("_") for name in figures)


@pytest.mark.parametrize(
    ("method", "bits", "signed"),
    [("mitchell", 8, False), (ILM(63), 2, True), ("alm-soa", 9, True), ("realm", "float32", False)],
)
def test_plot_draws_and_saves(tmp_path, method, bits, signed):
    path = tmp_path / "errors.png"
    report = error_report(method, bits, signed=signed)
    figure = report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    picture, histogram, bar = figure.axes
    assert report.method in figure.get_suptitle()
    low, high = picture.images[0].get_clim()
    assert low == -high
    for axis in (histogram, bar):
        assert "%" in axis.get_ylabel()
    # The bars hold all pairs.
    assert sum(patch.get_height() for patch in histogram.patches) == pytest.approx(100)


def test_plot_of_no_pairs():
    error_report("mitchell", operands=(np.zeros(1, int),) * 2).plot()


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"^ErrorReport.plot: the package matplotlib must be installed, got none: run `pip"
    with pytest.raises(ImportError, match=message):
        error_report("mitchell", 4).plot()


# --- The program ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mitchell", "Mitchell()"),
        ("mitchell:0.0625", "Mitchell(bias=0.0625)"),
        ("mitch-w:8", "MitchW(width=8)"),
        ("drum:5", "DRUM(width=5)"),
        ("realm:8", "REALM(segments=8)"),
        ("ilm:0", "ILM(iterations=0)"),
        ("mbm:2", "MBM(truncate=2)"),
        ("lmul:4", "LMul(bits=4)"),
        ("lmul-formula:4", "LMulFormula(bits=4)"),
        ("alm-soa:3", "ALMSOA(width=3)"),
    ],
)
def test_errors_command(capsys, text, shown):
    assert cli.main(["errors", text]) == 0
    assert capsys.readouterr().out.startswith(f"{shown} on 8-bit unsigned integers")


def test_errors_command_with_json_a_table_and_a_picture(tmp_path, capsys):
    table, picture = tmp_path / "table.bin", tmp_path / "errors.png"
    slipstick.mitchell.save_table("mitchell", table)
    assert cli.main(["errors", f"table:{table}", "--json", "--plot", str(picture)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert percent(figures["mred"]) == 3.7878
    assert picture.exists()
    assert cli.main(["errors", "mitchell", "--bits", "bfloat16", "--count-zeros", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits"] == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table:missing.bin"], "No such file"),
        (["foo"], "`method` must be a Method object or one of 'mitchell'"),
        (["foo:3"], "METHOD must be one of mitchell, .* before a colon, got 'foo:3'"),
        (["drum:x"], "METHOD must have an integer after the colon, got 'drum:x'"),
        (["mitchell:x"], "METHOD must have a number after the colon, got 'mitchell:x'"),
        (["realm:7"], "REALM: `segments` must be a power of two from 1 to 64, got 7"),
        (["mitchell", "--bits", "33"], "`bits` must be from 2 to 32, got 33"),
    ],
)
def test_errors_command_refuses(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["errors", *arguments])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_errors_command_shows_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["errors", "mitchell", "--bits", "12"]) == 0
    assert capsys.readouterr().err.endswith("100.0%\n")


def test_interrupt_between_chunks():
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        error_report("mitchell", 16, progress=stop)


# --- Bad input ---

FLOAT = np.float32([1, 2])
MANTISSAS = Table(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("foo",), {}, ValueError, "`method` must be a Method object or one of .*, got 'foo'"),
        ((3,), {}, TypeError, "`method` must be a Method object or one of .*, got 3"),
        (("mitchell", 1), {}, ValueError, "`bits` must be from 2 to 32, got 1"),
        (("mitchell", 33), {}, ValueError, "`bits` must be from 2 to 32, got 33"),
        (
            ("mitchell", "int8"),
            {},
            ValueError,
            "`bits` must be from 2 to 32 or one of 'float32', 'float64', 'float16', 'bfloat16', "
            "got 'int8'",
        ),
        (
            ("mitchell", 8.0),
            {},
            TypeError,
            "`bits` must be an int or the name of a dtype, got float",
        ),
        (
            ("mitchell", True),
            {},
            TypeError,
            "`bits` must be an int or the name of a dtype, got bool",
        ),
        (("mitchell",), {"signed": 1}, TypeError, "`signed` must be a bool, got int"),
        (
            ("mitchell", 10**5000),
            {},
            ValueError,
            "`bits` must be from 2 to 32, got int of too many",
        ),
        (
            ("mitchell",),
            {"operands": ([1], [[1], [1, 2]])},
            TypeError,
            "`operands` must be what NumPy takes for an array, got list",
        ),
        (("mitchell",), {"count_zeros": None}, TypeError, "`count_zeros` must be a bool, got None"),
        (
            ("mitchell",),
            {"progress": 3},
            TypeError,
            "`progress` must be a callable or None, got int",
        ),
        (
            ("mitchell", "float32"),
            {"signed": True},
            ValueError,
            "`signed` must be False for floats, got True",
        ),
        (
            ("mitchell",),
            {"operands": 3},
            TypeError,
            "`operands` must be a pair of arrays, got int",
        ),
        (
            ("mitchell",),
            {"operands": (1, 2, 3)},
            TypeError,
            "`operands` must be a pair of arrays, got 3 of them",
        ),
        (
            ("mitchell",),
            {"operands": ([1j], [1])},
            TypeError,
            "`operands` must have an integer or a float32, .* dtype, got complex128",
        ),
        (
            ("mitchell",),
            {"operands": (FLOAT, [1])},
            TypeError,
            "`operands` must be integers both or floats of one dtype, got float32 and int64",
        ),
        (
            ("mitchell",),
            {"operands": (FLOAT, [1.0])},
            TypeError,
            "`operands` must be integers both or floats of one dtype, got float32 and float64",
        ),
        (
            ("mitchell",),
            {"operands": (FLOAT, FLOAT[:0])},
            ValueError,
            "`operands` must not be empty, got an array of size 0",
        ),
        (
            ("mitchell", "float16"),
            {"operands": (FLOAT, FLOAT)},
            TypeError,
            "`operands` must have dtype float16, got float32",
        ),
        (
            ("mitchell", 16),
            {"operands": (FLOAT, FLOAT)},
            ValueError,
            "`bits` must be left alone or 'float32' for operands of that dtype, got 16",
        ),
        (
            ("mitchell",),
            {"operands": (FLOAT, np.float32([1, np.inf]))},
            ValueError,
            "`operands` must be finite, got inf",
        ),
        (
            ("mitchell",),
            {"operands": ([3, 256], [1])},
            ValueError,
            "`operands` must be 8-bit unsigned integers, from 0 to 255, got 256",
        ),
        (
            ("mitchell", 4),
            {"operands": ([3], [-9]), "signed": True},
            ValueError,
            "`operands` must be 4-bit signed integers, from -8 to 7, got -9",
        ),
        (
            (MBM(3), 4),
            {},
            ValueError,
            "`method` must have a `truncate` of at most 2 for 4-bit operands, "
            "got MBM\\(truncate=3\\)",
        ),
        (
            (ALMSOA(12), 12),
            {},
            ValueError,
            "`method` must have a `width` of at most 11 for 12-bit operands, "
            "got ALMSOA\\(width=12\\)",
        ),
        (
            (Mitchell(raw=True),),
            {},
            TypeError,
            "`method` must take integers, got Mitchell\\(raw=True\\)",
        ),
        ((MANTISSAS,), {}, ValueError, "`method` must take integers, got Table.* of mantissas"),
        (
            (Table(np.zeros((256, 256), np.int16)),),
            {},
            ValueError,
            "`bits` and `signed` must be those of 8-bit signed integers for Table.*, "
            "got 8-bit unsigned integers",
        ),
        (
            (Table(np.zeros((256, 256), np.uint16)), 9),
            {},
            ValueError,
            "`bits` and `signed` must be those of 8-bit unsigned integers for Table.*, "
            "got 9-bit unsigned integers",
        ),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=f"^error_report: {message}"):
        error_report(*arguments, **options)


def test_the_package_imports_without_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import slipstick.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operands_of_either_byte_order():
    a, b = np.float32([1.5, 3, 7, 0]), np.float32([1.25, -5])
    given = error_report("mitchell", operands=(a.astype(">f4"), b.astype(">f4")))
    assert given == error_report("mitchell", operands=(a, b))
