"""Matrix products of every method: the sums of what `multiply` gives, or of real products."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import (
    BF16,
    DTYPES,
    FLOATS,
    all_methods,
    assert_same_bits,
    assert_same_numbers,
    fraction_bits,
    ordered_sum,
    ordinary_array,
    random_array,
)
from remembered import remembered
from slipstick import mitchell, reference
from slipstick.mitchell._matmul import gain

reference_matmul = remembered(reference.matmul)
REAL_PRODUCTS = ("ilm", "drum", "lmul-formula")


def sums_of_products(a: np.ndarray, b: np.ndarray, method: object) -> np.ndarray:
    """Chains of 256 of the elementwise products, as the kernels add them; integers exactly."""
    products = mitchell.multiply(
        a[..., :, None, :], np.swapaxes(b, -1, -2)[..., None, :, :], method=method
    )
    if a.dtype.kind in "iu":
        wide = "4" if a.dtype.itemsize == 1 else "8"
        exact = (
            products.astype(object).sum(axis=-1) if a.shape[-1] else np.zeros(products.shape[:-1])
        )
        return np.asarray(exact).astype(a.dtype.kind + wide)
    with np.errstate(all="ignore"):
        acc = np.float64 if a.dtype == np.float64 else np.float32
        return ordered_sum(products, acc).astype(a.dtype)


def assert_within_rounding(
    result: np.ndarray, a: np.ndarray, b: np.ndarray, options: dict[str, object]
) -> None:
    """Real products enter the sum as one or two products of changed operands, unrounded.

    A product of two operands costs a rounding, u relative, and its addition another. ILM and
    LMulFormula have two terms a product, EA b + (a - EA) e or the like, of which neither is larger
    in magnitude than twice |a b|: |EA b| <= |a b| and so on. So 2 k terms of at most 2 |a b| each
    with 2 k additions: an error of at most 2 k (2 k + 1) u |a b| max, bounded below by the sum of
    magnitudes as gamma_(2k+1) times 4 sum |a b|. Storing adds half an ulp of the result's format.
    """
    unit = 2.0**-53 if a.dtype == np.float64 else 2.0**-24
    expected = reference_matmul(a, b, **options)
    terms = 2 * a.shape[-1] + 1
    exact = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    stored = np.abs(expected) * float(ml_dtypes.finfo(a.dtype).eps) / 2
    stored += float(ml_dtypes.finfo(a.dtype).smallest_subnormal) / 2
    bound = 4 * terms * unit / (1 - terms * unit) * exact + stored
    if a.dtype == np.float64:
        bound *= 2  # the reference sums in float64 itself
    assert result.dtype == a.dtype
    assert np.all(np.abs(result.astype(np.float64) - expected) <= bound)


@pytest.mark.parametrize("shape", [(3, 300, 21), (97, 5, 3), (9, 40, 101)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_method_sums_its_products(isa, dtype, shape):
    """Few and many columns and rows: 8-bit products are looked up from 96 of either on."""
    rows, depth, columns = shape
    rng = np.random.default_rng(0)
    a = ordinary_array(rng, dtype, (rows, depth))
    b = ordinary_array(rng, dtype, (depth, columns))
    if dtype.itemsize == 4 and dtype.kind in "iu":
        a, b = a >> dtype.type(5), b >> dtype.type(6)  # 300 products of 4 |a b| fit 64 bits
    for method, options in all_methods(dtype):
        result = mitchell.matmul(a, b, method=method)
        if options.get("method") in REAL_PRODUCTS and dtype.kind not in "iu":
            assert_within_rounding(result, a, b, options)
        else:
            assert_same_numbers(result, sums_of_products(a, b, method))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounding_beyond_the_greatest_number(isa, dtype):
    """L-Mul rounds the greatest operands to a power of two beyond the format; products fit."""
    greatest = np.float64(ml_dtypes.finfo(dtype).max)
    a = np.array([[greatest, 1, -greatest], [1, 2, 3]]).astype(dtype)
    b = np.array([[1e-3, 0.25], [-1, 1], [2e-3, -0.25]]).astype(dtype)
    for method, options in all_methods(dtype):
        if options.get("method") == "lmul-formula":
            for left, right in ((a, b), (b.T, a.T)):
                result = mitchell.matmul(left, right, method=method)
                assert np.all(np.isfinite(result))
                assert_within_rounding(result, left, right, options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_method_on_any_patterns(isa, dtype):
    """Infinities, NaNs, subnormal numbers, overflow: as sums of what `multiply` gives."""
    rng = np.random.default_rng(1)
    a = random_array(rng, dtype, (7, 9))
    b = random_array(rng, dtype, (9, 13))
    for method, options in all_methods(dtype):
        if options.get("method") in REAL_PRODUCTS:
            continue
        assert_same_numbers(mitchell.matmul(a, b, method=method), sums_of_products(a, b, method))


@pytest.mark.parametrize("depth", [0, 1, 255, 256, 257, 600])
@pytest.mark.parametrize("dtype", [np.dtype("int8"), np.dtype("uint8")], ids=str)
def test_depths_of_bytes(isa, dtype, depth):
    """Chains of 256 are exact and emptied into integers; extreme operands as well."""
    rng = np.random.default_rng(2)
    extreme = np.iinfo(dtype).min or np.iinfo(dtype).max
    a = np.concatenate([random_array(rng, dtype, (4, depth)), np.full((1, depth), extreme, dtype)])
    b = np.concatenate(
        [random_array(rng, dtype, (depth, 5)), np.full((depth, 1), extreme, dtype)], axis=1
    )
    for method, _ in all_methods(dtype):
        assert_same_bits(mitchell.matmul(a, b, method=method), sums_of_products(a, b, method))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "shape", [(3, 70, 5), (5, 70, 130), (200, 70, 3), (40, 130, 2100)], ids=str
)
def test_lookups_of_any_table(isa, threads, signed, shape):
    """Asymmetric tables, so that exchanged operands would show; all strides."""
    rows, depth, columns = shape
    rng = np.random.default_rng(3)
    kind = "i" if signed else "u"
    table = mitchell.Table(random_array(rng, np.dtype(f"{kind}2"), (256, 256)))
    a = random_array(rng, np.dtype(f"{kind}1"), (rows, depth))
    b = random_array(rng, np.dtype(f"{kind}1"), (depth, columns))
    entries = table.array.astype(np.int64)
    expected = np.zeros((rows, columns), np.int64)
    for k in range(depth):
        expected += entries[a[:, k].astype(np.uint8)[:, None], b[k].astype(np.uint8)[None, :]]
    expected = expected.astype(f"{kind}4")
    for left in (a, np.asfortranarray(a), a[::-1, ::-1].copy()[::-1, ::-1]):
        for right in (b, np.asfortranarray(b), b[::-1, ::-1].copy()[::-1, ::-1]):
            assert_same_bits(mitchell.matmul(left, right, method=table), expected)
    out = np.zeros((columns, 2 * rows), expected.dtype)[::-1, ::2].T
    mitchell.matmul(a, b, method=table, out=out)
    assert_same_bits(np.ascontiguousarray(out), expected)


@pytest.mark.parametrize("dtype", [np.dtype("float32"), BF16, np.dtype("uint8")], ids=str)
def test_batches_and_threads(threads, dtype):
    rng = np.random.default_rng(4)
    a = ordinary_array(rng, dtype, (3, 1, 5, 40))
    b = ordinary_array(rng, dtype, (2, 40, 6))
    for method, _ in all_methods(dtype):
        result = mitchell.matmul(a, b, method=method)
        assert result.shape == (3, 2, 5, 6)
        for i, j in np.ndindex(3, 2):
            assert_same_bits(result[i, j], mitchell.matmul(a[i, 0], b[j], method=method))


# --- The gain -------------------------------------------------------------------------------------


def with_gain(dtype: np.dtype) -> list[tuple[mitchell.Method, dict[str, object]]]:
    return [case for case in all_methods(dtype) if "mode" not in case[1]]


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
def test_gain_of_wide_formats(dtype):
    """A stratified average over 2^20 pairs against closed forms.

    One point in each cell of side h = 2^-10, at golden-ratio steps: a fraction's deviation from the
    cell's middle has partial sums below 1 cell, so that a mean over the cells is off by about
    h^2 times a slope of at most 2, 2e-6; a kink crosses one cell in h and is off by h there.
    """
    for method, options in with_gain(dtype):
        own = {k: v for k, v in options.items() if k != "bias"}
        expected = reference.gain(options.get("bias", 0.0), fraction=fraction_bits(dtype), **own)
        assert gain(method, fraction_bits(dtype)) == pytest.approx(expected, abs=2e-6), method


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
def test_gain_of_short_formats(dtype):
    """All fractions of the format: the definition, sum P / sum T, with the reference's products."""
    m = fraction_bits(dtype)
    values = (1 + np.arange(2**m) / 2**m).astype(dtype)
    a, b = (x.copy() for x in np.broadcast_arrays(values[:, None], values[None, :]))
    total = values.astype(np.float64).sum() ** 2
    for method, options in with_gain(dtype):
        if options["method"] == "mitchell" or (
            m == 10 and options["method"] not in ("mbm", "realm")
        ):
            continue  # a closed form; two methods are enough for a million Python products
        products = reference.multiply(a, b, **options).astype(np.float64)
        assert gain(method, m) == pytest.approx(products.sum() / total, rel=1e-12), method


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_correction_by_the_gain(dtype):
    rng = np.random.default_rng(5)
    a, b = ordinary_array(rng, dtype, (4, 30)), ordinary_array(rng, dtype, (30, 3))
    for method, _ in with_gain(dtype):
        factor = 1 / gain(method, fraction_bits(dtype))
        corrected = mitchell.matmul(a, b, method=method, correction="gain")
        assert_same_bits(corrected, mitchell.matmul(a, b, method=method, correction=factor))


@pytest.mark.parametrize("method", ["operand-decomposition", mitchell.MBM(23)])
def test_gain_of_a_method_that_does_not_fit(method):
    a = np.ones((3, 3), np.float32)
    with pytest.raises((TypeError, ValueError), match=r"^matmul: `method` must "):
        mitchell.matmul(a, a, method=method, correction="gain")


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_product_needs_no_memory_beyond_its_result():
    """Packed blocks of both operands: 10 MiB is the promise, for operands of 16 MiB each."""
    program = textwrap.dedent("""
        import os
        import numpy as np, slipstick
        from slipstick.mitchell import matmul
        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        slipstick.set_num_threads(2)
        for dtype, method in ((np.float32, "mitchell"), (np.float32, "ilm"), (np.float32, "realm"),
                              (np.float32, "mbm"), (np.uint8, "mitchell"), (np.uint8, "realm")):
            size = 4 // np.dtype(dtype).itemsize
            a = np.ones((64, 65536 * size), dtype)
            b = np.ones((65536 * size, 64), dtype)
            out = np.zeros((64, 64), np.uint32 if dtype is np.uint8 else dtype)
            matmul(a[:, :300], b[:300], method=method, out=out)
            before = peak()
            matmul(a, b, method=method, out=out)
            print(peak() - before)
    """)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    grown = [int(line) for line in run.stdout.split()]
    assert len(grown) == 6
    assert max(grown) <= 10 * 1024  # KiB
