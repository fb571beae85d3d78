"""Integer sums are exact or refused: the largest that fits, and the first that might not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mitchell_cases import all_methods
from slipstick import mitchell


def matmul(a: np.ndarray, b: np.ndarray, method: object) -> int:
    result = mitchell.matmul(a[None, :], b[:, None], method=method)
    assert result.shape == (1, 1)
    return int(result[0, 0])


def conv2d(a: np.ndarray, b: np.ndarray, method: object) -> int:
    result = mitchell.conv2d(a[None, :, None, None], b[None, :, None, None], method=method)
    assert result.shape == (1, 1, 1, 1)
    return int(result[0, 0, 0, 0])


FUNCTIONS = {"matmul": (matmul, "`a` and `b`"), "conv2d": (conv2d, "`x` and `weight`")}


def line(value: int, count: int, dtype: str) -> np.ndarray:
    """So many numbers of one value, which may take no memory."""
    return np.broadcast_to(np.array(value, dtype), count)


def assert_limit(function: str, value: int, count: int, dtype: str, method: object) -> None:
    """`count` products of `value` with itself are summed exactly, one more is refused."""
    compute, operands = FUNCTIONS[function]
    one = line(value, 1, dtype)
    product = int(mitchell.multiply(one, one, method=method)[0])
    a = line(value, count, dtype)
    assert compute(a, a, method) == count * product
    a = line(value, count + 1, dtype)
    wide = "int" if dtype.startswith("int") else "uint"
    wide += "32" if dtype.endswith("8") else "64"
    message = (
        f"{function}: {operands} must be small enough for exact sums in {wide}, got {count + 1} "
        f"products of {dtype} that could add up to "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}[0-9.e+]+$"):
        compute(a, a, method)


NEVER_ABOVE = ["mitchell", "mitch-w", "ilm", "operand-decomposition"]
OTHERS = ["lmul", "lmul-formula", "mbm", "realm", "drum", "alm-soa"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("method", NEVER_ABOVE)
def test_products_that_are_at_most_the_exact_ones(function, method):
    assert_limit(function, 2**30, 7, "int32", method)
    assert_limit(function, -(2**30), 7, "int32", method)
    assert_limit(function, 2**31, 3, "uint32", method)
    assert_limit(function, 255, (2**32 - 1) // 255**2, "uint8", method)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("method", ["zero-bias", mitchell.Mitchell(1 - 2**-53)], ids=str)
def test_products_with_an_offset(function, method):
    """Less than twice the exact ones."""
    assert_limit(function, 2**30, 3, "int32", method)
    assert_limit(function, 2**30, 7, "uint32", method)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("method", OTHERS)
def test_products_that_may_be_larger(function, method):
    """At most four times the exact ones, and no more than their dtype holds."""
    assert_limit(function, 2**29, 7, "int32", method)
    assert_limit(function, 2**30, 3, "uint32", method)
    assert_limit(function, 255, (2**32 - 1) // (2**16 - 1), "uint8", method)
    assert_limit(function, -128, (2**31 - 1) // 2**15, "int8", method)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_one_product_always_fits(function, dtype):
    info = np.iinfo(dtype)
    for method, _ in all_methods(np.dtype(dtype)):
        for x, y in ((info.max, info.max), (info.min, info.min), (info.min, info.max)):
            a, b = line(x, 1, dtype), line(y, 1, dtype)
            expected = int(mitchell.multiply(a, b, method=method)[0])
            assert FUNCTIONS[function][0](a, b, method) == expected


@pytest.mark.parametrize("function", FUNCTIONS)
def test_small_numbers_are_summed_at_any_length(function):
    """What counts are the numbers, where the dtype's limits do not settle it."""
    compute, _ = FUNCTIONS[function]
    assert compute(line(1, 100_000, "uint8"), line(255, 100_000, "uint8"), "mitchell") == 25_500_000
    assert compute(line(0, 9, "int32"), line(-(2**31), 9, "int32"), "realm") == 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_entries_of_a_table_count(function):
    """Whatever the operands: 3 and 3 may well give 65535."""
    compute, _ = FUNCTIONS[function]
    full = mitchell.Table(np.full((256, 256), 65535, np.uint16))
    assert_limit(function, 0, (2**32 - 1) // 65535, "uint8", full)
    small = mitchell.Table(np.full((256, 256), 7, np.uint16))
    assert compute(line(255, 100_000, "uint8"), line(255, 100_000, "uint8"), small) == 700_000
    entries = np.full((256, 256), 9, np.int16)
    entries[3, 5] = entries[5, 3] = -32768  # conv2d multiplies weights by elements
    signed = mitchell.Table(entries)
    assert_limit(function, 0, (2**31 - 1) // 2**15, "int8", signed)
    a, b = line(3, 65535, "int8"), line(5, 65535, "int8")
    assert compute(a, b, signed) == -32768 * 65535


def test_refused_sums_write_nothing():
    a = np.full((1, 8), 2**30, np.int32)
    out = np.full((1, 1), 42, np.int64)
    with pytest.raises(ValueError, match=r"^matmul: .* must be small enough"):
        mitchell.matmul(a, a.T, out=out)
    assert out.item() == 42
