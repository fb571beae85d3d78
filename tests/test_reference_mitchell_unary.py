"""Reciprocal, square, square root, logarithm, exponential and power of the Mitchell reference."""

import math
from fractions import Fraction

import numpy as np
import pytest

from mitchell_formats import FORMAT_IDS, FORMATS, bits_of
from slipstick import reference


@pytest.fixture(scope="module")
def mantissas():
    """Midpoints of [1, 2) in float64; the midpoint rule is then good to 1e-11."""
    return 1 + (np.arange(100_000) + 0.5) / 100_000


def test_square_is_the_product(mantissas):
    relative = reference.square(mantissas) / mantissas**2 - 1
    assert relative.mean() == pytest.approx(-(2 + 2 * math.log(3) - 6 * math.log(2)), abs=1e-9)
    # The kink at 3/2 lies 5e-6 beside a midpoint, with slopes of at most 0.6.
    assert relative.min() == pytest.approx(-1 / 9, abs=3e-6)
    assert relative.max() <= 0
    assert reference.square(np.uint8([255, 3]), method="drum", width=3).tolist() == [
        (7 * 32) ** 2,
        9,
    ]


def test_reciprocal_has_the_documented_error(mantissas):
    got = reference.reciprocal(mantissas)
    relative = got * mantissas - 1
    assert relative.mean() == pytest.approx(1 / 12, abs=1e-9)
    assert relative.min() >= 0
    assert relative.max() == pytest.approx(1 / 8, abs=1e-9)
    x = np.float32([3.0, -1.7, 1e30])
    assert np.array_equal(
        reference.reciprocal(x).view(np.uint32) & 0x7FFFFFFF,
        0x7F000000 - (x.view(np.uint32) & 0x7FFFFFFF),
    )


def test_square_root_has_the_documented_error(mantissas):
    peak = 3 / (2 * math.sqrt(2)) - 1
    for scale, mean in [
        (1.0, (5 * math.sqrt(2) - 4) / 3 - 1),
        (2.0, (8 - 7 / math.sqrt(2)) / 3 - 1),
    ]:
        x = scale * mantissas
        relative = reference.sqrt(x) / np.sqrt(x) - 1
        assert relative.mean() == pytest.approx(mean, abs=1e-9)
        assert relative.min() >= -(2.0**-52)
        assert relative.max() <= peak + 1e-9
    assert float(reference.sqrt(np.float64(2))) / math.sqrt(2) - 1 == pytest.approx(peak)
    x = np.float32([1.0, 2.0, 9.0, 3e-38])
    expected = (x.view(np.uint32) >> 1) + 0x1FC00000
    assert np.array_equal(reference.sqrt(x).view(np.uint32), expected)


def test_logarithm_has_the_documented_error(mantissas):
    error = np.log2(mantissas) - reference.log2(mantissas)
    assert error.min() >= 0
    peak = 1 - (1 + math.log(math.log(2))) / math.log(2)
    assert error.max() == pytest.approx(peak, abs=1e-9)
    assert error.mean() == pytest.approx(1.5 - 1 / math.log(2), abs=1e-9)


def test_exponential_has_the_documented_error(mantissas):
    for shift in (1, 0, -5, 3.0):
        x = mantissas - shift
        relative = reference.exp2(x) / np.exp2(x) - 1
        assert relative.min() >= -(2.0**-52)
        assert relative.max() == pytest.approx(2 / (math.e * math.log(2)) - 1, abs=1e-9)
        assert relative.mean() == pytest.approx(1 / (2 * math.log(2) ** 2) - 1, abs=1e-9)


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
def test_bit_rules(fmt):
    dtype, word, m, one, tiny, inf, _ = fmt
    rng = np.random.default_rng(0)
    x = rng.integers(tiny, inf, 500, dtype=word)
    x[:4] = tiny, one, one + 1, inf - 1
    roots = reference.sqrt(x.view(dtype)).view(word).tolist()
    assert roots == [a // 2 + one // 2 for a in x.tolist()]
    logs = reference.log2(x.view(dtype)).astype(np.float64)
    unit = Fraction(1, 2**m)
    for a, got in zip(x.tolist(), logs.tolist(), strict=True):
        exact = (a - one) * unit
        # Rounded once to nearest even: the neighbours in the format are not closer.
        value = np.array(got).astype(dtype)
        error = abs(Fraction(got) - exact)
        for way in (-np.inf, np.inf):
            other = Fraction(float(np.nextafter(value, np.array(way).astype(dtype))))
            distance = abs(other - exact)
            assert error < distance or (error == distance and bits_of(value) % 2 == 0)
    y = rng.uniform(-20, 20, 500).astype(dtype)
    powers = reference.exp2(y).view(word).tolist()
    for a, got in zip(y.astype(np.float64).tolist(), powers, strict=True):
        bits = one + math.floor(Fraction(a) * 2**m)
        assert got == (0 if bits < tiny else min(bits, inf))
    for p in (2, -1, 0.5, 1 / 3, -2.75, 3):
        got = reference.power(x.view(dtype), p).view(word).tolist()
        for a, result in zip(x.tolist(), got, strict=True):
            bits = one + math.floor(Fraction(p) * (a - one))
            assert result == (0 if bits < tiny else min(bits, inf))


def test_exponential_inverts_the_logarithm():
    # Below 2 in magnitude the logarithm has at least m fraction bits and is exact.
    x = np.random.default_rng(0).uniform(0.25, 4, 1000).astype(np.float32)
    assert np.array_equal(reference.exp2(reference.log2(x)), x)


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        ("sqrt", "-0", "-0"),
        ("sqrt", "-subnormal", "-0"),
        ("sqrt", "subnormal", "0"),
        ("sqrt", "-1", "nan"),
        ("sqrt", "-inf", "nan"),
        ("sqrt", "inf", "inf"),
        ("sqrt", "-nan", "nan"),
        ("log2", "0", "-inf"),
        ("log2", "-0", "-inf"),
        ("log2", "-subnormal", "-inf"),
        ("log2", "-1", "nan"),
        ("log2", "-inf", "nan"),
        ("log2", "inf", "inf"),
        ("log2", "1", "0"),
        ("log2", "nan", "nan"),
        ("exp2", "0", "1"),
        ("exp2", "-0", "1"),
        ("exp2", "-subnormal", "1"),
        ("exp2", "-tiny", "below"),
        ("exp2", "tiny", "1"),
        ("exp2", "1", "2"),
        ("exp2", "-1", "0.5"),
        ("exp2", "inf", "inf"),
        ("exp2", "-inf", "0"),
        ("exp2", "max", "inf"),
        ("exp2", "-max", "0"),
        ("exp2", "-nan", "nan"),
        ("reciprocal", "-0", "-inf"),
        ("reciprocal", "subnormal", "inf"),
        ("reciprocal", "-inf", "-0"),
        ("reciprocal", "-max", "-0"),
        ("reciprocal", "nan", "nan"),
        ("reciprocal", "2", "0.5"),
    ],
)
def test_edges(fmt, function, x, expected):
    dtype, word, fraction, one, tiny, inf, nan = fmt
    pattern = {
        "0": 0,
        "subnormal": tiny - 1,
        "tiny": tiny,
        "0.5": one - 2**fraction,
        "below": one - 1,
        "1": one,
        "2": one + 2**fraction,
        "max": inf - 1,
        "inf": inf,
        "nan": nan,
    }
    top = 8 * np.dtype(dtype).itemsize - 1

    def value(name):
        bits = pattern[name.removeprefix("-")] | (name.startswith("-") << top)
        return np.array(bits, dtype=word).view(dtype)

    got = getattr(reference, function)(value(x))
    if expected == "nan":
        assert np.isnan(got.astype(np.float64))
    else:
        assert bits_of(got) == bits_of(value(expected))


def test_powers_follow_ieee_in_special_cases():
    inf, nan = np.inf, np.nan
    bases = np.float64([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, inf, -inf, nan])
    exponents = np.float64([0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, inf, -inf, nan, 1e300, -1e300])
    got = reference.power(bases[:, np.newaxis], exponents)
    with np.errstate(all="ignore"):
        expected = np.power(bases[:, np.newaxis], exponents)
    # Powers of two are exact, but for fractional exponents.
    exact = (np.abs(exponents) != 0.5) | np.isin(np.abs(bases), [0, 1, inf])[:, np.newaxis]
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    shown = exact & ~np.isnan(expected)
    assert np.array_equal(got[shown], expected[shown])
    assert np.array_equal(np.signbit(got[shown]), np.signbit(expected[shown]))
    for exponent in (2, 3, -3, 0, 0.5, inf, nan):  # Python numbers
        with np.errstate(all="ignore"):
            expected = np.power(bases[:4], float(exponent))
        np.testing.assert_array_equal(reference.power(bases[:4], exponent), expected)


def test_powers_count_subnormals_as_zero():
    x = np.float32([1e-40, -1e-40, 5.0])
    assert reference.power(x, -1).tolist() == [np.inf, -np.inf, 0.21875]
    assert reference.power(x, np.float32([3, 3, 1e-40])).tolist() == [0.0, 0.0, 1.0]
    assert math.copysign(1, reference.power(x, 3)[1]) == -1


def test_powers_compound_the_bit_rule():
    x = np.random.default_rng(0).uniform(0.1, 10, 500).astype(np.float32)
    assert np.array_equal(reference.power(x, 2), reference.square(x))
    assert np.array_equal(reference.power(x, 0.5), reference.sqrt(x))
    assert np.array_equal(reference.power(x, -1), reference.reciprocal(x))
    assert np.array_equal(reference.power(-x, 3), -reference.power(x, 3))
    assert np.array_equal(reference.power(x, 10**40)[x > 1], np.full((x > 1).sum(), np.inf))
