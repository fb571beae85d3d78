"""Matrix products with Mitchell's own products: shapes, strides, order of sums, correction."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import (
    BIASES,
    FLOATS,
    INTEGERS,
    assert_same_bits,
    assert_same_numbers,
    ordered_sum,
    random_array,
)
from remembered import remembered
from slipstick import _cpu, mitchell, reference
from slipstick.mitchell import Mitchell

reference_multiply = remembered(reference.multiply)
reference_matmul = remembered(reference.matmul)


def matmul_tolerance(a: np.ndarray, b: np.ndarray, expected: np.ndarray, method: str) -> np.ndarray:
    """A bound on the rounding of a sum of k products and of the result.

    Sums run in float32 (float64 for float64) with unit roundoff u: k products give an error of at
    most (k - 1) u / (1 - (k - 1) u) times the sum of magnitudes, and storing adds one half ulp of
    the result's own format, at most eps / 2 relative or half its smallest subnormal.
    """
    unit = 2.0**-53 if a.dtype == np.float64 else 2.0**-24
    depth = max(1, a.shape[-1])
    magnitudes = reference_matmul(np.abs(a), np.abs(b), bias=BIASES[method])
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
    expected = reference_matmul(a, b, bias=BIASES[method])
    assert result.dtype == dtype
    error = np.abs(result.astype(np.float64) - expected)
    assert np.all(error <= matmul_tolerance(a, b, expected, method))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_matmul_bit_for_bit(isa, threads, dtype):
    """Products are exact bit rules and the order of the sums is fixed: `==` at every level."""
    rng = np.random.default_rng(7)
    a = rng.standard_normal((29, 600)).astype(dtype)
    b = rng.standard_normal((600, 37)).astype(dtype)
    acc = np.float64 if dtype == np.float64 else np.float32
    products = reference_multiply(a[:, None, :], b.T[None, :, :])
    assert_same_bits(mitchell.matmul(a, b), ordered_sum(products, acc).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matmul_of_infinities_and_nans(isa, dtype):
    rng = np.random.default_rng(8)
    a = random_array(rng, dtype, (9, 20))
    b = random_array(rng, dtype, (20, 11))
    finite = rng.standard_normal((9, 20)).astype(dtype)
    for left, right in ((a, b), (finite, b), (a, finite.T.copy())):
        with np.errstate(all="ignore"):
            products = reference_multiply(left[:, None, :], right.T[None, :, :])
            acc = np.float64 if dtype == np.float64 else np.float32
            expected = ordered_sum(products, acc).astype(dtype)
        result = mitchell.matmul(left, right)
        assert_same_numbers(result, expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("method", BIASES)
def test_integer_matmul_is_exact(isa, threads, dtype, method):
    rng = np.random.default_rng(9)
    limit = min(np.iinfo(dtype).max, 2**24)
    low = -limit if dtype.kind == "i" else 0
    a = rng.integers(low, limit, (7, 300), dtype=dtype, endpoint=True)
    b = rng.integers(low, limit, (300, 19), dtype=dtype, endpoint=True)
    assert_same_bits(
        mitchell.matmul(a, b, method=method), reference_matmul(a, b, bias=BIASES[method])
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
        expected = reference_matmul(a, b, bias=BIASES[method], correction="gain")
        corrected = mitchell.matmul(a, b, method=method, correction="gain")
        # 256 products in float64, as in matmul_tolerance, and the factor's own rounding.
        scale = reference_matmul(np.abs(a), np.abs(b), bias=BIASES[method])
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8", "int16"])
def test_the_exact_path_that_benchmarks_use(isa, dtype):
    """Ordinary products, whatever the method; here below 2^24, so that any sum of them is exact."""
    rng = np.random.default_rng(0)
    low = 0 if dtype == "uint8" else -20
    a = rng.integers(low, 20, (5, 300)).astype(dtype)
    b = rng.integers(low, 20, (300, 33)).astype(dtype)
    native = Mitchell()._native
    product = _cpu.matmul(a, b, native, 1.0, None, np.empty, "exact")
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert np.array_equal(product, expected.astype(product.dtype))
    assert not np.array_equal(product, mitchell.matmul(a, b))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("columns", [1, 9, 16, 33, 300, 2100])
def test_few_rows_or_columns_give_the_general_kernels_bits(isa, dtype, rows, columns):
    """The right operand is read where it lies: along either axis, transposed, and when it holds
    what that kernel cannot do (infinity, NaN, products that overflow).
    """
    rng = np.random.default_rng(rows * columns)
    depth = 259 if columns < 1000 else 41
    a = rng.standard_normal((rows, depth)).astype(dtype)
    b = rng.standard_normal((depth, columns)).astype(dtype)
    a[:, ::5] = 0
    b[::7] = -0.0
    native = Mitchell(1 / 16)._native
    one = ml_dtypes.finfo(dtype)
    for special in (None, float(one.smallest_subnormal), float(one.max), np.inf, np.nan):
        if special is not None:
            b[depth // 2, columns // 2] = special
            a[rows // 2, depth // 2] = 3
        whole = _cpu.matmul(a, b, native, 1.0, None, numpy_empty, "general")
        for left, right, turned in (
            (a, b, False),
            (a, np.asfortranarray(b), False),
            (b.T, a.T, True),
            (np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), True),
        ):
            result = mitchell.matmul(left, right, method=Mitchell(1 / 16))
            result = result.T if turned else result
            assert_same_numbers(result, whole)


def numpy_empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.empty(shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


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
