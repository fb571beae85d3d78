"""Elementwise products of every method against the reference: bit for bit, at every level."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mitchell_cases import (
    DTYPES,
    SIZES,
    all_methods,
    assert_same_bits,
    ordinary_array,
    random_array,
    special_values,
)
from remembered import remembered
from slipstick import mitchell, reference


@remembered
def expected_product(a: np.ndarray, b: np.ndarray, options: dict[str, object]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return reference.multiply(a, b, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_method_equals_the_reference(isa, dtype):
    rng = np.random.default_rng(0)
    special = np.broadcast_arrays(special_values(dtype)[:, None], special_values(dtype)[None, :])
    a, b = (
        np.concatenate(
            [part.ravel(), random_array(rng, dtype, (200,)), ordinary_array(rng, dtype, (200,))]
        )
        for part in special
    )
    for method, options in all_methods(dtype):
        expected = expected_product(a, b, options)
        for start in (0, *(a.size - n for n in SIZES if n <= a.size)):
            product = mitchell.multiply(a[start:], b[start:], method=method)
            assert_same_bits(product, expected[start:])
        assert_same_bits(mitchell.multiply(a[::-3], b[::-3], method=method), expected[::-3])
        one = np.full(a.shape, a[-7])
        expected = expected_product(a, one, options)
        assert_same_bits(mitchell.multiply(a, a[-7:-6], method=method), expected)
        expected = expected_product(one, a, options)
        assert_same_bits(mitchell.multiply(a[-7:-6], a, method=method), expected)


@pytest.mark.parametrize("dtype", [np.dtype("int8"), np.dtype("uint8")], ids=str)
def test_every_method_on_all_pairs_of_bytes(isa, dtype):
    values = np.arange(256).astype(np.uint8).view(dtype)
    a, b = (x.copy() for x in np.broadcast_arrays(values[:, None], values[None, :]))
    for method, options in all_methods(dtype):
        product = mitchell.multiply(a, b, method=method)
        assert_same_bits(product, expected_product(a, b, options))


@pytest.mark.parametrize("dtype", [np.dtype("int8"), np.dtype("uint8")], ids=str)
def test_offsets_on_all_pairs_of_bytes(isa, dtype):
    """The vectorised kernel floors d 2^j from 16 bits of d: any d must do."""
    values = np.arange(256).astype(np.uint8).view(dtype)
    a, b = (x.copy() for x in np.broadcast_arrays(values[:, None], values[None, :]))
    for bias in (
        2.0**-30,
        2.0**-16,
        2.0**-14,
        1 / 3,
        0.25,
        0.5,
        0.749999,
        1 - 2.0**-16,
        1 - 2.0**-53,
    ):
        product = mitchell.multiply(a, b, method=mitchell.Mitchell(bias))
        assert_same_bits(product, expected_product(a, b, {"bias": bias}))


@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float64")], ids=str)
@pytest.mark.parametrize("bias", [None, 1 - 2**-53])
def test_both_paths_at_the_certificates_limits(isa, dtype, bias):
    """Blocks whose exponents all lie around the ends of the certified range, and one beyond."""
    rng = np.random.default_rng(1)
    limit = 63 if dtype == np.float32 else 511
    for low, high in ((-limit, limit), (-limit - 1, limit), (-limit, limit + 1)):
        ends = rng.choice(np.array([low, high, 0]), (2, 4096))
        fractions = rng.choice(np.array([1.0, 1.5, 2 - 2.0**-20]), (2, 4096))
        signs = rng.choice(np.array([-1.0, 1.0]), (2, 4096))
        a, b = np.ldexp(fractions * signs, ends).astype(dtype)
        expected = expected_product(a, b, {"bias": bias or 0.0})
        assert_same_bits(mitchell.multiply(a, b, method=mitchell.Mitchell(bias)), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_arrays_do_not_depend_on_threads(isa, threads, dtype):
    rng = np.random.default_rng(3)
    a = ordinary_array(rng, dtype, (100_003,))
    b = ordinary_array(rng, dtype, (100_003,))
    whole = mitchell.multiply(a, b)
    for start in (0, 1, 99_000):
        part = slice(start, start + 1001)
        assert_same_bits(whole[part], expected_product(a[part], b[part], {}))


@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("int32")], ids=str)
def test_products_in_place(dtype):
    rng = np.random.default_rng(4)
    a = ordinary_array(rng, dtype, (1009,))
    for method, options in all_methods(dtype):
        if dtype.kind == "f":
            out = a.copy()
            assert mitchell.multiply(out, a, method=method, out=out) is out
            assert_same_bits(out, expected_product(a, a, options))


F32 = np.ones((2, 3), np.float32)
I8 = np.ones((2, 3), np.int8)
PRODUCTS = np.zeros((256, 256), np.uint16)
MANTISSAS = np.zeros((128, 128), np.uint8)
BYTES = "int8, int16, int32, uint8, uint16 or uint32"
FLOAT_NAMES = "float32, float64, float16 or bfloat16"


@pytest.mark.parametrize(
    ("a", "method", "message"),
    [
        (
            F32,
            "operand-decomposition",
            f"for float32, got OperandDecomposition, which takes {BYTES}",
        ),
        (
            I8,
            mitchell.Mitchell(raw=True),
            f"for int8, got Mitchell(raw=True), which takes {FLOAT_NAMES}",
        ),
        (
            F32.astype(np.float64),
            mitchell.Mitchell(kosson_jaggi=True),
            "for float64, got Mitchell(kosson_jaggi=True), which takes float32",
        ),
        (
            F32,
            mitchell.Table(PRODUCTS),
            "for float32, got an unsigned Table, which takes uint8",
        ),
        (I8, mitchell.Table(PRODUCTS), "for int8, got an unsigned Table, which takes uint8"),
        (
            I8.astype(np.uint8),
            mitchell.Table(PRODUCTS, signed=True),
            "for uint8, got a signed Table, which takes int8",
        ),
        (
            I8,
            mitchell.Table(MANTISSAS),
            f"for int8, got a Table of mantissas, which takes {FLOAT_NAMES}",
        ),
    ],
)
@pytest.mark.parametrize("function", ["multiply", "square", "matmul"])
def test_methods_that_do_not_take_the_dtype(function, a, method, message):
    out = np.full((2, 3), 42, np.float32)
    operands = {"multiply": (a, a), "square": (a,), "matmul": (a, a.T)}[function]
    with pytest.raises(TypeError) as caught:
        getattr(mitchell, function)(*operands, method=method, out=out)
    assert str(caught.value) == f"{function}: `method` must be one {message}"
    assert np.all(out == 42)


@pytest.mark.parametrize(
    ("a", "method", "message"),
    [
        (I8, mitchell.MBM(7), "`truncate` of at most 6 for int8, got MBM(truncate=7)"),
        (F32, mitchell.MBM(23), "`truncate` of at most 22 for float32, got MBM(truncate=23)"),
        (F32, mitchell.MBM(999), "`truncate` of at most 22 for float32, got MBM(truncate=999)"),
        (I8, mitchell.ALMSOA(8), "`width` of at most 7 for int8, got ALMSOA(width=8)"),
        (I8, mitchell.ALMSOA(100), "`width` of at most 7 for int8, got ALMSOA(width=100)"),
    ],
)
@pytest.mark.parametrize("function", ["multiply", "square", "matmul"])
def test_parameters_that_do_not_fit_the_dtype(function, a, method, message):
    operands = {"multiply": (a, a), "square": (a,), "matmul": (a, a.T)}[function]
    expected = f"{function}: `method` must have a {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        getattr(mitchell, function)(*operands, method=method)


@pytest.mark.parametrize("name", mitchell.methods())
def test_each_name_is_accepted(name):
    """And means the object of that name's class, for every function that takes all methods."""
    operands = np.arange(1, 7, dtype=np.uint8).reshape(2, 3)
    if name != "operand-decomposition":
        operands = operands.astype(np.float32)
    product = mitchell.multiply(operands, operands, method=name)
    options = {"method": name}
    if name in ("zero-bias", "minimax", "min-rms"):
        c = {"zero-bias": 0x3F78C094, "minimax": 0x3F772FAD, "min-rms": 0x3F78EDB6}[name]
        options = {"bias": (0x3F800000 - c) * 2.0**-23}
    assert_same_bits(product, reference.multiply(operands, operands, **options))
    assert_same_bits(mitchell.square(operands, method=name), product)
    expected = reference.matmul(operands, operands.T, **options)
    np.testing.assert_allclose(mitchell.matmul(operands, operands.T, method=name), expected, 1e-6)


def test_the_names_of_the_specification():
    assert set(mitchell.methods()) == {
        *("mitchell", "zero-bias", "minimax", "min-rms", "lmul", "lmul-formula", "mbm", "realm"),
        *("ilm", "mitch-w", "drum", "alm-soa", "operand-decomposition"),
    }


@pytest.mark.parametrize("dtype", [np.dtype("int8"), np.dtype("uint8")], ids=str)
def test_bounds_of_integer_products(dtype):
    """What the check of integer sums relies on."""
    values = np.arange(256).astype(np.uint8).view(dtype)
    exact = np.abs(np.multiply.outer(values.astype(np.int64), values.astype(np.int64)))
    for method, options in all_methods(dtype):
        if options["method"] == "table":
            continue
        product = np.abs(mitchell.multiply(values[:, None], values, method=method).astype(np.int64))
        never_above = ("mitch-w", "ilm", "operand-decomposition")
        growth = 1 if options["method"] in never_above else 4
        if options["method"] == "mitchell":
            growth = 2 if options["bias"] else 1
        assert np.all(product <= growth * exact), method
