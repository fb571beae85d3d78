"""Random projection: the contract of the matrix, then products by it."""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import slipstick
from projection_cases import (
    CHAINED_LAWS,
    DTYPES,
    EVERY_LAW,
    GAUSSIAN_ENTRIES,
    GAUSSIAN_OF_WORD,
    GAUSSIAN_WORDS,
    LAWS,
    MILLION_ENTRIES,
    PHILOX_OF_RANDOM123,
    RADEMACHER_COLUMNS,
    SPARSE_ENTRIES,
    SPARSE_WORDS,
    chains,
    exactly_scaled,
    matrix,
    ramp,
    reference_matrix,
    scale,
    unscaled,
    words,
)
from slipstick import _cpu, projection, reference


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# --- The matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX_OF_RANDOM123)
def test_philox_known_answers_of_random123(counter, key, output):
    low, high = words(key)
    assert list(_cpu.philox4x32(*words(counter), low | high << 32)) == words(output)


@pytest.mark.parametrize(("seed", "first_row", "column", "output"), RADEMACHER_COLUMNS)
def test_rademacher_known_answers(isa, seed, first_row, column, output):
    entries = projection.block(
        "rademacher", seed, slice(first_row, first_row + 128), slice(column, column + 1)
    )
    bits = "".join(f"{word:032b}"[::-1] for word in words(output))  # bit 0 of a word comes first
    assert entries[:, 0].tolist() == [1.0 - 2.0 * int(bit) for bit in bits]


def test_gaussian_known_answers(isa):
    raw = words(GAUSSIAN_WORDS)
    patterns = words(GAUSSIAN_ENTRIES)
    assert list(_cpu.philox4x32(0, 0, 0, 0x47415500, 7)) == raw
    entries = projection.block("gaussian", 7, slice(4), slice(1))[:, 0]
    assert entries.astype(np.float32).view(np.uint32).tolist() == patterns
    assert [_cpu.gaussian_from_bits(word) for word in raw] == entries.tolist()


def test_sparse_known_answers(isa):
    assert list(_cpu.philox4x32(0, 0, 0, 0x53505200, 7)) == words(SPARSE_WORDS)
    entries = projection.block("sparse", 7, slice(4), slice(1), density=1 / 3)
    assert entries[:, 0].tolist() == SPARSE_ENTRIES


@pytest.mark.parametrize(("word", "pattern"), GAUSSIAN_OF_WORD)
def test_gaussian_known_answers_of_words(word, pattern):
    assert np.float32(_cpu.gaussian_from_bits(word)).view(np.uint32) == pattern


@pytest.mark.parametrize(("law", "digest"), MILLION_ENTRIES)
def test_hash_of_a_million_entries(isa, threads, law, digest):
    entries = matrix(law, 7, slice(1024), slice(1024))
    assert sha256(entries.astype("<f4")) == digest


def test_gaussian_law_of_single_words():
    """The definition for one word equals the reference, its edges and both sides of the seam."""
    seam = [int(3 / 1024 * 2**33) + step for step in range(-600, 600, 7)]
    edges = [0, 1, 2, 3, 4, 2**24, 2**25 - 1, 2**25, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    spread = [(i * 2654435761) % 2**32 for i in range(2000)]
    given_words = np.array(edges + seam + spread, np.uint32)
    expected = reference.gaussian_from_bits(given_words)
    got = np.array([_cpu.gaussian_from_bits(int(word)) for word in given_words], np.float32)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
    assert np.abs(got).max() < 6.34


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize(
    ("row", "column"),
    [(0, 0), (127, 3), (1000, 2**32 - 20), (5, 2**64 - 300), (2**34 - 200, 2**63)],
)
def test_block_equals_the_reference(isa, threads, law, row, column):
    rows, columns = slice(row, row + 200), slice(column, column + 300)
    for seed in (0, 2**32, 2**64 - 1):
        entries = matrix(law, seed, rows, columns)
        assert entries.dtype == np.float64
        np.testing.assert_array_equal(entries, reference_matrix(law, seed, rows, columns))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_any_block_is_a_part_of_the_whole(isa, law):
    whole = matrix(law, 3, slice(0, 700), slice(2**32 - 300, 2**32 + 300))
    rng = np.random.default_rng(0)
    for _ in range(60):
        i0, i1 = np.sort(rng.integers(0, 701, 2))
        j0, j1 = np.sort(rng.integers(0, 601, 2))
        part = matrix(law, 3, slice(i0, i1), slice(2**32 - 300 + int(j0), 2**32 - 300 + int(j1)))
        np.testing.assert_array_equal(part, whole[i0:i1, j0:j1])


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_blocks_differ_by_seed_and_kind(law):
    first = matrix(law, 3, slice(64), slice(64))
    assert not np.array_equal(first, matrix(law, 4, slice(64), slice(64)))
    assert not np.array_equal(first, matrix(law, 3 + 2**32, slice(64), slice(64)))


@pytest.mark.parametrize("law", EVERY_LAW, ids=str)
def test_block_writes_where_it_is_told(law):
    """Parts of 2**17 numbers that are rounded one after another, and any strides."""
    rows, cols = slice(5, 61), slice(4090, 9000)
    expected = matrix(law, 3, rows, cols, n_components=64)
    for dtype in (np.float64, np.float32):
        out = np.zeros((4910, 112), dtype)
        view = out[:, ::2].T
        assert matrix(law, 3, rows, cols, n_components=64, out=view) is view
        np.testing.assert_array_equal(view, expected.astype(dtype))
        assert not out[:, 1::2].any()


def test_what_block_does_not_write_to():
    def block(out):
        projection.block("rademacher", 1, slice(2), slice(3), out=out)

    with pytest.raises(TypeError, match=r"^block: `out` must be float64 or float32, got int32$"):
        block(np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match=r"^block: `out` must have shape \(2, 3\), got"):
        block(np.zeros((3, 2)))


def test_fast_mode_on_the_cpu_is_the_exact_one():
    x = ramp(5, 300)
    np.testing.assert_array_equal(
        projection.project(x, 20, mode="fast"), projection.project(x, 20, mode="exact")
    )
    with pytest.raises(ValueError, match=r"^project: `mode` must be 'exact' or 'fast', got 'slow'"):
        projection.project(x, 20, mode="slow")
    with pytest.raises(TypeError, match=r"^project: `mode` must be a str, got int$"):
        projection.project(x, 20, mode=1)


def test_block_slices():
    whole = projection.block("rademacher", 1, slice(10), slice(10))
    assert projection.block("rademacher", 1, slice(None, 10, 1), slice(0, 10)).shape == (10, 10)
    assert projection.block("rademacher", 1, slice(4, 4), slice(10)).shape == (0, 10)
    assert projection.block("rademacher", 1, slice(4, 2), slice(3, 1)).shape == (0, 0)
    assert projection.block("rademacher", 1, slice(2), slice(2**64, 2**64)).shape == (2, 0)
    assert projection.block("gaussian", 1, slice(np.int64(2), np.int64(4)), slice(5)).shape == (
        2,
        5,
    )
    scaled = projection.block("rademacher", 1, slice(None), slice(10), n_components=10)
    np.testing.assert_array_equal(scaled, whole * (1 / math.sqrt(10)))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_scaled_block(law):
    plain = matrix(law, 5, slice(1, 6), slice(9))
    for k in (6, 49, 1000):
        scaled = matrix(law, 5, slice(1, 6), slice(9), n_components=k)
        np.testing.assert_array_equal(scaled, plain * scale(law, k))


# --- Products -------------------------------------------------------------------------------------

ROWS = [1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 31, 32, 33, 65, 97]
FEATURES = [1, 2, 3, 17, 255, 256, 257, 511, 1031]
COMPONENTS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 127, 128, 129, 257, 521]


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_signs_times_integers_are_exact(isa, threads, dtype):
    """Sums of small integers are exact, so that only the one rounding after the scale is left."""
    rng = np.random.default_rng(0)
    sizes = [(n, 257, 33) for n in ROWS] + [(7, d, 17) for d in FEATURES]
    sizes += [(3, 300, k) for k in COMPONENTS] + [(1100, 20, 600)]
    for n, d, k in sizes:
        x = rng.integers(-1000, 1000, (n, d)).astype(dtype)
        sums = x.astype(np.float64) @ projection.block("rademacher", 9, slice(k), slice(d)).T
        expected = (sums * (1 / math.sqrt(k))).astype(dtype)
        np.testing.assert_array_equal(projection.project(x, k, seed=9), expected)


@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
@pytest.mark.parametrize("first_feature", [0, 1, 202, 2**40 + 255])
def test_order_of_the_sums(isa, law, first_feature):
    """Bit for bit what the contract says."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((45, 600)).astype(np.float32)  # whole panels of rows, and parts
    columns = slice(first_feature, first_feature + 600)
    a = unscaled(law, 2, 37, columns).astype(np.float32)
    sums = chains(x, a, first_feature, grouped=law["kind"] == "rademacher")
    expected = (sums.astype(np.float64) * scale(law, 37)).astype(np.float32)
    got = projection.project(x, 37, **law, seed=2, first_feature=first_feature)
    np.testing.assert_array_equal(got, expected)


def test_order_of_the_sums_in_float64(isa):
    """Signs need no fma: the products are exact, and each addition rounds."""
    x = np.random.default_rng(0).standard_normal((22, 600))
    matrix = projection.block("rademacher", 2, slice(37), slice(200, 800))
    sums = chains(x, matrix, 200, grouped=True, fma=lambda a, b, c: a * b + c)
    got = projection.project(x, 37, seed=2, first_feature=200)
    np.testing.assert_array_equal(got, sums * (1 / math.sqrt(37)))


@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
def test_float64_error(isa, law):
    """The promise is 1e-12 of the norm.

    A chain of 256 and 12 blocks round 268 times: 268 * 2^-53 * max|a| * |x|_1 / sqrt(50) is below
    1.5e-12 of the norm if all roundings agree, and a 50th part of that where they are random.
    """
    x = np.random.default_rng(0).standard_normal((20, 3000))
    got = projection.project(x, 50, **law, seed=1)
    exact = (
        x.astype(np.longdouble) @ unscaled(law, 1, 50, slice(3000)).T.astype(np.longdouble)
    ) * np.longdouble(scale(law, 50))
    assert np.all(np.abs(got - exact) <= 1e-12 * np.linalg.norm(x, axis=1, keepdims=True))
    np.testing.assert_allclose(
        got, reference.project(x, 50, **law, seed=1), rtol=0, atol=1e-12 * 60
    )


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_float32_error_is_that_of_a_given_matrix(isa, law):
    """At most twice the error of an SGEMM that is given A, on the same input (root mean square)."""
    rng = np.random.default_rng(0)
    for x in (
        rng.standard_normal((40, 5000)),
        rng.random((40, 5000)),
        rng.standard_cauchy((40, 500)),
    ):
        x = x.astype(np.float32)
        a = matrix(law, 1, slice(80), slice(x.shape[1]))
        exact = x.astype(np.float64) @ a.T * scale(law, 80)
        sgemm = (x @ a.astype(np.float32).T).astype(np.float64) * scale(law, 80)
        ours = projection.project(x, 80, **law, seed=1)
        assert np.linalg.norm(ours - exact) <= 2 * np.linalg.norm(sgemm - exact)


@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_16_bit_floats_are_summed_in_float32_and_rounded_once(isa, law, dtype):
    x = np.random.default_rng(0).standard_normal((9, 700)).astype(dtype)
    # Powers of 4 make the scale exact, so that the float32 result is the unrounded one.
    law = exactly_scaled(law)
    wide = projection.project(x.astype(np.float32), 64, **law, seed=3)
    got = projection.project(x, 64, **law, seed=3)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wide.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
def test_results_do_not_depend_on_level_threads_or_batch(isa, threads, law, dtype):
    x = ramp(211, 1000, dtype=dtype)
    y = projection.project(x, 130, **law, seed=11, first_feature=77)
    assert sha256(y) == DIGESTS[law["kind"], dtype.name]
    for rows in (slice(0, 1), slice(210, 211), slice(100, 107), slice(0, 96)):
        alone = projection.project(x[rows], 130, **law, seed=11, first_feature=77)
        np.testing.assert_array_equal(alone, y[rows])
    prefix = projection.project(x[:20], 64, **law, seed=11, first_feature=77)
    if dtype.itemsize > 2 and law in LAWS:  # sums of the same rows of A, with a scale of their own
        np.testing.assert_allclose(
            prefix * math.sqrt(64), y[:20, :64] * math.sqrt(130), rtol=4 * np.finfo(dtype).eps
        )


# From the first run at v2 with one thread; the input is `ramp`, exact in every dtype.
DIGESTS = {
    ("rademacher", "float32"): "5dea5d8954b92f32d017f84115e1b6e0078a381437bb3fa21234bc0fa4ce9105",
    ("rademacher", "float64"): "71a72f40510ce8a1d917988023f30998e801fbc667bdc32df1d5e6209ec25e78",
    ("rademacher", "float16"): "2146c7a539b89d524cd427d62b846f4c9b83b942afcd355a15749309aec12de7",
    ("rademacher", "bfloat16"): "fdeee30d2b91005fd5015cfc80fdd35ea863f4251b3708b8f4fbad94adbb1d22",
    ("gaussian", "float32"): "e7c2256fba323e4b5fb7aadc1c2f942d42288f40175619dccacfda9823da64e4",
    ("gaussian", "float64"): "61351d6a860ed0118ca6609475844ff85252da5b2b07469521d95896a2c2975e",
    ("gaussian", "float16"): "baab750ee6b74f472359d6f9bb9c4aedd8c2be889e4a5f6c9a2e80889d1b1288",
    ("gaussian", "bfloat16"): "ab2265583413aa1668b68ab97f56a5203724599687d3cd4c4e0be039c4bc07ce",
    ("sparse", "float32"): "5b2af17cd56939f5fae2df6bbed2d814cf52a49801fd589e92db567b510de527",
    ("sparse", "float64"): "55fa9dfd170ccfce1833585996350518d3a67a1ac01ba01e53f9a83b08ce7afa",
    ("sparse", "float16"): "1b61778a72e93ba9bde1a7045bed1531a1ba270b66960e69c58bf03ad56d7f6d",
    ("sparse", "bfloat16"): "b100ed9f91fc0d018aea1627b9822a8de662b42289ccf1fe068d129792a31bc4",
    ("sjlt", "float32"): "f48114ca1b557d27e00650f9f8ccca6fa1b6f8f883f21cc9629a64e16a5e601c",
    ("sjlt", "float64"): "dde628781d94f939ccfa92ca30a15bec6188363a8f60f82cd52bb93b4b05c248",
    ("sjlt", "float16"): "9da47d0fab0e059de4d9b67e10a255deb3edd413611e21fda3d0780596c7683e",
    ("sjlt", "bfloat16"): "a5eb9ea962eee6ad67e703cf9a0e78dfa3130f97bdbc47d42878cafcd8c4baf4",
    ("countsketch", "float32"): "14310d6d41bb67abd26ec4f5de88bf8cfbfadc725945a1fc49733a79a1c37686",
    ("countsketch", "float64"): "e1d3c20e21009037a5c6b6f70b2398041456cb4f3e3902959cc68662156d825c",
    ("countsketch", "float16"): "41ba9cc945f7fe52144c19f53c2b4d301a9ffe34ac7be4039556239df8d0d97d",
    ("countsketch", "bfloat16"): "5542a0f907cda6036296944a3b1ff54d2665d5a0870e515a6cb1a23d5557f90a",
}


@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_feature_chunks_add_up(isa, law, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 1000)).astype(dtype)
    whole = projection.project(x, 64, **law, seed=6, first_feature=2**33 + 100)
    for edges in ([0, 1, 1000], [0, 300, 301, 777, 1000], [0, 156, 412, 668, 924, 1000]):
        parts = [
            projection.project(x[:, a:b], 64, **law, seed=6, first_feature=2**33 + 100 + a).astype(
                np.float64
            )
            for a, b in itertools.pairwise(edges)
        ]
        # The promise: 1e-6 of the norm for float32.
        limit = 1e-6 if dtype == np.float32 else 1e-12
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        assert np.all(np.abs(sum(parts) - whole) <= limit * norms)
    # Two blocks by global index and an exact scale: the same addition, hence the same bits.
    law = exactly_scaled(law)
    two = projection.project(x[:, :412], 64, **law, seed=6, first_feature=100)
    first = projection.project(x[:, :156], 64, **law, seed=6, first_feature=100)
    second = projection.project(x[:, 156:412], 64, **law, seed=6, first_feature=256)
    np.testing.assert_array_equal(first + second, two)


def test_hashed_features_at_the_end_of_the_range():
    one = np.ones((1, 1))
    y = projection.project(one, 16, first_feature=2**64 - 1)
    expected = projection.block(
        "rademacher", 0, slice(16), slice(2**64 - 1, 2**64), n_components=16
    )
    np.testing.assert_array_equal(y, expected.T)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_hot_vectors_keep_their_norm(isa, dtype):
    y = projection.project(np.eye(30, dtype=dtype), 16, seed=9)
    np.testing.assert_array_equal(np.abs(y.astype(np.float64)), 0.25)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_special_values_propagate(isa, law):
    x = np.ones((6, 300), np.float32)
    x[1, 7] = np.nan
    x[2, 7] = np.inf
    x[3, 7], x[3, 8] = np.inf, np.nan
    x[4] = 3e38
    y = projection.project(x, 40, **law)
    entries = matrix(law, 0, slice(40), slice(300))
    assert np.isfinite(y[[0, 5]]).all()
    np.testing.assert_array_equal(y[0], y[5])
    assert np.isnan(y[[1, 3]]).all()
    with np.errstate(invalid="ignore"):  # 0 * inf is NaN
        np.testing.assert_array_equal(y[2], np.inf * np.sign(entries[:, 7]))
    # Sums beyond the range of float32 are infinite, or NaN where they overflow both ways.
    assert not np.isfinite(y[4]).all()
    subnormal = projection.project(np.full((1, 1), 1e-42, np.float32), 16, **law)
    np.testing.assert_array_equal(
        subnormal[0],
        ((np.float32(1e-42) * entries[:16, 0]).astype(np.float32) * scale(law, 16)).astype(
            np.float32
        ),
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_matrix_is_never_stored():
    """The matrix would take 512 MiB; a few packed blocks of it, 2 MiB, are alive at once."""
    program = textwrap.dedent("""
        import numpy as np, slipstick
        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        x = np.broadcast_to(np.ones(2**18, np.float32), (1000, 2**18))
        out = np.zeros((1000, 512), np.float32)
        slipstick.projection.project(x[:, :3000], 512, out=out)
        before = peak()
        slipstick.projection.project(x, 512, out=out)
        print(peak() - before)
    """)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) <= 16 * 1024  # KiB


def test_the_module_is_public():
    assert slipstick.projection is projection
    assert set(projection.__all__) == {
        "DistortionReport",
        "StreamingSVD",
        "back_project",
        "block",
        "distortion",
        "hadamard",
        "min_dim",
        "project",
        "randomized_svd",
        "rotate",
    }
