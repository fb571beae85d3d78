"""Mitchell's own products and quotients: bit for bit against the reference, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitchell_cases import (
    BIASES,
    DTYPES,
    FLOATS,
    SIZES,
    assert_same_bits,
    random_array,
    special_values,
)
from slipstick import mitchell, reference
from slipstick.mitchell import Mitchell


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
    d = mitchell._elementwise._QUOTIENTS[method].offset
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
