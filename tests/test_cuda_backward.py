"""Gradients of matrix products on CUDA devices: the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import all_methods, assert_same_numbers, random_array, special_values
from slipstick import mitchell
from slipstick.mitchell import ILM, LMul, LMulFormula, Mitchell, matmul_backward

DTYPES = [np.dtype("float32"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]
KINDS = ["mimic", "exact", "straight-through"]

# a, b: matrices of awkward sizes, vectors, stretched axes.
SHAPES = {
    "matrices": ((5, 7), (7, 9)),
    "packs": ((36, 8), (8, 64)),
    "longer than a chain": ((3, 300), (300, 270)),
    "several tiles": ((67, 9), (9, 150)),
    "column by row": ((6, 1), (1, 5)),
    "batches": ((3, 2, 4, 5), (3, 2, 5, 6)),
    "b shared": ((5, 4, 6), (6, 3)),
    "a shared": ((4, 6), (2, 3, 6, 5)),
    "b shared, longer than a chain": ((40, 7, 5), (5, 36)),
    "a shared, longer than a chain": ((34, 5), (40, 5, 7)),
    "both stretched": ((3, 1, 4, 5), (2, 5, 6)),
    "stretched between batches": ((2, 1, 3, 4, 5), (2, 6, 1, 5, 6)),
    "an axis of one": ((1, 4, 5), (1, 5, 6)),
    "row": ((7,), (7, 9)),
    "column": ((5, 7), (7,)),
    "vectors": ((7,), (7,)),
    "row and batch": ((7,), (3, 7, 2)),
    "batch and column": ((3, 4, 7), (7,)),
    "no rows": ((0, 3), (3, 4)),
    "no depth": ((2, 0), (0, 4)),
    "no columns": ((2, 3), (3, 0)),
    "no batch": ((0, 2, 3), (3, 4)),
}


def draw(shape, dtype, seed):
    """Numbers within six binades or so, and zeros."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.1, 0, rng.standard_normal(shape)).astype(dtype)


def operands(case, dtype):
    a, b = (draw(shape, dtype, seed) for seed, shape in enumerate(SHAPES[case]))
    shape = np.matmul(np.empty(a.shape), np.empty(b.shape)).shape
    return draw(shape, dtype, 2), a, b


def check(device, *arrays, view=lambda x: x, **options):
    """Compare the gradients of views of arrays of the device with the same on the CPU."""
    expected = matmul_backward(*(view(x) for x in arrays), **options)
    results = matmul_backward(*(view(device.array(x)) for x in arrays), **options)
    for result, wanted in zip(results, expected, strict=True):
        assert_same_numbers(device.numpy(result), wanted)


@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize("case", SHAPES)
def test_shapes(device, case, gradient):
    for dtype in DTYPES:
        check(device, *operands(case, dtype), gradient=gradient)


@pytest.mark.parametrize("case", ["matrices", "b shared, longer than a chain", "both stretched"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_of_every_method(device, dtype, case):
    arrays = operands(case, dtype)
    for method, _ in all_methods(dtype):
        check(device, *arrays, method=method)


EXACT = [Mitchell(), Mitchell(0.0625), Mitchell(0.75), LMul(), LMulFormula(), ILM(0), ILM(3)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", EXACT, ids=repr)
def test_exact_factors_of_all_kinds_of_numbers(device, method, dtype):
    """Products of single numbers: the gradient of 1 is the factor itself."""
    values = special_values(dtype)
    a = np.repeat(values, len(values)).reshape(-1, 1, 1)
    b = np.tile(values, len(values)).reshape(-1, 1, 1)
    check(device, np.ones_like(a), a, b, method=method, gradient="exact")
    # Without a number that takes the whole product to the rules for infinite factors.
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
    values = values[abs(wide) < float(ml_dtypes.finfo(dtype).max) / 8]
    a = np.repeat(values, len(values)).reshape(-1, 1, 1)
    b = np.tile(values, len(values)).reshape(-1, 1, 1)
    check(device, np.ones_like(a), a, b, method=method, gradient="exact")


@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_of_all_kinds(device, dtype, gradient):
    """Ranges that no sum of patterns serves, infinities and NaNs, in one matrix of a batch."""
    rng = np.random.default_rng(3)
    grad, a, b = draw((2, 5, 9), dtype, 0), draw((2, 5, 7), dtype, 1), draw((2, 7, 9), dtype, 2)
    for i, array in enumerate((grad, a, b)):
        arrays = [grad.copy(), a.copy(), b.copy()]
        arrays[i][1] = random_array(rng, dtype, array.shape[1:])
        for method in ("mitchell", LMulFormula(3)) if gradient == "mimic" else ("mitchell",):
            check(device, *arrays, method=method, gradient=gradient)


def transposed(x):
    """The matrices of an array of three axes, on any device."""
    return x.transpose(0, 2, 1) if isinstance(x, np.ndarray) else x.permute(0, 2, 1)


# The shape that an array of so many matrices has to have, and the view of it.
VIEWS = {
    "transposed": (lambda n, rows, columns: (n, columns, rows), transposed),
    "within others": (
        lambda n, rows, columns: (n, rows + 3, columns + 2),
        lambda x: x[:, 2:-1, 2:],
    ),
    "every second": (lambda n, rows, columns: (2 * n, rows, 2 * columns), lambda x: x[::2, :, ::2]),
    "packs within others": (
        lambda n, rows, columns: (n, rows + 3, columns + 8),
        lambda x: x[:, 2:-1, 8:],
    ),
}


@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize("view", VIEWS)
def test_strides(device, view, gradient):
    """Matrices that do not follow one another, of a batch over one b and over one a."""
    shape_of, view = VIEWS[view]
    for dtype in DTYPES:
        for batches in ((30, 30, 1), (30, 1, 30), (2, 2, 2)):
            shapes = zip(batches, (9, 9, 16), (32, 16, 32), strict=True)
            arrays = [draw(shape_of(*shape), dtype, i) for i, shape in enumerate(shapes)]
            check(device, *arrays, view=view, gradient=gradient)


@pytest.mark.parametrize("gradient", KINDS)
def test_a_gradient_that_is_one_number(device, gradient):
    """As that of a sum is: all strides are 0."""
    one, a, b = draw((1, 1), DTYPES[0], 0), draw((300, 9), DTYPES[0], 1), draw((9, 7), DTYPES[0], 2)
    expected = matmul_backward(np.broadcast_to(one, (300, 7)), a, b, gradient=gradient)
    grad = device.array(one).broadcast_to((300, 7))
    results = matmul_backward(grad, device.array(a), device.array(b), gradient=gradient)
    for result, wanted in zip(results, expected, strict=True):
        assert_same_numbers(device.numpy(result), wanted)


def test_graphs(device):
    """A graph chooses its kernels anew whenever it runs."""
    grad, a, b = operands("several tiles", DTYPES[0])
    arrays = [device.array(x) for x in (grad, a, b)]
    with device.capture() as graph:
        results = [matmul_backward(*arrays, gradient=gradient) for gradient in KINDS]
    wide = random_array(np.random.default_rng(4), DTYPES[0], a.shape)
    for values in (np.ones_like(a), wide):
        mitchell.multiply(arrays[1], device.array(values), out=arrays[1])
        a = mitchell.multiply(a, values)
        graph.replay()
        for gradient, result in zip(KINDS, results, strict=True):
            expected = matmul_backward(grad, a, b, gradient=gradient)
            for actual, wanted in zip(result, expected, strict=True):
                assert_same_numbers(device.numpy(actual), wanted)


def test_a_device_that_is_not_current(device):
    if device.count < 2:
        pytest.skip("the machine has one CUDA device")
    arrays = operands("b shared, longer than a chain", DTYPES[0])
    for gradient in KINDS:
        expected = matmul_backward(*arrays, gradient=gradient)
        results = matmul_backward(*(device.array(x, 1) for x in arrays), gradient=gradient)
        for result, wanted in zip(results, expected, strict=True):
            assert_same_numbers(device.numpy(result), wanted)


@pytest.mark.parametrize("dtype", ["float64", "int8"])
def test_dtypes_that_are_refused(device, dtype):
    arrays = [device.array(np.ones((2, 2), dtype)) for _ in range(3)]
    message = f"^matmul_backward: `grad` must be float32, float16 or bfloat16 on CUDA, got {dtype}$"
    with pytest.raises(TypeError, match=message):
        matmul_backward(*arrays)


def test_launches_of_any_size_are_within_the_limits(emulated_cuda):
    shapes = [
        ((1 << 20, 1 << 20), (1 << 20, 1 << 20)),
        ((1 << 30, 3), (3, 1 << 10)),
        ((1 << 10, 3), (3, 1 << 30)),
        ((1 << 20, 2, 3), (1 << 20, 3, 5)),
    ]
    with emulated_cuda.dry_run():
        for a, b in shapes:
            shape = (*a[:-1], b[-1])
            for gradient in KINDS:
                grad, left, right = (emulated_cuda.empty(x, DTYPES[0]) for x in (shape, a, b))
                matmul_backward(grad, left, right, gradient=gradient)
