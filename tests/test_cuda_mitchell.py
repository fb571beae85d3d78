"""Mitchell's elementwise functions on CUDA devices: the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import contextlib
import gc

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import (
    DTYPES,
    FLOATS,
    all_methods,
    assert_same_bits,
    ordinary_array,
    random_array,
    special_values,
)
from slipstick import mitchell

# Around the lengths of packs, 2 to 16 elements, and of blocks of 256 of the shorter ones.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 511, 512, 513, 1009]
UNARY = {
    "square": mitchell.square,
    "reciprocal": mitchell.reciprocal,
    "sqrt": mitchell.sqrt,
    "log2": mitchell.log2,
    "exp2": mitchell.exp2,
    "power of a number": lambda a, out=None: mitchell.power(a, 0.3, out=out),
}
BINARY = {"multiply": mitchell.multiply, "divide": mitchell.divide, "power": mitchell.power}
FUNCTIONS = UNARY | BINARY
IN_FLOATS = [(name, dtype) for name in FUNCTIONS for dtype in FLOATS]


def operands_of(name: str) -> int:
    return 1 if name in UNARY else 2


def awkward_pairs(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of special values, and pairs of random patterns and of ordinary numbers."""
    rng = np.random.default_rng(0)
    special = special_values(dtype)
    others = (random_array(rng, dtype, (2, 200)), ordinary_array(rng, dtype, (2, 200)))
    pairs = np.stack(np.broadcast_arrays(special[:, None], special[None, :])).reshape(2, -1)
    a, b = np.concatenate([pairs, *others], axis=1)
    return a.copy(), b.copy()


def check(device, function, *operands, view=lambda x: x, index=0, **options):
    """Compare the function on views of arrays of the device with the same on the CPU."""
    expected = function(*(view(x) for x in operands), **options)
    result = function(*(view(device.array(x, index)) for x in operands), **options)
    assert type(result) is type(device.array(operands[0], index))
    assert_same_bits(device.numpy(result), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_of_every_method(device, dtype):
    pairs = awkward_pairs(dtype)
    a, b = (device.array(x) for x in pairs)
    for method, _ in all_methods(dtype):
        expected = mitchell.multiply(*pairs, method=method)
        assert_same_bits(device.numpy(mitchell.multiply(a, b, method=method)), expected)
        expected = mitchell.square(pairs[0], method=method)
        assert_same_bits(device.numpy(mitchell.square(a, method=method)), expected)


@pytest.mark.parametrize("dtype", [np.dtype("int8"), np.dtype("uint8")], ids=str)
def test_products_of_all_pairs_of_bytes(device, dtype):
    values = np.arange(256).astype(np.uint8).view(dtype)
    for method, _ in all_methods(dtype):
        check(device, mitchell.multiply, values[:, None], values[None, :], method=method)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_other_functions_of_awkward_numbers(device, dtype):
    a, b = awkward_pairs(dtype)
    for offset in (None, 1 / 16, 0.1, 0.9, 1 - 2**-53):
        method = mitchell.Mitchell(offset)
        check(device, mitchell.divide, a, b, method=method)
        check(device, mitchell.reciprocal, a, method=method)
    for function in (mitchell.sqrt, mitchell.log2, mitchell.exp2):
        check(device, function, a)
    with np.errstate(all="ignore"):
        exponents = (b.astype(np.float64) % 7).astype(dtype)
    for exponent in (b, exponents):
        check(device, mitchell.power, a, exponent)
    for number in (0.0, -0.0, 1, 2, -1.5, 0.3, 1e300, -np.inf, np.nan):
        check(device, mitchell.power, a, p=number)


@pytest.mark.parametrize("dtype", [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)], ids=str)
def test_functions_of_all_numbers_of_16_bits(device, dtype):
    every = np.arange(65536).astype(np.uint16).view(dtype)
    for function in UNARY.values():
        check(device, function, every)


@pytest.mark.parametrize(("name", "dtype"), IN_FLOATS, ids=str)
def test_sizes_and_starts(device, name, dtype):
    """Ends within a pack, and starts that are not a pack's."""
    rng = np.random.default_rng(1)
    values = [ordinary_array(rng, dtype, (1030,)) for _ in range(operands_of(name))]
    for size in SIZES:
        for start in (0, 1, 2, 16):
            check(device, FUNCTIONS[name], *values, view=lambda x: x[start : start + size])  # noqa: B023


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in FLOATS], ids=str)
def test_sizes_and_starts_of_integers(device, dtype):
    rng = np.random.default_rng(2)
    a, b = random_array(rng, dtype, (2, 1030))
    for method in ("mitchell", mitchell.Mitchell(0.1)):
        for size in SIZES:
            for start in (0, 1, 16):
                view = slice(start, start + size)
                check(device, mitchell.multiply, a[view], b[view], method=method)
                check(device, mitchell.multiply, a, b, view=lambda x: x[view], method=method)  # noqa: B023


VIEWS = {
    "every second": lambda x: x[::2],
    "columns": lambda x: x[:, ::3],
    "transposed": lambda x: x.T,
    "a column": lambda x: x[:, 5],
    "an element": lambda x: x[3, 4],
    "rows that begin within a pack": lambda x: x[:, 1:14],
    "whole packs of rows": lambda x: x[:, 16:48],
    "a new axis": lambda x: x[:, None, ::5],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_strides(device, view, name):
    rng = np.random.default_rng(3)
    for dtype in FLOATS:
        values = [ordinary_array(rng, dtype, (24, 50)) for _ in range(operands_of(name))]
        check(device, FUNCTIONS[name], *values, view=view)


def test_views_of_many_axes(device):
    rng = np.random.default_rng(4)
    a, b = ordinary_array(rng, np.dtype("int16"), (2, 3, 4, 5, 6, 7))
    for axes in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (0, 1, 3, 2, 4)):
        back = tuple(np.argsort(axes))
        left, right = device.array(a).permute(*axes), device.array(b.transpose(axes))
        expected = mitchell.multiply(a.transpose(axes), b.transpose(axes))
        assert_same_bits(device.numpy(mitchell.multiply(left, right)), expected)
        result = mitchell.multiply(left.permute(*back), right.permute(*back))
        assert_same_bits(device.numpy(result), mitchell.multiply(a, b))


@pytest.mark.parametrize("step", [-1, -3])
def test_negative_strides(emulated_cuda, step):
    """Which torch does not have."""
    rng = np.random.default_rng(5)
    for dtype in DTYPES:
        a, b = ordinary_array(rng, dtype, (2, 30, 50))
        check(emulated_cuda, mitchell.multiply, a, b, view=lambda x: x[::step, ::step])
        check(emulated_cuda, mitchell.square, a, view=lambda x: x[:, ::step])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_broadcasting(device, dtype):
    rng = np.random.default_rng(6)
    shapes = [
        *(((33, 1), (1, 47)), ((33, 47), (47,)), ((33, 47), (1,)), ((33, 47), ())),
        *(((5, 1, 7), (6, 1)), ((1, 48), (32, 48)), ((0, 3), (1, 3)), ((), ())),
    ]
    for shape, other in shapes:
        a, b = random_array(rng, dtype, shape), random_array(rng, dtype, other)
        check(device, mitchell.multiply, a, b)
        check(device, mitchell.multiply, b, a)
    wide = device.array(a).broadcast_to((3, 70))  # strides of zero
    expected = mitchell.multiply(np.broadcast_to(a, (3, 70)), np.broadcast_to(a, (3, 70)))
    assert_same_bits(device.numpy(mitchell.multiply(wide, wide)), expected)


@pytest.mark.parametrize(("name", "dtype"), IN_FLOATS, ids=str)
def test_results_in_given_arrays(device, name, dtype):
    """In place, and in a view between others that keep what they have."""
    rng = np.random.default_rng(7)
    function = FUNCTIONS[name]
    values = [ordinary_array(rng, dtype, (37, 65)) for _ in range(operands_of(name))]
    expected = function(*values)
    for i in range(len(values)):
        arrays = [device.array(x) for x in values]
        assert function(*arrays, out=arrays[i]) is arrays[i]
        assert_same_bits(device.numpy(arrays[i]), expected)
    background = ordinary_array(rng, dtype, (40, 140))
    out = device.array(background)
    function(*map(device.array, values), out=out[1:38, 2:132:2])
    background[1:38, 2:132:2] = expected
    assert_same_bits(device.numpy(out), background)
    out = device.array(np.zeros((65, 37), dtype))
    function(*map(device.array, values), out=out.T)
    assert_same_bits(device.numpy(out).T, expected)


@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("int8")], ids=str)
def test_more_packs_than_threads(device, dtype):
    rng = np.random.default_rng(8)
    a, b = random_array(rng, dtype, (2, 300_007))
    check(device, mitchell.multiply, a, b)


def test_a_device_that_is_not_current(device):
    if device.count < 2:
        pytest.skip("the machine has one CUDA device")
    values = ordinary_array(np.random.default_rng(9), np.dtype("uint8"), (1009,))
    table = mitchell.Table(np.arange(65536).astype(np.uint16).reshape(256, 256))
    for current in (0, 1):
        with device.current_device(current):
            for index in (0, 1):
                for method in ("mitchell", table):
                    check(device, mitchell.multiply, values, values, index=index, method=method)
                check(device, mitchell.sqrt, values.astype(np.float32), index=index)


def test_arrays_on_two_devices(device):
    if device.count < 2:
        pytest.skip("the machine has one CUDA device")
    a, b = (device.array(np.ones(3, np.float32), index) for index in (1, 0))
    for name, arguments in {"b": (a, b), "out": (a, a)}.items():
        out = b if name == "out" else None
        with pytest.raises(ValueError, match=f"^multiply: `{name}` must be on CUDA device 1 like"):
            mitchell.multiply(*arguments, out=out)


def test_streams(device):
    values = ordinary_array(np.random.default_rng(10), np.dtype("float32"), (1009,))
    a = device.array(values)
    with device.stream() as stream:
        products = [mitchell.multiply(a, a) for _ in range(3)]
    for product in products:
        assert_same_bits(device.numpy(product), mitchell.multiply(values, values))
    if device.emulated:
        launches = device.control.take_launches()[-3:]
        assert [launch["stream"] for launch in launches] == 3 * [stream]


def test_graphs(device):
    rng = np.random.default_rng(11)
    first = ordinary_array(rng, np.dtype("float32"), (1009,))
    a, b = device.array(first), device.array(first)
    table = mitchell.Table(random_array(rng, np.dtype("uint8"), (128, 128)))
    with device.capture() as graph:  # the table goes to the device, but not into the graph
        root = mitchell.sqrt(mitchell.multiply(a, b, method=table))
        mitchell.divide(root, b, out=b)
    expected, entries = first, table.array
    del table  # the graph reads it all the same
    gc.collect()
    table = mitchell.Table(entries)
    for _ in range(2):
        graph.replay()
        with np.errstate(all="ignore"):
            product = mitchell.multiply(first, expected, method=table)
            expected = mitchell.divide(mitchell.sqrt(product), expected)
        assert_same_bits(device.numpy(b), expected)


def test_no_memory(device):
    used = device.used_bytes(0)
    a = device.array(np.ones((1 << 20, 1), np.float64))
    message = rf"^multiply: CUDA device 0 must have memory for {8 << 40} bytes more, got: "
    with pytest.raises(RuntimeError, match=message):
        mitchell.multiply(a, a.T)
    del a
    assert device.used_bytes(0) == used


def test_no_memory_for_a_table(emulated_cuda):
    a = emulated_cuda.array(np.arange(9, dtype=np.uint8))
    table = mitchell.Table((np.arange(65536) ^ 1).astype(np.uint16).reshape(256, 256))
    used = emulated_cuda.used_bytes(0)
    emulated_cuda.control.fail_allocations(1)
    message = "^multiply: CUDA device 0 must have memory for 131072 bytes more, got: out of memory$"
    with pytest.raises(RuntimeError, match=message):
        mitchell.multiply(a, a, method=table)
    assert emulated_cuda.used_bytes(0) == used
    for _ in range(2):  # kept, once
        again = mitchell.Table(table.array)
        assert (mitchell.multiply(a, a, method=again).numpy() == (257 * np.arange(9) ^ 1)).all()
        assert emulated_cuda.used_bytes(0) == used + 131072


def test_no_memory_for_what_a_call_works_with(emulated_cuda):
    a, b = (emulated_cuda.array(np.ones(shape, np.float32)) for shape in ((64, 4096), (4096, 64)))
    out = emulated_cuda.array(np.zeros((64, 64), np.float32))
    filling = []
    for power in range(29, 7, -1):
        with contextlib.suppress(RuntimeError):
            filling.append(emulated_cuda.empty((1 << power,), "uint8"))
    used = emulated_cuda.used_bytes(0)
    message = r"^matmul: CUDA device 0 must have memory for \d+ bytes more, got: "
    with pytest.raises(RuntimeError, match=message):
        mitchell.matmul(a, b, out=out)
    assert emulated_cuda.used_bytes(0) == used
    del filling
    assert (mitchell.matmul(a, b, out=out).numpy() == 4096).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_launches_of_any_size_are_within_the_limits(emulated_cuda, name):
    """A grid of 2^20 blocks loops over the rest."""
    function, count = FUNCTIONS[name], operands_of(name)
    emulated_cuda.control.take_launches()
    with emulated_cuda.dry_run():
        for shape in ((1 << 38,), (1 << 33, 3), (3, 1 << 33), (1 << 16, 5, 1 << 20)):
            for dtype in FLOATS:
                function(*(emulated_cuda.empty(shape, dtype) for _ in range(count)))
    launches = emulated_cuda.control.take_launches()
    assert len(launches) == 4 * len(FLOATS)
    assert {launch["grid"] for launch in launches} == {(1 << 20, 1, 1)}
