"""The kernels of a matrix product agree bit for bit wherever they may run.

"sums" adds patterns alone, with zeros moved far below; "flushed" forms every product with its
rules for zero and underflow; "general" is the rule of `multiply` itself.
"""

from __future__ import annotations

import contextlib
import math

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import (
    BF16,
    FLOATS,
    all_methods,
    assert_same_bits,
    assert_same_numbers,
    fraction_bits,
    ordered_sum,
)
from remembered import remembered
from slipstick import _cpu, mitchell
from slipstick._arrays import framework_of

EMPTY = framework_of("test", np.zeros(1)).empty
DEPTH = 70  # 2^L >= depth for L = 7
LENGTH = 7
REFUSED = r"^matmul: `path` must be one that the operands' range allows, got {}$"


def multiply(a: np.ndarray, b: np.ndarray, method: mitchell.Method, path: str) -> np.ndarray:
    return _cpu.matmul(a, b, method._native, 1.0, None, EMPTY, path)


def bit_sums(dtype: np.dtype) -> list[mitchell.Method]:
    """Methods that are a sum of patterns, and so have all three kernels."""
    kinds = ("mitchell", "lmul", "mitch-w", "alm-soa")
    return [
        method
        for method, options in all_methods(dtype)
        if options.get("method") in kinds and "mode" not in options
    ]


FEW = [
    *(mitchell.Mitchell(d) for d in (None, 1 / 16, 0.9)),
    *(mitchell.LMul(3), mitchell.ALMSOA(4), mitchell.MitchW(3)),
]


def numbers(
    rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, int], low: int, high: int
) -> np.ndarray:
    """Any fractions, the extreme ones often, and exponents from `low` to `high`, both there."""
    m = fraction_bits(dtype)
    fraction = rng.integers(0, 2**m, shape)
    fraction = np.where(rng.random(shape) < 0.2, 0, fraction)
    fraction = np.where(rng.random(shape) < 0.2, 2**m - 1, fraction)
    exponent = rng.integers(low, high, shape, endpoint=True)
    exponent = np.where(rng.random(shape) < 0.3, rng.choice([low, high], shape), exponent)
    exponent.flat[:2] = low, high
    if low <= 0 <= high:
        exponent.flat[2] = 0
    magnitude = np.ldexp(1 + fraction / 2.0**m, exponent)
    return np.where(rng.random(shape) < 0.5, -magnitude, magnitude).astype(dtype)


@remembered
def operands(
    dtype: np.dtype,
    range_a: tuple[int, int],
    range_b: tuple[int, int],
    zeros: str = "",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Operands whose sums also cancel exactly and, with zeros, consist of nothing else.

    Some rows of `a` have a single number, the smallest, beside zeros that meet the largest of `b`.
    """
    rng = np.random.default_rng(seed)
    a = numbers(rng, dtype, (9, DEPTH), *range_a)
    b = numbers(rng, dtype, (DEPTH, 37), *range_b)
    tiny = np.float64(ml_dtypes.finfo(dtype).smallest_subnormal)
    nothing = np.array([0.0, -0.0, tiny, -tiny]).astype(dtype)
    for name, array in (("a", a), ("b", b)):
        if name in zeros:
            keep = array.copy()
            array[rng.random(array.shape) < 0.3] = 0
            array[:] = np.where(array == 0, rng.choice(nothing, array.shape), array)
            array.flat[:3] = keep.flat[:3]
    if "a" in zeros:
        a[1] = rng.choice(nothing, DEPTH)
        a[2] = 0
        a[2, 5] = np.ldexp(1.0, range_a[0])
        a[3] = np.where(np.arange(DEPTH) % 7 == 0, a[3], -0.0)
    if "b" in zeros:
        b[:, 3] = 0
        b[:, 4] = 0
        b[-1, 4] = -np.ldexp(1.0, range_b[0])
    # Pairs of products that cancel: the second half of each row of `a` undoes the first.
    a[4, DEPTH // 2 :] = -a[4, : DEPTH // 2]
    b[DEPTH // 2 :, 7:] = b[: DEPTH // 2, 7:]
    return a, b


def expected(a: np.ndarray, b: np.ndarray, method: mitchell.Method) -> np.ndarray:
    products = mitchell.multiply(a[:, None, :], b.T[None, :, :], method=method)
    with np.errstate(all="ignore"):
        acc = np.float64 if a.dtype == np.float64 else np.float32
        return ordered_sum(products, acc).astype(a.dtype)


def assert_agree(
    a: np.ndarray, b: np.ndarray, method: mitchell.Method, served: set[str] | None = None
) -> None:
    """All paths give the sums of the products, or refuse; `served` are those that must not."""
    wanted = expected(a, b, method)
    able = set()
    for path in ("auto", "sums", "flushed", "general"):
        if path in ("sums", "flushed"):
            with contextlib.suppress(ValueError):
                multiply(a, b, method, path)
                able.add(path)
            if path not in able:
                with pytest.raises(ValueError, match=REFUSED.format(path)):
                    multiply(a, b, method, path)
                continue
        result = multiply(a, b, method, path)
        able.add(path)
        assert_same_numbers(result, wanted)
    if served is not None:
        assert able == served | {"auto", "general"}, method


@pytest.mark.parametrize("zeros", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_ordinary_numbers_on_every_path(isa, dtype, zeros):
    """Products within the range of every format, 2^-14 to 2^15, and carries beyond 2^6 2^6."""
    a, b = operands(dtype, (-5, 5), (-4, 6), zeros)
    for method in bit_sums(dtype):
        assert_agree(a, b, method, {"sums", "flushed"})


def limits(dtype: np.dtype) -> tuple[int, int, int]:
    """G without L, the highest exponent field, and the bias: of the format that sums are in."""
    return (108, 2046, 1023) if dtype == np.float64 else (50, 254, 127)


@pytest.mark.parametrize("method", FEW, ids=repr)
@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float64"), BF16], ids=str)
def test_limits_of_the_certificate_with_zeros_in_both(isa, dtype, method):
    """2 (RA + RB) + 2 + 2 G + carry + L fits the exponents: specification, 7.3."""
    gap, highest, _ = limits(dtype)
    gap += LENGTH + isinstance(method, mitchell.ALMSOA)
    carry = 2 if isinstance(method, mitchell.LMul) or getattr(method, "bias", None) else 1
    limit = (highest - carry - LENGTH - 2 - 2 * gap) // 2
    if isinstance(method, mitchell.LMul) and method.bits < fraction_bits(dtype):
        limit -= 2  # rounding may raise the highest exponent of either
    for total in (limit - 7, limit - 1, limit, limit + 1, limit + 9):
        for share in (0, total // 2, total):
            low_a, low_b = -(share // 2), -((total - share) // 2)
            a, b = operands(
                dtype, (low_a, low_a + share), (low_b, low_b + total - share), "ab", total
            )
            served = {"sums", "flushed"} if total <= limit else {"flushed"}
            assert_agree(a, b, method, served)


@pytest.mark.parametrize("zeros", ["a", "b", ""])
@pytest.mark.parametrize("method", FEW, ids=repr)
@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float64"), BF16], ids=str)
def test_limits_of_the_certificate_with_fewer_zeros(isa, dtype, method, zeros):
    """RA + 2 RB + 1 + G + carry + L with zeros in `a`, its mirror with zeros in `b`."""
    gap, highest, bias = limits(dtype)
    gap += LENGTH + isinstance(method, mitchell.ALMSOA)
    carry = 2 if isinstance(method, mitchell.LMul) or getattr(method, "bias", None) else 1
    for other in (0, 1, 20):
        limit = highest - carry - LENGTH - 2 * other - 1 - gap
        own = min(limit, highest - carry - LENGTH - other - 1) if zeros else bias
        for reach in (own - 9, own - 3, own - 2, own - 1, own, own + 1, own + 2):
            wide, narrow = (-(reach // 2), reach - reach // 2), (-(other // 2), other - other // 2)
            ranges = (narrow, wide) if zeros == "b" else (wide, narrow)
            a, b = operands(dtype, *ranges, zeros, reach)
            assert_agree(a, b, method)
            if own - 3 > reach:
                assert_agree(a, b, method, {"sums", "flushed"})


def assert_thin(a: np.ndarray, b: np.ndarray, method: mitchell.Method) -> None:
    """Few rows and few columns, in either layout: what the general kernel gives."""
    wanted = multiply(a, b, method, "general")
    for rows in (1, 2, 3, 4, 7, 8):
        for right in (b, np.asfortranarray(b)):
            for left, other in ((a[:rows], right), (right.T, a[:rows].T)):
                result = multiply(left, other, method, "auto")
                result = result if other is right else result.T
                assert_same_numbers(result, wanted[:rows])


@pytest.mark.parametrize("zeros", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_few_rows_at_every_range(isa, dtype, zeros):
    """The right operand is looked at while it is read: its limits move with the left one's."""
    info = ml_dtypes.finfo(dtype)
    low, high = int(info.minexp), int(info.maxexp) - 1
    for method in (mitchell.Mitchell(), mitchell.Mitchell(1 / 16), mitchell.Mitchell(0.9)):
        for own in ((0, 0), (-3, 5), (low // 2, low // 2 + 2), (low, low + 1), (high - 1, high)):
            least = max(low, low - own[0])
            most = min(high, high - own[1])
            for other in (
                *((least + step, least + step + 3) for step in (-2, -1, 0, 1, 2, 60)),
                *((most - step - 3, most - step) for step in (-1, 0, 1, 2, 3, 9, 10, 11)),
                *((bound, bound + 4) for bound in range(-80, -40, 3)),
            ):
                other = (max(low, other[0]), min(high, other[1]))
                if other[0] <= other[1]:
                    a, b = operands(dtype, own, other, zeros, other[0] % 97)
                    assert_thin(a, b, method)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_few_rows_of_infinities_and_nans(isa, dtype):
    """All of a row may be one of these: a range like any other."""
    info = ml_dtypes.finfo(dtype)
    specials = np.array([np.inf, -np.inf, np.nan, 0.0, 1.0, float(info.max)]).astype(dtype)
    rng = np.random.default_rng(12)
    for exponent in (int(info.minexp), -12, 0, int(info.maxexp) - 1):
        for chosen in (specials[:1], specials[2:3], specials[:4:3], specials[:4], specials):
            a = rng.choice(chosen, (8, 5))
            b = (rng.choice([-1, 0, 1], (5, 9)) * 2.0**exponent).astype(dtype)
            for method in (mitchell.Mitchell(), mitchell.Mitchell(1 / 16)):
                assert_thin(a, b, method)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_zero_beside_the_last_place(isa, dtype):
    """What the largest number gives with a zero stays below a sum that cancels to one ulp."""
    info = ml_dtypes.finfo(dtype)
    step = float(info.eps)
    for spread in (0, 4, 8):
        a = np.array([[1, 1, 2.0**spread]]).astype(dtype)
        for exponent in range(int(info.minexp), int(info.maxexp) - 1):
            one = math.ldexp(1.0, exponent)
            b = np.array([[one * (1 + step)], [-one], [0]]).astype(dtype)
            wanted = np.array([[one * step]]).astype(dtype)
            for right in (b, np.asfortranarray(np.repeat(b, 9, axis=1))):
                result = mitchell.matmul(a, right)
                assert_same_bits(result, np.repeat(wanted, right.shape[1], axis=1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("depth", [1, 3, 15, 17, 255, 257, 2049, 4100])
def test_few_rows_of_every_depth(isa, threads, dtype, depth):
    rng = np.random.default_rng(depth)
    a = (rng.standard_normal((8, depth)) * (rng.random((8, depth)) < 0.9)).astype(dtype)
    b = rng.standard_normal((depth, 133)).astype(dtype)
    assert_thin(a, b, mitchell.Mitchell())
    b[depth // 2, 77] = np.inf
    assert_thin(a, b, mitchell.Mitchell())


@pytest.mark.parametrize("zeros", ["", "ab"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_products_at_the_ends_of_the_range(isa, dtype, zeros):
    """Below the normal range products are flushed one by one, above it they are infinite."""
    info = ml_dtypes.finfo(dtype)
    low, high = int(info.minexp), int(info.maxexp) - 1
    for method in bit_sums(dtype):
        half = low // 2
        a, b = operands(dtype, (half - 2, half + 1), (half - 1, half + 2), zeros)
        assert_agree(a, b, method, {"flushed"})
        a, b = operands(dtype, (low, low + 2), (-2, 1), zeros)
        assert_agree(a, b, method, {"flushed"})
        for up in (-4, -3, -2, -1, 0, 1):
            a, b = operands(dtype, (high // 2 - 1, high // 2), (0, high - high // 2 + up), zeros)
            assert_agree(a, b, method)
        a, b = operands(dtype, (high - 1, high), (0, 2), zeros)
        assert_agree(a, b, method, set())
        a, b = a.copy(), b.copy()
        a[0, 0], b[1, 0] = np.inf, np.nan
        assert_agree(a, b, method, set())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sums_of_nothing(isa, dtype):
    """All zeros, and no terms at all: +0, whatever the signs."""
    for method in bit_sums(dtype):
        for a, b in (
            (np.full((3, 5), -0.0), np.ones((5, 2))),
            (np.ones((3, 5)), np.full((5, 2), -0.0)),
            (np.full((3, 5), -0.0), np.zeros((5, 2))),
            (np.ones((3, 0)), np.ones((0, 2))),
        ):
            for path in ("auto", "sums", "flushed", "general"):
                result = multiply(a.astype(dtype), b.astype(dtype), method, path)
                assert_same_bits(result, np.zeros((3, 2), dtype))


@pytest.mark.parametrize("dtype", [f"{kind}{bits}" for kind in "iu" for bits in (1, 2, 4)])
def test_integers_on_every_path(isa, threads, dtype):
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(6)
    # Chains of 256 are exact in float64 below 2^51: products below 2^43.
    highest = min(np.iinfo(dtype).max, 2**21 - 1)
    lowest = max(np.iinfo(dtype).min, -highest - (dtype.itemsize < 4))
    a = rng.integers(lowest, highest, (7, 600), dtype, endpoint=True)
    b = rng.integers(lowest, highest, (600, 9), dtype, endpoint=True)
    a[1], b[:, 2] = 0, 0
    a[2], b[:, 3] = highest, highest
    a[3], b[:, 4] = lowest, lowest
    a[rng.random(a.shape) < 0.2] = 0
    for method in (mitchell.Mitchell(), mitchell.MitchW(1), mitchell.MitchW(4)):
        products = mitchell.multiply(a[:, None, :], b.T, method=method)
        wide = f"{dtype.kind}{4 if dtype.itemsize == 1 else 8}"
        wanted = products.astype(wide).sum(axis=-1, dtype=wide)
        for path in ("auto", "sums", "general"):
            assert_same_bits(multiply(a, b, method, path), wanted)
        with pytest.raises(ValueError, match=REFUSED.format("flushed")):
            multiply(a, b, method, "flushed")
    if dtype.itemsize == 4:
        with pytest.raises(ValueError, match=REFUSED.format("sums")):
            multiply(a << 2, b, mitchell.Mitchell(), "sums")


@pytest.mark.parametrize("path", ["sums", "flushed"])
def test_paths_that_do_not_exist(path):
    a = np.ones((3, 3), np.float32)
    for method in (mitchell.MBM(), mitchell.REALM(), mitchell.Mitchell(kosson_jaggi=True)):
        with pytest.raises(ValueError, match=REFUSED.format(path)):
            multiply(a, a, method, path)
    with pytest.raises(ValueError, match=REFUSED.format("sums")):
        multiply(a, a * np.float32(np.inf), mitchell.Mitchell(), "sums")


def test_the_length_of_the_chains():
    assert 2 ** (LENGTH - 1) < DEPTH <= 2**LENGTH
    assert math.ceil(math.log2(DEPTH)) == LENGTH
