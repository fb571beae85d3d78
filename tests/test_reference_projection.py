"""The projection reference against known answers, scikit-learn and SciPy; and its exact fma."""

import hashlib
import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projection_cases import (
    GAUSSIAN_ENTRIES,
    GAUSSIAN_OF_WORD,
    GAUSSIAN_WORDS,
    LAWS,
    MILLION_ENTRIES,
    PHILOX_OF_RANDOM123,
    RADEMACHER_COLUMNS,
    SPARSE_ENTRIES,
    SPARSE_WORDS,
    reference_matrix,
    scale,
    words,
)
from slipstick import reference
from slipstick._chi2 import tail


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX_OF_RANDOM123)
def test_philox_known_answers_of_random123(counter, key, output):
    got = reference.philox4x32(words(counter), words(key))
    assert got.dtype == np.uint32
    assert got.tolist() == words(output)
    batch = reference.philox4x32(np.broadcast_to(words(counter), (2, 3, 4)), words(key))
    assert batch.shape == (2, 3, 4)
    assert np.all(batch == words(output))


@pytest.mark.parametrize(("seed", "first_row", "column", "output"), RADEMACHER_COLUMNS)
def test_rademacher_known_answers(seed, first_row, column, output):
    entries = reference.block(
        "rademacher", seed, slice(first_row, first_row + 128), slice(column, column + 1)
    )
    bits = "".join(f"{word:032b}"[::-1] for word in words(output))  # bit 0 of a word comes first
    assert entries[:, 0].tolist() == [1.0 - 2.0 * int(bit) for bit in bits]


def test_gaussian_known_answers():
    got = reference.philox4x32([0, 0, 0, 0x47415500], [7, 0])
    assert got.tolist() == words(GAUSSIAN_WORDS)
    entries = reference.block("gaussian", 7, slice(0, 4), slice(0, 1))[:, 0]
    bits = entries.astype(np.float32).view(np.uint32)
    assert bits.tolist() == words(GAUSSIAN_ENTRIES)


def test_sparse_known_answers():
    got = reference.philox4x32([0, 0, 0, 0x53505200], [7, 0])
    assert got.tolist() == words(SPARSE_WORDS)
    entries = reference.block("sparse", 7, slice(0, 4), slice(0, 1), density=1 / 3)[:, 0]
    assert entries.tolist() == SPARSE_ENTRIES


def test_gaussian_law_at_its_ends():
    # The smallest and largest probabilities and the middle, each with both signs.
    word, expected = zip(*GAUSSIAN_OF_WORD, (0x80000001, 0xBF2CAB5D), strict=True)
    assert reference.gaussian_from_bits(list(word)).view(np.uint32).tolist() == list(expected)


def test_gaussian_law_is_the_normal_quantile():
    rng = np.random.default_rng(0)
    border = 2**33 * 3 // 1024  # between the two rational functions: p = (u | 1) / 2^33 = 3/1024
    word = np.concatenate(
        [
            rng.integers(0, 2**32 - 2**10, 3000),
            rng.integers(0, border, 1000),
            rng.integers(0, 2**12, 200),
            np.arange(border - 200, border + 200),
        ]
    ).astype(np.uint32)
    z = reference.gaussian_from_bits(word)
    assert np.array_equal(np.signbit(z), word & 1 == 1)
    assert np.array_equal(reference.gaussian_from_bits(word ^ np.uint32(1)), -z)
    p = (word | np.uint32(1)).astype(np.float32).astype(np.float64) * 2.0**-33
    exact = np.array([-NormalDist().inv_cdf(x) for x in p])
    # At most 3.45 units in the last place over all 2^31 probabilities; the quantile of the standard
    # library is good to 1e-15.
    assert np.all(
        np.abs(np.abs(z.astype(np.float64)) - exact) <= 3.5 * np.spacing(exact.astype(np.float32))
    )


@pytest.mark.parametrize(("law", "digest"), MILLION_ENTRIES)
def test_hash_of_the_first_million_entries(law, digest):
    entries = reference_matrix(law, 7, slice(0, 1024), slice(0, 1024)).astype("<f4")
    assert hashlib.sha256(entries.tobytes()).hexdigest() == digest


def test_rademacher_signs_known_answer():
    entries = reference.block("rademacher", 7, slice(0, 8), slice(0, 1))
    assert entries[:, 0].tolist() == [-1, -1, 1, 1, -1, 1, -1, -1]


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("corner", [(0, 0), (1000, 2**32 - 20), (0, 2**64 - 40)], ids=str)
def test_any_block_is_a_part_of_the_whole(law, corner):
    i, j = corner
    whole = reference_matrix(law, 3, slice(i, i + 300), slice(j, j + 40))
    assert whole.shape == (300, 40)
    assert whole.dtype == np.float64
    for rows, cols in [
        ((0, 1), (0, 1)),
        ((3, 200), (7, 9)),
        ((127, 129), (0, 40)),
        ((299, 300), (39, 40)),
    ]:
        part = reference_matrix(
            law, 3, slice(i + rows[0], i + rows[1]), slice(j + cols[0], j + cols[1])
        )
        assert np.array_equal(part, whole[slice(*rows), slice(*cols)])
    assert reference_matrix(law, 3, slice(i, i), slice(j, j + 40)).shape == (0, 40)
    assert not np.array_equal(whole, reference_matrix(law, 4, slice(i, i + 300), slice(j, j + 40)))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_block_with_components_is_scaled(law):
    plain = reference_matrix(law, 5, slice(0, 6), slice(2, 9))
    scaled = reference_matrix(law, 5, slice(0, 6), slice(2, 9), n_components=6)
    assert np.array_equal(scaled, plain * scale(law, 6))
    assert np.array_equal(reference_matrix(law, 5, slice(4), slice(9))[:, 2:], plain[:4])


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_project_multiplies_by_the_block(law):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 50)).astype(np.float32)
    matrix = reference_matrix(law, 2**63 + 1, slice(0, 20), slice(5, 55), n_components=20)
    got = reference.project(x, 20, **law, seed=2**63 + 1, first_feature=5)
    assert got.shape == (2, 3, 20)
    # 50 terms of order 1 in another order of operations.
    np.testing.assert_allclose(got, x.astype(np.float64) @ matrix.T, rtol=0, atol=1e-13)
    parts = [
        reference.project(x[..., :17], 20, **law, seed=2**63 + 1, first_feature=5),
        reference.project(x[..., 17:], 20, **law, seed=2**63 + 1, first_feature=22),
    ]
    np.testing.assert_allclose(parts[0] + parts[1], got, rtol=0, atol=1e-13)


def test_rademacher_keeps_one_hot_vectors():
    norms = np.linalg.norm(reference.project(np.eye(30), 17, seed=9), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-15)


@pytest.mark.parametrize(
    ("n_samples", "eps", "plain", "exact"), [(10**3, 0.1, 5920, 5806), (10**6, 0.1, 11841, 11511)]
)
def test_min_dim_table(n_samples, eps, plain, exact):
    assert reference.min_dim(n_samples, eps) == plain
    assert reference.min_dim(n_samples, eps, delta=0.05) == exact
    assert reference.min_dim(n_samples, eps, delta=0.05, guarantee="each_pair") == 768


def test_min_dim_equals_scikit_learn():
    theirs = pytest.importorskip("sklearn.random_projection").johnson_lindenstrauss_min_dim
    assert reference.min_dim(100, 1e-5) == theirs(100, eps=1e-5) == 368416070986
    n_samples, eps = np.array([[1], [2], [1000], [10**9]]), np.array([0.01, 0.1, 0.5, 0.999])
    got = reference.min_dim(n_samples, eps)
    assert got.dtype == np.int64
    assert np.array_equal(
        got, theirs(np.broadcast_to(n_samples, (4, 4)), eps=np.broadcast_to(eps, (4, 4)))
    )


def failure(k, eps, on):
    chi2 = pytest.importorskip("scipy.stats").chi2
    low, high = (1 - eps, 1 + eps) if on == "squared" else ((1 - eps) ** 2, (1 + eps) ** 2)
    return chi2.cdf(k * low, k) + chi2.sf(k * high, k)


@pytest.mark.parametrize("on", ["squared", "distance"])
@pytest.mark.parametrize("guarantee", ["all_pairs", "each_pair"])
def test_min_dim_is_the_first_k_that_holds(on, guarantee):
    n_samples, eps, delta = np.array([2, 50, 10**6]), np.array([[0.03], [0.3], [0.9]]), 0.05
    got = reference.min_dim(n_samples, eps, delta=delta, guarantee=guarantee, on=on)
    assert got.shape == (3, 3)
    for (row, column), k in np.ndenumerate(got):
        n = int(n_samples[column])
        pairs = n * (n - 1) / 2 if guarantee == "all_pairs" else 1
        assert pairs * failure(int(k), eps[row, 0], on) <= delta
        assert k == 1 or pairs * failure(int(k) - 1, eps[row, 0], on) > delta


def test_min_dim_on_distances_needs_a_quarter():
    squared, distance = (
        reference.min_dim(1000, 0.1, delta=0.05, on=on) for on in ("squared", "distance")
    )
    assert 3.5 < squared / distance < 4.5
    assert reference.min_dim(1, 0.1, delta=0.05) == 1


@pytest.mark.parametrize("on", ["squared", "distance"])
def test_failure_probability_falls_with_k(on):
    # What the bisection stands on.
    k = np.arange(1, 400)
    for eps in (0.001, 0.01, 0.1, 0.5, 0.9, 0.999):
        probability = failure(k, eps, on)
        assert np.all(np.diff(probability[probability > 1e-300]) < 0)


def test_chi_square_tails_equal_scipy():
    chi2 = pytest.importorskip("scipy.stats").chi2
    for k in (1, 2, 3, 4, 7, 31, 32, 100, 768, 5806, 10**5):
        for eta in (-0.9999, -0.99, -0.5, -0.1, -0.01, 1e-5, 0.01, 0.1, 0.5, 0.99, 2.96):
            x = k * (1 + eta)
            expected = chi2.cdf(x, k) if eta < 0 else chi2.sf(x, k)
            # Both round an exponent of up to 700 and x itself: k * |eta| / 2 * 2^-52 <= 1e-11.
            if expected > 1e-300:
                assert tail(k, eta) == pytest.approx(expected, rel=1e-11)


def test_chi_square_tails_of_two_degrees_and_huge_ones():
    for eta in (-0.9, -0.1, 0.1, 5.0, 50.0):
        expected = -math.expm1(-(1 + eta)) if eta < 0 else math.exp(-(1 + eta))
        assert tail(2, eta) == pytest.approx(expected, rel=1e-13)
    # 40-digit quadrature of the density (mpmath).
    assert tail(10**8, -1e-3) == pytest.approx(7.56028505272747e-13, rel=1e-11)
    assert tail(567_441_010_023, 1e-5) == pytest.approx(5.005476783812111e-08, rel=1e-9)


def assert_nearest(result, exact):
    """`result` is the float32 nearest to the rational `exact`, ties to even."""
    if abs(exact) >= 2**128 - 2**103:
        assert result == math.copysign(math.inf, exact)
        return
    error = abs(Fraction(float(result)) - exact)
    for way in (np.float32(-np.inf), np.float32(np.inf)):
        with np.errstate(over="ignore"):
            neighbour = float(np.nextafter(result, way))
        if math.isfinite(neighbour):
            other = abs(Fraction(neighbour) - exact)
            assert error < other or (error == other and int(result.view(np.uint32)) % 2 == 0)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(floats, floats, floats)
def test_fma_rounds_once(a, b, c):
    result = reference.fma(a, b, c)
    assert result.dtype == np.float32
    assert_nearest(result[()], Fraction(a) * Fraction(b) + Fraction(c))


def test_fma_near_ties():
    # |a b| = 2^-24 - 2^-(24 + 2e): beside c in [1, 2) that is short of half a unit of float32 by
    # less than float64 resolves for e > 14, where rounding twice sends odd c to the wrong side.
    for e in range(1, 23):
        a, b = 2.0**-24 * (1 + 2.0**-e), 1 - 2.0**-e
        for m in range(1, 9):
            for sign in (1, -1):
                c = 1 + m * 2.0**-23
                exact = sign * Fraction(a) * Fraction(b) + Fraction(c)
                result = reference.fma(sign * a, b, c)[()]
                assert_nearest(result, exact)
                assert float(result) == c
                twice = float(np.float32(sign * a * b + c))
                assert (twice == c) == (e <= 14 or m % 2 == 0)


def test_fma_of_special_values():
    inf, nan = math.inf, math.nan
    assert np.isnan(reference.fma([inf, inf, 1, nan], [0, 1, 1, 1], [1, -inf, nan, 1])).all()
    assert reference.fma([inf, -1, 3e38], [2, inf, 2], [1, 1, 3e38]).tolist() == [inf, -inf, inf]
    zeros = reference.fma([0.0, -0.0, -0.0], [1.0, 1.0, 1.0], [-0.0, -0.0, 0.0])
    assert np.signbit(zeros).tolist() == [False, True, False]
