"""Random projection on CUDA devices: the CPU's matrices, and the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import assert_same_bits
from projection_cases import DTYPES, EVERY_LAW, LAWS
from slipstick import projection

# Starts that are no group's, and columns past 2**32.
PARTS = [
    (slice(3), slice(1)),
    (slice(5, 6), slice(7, 300)),
    (slice(126, 260), slice(2**32 - 3, 2**32 + 5)),
    (slice(4090, 4100), slice(4094, 4099)),
    (slice(2, 2), slice(5)),
]
# Rows, features, components, first feature: around tiles (256, 128 or 32 rows; 64 or 16 columns),
# steps of 8 or 16, groups of 4 and chains of 256.
SHAPES = [
    (1, 1, 1, 0),
    (3, 300, 65, 5),
    (40, 19, 17, 2**33 + 254),
    (33, 513, 7, 252),
]
# Rows, with few of which the exact way is taken: more than half of what fills an emulated device.
FILLING = 300


def block(law, seed, rows, cols, **more):
    return projection.block(seed=seed, rows=rows, cols=cols, **law, **more)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law["kind"])
def test_parts_of_the_matrix(device, law, dtype):
    for rows, cols in PARTS:
        for n_components in (8192, None):
            if n_components is None and law["kind"] in ("sjlt", "countsketch"):
                continue
            shape = (rows.stop - (rows.start or 0), cols.stop - (cols.start or 0))
            options = {"n_components": n_components}
            seed = 0x123456789ABCDEF
            expected = block(law, seed, rows, cols, **options, out=np.empty(shape, dtype))
            out = device.array(np.zeros((2 * shape[0], shape[1]), dtype))[::2].T
            same = block(law, seed, rows, cols, **options, out=out.T)
            np.testing.assert_array_equal(device.numpy(same), expected)
            np.testing.assert_array_equal(device.numpy(out.T), expected)


def check(device, function, x, *args, view=lambda x: x, **options):
    """Compare the function on views of an array of the device with the same on the CPU."""
    expected = function(view(x), *args, **options)
    result = function(view(device.array(x)), *args, **options)
    assert_same_bits(device.numpy(result), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["kind"])
def test_products_have_the_bits_of_the_cpu(device, law, dtype):
    rng = np.random.default_rng(3)
    for rows, features, n_components, first in SHAPES:
        x = rng.standard_normal((rows, features)).astype(dtype)
        check(device, projection.project, x, n_components, seed=7, first_feature=first, **law)
        y = rng.standard_normal((rows, n_components)).astype(dtype)
        options = {"seed": 2**40 + 1, "first_feature": first, **law}
        check(device, projection.back_project, y, features, **options)


# Rows that fill the emulated devices, whose tiles are 128 rows, with more chains than one.
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != np.float64], ids=str)
@pytest.mark.parametrize(("n_components", "features", "first"), [(40, 263, 3), (200, 530, 0)])
def test_fast_mode_is_as_accurate_as_a_product(device, dtype, n_components, features, first):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((FILLING, features)).astype(dtype)
    x[::7] *= np.exp2(rng.integers(-8, 8, x[::7].shape)).astype(dtype)
    options = {"seed": 11, "first_feature": first}
    entries = projection.block(
        "rademacher", 11, slice(n_components), slice(first, first + features)
    )
    factor = 1 / np.sqrt(n_components)
    true = x.astype(np.float64) @ entries.T * factor
    product = x.astype(np.float32) @ entries.astype(np.float32).T * np.float32(factor)
    fast = device.numpy(
        projection.project(device.array(x), n_components, mode="fast", **options)
    )
    norm = np.linalg.norm(x.astype(np.float64), axis=1)[:, np.newaxis] * factor
    rounding = 0 if dtype == np.float32 else float(ml_dtypes.finfo(dtype).eps) * np.abs(true) / 2
    error = (np.maximum(np.abs(fast.astype(np.float64) - true) - rounding, 0) / norm).max()
    assert error <= 2 * (np.abs(product - true) / norm).max()
