"""Hamming distances and the nearest codes on CUDA devices."""

from __future__ import annotations

import numpy as np
import pytest

from slipstick.lsh import hamming_distance, hamming_topk


def random_codes(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def check_topk(device, queries, codes, k):
    results = hamming_topk(device.array(queries), device.array(codes), k)
    for result, expected in zip(results, hamming_topk(queries, codes, k), strict=True):
        result = device.numpy(result)
        assert result.dtype == expected.dtype
        assert (result == expected).all()


# Of one histogram, and of two (more than 1023 bits); a word that is not full; tiles of 16 queries;
# ranges of 2048 codes.
@pytest.mark.parametrize("n_bytes", [1, 3, 4, 8, 32, 40, 130, 300])
def test_the_nearest(device, n_bytes):
    rng = np.random.default_rng(n_bytes)
    for n_codes, n_queries in ((1, 1), (50, 3), (2048, 16)):
        codes, queries = random_codes(rng, n_codes, n_bytes), random_codes(rng, n_queries, n_bytes)
        for k in {1, min(10, n_codes), min(300, n_codes)}:
            check_topk(device, queries, codes, k)


def test_all_codes_in_order(device):
    rng = np.random.default_rng(0)
    check_topk(device, random_codes(rng, 2, 2), random_codes(rng, 2500, 2), 2500)


def test_of_equals_the_first(device):
    codes = np.zeros((5000, 16), np.uint8)
    codes[::3] = 255
    check_topk(device, codes[:17], codes, 400)


def test_near_codes_in_few_ranges(device):
    rng = np.random.default_rng(1)
    codes = random_codes(rng, 9000, 32)
    codes[[100, 2047, 2048, 8999]] = codes[0]
    check_topk(device, codes[:2], codes, 7)


def test_leading_axes_and_strides(device):
    rng = np.random.default_rng(2)
    codes, queries = random_codes(rng, 70, 9), random_codes(rng, 2, 3, 18)
    results = hamming_topk(device.array(queries)[:, :, ::2], device.array(codes)[::2], 5)
    expected = hamming_topk(queries[..., ::2], codes[::2], 5)
    for result, own in zip(results, expected, strict=True):
        assert (device.numpy(result) == own).all()


def test_distances(device):
    rng = np.random.default_rng(3)
    a, b = random_codes(rng, 5, 1, 33), random_codes(rng, 7, 66)
    result = hamming_distance(device.array(a), device.array(b)[:, ::2])
    assert (device.numpy(result) == hamming_distance(a, b[:, ::2])).all()


def test_no_queries(device):
    codes = device.array(np.zeros((4, 8), np.uint8))
    distances, indices = hamming_topk(device.array(np.zeros((0, 8), np.uint8)), codes, 2)
    assert device.numpy(distances).shape == device.numpy(indices).shape == (0, 2)


def test_refusals(device):
    codes = device.array(np.zeros((4, 8), np.uint8))
    with pytest.raises(ValueError, match=r"hamming_topk: `k` must be between 1 and .* 4, got 5"):
        hamming_topk(codes, codes, 5)
    with pytest.raises(ValueError, match=r"hamming_topk: `codes` must be on CUDA device 0"):
        hamming_topk(codes, np.zeros((4, 8), np.uint8), 1)
    with pytest.raises(TypeError, match=r"hamming_distance: `a` must be uint8, got int32"):
        hamming_distance(device.array(np.zeros((4, 8), np.int32)), codes)


def test_more_codes_than_32_bits_count(emulated_cuda):
    with emulated_cuda.dry_run():
        codes = emulated_cuda.empty((2**33, 8), np.uint8)
        distances, indices = hamming_topk(codes[:3], codes, 10)
        assert distances.shape == indices.shape == (3, 10)
        with pytest.raises(
            ValueError, match=r"^hamming_topk: `k` must be below 2\*\*32 on CUDA, got 4294967296$"
        ):
            hamming_topk(codes[:1], codes, 2**32)
