"""Sums of looked-up products of bytes on CUDA devices: the CPU's bits by either kernel.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some. The emulated
device 1 has too little shared memory for a table.
"""

from __future__ import annotations

import numpy as np
import pytest

from mitchell_cases import all_methods, random_array, tables
from slipstick import mitchell
from slipstick._arrays import framework_of

BYTES = [np.dtype("int8"), np.dtype("uint8")]
# (rows, columns): the table turned round, the same for the exchanged product, single lookups.
TURNED, EXCHANGED, GATHERED = (33, 300), (300, 33), (13, 17)


def table_of(dtype):
    return mitchell.Table(tables(dtype)[0])


def check(device, a, b, method, view=lambda a, b: (a, b), index=0):
    expected = mitchell.matmul(*view(a, b), method=method)
    on_device = view(device.array(a, index), device.array(b, index))
    result = device.numpy(mitchell.matmul(*on_device, method=method))
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def operands(rng, dtype, rows, depth, columns):
    return random_array(rng, dtype, (rows, depth)), random_array(rng, dtype, (depth, columns))


@pytest.mark.parametrize("dtype", BYTES, ids=str)
@pytest.mark.parametrize("shape", [TURNED, EXCHANGED, GATHERED], ids=str)
def test_every_method(device, dtype, shape):
    a, b = operands(np.random.default_rng(0), dtype, shape[0], 7, shape[1])
    for method, _ in all_methods(dtype):
        check(device, a, b, method)


@pytest.mark.parametrize(
    ("shape", "kernel"), [(TURNED, "Turned"), (EXCHANGED, "Turned"), (GATHERED, "Gather")], ids=str
)
def test_kernels(emulated_cuda, shape, kernel):
    """The shapes above lead to the kernels that they are to test."""
    a, b = operands(np.random.default_rng(0), BYTES[0], shape[0], 7, shape[1])
    emulated_cuda.control.take_launches()
    mitchell.matmul(emulated_cuda.array(a), emulated_cuda.array(b), method=table_of(BYTES[0]))
    launches = emulated_cuda.control.take_launches()
    assert f"{kernel}Work" in launches[-1]["kernel"]


@pytest.mark.parametrize("dtype", BYTES, ids=str)
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 15, 16, 17, 34, 127, 130, 301])
def test_depths(device, dtype, depth):
    """Parts of pairs, of words and of chunks, and sums to which several blocks add."""
    rng = np.random.default_rng(depth)
    for rows, columns in (TURNED, EXCHANGED, GATHERED, (1, 1), (40, 1030)):
        check(device, *operands(rng, dtype, rows, depth, columns), table_of(dtype))


@pytest.mark.parametrize("dtype", BYTES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7, 31, 32, 64, 97])
def test_sizes(device, dtype, rows):
    rng = np.random.default_rng(rows)
    for columns in (0, 1, 2, 129, 511, 512, 1024, 1027, 2051):
        check(device, *operands(rng, dtype, rows, 5, columns), table_of(dtype))


@pytest.mark.parametrize("shape", [TURNED, EXCHANGED, GATHERED, (64, 1028)], ids=str)
@pytest.mark.parametrize("depth", [36, 37])
def test_strides(device, shape, depth):
    """Operands that lie along either axis, in whole words and not, and apart."""
    rng = np.random.default_rng(1)
    dtype = BYTES[1]
    rows, columns = shape
    views = [
        lambda a, b: (a[:rows, :depth], b[:depth, :columns]),
        lambda a, b: (a[:rows, 1 : depth + 1], b[1 : depth + 1, 1 : columns + 1]),
        lambda a, b: (a[: 2 * rows : 2, : 2 * depth : 2], b[: 2 * depth : 2, : 2 * columns : 2]),
    ]
    a = random_array(rng, dtype, (2 * rows, 2 * depth))
    b = random_array(rng, dtype, (2 * depth, 2 * columns))
    for view in views:
        check(device, a, b, table_of(dtype), view)
    for start in (0, 1):
        check(
            *(device, a.T.copy(), b.T.copy(), table_of(dtype)),
            lambda a, b: (a[:depth, start : start + rows].T, b[start : start + columns, :depth].T),  # noqa: B023
        )


@pytest.mark.parametrize("shape", [TURNED, EXCHANGED, GATHERED], ids=str)
def test_results_of_any_strides(device, shape):
    a, b = operands(np.random.default_rng(2), BYTES[0], shape[0], 150, shape[1])
    method = table_of(BYTES[0])
    expected = mitchell.matmul(a, b, method=method)
    rows, columns = shape
    for whole_shape, view in (
        ((rows + 1, columns + 3), lambda x: x[1:, 3:]),
        ((columns, rows), lambda x: x.T),
        ((2 * rows, 2 * columns), lambda x: x[::2, ::2]),
    ):
        whole = np.full(whole_shape, -7, np.int32)
        on_device = device.array(whole)
        mitchell.matmul(device.array(a), device.array(b), method=method, out=view(on_device))
        view(whole)[...] = expected
        np.testing.assert_array_equal(device.numpy(on_device), whole)


@pytest.mark.parametrize("shape", [TURNED, EXCHANGED, (5, 3)], ids=str)
def test_batches(device, shape):
    rng = np.random.default_rng(3)
    rows, columns = shape
    method = table_of(BYTES[0])
    for left, right in (((2, 3), (2, 3)), ((3,), ()), ((), (3,)), ((2, 1), (1, 2)), ((0,), ())):
        a = random_array(rng, BYTES[0], (*left, rows, 21))
        b = random_array(rng, BYTES[0], (*right, 21, columns))
        check(device, a, b, method)
    vector = random_array(rng, BYTES[0], (21,))
    check(device, vector, b, method)
    check(device, a, vector, method)
    check(device, vector, vector, method)


@pytest.mark.parametrize("dtype", BYTES, ids=str)
@pytest.mark.parametrize("shape", [TURNED, EXCHANGED, GATHERED], ids=str)
def test_another_device(device, dtype, shape):
    if device.count < 2:
        pytest.skip("one device only")
    a, b = operands(np.random.default_rng(4), dtype, shape[0], 133, shape[1])
    check(device, a, b, table_of(dtype), index=1)


def test_sums_up_to_the_last_bit(device):
    """65537 times 65535 is 2^32 - 1; 32768 times -2^15 is -2^30."""
    highest = mitchell.Table(np.full((256, 256), 2**16 - 1, np.uint16))
    check(device, np.ones((1, 65537), np.uint8), np.ones((65537, 2), np.uint8), highest)
    check(device, np.ones((32, 700), np.uint8), np.ones((700, 260), np.uint8), highest)
    lowest = mitchell.Table(np.full((256, 256), -(2**15), np.int16))
    check(device, np.ones((1, 32768), np.int8), np.ones((32768, 2), np.int8), lowest)
    check(device, np.ones((32, 700), np.int8), np.ones((700, 260), np.int8), lowest)


# x, weight, groups, stride, padding, dilation; the last two have more outputs than pixels.
CONVOLUTIONS = {
    "padded": ((2, 3, 20, 23), (40, 3, 3, 2), 1, (1, 1), (1, 2), (1, 1)),
    "strided and dilated": ((1, 4, 41, 47), (33, 4, 3, 3), 1, (2, 1), (1, 0), (1, 3)),
    "grouped": ((2, 6, 17, 24), (80, 3, 2, 2), 2, (1, 1), (0, 0), (1, 1)),
    "pointwise": ((2, 20, 18, 18), (40, 20, 1, 1), 1, (1, 1), (0, 0), (1, 1)),
    "depthwise": ((2, 5, 9, 33), (5, 1, 3, 3), 5, (1, 1), (1, 1), (1, 1)),
    "many outputs": ((1, 5, 7, 8), (300, 5, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    "many outputs of a pixel": ((2, 40, 1, 1), (300, 40, 1, 1), 1, (1, 1), (0, 0), (1, 1)),
}


def turned(x):
    """The axes in the other order."""
    order = range(len(x.shape))[::-1]
    return x.transpose(*order) if isinstance(x, np.ndarray) else x.permute(*order)


@pytest.mark.parametrize("dtype", BYTES, ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("view", [turned, lambda x: x], ids=["turned", "plain"])
def test_convolutions(device, dtype, case, view):
    """Images and weights of any strides; a table's first operand is the image."""
    rng = np.random.default_rng(5)
    *shapes, groups, stride, padding, dilation = CONVOLUTIONS[case]
    operands = [np.ascontiguousarray(view(random_array(rng, dtype, shape))) for shape in shapes]

    def convolution(x, weight):
        kernels, empty = (framework := framework_of("conv2d", x)).kernels, framework.empty
        native = table_of(dtype)._in(kernels)
        options = (stride, padding, False, dilation, groups)
        return kernels.conv2d(x, weight, *options, native, None, empty, "auto", "auto")

    expected = convolution(*(view(x) for x in operands))
    result = device.numpy(convolution(*(view(device.array(x)) for x in operands)))
    np.testing.assert_array_equal(result, expected)
