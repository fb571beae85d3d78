"""Reciprocal, square root, logarithm, exponential and power of the module against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from mitchell_cases import (
    DTYPES,
    FLOATS,
    SIZES,
    all_methods,
    assert_same_bits,
    ordinary_array,
    random_array,
    special_values,
)
from slipstick import _cpu, mitchell, reference
from slipstick._arrays import framework_of
from slipstick.mitchell import Mitchell

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


# --- The public functions -------------------------------------------------------------------------

# The quotient's own offsets, in units of 2^-23.
QUOTIENTS = {"mitchell": 0, "zero-bias": 486_498, "minimax": 627_494}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("method", ["mitchell", Mitchell(), Mitchell(bias=0.0)], ids=repr)
def test_public_functions_of_one_operand(dtype, name, method):
    a = operands(dtype)[-900:]
    out = np.empty_like(a)
    public = getattr(mitchell, name)
    assert_same_bits(public(a, method=method), expected(name, a))
    assert public(a, method=method, out=out) is out
    assert_same_bits(out, public(a))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("method", [*QUOTIENTS, Mitchell(), Mitchell(0.3)], ids=repr)
def test_public_quotients(dtype, method):
    a = operands(dtype)[-900:]
    bias = QUOTIENTS[method] * 2.0**-23 if isinstance(method, str) else method.offset
    out = np.empty_like(a)
    assert mitchell.reciprocal(a, method=method, out=out) is out
    assert_same_bits(out, expected("reciprocal", a, bias=bias))
    one = np.ones((), dtype)
    assert_same_bits(mitchell.divide(one, a, method=method), out)
    quotient = mitchell.divide(a, a[::-1], method=method)
    assert_same_bits(quotient, expected("divide", a, a[::-1], bias=bias))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_squares_are_products(isa, dtype):
    a = operands(dtype)[:2000] if dtype.kind not in "iu" else special_values(dtype)
    for method, _ in all_methods(dtype):
        square = mitchell.square(a, method=method)
        assert_same_bits(square, mitchell.multiply(a, a, method=method))
    out = np.empty_like(mitchell.square(a))
    assert mitchell.square(a, out=out) is out
    assert_same_bits(out, mitchell.multiply(a, a))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("p", "number"),
    [
        *((p, float(p)) for p in (2, -3, 0.1, np.float32(0.1), np.int8(3))),
        (10**400, np.inf),
        (-(10**400), -np.inf),
    ],
    ids=range(7),
)
def test_public_powers_of_a_number(dtype, p, number):
    a = operands(dtype)[-300:]
    out = np.empty_like(a)
    assert mitchell.power(a, p, out=out) is out
    assert_same_bits(out, expected("power", a, number))


def test_public_powers_of_an_array():
    a = ordinary_array(np.random.default_rng(5), np.dtype("float32"), (30, 1))
    p = np.float32([[2, -1, 0.5, 0.3]])
    result = mitchell.power(a, p, method=Mitchell())
    assert_same_bits(result, expected("power", a, np.broadcast_to(p, (30, 4))))
    assert_same_bits(mitchell.power(a, p[0, 0]), mitchell.square(a))  # a NumPy number


def fractions(count: int) -> np.ndarray:
    """Midpoints of [1, 2) in float64: their sums converge as the square of the step, 2^-15."""
    return 1 + (2 * np.arange(count) + 1) / (2 * count)


def test_errors_of_the_functions():
    """Ranges and means of the specification, 3.3. The step is 2^-15 and slopes are at most 1."""
    x = fractions(2**15)
    step = 2.0**-15
    root2, ln2 = np.sqrt(2), np.log(2)
    cases = {
        "square": (mitchell.square(x) / x**2 - 1, -1 / 9, 0, -(2 + 2 * np.log(3) - 6 * ln2)),
        "reciprocal": (mitchell.reciprocal(x) * x - 1, 0, 1 / 8, 1 / 12),
        "zero-bias": (mitchell.reciprocal(x, method="zero-bias") * x - 1, -0.029, 0.0819, 0.04067),
        "minimax": (mitchell.reciprocal(x, method="minimax") * x - 1, -0.0374, 0.0696, 0.02861),
        "even roots": (mitchell.sqrt(x) / np.sqrt(x) - 1, 0, 3 / (2 * root2) - 1, None),
        "odd roots": (mitchell.sqrt(2 * x) / np.sqrt(2 * x) - 1, 0, 3 / (2 * root2) - 1, None),
        "log2": (mitchell.log2(x) - np.log2(x), (1 + np.log(ln2)) / ln2 - 1, 0, 1 / ln2 - 1.5),
        "exp2": (
            mitchell.exp2(x) / np.exp2(x) - 1,
            0,
            2 / (np.e * ln2) - 1,
            1 / (2 * ln2**2) - 1,
        ),
    }
    means = {
        "even roots": (5 * root2 - 4) / 3 - 1,
        "odd roots": (8 - 7 / root2) / 3 - 1,
    }
    for name, (error, low, high, mean) in cases.items():
        printed = 1e-4 if name in QUOTIENTS else 0  # those figures are printed to four digits
        assert low - printed - 1e-15 <= error.min() <= low + step + printed, name
        assert high - step - printed <= error.max() <= high + printed + 1e-15, name
        # The midpoint rule errs by a step squared, and by as much at a kink.
        close = max(printed / 10, 4 * step**2)
        assert error.mean() == pytest.approx(means.get(name, mean), abs=close), name


@pytest.mark.parametrize("p", [-3.0, -0.7, 0.25, 1.5, 3.0])
def test_errors_of_powers(p):
    x = np.concatenate([fractions(2**10), 64 * fractions(2**10), fractions(2**10) / 16])
    error = mitchell.power(x, p) / x**p - 1
    logarithm, antilogarithm = 0.0860714, 0.0614757
    low = 2 ** (-logarithm * p) - 1 if p > 0 else 0
    high = antilogarithm if p > 0 else (1 + antilogarithm) * 2 ** (-logarithm * p) - 1
    assert low <= error.min() < error.max() <= high


# --- Refusals -------------------------------------------------------------------------------------

F32 = np.ones((2, 3), np.float32)
I8 = np.ones((2, 3), np.int8)
FLOAT_NAMES = "float32, float64, float16 or bfloat16"
RAW = Mitchell(raw=True)


def refused(name: str, *arguments: object, **options: object) -> tuple[type, str]:
    """The error of a call that must leave `out` alone."""
    out = np.full((2, 3), 42.0, np.float32)
    with pytest.raises((TypeError, ValueError)) as caught:
        getattr(mitchell, name)(*arguments, **{"out": out} | options)
    assert np.all(out == 42)
    return caught.type, str(caught.value)


@pytest.mark.parametrize("name", ["divide", "reciprocal", "sqrt", "log2", "exp2", "power"])
def test_integers_are_refused(name):
    others = {"divide": (I8,), "power": (2,)}.get(name, ())
    message = f"{name}: `a` must be {FLOAT_NAMES}, got int8"
    assert refused(name, I8, *others) == (TypeError, message)


@pytest.mark.parametrize("name", ["divide", "reciprocal"])
@pytest.mark.parametrize(
    ("method", "error"),
    [
        *((n, ValueError) for n in mitchell.methods() if n not in QUOTIENTS),
        ("Mitchell", ValueError),
        (mitchell.LMul(), TypeError),
        (mitchell.Table(np.zeros((2, 2), np.uint8)), TypeError),
        (None, TypeError),
        (0.5, TypeError),
        (F32, TypeError),
    ],
    ids=str,
)
def test_methods_that_quotients_do_not_take(name, method, error):
    others = (F32,) if name == "divide" else ()
    message = (
        f"{name}: `method` must be a Mitchell object or one of 'mitchell', 'zero-bias', "
        f"'minimax', got {method!r}"
    )
    assert refused(name, F32, *others, method=method) == (error, message)


@pytest.mark.parametrize("name", ["divide", "reciprocal"])
@pytest.mark.parametrize("method", [RAW, Mitchell(kosson_jaggi=True)], ids=repr)
def test_modes_that_quotients_do_not_take(name, method):
    others = (F32,) if name == "divide" else ()
    message = f"{name}: `method` must be without `raw` and `kosson_jaggi`, got {method!r}"
    assert refused(name, F32, *others, method=method) == (ValueError, message)


@pytest.mark.parametrize("name", ["sqrt", "log2", "exp2", "power"])
@pytest.mark.parametrize(
    ("method", "error"),
    [
        *((n, ValueError) for n in mitchell.methods() if n != "mitchell"),
        (Mitchell(0.1), ValueError),
        (RAW, ValueError),
        (Mitchell(kosson_jaggi=True), ValueError),
        (mitchell.LMul(), TypeError),
        (None, TypeError),
        (F32, TypeError),
    ],
    ids=str,
)
def test_methods_that_functions_do_not_take(name, method, error):
    others = (2,) if name == "power" else ()
    message = f"{name}: `method` must be 'mitchell' or Mitchell(), got {method!r}"
    assert refused(name, F32, *others, method=method) == (error, message)


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (F32.astype(np.float64), TypeError, "`p` must have dtype float32 like `a`, got float64"),
        (
            F32[:, :2],
            ValueError,
            "`p` must broadcast with `a` of shape (2, 3), got shape (2, 2)",
        ),
    ],
)
def test_exponents_that_do_not_fit(p, error, message):
    assert refused("power", F32, p) == (error, f"power: {message}")


def test_squares_that_are_refused():
    for a, shown in ((F32.astype(bool), "bool"), (np.ones(3, np.int64), "int64")):
        message = (
            "square: `a` must be float32, float64, float16, bfloat16, int8, int16, int32, uint8, "
            f"uint16 or uint32, got {shown}"
        )
        assert refused("square", a) == (TypeError, message)
    error, message = refused("square", F32, method="squared")
    assert error is ValueError
    assert message.startswith("square: `method` must be a Method object or one of 'mitchell', ")
    assert message.endswith(", got 'squared'")
    out = np.zeros((2, 3), np.float32)
    assert refused("square", I8, out=out) == (
        TypeError,
        "square: `out` must have dtype int16, got float32",
    )


@pytest.mark.parametrize("name", ["square", "reciprocal", "sqrt", "log2", "exp2"])
def test_results_that_do_not_fit(name):
    out = np.zeros((3, 2), np.float32)
    error, message = refused(name, F32, out=out)
    assert error is ValueError
    assert message == f"{name}: `out` must have shape (2, 3), got (3, 2)"
