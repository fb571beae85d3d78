"""Convolutions on CUDA devices: the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import numpy as np
import pytest

from mitchell_cases import BF16, all_methods, assert_same_numbers, ordinary_array, random_array
from slipstick import mitchell
from slipstick._arrays import framework_of

FLOATS = [np.dtype("float32"), np.dtype("float16"), BF16]
BYTES = [np.dtype("int8"), np.dtype("uint8")]
DTYPES = FLOATS + BYTES
PATHS = ("auto", "sums", "flushed", "general")

# x, weight, groups, stride, padding, dilation
CASES = {
    "plain": ((2, 3, 7, 9), (5, 3, 3, 3), 1, (1, 1), (0, 0), (1, 1)),
    "one image": ((3, 7, 9), (5, 3, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    "padded": ((1, 3, 8, 35), (7, 3, 3, 2), 1, (1, 1), (2, 1), (1, 1)),
    "strided": ((2, 2, 11, 12), (4, 2, 3, 4), 1, (2, 3), (1, 2), (1, 1)),
    "dilated": ((2, 2, 11, 40), (3, 2, 3, 2), 1, (1, 2), (3, 0), (2, 5)),
    "grouped": ((2, 6, 5, 6), (4, 3, 2, 3), 2, (1, 1), (1, 1), (1, 1)),
    "depthwise": ((2, 5, 9, 33), (5, 1, 3, 3), 5, (1, 1), (1, 1), (1, 1)),
    "pointwise": ((2, 8, 6, 6), (9, 8, 1, 1), 1, (1, 1), (0, 0), (1, 1)),
    "pointwise, strided": ((2, 7, 6, 5), (9, 7, 1, 1), 1, (2, 1), (0, 0), (1, 1)),
    "pointwise, grouped": ((1, 8, 6, 6), (6, 4, 1, 1), 2, (1, 1), (0, 0), (1, 1)),
    "two chains": ((1, 31, 6, 7), (2, 31, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    "all padding": ((1, 1, 1, 1), (2, 1, 2, 2), 1, (3, 3), (4, 4), (1, 1)),
    "a large tile": ((2, 4, 12, 13), (40, 4, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    "no channels": ((2, 0, 5, 6), (3, 0, 2, 2), 1, (1, 1), (0, 0), (1, 1)),
    "no images": ((0, 2, 5, 6), (3, 2, 2, 2), 1, (1, 1), (0, 0), (1, 1)),
}


def convolution(x, weight, groups, stride, padding, dilation, method, path="auto", out=None):
    framework = framework_of("conv2d", x, out)
    native = method._in(framework.kernels)
    same = padding == "same"
    return framework.kernels.conv2d(
        *(x, weight, stride, (0, 0) if same else padding, same, dilation, groups, native, out),
        *(framework.empty, "auto", path),
    )


def check(device, x, weight, rest, method, paths=("auto",), view=lambda x, weight: (x, weight)):
    expected = convolution(*view(x, weight), *rest, method)
    on_device = view(device.array(x), device.array(weight))
    for path in paths:
        result = device.numpy(convolution(*on_device, *rest, method, path))
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(result, expected)
        else:
            assert_same_numbers(result, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_shapes(device, case, dtype):
    shape, kernel, *rest = CASES[case]
    rng = np.random.default_rng(0)
    x, weight = ordinary_array(rng, dtype, shape), ordinary_array(rng, dtype, kernel)
    for method in (mitchell.Mitchell(), mitchell.ILM(1), mitchell.MBM()):
        check(device, x, weight, rest, method, PATHS if "two" in case else ("auto",))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_method(device, dtype):
    """Also of tables whose first operand is the image's."""
    shape, kernel, *rest = CASES["strided"]
    rng = np.random.default_rng(1)
    x, weight = ordinary_array(rng, dtype, shape), ordinary_array(rng, dtype, kernel)
    for method, _ in all_methods(dtype):
        check(device, x, weight, rest, method)
    if dtype in FLOATS:
        x, weight = random_array(rng, dtype, shape), random_array(rng, dtype, kernel)
        for method, _ in all_methods(dtype)[::3]:
            check(device, x, weight, rest, method)


def test_padding_same(device):
    rng = np.random.default_rng(2)
    for kernel in ((3, 4), (1, 2), (4, 1)):
        for dtype in DTYPES:
            x = ordinary_array(rng, dtype, (2, 3, 6, 7))
            weight = ordinary_array(rng, dtype, (4, 3, *kernel))
            for method in (mitchell.Mitchell(), mitchell.MBM()):
                check(device, x, weight, (1, (1, 1), "same", (1, 2)), method)


def test_padding_counts_as_zeros(device):
    """Operands without zeros of their own, and products with zeros that are not nothing."""
    rng = np.random.default_rng(3)
    rest = (1, (1, 1), (1, 1), (1, 1))
    for dtype in FLOATS:
        x, weight = (
            rng.uniform(0.5, 2, shape).astype(dtype) for shape in ((1, 2, 4, 5), (3, 2, 3, 3))
        )
        check(device, x, weight, rest, mitchell.Mitchell(), PATHS)
        check(device, x, weight, rest, mitchell.Mitchell(0.1, raw=True))
        weight[1, 1, 1, 1] = np.inf
        check(device, x, weight, rest, mitchell.Mitchell(), PATHS)


VIEWS = {
    "channels last": lambda x: x.permute(0, 3, 1, 2),
    "transposed": lambda x: x.permute(0, 1, 3, 2),
    "parts": lambda x: x[:, :, 1:, :-1],
    "every second column": lambda x: x[:, :, :, ::2],
    "stretched channels and columns": lambda x: x[:, :1, :, :1].broadcast_to(x.shape),
    "one number an output": lambda x: x[:, :1, :1, :1].broadcast_to(x.shape),
}


@pytest.mark.parametrize("of_weight", VIEWS)
@pytest.mark.parametrize("of_x", VIEWS)
def test_strides(device, of_x, of_weight):
    def view(x, weight):
        return VIEWS[of_x](x), VIEWS[of_weight](weight)

    rng = np.random.default_rng(4)
    shapes = {"channels last": (2, 9, 8, 3), "transposed": (2, 3, 9, 8)}
    kernels = {"channels last": (4, 3, 2, 3), "transposed": (4, 3, 2, 3)}
    for dtype in DTYPES:
        x = ordinary_array(rng, dtype, shapes.get(of_x, (2, 3, 10, 13)))
        weight = ordinary_array(rng, dtype, kernels.get(of_weight, (4, 3, 3, 5)))
        copies = [np.ascontiguousarray(v) for v in view(Permutable.of(x), Permutable.of(weight))]
        for method in (mitchell.Mitchell(), mitchell.MBM()):
            expected = convolution(*copies, 1, (1, 1), (1, 0), (1, 1), method)
            operands = view(device.array(x), device.array(weight))
            result = convolution(*operands, 1, (1, 1), (1, 0), (1, 1), method)
            np.testing.assert_array_equal(device.numpy(result), expected)


class Permutable(np.ndarray):
    """An array with the devices' name for a transposition of many axes."""

    @staticmethod
    def of(array: np.ndarray) -> Permutable:
        return array.view(Permutable)

    def permute(self, *axes: int) -> np.ndarray:
        return self.transpose(axes)

    def broadcast_to(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(self, shape)


def test_given_results(device):
    """Results of any strides."""
    shape, kernel, *rest = CASES["plain"]
    rng = np.random.default_rng(5)
    x, weight = (ordinary_array(rng, np.dtype("float32"), s) for s in (shape, kernel))
    expected = convolution(x, weight, *rest, mitchell.Mitchell())
    n, o, h, w = expected.shape
    for whole, view in (
        ((n, h, w, o), lambda x: x.permute(0, 3, 1, 2)),
        ((n, o, h, w + 3), lambda x: x[:, :, :, 1 : w + 1]),
        ((n, o, w, h), lambda x: x.permute(0, 1, 3, 2)),
    ):
        out = view(device.array(np.zeros(whole, np.float32)))
        convolution(device.array(x), device.array(weight), *rest, mitchell.Mitchell(), out=out)
        assert_same_numbers(device.numpy(out), expected)


def test_by_its_public_name(device):
    rng = np.random.default_rng(6)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 6, 7), (4, 3, 3, 3)))
    for options in ({}, {"method": "realm", "padding": "same"}, {"stride": 2, "padding": (1, 0)}):
        result = mitchell.conv2d(device.array(x), device.array(weight), **options)
        assert_same_numbers(device.numpy(result), mitchell.conv2d(x, weight, **options))


def test_launches_of_any_size_are_within_the_limits(emulated_cuda):
    cases = [
        ((1 << 17, 3, 32, 32), (64, 3, 3, 3)),
        ((1, 3, 1 << 17, 1 << 17), (4, 3, 3, 3)),
        ((1, 1 << 15, 64, 64), (1, 1 << 15, 1, 1)),
    ]
    rest = (1, (1, 1), (0, 0), (1, 1))
    with emulated_cuda.dry_run():
        for shapes in cases:
            for dtype in (np.dtype("float32"), np.dtype("int8")):
                x, weight = (emulated_cuda.empty(shape, dtype) for shape in shapes)
                convolution(x, weight, *rest, mitchell.Mitchell())
