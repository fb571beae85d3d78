"""Dense products with "sjlt" and "countsketch" on CUDA devices: the CPU's bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from slipstick.projection import back_project, project

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.uint8)
# (rows, features, components, first_feature, entries a column); None: countsketch. Tiles of 32 to
# 256 components; chains of 256 features, with another start; parts that do not divide k; every
# component in every column.
CASES = (
    (1, 1, 1, 0, None),
    (3, 40, 5, 250, None),
    (20, 700, 33, 0, 8),
    (70, 300, 100, 2**40 + 13, 7),
    (17, 520, 300, 128, 8),
    (2, 300, 1000, 0, None),
    (5, 64, 40, 0, 40),
)


def assert_same(result, expected):
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert np.ascontiguousarray(result).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(("rows", "features", "components", "first", "entries"), CASES)
def test_hashed_products_and_adjoints(device, dtype, rows, features, components, first, entries):
    rng = np.random.default_rng(features)
    options = {"kind": "countsketch", "seed": 7, "first_feature": first}
    if entries is not None:
        options |= {"kind": "sjlt", "density": entries / components}
    x = (9 * rng.random((rows, features))).astype(dtype)
    assert_same(
        device.numpy(project(device.array(x), components, **options)),
        project(x, components, **options),
    )
    y = (9 * rng.random((rows, components))).astype(dtype)
    assert_same(
        device.numpy(back_project(device.array(y), features, **options)),
        back_project(y, features, **options),
    )


def test_any_strides(device):
    whole = np.random.default_rng(0).standard_normal((40, 6, 3)).astype(np.float32)
    x = whole[1::2].transpose(1, 2, 0)
    part = device.array(whole)[1::2].permute(1, 2, 0)
    assert_same(device.numpy(project(part, 16, kind="sjlt")), project(x, 16, kind="sjlt"))


def test_an_infinity_reaches_the_components_that_its_column_has(device):
    x = np.ones((2, 300), np.float32)
    x[0, 7] = np.inf
    result = device.numpy(project(device.array(x), 64, kind="countsketch", seed=3))
    assert np.isinf(result).sum() == 1
    assert_same(result, project(x, 64, kind="countsketch", seed=3))
