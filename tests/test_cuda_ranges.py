"""The ranges of operands, found on CUDA devices: no number is overlooked, wherever it lies.

Of a product that runs on the wrong kernel the bits are wrong: a zero that nobody saw is no zero in
a sum of patterns, and a number near a format's limits goes beyond them.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import assert_same_numbers
from slipstick.mitchell import matmul

DTYPES = [np.dtype("float32"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]


def telling(dtype):
    """Numbers that take a product of others to another kernel, or whose products would be wrong."""
    info = ml_dtypes.finfo(dtype)
    numbers = [0.0, -0.0, info.smallest_subnormal, info.smallest_normal, info.max, np.inf, np.nan]
    return [*(np.array(x).astype(dtype) for x in numbers), np.array(-info.max).astype(dtype)]


def check(device, a, b, view=lambda x: x):
    expected = matmul(view(a), b)
    assert_same_numbers(device.numpy(matmul(view(device.array(a)), device.array(b))), expected)


VIEWS = {
    "all": ((37, 21), lambda x: x),
    "an odd beginning": ((39, 23), lambda x: x[2:, 2:]),
    "whole packs of rows": ((39, 40), lambda x: x[1:, 8:32]),
    "every second": ((74, 42), lambda x: x[::2, ::2]),
    "transposed": ((21, 37), lambda x: x.T),
    "one column": ((300, 3), lambda x: x[:, 1:2]),
    "one element": ((3, 3), lambda x: x[1:2, 1:2]),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_number_among_others(device, dtype, view):
    shape, view = VIEWS[view]
    rows, depth = view(np.empty(shape)).shape
    rng = np.random.default_rng(0)
    b = np.full((depth, 2), 0.75, dtype)
    places = {(0, 0), (rows - 1, depth - 1), (0, depth - 1), (rows // 2, depth // 2)}
    places |= {(int(rng.integers(rows)), int(rng.integers(depth))) for _ in range(3)}
    for number in telling(dtype):
        for place in places:
            a = np.full(shape, 1.5, dtype)
            view(a)[place] = number
            check(device, a, b, view)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_elements_than_a_device_scans_at_once(device, dtype):
    """Each block of threads reads many packs, one number is in the first and one in the last."""
    for place in (0, -1, 123_456):
        a = np.full((1, 200_003), 1.5, dtype)
        b = np.full((200_003, 1), 0.0, dtype)
        b[place] = 1
        a[0, place] = 0
        check(device, a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_matrix_of_a_batch_has_its_own(device, dtype):
    rng = np.random.default_rng(1)
    numbers = telling(dtype)
    a = np.full((2, len(numbers), 1, 5, 7), 1.5, dtype)
    for i, number in enumerate(numbers):
        a[i % 2, i, 0, int(rng.integers(5)), int(rng.integers(7))] = number
    b = np.full((3, 7, 4), 0.75, dtype)
    b[1, 3, 2] = 0
    check(device, a, b)
    check(device, b, np.full((4, 5), 1.5, dtype), lambda x: x[:, ::2])
    check(device, a, b, lambda x: x[:, ::2, :, 1:])
    # Shared along the middle axis, and nothing of it lies in memory twice.
    wide = device.array(a[:, :1]).broadcast_to((2, 6, 1, 5, 7))
    expected = matmul(np.broadcast_to(a[:, :1], (2, 6, 1, 5, 7)), b)
    assert_same_numbers(device.numpy(matmul(wide, device.array(b))), expected)


def test_more_matrices_than_a_grid_is_high(device):
    a = np.full((65_540, 1, 2), 1.5, np.float32)
    a[65_534:65_536] = 0
    a[65_539, 0, 1] = np.inf
    check(device, a, np.full((2, 1), 0.75, np.float32))
