"""Random projection: the statistics of the matrix and of norms, and `min_dim`.

Statistical tests name their seeds; they were chosen (counted from 0) before the first run, and a
failure is followed by a larger run on other declared seeds, never by another choice.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from projection_cases import HASHED_LAWS, LAWS, matrix, nonzeros, unscaled
from slipstick import projection, reference

# --- Statistics -----------------------------------------------------------------------------------


def variance(law: dict[str, Any], k: int, q: np.ndarray) -> np.ndarray:
    """Return Var(|A x|^2) for vectors of norm 1 with the sums q of their fourth powers."""
    if law["kind"] == "rademacher":
        return (2 - 2 * q) / k
    if law["kind"] in ("sjlt", "countsketch"):
        s = nonzeros(law, k)
        heights = np.diff([r * k // s for r in range(s + 1)])
        return (2 - 2 * q) / s**2 * (1 / heights).sum()
    return (2 + (1 / law.get("density", 1 / 3) - 3) * q) / k  # the kurtosis of z is 3


LAWS_AND_SIZES = [
    *itertools.product(LAWS, [(16, 8), (64, 40), (5, 3)]),
    *itertools.product([{"kind": "sparse", "density": p} for p in (0.1, 0.5, 1)], [(16, 8)]),
    *itertools.product([{"kind": "countsketch"}], [(16, 8), (64, 40), (5, 3)]),
    *itertools.product([{"kind": "sjlt"}], [(64, 40), (16, 11), (5, 3)]),
    ({"kind": "sjlt", "density": 3 / 8}, (16, 8)),
    ({"kind": "sjlt", "density": 3 / 40}, (64, 40)),
]


@pytest.mark.parametrize(("law", "sizes"), LAWS_AND_SIZES, ids=str)
def test_mean_and_variance_of_the_squared_norm(law, sizes):
    """E = 1, and the variance as derived for the law; seeds 0 ... 19999, 4 standard errors."""
    n_seeds = 20_000
    d, k = sizes
    flat, one_hot = np.ones(d), np.eye(d)[d // 2]
    mixed = np.where(np.arange(d) % 3 == 0, 1.0, 0.1)
    x = np.stack([v / np.linalg.norm(v) for v in (flat, one_hot, mixed)])
    norms = np.empty((n_seeds, 3))
    for seed in range(n_seeds):
        norms[seed] = np.square(projection.project(x, k, **law, seed=seed)).sum(axis=1)
    q = (x**4).sum(axis=1)
    expected = variance(law, k, q)
    mean = norms.mean(axis=0)
    second = ((norms - mean) ** 2).mean(axis=0)
    fourth = ((norms - mean) ** 4).mean(axis=0)
    if (
        law["kind"] in ("rademacher", "sjlt", "countsketch") or law.get("density") == 1
    ):  # a one-hot vector is kept to rounding, whatever the seed
        np.testing.assert_allclose(norms[:, 1], 1, rtol=1e-14)
        keep = [0, 2]
    else:
        keep = [0, 1, 2]
    mean_error = np.sqrt(second / n_seeds)
    variance_error = np.sqrt((fourth - second**2) / n_seeds)
    assert np.all(np.abs(mean - 1)[keep] <= 4 * mean_error[keep])
    assert np.all(np.abs(second - expected)[keep] <= 4 * variance_error[keep])


@pytest.fixture(scope="module")
def gaussians() -> np.ndarray:
    """2^20 entries at seed 0."""
    return projection.block("gaussian", 0, slice(1024), slice(1024))


def test_gaussian_moments(gaussians):
    z, n = gaussians.ravel(), gaussians.size
    # Var z^p = E z^2p - (E z^p)^2, the even moments of a normal being 1, 3, 15, 105, 945, 10395.
    for power, mean, variance in [
        (1, 0, 1),
        (2, 1, 2),
        (3, 0, 15),
        (4, 3, 96),
        (5, 0, 945),
        (6, 15, 10170),
    ]:
        assert abs((z**power).mean() - mean) <= 4 * math.sqrt(variance / n)
    for limit in (2, 3, 4, 4.5):
        expected = n * math.erfc(limit / math.sqrt(2))
        assert abs(np.count_nonzero(np.abs(z) > limit) - expected) <= 4 * math.sqrt(expected)


def test_gaussian_distribution(gaussians):
    """Kolmogorov-Smirnov at three levels; 6e-5 is what 4 standard errors leave."""
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(gaussians.ravel(), "norm").pvalue > 6e-5
    rows = np.array([stats.kstest(row, "norm").pvalue for row in gaussians])
    assert stats.kstest(rows, "uniform").pvalue > 6e-5
    groups = [stats.kstest(group, "uniform").pvalue for group in rows.reshape(32, 32)]
    assert stats.kstest(groups, "uniform").pvalue > 6e-5


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_entries_are_uncorrelated(law):
    """Products of neighbours at several distances average to 0: 1/sqrt(n) is a standard error."""
    a = matrix(law, 0, slice(1024), slice(1024), n_components=1024) * math.sqrt(1024)
    for i, j in [(0, 1), (1, 0), (1, 1), (2, 0), (4, 0), (0, 4), (32, 0), (128, 0), (128, 1)]:
        products = a[i:, j:] * a[: 1024 - i, : 1024 - j]
        assert abs(products.mean()) <= 4 / math.sqrt(products.size)
    assert abs(a.mean()) <= 4 / 1024


@pytest.mark.parametrize("law", HASHED_LAWS, ids=str)
def test_hashed_entries_are_uniform_and_independent(law):
    """Counts of components and signs over 2^16 columns at seed 0; products of signs average to 0.

    Chi-square with 63 degrees: its normal approximation's 4 standard deviations, and 5 % for the
    skewness.
    """
    k, columns = 64, 2**16
    entries = unscaled(law, 0, k, slice(columns))
    s = nonzeros(law, k)
    expected = columns * s / k
    chi_square = np.square(np.abs(entries).sum(axis=1) - expected).sum() / expected
    freedom = k - s
    # A block's counts add up, and each has the variance expected (1 - s/k).
    assert abs(chi_square - freedom) <= 1.05 * 4 * math.sqrt(2 * freedom)
    assert abs(entries.sum()) <= 4 * math.sqrt(columns * s)
    for step in (1, 2, 7, 256):
        products = entries[:, step:] * entries[:, :-step]
        assert abs(products.sum()) <= 4 * math.sqrt(np.count_nonzero(products))
    for row in range(1, 9):
        products = entries[row:] * entries[:-row]
        assert abs(products.sum()) <= 4 * math.sqrt(np.count_nonzero(products))


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_subspaces_are_embedded(law, seed):
    """k = ((1 + tau) / eps)^2 N keeps all singular values of an orthonormal basis in 1 +- eps."""
    n, eps, tau = 20, 0.4, 1.0
    k = math.ceil(((1 + tau) / eps) ** 2 * n)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((1000, n)))[0]
    values = np.linalg.svd(projection.project(basis.T, k, **law, seed=seed), compute_uv=False)
    assert 1 - eps <= values.min()
    assert values.max() <= 1 + eps


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_min_dim_keeps_its_promise(law):
    """20 seeds at delta = 0.05: more than 5 failures have a probability below 3.3e-4."""
    n, eps = 30, 0.5
    k = projection.min_dim(n, eps, delta=0.05)
    x = np.random.default_rng(0).standard_normal((n, 400))
    i, j = np.triu_indices(n, 1)
    distances = np.square(x[i] - x[j]).sum(axis=1)
    failures = 0
    for seed in range(20):
        y = projection.project(x, k, **law, seed=seed)
        ratios = np.square(y[i] - y[j]).sum(axis=1) / distances
        failures += ratios.min() < 1 - eps or ratios.max() > 1 + eps
    assert failures <= 5


# --- min_dim --------------------------------------------------------------------------------------


def test_min_dim_of_the_published_table():
    assert projection.min_dim(10**3, 0.1) == 5920
    assert projection.min_dim(10**6, 0.1) == 11841
    assert projection.min_dim(10**3, 0.1, delta=0.05) == 5806
    assert projection.min_dim(10**6, 0.1, delta=0.05) == 11511
    assert projection.min_dim(10**6, 0.1, delta=0.05, guarantee="each_pair") == 768
    assert projection.min_dim(100, 1e-5) == 368416070986
    assert type(projection.min_dim(100, 0.5)) is int
    assert type(projection.min_dim(np.int64(100), np.float32(0.5), delta=0.1)) is int


def test_min_dim_equals_scikit_learn():
    theirs = pytest.importorskip("sklearn.random_projection").johnson_lindenstrauss_min_dim
    n_samples = np.array([[1], [2], [3], [1000], [10**9], [10**18]])
    eps = np.array([1e-5, 0.01, 0.1, 0.5, 0.999])
    got = projection.min_dim(n_samples, eps)
    assert got.dtype == np.int64
    n, e = np.broadcast_arrays(n_samples, eps)
    np.testing.assert_array_equal(got, theirs(n, eps=e))


@pytest.mark.parametrize("on", ["squared", "distance"])
@pytest.mark.parametrize("guarantee", ["all_pairs", "each_pair"])
def test_min_dim_equals_the_reference(guarantee, on):
    n, eps, delta = np.array([1, 2, 50, 10**6]), np.array([[0.03], [0.5], [0.9]]), 0.05
    got = projection.min_dim(n, eps, delta=delta, guarantee=guarantee, on=on)
    expected = reference.min_dim(n, eps, delta=delta, guarantee=guarantee, on=on)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
