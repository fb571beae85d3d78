"""Random projection: the contract of the matrix, then products by it, then its statistics.

Statistical tests name their seeds; they were chosen (counted from 0) before the first run, and a
failure is followed by a larger run on other declared seeds, never by another choice.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slipstick
from slipstick import _cpu, projection, reference

KINDS = ["rademacher", "gaussian"]
BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in ("float32", "float64", "float16")] + [BF16]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def ramp(*shape: int, dtype: np.dtype = DTYPES[0]) -> np.ndarray:
    """Numbers of both signs with 9 significant bits, the same on every machine."""
    size = math.prod(shape)
    return (((np.arange(size) * 7919) % 1021 - 510) / 64).astype(dtype).reshape(shape)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# --- The matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "output"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (" ".join(["ffffffff"] * 4), "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers_of_random123(counter, key, output):
    low, high = words(key)
    assert list(_cpu.philox4x32(*words(counter), low | high << 32)) == words(output)


@pytest.mark.parametrize(
    ("seed", "first_row", "column", "output"),
    [
        (0, 0, 0, "acffe860 53b0524e 067095a3 8b85b333"),
        (0, 0, 1, "7ebf365e bd4b7c77 0404e93d fb1a5346"),
        (0, 128, 0, "85ba57c5 61f4ded0 50c57d96 36d3f6c5"),
        (7, 0, 0, "daf64fd3 87364e0f f105e632 dd7ea56d"),
        (0x0123456789ABCDEF, 256, 2**32 + 5, "49fc4613 67a62ff3 28117eff bc0969d6"),
    ],
)
def test_rademacher_known_answers(isa, seed, first_row, column, output):
    entries = projection.block(
        "rademacher", seed, slice(first_row, first_row + 128), slice(column, column + 1)
    )
    bits = "".join(f"{word:032b}"[::-1] for word in words(output))  # bit 0 of a word comes first
    assert entries[:, 0].tolist() == [1.0 - 2.0 * int(bit) for bit in bits]


def test_gaussian_known_answers(isa):
    raw = words("b55b3afb 8582dc1b 79403059 b4825b9b")
    patterns = words("bebf7994 bf24180a bf377189 bec1c10f")
    assert list(_cpu.philox4x32(0, 0, 0, 0x47415500, 7)) == raw
    entries = projection.block("gaussian", 7, slice(4), slice(1))[:, 0]
    assert entries.astype(np.float32).view(np.uint32).tolist() == patterns
    assert [_cpu.gaussian_from_bits(word) for word in raw] == entries.tolist()


@pytest.mark.parametrize(
    ("word", "pattern"),
    [
        (0x00000000, 0x40CAD08C),
        (0x00000001, 0xC0CAD08C),
        (0x00000002, 0x40C55364),
        (0xFFFFFFFE, 0x00000000),
        (0xFFFFFFFF, 0x80000000),
        (0x80000000, 0x3F2CAB5D),
    ],
)
def test_gaussian_known_answers_of_words(word, pattern):
    assert np.float32(_cpu.gaussian_from_bits(word)).view(np.uint32) == pattern


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("rademacher", "5255f76fcd6a5cb8adda73e20a012aaa57baf21339aaa6acbad80f52f0a9d495"),
        ("gaussian", "fa82b069304844f0673bdddff0bf1350ee0bf0e1c59a3c3a36782401eca68971"),
    ],
)
def test_hash_of_a_million_entries(isa, threads, kind, digest):
    """SHA-256 of rows 0..1023, columns 0..1023 at seed 7, as little-endian float32 by rows."""
    entries = projection.block(kind, 7, slice(1024), slice(1024))
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("row", "column"),
    [(0, 0), (127, 3), (1000, 2**32 - 20), (5, 2**64 - 300), (2**34 - 200, 2**63)],
)
def test_block_equals_the_reference(isa, threads, kind, row, column):
    rows, columns = slice(row, row + 200), slice(column, column + 300)
    for seed in (0, 2**32, 2**64 - 1):
        entries = projection.block(kind, seed, rows, columns)
        assert entries.dtype == np.float64
        np.testing.assert_array_equal(entries, reference.block(kind, seed, rows, columns))


@pytest.mark.parametrize("kind", KINDS)
def test_any_block_is_a_part_of_the_whole(isa, kind):
    whole = projection.block(kind, 3, slice(0, 700), slice(2**32 - 300, 2**32 + 300))
    rng = np.random.default_rng(0)
    for _ in range(60):
        i0, i1 = np.sort(rng.integers(0, 701, 2))
        j0, j1 = np.sort(rng.integers(0, 601, 2))
        part = projection.block(
            kind, 3, slice(i0, i1), slice(2**32 - 300 + int(j0), 2**32 - 300 + int(j1))
        )
        np.testing.assert_array_equal(part, whole[i0:i1, j0:j1])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_differ_by_seed_and_kind(kind):
    first = projection.block(kind, 3, slice(64), slice(64))
    assert not np.array_equal(first, projection.block(kind, 4, slice(64), slice(64)))
    assert not np.array_equal(first, projection.block(kind, 3 + 2**32, slice(64), slice(64)))


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


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_block(kind):
    plain = projection.block(kind, 5, slice(1, 6), slice(9))
    for k in (6, 49, 1000):
        scaled = projection.block(kind, 5, slice(1, 6), slice(9), n_components=k)
        np.testing.assert_array_equal(scaled, plain * (1 / math.sqrt(k)))


# --- Products -------------------------------------------------------------------------------------

ROWS = [1, 2, 5, 6, 7, 11, 12, 13, 97]
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


def chains(x: np.ndarray, matrix: np.ndarray, first_feature: int, fma) -> np.ndarray:
    """The sums of the contract: an fma chain a block of 256 features, blocks added in order."""
    total = None
    edges = [j for j in range(x.shape[1]) if j == 0 or (first_feature + j) % 256 == 0]
    for begin, end in zip(edges, [*edges[1:], x.shape[1]], strict=True):
        chain = np.zeros((x.shape[0], matrix.shape[0]), x.dtype)
        for j in range(begin, end):
            chain = fma(x[:, j, np.newaxis], matrix[np.newaxis, :, j], chain)
        total = chain if total is None else total + chain
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first_feature", [0, 1, 200, 2**40 + 255])
def test_order_of_the_sums(isa, kind, first_feature):
    """Bit for bit what the contract says."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 600)).astype(np.float32)
    columns = slice(first_feature, first_feature + 600)
    matrix = projection.block(kind, 2, slice(37), columns).astype(np.float32)
    sums = chains(x, matrix, first_feature, reference.fma)
    expected = (sums.astype(np.float64) * (1 / math.sqrt(37))).astype(np.float32)
    got = projection.project(x, 37, kind=kind, seed=2, first_feature=first_feature)
    np.testing.assert_array_equal(got, expected)


def test_order_of_the_sums_in_float64(isa):
    """Signs need no fma: the products are exact, and each addition rounds."""
    x = np.random.default_rng(0).standard_normal((5, 600))
    matrix = projection.block("rademacher", 2, slice(37), slice(200, 800))
    sums = chains(x, matrix, 200, lambda a, b, c: a * b + c)
    got = projection.project(x, 37, seed=2, first_feature=200)
    np.testing.assert_array_equal(got, sums * (1 / math.sqrt(37)))


@pytest.mark.parametrize("kind", KINDS)
def test_float64_error(isa, kind):
    """The promise is 1e-12 of the norm.

    A chain of 256 and 12 blocks round 268 times: 268 * 2^-53 * max|a| * |x|_1 / sqrt(50) is below
    1.5e-12 of the norm if all roundings agree, and a 50th part of that where they are random.
    """
    x = np.random.default_rng(0).standard_normal((20, 3000))
    got = projection.project(x, 50, kind=kind, seed=1)
    exact = (
        x.astype(np.longdouble)
        @ projection.block(kind, 1, slice(50), slice(3000)).T.astype(np.longdouble)
    ) / np.sqrt(np.longdouble(50))
    assert np.all(np.abs(got - exact) <= 1e-12 * np.linalg.norm(x, axis=1, keepdims=True))
    np.testing.assert_allclose(
        got, reference.project(x, 50, kind=kind, seed=1), rtol=0, atol=1e-12 * 60
    )


@pytest.mark.parametrize("kind", KINDS)
def test_float32_error_is_that_of_a_given_matrix(isa, kind):
    """At most twice the error of an SGEMM that is given A, on the same input (root mean square)."""
    rng = np.random.default_rng(0)
    for x in (
        rng.standard_normal((40, 5000)),
        rng.random((40, 5000)),
        rng.standard_cauchy((40, 500)),
    ):
        x = x.astype(np.float32)
        matrix = projection.block(kind, 1, slice(80), slice(x.shape[1]))
        exact = x.astype(np.float64) @ matrix.T / math.sqrt(80)
        sgemm = (x @ matrix.astype(np.float32).T).astype(np.float64) / math.sqrt(80)
        ours = projection.project(x, 80, kind=kind, seed=1)
        assert np.linalg.norm(ours - exact) <= 2 * np.linalg.norm(sgemm - exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_16_bit_floats_are_summed_in_float32_and_rounded_once(isa, kind, dtype):
    x = np.random.default_rng(0).standard_normal((9, 700)).astype(dtype)
    # A power of 4 makes the scale exact, so that the float32 result is the unrounded one.
    wide = projection.project(x.astype(np.float32), 64, kind=kind, seed=3)
    got = projection.project(x, 64, kind=kind, seed=3)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wide.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_level_threads_or_batch(isa, threads, kind, dtype):
    x = ramp(211, 1000, dtype=dtype)
    y = projection.project(x, 130, kind=kind, seed=11, first_feature=77)
    assert sha256(y) == DIGESTS[kind, dtype.name]
    for rows in (slice(0, 1), slice(210, 211), slice(100, 107), slice(0, 96)):
        alone = projection.project(x[rows], 130, kind=kind, seed=11, first_feature=77)
        np.testing.assert_array_equal(alone, y[rows])
    prefix = projection.project(x[:20], 64, kind=kind, seed=11, first_feature=77)
    if dtype.itemsize > 2:  # sums of the same rows of A, with a scale of their own
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
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_feature_chunks_add_up(isa, kind, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 1000)).astype(dtype)
    whole = projection.project(x, 64, kind=kind, seed=6, first_feature=2**33 + 100)
    for edges in ([0, 1, 1000], [0, 300, 301, 777, 1000], [0, 156, 412, 668, 924, 1000]):
        parts = [
            projection.project(
                x[:, a:b], 64, kind=kind, seed=6, first_feature=2**33 + 100 + a
            ).astype(np.float64)
            for a, b in itertools.pairwise(edges)
        ]
        # The promise: 1e-6 of the norm for float32.
        limit = 1e-6 if dtype == np.float32 else 1e-12
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        assert np.all(np.abs(sum(parts) - whole) <= limit * norms)
    # Two blocks by global index and an exact scale: the same addition, hence the same bits.
    two = projection.project(x[:, :412], 64, kind=kind, seed=6, first_feature=100)
    first = projection.project(x[:, :156], 64, kind=kind, seed=6, first_feature=100)
    second = projection.project(x[:, 156:412], 64, kind=kind, seed=6, first_feature=256)
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


@pytest.mark.parametrize("kind", KINDS)
def test_special_values_propagate(isa, kind):
    x = np.ones((6, 300), np.float32)
    x[1, 7] = np.nan
    x[2, 7] = np.inf
    x[3, 7], x[3, 8] = np.inf, np.nan
    x[4] = 3e38
    y = projection.project(x, 40, kind=kind)
    entries = projection.block(kind, 0, slice(40), slice(300))
    assert np.isfinite(y[[0, 5]]).all()
    np.testing.assert_array_equal(y[0], y[5])
    assert np.isnan(y[[1, 3]]).all()
    np.testing.assert_array_equal(y[2], np.inf * np.sign(entries[:, 7]))
    # Sums beyond the range of float32 are infinite, or NaN where they overflow both ways.
    assert not np.isfinite(y[4]).all()
    subnormal = projection.project(np.full((1, 1), 1e-42, np.float32), 16, kind=kind)
    np.testing.assert_array_equal(
        subnormal[0],
        ((np.float32(1e-42) * entries[:16, 0]).astype(np.float32) / 4).astype(np.float32),
    )


@pytest.mark.parametrize("shape", [(0, 5), (0, 3, 5), (3, 0, 5), (2, 0, 0, 5)], ids=str)
def test_empty_batches(shape):
    for kind in KINDS:
        y = projection.project(np.empty(shape, np.float32), 7, kind=kind)
        assert y.shape == (*shape[:-1], 7)
        assert y.dtype == np.float32


@st.composite
def views(draw):
    """A view with any strides: sliced, reversed, transposed, broadcast."""
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=3))
    shape.append(draw(st.integers(1, 40)))
    base = ramp(*(3 * size for size in shape), dtype=draw(st.sampled_from(DTYPES)))
    index = []
    for size in shape:
        step = draw(st.sampled_from([1, 2, 3, -1, -2]))
        start = 0 if step > 0 else 3 * size - 1
        index.append(slice(start, None, step))
    view = base[tuple(index)][tuple(slice(size) for size in shape)]
    view = view.transpose(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
    return view


@settings(max_examples=150, derandomize=True, deadline=None)
@given(views(), st.integers(1, 40), st.sampled_from(KINDS), st.data())
def test_any_strides_are_read_in_place(x, k, kind, data):
    expected = projection.project(x.copy(order="C"), k, kind=kind, seed=5)
    assert expected.shape == (*x.shape[:-1], k)
    x.flags.writeable = False
    np.testing.assert_array_equal(projection.project(x, k, kind=kind, seed=5), expected)
    order = data.draw(st.permutations(range(x.ndim)))
    room = np.zeros([2 * expected.shape[axis] for axis in order], x.dtype)
    out = room[tuple(slice(None, None, 2) for _ in order)].transpose(np.argsort(order))
    assert projection.project(x, k, kind=kind, seed=5, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert np.count_nonzero(room) == np.count_nonzero(expected)  # nothing beside it is written


def test_leading_axes_are_one_batch():
    x = ramp(3, 4, 5, 60)
    y = projection.project(x, 20, seed=1)
    np.testing.assert_array_equal(
        y.reshape(60, 20), projection.project(x.reshape(60, 60), 20, seed=1)
    )
    np.testing.assert_array_equal(y[1, 2, 3], projection.project(x[1, 2, 3], 20, seed=1))


def test_memory_map_is_read_in_place(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, ramp(50, 80))
    mapped = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(
        projection.project(mapped, 20), projection.project(ramp(50, 80), 20)
    )


INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
@pytest.mark.parametrize("kind", KINDS)
def test_integers_become_float64(isa, dtype, kind):
    x = np.random.default_rng(0).integers(0, 256, (3, 20, 8), np.uint8).view(dtype)[..., 0]
    if dtype == "bool":
        x = np.random.default_rng(0).integers(0, 2, (3, 20)).astype(bool)
    y = projection.project(x[:, ::-2], 8, kind=kind)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(
        y, projection.project(x[:, ::-2].astype(np.float64), 8, kind=kind)
    )


def test_numpy_integers_are_accepted():
    x = ramp(2, 30)
    expected = projection.project(x, 8, seed=5, first_feature=3)
    got = projection.project(
        x, np.int32(8), seed=np.uint64(5), first_feature=np.array(3), density=None
    )
    np.testing.assert_array_equal(got, expected)


def test_torch():
    torch = pytest.importorskip("torch")
    x = ramp(5, 100)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        y = projection.project(torch.from_numpy(x).to(dtype), 16, kind="gaussian")
        assert y.dtype == dtype
        name = str(dtype).removeprefix("torch.")
        wide = x.astype(BF16 if name == "bfloat16" else name)
        expected = projection.project(wide, 16, kind="gaussian").astype(np.float64)
        np.testing.assert_array_equal(y.double().numpy(), expected)
    out = torch.empty(5, 16)
    assert projection.project(torch.from_numpy(x), 16, out=out) is out
    np.testing.assert_array_equal(out.numpy(), projection.project(x, 16))
    y = projection.project(torch.arange(30).reshape(3, 10), 4)
    assert y.dtype == torch.float64
    np.testing.assert_array_equal(y.numpy(), projection.project(np.arange(30.0).reshape(3, 10), 4))


def test_jax():
    jax = pytest.importorskip("jax")
    x = ramp(5, 100)
    y = projection.project(jax.numpy.asarray(x), 16)
    assert isinstance(y, jax.Array)
    np.testing.assert_array_equal(np.asarray(y), projection.project(x, 16))


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


# --- Statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "k"), [(16, 8), (64, 40), (5, 3)])
def test_mean_and_variance_of_the_squared_norm(kind, d, k):
    """E = 1 and Var = (2 - 2q)/k (signs), 2/k (Gaussian); seeds 0 ... 19999, 4 standard errors."""
    n_seeds = 20_000
    flat, one_hot = np.ones(d), np.eye(d)[d // 2]
    mixed = np.where(np.arange(d) % 3 == 0, 1.0, 0.1)
    x = np.stack([v / np.linalg.norm(v) for v in (flat, one_hot, mixed)])
    norms = np.empty((n_seeds, 3))
    for seed in range(n_seeds):
        norms[seed] = np.square(projection.project(x, k, kind=kind, seed=seed)).sum(axis=1)
    q = (x**4).sum(axis=1)
    expected = (2 - 2 * q) / k if kind == "rademacher" else np.full(3, 2 / k)
    mean = norms.mean(axis=0)
    second = ((norms - mean) ** 2).mean(axis=0)
    fourth = ((norms - mean) ** 4).mean(axis=0)
    if kind == "rademacher":  # a one-hot vector is kept to rounding, whatever the seed
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


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_uncorrelated(kind):
    """Products of neighbours at several distances average to 0: 1/sqrt(n) is a standard error."""
    a = projection.block(kind, 0, slice(1024), slice(1024))
    for i, j in [(0, 1), (1, 0), (1, 1), (2, 0), (4, 0), (0, 4), (32, 0), (128, 0), (128, 1)]:
        products = a[i:, j:] * a[: 1024 - i, : 1024 - j]
        assert abs(products.mean()) <= 4 / math.sqrt(products.size)
    assert abs(a.mean()) <= 4 / 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_subspaces_are_embedded(kind, seed):
    """k = ((1 + tau) / eps)^2 N keeps all singular values of an orthonormal basis in 1 +- eps."""
    n, eps, tau = 20, 0.4, 1.0
    k = math.ceil(((1 + tau) / eps) ** 2 * n)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((1000, n)))[0]
    values = np.linalg.svd(projection.project(basis.T, k, kind=kind, seed=seed), compute_uv=False)
    assert 1 - eps <= values.min()
    assert values.max() <= 1 + eps


@pytest.mark.parametrize("kind", KINDS)
def test_min_dim_keeps_its_promise(kind):
    """20 seeds at delta = 0.05: more than 5 failures have a probability below 3.3e-4."""
    n, eps = 30, 0.5
    k = projection.min_dim(n, eps, delta=0.05)
    x = np.random.default_rng(0).standard_normal((n, 400))
    i, j = np.triu_indices(n, 1)
    distances = np.square(x[i] - x[j]).sum(axis=1)
    failures = 0
    for seed in range(20):
        y = projection.project(x, k, kind=kind, seed=seed)
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


# --- Bad input ------------------------------------------------------------------------------------

X = np.ones((2, 5), np.float32)
READ_ONLY = np.ones((2, 3), np.float32)
READ_ONLY.flags.writeable = False
NUMERIC = "`x` must have a real numeric dtype in native byte order"


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (
            X,
            {"kind": "gauss"},
            ValueError,
            "`kind` must be 'rademacher' or 'gaussian', got 'gauss'",
        ),
        (X, {"kind": 3}, TypeError, "`kind` must be a str, got int"),
        (X, {"density": 0.5}, ValueError, "`density` must be None for kind 'rademacher', got 0.5"),
        (X, {"n_components": 0}, ValueError, "`n_components` must be between 1 and 2**39, got 0"),
        (X, {"n_components": -3}, ValueError, "`n_components` must be between 1 and 2**39, got -3"),
        (
            X,
            {"n_components": 2**34 + 1, "kind": "gaussian"},
            ValueError,
            "`n_components` must be between 1 and 2**34, got 17179869185",
        ),
        (X, {"n_components": 3.0}, TypeError, "`n_components` must be an int, got float"),
        (X, {"n_components": "auto"}, TypeError, "`n_components` must be an int, got str"),
        (X, {"n_components": True}, TypeError, "`n_components` must be an int, got bool"),
        (X, {"seed": -1}, ValueError, "`seed` must be between 0 and 2**64 - 1, got -1"),
        (X, {"seed": 2**64}, ValueError, f"`seed` must be between 0 and 2**64 - 1, got {2**64}"),
        (X, {"seed": None}, TypeError, "`seed` must be an int, got NoneType"),
        (X, {"seed": False}, TypeError, "`seed` must be an int, got bool"),
        (X, {"seed": np.bool_(1)}, TypeError, f"`seed` must be an int, got {np.bool_.__name__}"),
        (X, {"seed": np.arange(2)}, TypeError, "`seed` must be an int, got ndarray"),
        (X, {"seed": 1.0}, TypeError, "`seed` must be an int, got float"),
        (
            X,
            {"first_feature": -1},
            ValueError,
            "`first_feature` must be between 0 and 2**64 - 1, got -1",
        ),
        (
            X,
            {"first_feature": 2**64 - 4},
            ValueError,
            "`first_feature` must be at most 2**64 - 5 for `x` with 5 features, "
            "got 18446744073709551612",
        ),
        (X[:, :0], {}, ValueError, "`x` must have at least one feature, got shape (2, 0)"),
        (np.empty((0, 0)), {}, ValueError, "`x` must have at least one feature, got shape (0, 0)"),
        (np.float32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (np.int32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (X.astype(complex), {}, TypeError, f"{NUMERIC}, got complex128"),
        (X.astype(object), {}, TypeError, f"{NUMERIC}, got object"),
        (X.astype(str), {}, TypeError, f"{NUMERIC}, got <U32"),
        (
            [[1.0]],
            {},
            TypeError,
            "`x` must be an array (NumPy, or one that offers DLPack), got list",
        ),
        (
            X,
            {"out": np.ones((2, 4), np.float32)},
            ValueError,
            "`out` must have shape (2, 3), got (2, 4)",
        ),
        (X, {"out": np.ones((2, 3))}, TypeError, "`out` must have dtype float32, got float64"),
        (X, {"out": READ_ONLY}, ValueError, "`out` must be writable, got a read-only array"),
        (
            X,
            {"out": X[:, :3]},
            ValueError,
            "`out` must not overlap `x`, got views that share memory",
        ),
        (
            X,
            {"out": np.lib.stride_tricks.as_strided(np.ones(3, np.float32), (2, 3), (0, 4))},
            ValueError,
            "`out` must not overlap itself, got a view of shape (2, 3) that leads several indices "
            "to one element",
        ),
        (
            X,
            {"out": [0.0]},
            TypeError,
            "`out` must be an array (NumPy, or one that offers DLPack), got list",
        ),
    ],
)
def test_project_refuses(x, arguments, error, message):
    target = np.full((2, 3), 7, np.float32)
    call = {"n_components": 3, "out": target, **arguments}
    before = np.array(call["out"])
    with pytest.raises(error) as caught:
        projection.project(x, **call)
    assert str(caught.value) == f"project: {message}"
    np.testing.assert_array_equal(call["out"], before)  # nothing is written


TEN = slice(10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "srht"}, ValueError, "`kind` must be 'rademacher' or 'gaussian', got 'srht'"),
        ({"kind": None}, TypeError, "`kind` must be a str, got NoneType"),
        ({"seed": 2**64}, ValueError, f"`seed` must be between 0 and 2**64 - 1, got {2**64}"),
        ({"density": 1}, ValueError, "`density` must be None for kind 'gaussian', got 1"),
        ({"rows": 5}, TypeError, "`rows` must be a slice, got int"),
        ({"rows": slice(0, 4, 2)}, ValueError, "`rows` must have no step, got slice(0, 4, 2)"),
        ({"rows": slice(2, None)}, ValueError, "`rows` must have a stop, got slice(2, None, None)"),
        ({"cols": slice(2, None)}, ValueError, "`cols` must have a stop, got slice(2, None, None)"),
        (
            {"cols": slice(-2, 4)},
            ValueError,
            "`cols` must lie between 0 and 2**64, got slice(-2, 4, None)",
        ),
        (
            {"cols": slice(2**64 + 1)},
            ValueError,
            f"`cols` must lie between 0 and 2**64, got slice(None, {2**64 + 1}, None)",
        ),
        (
            {"rows": slice(2**34 + 1)},
            ValueError,
            f"`rows` must lie between 0 and 2**34, got slice(None, {2**34 + 1}, None)",
        ),
        (
            {"rows": slice(11), "n_components": 10},
            ValueError,
            "`rows` must lie between 0 and n_components=10, got slice(None, 11, None)",
        ),
        (
            {"rows": slice(1.0)},
            TypeError,
            "`rows` must be a slice of ints, got slice(None, 1.0, None)",
        ),
        ({"n_components": 0}, ValueError, "`n_components` must be between 1 and 2**34, got 0"),
        ({"n_components": 2.5}, TypeError, "`n_components` must be an int, got float"),
    ],
)
def test_block_refuses(arguments, error, message):
    call = {"kind": "gaussian", "seed": 0, "rows": TEN, "cols": TEN, **arguments}
    positional = [call.pop(name) for name in ("kind", "seed", "rows", "cols")]
    with pytest.raises(error) as caught:
        projection.block(*positional, **call)
    assert str(caught.value) == f"block: {message}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "`n_samples` must be at least 1, got 0"),
        ({"n_samples": [3, -2]}, ValueError, "`n_samples` must be at least 1, got -2"),
        ({"n_samples": 3.5}, TypeError, "`n_samples` must be an int or an array of them, got 3.5"),
        (
            {"n_samples": True},
            TypeError,
            "`n_samples` must be an int or an array of them, got True",
        ),
        ({"eps": 0}, ValueError, "`eps` must be greater than 0 and less than 1, got 0.0"),
        ({"eps": 1.0}, ValueError, "`eps` must be greater than 0 and less than 1, got 1.0"),
        ({"eps": math.nan}, ValueError, "`eps` must be greater than 0 and less than 1, got nan"),
        ({"eps": "a"}, TypeError, "`eps` must be a float or an array of them, got 'a'"),
        (
            {"eps": 1e-12},
            ValueError,
            "`eps` must be large enough for fewer than 2**63 components, got 1e-12",
        ),
        (
            {"eps": 1e-12, "delta": 0.1},
            ValueError,
            "`eps` must be large enough for fewer than 2**63 components, got 1e-12",
        ),
        ({"delta": 0}, ValueError, "`delta` must be greater than 0 and less than 1, got 0.0"),
        ({"delta": 1.5}, ValueError, "`delta` must be greater than 0 and less than 1, got 1.5"),
        ({"delta": "x"}, TypeError, "`delta` must be a float or an array of them, got 'x'"),
        (
            {"guarantee": "each_pair"},
            ValueError,
            "`guarantee` must be 'all_pairs' while `delta` is None, got 'each_pair'",
        ),
        (
            {"on": "distance"},
            ValueError,
            "`on` must be 'squared' while `delta` is None, got 'distance'",
        ),
        (
            {"guarantee": "most"},
            ValueError,
            "`guarantee` must be 'all_pairs' or 'each_pair', got 'most'",
        ),
        ({"on": 2}, TypeError, "`on` must be 'squared' or 'distance', got 2"),
        (
            {"n_samples": [1, 2], "eps": [0.1, 0.2, 0.3]},
            ValueError,
            "`n_samples`, `eps` must broadcast with each other, got shapes (2,), (3,)",
        ),
    ],
)
def test_min_dim_refuses(arguments, error, message):
    call = {"n_samples": 10, "eps": 0.1, **arguments}
    with pytest.raises(error) as caught:
        projection.min_dim(**call)
    assert str(caught.value) == f"min_dim: {message}"


def test_the_module_is_public():
    assert slipstick.projection is projection
    assert set(projection.__all__) == {"block", "min_dim", "project"}
