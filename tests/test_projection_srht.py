"""The block form of the subsampled randomized Hadamard transform."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from projection_cases import DTYPES, ramp, words
from slipstick import _cpu, reference
from slipstick.projection import block, project

FLOATS = DTYPES[:2]
FIRST_ROWS = [2093, 848, 3455, 2448, 3072, 739, 4052, 2507]  # seed 7, group 0


# --- The matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "output"),
    [
        (0x53524400, "51776efc 3a711f08 bca0faee 21f9cb0f"),  # D
        (0x53525200, "82d87055 34f9235e d7eec269 98fa834a"),  # R
        (0x53524F00, "a78502f5 46aac0e7 acaa791b 620fa16f"),  # D~
    ],
)
def test_known_answers_of_the_generator(tag, output):
    assert list(_cpu.philox4x32(0, 0, 0, tag, 7)) == words(output)


def test_known_answers_of_the_rows(isa):
    assert reference.srht_rows(7, 0, 8).tolist() == FIRST_ROWS
    assert sorted(reference.srht_rows(7, 3)) == list(range(4096))
    # Columns 0 and 2^q differ by the signs of D and by bit q of the row.
    entries = block("srht", 7, slice(8), slice(4096))
    d = 1 - 2 * np.array([w >> b & 1 for w in words("51776efc") for b in (0, 1, 2, 4, 8, 16)])
    columns = entries[:, [0, 1, 2, 4, 8, 16]] * d
    rows = np.array(FIRST_ROWS)
    for bit in range(5):
        expected = (-1.0) ** (rows >> bit & 1)
        np.testing.assert_array_equal(columns[:, 1 + bit] * columns[:, 0], expected)
    # Column 0 is D~ D[0, 0]; row by row the bits of a78502f5.
    signs = 1 - 2 * np.array([0xA78502F5 >> i & 1 for i in range(8)])
    np.testing.assert_array_equal(columns[:, 0], signs)


@pytest.mark.parametrize(
    ("row", "column"),
    [(0, 0), (4000, 4090), (127, 3), (9000, 2**32 - 20), (5, 2**64 - 300), (2**39 - 200, 2**63)],
)
def test_block_equals_the_reference(isa, threads, row, column):
    rows, columns = slice(row, row + 200), slice(column, column + 300)
    for seed in (0, 2**32, 2**64 - 1):
        entries = block("srht", seed, rows, columns)
        assert entries.dtype == np.float64
        np.testing.assert_array_equal(entries, reference.block("srht", seed, rows, columns))


def test_any_block_is_a_part_of_the_whole():
    whole = block("srht", 3, slice(3900, 4500), slice(8000, 8600))
    rng = np.random.default_rng(0)
    for _ in range(60):
        i0, i1 = np.sort(rng.integers(0, 601, 2)) + 3900
        j0, j1 = np.sort(rng.integers(0, 601, 2)) + 8000
        part = block("srht", 3, slice(int(i0), int(i1)), slice(int(j0), int(j1)))
        np.testing.assert_array_equal(part, whole[i0 - 3900 : i1 - 3900, j0 - 8000 : j1 - 8000])


def test_scaled_block():
    plain = block("srht", 5, slice(1, 6), slice(9))
    for k in (6, 49, 5000):
        scaled = block("srht", 5, slice(1, 6), slice(9), n_components=k)
        np.testing.assert_array_equal(scaled, plain * (1 / math.sqrt(k)))


def test_rows_of_a_group_are_orthogonal():
    a = block("srht", 1, slice(300), slice(4096, 8192))
    np.testing.assert_array_equal(a @ a.T, 4096 * np.eye(300))


# --- Products -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 31, 33, 100, 1000, 4095, 4096, 4097, 9000])
def test_products_of_integers_are_exact(isa, threads, d, dtype):
    """Sums of small integers are exact, so that only the one rounding after the scale is left."""
    x = np.random.default_rng(d).integers(-100, 100, (5, d)).astype(dtype)
    for k in (1, 7, 130):
        sums = x.astype(np.float64) @ block("srht", 9, slice(k), slice(d)).T
        expected = (sums * (1 / math.sqrt(k))).astype(dtype)
        np.testing.assert_array_equal(project(x, k, kind="srht", seed=9), expected)


@pytest.mark.parametrize("first_feature", [1, 4000, 4096, 2**40 + 4095, 2**64 - 5000])
def test_chunks_of_features(isa, first_feature):
    x = np.random.default_rng(0).integers(-100, 100, (3, 5000)).astype(np.float32)
    columns = slice(first_feature, first_feature + 5000)
    sums = x.astype(np.float64) @ block("srht", 2, slice(40), columns).T
    got = project(x, 40, kind="srht", seed=2, first_feature=first_feature)
    np.testing.assert_array_equal(got, (sums * (1 / math.sqrt(40))).astype(np.float32))


def test_more_components_than_a_group(isa, threads):
    x = np.random.default_rng(0).integers(-100, 100, (40, 300)).astype(np.float64)
    k = 9000
    sums = x @ block("srht", 4, slice(k), slice(300)).T
    np.testing.assert_array_equal(project(x, k, kind="srht", seed=4), sums * (1 / math.sqrt(k)))


@pytest.mark.parametrize("first_feature", [0, 1000])
def test_order_of_the_sums(isa, threads, first_feature):
    """Bit for bit: strides 1, 2, 4, ... within a block, blocks added in order, then the scale."""
    x = np.random.default_rng(0).standard_normal((4, 9000)).astype(np.float32)
    columns = slice(first_feature, first_feature + 9000)
    k = 50
    rows = reference.srht_rows(6, 0, k)
    padded = np.zeros((4, 12288), np.float32)
    padded[:, columns] = x
    # At seed 6 the entry of column 0 of a block is D~ D[0], of column c D~ D[c] H[r, c].
    entries = block("srht", 6, slice(1), slice(12288)).astype(np.float32)[0]
    parity = np.array([bin(int(rows[0]) & (c % 4096)).count("1") & 1 for c in range(12288)])
    signs = entries * (1 - 2 * parity).astype(np.float32)  # D~[0, B] D[c]
    sums = np.zeros((4, k), np.float32)
    for begin in range(0, 12288, 4096):
        z = padded[:, begin : begin + 4096] * signs[begin : begin + 4096]
        for stage in range(12):
            pairs = z.reshape(4, -1, 2, 1 << stage)
            z = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2)
        first = block("srht", 6, slice(k), slice(begin, begin + 1))[:, 0]
        relative = (first * first[0]).astype(np.float32)  # D~[i, B] D~[0, B]
        sums += z.reshape(4, 4096)[:, rows] * relative
    expected = (sums.astype(np.float64) * (1 / math.sqrt(k))).astype(np.float32)
    got = project(x, k, kind="srht", seed=6, first_feature=first_feature)
    np.testing.assert_array_equal(got, expected)


def test_a_larger_k_appends_rows():
    x = ramp(3, 700, dtype=FLOATS[1])
    long, short = project(x, 5000, kind="srht"), project(x, 4096, kind="srht")
    np.testing.assert_allclose(long[:, :4096] * math.sqrt(5000), short * 64, rtol=1e-15)


def test_chunks_at_multiples_of_a_block_add_up(isa):
    """With an exact scale the additions are those of the whole."""
    x = np.random.default_rng(0).standard_normal((4, 10000)).astype(np.float32)
    whole = project(x, 64, kind="srht", seed=8)
    edges = [0, 4096, 8192, 10000]
    parts = [
        project(x[:, a:b], 64, kind="srht", seed=8, first_feature=a)
        for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_array_equal((parts[0] + parts[1]) + parts[2], whole)
    parts = [
        project(x[:, a:b], 64, kind="srht", seed=8, first_feature=a).astype(np.float64)
        for a, b in ((0, 3000), (3000, 10000))
    ]
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    assert np.all(np.abs(sum(parts) - whole) <= 1e-6 * norms)  # the promise


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_alone_strides_and_dtypes(isa, threads, dtype):
    x = ramp(37, 2, 1500, dtype=dtype)[:, 1, ::-1]
    y = project(x, 70, kind="srht", seed=11, first_feature=77)
    assert y.dtype == dtype
    expected = project(np.ascontiguousarray(x), 70, kind="srht", seed=11, first_feature=77)
    np.testing.assert_array_equal(y, expected)
    for row in (0, 20, 36):
        alone = project(x[row], 70, kind="srht", seed=11, first_feature=77)
        np.testing.assert_array_equal(alone, y[row])
    room = np.full((140, 74), 7, dtype)
    out = room[::-2, ::2].T
    assert project(x, 70, kind="srht", seed=11, first_feature=77, out=out) is out
    np.testing.assert_array_equal(out, y)
    out[...] = 7
    assert np.all(room == 7)
    if dtype.itemsize == 2:  # summed in float32, rounded once: k = 64 makes the scale exact
        wide = project(x.astype(np.float32), 64, kind="srht", seed=1).astype(dtype)
        np.testing.assert_array_equal(project(x, 64, kind="srht", seed=1), wide)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint32", "int64"])
def test_integers_become_float64(isa, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (3, 200)).astype(dtype)
    y = project(x, 8, kind="srht")
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, project(x.astype(np.float64), 8, kind="srht"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_error_of_the_sums(isa, dtype):
    """12 stages and 5 blocks round 17 times: 17 eps |x|_1 / 2 bounds a sum, 1 eps |x| is seen."""
    x = np.random.default_rng(0).standard_normal((10, 20000)).astype(dtype)
    got = project(x, 64, kind="srht", seed=1)
    exact = reference.project(x, 64, kind="srht", seed=1)
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    assert np.all(np.abs(got - exact) <= 2 * np.finfo(dtype).eps * norm)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_hot_vectors_keep_their_norm(isa, dtype):
    y = project(np.eye(30, dtype=dtype), 16, kind="srht", seed=9)
    np.testing.assert_array_equal(np.abs(y.astype(np.float64)), 0.25)


def test_special_values_propagate(isa):
    x = np.ones((4, 5000), np.float32)
    x[1, 7] = np.nan
    x[2, 7] = np.inf
    y = project(x, 40, kind="srht")
    assert np.isfinite(y[[0, 3]]).all()
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[2]).any()
    np.testing.assert_array_equal(y[0], y[3])


@pytest.mark.parametrize("shape", [(0, 5), (0, 3, 5), (3, 0, 5)], ids=str)
def test_empty_batches(shape):
    y = project(np.empty(shape, np.float32), 7, kind="srht")
    assert y.shape == (*shape[:-1], 7)


# --- The law of |y|^2 -----------------------------------------------------------------------------


def predicted_variance(x: np.ndarray, k: int) -> float:
    """Of |y|^2 for a unit x: the groups' (2/k)[1 - q - (w - q)(k - 1)/(b - 1)], weighted."""
    b = 4096
    q = np.sum(x**4)
    blocks = np.add.reduceat(x**2, np.arange(0, len(x), b))
    w = np.sum(blocks**2)
    sizes = [min(b, k - i) for i in range(0, k, b)]
    return sum((g / k) ** 2 * 2 / g * (1 - q - (w - q) * (g - 1) / (b - 1)) for g in sizes)


@pytest.mark.parametrize(
    ("name", "d", "k", "seeds"),
    [("flat", 64, 16, 20000), ("mixed", 100, 8, 20000), ("blocks", 8200, 4, 20000)],
)
def test_mean_and_variance(name, d, k, seeds):
    """Seeds 0, 1, 2, ...; within 4 standard errors, those of the variance from the sample."""
    j = np.arange(d)
    x = {
        "flat": np.ones(d),
        "mixed": 1.0 / (1 + j),
        "blocks": np.where(j % 1024 == 0, 1.0, 0.0),
    }[name]
    x /= np.linalg.norm(x)
    norms = np.array([np.sum(project(x, k, kind="srht", seed=seed) ** 2) for seed in range(seeds)])
    deviation = norms - 1
    variance = predicted_variance(x, k)
    assert abs(deviation.mean()) <= 4 * math.sqrt(variance / seeds)
    error = math.sqrt((np.mean(deviation**4) - np.mean(deviation**2) ** 2) / seeds)
    assert abs(np.mean(deviation**2) - variance) <= 4 * error


def test_mean_and_variance_beyond_a_group():
    """k > 4096: independent groups. Seeds 0 ... 19999, as above."""
    d, k, seeds = 8, 4096 + 3, 20000
    x = np.full(d, 1 / math.sqrt(d))
    norms = np.array([np.sum(project(x, k, kind="srht", seed=seed) ** 2) for seed in range(seeds)])
    deviation = norms - 1
    variance = predicted_variance(x, k)
    assert abs(deviation.mean()) <= 4 * math.sqrt(variance / seeds)
    error = math.sqrt((np.mean(deviation**4) - np.mean(deviation**2) ** 2) / seeds)
    assert abs(np.mean(deviation**2) - variance) <= 4 * error


def test_wide_sparse_rows_take_no_time_for_what_is_not_there():
    """2^62 features: 2^50 blocks, of which three have an element."""
    sp = pytest.importorskip("scipy.sparse")
    columns = np.array([5, 2**40, 2**62 - 1])
    x = sp.csr_array((np.float32([1, 2, 3]), columns, [0, 3]), shape=(1, 2**62))
    parts = [
        block("srht", 3, slice(7), slice(int(j), int(j) + 1), n_components=7)[:, 0] for j in columns
    ]
    expected = parts[0] + 2 * parts[1] + 3 * parts[2]
    got = project(x, 7, kind="srht", seed=3)
    np.testing.assert_allclose(got[0], expected, rtol=1e-6)
