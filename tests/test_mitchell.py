"""Mitchell's kernels against the reference: bit for bit, at every level and thread count."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstick import mitchell, reference
from slipstick.mitchell import Mitchell

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(name) for name in ("float32", "float64", "float16")] + [BF16]
INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32)]
DTYPES = FLOATS + INTEGERS
# The products of the names, as the reference takes them: an offset.
BIASES = {
    "mitchell": 0.0,
    "zero-bias": (0x3F800000 - 0x3F78C094) * 2.0**-23,
    "minimax": (0x3F800000 - 0x3F772FAD) * 2.0**-23,
}
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1009]


def bits_of(array: np.ndarray) -> np.ndarray:
    """The bit patterns: what `==` on floats hides (NaN, the sign of zero)."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(bits_of(actual), bits_of(expected))


def random_array(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All bit patterns alike: subnormals, infinities and NaNs included."""
    return rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype)[..., 0]


def special_values(dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        near = [0, 1, 2, 3, 127, 128, limits.max - 1, limits.max, limits.max // 2, limits.min]
        return np.array([v for v in near if limits.min <= v <= limits.max], dtype)
    one = bits_of(np.array([1], dtype))[0]
    infinity = bits_of(np.array([np.inf], dtype))[0]
    step = type(one)
    smallest = bits_of(np.array([ml_dtypes.finfo(dtype).smallest_normal], dtype))[0]
    quiet = infinity + (infinity - one) // step(64)
    magnitudes = np.array(
        [
            *(0, 1, smallest - step(1), smallest, smallest + step(1)),
            *(one - step(1), one, one + step(1)),
            *(infinity - step(1), infinity, infinity + step(1), quiet),
        ],
        one.dtype,
    )
    negative = magnitudes | step(1 << (8 * dtype.itemsize - 1))
    return np.concatenate([magnitudes, negative]).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", BIASES)
def test_multiply_equals_the_reference(isa, dtype, method):
    rng = np.random.default_rng(0)
    for size in SIZES:
        a, b = random_array(rng, dtype, (2, size))
        assert_same_bits(
            mitchell.multiply(a, b, method=method),
            reference.multiply(a, b, bias=BIASES[method]),
        )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05, 0.9])
def test_divide_equals_the_reference(isa, dtype, bias):
    rng = np.random.default_rng(1)
    for size in SIZES:
        a, b = random_array(rng, dtype, (2, size))
        assert_same_bits(
            mitchell.divide(a, b, method=Mitchell(bias)), reference.divide(a, b, bias=bias)
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [None, 1 / 16, 0.1, 1 - 2**-53])
def test_special_values(isa, dtype, bias):
    a = special_values(dtype)
    method = Mitchell(bias)
    outer = mitchell.multiply(a[:, None], a[None, :], method=method)
    assert_same_bits(outer, reference.multiply(a[:, None], a[None, :], bias=bias or 0.0))
    if dtype.kind not in "iu":
        outer = mitchell.divide(a[:, None], a[None, :], method=method)
        assert_same_bits(outer, reference.divide(a[:, None], a[None, :], bias=bias or 0.0))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("method", BIASES)
def test_all_pairs_of_bytes(isa, dtype, method):
    values = np.arange(256).astype(np.uint8).view(dtype)
    assert_same_bits(
        mitchell.multiply(values[:, None], values[None, :], method=method),
        reference.multiply(values[:, None], values[None, :], bias=BIASES[method]),
    )


def test_the_published_figures_of_eight_bits(isa):
    """Mitchell, 8 bits, all pairs without zeros: 3.7878 % mean, -1/9 at 49 pairs, 4096 at worst."""
    values = np.arange(1, 256, dtype=np.uint8)
    exact = np.multiply.outer(values.astype(int), values.astype(int))
    product = mitchell.multiply(values[:, None], values[None, :]).astype(int)
    error = (product - exact) / exact
    assert round(-100 * error.mean(), 4) == 3.7878
    assert error.max() == 0
    assert np.count_nonzero(9 * (product - exact) == -exact) == 49
    assert (exact - product).max() == 4096


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [("mitchell", -1 / 9, 0.0), ("zero-bias", -0.07658, 0.05662), ("minimax", -0.06886, 0.06886)],
)
def test_range_and_mean_of_the_product_error(method, low, high):
    """Bounds of the specification's table; a grid of odd numerators hits neither kink exactly."""
    x = 1 + (2 * np.arange(1024) + 1) / 2048
    a, b = x[:, None], x[None, :]
    error = mitchell.multiply(a, b, method=method) / (a * b) - 1
    # The table rounds to 1e-5; the grid's step moves an extreme by at most 2 * 2**-11.
    assert low - 1e-5 <= error.min() <= low + 2 * 2**-11
    assert high - 2 * 2**-11 <= error.max() <= high + 1e-5
    mean = {"mitchell": -0.03848799, "zero-bias": 0.0, "minimax": 0.00852}[method]
    assert error.mean() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("method", BIASES)
def test_range_and_mean_of_the_quotient_error(method):
    """The extremes -d/(1+d) and (3-d)^2/8 - 1, the means, and what the names promise."""
    d = mitchell._elementwise._NAMED[method][1] * 2.0**-23
    low, high = -d / (1 + d), (3 - d) ** 2 / 8 - 1
    x = 1 + (2 * np.arange(1024) + 1) / 2048
    a, b = x[:, None], x[None, :]
    error = mitchell.divide(a, b, method=method) / (a / b) - 1
    # An extreme lies in one cell of the grid, and the error's slope is at most 1 in x and in y.
    assert low <= error.min() <= low + 2 * 2**-11
    assert high - 2 * 2**-11 <= error.max() <= high
    mean = {"mitchell": np.log(2) / 2 - 11 / 36, "zero-bias": 0.0, "minimax": -0.0115829}[method]
    # The midpoint rule on cells of 2^-10: the kinks along x - y = d contribute 2^-20 relative.
    assert error.mean() == pytest.approx(mean, abs=2e-6)
    if method == "minimax":
        assert high == pytest.approx(-low, abs=2**-22)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_shapes_and_strides(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    rank = data.draw(st.integers(0, 4))
    shape = tuple(data.draw(st.integers(0, 9)) for _ in range(rank))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    operands = []
    for _ in range(2):
        own = tuple(1 if data.draw(st.booleans()) else size for size in shape)
        own = own[data.draw(st.integers(0, rank)) :]
        buffer = random_array(rng, dtype, tuple(3 * size for size in own))
        step = tuple(
            slice(None, None, 3) if data.draw(st.booleans()) else slice(size) for size in own
        )
        view = buffer[step]
        view = view[
            tuple(slice(None, None, -1) if data.draw(st.booleans()) else slice(None) for _ in own)
        ]
        order = data.draw(st.permutations(range(len(own))))
        operands.append(
            view if own != shape else view.transpose(order).transpose(np.argsort(order))
        )
    a, b = operands
    assert_same_bits(mitchell.multiply(a, b), reference.multiply(a, b))


def test_fortran_order_and_broadcasting(isa, threads):
    rng = np.random.default_rng(2)
    a = np.asfortranarray(rng.standard_normal((37, 53, 11)).astype(np.float32))
    b = rng.standard_normal((53, 1)).astype(np.float32)
    out = np.empty((37, 53, 11), np.float32, order="F")
    assert mitchell.multiply(a, b, out=out) is out
    assert_same_bits(out, reference.multiply(a, b))


def test_large_arrays_do_not_depend_on_threads(isa, threads):
    rng = np.random.default_rng(3)
    for dtype in (np.dtype("float32"), np.dtype("uint8")):
        a, b = random_array(rng, dtype, (2, 300_007))
        whole = mitchell.multiply(a, b)
        for start in (0, 1, 299_000):
            part = slice(start, start + 1007)
            assert_same_bits(whole[part], reference.multiply(a[part], b[part]))


def test_powers_of_two_are_exact_and_products_commute():
    rng = np.random.default_rng(4)
    a = rng.standard_normal(1000).astype(np.float32)
    power = np.ldexp(np.float32(1), rng.integers(-20, 20, 1000)).astype(np.float32)
    assert_same_bits(mitchell.multiply(a, power), a * power)
    b = rng.standard_normal(1000).astype(np.float32)
    for method in BIASES:
        assert_same_bits(
            mitchell.multiply(a, b, method=method), mitchell.multiply(b, a, method=method)
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_the_float_bit_sum(dtype):
    rng = np.random.default_rng(5)
    a, b = random_array(rng, np.dtype(dtype), (2, 4096))
    floats = mitchell.multiply(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_array_equal(mitchell.multiply(a, b).astype(np.float32), floats)


# --- matmul ---------------------------------------------------------------------------------------
def matmul_tolerance(a: np.ndarray, b: np.ndarray, expected: np.ndarray, method: str) -> np.ndarray:
    """A bound on the rounding of a sum of k products and of the result.

    Sums run in float32 (float64 for float64) with unit roundoff u: k products give an error of at
    most (k - 1) u / (1 - (k - 1) u) times the sum of magnitudes, and storing adds one half ulp of
    the result's own format, at most eps / 2 relative or half its smallest subnormal.
    """
    unit = 2.0**-53 if a.dtype == np.float64 else 2.0**-24
    depth = max(1, a.shape[-1])
    magnitudes = reference.matmul(np.abs(a), np.abs(b), bias=BIASES[method])
    result = ml_dtypes.finfo(a.dtype)
    stored = np.abs(expected) * float(result.eps) / 2 + float(result.smallest_subnormal) / 2
    # The float64 reference itself errs by at most 2**-53 relative a term.
    return magnitudes * (depth * unit / (1 - depth * unit) + depth * 2.0**-53) * 1.01 + stored


SHAPES = [
    (1, 1, 1),
    (5, 3, 7),
    (6, 16, 16),
    (7, 17, 33),
    (1, 300, 40),
    (97, 5, 1),
    (13, 257, 129),
    (100, 513, 31),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("method", BIASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float_matmul_within_rounding(isa, dtype, method, shape):
    m, k, n = shape
    rng = np.random.default_rng(6)
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    a[rng.random((m, k)) < 0.1] = 0
    result = mitchell.matmul(a, b, method=method)
    expected = reference.matmul(a, b, bias=BIASES[method])
    assert result.dtype == dtype
    error = np.abs(result.astype(np.float64) - expected)
    assert np.all(error <= matmul_tolerance(a, b, expected, method))


def ordered_sum(products: np.ndarray, acc: type) -> np.ndarray:
    """The kernel's order of summation: chains of 256 from +0, then the chains in order."""
    total = np.zeros(products.shape[:-1], acc)
    for start in range(0, products.shape[-1], 256):
        chain = np.zeros(products.shape[:-1], acc)
        for k in range(start, min(start + 256, products.shape[-1])):
            chain = chain + products[..., k].astype(acc)
        total = chain if start == 0 else total + chain
    return total


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_matmul_bit_for_bit(isa, threads, dtype):
    """Products are exact bit rules and the order of the sums is fixed: `==` at every level."""
    rng = np.random.default_rng(7)
    a = rng.standard_normal((29, 600)).astype(dtype)
    b = rng.standard_normal((600, 37)).astype(dtype)
    acc = np.float64 if dtype == np.float64 else np.float32
    products = reference.multiply(a[:, None, :], b.T[None, :, :])
    assert_same_bits(mitchell.matmul(a, b), ordered_sum(products, acc).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matmul_of_infinities_and_nans(isa, dtype):
    rng = np.random.default_rng(8)
    a = random_array(rng, dtype, (9, 20))
    b = random_array(rng, dtype, (20, 11))
    finite = rng.standard_normal((9, 20)).astype(dtype)
    for left, right in ((a, b), (finite, b), (a, finite.T.copy())):
        with np.errstate(all="ignore"):
            products = reference.multiply(left[:, None, :], right.T[None, :, :])
            acc = np.float64 if dtype == np.float64 else np.float32
            expected = ordered_sum(products, acc).astype(dtype)
        result = mitchell.matmul(left, right)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        number = ~np.isnan(expected)
        assert_same_bits(result[number], expected[number])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("method", BIASES)
def test_integer_matmul_is_exact(isa, threads, dtype, method):
    rng = np.random.default_rng(9)
    limit = min(np.iinfo(dtype).max, 2**24)
    low = -limit if dtype.kind == "i" else 0
    a = rng.integers(low, limit, (7, 300), dtype=dtype, endpoint=True)
    b = rng.integers(low, limit, (300, 19), dtype=dtype, endpoint=True)
    assert_same_bits(
        mitchell.matmul(a, b, method=method), reference.matmul(a, b, bias=BIASES[method])
    )


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((4,), (4,)),
        ((4,), (4, 3)),
        ((2, 4), (4,)),
        ((5, 2, 4), (4, 3)),
        ((2, 4), (5, 4, 3)),
        ((5, 1, 2, 4), (1, 6, 4, 3)),
        ((5, 2, 4), (4,)),
        ((4,), (5, 4, 3)),
        ((0, 4), (4, 3)),
        ((2, 0), (0, 3)),
        ((3, 2, 0), (0, 0)),
        ((0, 2, 4), (4, 3)),
        ((40, 20, 30), (40, 30, 10)),
    ],
)
def test_matmul_shapes_follow_numpy(a_shape, b_shape, threads):
    rng = np.random.default_rng(10)
    # Powers of two: the approximate product is exact, and so is every sum here.
    a = np.ldexp(1.0, rng.integers(0, 8, a_shape))
    b = np.ldexp(1.0, rng.integers(0, 8, b_shape))
    expected = np.asarray(np.matmul(a, b))
    assert_same_bits(mitchell.matmul(a, b), expected)
    out = np.full(expected.shape, np.nan)
    assert mitchell.matmul(a, b, out=out) is out
    assert_same_bits(out, expected)


def test_matmul_reads_and_writes_any_strides(isa):
    rng = np.random.default_rng(11)
    a = rng.standard_normal((40, 60)).astype(np.float32)
    b = rng.standard_normal((90, 50)).astype(np.float32)
    plain = mitchell.matmul(
        np.ascontiguousarray(a[::-2, ::2].T).T, np.ascontiguousarray(b[::3, 1::2])
    )
    assert_same_bits(mitchell.matmul(a[::-2, ::2], b[::3, 1::2]), plain)
    assert_same_bits(mitchell.matmul(b[::3, 1::2].T, a[::-2, ::2].T), plain.T.copy())
    target = np.zeros((60, 75), np.float32)
    mitchell.matmul(a[::-2, ::2], b[::3, 1::2], out=target[::3, ::-3])
    assert_same_bits(target[::3, ::-3], plain)
    target[::3, ::-3] = 0
    assert not target.any()


@pytest.mark.parametrize("shape", [(300, 700, 600), (1500, 300, 30)], ids=str)
def test_matmul_over_many_blocks(isa, threads, shape):
    """Beyond one block of rows, columns and depth: rows and columns do not know their block."""
    m, k, n = shape
    rng = np.random.default_rng(12)
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    whole = mitchell.matmul(a, b)
    rows, columns = rng.integers(0, m, 5), rng.integers(0, n, 5)
    assert_same_bits(whole[np.ix_(rows, columns)], mitchell.matmul(a[rows], b[:, columns]))


def test_correction():
    rng = np.random.default_rng(13)
    a = rng.standard_normal((64, 256))
    b = rng.standard_normal((256, 64))
    plain = mitchell.matmul(a, b)
    np.testing.assert_array_equal(mitchell.matmul(a, b, correction="gain"), plain * (27 / 26))
    np.testing.assert_array_equal(mitchell.matmul(a, b, correction=2), plain * 2)
    for method in BIASES:
        expected = reference.matmul(a, b, bias=BIASES[method], correction="gain")
        corrected = mitchell.matmul(a, b, method=method, correction="gain")
        # 256 products in float64, as in matmul_tolerance, and the factor's own rounding.
        scale = reference.matmul(np.abs(a), np.abs(b), bias=BIASES[method])
        assert np.all(np.abs(corrected - expected) <= 520 * 2.0**-53 * scale)


def test_gain_removes_the_mean_error():
    """Specification 6.1: 4.74 % relative Frobenius error raw, 2.9 to 3.1 % after the correction."""
    rng = np.random.default_rng(14)
    a = rng.standard_normal((128, 1024))
    b = rng.standard_normal((1024, 128))
    exact = a @ b
    raw = np.linalg.norm(mitchell.matmul(a, b) - exact) / np.linalg.norm(exact)
    corrected = np.linalg.norm(mitchell.matmul(a, b, correction="gain") - exact)
    # The estimate from 16384 results has a relative standard error of 1 / sqrt(2 * 16384) = 0.6 %.
    assert raw == pytest.approx(0.0474, rel=0.02)
    assert 0.029 <= corrected / np.linalg.norm(exact) <= 0.031


# --- bad input ------------------------------------------------------------------------------------
F32 = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda out: mitchell.multiply(F32, F32.astype(np.float64), out=out),
            TypeError,
            r"^multiply: `b` must have dtype float32 like `a`, got float64$",
        ),
        (
            lambda out: mitchell.multiply(F32.astype(bool), F32.astype(bool), out=out),
            TypeError,
            r"^multiply: `a` must be float32, float64, .* or uint32, got bool$",
        ),
        (
            lambda out: mitchell.multiply(np.ones(3, np.int64), np.ones(3, np.int64), out=out),
            TypeError,
            r"^multiply: `a` must be float32, .* got int64$",
        ),
        (
            lambda out: mitchell.divide(np.ones(3, np.int8), np.ones(3, np.int8), out=out),
            TypeError,
            r"^divide: `a` must be float32, float64, float16 or bfloat16, got int8$",
        ),
        (
            lambda out: mitchell.multiply(F32, np.ones(4, np.float32), out=out),
            ValueError,
            r"^multiply: `b` must broadcast with `a` of shape \(2, 3\), got shape \(4,\)$",
        ),
        (
            lambda out: mitchell.multiply(F32, F32, method="Mitchell", out=out),
            ValueError,
            r"^multiply: `method` must be a Method object or one of .*, got 'Mitchell'$",
        ),
        (
            lambda out: mitchell.divide(F32, F32, method=0.5, out=out),
            TypeError,
            r"^divide: `method` must be a Mitchell object or one of .*, got 0.5$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32, out=out),
            ValueError,
            r"^matmul: `b` must have 3 rows, as many as `a` of shape \(2, 3\) has columns, "
            r"got shape \(2, 3\)$",
        ),
        (
            lambda out: mitchell.matmul(F32, np.float32(3), out=out),
            ValueError,
            r"^matmul: `b` must have at least one axis, got shape \(\)$",
        ),
        (
            lambda out: mitchell.matmul(np.ones((2, 2, 3)), np.ones((3, 3, 2)), out=out),
            ValueError,
            r"^matmul: `b` must broadcast with `a` of shape \(2, 2, 3\), got shape \(3, 3, 2\)$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction="mean", out=out),
            ValueError,
            r"^matmul: `correction` must be None, 'gain' or a number, got 'mean'$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction=F32, out=out),
            TypeError,
            r"^matmul: `correction` must be None, 'gain' or a number, got array",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction=10**5000, out=out),
            ValueError,
            r"^matmul: `correction` must be finite, got int of too many digits$",
        ),
        (
            lambda out: mitchell.matmul(F32[:0], F32.T, method=mitchell.MBM(23)),
            ValueError,
            r"^matmul: `method` must have a `truncate` of at most 22 for float32, got mbm with 23$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction=np.inf, out=out),
            ValueError,
            r"^matmul: `correction` must be finite, got inf$",
        ),
        (
            lambda out: mitchell.matmul(
                np.ones((2, 3), np.int8), np.ones((3, 2), np.int8), correction="gain", out=out
            ),
            ValueError,
            r"^matmul: `correction` must be None for integers, got 'gain'$",
        ),
        (
            lambda out: mitchell.matmul(
                np.full((1, 3), 2**31 - 1, np.int32), np.full((3, 1), 2**31 - 1, np.int32), out=out
            ),
            ValueError,
            r"^matmul: `a` and `b` must be small enough for exact sums in int64, got 3 products of "
            r"int32 that could add up to 1.38",
        ),
    ],
)
def test_refused_calls_write_nothing(call, error, message):
    out = np.full((2, 3), 42.0, np.float32)
    with pytest.raises(error, match=message):
        call(out)
    assert np.all(out == 42)


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (1.0, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got 1.0$"),
        (-0.1, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got -0.1$"),
        (np.nan, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got nan$"),
        ("0", TypeError, r"^Mitchell: `bias` must be a number or None, got str$"),
        (True, TypeError, r"^Mitchell: `bias` must be a number or None, got bool$"),
    ],
)
def test_refused_biases(bias, error, message):
    with pytest.raises(error, match=message):
        Mitchell(bias)


def test_integer_sums_that_fit_are_not_refused():
    a = np.full((1, 4), 2**30, np.int32)
    assert mitchell.matmul(a, a.T)[0, 0] == 2**62
    big = np.full((1, 3), 255, np.uint8)
    assert mitchell.matmul(big, big.T)[0, 0] == 3 * 65024


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_ilm_sums_of_the_smallest_numbers(isa, dtype, iterations):
    # What is left of these without their leading ones is subnormal.
    significands = np.array([1, 1.25, 1.4375, 1.6875, 1.984375], dtype)
    a = (significands * np.finfo(dtype).smallest_normal)[:, np.newaxis]
    b = (significands * dtype(2**60))[np.newaxis]
    product = mitchell.multiply(a, b, method=mitchell.ILM(iterations))  # exact: 14 bits
    np.testing.assert_array_equal(
        mitchell.matmul(a, b, method=mitchell.ILM(iterations)), product, strict=True
    )
    np.testing.assert_array_equal(
        mitchell.matmul(b.T, a.T, method=mitchell.ILM(iterations)), product.T, strict=True
    )
