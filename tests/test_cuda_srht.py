"""The block SRHT on CUDA devices: the CPU's bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from slipstick.projection import back_project, project

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32)
# (features, components, first_feature): within a block, at its end, over several; groups of 4096.
SIZES = (
    (1, 1, 0),
    (5, 3, 0),
    (100, 64, 4090),
    (4096, 256, 0),
    (5000, 300, 0),
    (9000, 5000, 2**40 + 77),
)


def assert_same(result, expected):
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert np.ascontiguousarray(result).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(("features", "components", "first"), SIZES)
def test_srht_and_its_adjoint(device, dtype, features, components, first):
    rng = np.random.default_rng(features)
    options = {"kind": "srht", "seed": 7, "first_feature": first}
    x = (3 * rng.standard_normal((3, features))).astype(dtype)
    assert_same(
        device.numpy(project(device.array(x), components, **options)),
        project(x, components, **options),
    )
    y = (3 * rng.standard_normal((2, components))).astype(dtype)
    assert_same(
        device.numpy(back_project(device.array(y), features, **options)),
        back_project(y, features, **options),
    )


def test_any_strides(device):
    whole = np.random.default_rng(0).standard_normal((40, 6, 3)).astype(np.float32)
    x = whole[1::2].transpose(1, 2, 0)
    part = device.array(whole)[1::2]
    part = part.permute(1, 2, 0)
    assert_same(device.numpy(project(part, 16, kind="srht")), project(x, 16, kind="srht"))


def test_a_row_is_the_same_in_any_batch(device):
    x = np.random.default_rng(0).standard_normal((5, 5000)).astype(np.float32)
    whole = device.numpy(project(device.array(x), 100, kind="srht"))
    assert_same(device.numpy(project(device.array(x[3]), 100, kind="srht")), whole[3])
