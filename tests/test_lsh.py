"""SimHash, cross-polytope and Hamming distances: definitions, laws, bad input."""

from __future__ import annotations

import hashlib
import math
import pickle
from functools import partial

import numpy as np
import pytest

import slipstick
from projection_cases import BF16, DTYPES, GAUSSIAN_ENTRIES, ramp, words
from slipstick import lsh, projection, reference

# --- Hamming distances ----------------------------------------------------------------------------


def codes_of(rng: np.random.Generator, n: int, n_bytes: int, bits: int = 255) -> np.ndarray:
    return rng.integers(0, 256, (n, n_bytes), np.uint8) & np.uint8(bits)


@pytest.mark.parametrize("n_bytes", [1, 7, 8, 15, 16, 24, 31, 32, 33, 64, 100, 9000])
def test_hamming_distance_equals_the_reference(isa, n_bytes):
    rng = np.random.default_rng(n_bytes)
    a, b = codes_of(rng, 5, n_bytes), codes_of(rng, 300, n_bytes)
    b[:5] = ~a
    got = lsh.hamming_distance(a[:, np.newaxis], b)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, reference.hamming_distance(a[:, np.newaxis], b))
    np.testing.assert_array_equal(np.diagonal(got), 8 * n_bytes)


def test_hamming_distance_broadcasts(threads):
    rng = np.random.default_rng(0)
    a, b = codes_of(rng, 60, 12).reshape(3, 1, 20, 12), codes_of(rng, 80, 12).reshape(4, 20, 12)
    expected = reference.hamming_distance(a, b)
    assert expected.shape == (3, 4, 20)
    np.testing.assert_array_equal(lsh.hamming_distance(a, b), expected)
    np.testing.assert_array_equal(lsh.hamming_distance(b, a), expected)
    single = lsh.hamming_distance(a[0, 0, 0], b[0, 0])
    assert single.shape == ()
    assert single == expected[0, 0, 0]
    assert lsh.hamming_distance(a[:0], b[0]).shape == (0, 1, 20)
    strange = np.repeat(np.repeat(b, 2, axis=-1), 3, axis=0)[::-3, ::-1, ::-2]
    np.testing.assert_array_equal(
        lsh.hamming_distance(a[:, :, ::-1, ::-1], strange), expected[:, ::-1, ::-1]
    )


TOPK_CASES = [  # queries, codes, bytes, k, bits in use
    (1, 1, 1, 1, 255),
    (2, 300, 1, 300, 255),
    (1, 3000, 8, 20, 255),
    (3, 255, 16, 255, 255),
    (4, 257, 31, 10, 255),
    (7, 1000, 32, 10, 255),
    (33, 700, 32, 100, 255),
    (6, 600, 32, 5, 1),  # few distances: many ties
    (5, 600, 32, 600, 255),
    (8, 513, 33, 40, 255),
    (5, 300, 64, 7, 255),
    (4, 300, 66, 7, 255),
    (3, 60, 8191, 5, 255),
    (3, 60, 8192, 5, 255),
]


@pytest.mark.parametrize(("n_queries", "n", "n_bytes", "k", "bits"), TOPK_CASES)
def test_topk_equals_the_reference(isa, threads, n_queries, n, n_bytes, k, bits):
    rng = np.random.default_rng(n)
    codes, queries = codes_of(rng, n, n_bytes, bits), codes_of(rng, n_queries, n_bytes, bits)
    codes[n // 2] = codes[0]
    queries[0] = ~codes[0]  # all bits differ
    queries[-1] = codes[0]
    expected = reference.hamming_topk(queries, codes, k)
    distances, indices = lsh.hamming_topk(queries, codes, k)
    assert (distances.dtype, indices.dtype) == (np.int32, np.int64)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(distances, expected[0])


@pytest.mark.parametrize(("n_queries", "k"), [(1, 5), (2, 300), (9, 3)])
def test_topk_over_ranges_of_codes(threads, n_queries, k):
    """Enough codes for several tasks of few queries; 2^8 different codes, so ties everywhere."""
    rng = np.random.default_rng(k)
    codes = np.repeat(codes_of(rng, 150_000, 1), 8, axis=1)
    queries = np.repeat(codes_of(rng, n_queries, 1), 8, axis=1)
    expected = reference.hamming_topk(queries, codes, k)
    distances, indices = lsh.hamming_topk(queries, codes, k)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(distances, expected[0])


def test_topk_of_equal_and_of_opposite_codes(isa):
    """256 bits: distances 0 and 256 are the same byte."""
    codes = np.zeros((1000, 32), np.uint8)
    queries = np.array([[0], [255], [0], [255]], np.uint8).repeat(32, axis=1)
    distances, indices = lsh.hamming_topk(queries, codes, 400)
    np.testing.assert_array_equal(distances, np.broadcast_to([[0], [256]] * 2, (4, 400)))
    np.testing.assert_array_equal(indices, np.broadcast_to(np.arange(400), (4, 400)))
    codes[700] = 255
    distances, indices = lsh.hamming_topk(queries, codes, 2)
    assert distances.tolist() == [[0, 0], [0, 256]] * 2
    assert indices.tolist() == [[0, 1], [700, 0]] * 2


def test_topk_reads_any_strides(tmp_path):
    rng = np.random.default_rng(1)
    codes, queries = codes_of(rng, 800, 24), codes_of(rng, 12, 24)
    expected = lsh.hamming_topk(queries, codes, 9)
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    wide = np.repeat(np.repeat(codes, 2, axis=0), 2, axis=1)[::2, ::2]
    for view in (mapped, np.asfortranarray(codes), codes[::-1, ::-1].copy()[::-1, ::-1], wide):
        for got, want in zip(lsh.hamming_topk(queries, view, 9), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    shaped = lsh.hamming_topk(np.asfortranarray(queries.reshape(3, 2, 2, 24)), codes, 9)
    for got, want in zip(shaped, expected, strict=True):
        np.testing.assert_array_equal(got, want.reshape(3, 2, 2, 9))
    assert lsh.hamming_topk(queries[0], codes, 9)[1].tolist() == expected[1][0].tolist()
    assert lsh.hamming_topk(queries[:0], codes, 9)[0].shape == (0, 9)


def test_codes_of_other_frameworks():
    rng = np.random.default_rng(2)
    codes, queries = codes_of(rng, 50, 8), codes_of(rng, 4, 8)
    expected = lsh.hamming_topk(queries, codes, 3)
    torch = pytest.importorskip("torch")
    got = lsh.hamming_topk(torch.from_numpy(queries), torch.from_numpy(codes), 3)
    assert [part.dtype for part in got] == [torch.int32, torch.int64]
    np.testing.assert_array_equal(got[1].numpy(), expected[1])
    x = ramp(4, 30)
    assert isinstance(lsh.SimHash(20).hash(torch.from_numpy(x)), torch.Tensor)


ONE, TWO = np.zeros((3, 4), np.uint8), np.zeros((5, 4), np.uint8)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (ONE.astype(np.int8), TWO, TypeError, "`a` must be uint8, got int8"),
        (ONE, TWO.astype(bool), TypeError, "`b` must be uint8, got bool"),
        (ONE[0, 0], TWO, ValueError, "`a` must have at least one axis, got shape ()"),
        (
            ONE[:, :0],
            TWO,
            ValueError,
            "`a` must have from 1 to 1048576 bytes in its last axis, got shape (3, 0)",
        ),
        (
            ONE,
            TWO[:, :3],
            ValueError,
            "`b` must have 4 bytes in its last axis like `a`, got shape (5, 3)",
        ),
        (ONE, TWO, ValueError, "`b` must broadcast with `a` of shape (3, 4), got shape (5, 4)"),
        (
            [1],
            TWO,
            TypeError,
            "`a` must be an array (NumPy, or one that offers DLPack), got list",
        ),
    ],
)
def test_hamming_distance_refuses(a, b, error, message):
    with pytest.raises(error) as caught:
        lsh.hamming_distance(a, b)
    assert str(caught.value) == f"hamming_distance: {message}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "`k` must be between 1 and 2**40, got 0"),
        ({"k": -1}, ValueError, "`k` must be between 1 and 2**40, got -1"),
        ({"k": 6}, ValueError, "`k` must be between 1 and the number of codes, 5, got 6"),
        ({"k": 2.0}, TypeError, "`k` must be an int, got float"),
        ({"k": True}, TypeError, "`k` must be an int, got bool"),
        ({"codes": TWO[:0]}, ValueError, "`k` must be between 1 and the number of codes, 0, got 2"),
        ({"codes": TWO[0]}, ValueError, "`codes` must have two axes, got shape (4,)"),
        ({"queries": ONE.astype(np.uint16)}, TypeError, "`queries` must be uint8, got uint16"),
        (
            {"codes": TWO[:, :2]},
            ValueError,
            "`codes` must have 4 bytes in its last axis like `queries`, got shape (5, 2)",
        ),
    ],
)
def test_hamming_topk_refuses(arguments, error, message):
    call = {"queries": ONE, "codes": TWO, "k": 2, **arguments}
    with pytest.raises(error) as caught:
        lsh.hamming_topk(**call)
    assert str(caught.value) == f"hamming_topk: {message}"


# --- SimHash --------------------------------------------------------------------------------------


def bits_of(codes: np.ndarray, n_bits: int) -> np.ndarray:
    return np.unpackbits(codes, axis=-1, count=n_bits, bitorder="little")


def test_known_answers_of_both_hashes(isa):
    """100 rows of 100 numbers of 9 bits at seed 7; the float64 reference gives the same."""
    x = ramp(100, 100)
    codes = lsh.SimHash(256, seed=7).hash(x)
    first = "e693058e892bb6cb0a478e68c42d53df042e81f64ba9366e6753d090e33bfee0"
    assert codes[0].tobytes().hex() == first
    digest = "c8a426ae2a7f3ed18cd6e9d52ce3c199cd811ff846549be99bd51ff770c6c687"
    assert hashlib.sha256(codes.tobytes()).hexdigest() == digest
    np.testing.assert_array_equal(codes, reference.simhash(x, 256, 7))
    values = lsh.CrossPolytope(8, seed=7).hash(x)
    assert values[0].tolist() == [82, 142, 220, 72, 55, 31, 28, 238]
    digest = "ac69231785d75360b49e9ad47baf8d625efa537ec7070477f3cebb66dcca92f5"
    assert hashlib.sha256(values.astype("<i4").tobytes()).hexdigest() == digest
    np.testing.assert_array_equal(values, reference.cross_polytope(x, 8, 7)[0])


def test_simhash_known_answers():
    """The first bits of a unit vector are the signs of the published Gaussian entries."""
    negative = [word >> 31 for word in words(GAUSSIAN_ENTRIES)]
    code = lsh.SimHash(4, seed=7).hash(np.ones(1))
    assert bits_of(code, 4).tolist() == [1 - sign for sign in negative]
    assert bits_of(lsh.SimHash(4, seed=7).hash(-np.ones(1)), 4).tolist() == negative
    assert lsh.SimHash(12, seed=7).hash(np.zeros((2, 3))).tolist() == [[255, 15]] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "d", "n_bits"), [(1, 1, 1), (5, 300, 13), (100, 40, 256), (3, 7, 999)]
)
def test_simhash_equals_the_reference(isa, threads, dtype, n, d, n_bits):
    x = np.random.default_rng(d).standard_normal((n, d)).astype(dtype)
    codes = lsh.SimHash(n_bits, seed=5).hash(x)
    assert codes.dtype == np.uint8
    assert codes.shape == (n, -(-n_bits // 8))
    got, expected = bits_of(codes, n_bits), bits_of(reference.simhash(x, n_bits, 5), n_bits)
    np.testing.assert_array_equal(np.packbits(got, axis=-1, bitorder="little"), codes)  # no padding
    # A sign may differ where the sum is within the error of d + 1 roundings of its terms.
    a = projection.block("gaussian", 5, slice(n_bits), slice(d))
    wide = x.astype(np.float64)
    bound = (d + 1) * 2.0**-24 * (np.abs(wide) @ np.abs(a).T)
    assert np.all((got == expected) | (np.abs(wide @ a.T) <= bound))
    projected = projection.project(x.astype(np.float32), n_bits, kind="gaussian", seed=5)
    if dtype != np.float64:
        np.testing.assert_array_equal(got, projected >= 0)


def test_simhash_does_not_depend_on_batch_or_strides():
    x = ramp(2, 3, 500)
    hasher = lsh.SimHash(300, seed=2**64 - 1)
    codes = hasher.hash(x)
    assert codes.shape == (2, 3, 38)
    np.testing.assert_array_equal(hasher.hash(x[1, 2]), codes[1, 2])
    np.testing.assert_array_equal(hasher.hash(x[::-1, :, ::-1][::-1, :, ::-1]), codes)
    np.testing.assert_array_equal(hasher.hash(x.transpose(1, 0, 2)), codes.transpose(1, 0, 2))
    np.testing.assert_array_equal(hasher.hash(x * np.float32(2.0**-100)), codes)
    np.testing.assert_array_equal(lsh.SimHash(64, seed=2**64 - 1).hash(x), codes[..., :8])
    assert hasher.hash(x[:0]).shape == (0, 3, 38)
    integers = np.arange(-50, 50).reshape(4, 25)
    np.testing.assert_array_equal(hasher.hash(integers), hasher.hash(integers.astype(float)))


@pytest.mark.parametrize("d", [2, 16, 100])
def test_simhash_law(d):
    """Differing bits over angle / pi: slope 1, intercept 0.

    19 angles, 5 seeds each, 95 in all counted from 0, 4096 bits; pairs of vectors from generator d.
    Weighted least squares with the known variances p (1 - p) / n, 4 standard errors; the weighted
    sum of squared residuals is chi-square with 93 degrees, 4 standard deviations of it.
    """
    n_bits, n_seeds = 4096, 5
    rng = np.random.default_rng(d)
    p = np.repeat(np.arange(1, 20) / 20, n_seeds)
    rates = np.empty(len(p))
    for seed, fraction in enumerate(p):
        u, v = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
        pair = np.stack([u, math.cos(math.pi * fraction) * u + math.sin(math.pi * fraction) * v])
        codes = lsh.SimHash(n_bits, seed=seed).hash(3 * pair)
        rates[seed] = lsh.hamming_distance(codes[0], codes[1]) / n_bits
    weight = n_bits / (p * (1 - p))
    design = np.stack([np.ones(len(p)), p], axis=1)
    normal = design.T @ (weight[:, np.newaxis] * design)
    intercept, slope = np.linalg.solve(normal, design.T @ (weight * rates))
    errors = np.sqrt(np.diag(np.linalg.inv(normal)))
    assert abs(intercept) <= 4 * errors[0]
    assert abs(slope - 1) <= 4 * errors[1]
    residual = float((weight * (rates - design @ [intercept, slope]) ** 2).sum())
    degrees = len(p) - 2
    assert abs(residual - degrees) <= 4 * math.sqrt(2 * degrees)


def test_simhash_of_angles():
    hasher = lsh.SimHash(100)
    assert hasher.collision_probability(0) == 1
    assert hasher.collision_probability(math.pi) == 0
    np.testing.assert_allclose(
        hasher.collision_probability([math.pi / 3, math.pi / 2]), [2 / 3, 0.5], rtol=1e-15
    )
    assert hasher.angle(50) == math.pi / 2
    np.testing.assert_allclose(hasher.angle(np.array([0, 25])), [0, math.pi / 4])


def test_hashers_are_values():
    for one, other in [
        (lsh.SimHash(9, seed=3), lsh.SimHash(9, seed=4)),
        (lsh.CrossPolytope(9, seed=3), lsh.CrossPolytope(8, seed=3)),
    ]:
        one.hash(ramp(2, 5))
        copy = pickle.loads(pickle.dumps(one))
        assert copy == one
        assert hash(copy) == hash(one)
        assert one != other
        assert one != 3
        assert eval(repr(one), {type(one).__name__: type(one)}) == one
        np.testing.assert_array_equal(copy.hash(ramp(2, 5)), one.hash(ramp(2, 5)))
        assert copy.seed == 3


def with_entry(value: float, dtype: type = np.float32) -> np.ndarray:
    x = np.ones((2, 3, 4), dtype)
    x[1, 0, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            with_entry(math.nan),
            ValueError,
            "`x` must have no row whose projection is NaN, got row 3 of (2, 3, 4)",
        ),
        (
            with_entry(math.nan, np.float64),
            ValueError,
            "`x` must have no row whose projection is NaN, got row 3 of (2, 3, 4)",
        ),
        (np.float32(1), ValueError, "`x` must have at least one axis, got shape ()"),
        (np.ones((2, 0)), ValueError, "`x` must have at least one feature, got shape (2, 0)"),
        (
            np.ones(3, complex),
            TypeError,
            "`x` must have a real numeric dtype in native byte order, got complex128",
        ),
    ],
)
def test_simhash_refuses_arrays(threads, x, error, message):
    with pytest.raises(error) as caught:
        lsh.SimHash(300).hash(x)
    assert str(caught.value) == f"SimHash.hash: {message}"


def test_simhash_takes_infinities_that_have_a_sign():
    codes = lsh.SimHash(50, seed=1).hash(with_entry(math.inf))
    entries = projection.block("gaussian", 1, slice(50), slice(2, 3))[:, 0]
    np.testing.assert_array_equal(bits_of(codes[1, 0], 50), entries >= 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lsh.SimHash(0),
            ValueError,
            "SimHash: `n_bits` must be between 1 and 2**34, got 0",
        ),
        (lambda: lsh.SimHash(8.0), TypeError, "SimHash: `n_bits` must be an int, got float"),
        (
            lambda: lsh.SimHash(8, seed=-1),
            ValueError,
            "SimHash: `seed` must be between 0 and 2**64 - 1, got -1",
        ),
        (
            lambda: lsh.SimHash(8).collision_probability(4),
            ValueError,
            "SimHash.collision_probability: `angle` must be between 0 and pi, got 4.0",
        ),
        (
            lambda: lsh.SimHash(8).collision_probability([1, math.nan]),
            ValueError,
            "SimHash.collision_probability: `angle` must be between 0 and pi, got nan",
        ),
        (
            lambda: lsh.SimHash(8).angle(9),
            ValueError,
            "SimHash.angle: `distance` must be between 0 and 8, got 9",
        ),
        *(
            (
                partial(method, bad),
                TypeError,
                f"{name} must be a number or an array of them, got {bad!r}",
            )
            for method, name in (
                (lsh.SimHash(8).angle, "SimHash.angle: `distance`"),
                (lsh.SimHash(8).collision_probability, "SimHash.collision_probability: `angle`"),
            )
            for bad in ("a", None, 1j, [[1, 2], [3]])
        ),
        (
            lambda: lsh.CrossPolytope(0),
            ValueError,
            "CrossPolytope: `n_hashes` must be between 1 and 2**30, got 0",
        ),
        (
            lambda: lsh.CrossPolytope(1, seed=2**64),
            ValueError,
            f"CrossPolytope: `seed` must be between 0 and 2**64 - 1, got {2**64}",
        ),
    ],
)
def test_hashers_refuse(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


# --- Cross-polytope -------------------------------------------------------------------------------


def test_cross_polytope_signs_are_the_published_ones():
    """One feature, one round's worth: H is 1, and the value is the product of three signs."""
    published = words("df85d76e")[0] & 1
    signs = [1 - 2 * published]
    signs += [
        1 - 2 * (int(reference.philox4x32([r, 0, 0, 0x58504C00], [7, 0])[0]) & 1) for r in (1, 2)
    ]
    value = lsh.CrossPolytope(1, seed=7).hash(np.ones(1))
    assert value.tolist() == [int(math.prod(signs) < 0)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "n_hashes"), [(1, 1, 3), (4, 2, 5), (20, 100, 7), (3, 300, 2)])
def test_cross_polytope_equals_the_reference(isa, dtype, n, d, n_hashes):
    x = np.random.default_rng(d).standard_normal((n, d)).astype(dtype)
    got = lsh.CrossPolytope(n_hashes, seed=2**40 + 7).hash(x)
    assert got.dtype == np.int32
    expected, rotated = reference.cross_polytope(x, n_hashes, 2**40 + 7)
    # Where two vertices are as near within the error of 3 log2 m additions, either may come.
    largest = np.abs(rotated).max(axis=-1)
    index, sign = got >> 1, 1 - 2 * (got & 1)
    reached = sign * np.take_along_axis(rotated, index[..., np.newaxis], axis=-1)[..., 0]
    norm = np.linalg.norm(x.astype(np.float64), axis=-1)[:, np.newaxis]
    eps = 2.0**-53 if dtype == np.float64 else 2.0**-24
    bound = 2 * 3 * (math.log2(rotated.shape[-1]) + 2) * eps * norm
    assert np.all((got == expected) | (largest - reached <= bound))
    assert np.mean(got == expected) > 0.9 or d == 2


def test_cross_polytope_properties(threads):
    x = np.random.default_rng(0).standard_normal((300, 60)).astype(np.float32)
    hasher = lsh.CrossPolytope(6, seed=1)
    values = hasher.hash(x)
    np.testing.assert_array_equal(hasher.hash(-x), values ^ 1)
    np.testing.assert_array_equal(hasher.hash(4 * x), values)
    np.testing.assert_array_equal(hasher.hash(np.pad(x, ((0, 0), (0, 4)))), values)
    np.testing.assert_array_equal(lsh.CrossPolytope(4, seed=1).hash(x), values[:, :4])
    np.testing.assert_array_equal(hasher.hash(x[7]), values[7])
    np.testing.assert_array_equal(hasher.hash(x.reshape(3, 100, 60)), values.reshape(3, 100, 6))
    assert hasher.hash(x[:0]).shape == (0, 6)
    assert hasher.hash(np.zeros(60)).tolist() == [0] * 6
    huge = np.sign(x) * np.float32(2.0**123)  # 1.06e37, and all sums scale exactly
    np.testing.assert_array_equal(hasher.hash(huge), hasher.hash(np.sign(x)))
    np.testing.assert_array_equal(
        hasher.hash(x.astype(BF16)), hasher.hash(x.astype(BF16).astype("f4"))
    )


def test_cross_polytope_tells_near_from_far():
    """m = 128: collisions fall with the distance, and by more than those of one SimHash bit.

    4000 hashes, seed 0. ln(1/p) is tau^2 / (4 - tau^2) ln m up to O(ln ln m); we ask for the ratio
    of the exponents at distances 0.5 and 1, 1/15 and 1/3 of ln m, within a factor 2 of 5.
    """
    u, v = np.linalg.qr(np.random.default_rng(0).standard_normal((128, 2)))[0].T
    hasher = lsh.CrossPolytope(4000, seed=0)
    own = hasher.hash(u)
    exponents = []
    for tau in (0.5, 1.0):
        angle = 2 * math.asin(tau / 2)
        other = hasher.hash(math.cos(angle) * u + math.sin(angle) * v)
        exponents.append(-math.log(np.mean(own == other)))
    assert 2.5 <= exponents[1] / exponents[0] <= 10


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (with_entry(math.nan), ValueError, "`x` must be finite, got row 3 that is not"),
        (with_entry(-math.inf), ValueError, "`x` must be finite, got row 3 that is not"),
        (
            np.float32(1),
            ValueError,
            "`x` must have from 1 to 2**30 features in its last axis, got shape ()",
        ),
        (
            np.ones((2, 0)),
            ValueError,
            "`x` must have from 1 to 2**30 features in its last axis, got shape (2, 0)",
        ),
        (np.ones(3, complex), TypeError, "`x` must have a real numeric dtype, got complex128"),
        (np.array(["a"]), TypeError, "`x` must have a real numeric dtype, got <U1"),
        (
            np.ma.array([1.0, 2.0]),
            TypeError,
            "`x` must be an array without a mask of its own, got a MaskedArray",
        ),
    ],
)
def test_cross_polytope_refuses_arrays(x, error, message):
    with pytest.raises(error) as caught:
        lsh.CrossPolytope(3).hash(x)
    assert str(caught.value) == f"CrossPolytope.hash: {message}"


def test_lsh_is_public():
    assert slipstick.lsh is lsh
    assert set(lsh.__all__) <= set(dir(lsh))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_polytope_of_any_scale(dtype):
    """A power of two changes no vertex, up to the ends of the range."""
    x = np.random.default_rng(0).standard_normal((20, 24)).astype(dtype)
    x /= np.abs(x).max()
    info = np.finfo(dtype)
    expected = lsh.CrossPolytope(5, seed=1).hash(x)
    for exponent in (info.maxexp - 1, info.minexp + 30):
        scaled = np.ldexp(x, exponent)
        np.testing.assert_array_equal(lsh.CrossPolytope(5, seed=1).hash(scaled), expected)
