"""Products of sparse rows on CUDA devices: the bits of the dense product on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from slipstick.projection import _sparse_input, project

KINDS = ("rademacher", "gaussian", "sparse", "sjlt", "countsketch", "srht")


class Parts(NamedTuple):
    """A matrix in compressed rows whose parts are arrays of a device."""

    data: object
    indices: object
    indptr: object
    shape: tuple[int, int]


@pytest.fixture
def make_csr(device, monkeypatch):
    """Make the device's CSR matrix of SciPy's."""
    if device.emulated:
        own = Parts.__module__.partition(".")[0]
        monkeypatch.setitem(_sparse_input._FRAMEWORKS, own, lambda _, x: _sparse_input.Rows(*x))
        return lambda x, i=0: Parts(
            *(device.array(part, i) for part in (x.data, x.indices, x.indptr)), x.shape
        )
    import torch

    return lambda x, i=0: torch.sparse_csr_tensor(
        *(device.array(part, i) for part in (x.indptr, x.indices, x.data)),
        x.shape,
        check_invariants=True,
    )


def random_csr(rows, features, density, dtype, index=np.int32, seed=0):
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    x = sparse.random_array((rows, features), density=density, rng=seed, dtype=dtype, format="csr")
    x.sort_indices()
    x.indices, x.indptr = x.indices.astype(index), x.indptr.astype(index)
    return x


def assert_same(result, expected):
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert np.ascontiguousarray(result).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_dense_rows(device, make_csr, kind, dtype):
    for rows, features, density, k, first in (
        (1, 1, 1.0, 1, 0),
        (5, 700, 0.2, 40, 250),
        (3, 3000, 0.05, 300, 2**40 + 5),
        (2, 100, 1.0, 8, 3),
    ):
        index = np.int64 if rows == 5 else np.int32
        x = random_csr(rows, features, density, dtype, index)
        options = {"kind": kind, "seed": 7, "first_feature": first}
        if kind == "sparse":
            options["density"] = 0.3 if rows == 5 else 0.05
        result = device.numpy(project(make_csr(x), k, **options))
        assert_same(result, project(x.toarray(), k, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_empty_rows_and_matrices(device, make_csr, kind):
    x = random_csr(6, 300, 0.004, np.float32)
    assert (np.diff(x.indptr) == 0).any()
    assert_same(
        device.numpy(project(make_csr(x), 17, kind=kind)), project(x.toarray(), 17, kind=kind)
    )
    assert device.numpy(project(make_csr(x[:0]), 17, kind=kind)).shape == (0, 17)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_as_they_have_to_be_are_nan(device, make_csr, kind):
    if not device.emulated:
        pytest.skip("torch checks its matrices itself")
    x = random_csr(6, 300, 0.1, np.float32)
    good = device.numpy(project(make_csr(x), 9, kind=kind))
    bad = x.copy()
    bad.indices[bad.indptr[1]] = -1
    bad.indices[bad.indptr[3] - 1] = 300
    first = bad.indptr[4]
    bad.indices[[first, first + 1]] = bad.indices[[first + 1, first]]
    result = device.numpy(project(make_csr(bad), 9, kind=kind))
    assert np.isnan(result[[1, 2, 4]]).all()
    assert_same(result[[0, 3, 5]], good[[0, 3, 5]])
    bad = x.copy()
    bad.indptr[3] = 2**30
    result = device.numpy(project(make_csr(bad), 9, kind=kind))
    assert np.isnan(result[[2, 3]]).all()
    assert_same(result[[0, 1, 4, 5]], good[[0, 1, 4, 5]])


def test_an_infinity_passes_over_zeros_of_the_matrix(device, make_csr):
    x = random_csr(2, 50, 1.0, np.float32)
    x.data[3] = np.inf
    options = {"kind": "sparse", "density": 0.05, "seed": 1}
    assert_same(device.numpy(project(make_csr(x), 64, **options)), project(x, 64, **options))


def test_refusals(device, make_csr):
    x = random_csr(2, 50, 1.0, np.float32)
    with pytest.raises(ValueError, match=r"project: `out` must be on CUDA device 0"):
        project(make_csr(x), 4, out=np.zeros((2, 4), np.float32))
    if device.emulated:
        parts = make_csr(x)
        with pytest.raises(TypeError, match=r"project: `x` must be of int32 or int64 indices"):
            project(parts._replace(indices=device.array(np.zeros(100, np.int16))), 4)
        with pytest.raises(ValueError, match=r"project: `x` must have 3 row starts"):
            project(parts._replace(indptr=parts.indptr[:2]), 4)


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls them beta
def test_csr_of_torch_on_the_cpu():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = random_csr(4, 60, 0.3, np.float32)
    parts = map(torch.from_numpy, (x.indptr, x.indices, x.data))
    matrix = torch.sparse_csr_tensor(*parts, x.shape, check_invariants=True)
    result = project(matrix, 8)
    assert isinstance(result, torch.Tensor)
    assert_same(result.numpy(), project(x, 8))
    with pytest.raises(TypeError, match=r"project: a sparse `x` of torch must be CSR"):
        project(matrix.to_sparse_coo(), 8)
