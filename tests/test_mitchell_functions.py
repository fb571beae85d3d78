"""Reciprocal, square root, logarithm, exponential and power of the module against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from mitchell_cases import (
    FLOATS,
    SIZES,
    assert_same_bits,
    ordinary_array,
    random_array,
    special_values,
)
from slipstick import _cpu, reference
from slipstick._arrays import framework_of

NUMPY = framework_of("test", np.zeros(1))
FUNCTIONS = ["sqrt", "log2", "exp2"]


def compute(name: str, *arguments: object, out: np.ndarray | None = None) -> np.ndarray:
    return getattr(_cpu, name)(*arguments, out, NUMPY.empty)


def expected(name: str, *arguments: object, **options: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(getattr(reference, name)(*arguments, **options))


def operands(dtype: np.dtype) -> np.ndarray:
    """Every number of a 16-bit format; of the others special, random and ordinary ones."""
    if dtype.itemsize == 2:
        return np.arange(65536).astype(np.uint16).view(dtype)
    rng = np.random.default_rng(0)
    ordinary = ordinary_array(rng, dtype, (5000,)) * dtype.type(60)
    return np.concatenate([special_values(dtype), random_array(rng, dtype, (5000,)), ordinary])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_the_reference(isa, dtype, name):
    a = operands(dtype)
    whole = expected(name, a)
    assert_same_bits(compute(name, a), whole)
    for size in SIZES:
        assert_same_bits(compute(name, a[-1 - size : -1]), whole[-1 - size : -1])
    assert_same_bits(compute(name, a[::-5]), whole[::-5])
    copy = a.copy()
    assert compute(name, copy, out=copy) is copy
    assert_same_bits(copy, whole)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05, 0.9])
def test_reciprocal_equals_the_reference(isa, dtype, bias):
    a = operands(dtype)
    method = _cpu.MitchellMethod("mitchell", bias=bias)
    whole = expected("reciprocal", a, bias=bias)
    assert_same_bits(compute("reciprocal", a, method), whole)
    for size in SIZES:
        assert_same_bits(compute("reciprocal", a[:size], method), whole[:size])
    assert_same_bits(compute("reciprocal", a[::7], method), whole[::7])


def test_functions_do_not_depend_on_threads(threads):
    a = ordinary_array(np.random.default_rng(1), np.dtype("float32"), (100_003,))
    for name in FUNCTIONS:
        whole = compute(name, a)
        assert_same_bits(whole[99_000:], compute(name, a[99_000:]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_powers_equal_the_reference(isa, dtype):
    rng = np.random.default_rng(2)
    near = np.array([0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, 7, 1e3, -1e4, 0.1], dtype)
    values = np.concatenate([special_values(dtype), near])
    a, p = (x.copy() for x in np.broadcast_arrays(values[:, None], values[None, :]))
    assert_same_bits(compute("power", a, p), expected("power", a, p))
    assert_same_bits(compute("power", values[:, None], values), expected("power", a, p))
    a = random_array(rng, dtype, (1000,))
    for p in (random_array(rng, dtype, (1000,)), ordinary_array(rng, dtype, (1000,))):
        assert_same_bits(compute("power", a, p), expected("power", a, p))


# A number is an exponent as it stands: 1/3 is not rounded to float16 first.
NUMBERS = [
    *(0.0, -0.0, 1.0, 2.0, -1.0, 0.5, 3, 7, 1 / 3, np.pi, -2.5),
    *(1e300, -1e300, 1e-300, 5e-324, 2.0**52 + 1, 2.0**53, 2.0**63, -(2.0**64), 2.0**75),
    *(np.inf, -np.inf, np.nan),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("p", NUMBERS)
def test_powers_with_a_number(isa, dtype, p):
    rng = np.random.default_rng(3)
    a = np.concatenate([special_values(dtype), random_array(rng, dtype, (300,))])
    assert_same_bits(compute("power", a, p), expected("power", a, p))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_functions_agree_with_each_other(dtype):
    """Roots, logarithms and powers that the definitions make equal."""
    a = np.abs(ordinary_array(np.random.default_rng(4), dtype, (2000,)))
    a = a[a > 0]
    assert_same_bits(compute("power", a, 0.5), compute("sqrt", a))
    method = _cpu.MitchellMethod("mitchell")
    assert_same_bits(compute("power", a, -1), compute("reciprocal", a, method))
    assert_same_bits(compute("power", a, 2), compute("multiply", a, a, method))
    exponents = np.arange(-5, 6).astype(dtype)
    assert_same_bits(
        compute("exp2", exponents), np.exp2(exponents.astype(np.float64)).astype(dtype)
    )
    assert_same_bits(compute("log2", compute("exp2", exponents)), exponents)


F32 = np.ones((2, 3), np.float32)
MITCHELL = _cpu.MitchellMethod("mitchell")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("reciprocal", (MITCHELL,)),
        ("sqrt", ()),
        ("log2", ()),
        ("exp2", ()),
        ("power", (np.ones((2, 3), np.int8),)),
        ("power", (2,)),
    ],
)
def test_integers_are_refused(name, arguments):
    out = np.full((2, 3), 42.0, np.float32)
    message = rf"^{name}: `a` must be float32, float64, float16 or bfloat16, got int8$"
    with pytest.raises(TypeError, match=message):
        compute(name, np.ones((2, 3), np.int8), *arguments, out=out)
    assert np.all(out == 42)


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (F32.astype(np.float64), TypeError, "`p` must have dtype float32 like `a`, got float64"),
        (F32[:, :2], ValueError, r"`p` must broadcast with `a` of shape \(2, 3\), got .*"),
    ],
)
def test_exponents_that_do_not_fit(p, error, message):
    out = np.full((2, 3), 42.0, np.float32)
    with pytest.raises(error, match=f"^power: {message}$"):
        compute("power", F32, p, out=out)
    assert np.all(out == 42)
