"""The adjoint of random projection."""

from __future__ import annotations

import math

import numpy as np
import pytest

from projection_cases import (
    BF16,
    CHAINED_LAWS,
    DTYPES,
    EVERY_LAW,
    chains,
    exactly_scaled,
    ramp,
    scale,
    unscaled,
)
from slipstick import projection, reference

COMPONENTS = [1, 2, 3, 4, 5, 31, 32, 33, 127, 128, 129, 255, 256, 257, 521]
FEATURES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 700]


@pytest.mark.parametrize("law", EVERY_LAW, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_equals_the_reference(isa, threads, law, dtype):
    """Integers times 0 and +-1 are exact; z is rounded as often as there are components."""
    rng = np.random.default_rng(0)
    sizes = [(3, k, 20) for k in COMPONENTS] + [(5, 40, d) for d in FEATURES]
    sizes += [(n, 40, 33) for n in (1, 2, 6, 7, 13, 64, 65, 100)]
    for n, k, d in sizes:
        y = rng.integers(-1000, 1000, (n, k)).astype(dtype)
        got = projection.back_project(y, d, **law, seed=9, first_feature=2**32 - 10)
        sums = y.astype(np.float64) @ unscaled(law, 9, k, slice(2**32 - 10, 2**32 - 10 + d))
        assert got.shape == (n, d)
        assert got.dtype == dtype
        if law["kind"] == "gaussian":
            bound = (k + 2) * np.finfo(dtype).eps * 7 * np.abs(y).sum(axis=1).max() / math.sqrt(k)
            np.testing.assert_allclose(got, sums * scale(law, k), rtol=0, atol=bound)
        else:
            np.testing.assert_array_equal(got, (sums * scale(law, k)).astype(dtype))
        np.testing.assert_allclose(
            reference.back_project(y, d, **law, seed=9, first_feature=2**32 - 10),
            sums * scale(law, k),
            rtol=1e-12,
            atol=1e-9,
        )


@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
def test_order_of_the_sums(isa, law):
    """As of project, over components."""
    y = np.random.default_rng(0).standard_normal((5, 602)).astype(np.float32)
    a = unscaled(law, 2, 602, slice(11, 70)).astype(np.float32)
    total = chains(y, a.T, 0, grouped=law["kind"] == "rademacher")
    got = projection.back_project(y, 59, **law, seed=2, first_feature=11)
    np.testing.assert_array_equal(
        got, (total.astype(np.float64) * scale(law, 602)).astype(np.float32)
    )


def test_order_of_the_sums_of_srht(isa):
    """Signs, the butterflies of 4096 at strides 1, 2, 4, ..., signs; groups of components in order.

    A block's signs are known up to a common one, which changes no bit of a product of two of them.
    """
    k, b = 5000, 4096
    y = np.random.default_rng(0).standard_normal((3, k)).astype(np.float32)
    a = unscaled({"kind": "srht"}, 2, k, slice(b, 2 * b)).astype(np.float32)
    total = np.zeros((3, b), np.float32)
    for group, first in enumerate(range(0, k, b)):
        part = slice(first, min(first + b, k))
        rows = reference.srht_rows(2, group, part.stop - part.start)
        parity = np.array([int(c & rows[0]).bit_count() & 1 for c in range(b)])
        input_signs = a[first] * a[first, 0] * (1 - 2 * parity).astype(np.float32)
        values = np.zeros((3, b), np.float32)
        values[:, rows] = a[part, 0] * y[:, part]
        for stage in range(12):
            pairs = values.reshape(3, -1, 2, 1 << stage)
            low, high = pairs[:, :, 0], pairs[:, :, 1]
            values = np.stack([low + high, low - high], axis=2).reshape(3, b)
        total = total + values * input_signs
    got = projection.back_project(y, b, kind="srht", seed=2, first_feature=b)
    expected = (total.astype(np.float64) * scale({"kind": "srht"}, k)).astype(np.float32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("law", EVERY_LAW, ids=str)
@pytest.mark.parametrize("first_feature", [0, 77, 2**64 - 300])
def test_is_the_adjoint(isa, law, first_feature):
    """<A x, y> = <x, A^T y>: two sums of 300 * 130 products in float64."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 300)), rng.standard_normal((4, 130))
    arguments = {**law, "seed": 3, "first_feature": first_feature}
    left = (projection.project(x, 130, **arguments) * y).sum(axis=1)
    right = (x * projection.back_project(y, 300, **arguments)).sum(axis=1)
    bound = 1e-12 * np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1) * math.sqrt(130)
    assert np.all(np.abs(left - right) <= bound)


@pytest.mark.parametrize("law", EVERY_LAW, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_does_not_depend_on_batch_threads_or_level(isa, threads, law, dtype):
    y = ramp(130, 300, dtype=dtype)
    whole = projection.back_project(y, 150, **law, seed=1)
    for rows in (slice(0, 1), slice(129, 130), slice(50, 57)):
        alone = projection.back_project(y[rows], 150, **law, seed=1)
        np.testing.assert_array_equal(alone, whole[rows])
    part = projection.back_project(y, 60, **law, seed=1, first_feature=45)
    np.testing.assert_array_equal(part, whole[:, 45:105])
    if dtype.itemsize == 2 and law["kind"] != "sjlt":
        law = exactly_scaled(law)
        wide = projection.back_project(y[:, :64].astype(np.float32), 150, **law, seed=1)
        got = projection.back_project(y[:, :64], 150, **law, seed=1)
        np.testing.assert_array_equal(got, wide.astype(dtype))


def test_density_of_the_whole_width():
    y = ramp(2, 16)
    np.testing.assert_array_equal(
        projection.back_project(y, 100, kind="sparse"),
        projection.back_project(y, 100, kind="sparse", density=0.1),
    )


def test_strides_axes_and_out():
    y = ramp(3, 4, 40)
    for law in EVERY_LAW:
        expected = projection.back_project(y, 50, **law)
        assert expected.shape == (3, 4, 50)
        turned = np.asfortranarray(y)[::-1]
        np.testing.assert_array_equal(projection.back_project(turned, 50, **law), expected[::-1])
        out = np.zeros((50, 4, 3), np.float32).T
        out = out.transpose(0, 1, 2)
        assert projection.back_project(y, 50, **law, out=out) is out
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(
            projection.back_project(y[0, 0].astype(int), 50, **law),
            projection.back_project(y[0, 0].astype(int).astype(np.float64), 50, **law),
        )
        assert projection.back_project(y[:0], 5, **law).shape == (0, 4, 5)


def test_torch():
    torch = pytest.importorskip("torch")
    y = ramp(5, 64)
    got = projection.back_project(torch.from_numpy(y).to(torch.bfloat16), 20)
    expected = projection.back_project(y.astype(BF16), 20).astype(np.float32)
    np.testing.assert_array_equal(got.float().numpy(), expected)


Y = np.ones((2, 5), np.float32)


@pytest.mark.parametrize(
    ("y", "arguments", "error", "message"),
    [
        (np.float32(1), {}, ValueError, "`y` must have at least one axis, got shape ()"),
        (
            Y[:, :0],
            {},
            ValueError,
            "`y` must have from 1 to 2**39 components, got shape (2, 0)",
        ),
        (Y, {"n_features": 0}, ValueError, "`n_features` must be between 1 and 2**62, got 0"),
        (Y, {"n_features": 2.0}, TypeError, "`n_features` must be an int, got float"),
        (
            Y,
            {"first_feature": 2**64 - 2},
            ValueError,
            "`first_feature` must be at most 2**64 - 3 for 3 features, got 18446744073709551614",
        ),
        (Y, {"seed": -1}, ValueError, "`seed` must be between 0 and 2**64 - 1, got -1"),
        (Y, {"kind": 3}, TypeError, "`kind` must be a str, got int"),
        (
            Y,
            {"kind": "sparse", "first_feature": 5},
            ValueError,
            "`density` must be a number where the number of all features is not known, got None",
        ),
        (
            Y,
            {"kind": "sjlt", "density": 0.3},
            ValueError,
            "`density` must be s / n_components with an int s from 1 to 5, got 0.3",
        ),
        (
            Y,
            {"n_features": 2**60},
            ValueError,
            f"the result must have fewer than 2**63 bytes, got shape (2, {2**60})",
        ),
        (Y, {"out": np.ones((2, 3))}, TypeError, "`out` must have dtype float32, got float64"),
        (
            Y,
            {"out": np.ones((2, 4), np.float32)},
            ValueError,
            "`out` must have shape (2, 3), got (2, 4)",
        ),
        (
            Y,
            {"out": Y[:, :3]},
            ValueError,
            "`out` must not overlap `y`, got views that share memory",
        ),
        (
            Y.astype(complex),
            {},
            TypeError,
            "`y` must have a real numeric dtype in native byte order, got complex128",
        ),
    ],
)
def test_refuses(y, arguments, error, message):
    call = {"n_features": 3, **arguments}
    with pytest.raises(error) as caught:
        projection.back_project(y, **call)
    assert str(caught.value) == f"back_project: {message}"
