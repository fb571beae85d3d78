"""Every method of the Mitchell reference: published figures, and its formula in fractions."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from mitchell_formats import FORMAT_IDS, FORMATS, INTEGERS, bits_of
from slipstick import reference

# method, its width
METHODS = [
    ("mitchell", None),
    ("lmul", None),
    ("lmul", 1),
    ("lmul", 3),
    ("lmul", 4),
    ("lmul-formula", None),
    ("lmul-formula", 2),
    ("lmul-formula", 5),
    ("mbm", 0),
    ("mbm", 1),
    ("mbm", 5),
    ("realm", 1),
    ("realm", 16),
    ("realm", 64),
    ("ilm", 0),
    ("ilm", 1),
    ("ilm", 3),
    ("mitch-w", 1),
    ("mitch-w", 6),
    ("mitch-w", 60),
    ("drum", 1),
    ("drum", 3),
    ("drum", 6),
    ("drum", 60),
    ("alm-soa", 1),
    ("alm-soa", 4),
    ("alm-soa", 7),
]
REAL_PRODUCTS = ("lmul-formula", "ilm", "drum")


def statistics(method, width=None, **options):
    a = np.arange(256, dtype=np.uint8)
    product = reference.multiply(a[:, np.newaxis], a, method=method, width=width)
    return reference.error_statistics(product, np.multiply.outer(a.astype(int), a), **options)


def test_statistics_of_the_plain_product():
    plain = statistics("mitchell")
    assert 100 * plain.bias == pytest.approx(-3.7878, abs=5e-5)
    assert plain.mred == pytest.approx(-plain.bias, rel=1e-12)
    assert (plain.peak_low, plain.peak_high) == (-1 / 9, 0)
    assert plain.variance == pytest.approx(8.889e-4, abs=5e-8)
    assert plain.med == pytest.approx(606.398, abs=5e-4)
    assert 100 * plain.nmed == pytest.approx(0.93256, abs=5e-6)
    assert 100 * plain.error_rate == pytest.approx(93.092, abs=5e-4)
    assert plain.worst_case == 4096
    threes = [3 * 2**i for i in range(7)]
    assert plain.worst_pairs == [(a, b) for a in threes for b in threes]
    assert 100 * statistics("mitchell", count_zeros=True).bias == pytest.approx(-3.7583, abs=5e-5)


def test_statistics_weight_pairs():
    exact = np.array([[0, 2], [4, 8]])
    product = np.array([[1, 2], [3, 6]])
    weights = [[1, 3], [4, 0]]
    got = reference.error_statistics(product, exact, weights=weights)
    assert got.bias == pytest.approx(-1 / 7)
    assert (got.peak_low, got.peak_high, got.worst_pairs) == (-0.25, 0, [(1, 0)])
    assert got.variance == pytest.approx(4 / 7 / 16 - 1 / 49)
    assert (got.med, got.error_rate, got.worst_case) == (5 / 8, 5 / 8, 1)
    assert got.nmed == 5 / 64
    assert got.quantiles == (-0.25, -0.25, -0.25, 0, 0)
    counted = reference.error_statistics(product, exact, weights=weights, count_zeros=True)
    assert counted.bias == pytest.approx(-1 / 8)


@pytest.mark.parametrize(
    ("width", "mean"), [(0, 8.9131), (1, 0.8337), (2, 0.0708), (3, 0.0048)], ids=str
)
def test_iterations_have_the_published_means(width, mean):
    got = statistics("ilm", width)
    assert 100 * got.mred == pytest.approx(mean, abs=5e-5)
    assert -(0.25 ** (width + 1)) < got.peak_low < 0
    assert got.peak_high == 0


@pytest.fixture(scope="module")
def sixteen_bits():
    a, b = np.random.default_rng(0).integers(1, 2**16, (2, 400_000), dtype=np.uint16)
    return a, b, a.astype(np.float64) * b


def test_mbm_has_the_published_errors(sixteen_bits):
    a, b, exact = sixteen_bits
    relative = 100 * (reference.multiply(a, b, method="mbm") / exact - 1)
    # Standard error: sqrt(10.02 / 400000) = 0.005.
    assert relative.mean() == pytest.approx(-0.092, abs=0.015)
    assert np.abs(relative).mean() == pytest.approx(2.5825, abs=0.015)
    assert relative.var() == pytest.approx(10.02, abs=0.1)
    assert relative.max() == pytest.approx(7.81, abs=0.03)
    assert relative.min() == pytest.approx(-7.64, abs=0.03)


@pytest.mark.parametrize(("width", "mean"), [(3, 11.905), (5, 2.94), (7, 0.73)])
def test_drum_has_the_published_errors(sixteen_bits, width, mean):
    a, b, exact = sixteen_bits
    product = reference.multiply(a, b, method="drum", width=width)
    relative = 100 * np.abs(product / exact - 1)
    # Two digits, and the standard error: the spread is below 0.8 of the mean.
    assert relative.mean() == pytest.approx(mean, abs=0.0055 + 3 * 0.8 * mean / 632)


@pytest.fixture(scope="module")
def grid():
    x = (1 + (np.arange(1500) + 0.5) / 1500).astype(np.float32)
    return x[:, np.newaxis], x, np.multiply.outer(x.astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize(
    ("method", "bias", "mred"), [("lmul", 0.41, 2.65), ("lmul-formula", -6.41, 7.58)]
)
def test_two_readings_of_lmul(grid, method, bias, mred):
    a, b, exact = grid
    relative = 100 * (reference.multiply(a, b, method=method) / exact - 1)
    assert relative.mean() == pytest.approx(bias, abs=0.005)
    assert np.abs(relative).mean() == pytest.approx(mred, abs=0.005)


def test_realm_has_the_published_errors(grid):
    a, b, exact = grid
    relative = 100 * (reference.multiply(a, b, method="realm") / exact - 1)
    assert relative.mean() == pytest.approx(0.009, abs=5e-4)
    assert np.abs(relative).mean() == pytest.approx(0.419, abs=5e-4)
    assert relative.min() == pytest.approx(-2.080, abs=5e-4)
    assert relative.max() == pytest.approx(1.771, abs=1e-3)
    assert relative.var() == pytest.approx(0.281, abs=5e-4)


def test_realm_constants():
    table = reference.realm_table(16)
    assert (table.sum(), table.max()) == (1368, 15)
    assert np.array_equal(table, table.T)


@pytest.mark.parametrize(
    ("method", "width", "digest"),
    [
        ("mitchell", None, "ac623c7e6e5bb79b33d6a5b71dcac0fd324788c73c71370e406c0600bbfab667"),
        ("mbm", 16, "dc2c5c50eb820657f593fde6927a18fbb591582e5e050d8cb727895f9a350d7a"),
    ],
)
def test_mantissa_tables_of_approxtrain(method, width, digest):
    x = (1 + np.arange(128) / 128).astype(np.float32)
    product = reference.multiply(x[:, np.newaxis], x, method=method, width=width)
    bits = product.view(np.uint32) - 0x3F800000
    table = (bits >> 23 << 7 | (bits & 0x7FFFFF) >> 16).astype(np.uint8)
    assert hashlib.sha256(table.tobytes()).hexdigest() == digest


def shortened(method: str, width, x: Fraction, m: int, present: int) -> Fraction:
    """The significand 1 + x of an operand, as the method sees it; it may be 2."""
    unit = Fraction(1, 2**m)
    if method.startswith("lmul") and width is not None:
        return 1 + Fraction(round(x * 2**width), 2**width)  # round() is half to even
    if method == "mbm" and width:
        return 1 + (x // (2 ** (width + 1) * unit)) * 2 ** (width + 1) * unit + 2**width * unit
    if method == "mitch-w":
        return 1 + Fraction(math.floor(x * 2 ** (width - 1)), 2 ** (width - 1))
    if method == "drum" and present > width - 1:
        if width == 1:
            return Fraction(1)
        kept = math.floor(x * 2 ** (width - 1)) | 1
        return 1 + Fraction(kept, 2 ** (width - 1))
    return 1 + x


def product_of(method: str, width, a: Fraction, b: Fraction, m: int) -> Fraction:
    """V of two significands in [1, 2), from the table of formulas."""
    x, y = a - 1, b - 1
    mitchell = 1 + x + y if x + y < 1 else 2 * (x + y)
    if method.startswith("lmul"):
        bits = width or m
        c = Fraction(1, 2 ** (bits if bits <= 3 else 3 if bits == 4 else 4))
        s = x + y + c
        if method == "lmul-formula":
            return 1 + s
        return 1 + s if s < 1 else 2 * s if s < 2 else 4 * (s - 1)
    if method == "mbm":
        c = Fraction(5, 64)
        skip = x + y >= 1 and (x + y - 1) + c / 2 >= 1
        return mitchell + (0 if skip else c)
    if method == "realm":
        s = reference.realm_table(width)[math.floor(width * x), math.floor(width * y)]
        return mitchell + Fraction(int(s), 64)
    if method == "ilm":
        total, p, q = Fraction(0), a, b
        for _ in range(width + 1):
            if p == 0 or q == 0:
                break
            lead_p, lead_q = (
                Fraction(2) ** (f.numerator.bit_length() - f.denominator.bit_length())
                for f in (p, q)
            )  # the denominator is a power of two
            total += lead_p * lead_q + (p - lead_p) * lead_q + (q - lead_q) * lead_p
            p, q = p - lead_p, q - lead_q
        return total
    if method == "drum":
        return a * b
    if method == "alm-soa":
        i, j = (int(f * 2**m) for f in (x, y))
        carry = (i >> (width - 1)) & (j >> (width - 1)) & 1
        s = Fraction(((i >> width) + (j >> width) + carry) * 2**width + 2**width - 1, 2**m)
        return 1 + s if s < 1 else 2 * s
    return mitchell


def literal(method, width, a, b, m, present_a, present_b) -> Fraction:
    p = shortened(method, width, a - 1, m, present_a)
    q = shortened(method, width, b - 1, m, present_b)
    carries = (p == 2) + (q == 2)
    p, q = (Fraction(1) if f == 2 else f for f in (p, q))
    return product_of(method, width, p, q, m) * 2**carries


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(("method", "width"), METHODS)
def test_integers_are_the_floor_of_the_formula(method, width, dtype):
    info = np.iinfo(dtype)
    m = info.bits - 1
    rng = np.random.default_rng(0)
    edges = [v for v in (info.min, -1, 0, 1, 2, 3, info.max) if v >= info.min]
    a = rng.integers(info.min, info.max, 60, dtype=dtype, endpoint=True)
    small = rng.integers(0, 128, 60).astype(dtype)
    a = np.concatenate([np.repeat(np.array(edges, dtype), len(edges)), a, small])
    b = np.concatenate([np.tile(np.array(edges, dtype), len(edges)), rng.permutation(a)])[: len(a)]
    got = reference.multiply(a, b, method=method, width=width)
    wide = np.iinfo(got.dtype)
    assert (wide.bits, wide.kind) == (2 * info.bits, info.kind)
    for x, y, p in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        if x * y == 0:
            assert p == 0
            continue
        k1, k2 = abs(x).bit_length() - 1, abs(y).bit_length() - 1
        value = literal(method, width, Fraction(abs(x), 2**k1), Fraction(abs(y), 2**k2), m, k1, k2)
        magnitude = math.floor(value * 2 ** (k1 + k2))
        expected = magnitude if x * y > 0 else -magnitude
        assert p == min(max(expected, wide.min), wide.max), (x, y)


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize(("method", "width"), [row for row in METHODS if row != ("alm-soa", 8)])
def test_floats_truncate_or_round_the_formula(method, width, fmt):
    dtype, word, m, one, tiny, inf, _ = fmt
    rng = np.random.default_rng(0)
    low = one - 2 ** (m + 2)
    a, b = rng.integers(low, low + 2 ** (m + 3), (2, 120), dtype=word)
    a[:8] = b[4:12] = one + np.array([0, 1, 2 ** (m - 1), 2**m - 1] * 2, dtype=word)
    a[-4:], b[-4:] = inf - 1, (tiny, one, inf - 1, tiny)
    got = reference.multiply(a.view(dtype), b.view(dtype), method=method, width=width).view(word)
    for x, y, p in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        (e1, f1), (e2, f2) = divmod(x, 2**m), divmod(y, 2**m)
        value = literal(method, width, 1 + Fraction(f1, 2**m), 1 + Fraction(f2, 2**m), m, m, m)
        exponent = e1 + e2 - (one >> m)
        while value >= 2:
            value, exponent = value / 2, exponent + 1
        scaled = (value - 1) * 2**m
        # A carry out of the fraction raises the exponent by itself.
        bits = (exponent << m) + (round(scaled) if method in REAL_PRODUCTS else math.floor(scaled))
        assert p == (0 if bits < tiny else min(bits, inf)), (hex(x), hex(y))


@pytest.mark.parametrize(("method", "width"), METHODS)
def test_methods_share_the_classes_of_operands(method, width):
    x = np.float32([0.0, -0.0, 1e-40, -1e-40, 1.0, -3.0, 3e38, -np.inf, np.inf, np.nan])
    got = reference.multiply(x[:, np.newaxis], x, method=method, width=width)
    plain = reference.multiply(x[:, np.newaxis], x)
    for test in (np.isnan, np.signbit, lambda v: v == 0):
        assert np.array_equal(test(got), test(plain))
    edge = np.isnan(plain) | np.isinf(x) | np.isinf(x[:, np.newaxis])
    assert got[edge].tobytes() == plain[edge].tobytes()


@pytest.mark.parametrize(("method", "width"), [*METHODS, ("operand-decomposition", None)])
def test_methods_are_commutative(method, width):
    a, b = np.random.default_rng(0).integers(0, 2**16, (2, 3000), dtype=np.uint16)
    options = {"method": method, "width": width}
    assert np.array_equal(reference.multiply(a, b, **options), reference.multiply(b, a, **options))


@pytest.mark.parametrize(("method", "width"), [("mbm", 7), ("mbm", 8), ("alm-soa", 8)])
def test_a_width_beyond_the_format_is_refused(method, width):
    with pytest.raises(ValueError, match=f"has no meaning with width {width} and 7 bits"):
        reference.multiply(np.uint8(3), np.uint8(3), method=method, width=width)


def test_operand_decomposition_sums_two_products():
    a = np.arange(256, dtype=np.uint8)
    got = reference.multiply(a[:, np.newaxis], a, method="operand-decomposition")
    b = a[:, np.newaxis]
    parts = reference.multiply(b & a, b | a), reference.multiply(b & ~a, ~b & a)
    assert np.array_equal(got, parts[0].astype(int) + parts[1])
    signed = np.arange(-128, 128, dtype=np.int8)
    got = reference.multiply(signed[:, np.newaxis], signed, method="operand-decomposition")
    magnitude = np.abs(signed.astype(int)).astype(np.uint8)
    plain = reference.multiply(magnitude[:, np.newaxis], magnitude, method="operand-decomposition")
    sign = np.sign(np.multiply.outer(signed.astype(int), signed))
    assert np.array_equal(got, plain.astype(int) * sign)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(0, 0x3F000000, 0xFF800000), (0x0DA24260, 0x0DA24260, 0xDBC484C0)],
)
def test_raw_mode_wraps(a, b, expected):
    a, b = (np.uint32(x).view(np.float32) for x in (a, b))
    assert bits_of(reference.multiply(a, b, mode="raw")) == expected


def test_raw_mode_of_large_numbers():
    def raw(a, b):
        return float(reference.multiply(np.float32(a), np.float32(b), mode="raw"))

    assert raw(1e-30, 1e-30) == pytest.approx(-1.106e17, rel=1e-3)
    assert raw(1e30, 1e30) == pytest.approx(-8.0e-18, rel=0.01)
    assert raw(np.inf, 1e-20) == pytest.approx(3.4e18, rel=0.01)
    assert raw(3.0, -3.0) == -8.0


def test_parity_with_kosson_and_jaggi():
    def product(a, b):
        return reference.multiply(np.float32(a), np.float32(b), mode="kosson-jaggi")

    for a, b in [(1e20, 1e17), (-1e20, 2e17), (np.inf, 1), (np.nan, 0), (np.inf, 0)]:
        assert np.isnan(product(a, b))
    for a, b in [(0, -3.0), (-1e-20, 1e-18), (1e-40, 1)]:
        assert bits_of(product(a, b)) == 0
    assert float(product(3, -3)) == -8.0
    assert np.isfinite(product(9.9e19, 1e17))
    assert float(product(-1e-18, 1.1e-19)) < 0


def test_tables_of_products_and_of_mantissas():
    table = np.random.default_rng(0).integers(0, 2**16, (256, 256), dtype=np.uint16)
    a, b = np.uint8([0, 1, 255]), np.uint8([7, 0, 3])
    got = reference.multiply(a, b, method="table", table=table)
    assert got.dtype == np.uint16
    assert got.tolist() == table[[0, 1, 255], [7, 0, 3]].tolist()
    signed = table.view(np.int16)
    got = reference.multiply(np.int8([-1, 3]), np.int8([2, -128]), method="table", table=signed)
    assert got.tolist() == [signed[255, 2], signed[3, 128]]

    i = np.arange(8)
    total = np.add.outer(i, i)
    mantissas = (total >= 8) << 7 | total % 8
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 4, (2, 500)).astype(np.float32)
    cut_x, cut_y = ((v.view(np.uint32) & 0xFFF00000).view(np.float32) for v in (x, y))
    got = reference.multiply(x, -y, method="table", table=mantissas)
    assert np.array_equal(got, reference.multiply(cut_x, -cut_y))


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float64, np.float32])
@pytest.mark.parametrize(("method", "width"), METHODS)
def test_numbers_without_axes(method, width, dtype):
    x, y = np.array([2**31 - 5, 2**30 + 12345], dtype)
    options = {"method": method, "width": width}
    got = reference.multiply(x, y, **options)
    assert got.shape == ()
    assert got == reference.multiply(x[np.newaxis], y, **options)[0]
