"""The hashed kinds of random projection: known answers, the structure of a column, the sums."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest

from projection_cases import (
    DTYPES,
    HASHED_LAWS,
    HASHED_WORDS,
    MILLION_HASHED_ENTRIES,
    SKETCHED_COLUMNS,
    matrix,
    nonzeros,
    ramp,
    reference_matrix,
    scale,
    unscaled,
    words,
)
from slipstick import _cpu, projection, reference


def test_known_words():
    assert list(_cpu.philox4x32(0, 0, 0, 0x534A4C00, 7)) == words(HASHED_WORDS)


@pytest.mark.parametrize("block", [projection.block, reference.block])
@pytest.mark.parametrize(("kind", "density", "column", "expected"), SKETCHED_COLUMNS)
def test_known_columns(isa, block, kind, density, column, expected):
    entries = block(
        kind, 7, slice(256), slice(column, column + 1), n_components=256, density=density
    )[:, 0]
    rows = np.flatnonzero(entries)
    assert (np.sign(entries[rows]) * rows).astype(int).tolist() == expected
    np.testing.assert_array_equal(np.abs(entries[rows]), 1 / math.sqrt(len(expected)))


@pytest.mark.parametrize("block", [projection.block, reference.block])
@pytest.mark.parametrize(("kind", "digest"), MILLION_HASHED_ENTRIES)
def test_hash_of_a_million_entries(isa, block, kind, digest):
    """Of +-1 and 0: the scale is left out, whose float32 is no part of the law."""
    entries = np.sign(block(kind, 7, slice(1024), slice(1024), n_components=1024))
    assert hashlib.sha256(entries.astype("<f4").tobytes()).hexdigest() == digest


LAWS_AND_K = [
    *itertools.product(HASHED_LAWS, [1, 3, 37, 256, 3001]),
    ({"kind": "sjlt", "density": 3 / 37}, 37),
    ({"kind": "sjlt", "density": 1 / 49}, 49),
    ({"kind": "sjlt", "density": 1.0}, 40),
    ({"kind": "sjlt", "density": 64 / 256}, 256),
]


@pytest.mark.parametrize(("law", "k"), LAWS_AND_K, ids=str)
def test_one_nonzero_a_block_and_column(law, k):
    entries = unscaled(law, 4, k, slice(2**32 - 50, 2**32 + 50))
    s = nonzeros(law, k)
    edges = [r * k // s for r in range(s + 1)]
    for begin, end in itertools.pairwise(edges):
        np.testing.assert_array_equal(np.abs(entries[begin:end]).sum(axis=0), 1)
    assert set(np.unique(entries)) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(("law", "k"), LAWS_AND_K, ids=str)
@pytest.mark.parametrize("column", [0, 3, 2**32 - 20, 2**64 - 300])
def test_block_equals_the_reference(isa, threads, law, k, column):
    cols = slice(column, column + 300)
    for seed in (0, 2**64 - 1):
        entries = matrix(law, seed, slice(k), cols, n_components=k)
        np.testing.assert_array_equal(
            entries, reference_matrix(law, seed, slice(k), cols, n_components=k)
        )
        part = matrix(law, seed, slice(k // 3, k - k // 4), cols, n_components=k)
        np.testing.assert_array_equal(part, entries[k // 3 : k - k // 4])
        part = matrix(law, seed, slice(k), slice(column + 7, column + 9), n_components=k)
        np.testing.assert_array_equal(part, entries[:, 7:9])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_sums_of_integers_are_exact(isa, threads, dtype):
    """Only the one rounding after the scale is left."""
    rng = np.random.default_rng(0)
    sizes = [(n, 300) for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 66, 200)]
    sizes += [(9, d) for d in (1, 2, 17, 255, 256, 257, 513)]
    for law, k in LAWS_AND_K:
        if k > 300:
            continue
        matrix_of_513 = unscaled(law, 9, k, slice(5, 518)).T
        for n, d in sizes:
            x = rng.integers(-1000, 1000, (n, d)).astype(dtype)
            sums = x.astype(np.float64) @ matrix_of_513[:d]
            expected = (sums * scale(law, k)).astype(dtype)
            for given in (x, np.asfortranarray(x)):
                got = projection.project(given, k, **law, seed=9, first_feature=5)
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("law", HASHED_LAWS, ids=str)
def test_long_and_wide_inputs(threads, law):
    """More features than are hashed at once (52,000 nonzeros), more sums than are alive at once."""
    rng = np.random.default_rng(0)
    for shape, k in [((3, 60_000), 20), ((70_000, 3), 40), ((20, 400), 100_000)]:
        x = rng.integers(-100, 100, shape).astype(np.float32)
        got = projection.project(x, k, **law, seed=1, first_feature=100)
        hits = matrix(law, 1, slice(k), slice(100, 100 + shape[1]), n_components=k)
        expected = np.sign(hits, out=hits) @ x.T.astype(np.float64)
        np.testing.assert_array_equal(got, (expected.T * scale(law, k)).astype(np.float32))


@pytest.mark.parametrize("law", HASHED_LAWS, ids=str)
def test_float32_error_bound(isa, law):
    """A sum of n terms in chains of 256 has at most min(n, 256) + n / 256 roundings, and one."""
    x = np.random.default_rng(0).standard_cauchy((40, 5000)).astype(np.float32)
    a = unscaled(law, 1, 80, slice(5000))
    exact = x.astype(np.float64) @ a.T * scale(law, 80)
    terms = np.abs(x).astype(np.float64) @ np.abs(a).T * scale(law, 80)
    got = projection.project(x, 80, **law, seed=1)
    assert np.all(np.abs(got - exact) <= (256 + 5000 / 256 + 1) * 2.0**-24 * terms)


@pytest.mark.parametrize("law", HASHED_LAWS, ids=str)
def test_special_values_reach_their_components_only(isa, law):
    x = np.ones((5, 300), np.float32)
    x[1, 7] = np.nan
    x[2, 7] = np.inf
    x[3, 7], x[3, 8] = np.inf, np.nan
    x[4] = -0.0
    y = projection.project(x, 40, **law)
    hit = unscaled(law, 0, 40, slice(300)) != 0
    np.testing.assert_array_equal(np.isnan(y[1]), hit[:, 7])
    np.testing.assert_array_equal(np.isinf(y[2]), hit[:, 7])
    np.testing.assert_array_equal(np.isfinite(y[3]), ~hit[:, 7] & ~hit[:, 8])
    assert not np.signbit(y[4]).any()  # a chain starts at +0


@pytest.mark.parametrize("law", HASHED_LAWS, ids=str)
def test_one_hot_vectors_keep_their_norm(law):
    x = np.eye(30, dtype=np.float64)
    norms = np.square(projection.project(x, 37, **law, seed=9)).sum(axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-15 * 8)


def test_more_components_make_another_matrix():
    few = unscaled({"kind": "countsketch"}, 3, 100, slice(50))
    many = unscaled({"kind": "countsketch"}, 3, 200, slice(50))
    assert not np.array_equal(few, many[:100])
    x = ramp(2, 50)
    for given, same in [(None, 8 / 100), (8 / 100, None)]:
        np.testing.assert_array_equal(
            projection.project(x, 100, kind="sjlt", density=given),
            projection.project(x, 100, kind="sjlt", density=same),
        )
