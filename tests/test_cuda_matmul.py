"""Matrix products on CUDA devices: the CPU's bits, whatever kernel the operands' range chooses.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import (
    BF16,
    all_methods,
    assert_same_numbers,
    ordinary_array,
    random_array,
    special_values,
)
from slipstick import mitchell
from slipstick._arrays import framework_of

HALVES = [np.dtype("float16"), BF16]
FLOATS = [np.dtype("float32"), *HALVES]
BYTES = [np.dtype("int8"), np.dtype("uint8")]
DTYPES = FLOATS + BYTES
PATHS = ("auto", "sums", "flushed", "general")
# One for each kernel of sums.
SUMS = [mitchell.Mitchell(), mitchell.LMul(3), mitchell.ALMSOA(4), mitchell.ILM(2)]


def product(a, b, method, path="auto", multiplier=1.0, out=None):
    framework = framework_of("matmul", a, out)
    native = method._in(framework.kernels)
    return framework.kernels.matmul(a, b, native, multiplier, out, framework.empty, path)


def check(device, a, b, method, view=None, paths=("auto",), **options):
    """Compare with the CPU; `view` makes the operands of the arrays that are copied."""
    view = view or (lambda a, b: (a, b))
    expected = product(*view(a, b), method, **options)
    on_device = view(device.array(a), device.array(b))
    for path in paths:
        result = device.numpy(product(*on_device, method, path, **options))
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(result, expected)
        else:
            assert_same_numbers(result, expected)


def bounded(rng, dtype, shape, low, high, zeros=False):
    """Numbers with exponents from `low` to `high`, both of them there."""
    exponent = rng.integers(low, high, shape, endpoint=True)
    exponent.flat[:2] = low, high
    numbers = np.ldexp(rng.uniform(1, 2, shape), exponent) * rng.choice([-1, 1], shape)
    numbers = numbers.astype(dtype)
    if zeros:
        numbers.flat[2:][rng.random(numbers.size - 2) < 0.3] = rng.choice([0.0, -0.0])
    return numbers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_method(device, dtype):
    """Ordinary numbers with zeros, and any patterns whatever."""
    rng = np.random.default_rng(0)
    ordinary = [ordinary_array(rng, dtype, shape) for shape in ((5, 20), (20, 7))]
    any_bits = [random_array(rng, dtype, shape) for shape in ((3, 9), (9, 4))]
    for method, _ in all_methods(dtype):
        check(device, *ordinary, method)
        check(device, *any_bits, method)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_values(device, dtype):
    values = special_values(dtype)
    kinds = [method for method, _ in all_methods(dtype)][::3]
    for method in (*SUMS, *kinds):
        check(device, values[:, None], values[None, :], method)


@pytest.mark.parametrize("method", SUMS, ids=repr)
@pytest.mark.parametrize("rows", [1, 31, 33, 127, 128, 129])
def test_sizes(device, rows, method):
    """Parts of tiles of both sizes, in either direction, and parts of steps and of chains."""
    rng = np.random.default_rng(rows)
    for columns, depth in ((1, 7), (129, 8), (128, 9), (36, 1), (34, 257), (132, 256), (4, 0)):
        for dtype in (np.dtype("float32"), rng.choice(HALVES), rng.choice(BYTES)):
            a = ordinary_array(rng, dtype, (rows, depth))
            b = ordinary_array(rng, dtype, (depth, columns))
            check(device, a, b, method)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("depth", [255, 256, 257, 513, 1500])
def test_depths(device, dtype, depth):
    """Chains of 256: of few results each by another block, of many all by one."""
    rng = np.random.default_rng(depth)
    for shape in ((3, 2), (50, 5), (7, 40, 36), (1, 130, 131)):
        batch, (rows, columns) = shape[:-2], shape[-2:]
        a = ordinary_array(rng, dtype, (*batch, rows, depth))
        b = ordinary_array(rng, dtype, (*batch, depth, columns))
        check(device, a, b, mitchell.Mitchell())
        check(device, a, b, mitchell.ILM(1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_results_of_long_sums(device, dtype):
    """More blocks than a device has room for: none of their sums are cut."""
    rng = np.random.default_rng(1)
    a = ordinary_array(rng, dtype, (60, 40, 264))
    b = ordinary_array(rng, dtype, (264, 36))
    for method in (mitchell.Mitchell(), mitchell.ALMSOA(3), mitchell.MBM()):
        check(device, a, b, method)


def test_empty(device):
    for shapes in (((0, 3), (3, 2)), ((2, 3), (3, 0)), ((4, 0, 3), (3, 2)), ((2, 0), (0, 3))):
        for dtype in DTYPES:
            a, b = (np.ones(shape, dtype) for shape in shapes)
            check(device, a, b, mitchell.Mitchell())
            check(device, a, b, mitchell.MBM(), multiplier=1.0)


VIEWS = {
    "transposed": lambda a, b: (b.T, a.T),
    "every second": lambda a, b: (a[::2, ::2], b[::2, ::2]),
    "parts": lambda a, b: (a[1:, 1:], b[1:, 3:]),
    "parts of whole packs": lambda a, b: (a[:, 4:12], b[4:12, 8:20]),
    "rows of one part": lambda a, b: (a[4:8, 8:], b[8:, 4:]),
    "vectors": lambda a, b: (a[3], b[:, 2]),
    "a row": lambda a, b: (a[3], b),
    "a column": lambda a, b: (a, b[:, 2]),
    "an outer product": lambda a, b: (a[:, :1], b[:1]),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_strides(device, view, dtype):
    rng = np.random.default_rng(2)
    a = ordinary_array(rng, dtype, (36, 40))
    b = ordinary_array(rng, dtype, (40, 44))
    for method in (mitchell.Mitchell(), mitchell.LMulFormula(3), mitchell.MBM()):
        check(device, a, b, method, view)


def test_reversed_and_repeated(device):
    """Steps that are negative, or 0."""
    if not device.emulated:
        pytest.skip("torch has no negative steps")
    rng = np.random.default_rng(3)
    for dtype in DTYPES:
        a = ordinary_array(rng, dtype, (9, 40))
        b = ordinary_array(rng, dtype, (40, 12))
        check(device, a, b, mitchell.Mitchell(), lambda a, b: (a[::-1, ::-1], b[::-1]))
        for method in (mitchell.Mitchell(), mitchell.MBM()):
            expected = product(np.broadcast_to(a[:1], (4, 40)), b, method)
            repeated = device.array(a)[:1].broadcast_to((4, 40))
            result = device.numpy(product(repeated, device.array(b), method))
            np.testing.assert_array_equal(result, expected)


BATCHES = [
    ((3, 5, 6), (6, 4)),
    ((5, 6), (3, 6, 4)),
    ((2, 1, 5, 6), (3, 6, 4)),
    ((2, 3, 5, 6), (2, 3, 6, 4)),
    ((2, 1, 3, 1, 5), (1, 4, 1, 5, 2)),
    ((3, 6), (2, 3, 6, 4)),
    ((2, 3, 5, 6), (6,)),
    ((6,), (2, 3, 6, 4)),
]


@pytest.mark.parametrize("shapes", BATCHES, ids=str)
def test_batches(device, shapes):
    """Every matrix has a range of its own, and so a kernel of its own."""
    rng = np.random.default_rng(4)
    for dtype in DTYPES:
        a, b = (ordinary_array(rng, dtype, shape) for shape in shapes)
        if dtype.kind == "f":
            a.reshape(-1, a.shape[-1])[0, 0] = np.inf
            b.reshape(-1)[-1] = np.ldexp(1.0, int(ml_dtypes.finfo(dtype).minexp))
        check(device, a, b, mitchell.Mitchell())
        check(device, a, b, mitchell.LMulFormula(2))
        if len(shapes[0]) == 4 and len(shapes[1]) == 4:
            order = (1, 0, 2, 3)
            check(device, a.transpose(order).copy(), b.transpose(order).copy(), SUMS[0])


RANGES = {
    "ordinary": ((-3, 3), (-3, 3)),
    "tiny products": ((-7, -5), (-8, -4)),
    "at the top": ((6, 7), (7, 8)),
    "beyond the top": ((13, 15), (1, 4)),
    "the widest": ((-14, 15), (-14, 15)),
}


@pytest.mark.parametrize("zeros", ["", "a", "b", "ab"])
@pytest.mark.parametrize("name", RANGES)
def test_ranges_and_paths(device, name, zeros):
    """A path that the range does not allow gives way to another: the bits are the same."""
    rng = np.random.default_rng(5)
    for dtype in FLOATS:
        # float32 and bfloat16 have eight times the exponents.
        scale = 1 if dtype.name == "float16" else 8
        (low_a, high_a), (low_b, high_b) = RANGES[name]
        a = bounded(rng, dtype, (6, 50), scale * low_a, scale * high_a, "a" in zeros)
        b = bounded(rng, dtype, (50, 5), scale * low_b, scale * high_b, "b" in zeros)
        a[4, 25:] = -a[4, :25]  # products that cancel
        b[25:, 2:] = b[:25, 2:]
        for method in (*SUMS[:3], mitchell.MitchW(3), mitchell.Mitchell(0.9)):
            check(device, a, b, method, paths=PATHS)


def test_infinities_and_nans(device):
    rng = np.random.default_rng(6)
    for dtype in FLOATS:
        a = ordinary_array(rng, dtype, (5, 30))
        b = ordinary_array(rng, dtype, (30, 6))
        a[1, 2], a[2, 3], b[4, 1], b[3, 2] = np.inf, np.nan, -np.inf, 0
        for method in (*SUMS, mitchell.LMulFormula(), mitchell.DRUM(3), mitchell.REALM(4)):
            check(device, a, b, method, paths=PATHS)


@pytest.mark.parametrize("dtype", BYTES, ids=str)
def test_integers_at_their_limits(device, dtype):
    values = np.arange(256).astype(np.uint8).view(dtype)
    for method, _ in all_methods(dtype):
        check(device, values[:, None], values[None, :], method, paths=("auto", "general"))
    extremes = np.full((3, 1000), np.iinfo(dtype).min or np.iinfo(dtype).max, dtype)
    for method in (mitchell.Mitchell(), mitchell.DRUM(3), mitchell.MBM()):
        check(device, extremes, extremes.T.copy(), method, paths=PATHS)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_ordinary_products_for_comparison(device, dtype):
    rng = np.random.default_rng(7)
    a = ordinary_array(rng, dtype, (33, 300))
    b = ordinary_array(rng, dtype, (300, 40))
    expected = product(a, b, mitchell.Mitchell(), "exact")
    result = product(device.array(a), device.array(b), mitchell.Mitchell(), "exact")
    assert_same_numbers(device.numpy(result), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_factors_and_given_results(device, dtype):
    """One rounding of the product with the factor; results of any strides."""
    rng = np.random.default_rng(8)
    a = ordinary_array(rng, dtype, (35, 300))
    b = ordinary_array(rng, dtype, (300, 34))
    for multiplier in (27 / 26, -0.3, 1e-6, 0.0):
        check(device, a, b, mitchell.Mitchell(), multiplier=multiplier)
    expected = product(a, b, mitchell.Mitchell())
    for view in (lambda x: x[:35, :34], lambda x: x.T[:35, :34], lambda x: x[::2, ::2][:35, :34]):
        whole = device.array(np.zeros((70, 70), dtype))
        out = view(whole)
        product(device.array(a), device.array(b), mitchell.Mitchell(), out=out)
        assert_same_numbers(device.numpy(out), expected)
        assert np.count_nonzero(device.numpy(whole)) == np.count_nonzero(expected)


def test_more_results_than_a_grid_is_high(device):
    rng = np.random.default_rng(9)
    a = ordinary_array(rng, np.dtype("int8"), (65540, 1, 2))
    b = ordinary_array(rng, np.dtype("int8"), (2, 1))
    check(device, a, b, mitchell.Mitchell())


def test_by_its_public_name(device):
    rng = np.random.default_rng(10)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 50), (50, 4)))
    for options in ({}, {"method": "realm"}, {"correction": "gain"}):
        result = mitchell.matmul(device.array(a), device.array(b), **options)
        assert_same_numbers(device.numpy(result), mitchell.matmul(a, b, **options))


def test_in_a_graph(device):
    """A graph chooses its kernels anew whenever it runs."""
    rng = np.random.default_rng(11)
    a = ordinary_array(rng, np.dtype("float32"), (5, 300))
    b = ordinary_array(rng, np.dtype("float32"), (300, 6))
    arrays = [device.array(x) for x in (a, b)]
    with device.capture() as graph:
        result = product(*arrays, mitchell.Mitchell())
    for factor in (1, 2.0**-100, 2.0**100, np.inf):
        values = np.full_like(a, factor)
        mitchell.multiply(arrays[0], device.array(values), out=arrays[0])
        a = mitchell.multiply(a, values)
        graph.replay()
        assert_same_numbers(device.numpy(result), product(a, b, mitchell.Mitchell()))


def test_launches_of_any_size_are_within_the_limits(emulated_cuda):
    shapes = [
        ((1 << 20, 1 << 20), (1 << 20, 1 << 20)),
        ((1 << 30, 3), (3, 1 << 10)),
        ((1 << 10, 3), (3, 1 << 30)),
        ((1 << 33,), (1 << 33,)),
        ((1 << 20, 2, 3), (1 << 20, 3, 5)),
    ]
    with emulated_cuda.dry_run():
        for shape_a, shape_b in shapes:
            for dtype in (np.dtype("float32"), BF16):
                a, b = (emulated_cuda.empty(shape, dtype) for shape in (shape_a, shape_b))
                for method in (mitchell.Mitchell(), mitchell.ILM(1), mitchell.MBM()):
                    product(a, b, method)
