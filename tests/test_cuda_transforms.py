"""Hadamard transforms and rotations on CUDA devices: the CPU's bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import slipstick
from slipstick.projection import hadamard, rotate

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
# Powers of two, those times 12, 20 and 28, and others; in whose parts passes have any number of
# stages.
LENGTHS = (1, 2, 3, 6, 7, 12, 16, 20, 24, 28, 37, 96, 128, 320, 768, 960, 1000, 1536, 4096, 5120)
# Beyond what shared memory holds of float32; float64 fills it at half.
LONG = (70_000, 3 * 2**15, 2**16)


def numbers(shape, dtype, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def assert_same(result, expected):
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    assert np.ascontiguousarray(result).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize(
    "dtype", [*FLOATS, np.int16, np.uint64, np.bool_], ids=lambda t: t.__name__
)
def test_hadamard(device, dtype):
    for log2n in (*range(11), 13):
        x = numbers((3, 1 << log2n), dtype)
        assert_same(device.numpy(hadamard(device.array(x))), hadamard(x))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hadamard_along_any_axis(device, axis):
    for dtype in (np.float32, np.float16):
        x = numbers((64, 32, 16), dtype)
        assert_same(device.numpy(hadamard(device.array(x), axis=axis)), hadamard(x, axis=axis))


@pytest.mark.parametrize("inverse", [False, True])
def test_rotate(device, inverse):
    for number, size in enumerate(LENGTHS):
        x = numbers((5, size), FLOATS[number % len(FLOATS)])
        expected = rotate(x, seed=number, inverse=inverse)
        assert_same(device.numpy(rotate(device.array(x), seed=number, inverse=inverse)), expected)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds(device, rounds):
    x = numbers((2, 48), np.float32)
    expected = rotate(x, seed=2**63 + 5, rounds=rounds)
    assert_same(device.numpy(rotate(device.array(x), seed=2**63 + 5, rounds=rounds)), expected)


@pytest.mark.parametrize("size", LONG)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_longer_than_shared_memory(device, size, dtype):
    x = numbers((2, size), dtype)
    for inverse in (False, True):
        expected = rotate(x, inverse=inverse)
        assert_same(device.numpy(rotate(device.array(x), inverse=inverse)), expected)
    if size == 2**16:
        assert_same(device.numpy(hadamard(device.array(x))), hadamard(x))
        columns = np.asfortranarray(x.T)
        assert_same(device.numpy(hadamard(device.array(columns), axis=0)), hadamard(x).T)


def test_a_vector_of_float64_longer_than_shared_memory(device):
    x = numbers(2**15, np.float64)
    assert_same(device.numpy(hadamard(device.array(x))), hadamard(x))


def test_many_short_vectors(device):
    x = numbers((5000, 2), np.float32)
    assert_same(device.numpy(hadamard(device.array(x))), hadamard(x))


def test_strides_and_out(device):
    whole = numbers((6, 200), np.float32)
    x = whole[::2, 3:195:2]
    part = device.array(whole)[::2, 3:195:2]
    assert_same(device.numpy(rotate(part)), rotate(x))
    out = device.array(np.zeros((96, 3), np.float32)).T
    assert rotate(part, out=out) is out
    assert_same(device.numpy(out), rotate(x))
    rotate(part, out=part)
    assert_same(device.numpy(part), rotate(x))


def test_infinities_and_nans_reach_their_vector_alone(device):
    x = numbers((3, 64), np.float32)
    x[0, 5] = np.inf
    x[1, 7] = np.nan
    result = device.numpy(rotate(device.array(x)))
    assert np.isnan(result[:2]).any(axis=1).all()
    assert_same(result[2], rotate(x[2]))


def test_nothing_overflows_on_the_way(device):
    signs = np.sign(numbers((2, 960), np.float64))
    result = device.numpy(rotate(device.array(np.float32(1e37) * signs.astype(np.float32))))
    assert np.isfinite(result).all()


def test_empty(device):
    assert device.numpy(hadamard(device.array(np.zeros((0, 8), np.float32)))).shape == (0, 8)
    assert device.numpy(rotate(device.array(np.zeros((2, 0, 5), np.float16)))).shape == (2, 0, 5)


def test_refusals(device):
    x = device.array(np.zeros((2, 3), np.float32))
    with pytest.raises(
        ValueError, match=r"hadamard: `x` must have a power of two .* shape \(2, 3\)"
    ):
        hadamard(x)
    with pytest.raises(ValueError, match=r"rotate: `x` must have at least one feature"):
        rotate(device.array(np.zeros((2, 0), np.float32)))
    with pytest.raises(ValueError, match=r"rotate: `out` must be on CUDA device 0"):
        rotate(x, out=np.zeros((2, 3), np.float32))


def test_a_transform_on_another_device_and_in_a_graph(emulated_cuda):
    x = numbers((2, 24), np.float32)
    array = emulated_cuda.array(x, 1)
    result = slipstick.projection.rotate(array)
    assert result.device == 1
    assert_same(result.numpy(), rotate(x))
    array = emulated_cuda.array(x)
    with emulated_cuda.capture() as graph:
        result = rotate(array)
    graph.replay()
    assert_same(result.numpy(), rotate(x))


def test_addresses_beyond_32_bits(emulated_cuda):
    with emulated_cuda.dry_run():
        x = emulated_cuda.empty((2**23, 1024), np.float32)
        assert hadamard(x).shape == x.shape
        assert rotate(emulated_cuda.empty((3, 2**33), np.float32)).shape == (3, 2**33)
