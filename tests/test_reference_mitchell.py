"""The Mitchell reference against published figures, closed forms and the literal bit rules."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from mitchell_formats import FORMAT_IDS, FORMATS, INTEGERS, bias_of, bits_of, ml_dtypes
from slipstick import reference

DTYPES = [*INTEGERS, *(row[0] for row in FORMATS)]

# C in float32 of the documented offsets, with bias, mean |error| and RMS of the relative error in
# percent for uniform mantissas.
OFFSETS = [
    (0x3F800000, -3.849, 3.849, 4.842),
    (0x3F78C094, 0.000, 2.579, 3.055),
    (0x3F7A14E1, -0.717, 2.525, 3.117),
    (0x3F78EDB6, -0.095, 2.566, 3.054),
    (0x3F772FAD, 0.852, 2.772, 3.197),
    (0x3F780000, 0.408, 2.655, 3.095),
    (0x3F78EF35, -0.099, 2.565, 3.054),
    (0x3F76D000, 1.056, 2.837, 3.264),
]


@pytest.fixture(scope="module")
def bytes_table():
    """All products of two uint8 numbers, with the exact ones."""
    a = np.arange(256, dtype=np.uint8)
    exact = np.multiply.outer(a.astype(np.int64), a.astype(np.int64))
    return reference.multiply(a[:, np.newaxis], a), exact


@pytest.fixture(scope="module")
def mantissas():
    """Midpoints of a 1024 x 1024 grid over [1, 2)^2, exact in float32, with the exact products.

    The error of the midpoint rule is h^2/24 times a second derivative of order 1, below 1e-7.
    """
    x = (1 + (np.arange(1024) + 0.5) / 1024).astype(np.float32)
    return x[:, np.newaxis], x, np.multiply.outer(x.astype(np.float64), x.astype(np.float64))


def test_eight_bit_products_have_the_published_errors(bytes_table):
    approximate, exact = bytes_table
    assert approximate.dtype == np.uint16
    difference = approximate.astype(np.int64) - exact
    nonzero = exact > 0
    relative = difference[nonzero] / exact[nonzero]
    assert 100 * relative.mean() == pytest.approx(-3.7878, abs=5e-5)
    assert 100 * relative.sum() / exact.size == pytest.approx(-3.7583, abs=5e-5)
    assert relative.var() == pytest.approx(8.889e-4, abs=5e-8)
    assert relative.max() == 0
    worst = 9 * difference == -exact
    assert not np.any(9 * difference < -exact)
    assert np.count_nonzero(worst & nonzero) == 49
    three_times_a_power = np.isin(np.arange(256), 3 * 2 ** np.arange(7))
    assert np.array_equal(worst & nonzero, np.outer(three_times_a_power, three_times_a_power))
    assert np.abs(difference).max() == 4096
    assert np.array_equal(np.argwhere(np.abs(difference) == 4096), [[192, 192]])
    assert np.abs(difference).mean() == pytest.approx(606.398, abs=5e-4)
    assert 100 * np.abs(difference).mean() / 255**2 == pytest.approx(0.93256, abs=5e-6)
    assert 100 * np.count_nonzero(difference) / exact.size == pytest.approx(93.092, abs=5e-4)


def test_eight_bit_table_has_the_published_hash(bytes_table):
    approximate, _ = bytes_table
    assert int(approximate.astype(np.int64).sum()) == 1_025_628_691
    assert hashlib.sha256(approximate.astype("<u2").tobytes()).hexdigest() == (
        "a11b4b5726f98c07449de9f768a303c15b4e9434a40a680afa342bdae92003b4"
    )


def test_integer_product_equals_the_float32_bit_add(bytes_table):
    def bit_add(a, b):
        a, b = (x.astype(np.float32).view(np.int32) for x in (a, b))
        return (a + (b - 0x3F800000)).view(np.float32).astype(np.int64)

    a = np.arange(1, 256)
    assert np.array_equal(bytes_table[0][1:, 1:], bit_add(a[:, np.newaxis], a))
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 2**16, (2, 20_000))
    assert np.array_equal(
        reference.multiply(a.astype(np.uint16), b.astype(np.uint16)), bit_add(a, b)
    )


def test_sixteen_bit_mean_error():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 2**16, (2, 4_000_000)).astype(np.float32)
    exact = a.astype(np.float64) * b
    # 0.002 is the spread that the documentation states; the standard error is 2.94 / 2000 = 0.0015.
    relative = reference.multiply(a, b) / exact - 1
    assert 100 * relative.mean() == pytest.approx(-3.846, abs=0.002 + 2 * 0.0015)


def test_errors_of_the_plain_product_match_the_closed_forms(mantissas):
    a, b, exact = mantissas
    relative = reference.multiply(a, b) / exact - 1
    benford = 1 / exact
    benford /= benford.sum()
    assert 100 * relative.mean() == pytest.approx(-3.848799, abs=1e-5)
    assert relative.var() == pytest.approx(8.6313e-4, abs=1e-8)
    mean = (benford * relative).sum()
    assert mean == pytest.approx(-(1 - 2 / (3 * math.log(2))), abs=1e-7)
    assert (benford * (relative - mean) ** 2).sum() == pytest.approx(8.4129e-4, abs=1e-8)
    quantiles = np.quantile(relative, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(100 * quantiles, [-9.36, -6.03, -3.27, -1.27, -0.17], atol=6e-3)
    ratio = reference.multiply(a, b).astype(np.float64).mean() / exact.mean()
    assert ratio == pytest.approx(26 / 27, abs=1e-6)


@pytest.mark.parametrize("row", OFFSETS, ids=lambda row: f"{row[0]:08x}")
def test_offsets_have_the_documented_errors(mantissas, row):
    c, bias, mred, rms = row
    d = bias_of(c)
    a, b, exact = mantissas
    relative = 100 * (reference.multiply(a, b, bias=d).astype(np.float64) / exact - 1)
    # The documentation rounds to 3 digits, 5e-4; the grid adds below 1e-4.
    assert relative.mean() == pytest.approx(bias, abs=6e-4)
    assert np.abs(relative).mean() == pytest.approx(mred, abs=6e-4)
    assert np.sqrt((relative**2).mean()) == pytest.approx(rms, abs=6e-4)
    # The extremes are d at x = y = 0 and 8/(3 - d)^2 - 1 at x = y = (1 - d)/2; one unit of float32
    # in an operand moves them by 2^-23.
    one = np.float32(1)
    assert float(reference.multiply(one, one, bias=d)) == 1 + d
    valley = np.float32(1 + (1 - d) / 2)
    lowest = float(reference.multiply(valley, valley, bias=d)) / float(valley) ** 2 - 1
    assert lowest == pytest.approx(8 / (3 - d) ** 2 - 1, abs=2**-22)
    assert relative.max() <= 100 * d
    assert relative.min() >= 100 * (8 / (3 - d) ** 2 - 1 - 2**-22)


def test_log_uniform_offset_has_the_documented_errors(mantissas):
    a, b, exact = mantissas
    weight = 1 / exact / (1 / exact).sum()
    product = reference.multiply(a, b, bias=bias_of(0x3F78CF87)).astype(np.float64)
    relative = 100 * (product / exact - 1)
    assert (weight * relative).sum() == pytest.approx(0, abs=6e-4)
    assert (weight * np.abs(relative)).sum() == pytest.approx(2.607, abs=6e-4)
    assert np.sqrt((weight * relative**2).sum()) == pytest.approx(3.095, abs=6e-4)


def test_minimax_offset_is_the_root_of_its_cubic():
    d = bias_of(0x3F772FAD)
    # The slope at the root is 14, so half a unit of float32 moves the cubic by 14 * 2^-24.
    assert abs(d**3 - 7 * d**2 + 15 * d - 1) <= 14 * 2**-24


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
def test_offset_of_a_format_is_rounded_half_to_even(fmt):
    dtype, _, fraction, one, *_ = fmt
    unit = 2.0**-fraction
    for d, units in [(0, 0), (0.5, 0), (1.5, 2), (2.5, 2), (2.5000001, 3), (3.49, 3)]:
        got = bits_of(reference.multiply(dtype(1), dtype(1), bias=d * unit))
        assert got - one == units


def test_two_named_offsets_coincide_in_bfloat16():
    one = ml_dtypes.bfloat16(1)
    for c in (0x3F78C094, 0x3F78EDB6):
        assert bits_of(reference.multiply(one, one, bias=bias_of(c))) == 0x3F80 + 7


def literal_product(a: int, b: int, c: int, fmt, sign: int, quotient: bool) -> int:
    """The rules of the documentation on |a| and |b| as Python integers."""
    _, _, _, _, tiny, inf, nan = fmt
    top = sign << (8 * np.dtype(fmt[0]).itemsize - 1)
    if a > inf or b > inf:
        return nan
    a, b = (x if x >= tiny else 0 for x in (a, b))
    if quotient:
        if (a == 0 and b == 0) or (a == inf and b == inf):
            return nan
        if a == inf or b == 0:
            return top | inf
        if a == 0 or b == inf:
            return top
    else:
        if (a == inf and b == 0) or (a == 0 and b == inf):
            return nan
        if a == inf or b == inf:
            return top | inf
        if a == 0 or b == 0:
            return top
    m = a - b + c if quotient else a + b - c
    return top | (0 if m < tiny else inf if m >= inf else m)


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("bias", [0.0, 1 / 16, bias_of(0x3F772FAD), 0.9999999])
def test_floats_follow_the_bit_rules(fmt, bias):
    dtype, word, fraction, one, tiny, inf, nan = fmt
    width = 8 * np.dtype(dtype).itemsize
    rng = np.random.default_rng(0)
    special = [0, 1, tiny - 1, tiny, tiny + 1, one - 1, one, one + 1, inf - 1, inf, inf + 1, nan]
    special = np.array([s | t << (width - 1) for s in special for t in (0, 1)], dtype=word)
    anything = rng.integers(0, 2**width, 2000, dtype=word)
    # Exponents near one, so that most results are in range in float16 too.
    low = one - 2 ** (fraction + 2)
    middle = rng.integers(low, low + 2 ** (fraction + 3), 2000, dtype=word)
    values = np.concatenate([special, anything, middle])
    pairs = [np.repeat(special, len(special)), np.tile(special, len(special))]
    a = np.concatenate([pairs[0], values])
    b = np.concatenate([pairs[1], rng.permutation(values)])
    c = one - round(Fraction(bias) * 2**fraction)
    magnitude = 2 ** (width - 1) - 1
    for quotient, function in [(False, reference.multiply), (True, reference.divide)]:
        got = function(a.view(dtype), b.view(dtype), bias=bias)
        assert got.dtype == dtype
        expected = [
            literal_product(x & magnitude, y & magnitude, c, fmt, (x ^ y) >> (width - 1), quotient)
            for x, y in zip(a.tolist(), b.tolist(), strict=True)
        ]
        assert got.view(word).tolist() == expected
        finite = (got.view(word) & word(magnitude)) < word(inf)
        assert np.count_nonzero(finite) > 1000


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize(
    ("function", "a", "b", "expected"),
    [
        ("multiply", "nan", "1", "nan"),
        ("multiply", "-1", "nan", "nan"),
        ("multiply", "inf", "0", "nan"),
        ("multiply", "-0", "inf", "nan"),
        ("multiply", "inf", "subnormal", "nan"),
        ("multiply", "-inf", "2", "-inf"),
        ("multiply", "-inf", "-inf", "inf"),
        ("multiply", "-0", "3", "-0"),
        ("multiply", "-0", "-3", "0"),
        ("multiply", "subnormal", "-3", "-0"),
        ("multiply", "tiny", "-0.5", "-0"),
        ("multiply", "tiny", "1", "tiny"),
        ("multiply", "max", "-2", "-inf"),
        ("multiply", "max", "-1", "-max"),
        ("divide", "1", "0", "inf"),
        ("divide", "-1", "0", "-inf"),
        ("divide", "1", "subnormal", "inf"),
        ("divide", "inf", "-0", "-inf"),
        ("divide", "0", "-0", "nan"),
        ("divide", "subnormal", "0", "nan"),
        ("divide", "inf", "inf", "nan"),
        ("divide", "-2", "inf", "-0"),
        ("divide", "0", "-2", "-0"),
        ("divide", "-inf", "2", "-inf"),
        ("divide", "nan", "nan", "nan"),
        ("divide", "tiny", "-2", "-0"),
        ("divide", "max", "0.5", "inf"),
        ("divide", "max", "max", "1"),
    ],
)
def test_edges(fmt, function, a, b, expected):
    dtype, word, fraction, one, tiny, inf, nan = fmt
    pattern = {
        "0": 0,
        "subnormal": tiny - 1,
        "tiny": tiny,
        "0.5": one - 2**fraction,
        "1": one,
        "2": one + 2**fraction,
        "3": one + 3 * 2 ** (fraction - 1),
        "max": inf - 1,
        "inf": inf,
        "nan": nan,
    }
    top = 8 * np.dtype(dtype).itemsize - 1

    def value(name):
        bits = pattern[name.removeprefix("-")] | (name.startswith("-") << top)
        return np.array(bits, dtype=word).view(dtype)

    assert bits_of(getattr(reference, function)(value(a), value(b))) == bits_of(value(expected))


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
def test_powers_of_two_are_exact(fmt):
    dtype = fmt[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(500).astype(dtype)
    for power in (-4.0, 0.125, 1.0, 2.0, -1024.0):
        exact = x * dtype(power)
        normal = np.abs(exact.astype(np.float64)) >= float(np.array(fmt[4], fmt[1]).view(dtype))
        assert np.count_nonzero(normal) > 450
        got = reference.multiply(x, dtype(power))
        assert np.array_equal(got[normal], exact[normal])
        assert np.array_equal(reference.multiply(dtype(power), x)[normal], exact[normal])
        quotient = reference.divide(exact, dtype(power))
        assert np.array_equal(quotient[normal], x[normal])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("bias", [0.0, 1 / 16])
def test_multiply_is_commutative(dtype, bias):
    dtype = np.dtype(dtype)
    word = np.dtype(f"u{dtype.itemsize}")
    a, b = np.random.default_rng(0).integers(0, 2 ** (8 * dtype.itemsize), (2, 2000), dtype=word)
    ab = reference.multiply(a.view(dtype), b.view(dtype), bias=bias)
    ba = reference.multiply(b.view(dtype), a.view(dtype), bias=bias)
    assert ab.tobytes() == ba.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("bias", [0.0, 1 / 16, bias_of(0x3F772FAD), 0.3, 1e-12])
def test_integers_follow_the_exact_rational_formula(dtype, bias):
    info = np.iinfo(dtype)
    wide = np.iinfo(reference.multiply(dtype(1), dtype(1)).dtype)
    assert (wide.bits, wide.kind) == (2 * info.bits, info.kind)
    rng = np.random.default_rng(0)
    edges = [v for v in (info.min, info.min + 1, -1, 0, 1, 2, 3, info.max) if v >= info.min]
    a = rng.integers(info.min, info.max, 600, dtype=dtype, endpoint=True)
    a = np.concatenate([np.repeat(np.array(edges, dtype), len(edges)), a])
    b = np.concatenate([np.tile(np.array(edges, dtype), len(edges)), rng.permutation(a)])[: len(a)]
    got = reference.multiply(a, b, bias=bias)
    for x, y, p in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        if x * y == 0:
            assert p == 0
            continue
        k1, k2 = math.floor(math.log2(abs(x))), math.floor(math.log2(abs(y)))
        s = Fraction(abs(x), 2**k1) - 1 + Fraction(abs(y), 2**k2) - 1 + Fraction(bias)
        value = 1 + s if s < 1 else 2 * s if s < 2 else 4 * (s - 1)
        magnitude = math.floor(value * 2 ** (k1 + k2))
        expected = magnitude if x * y > 0 else -magnitude
        assert p == min(max(expected, wide.min), wide.max)


def test_integers_saturate():
    top = np.uint8(255)
    assert int(reference.multiply(top, top)) == 65024
    assert int(reference.multiply(top, top, bias=1 / 16)) == 65535


def test_residual_of_the_integer_product(bytes_table):
    approximate, exact = bytes_table
    a = np.arange(1, 256)
    power = 2 ** np.floor(np.log2(a)).astype(np.int64)
    below, above, outer = a - power, 2 * power - a, np.multiply.outer
    carry = outer(below, power) + outer(power, below) >= outer(power, power)
    residual = np.where(carry, outer(above, above), outer(below, below))
    assert np.array_equal((exact - approximate)[1:, 1:], residual)


def test_quotient_errors_match_the_closed_forms(mantissas):
    a, b, exact = mantissas
    weight = 1 / exact / (1 / exact).sum()
    true = a.astype(np.float64) / b
    relative = reference.divide(a, b) / true - 1
    assert relative.min() >= 0
    assert relative.max() <= 0.125
    assert 100 * relative.mean() == pytest.approx(100 * (math.log(2) / 2 - 11 / 36), abs=1e-4)
    assert 100 * (weight * relative).sum() == pytest.approx(4.068, abs=5e-4)
    assert float(reference.divide(np.float32(1), np.float32(1.5))) == 0.75
    reciprocal = reference.divide(np.float32(1), b).astype(np.float64) * b - 1
    assert reciprocal.mean() == pytest.approx(1 / 12, abs=1e-6)
    # Offsets of the quotient: 0.0748 is its minimax, 0.0580 makes it unbiased.
    minimax = 100 * (reference.divide(a, b, bias=0.0748) / true - 1)
    assert minimax.max() == pytest.approx(6.95, abs=0.01)
    assert minimax.min() == pytest.approx(-6.95, abs=0.01)
    # Rounding d to 4 digits moves it by 5e-5 at most, and the mean error by less.
    assert abs((reference.divide(a, b, bias=0.0580) / true - 1).mean()) <= 5e-5


def test_gain_matches_its_integrals(mantissas):
    a, b, exact = mantissas
    assert reference.gain(0.0) == pytest.approx(26 / 27, abs=1e-15)
    for d in (0.0, 1 / 16, bias_of(0x3F78C094), 0.3):
        product = reference.multiply(a, b, bias=d).astype(np.float64)
        # Log-uniform mantissas have density 1 / (T ln^2 2), so E[P T] / E[T^2] = mean P / mean T.
        assert product.mean() / exact.mean() == pytest.approx(reference.gain(d), abs=2e-6)
