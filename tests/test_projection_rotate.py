"""Rotations of any length: orthogonal, invertible, as the explicit matrix says."""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import pytest

from projection_cases import DTYPES, ramp, words
from slipstick import _cpu, reference
from slipstick.projection import hadamard, rotate

LENGTHS = [1, 2, 3, 6, 7, 12, 20, 28, 40, 100, 128, 448, 768, 960, 1536, 4097]
FLOATS = DTYPES[:2]


def normal(*shape: int, dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng((1, *shape)).standard_normal(shape).astype(dtype)


@functools.cache
def matrix_of(d: int, seed: int) -> np.ndarray:
    return reference.rotation_matrix(d, seed)


def mixing_terms(d: int) -> int:
    """Additions of one number in a round, at most."""
    odd = d // (d & -d)
    return 2 * d.bit_length() + (28 if odd <= 7 else 0) + 2


@pytest.mark.parametrize("order", [12, 20, 28])
def test_mixing_matrices(order):
    h = reference.mixing_matrix(order)
    assert set(np.unique(h)) == {-1, 1}
    np.testing.assert_array_equal(h @ h.T, order * np.eye(order))


def test_known_answers_of_the_generator():
    assert list(_cpu.philox4x32(0, 0, 0, 0x524F5400, 7)) == words(
        "6ed65b12 d3eb25f0 7f54dc9d 17d6e073"
    )


def test_known_answers_of_the_signs(isa):
    """One feature, three rounds: the product of the bits 0 of the blocks (0..2, 0, 0)."""
    bits = [_cpu.philox4x32(r, 0, 0, 0x524F5400, 7)[0] & 1 for r in range(3)]
    assert rotate(np.ones(1), seed=7)[0] == (-1.0) ** sum(bits)
    # Feature 2 of four in one round: bit 2 of 6ed65b12 is 0, bit 1 is 1.
    h = reference.hadamard_matrix(4) / 2
    np.testing.assert_array_equal(rotate(np.eye(4)[1:3], seed=7, rounds=1), [-h[1], h[2]])


@pytest.mark.parametrize("d", LENGTHS[:-1])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_agrees_with_the_explicit_matrix(isa, threads, d, dtype):
    x = normal(4, d, dtype=dtype)
    norm = np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
    limit = 3 * mixing_terms(d) * np.finfo(dtype).eps * norm
    for inverse in (False, True):
        got = rotate(x, seed=2**40 + 3, inverse=inverse)
        assert got.dtype == dtype
        matrix = matrix_of(d, 2**40 + 3)
        expected = x.astype(np.float64) @ (matrix if inverse else matrix.T)
        assert np.all(np.abs(got - expected) <= limit)


def test_the_reference_multiplies_by_its_matrix():
    x = normal(4, 12, dtype=FLOATS[1])
    matrix = matrix_of(12, 2**40 + 3)
    np.testing.assert_array_equal(reference.rotate(x, seed=2**40 + 3), x @ matrix.T)
    np.testing.assert_array_equal(reference.rotate(x, seed=2**40 + 3, inverse=True), x @ matrix)


@pytest.mark.parametrize("d", [6, 12])
def test_every_number_of_rounds(isa, d):
    for rounds in (1, 2, 3, 5):
        matrix = reference.rotation_matrix(d, 11, rounds)
        got = rotate(np.eye(d), seed=11, rounds=rounds)
        np.testing.assert_allclose(got, matrix.T, atol=1e-14)
        got = rotate(np.eye(d), seed=11, rounds=rounds, inverse=True)
        np.testing.assert_allclose(got, matrix, atol=1e-14)


@pytest.mark.parametrize(
    ("d", "digest"),
    [
        (6, "7a9a33952200f41d0298d434bec91dca174e9090b0c9c730da78d35f729e15bf"),
        (12, "cb85f9417c4ebbf5b8ecb91339f4647804f2302a2dd8b3e3549bc98604147585"),
        (1000, "adab35374051ad39e8c9b5ba53a60ccb90e31464e9fc5d8b450c7aae3de2eebb"),
        (1536, "c28a736b6a1eae46fdc8160e874654ebdbb48a7845c6448a41d1766c59549d2d"),
    ],
)
def test_known_bits(isa, threads, d, digest):
    """SHA-256 of little-endian float32; from the first run at v3."""
    y = rotate(ramp(d), seed=7)
    assert hashlib.sha256(y.astype("<f4").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("d", LENGTHS)
def test_norms_products_and_distances_are_kept(isa, d):
    x = normal(6, d, dtype=FLOATS[1])
    y = rotate(x, seed=5)
    np.testing.assert_allclose(y @ y.T, x @ x.T, atol=1e-12 * d)
    back = rotate(y, seed=5, inverse=np.True_)
    np.testing.assert_allclose(back, x, atol=1e-13 * math.sqrt(d))


def test_the_definition_by_parts(isa):
    """A power of two is signs and `hadamard`; another length two of them that overlap."""
    x = normal(3, 40, dtype=FLOATS[0])
    signs = np.sign(rotate(np.eye(64, dtype=np.float32), rounds=1)[:, 0])
    y = x * signs[:40]
    y[:, :32] = hadamard(y[:, :32])
    y[:, 8:] = hadamard(y[:, 8:])
    # 40 = 5 * 8 is 20 * 2; 37 is neither.
    z = x[:, :37] * signs[:37]
    z[:, :32] = hadamard(z[:, :32])
    z[:, 5:] = hadamard(z[:, 5:])
    np.testing.assert_array_equal(rotate(x[:, :37], rounds=1), z)
    np.testing.assert_array_equal(rotate(x[:, :32], rounds=1), hadamard(x[:, :32] * signs[:32]))
    assert not np.array_equal(rotate(x, rounds=1), y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 7, 48, 100, 128])
def test_layouts_batches_and_memory(isa, threads, d, dtype):
    base = ramp(9, 2 * d + 3, dtype=dtype)
    x = base[:, 2 * d : 0 : -2]
    assert x.shape == (9, d)
    expected = rotate(np.ascontiguousarray(x), seed=3)
    assert expected.dtype == dtype
    np.testing.assert_array_equal(rotate(x, seed=3), expected)
    np.testing.assert_array_equal(rotate(x.T.copy().T, seed=3), expected)
    np.testing.assert_array_equal(rotate(x[4], seed=3), expected[4])
    np.testing.assert_array_equal(rotate(x.reshape(3, 3, d), seed=3).reshape(9, d), expected)
    out = np.full((9, d), 7, dtype)
    assert rotate(x, seed=3, out=out) is out
    np.testing.assert_array_equal(out, expected)
    view = base.copy()[:, 2 * d : 0 : -2]
    assert rotate(view, seed=3, out=view) is view  # in place
    np.testing.assert_array_equal(view, expected)
    compact = np.ascontiguousarray(x)
    back = rotate(compact, seed=3, inverse=True)
    rotate(compact, seed=3, inverse=True, out=compact)
    np.testing.assert_array_equal(compact, back)


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_16_bit_floats_are_rounded_once(isa, dtype):
    for d in (7, 24, 64):
        x = normal(3, d, dtype=dtype)
        wide = rotate(x.astype(np.float32), seed=1).astype(dtype)
        np.testing.assert_array_equal(rotate(x, seed=1), wide)


def test_integers_become_float64(isa):
    x = np.arange(48).reshape(2, 24)
    y = rotate(x)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, rotate(x.astype(np.float64)))


@pytest.mark.parametrize("d", [1 << 17, 3 << 16, (1 << 17) + 5])
def test_long_vectors(isa, d):
    """Split over the threads, with the bits of one thread; and back."""
    x = normal(2, d, dtype=FLOATS[0])
    y = rotate(x, seed=9)
    np.testing.assert_array_equal(rotate(np.stack([x[0]] * 8), seed=9)[7], y[0])
    error = np.abs(rotate(y, seed=9, inverse=True) - x)
    limit = 6 * mixing_terms(d) * np.finfo(np.float32).eps * np.linalg.norm(x, axis=-1)
    assert np.all(error <= limit[:, np.newaxis])


@pytest.mark.parametrize("d", [1, 3, 6, 7, 12, 128, 768, 960, 1536])
def test_large_inputs_stay_finite(isa, d):
    x = 1e37 * np.sign(normal(20, d, dtype=FLOATS[0]))
    for inverse in (False, True):
        assert np.isfinite(rotate(x, inverse=inverse)).all()


def test_special_values_propagate(isa):
    x = np.ones((3, 24), np.float32)
    x[1, 4] = np.nan
    x[2, 4] = np.inf
    y = rotate(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[2]).any()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 12)], ids=str)
def test_empty_batches(shape):
    assert rotate(np.empty(shape, np.float32)).shape == shape


def test_seeds_and_rounds_differ():
    x = ramp(1, 60)
    assert not np.array_equal(rotate(x, seed=1), rotate(x, seed=2))
    assert not np.array_equal(rotate(x, seed=1), rotate(x, seed=1 + 2**32))
    assert not np.array_equal(rotate(x, rounds=2), rotate(x, rounds=3))


X = np.ones((2, 5), np.float32)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (np.float32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (X[:, :0], {}, ValueError, "`x` must have at least one feature, got shape (2, 0)"),
        (X, {"seed": -1}, ValueError, "`seed` must be between 0 and 2**64 - 1, got -1"),
        (X, {"seed": 0.5}, TypeError, "`seed` must be an int, got float"),
        (X, {"rounds": 0}, ValueError, "`rounds` must be between 1 and 2**10, got 0"),
        (X, {"rounds": 1025}, ValueError, "`rounds` must be between 1 and 2**10, got 1025"),
        (X, {"rounds": "3"}, TypeError, "`rounds` must be an int, got str"),
        (X, {"inverse": 1}, TypeError, "`inverse` must be a bool, got int"),
        (X, {"out": np.ones((2, 5))}, TypeError, "`out` must have dtype float32, got float64"),
        (X, {"out": X[:1]}, ValueError, "`out` must have shape (2, 5), got (1, 5)"),
        (
            X,
            {"out": X[::-1]},
            ValueError,
            "`out` must not overlap `x`, got views that share memory without being the same view",
        ),
        (
            X.astype(complex),
            {},
            TypeError,
            "`x` must have a real numeric dtype in native byte order, got complex128",
        ),
    ],
)
def test_rotate_refuses(x, arguments, error, message):
    before = X.copy()
    with pytest.raises(error) as caught:
        rotate(x, **arguments)
    assert str(caught.value) == f"rotate: {message}"
    np.testing.assert_array_equal(X, before)  # nothing is written
