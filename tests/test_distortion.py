"""Distortion reports against the definition."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from slipstick import _cpu, projection, reference
from slipstick.projection import distortion
from slipstick.projection._distortion import PAIRS_TAG, pairs


def ratios(x, y, seed, n_pairs):
    result = []
    for one, two in reference.pairs(seed, n_pairs, len(x)):
        before = np.sum((x[one].astype(float) - x[two]) ** 2)
        if before > 0:
            result.append(np.sum((y[one].astype(float) - y[two]) ** 2) / before)
    return np.sort(result)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_definition(seed):
    x = np.random.default_rng(0).standard_normal((50, 200))
    y = projection.project(x, 20)
    report = distortion(x, y, n_pairs=300, seed=seed)
    expected = ratios(x, y, seed, 300)
    np.testing.assert_allclose(report.ratios, expected, rtol=1e-12)
    assert report.min == report.ratios[0]
    assert report.max == report.ratios[-1]
    assert math.isclose(report.mean, expected.mean(), rel_tol=1e-12)
    assert list(report.quantiles) == [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
    for level, value in report.quantiles.items():
        assert math.isclose(value, np.quantile(expected, level), rel_tol=1e-12)
    assert repr(report).startswith("DistortionReport(min=")
    assert repr(report).endswith("pairs=300)")


def test_pairs():
    """Known answers of the counter stream; two different points, all of them alike."""
    words = _cpu.philox4x32(5, 1, 0, PAIRS_TAG, 7)
    one, two = pairs(7, 2**32 + 5, 1, 10**6)
    assert one[0] == words[0] * 10**6 >> 32
    second = words[1] * (10**6 - 1) >> 32
    assert two[0] == second + (second >= one[0])
    one, two = pairs(0, 0, 40_000, 5)
    assert np.all(one != two)
    counts = np.bincount(one * 5 + two, minlength=25).reshape(5, 5)
    assert np.all(np.diagonal(counts) == 0)
    # 20 cells of 2000 +- 44; 5 standard deviations, seed 0 declared beforehand.
    off = counts[~np.eye(5, dtype=bool)]
    assert np.all(np.abs(off - 2000) < 5 * 44)


def test_chunks_do_not_matter(monkeypatch):
    from slipstick.projection import _distortion

    x = np.random.default_rng(0).standard_normal((50, 20))
    whole = distortion(x, x[:, :5], n_pairs=1000)
    monkeypatch.setattr(_distortion, "_CHUNK_BYTES", 8 * 25 * 7)
    np.testing.assert_array_equal(distortion(x, x[:, :5], n_pairs=1000).ratios, whole.ratios)


def test_coincident_points_are_left_out():
    x = np.array([[0.0], [0.0], [1.0]])
    report = distortion(x, 2 * x, n_pairs=500)
    assert 0 < len(report.ratios) < 500
    assert report.min == report.max == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8])
def test_dtypes(dtype):
    x = np.random.default_rng(0).integers(0, 100, (20, 30)).astype(dtype)
    report = distortion(x, x.astype(np.float64) / 2)
    np.testing.assert_allclose(report.ratios, 0.25, rtol=1e-12)


def test_sparse():
    x = scipy.sparse.random_array((30, 300), density=0.1, rng=np.random.default_rng(0))
    y = projection.project(x.toarray(), 10)
    sparse = distortion(x, scipy.sparse.csr_matrix(y), n_pairs=100)
    np.testing.assert_allclose(
        sparse.ratios, distortion(x.toarray(), y, n_pairs=100).ratios, rtol=1e-12
    )


def test_plot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    x = np.random.default_rng(0).standard_normal((50, 200))
    report = distortion(x, projection.project(x, 20), n_pairs=300)
    ax = report.plot()
    assert sum(patch.get_height() for patch in ax.patches) == 300
    assert report.plot(ax) is ax
    pyplot.close("all")


X = np.eye(4)
REFUSED = [
    (ValueError, "`x` must have two axes", (np.ones(3), X), {}),
    (ValueError, "`y` must have two axes", (X, np.ones(3)), {}),
    (ValueError, r"`y` must have 4 rows like `x`, got shape \(3, 4\)", (X, X[:3]), {}),
    (ValueError, "from 2 to", (X[:1], X[:1]), {}),
    (ValueError, "`n_pairs`", (X, X), {"n_pairs": 0}),
    (TypeError, "`n_pairs`", (X, X), {"n_pairs": 1.5}),
    (ValueError, "`seed`", (X, X), {"seed": -1}),
    (ValueError, "`seed`", (X, X), {"seed": 2**64}),
    (TypeError, "floats, integers or bools", (X * 1j, X), {}),
    (TypeError, "floats, integers or bools", (X, X.astype(object)), {}),
    (ValueError, "finite", (X + np.nan, X), {}),
    (TypeError, "`y` must be an array without a mask", (X, np.ma.array(X)), {}),
    (ValueError, "finite", (X, X + np.inf), {}),
    (ValueError, "finite", (X * 1e200, X), {}),
    (ValueError, "rows that differ", (np.ones((4, 2)), X), {}),
]


@pytest.mark.parametrize(("error", "text", "arguments", "keywords"), REFUSED)
def test_refused(error, text, arguments, keywords):
    with pytest.raises(error, match="^distortion: .*" + text):
        distortion(*arguments, **keywords)


def test_more_pairs_than_memory():
    with pytest.raises(MemoryError, match="Unable to allocate"):
        distortion(X, X, n_pairs=2**50)
