"""Projection and SVD of Dask arrays: any chunks, threads and processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse

from slipstick import projection, reference

pytest.importorskip("dask")
import dask
import dask.array

from slipstick import dask as chunked

LAWS = [
    {"kind": "rademacher"},
    {"kind": "gaussian"},
    {"kind": "sparse"},
    {"kind": "sparse", "density": 1 / 3},
    {"kind": "sjlt"},
    {"kind": "countsketch"},
]
CHUNKS = [(30, -1), (-1, 256), (17, 100), (100, 1), ((1, 99), (5, 700, 295))]


def data(dtype=np.float32):
    return np.random.default_rng(0).standard_normal((100, 1000)).astype(dtype)


@pytest.fixture(autouse=True)
def _threaded():
    with dask.config.set(scheduler="threads", num_workers=4):
        yield


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
def test_project(law, dtype):
    x = data()
    x = (x * 100).astype(dtype) if dtype == np.int16 else x.astype(dtype)
    for chunks in CHUNKS:
        # Chunks of one column are 300 tasks, in two blocks of 256; 1000 would take a second.
        part = x[:, :300] if chunks == (100, 1) else x
        expected = projection.project(part, 24, seed=5, **law)
        # 1000 chunks at most: as many roundings of sums of |x| times an entry; then that of the
        # dtype.
        eps = np.finfo(expected.dtype).eps
        size = np.abs(part.astype(np.float64)).sum(axis=1).max()
        sums = np.finfo(np.float32).eps if dtype == np.float16 else eps
        bound = 4 * sums * size + eps * np.abs(expected.astype(np.float64)).max()
        y = chunked.project(dask.array.from_array(part, chunks=chunks), 24, seed=5, **law)
        assert y.shape == (100, 24)
        assert y.numblocks[1] == 1
        got = y.compute()
        assert got.dtype == y.dtype == expected.dtype
        np.testing.assert_allclose(
            got.astype(np.float64), expected.astype(np.float64), atol=bound, rtol=0
        )


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_rows_and_scheduling_change_no_bit(law):
    x = data()
    whole = chunked.project(dask.array.from_array(x, chunks=(-1, 300)), 24, **law).compute()
    for rows in (1, 33, (50, 1, 49)):
        y = chunked.project(dask.array.from_array(x, chunks=(rows, 300)), 24, **law)
        np.testing.assert_array_equal(y.compute(scheduler="synchronous"), whole)
        np.testing.assert_array_equal(y.compute(), whole)
    one = chunked.project(dask.array.from_array(x, chunks=(20, -1)), 24, **law).compute()
    np.testing.assert_array_equal(one, projection.project(x, 24, **law))


def test_other_axes_and_first_feature():
    x = data().reshape(5, 20, 1000)
    array = dask.array.from_array(x, chunks=(2, 7, 300))
    far = 2**64 - 1000
    y = chunked.project(array, 8, first_feature=far)
    assert y.chunks == ((2, 2, 1), (7, 7, 6), (8,))
    np.testing.assert_allclose(
        y.compute(), reference.project(x, 8, first_feature=far), rtol=0, atol=1e-3
    )
    vector = dask.array.from_array(x[0, 0], chunks=300)
    np.testing.assert_allclose(
        chunked.project(vector, 8).compute(), projection.project(x[0, 0], 8), atol=1e-4
    )


def test_sparse_chunks_and_unknown_rows():
    x = data()
    x[np.abs(x) < 1.5] = 0
    array = dask.array.from_array(x, chunks=(30, 500))
    sparse = array.map_blocks(scipy.sparse.csr_array, dtype=x.dtype)
    np.testing.assert_allclose(
        chunked.project(sparse, 8).compute(), projection.project(x, 8), atol=1e-4
    )
    some = array[array[:, 0] > 0]
    np.testing.assert_allclose(
        chunked.project(some, 8).compute(), projection.project(x[x[:, 0] > 0], 8), atol=1e-4
    )


def test_tokens():
    array = dask.array.from_array(data(), chunks=(30, 300))
    names = {
        chunked.project(array, k, **law).name
        for k, law in [
            (8, {}),
            (9, {}),
            (8, {"seed": 1}),
            (8, {"kind": "gaussian"}),
            (8, {"kind": "sparse"}),
            (8, {"kind": "sparse", "density": 0.5}),
            (8, {"first_feature": 1}),
        ]
    }
    assert len(names) == 7
    assert chunked.project(array, 8, seed=np.int64(0)).name in names
    sketch = chunked._Projection(8, "rademacher", 0, None)
    assert dask.base.tokenize(sketch) == dask.base.tokenize(
        chunked._Projection(8, "rademacher", 0, None)
    )
    # No task carries the matrix: 8 x 20000 entries, of which a pickle would take 160 kB.
    wide = dask.array.ones((2, 20_000), chunks=(1, 10_000))
    graph = chunked.project(wide, 8).__dask_graph__()
    assert max(len(pickle.dumps(task)) for task in dict(graph).values()) < 4000


def low(shape=(200, 90), dtype=np.float64):
    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.standard_normal((n, min(shape))))[0] for n in shape)
    return ((u / np.arange(1.0, min(shape) + 1)) @ v.T + 0.01).astype(dtype)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(200, 90), (90, 200)])
def test_randomized_svd(shape, dtype, center):
    x = low(shape, dtype)
    u, s, vt = projection.randomized_svd(x, 6, center=center, seed=2)
    eps = np.finfo(dtype).eps
    for chunks in ((33, 41), (17, -1)):
        array = dask.array.from_array(x, chunks=chunks)
        got_u, got_s, got_vt = chunked.randomized_svd(array, 6, center=center, seed=2)
        assert got_u.chunks[0] == array.chunks[0]
        assert got_u.dtype == got_s.dtype == got_vt.dtype == dtype
        # Seven iterations converge to it, whatever the roundings on the way.
        np.testing.assert_allclose(got_s, s, rtol=200 * eps)
        np.testing.assert_allclose(np.asarray(got_u), u, atol=2e4 * eps)
        np.testing.assert_allclose(got_vt, vt, atol=2e4 * eps)


def test_randomized_svd_of_low_rank_and_integers():
    x = np.outer(np.arange(1, 101), np.arange(1, 41))
    u, s, vt = chunked.randomized_svd(dask.array.from_array(x, chunks=(60, 25)), 3)
    np.testing.assert_allclose(s, [np.linalg.norm(x), 0, 0], atol=1e-9)
    np.testing.assert_allclose(np.asarray(u.T @ u), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(vt @ vt.T, np.eye(3), atol=1e-12)


def test_two_processes():
    distributed = pytest.importorskip("distributed")
    x, y = data(), low()
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        array = dask.array.from_array(x, chunks=(20, 300))
        got = client.compute(chunked.project(array, 24)).result()
        u, s, _ = chunked.randomized_svd(dask.array.from_array(y, chunks=(50, 40)), 5)
        np.testing.assert_allclose(np.asarray(u.T @ u), np.eye(5), atol=1e-12)
    local = chunked.project(dask.array.from_array(x, chunks=(100, 300)), 24)
    np.testing.assert_array_equal(got, local.compute())
    np.testing.assert_allclose(s, projection.randomized_svd(y, 5)[1], rtol=1e-12)


X = dask.array.ones((4, 3), chunks=2)
UNKNOWN = X[X[:, 0] > 0]
REFUSED = [
    (TypeError, "dask array, got ndarray", "project", (np.ones((4, 3)), 2), {}),
    (TypeError, "dask array, got ndarray", "randomized_svd", (np.ones((4, 3)), 2), {}),
    (ValueError, "at least one feature", "project", (X[:, :0], 2), {}),
    (ValueError, "known sizes", "project", (UNKNOWN.T, 2), {}),
    (ValueError, "known sizes", "randomized_svd", (UNKNOWN, 2), {}),
    (ValueError, "n_components", "project", (X, 0), {}),
    (ValueError, "kind", "project", (X, 2), {"kind": "normal"}),
    (ValueError, "seed", "project", (X, 2), {"seed": -1}),
    (ValueError, "first_feature", "project", (X, 2), {"first_feature": 2**64 - 2}),
    (ValueError, "density", "project", (X, 2), {"kind": "sparse", "first_feature": 1}),
    (ValueError, "density", "project", (X, 2), {"density": 0.5}),
    (ValueError, "two axes", "randomized_svd", (X[0], 2), {}),
    (ValueError, "at most 3", "randomized_svd", (X, 4), {}),
    (ValueError, "finite", "randomized_svd", (X * np.inf, 1), {}),
]


@pytest.mark.parametrize(("error", "text", "function", "arguments", "keywords"), REFUSED)
def test_refused(error, text, function, arguments, keywords):
    with pytest.raises(error, match=f"^{function}: .*{text}"):
        getattr(chunked, function)(*arguments, **keywords)


def test_empty_chunks_and_other_dtypes():
    x = np.random.default_rng(0).standard_normal((37, 101))
    parts = dask.array.from_array(x, chunks=((20, 0, 17), (50, 0, 51)))
    np.testing.assert_allclose(
        chunked.project(parts, 16).compute(), projection.project(x, 16), atol=1e-12
    )
    s = chunked.randomized_svd(parts, 3)[1]
    np.testing.assert_allclose(s, projection.randomized_svd(x, 3)[1], rtol=1e-10)
    with pytest.raises(TypeError, match=r"^project: `x` must have a real numeric dtype, got compl"):
        chunked.project(parts.astype(complex), 3)
