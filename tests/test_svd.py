"""randomized_svd and StreamingSVD against the definition, LAPACK and the bounds of Halko et al."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from slipstick import _cpu, projection, reference
from slipstick.projection import StreamingSVD, randomized_svd
from slipstick.projection._krylov import passes_for

SPECTRA = {
    "slow": lambda j: 1 / np.sqrt(j),
    "inverse": lambda j: 1 / j,
    "exponential": lambda j: np.exp(-j / 8),
    "flat tail": lambda j: np.where(j <= 20, 1.0, 0.3),
}


def matrix(shape, spectrum, seed=0):
    """Singular values spectrum(1), spectrum(2), ... between random orthonormal bases."""
    rng = np.random.default_rng(seed)
    side = min(shape)
    u, v = (np.linalg.qr(rng.standard_normal((n, side)))[0] for n in shape)
    return (u * spectrum(np.arange(1.0, side + 1))) @ v.T


def check_factors(u, s, vt, dtype, k):
    """Orthonormal to rounding, in decreasing order, signs as scikit-learn's."""
    assert u.dtype == s.dtype == vt.dtype == dtype
    # Each of the k^2 inner products has an error of a few units, more for the rows of a block.
    bound = 60 * np.finfo(dtype).eps
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=bound)
    np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=bound)
    assert np.all(np.diff(s) <= 0)
    assert np.all(s >= 0)
    assert np.all(u[np.argmax(np.abs(u), axis=0), np.arange(k)] > 0)


SHAPES = [(120, 90), (90, 120), (400, 31), (31, 400), (3000, 20), (1, 1), (1, 7), (7, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_iter", [0, 1, 2, 3, 7, 30])
def test_definition(shape, dtype, n_iter):
    x = matrix(shape, SPECTRA["inverse"]).astype(dtype)
    k = min(5, *shape)
    u, s, vt = randomized_svd(x, k, n_iter=n_iter, seed=3)
    check_factors(u, s, vt, dtype, k)
    _, expected, _ = reference.randomized_svd(x, k, n_iter=n_iter, seed=3)
    eps = np.finfo(dtype).eps
    # Each product has a backward error of at most sqrt(depth) eps |x|, and there are nine at most.
    bound = 9 * 20 * eps
    np.testing.assert_allclose(s, expected, atol=bound)
    # The approximation, not the vectors: those of close singular values may turn.
    ru, rs, rvt = reference.randomized_svd(x, k, n_iter=n_iter, seed=3)
    gap = (
        rs[-1]
        - np.append(reference.randomized_svd(x, min(k + 1, *shape), n_iter=n_iter, seed=3)[1], 0)[k]
    )
    if k < min(shape):
        np.testing.assert_allclose((u * s) @ vt, (ru * rs) @ rvt, atol=4 * bound / max(gap, 1e-3))


@pytest.mark.parametrize("n_iter", [1, 3])
def test_levels_and_threads(isa, threads, n_iter):
    """The sketch is the same; products have the same bits for all threads of one level."""
    x = matrix((700, 300), SPECTRA["slow"]).astype(np.float32)
    u, s, vt = randomized_svd(x, 6, n_iter=n_iter)
    check_factors(u, s, vt, np.float32, 6)
    _, expected, _ = reference.randomized_svd(x, 6, n_iter=n_iter)
    np.testing.assert_allclose(s, expected, atol=9 * 20 * 2.0**-23)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 300, 3), (300, 5, 60), (97, 513, 33), (513, 97, 7)]
)
def test_products_with_few_columns(isa, threads, dtype, shape):
    rows, columns, width = shape
    rng = np.random.default_rng(5)
    wide = rng.standard_normal((rows, columns + 3)).astype(dtype)
    a = wide[:, 1 : columns + 1]
    for product, few in (
        (_cpu.skinny_times, rng.standard_normal((columns, width)).astype(dtype)),
        (_cpu.skinny_transposed, rng.standard_normal((rows, width)).astype(dtype)),
    ):
        operand = a if product is _cpu.skinny_times else a.T
        out = np.full((width, operand.shape[0]), np.nan, dtype).T  # columns contiguous
        product(a, few, out)
        # A sum of n products: at most n roundings of the sum of magnitudes.
        exact = operand.astype(np.float64) @ few.astype(np.float64)
        bound = operand.shape[1] * np.finfo(dtype).eps * (np.abs(operand) @ np.abs(few))
        assert np.all(np.abs(out - exact) <= bound)
        before = _cpu.get_num_threads()
        _cpu.set_num_threads(1)
        again = np.empty_like(out)
        product(a, few, again)
        _cpu.set_num_threads(before)
        np.testing.assert_array_equal(out, again)


def test_partial_sums_of_tall_matrices(threads):
    """Above 16384 rows the transposed product adds parts."""
    a = np.random.default_rng(0).integers(-8, 9, (40000, 5)).astype(np.float32)
    few = np.random.default_rng(1).integers(-8, 9, (40000, 3)).astype(np.float32)
    out = np.empty((5, 3), np.float32)
    _cpu.skinny_transposed(a, few, out)
    np.testing.assert_array_equal(out, a.T @ few)  # integers below 2^24: exact


def test_products_refuse_what_does_not_fit():
    a = np.ones((4, 3), np.float32)
    good, out = np.ones((3, 2), np.float32), np.empty((4, 2), np.float32)
    for bad in ((a, good[:2], out), (a, good, out[:3]), (a.T, good, out), (a, good, out[:, :1])):
        with pytest.raises(ValueError, match="randomized_svd: `x` must"):
            _cpu.skinny_times(*bad)
    with pytest.raises(TypeError, match="alike"):
        _cpu.skinny_times(a, good.astype(np.float64), out)
    with pytest.raises(ValueError, match="contiguous"):
        _cpu.skinny_times(np.ones((4, 6), np.float32)[:, ::2], good, out)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "form", ["csr_array", "csc_array", "csr_matrix", "csc_matrix", "coo_array"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_sparse(form, dtype, center):
    rng = np.random.default_rng(2)
    x = scipy.sparse.random_array(
        (200, 150), density=0.1, rng=rng, data_sampler=rng.standard_normal
    )
    x = (x * 100).astype(dtype)
    u, s, vt = randomized_svd(getattr(scipy.sparse, form)(x), 7, center=center)
    dense = randomized_svd(x.toarray(), 7, center=center)
    working = np.float64 if dtype == np.int32 else dtype
    check_factors(u, s, vt, working, 7)
    np.testing.assert_allclose(s, dense[1], rtol=200 * np.finfo(working).eps)


@pytest.mark.parametrize("shape", [(150, 60), (60, 150)])
def test_center(shape):
    x = matrix(shape, SPECTRA["inverse"]) + np.linspace(-1, 1, shape[1])
    before = x.copy()
    u, s, vt = randomized_svd(x, 4, center=True)
    np.testing.assert_array_equal(x, before)
    _, expected, _ = randomized_svd(x - x.mean(axis=0), 4)
    np.testing.assert_allclose(s, expected, rtol=1e-12)
    np.testing.assert_allclose(u.sum(axis=0), 0, atol=1e-12)
    check_factors(u, s, vt, np.float64, 4)


def test_layouts_and_dtypes(tmp_path):
    x = matrix((90, 70), SPECTRA["exponential"])
    expected = randomized_svd(x, 5)[1]
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=x.shape)
    mapped[:] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    big_endian = x.astype(">f8")
    for same in (
        np.asfortranarray(x),
        mapped,
        readonly,
        big_endian,
        np.repeat(x, 2, axis=1)[:, ::2],
        x[::-1, ::-1][::-1, ::-1],
        np.repeat(x, 3, axis=0)[::3],
        np.frombuffer(b"x" + x.tobytes(), np.float64, offset=1).reshape(x.shape),  # unaligned
    ):
        np.testing.assert_allclose(randomized_svd(same, 5)[1], expected, rtol=1e-12)
    for dtype, result in (
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
        (np.int8, np.float64),
        (np.bool_, np.float64),
        (np.uint64, np.float64),
    ):
        short = (np.abs(x) * 1000).astype(dtype)
        u, s, vt = randomized_svd(short, 3)
        check_factors(u, s, vt, result, 3)
        wide = randomized_svd(short.astype(np.float64), 3)[1]
        np.testing.assert_allclose(s, wide, rtol=1e-4 if result == np.float32 else 1e-12)


def test_chunks_of_converted_rows(monkeypatch):
    from slipstick.projection import _matrices

    x = (matrix((90, 70), SPECTRA["inverse"]) * 1000).astype(np.int32)
    expected = randomized_svd(x, 5, center=True)
    monkeypatch.setattr(_matrices, "CHUNK_BYTES", 70 * 8 * 7)
    got = randomized_svd(x, 5, center=True)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 4, 25])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_low_rank(rank, dtype):
    """Where the rank is below k, what is left is orthonormal all the same."""
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((300, rank)) @ rng.standard_normal((rank, 200))
    k = 8
    u, s, vt = randomized_svd(x.astype(dtype), k)
    check_factors(u, s, vt, dtype, k)
    exact = np.linalg.svd(x, compute_uv=False)
    bound = 100 * np.finfo(dtype).eps * max(exact[0], 1)
    np.testing.assert_allclose(s[: min(rank, k)], exact[: min(rank, k)], atol=bound)
    np.testing.assert_allclose(s[rank:], 0, atol=bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scikit_learns_cases(dtype):
    """Low rank, noise, the transpose, exact at full width."""
    x = matrix((500, 100), lambda j: np.where(j <= 5, 1.0, 0.0)).astype(dtype)
    s = np.linalg.svd(x.astype(np.float64), compute_uv=False)[:5]
    np.testing.assert_allclose(randomized_svd(x, 5)[1], s, rtol=50 * np.finfo(dtype).eps)
    np.testing.assert_allclose(randomized_svd(x.T, 5)[1], s, rtol=50 * np.finfo(dtype).eps)
    noisy = x + 0.01 * np.random.default_rng(0).standard_normal(x.shape).astype(dtype)
    s = np.linalg.svd(noisy.astype(np.float64), compute_uv=False)[:5]
    np.testing.assert_allclose(randomized_svd(noisy, 5)[1], s, rtol=1e-5)
    np.testing.assert_allclose(
        randomized_svd(noisy, 100)[1],
        np.linalg.svd(noisy, compute_uv=False),
        atol=100 * np.finfo(dtype).eps,
    )


# Seeds 0 to 49, declared with the bounds before the first run.
@pytest.mark.parametrize("name", SPECTRA)
def test_bounds_of_halko_martinsson_tropp(name):
    """(10.5), (10.6) and (10.10) bound expectations: the average of 50 seeds lies below each."""
    k, p = 20, 10
    x = matrix((150, 100), SPECTRA[name], seed=11)
    sigma = SPECTRA[name](np.arange(1.0, 101))
    tail = sigma[k:]
    for n_iter in (0, 1, 2):
        frobenius, spectral = [], []
        for seed in range(50):
            u, s, vt = randomized_svd(x, k + p, n_oversamples=0, n_iter=n_iter, seed=seed)
            rest = x - (u * s) @ vt
            frobenius.append(np.linalg.norm(rest))
            spectral.append(np.linalg.norm(rest, 2))
        power = 2 * n_iter + 1
        bound = (1 + math.sqrt(k / (p - 1))) * tail[0] ** power
        bound += math.e * math.sqrt(k + p) / p * math.sqrt(np.sum(tail ** (2 * power)))
        assert np.mean(spectral) <= bound ** (1 / power)
        if n_iter == 0:
            assert np.mean(frobenius) <= math.sqrt(1 + k / (p - 1)) * math.sqrt(np.sum(tail**2))


# Seeds 0 to 4. sklearn's default, against 7 power iterations: half the passes, as accurate.
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("n_iter", [1, 2, 4, 7])
def test_as_accurate_as_power_iterations(name, n_iter):
    k, width = 20, 30
    x = matrix((300, 250), SPECTRA[name], seed=12)
    best = math.sqrt(np.sum(SPECTRA[name](np.arange(1.0, 251))[k:] ** 2))
    ours, theirs = [], []
    for seed in range(5):
        q = np.linalg.qr(x @ projection.block("gaussian", seed, slice(width), slice(250)).T)[0]
        for _ in range(n_iter):
            q = np.linalg.qr(x @ np.linalg.qr(x.T @ q)[0])[0]
        small_u, s, vt = np.linalg.svd(q.T @ x, full_matrices=False)
        theirs.append(np.linalg.norm(x - (q @ small_u[:, :k] * s[:k]) @ vt[:k]) / best - 1)
        u, s, vt = randomized_svd(x, k, n_iter=n_iter, seed=seed)
        ours.append(np.linalg.norm(x - (u * s) @ vt) / best - 1)
    # Twice the excess error is less than one iteration more or less makes.
    assert np.mean(ours) <= 2 * np.mean(theirs) + 1e-13


def test_passes():
    assert [passes_for(n_iter) for n_iter in (0, 1, 2, 3, 4, 5, 6, 7)] == [2, 4, 5, 6, 7, 7, 8, 8]
    x = matrix((60, 50), SPECTRA["inverse"])
    np.testing.assert_array_equal(randomized_svd(x, 2)[1], randomized_svd(x, 2, n_iter=7)[1])
    np.testing.assert_array_equal(randomized_svd(x, 5)[1], randomized_svd(x, 5, n_iter=4)[1])


def test_one_seed_one_result():
    x = matrix((200, 90), SPECTRA["slow"]).astype(np.float32)
    first, again = randomized_svd(x, 5, seed=9), randomized_svd(x, 5, seed=9)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], randomized_svd(x, 5, n_iter=0, seed=10)[0])


X = np.ones((4, 3))
REFUSED = [
    (ValueError, "two axes", (np.ones(3), 1), {}),
    (ValueError, "two axes", (np.ones((0, 3)), 1), {}),
    (TypeError, "floats, integers or bools", (X * 1j, 1), {}),
    (TypeError, "floats, integers or bools", (X.astype(object), 1), {}),
    (ValueError, "between 1", (X, 0), {}),
    (TypeError, "must be an int", (X, 1.0), {}),
    (TypeError, "must be an int", (X, True), {}),
    (ValueError, "at most 3, the smaller side", (X, 4), {}),
    (ValueError, "n_oversamples", (X, 1), {"n_oversamples": -1}),
    (ValueError, "n_iter", (X, 1), {"n_iter": -1}),
    (ValueError, "'auto', got 'many'", (X, 1), {"n_iter": "many"}),
    (TypeError, "int or 'auto', got float", (X, 1), {"n_iter": 2.0}),
    (TypeError, "True or False", (X, 1), {"center": 1}),
    (ValueError, "seed", (X, 1), {"seed": -1}),
    (ValueError, "seed", (X, 1), {"seed": 2**64}),
    (ValueError, "finite", (X * np.nan, 1), {}),
    (ValueError, "finite", (X * np.inf, 1), {}),
    (ValueError, "finite", ((np.ones((300, 300)) * 1e37).astype(np.float32), 1), {}),
    (ValueError, "finite", (scipy.sparse.csr_array(X * np.nan), 1), {"center": True}),
    (TypeError, "without a mask of its own, got a MaskedArray", (np.ma.array(X), 1), {}),
]


@pytest.mark.parametrize(("error", "text", "arguments", "keywords"), REFUSED)
def test_refused(error, text, arguments, keywords):
    with pytest.raises(error, match="^randomized_svd: .*" + text):
        randomized_svd(*arguments, **keywords)


# --- One pass ---


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(300, 80), (60, 200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_streaming(shape, dtype, center):
    """One pass gives what randomized_svd gives without iterations, for any chunks."""
    x = (matrix(shape, SPECTRA["exponential"]) + 0.1).astype(dtype)
    expected = randomized_svd(x, 6, n_oversamples=14, n_iter=0, center=center, seed=4)
    for chunks in ([shape[0]], [1, 2, shape[0] - 3], [17] * (shape[0] // 17)):
        stream = StreamingSVD(6, n_oversamples=14, center=center, seed=4)
        row = 0
        for size in [*chunks, shape[0] - sum(chunks)]:
            if size:
                assert stream.partial_fit(x[row : row + size]) is stream
            row += size
        assert stream.n_samples_seen_ == shape[0]
        u, s, vt = stream.result()
        check_factors(u, s, vt, dtype, 6)
        # The sketch's condition, at most e^(20 / 8) times a few tens, times float64 roundings.
        bound = 1e-11 if dtype == np.float64 else 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(s, expected[1], atol=bound)
        np.testing.assert_allclose(
            (u * s) @ vt, (expected[0] * expected[1]) @ expected[2], atol=20 * bound
        )


def test_streaming_sparse_and_mixed():
    x = scipy.sparse.random_array((100, 60), density=0.2, rng=np.random.default_rng(0)).tocsr()
    stream = StreamingSVD(3, seed=1).partial_fit(x[:40]).partial_fit(x[40:].toarray())
    expected = StreamingSVD(3, seed=1).partial_fit(x.toarray()).result()
    np.testing.assert_allclose(stream.result()[1], expected[1], rtol=1e-12)
    single = StreamingSVD(1).partial_fit(np.ones((2, 3), np.float32))
    assert single.result()[0].dtype == np.float32
    assert single.partial_fit(np.ones((2, 3))).result()[0].dtype == np.float64


def test_streaming_low_rank():
    x = np.outer(np.arange(1.0, 50), np.ones(30))
    u, s, vt = StreamingSVD(4).partial_fit(x).result()
    check_factors(u, s, vt, np.float64, 4)
    np.testing.assert_allclose(s[0], np.linalg.norm(x), rtol=1e-12)
    np.testing.assert_allclose(s[1:], 0, atol=1e-6 * s[0])


@pytest.mark.parametrize(("dtype", "exponent"), [("<f4", 127), ("<f8", 600), ("<f8", 900)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_sizes_near_the_ends_of_the_range(dtype, exponent, sign):
    """Squares would leave it: at 2**-127, and 2**127, in float32 the inverse of a size too."""
    x = matrix((40, 30), SPECTRA["exponential"]).astype(dtype)
    x /= 4 * np.abs(x).max() * 40  # sums of a row or column stay below 1
    _, expected, _ = randomized_svd(x, 3)
    shifted = np.ldexp(x.astype(np.float64), sign * exponent)
    u, s, vt = randomized_svd(shifted.astype(dtype), 3)
    # Of what is left of float32 near its lower end: 2**-149 is its last bit.
    rtol = 1e-5 if dtype == "<f4" and sign > 0 else 2e-3 if dtype == "<f4" else 1e-12
    np.testing.assert_allclose(np.ldexp(s.astype(np.float64), -sign * exponent), expected, rtol)
    check_factors(u, s, vt, np.dtype(dtype), 3)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("exponents", [(-950, -950), (600, 600), (-950, 0), (0, -950), (-950, 600)])
def test_streaming_near_the_ends_of_the_range(exponents, center):
    """Of A^T A Omega alone would nothing be left; powers of two change no digit elsewhere."""
    x = matrix((40, 30), SPECTRA["exponential"])
    largest = max(exponents)
    parts = [np.zeros((3, 30))]
    parts += [np.ldexp(part, e) for part, e in zip(np.split(x, 2), exponents, strict=True)]
    near = np.ldexp(np.concatenate(parts), -largest)
    expected = StreamingSVD(3, center=center).partial_fit(near).result()
    stream = StreamingSVD(3, center=center)
    for part in parts:
        stream.partial_fit(part)
    u, s, vt = stream.result()
    # Only how sums are split differs.
    np.testing.assert_allclose(np.ldexp(s, -largest), expected[1], rtol=1e-9)
    check_factors(u, s, vt, np.dtype(np.float64), 3)


def test_streaming_refuses():
    with pytest.raises(TypeError, match="StreamingSVD: `n_components` must be an int, got str"):
        StreamingSVD("a")
    with pytest.raises(ValueError, match="StreamingSVD: `n_components`"):
        StreamingSVD(0)
    with pytest.raises(ValueError, match=r"StreamingSVD.result: `partial_fit` must come first"):
        StreamingSVD(2).result()
    stream = StreamingSVD(2).partial_fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="StreamingSVD: `n_components` must be at most 1"):
        stream.result()
    for bad in (np.ones((2, 4)), np.full((2, 3), np.nan), np.ones(3), np.ones((0, 3))):
        with pytest.raises(ValueError, match=r"StreamingSVD.partial_fit: `x` must"):
            stream.partial_fit(bad)
    assert stream.n_samples_seen_ == 1
    stream.partial_fit(np.ones((1, 3))).result()


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
@pytest.mark.parametrize("index", [2**30, -(2**30), 200])
def test_sparse_indices_outside_are_refused(layout, index):
    """SciPy would read or write outside its memory."""
    x = scipy.sparse.random(200, 100, 0.1, layout, random_state=0)
    (x.row if layout == "coo" else x.indices)[5] = index
    for function, call in {
        "randomized_svd": lambda: randomized_svd(x, 3),
        "StreamingSVD.partial_fit": lambda: StreamingSVD(3).partial_fit(x),
        "distortion": lambda: projection.distortion(x, np.ones((200, 5))),
    }.items():
        with pytest.raises(ValueError, match=rf"^{function}: `x` must have .*indices.*, got"):
            call()


def test_row_starts_outside_are_refused():
    for place, start in ((-1, 2**30), (7, -(2**30))):
        x = scipy.sparse.random(200, 100, 0.1, "csr", random_state=0)
        x.indptr[place] = start
        with pytest.raises(ValueError, match=r"^randomized_svd: `x` must have row starts"):
            randomized_svd(x, 3)


def test_other_sparse_formats_are_refused():
    x = scipy.sparse.random(20, 10, 0.3, "lil", random_state=0)
    with pytest.raises(TypeError, match=r"`x` must be CSR, CSC or COO, got format 'lil'$"):
        randomized_svd(x, 3)


@pytest.mark.parametrize("size", [2.5e37, 3e37, 5e37])
def test_singular_values_beyond_the_dtype_are_refused(size):
    """14 times the entries: LAPACK would search infinities for ever."""
    x = np.full((20, 10), size, np.float32)
    with pytest.raises(ValueError, match=r"^randomized_svd: `x` must be finite and its products"):
        randomized_svd(x, 1)
    with pytest.raises(ValueError, match=r"^StreamingSVD.result: the rows must have singular val"):
        StreamingSVD(1).partial_fit(x).result()


def test_streaming_of_what_is_far_from_0():
    """The spread has 10 digits beside the means; 1e-5 is what their squares would leave."""
    x = np.random.default_rng(0).standard_normal((500, 40)) + 1e6
    stream = StreamingSVD(40, center=True)
    for first in range(0, 500, 100):
        stream.partial_fit(x[first : first + 100])
    expected = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(stream.result()[1], expected, rtol=1e-8)
    equal = StreamingSVD(1, center=True).partial_fit(np.tile(x[0], (5, 1)))
    assert equal.result()[1][0] <= 1e-9 * np.linalg.norm(x[0])
