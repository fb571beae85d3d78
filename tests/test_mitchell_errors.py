"""Error reports: published figures, an oracle in fractions, weights, pictures, messages."""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from itertools import product

import ml_dtypes
import numpy as np
import pytest

import slipstick
from mitchell_error_oracle import (
    BYTES,
    METHODS,
    assert_report,
    fits,
    mitchell_value,
    operands_of,
    oracle,
    percent,
)
from remembered import remembered
from slipstick import _cpu
from slipstick.mitchell import (
    ALMSOA,
    DRUM,
    ILM,
    MBM,
    REALM,
    LMul,
    LMulFormula,
    Mitchell,
    Table,
    _report,
    _rows,
    error_report,
    multiply,
)

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


@remembered
def errors_of(products, exact):
    """Return distances, errors, and the sums of the errors, their magnitudes and squares."""
    distance = products.astype(np.int64) - exact
    error = distance / exact
    return distance, error, tuple(math.fsum(x) for x in (error, abs(error), error**2))


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
        error, relative, sums = errors_of(products, row * columns.astype(np.int64))
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


def test_operands_of_either_byte_order():
    a, b = np.float32([1.5, 3, 7, 0]), np.float32([1.25, -5])
    given = error_report("mitchell", operands=(a.astype(">f4"), b.astype(">f4")))
    assert given == error_report("mitchell", operands=(a, b))
