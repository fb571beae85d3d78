"""Random projection of SciPy's sparse matrices and arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from projection_cases import EVERY_LAW
from slipstick import projection

sp = pytest.importorskip("scipy.sparse")

SPARSE_LAWS = [*EVERY_LAW, {"kind": "sparse", "density": 0.03}]


def sparse(n: int, d: int, density: float, dtype: str = "float32"):
    rng = np.random.default_rng(0)
    return sp.random(n, d, density=density, format="csr", dtype=dtype, rng=rng)


# Rows, features, density, components: alone in their blocks and not; more columns than nonzeros and
# less; rows longer than what is looked at at once (512); components that fill no vector.
SHAPES = [
    (1, 1, 1, 1),
    (5, 3000, 0.5, 37),
    (100, 1000, 0.05, 130),
    (30, 300, 0.9, 8),
    (40, 20_000, 0.002, 129),
    (3, 5000, 1, 65),
    (2000, 70, 0.01, 20),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("law", SPARSE_LAWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_call(isa, threads, shape, law, dtype):
    n, d, density, k = shape
    x = sparse(n, d, density, dtype)
    for first_feature in (0, 2**40 + 200):
        arguments = {**law, "seed": 3, "first_feature": first_feature}
        expected = projection.project(x.toarray(), k, **arguments)
        got = projection.project(x, k, **arguments)
        assert isinstance(got, np.ndarray)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, expected)
        assert not np.signbit(got[got == 0]).any()


@pytest.mark.parametrize("law", SPARSE_LAWS, ids=str)
def test_several_tables_of_columns(threads, law):
    """8 MiB hold 8192 columns of 256 Gaussian entries, and the sums of 20 MiB two parts of rows."""
    x = sparse(21, 30_000, 0.2)
    got = projection.project(x, 256, **law, first_feature=77)
    np.testing.assert_array_equal(
        got, projection.project(x.toarray(), 256, **law, first_feature=77)
    )
    if law["kind"] == "gaussian":
        x = sparse(40_000, 12_000, 0.003)
        rows = np.r_[0:20, 19_990:20_010, 39_980:40_000]
        got = projection.project(x, 200, **law)[rows]
        expected = projection.project(x[rows].toarray(), 200, **law)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("container", ["csr_matrix", "csr_array", "csc_matrix", "csc_array"])
@pytest.mark.parametrize("wide", [False, True])
def test_matrices_and_arrays_of_either_width(container, wide):
    x = sparse(20, 400, 0.1)
    given = getattr(sp, container)(x)
    if wide:
        given.indices, given.indptr = given.indices.astype("i8"), given.indptr.astype("i8")
    for law in SPARSE_LAWS:
        expected = projection.project(x.toarray(), 30, **law)
        np.testing.assert_array_equal(projection.project(given, 30, **law), expected)
        out = np.zeros((30, 40), np.float32)[:, ::2].T
        assert projection.project(given, 30, **law, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64"])
def test_integers_become_float64(dtype):
    x = sp.csr_array((np.arange(60).reshape(3, 20) % 5).astype(dtype))
    for law in SPARSE_LAWS:
        got = projection.project(x, 7, **law)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, projection.project(x.toarray(), 7, **law))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("law", SPARSE_LAWS, ids=str)
def test_unsorted_and_duplicate_indices(law, dtype):
    rng = np.random.default_rng(0)
    indptr = np.array([0, 5, 5, 400, 700, 1000])
    indices = rng.integers(0, 50, 1000)
    data = rng.standard_normal(1000).astype(dtype)
    x = sp.csr_matrix((data, indices, indptr), shape=(5, 50))
    kept = data.copy(), indices.copy(), indptr.copy()
    dense = np.zeros((5, 50), dtype)  # duplicates added in the order stored
    for row in range(5):
        for i in range(indptr[row], indptr[row + 1]):
            dense[row, indices[i]] += data[i]
    got = projection.project(x, 30, **law)
    np.testing.assert_array_equal(got, projection.project(dense, 30, **law))
    for array, before in zip((x.data, x.indices, x.indptr), kept, strict=True):
        np.testing.assert_array_equal(array, before)  # the caller's matrix stays as it was


def test_explicit_zeros_and_empty_rows():
    x = sp.csr_matrix(
        (np.array([0.0, -0.0, 2.0], np.float32), np.array([3, 9, 300]), np.array([0, 0, 2, 2, 3])),
        shape=(4, 400),
    )
    for law in SPARSE_LAWS:
        got = projection.project(x, 30, **law)
        np.testing.assert_array_equal(got, projection.project(x.toarray(), 30, **law))
        assert not np.signbit(got[:3]).any()
        assert projection.project(x[:0], 30, **law).shape == (0, 30)
        empty = projection.project(sp.csr_matrix((6, 400), dtype=np.float32), 30, **law)
        np.testing.assert_array_equal(empty, np.zeros((6, 30)))


def test_special_values_propagate_through_nonzeros():
    x = sp.csr_matrix(np.array([[1, np.inf, 0], [np.nan, 0, 2]], np.float32))
    y = projection.project(x, 40)
    assert np.isinf(y[0]).all()
    assert np.isnan(y[1]).all()
    y = projection.project(x, 40, kind="countsketch")
    assert np.isinf(y[0]).sum() == 1
    assert np.isnan(y[1]).sum() == 1


def test_hashed_features():
    """Columns up to 2^40 in an int64 matrix, and global indices to the end of the range."""
    indices = np.array([3, 2**33, 2**40 - 1, 0, 2**39])
    x = sp.csr_array((np.arange(1.0, 6.0), indices, np.array([0, 3, 5])), shape=(2, 2**40))
    for law in SPARSE_LAWS:
        for first in (0, 2**64 - 2**40):
            expected = np.zeros((2, 20))
            for row, part in ((0, slice(0, 3)), (1, slice(3, 5))):
                for value, column in zip(x.data[part], indices[part], strict=True):
                    expected[row] += projection.project(
                        np.array([value]), 20, **law, first_feature=first + int(column)
                    )
            got = projection.project(x, 20, **law, first_feature=first)
            np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-14)


def test_default_density_goes_by_the_width():
    x = sparse(4, 400, 0.1)
    np.testing.assert_array_equal(
        projection.project(x, 20, kind="sparse"),
        projection.project(x, 20, kind="sparse", density=1 / 20),
    )


def test_scipy_is_not_imported():
    program = "import sys, slipstick; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- Bad input ------------------------------------------------------------------------------------


def broken(**parts):
    x = sp.csr_matrix(np.eye(3, 5, dtype=np.float32))
    for name, value in parts.items():
        setattr(x, name, np.asarray(value))
    return x


def broken_columns(**parts):
    x = sp.csc_matrix(np.eye(3, 5, dtype=np.float32))
    for name, value in parts.items():
        setattr(x, name, np.asarray(value))
    return x


EYE = sp.csr_array(np.eye(3, 5, dtype=np.float32))


def with_float_indices() -> sp.csr_array:
    x = EYE.copy()
    x.indices = x.indices + 0.5
    return x


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (
            broken(indices=[0, 1, 5]),
            {},
            ValueError,
            "`x` must have column indices from 0 to 4, got 5",
        ),
        (
            broken(indices=[0, -1, 2]),
            {},
            ValueError,
            "`x` must have column indices from 0 to 4, got -1",
        ),
        (
            broken(indptr=[0, 2, 1, 3]),
            {},
            ValueError,
            "`x` must have row starts (indptr) that do not decrease, got 1 for row 2",
        ),
        (
            broken(indptr=[-1, 1, 2, 3]),
            {},
            ValueError,
            "`x` must have row starts (indptr) that do not decrease, got -1 for row 0",
        ),
        (
            broken(indptr=[0, 1, 2, 4]),
            {},
            ValueError,
            "`x` must hold the 4 elements that its row starts (indptr) promise, got 3",
        ),
        (
            broken(indptr=[0, 1, 3]),
            {},
            ValueError,
            "`x` must have 4 row starts (indptr), got shape (3,)",
        ),
        (
            broken(data=np.ones(2, np.float32)),
            {},
            ValueError,
            "`x` must hold the 3 elements that its row starts (indptr) promise, got 2",
        ),
        (
            broken_columns(indices=[0, 1, 3]),
            {},
            ValueError,
            "`x` must have row indices from 0 to 2, got 3",
        ),
        (
            broken_columns(indptr=[0, 1, 2, 3, 3, 9]),
            {},
            ValueError,
            "`x` must have column starts (indptr) that do not decrease and stay within its 3 "
            "elements, got others",
        ),
        (
            EYE.astype(complex),
            {},
            TypeError,
            "a sparse `x` must hold float32, float64, integers or bools, got complex128",
        ),
        (
            EYE.tocoo(),
            {},
            TypeError,
            "a sparse `x` must be CSR or CSC, got format 'coo'",
        ),
        (
            sp.coo_array(np.ones(3, np.float32)),
            {},
            ValueError,
            "a sparse `x` must have two axes, got shape (3,)",
        ),
        (
            sp.csr_array((3, 0), dtype=np.float32),
            {},
            ValueError,
            "`x` must have at least one feature, got shape (3, 0)",
        ),
        (
            EYE,
            {"first_feature": 2**64 - 4},
            ValueError,
            "`first_feature` must be at most 2**64 - 5 for `x` with 5 features, "
            "got 18446744073709551612",
        ),
        (EYE, {"out": np.ones((3, 2))}, TypeError, "`out` must have dtype float32, got float64"),
        (
            with_float_indices(),
            {},
            TypeError,
            "`x` must have integers for indptr and indices, got float64",
        ),
        (
            EYE,
            {"out": np.ones((3, 4), np.float32)},
            ValueError,
            "`out` must have shape (3, 2), got (3, 4)",
        ),
    ],
)
def test_refuses(x, arguments, error, message):
    target = np.full((3, 2), 7, np.float32)
    call = {"n_components": 2, "out": target, **arguments}
    with pytest.raises(error) as caught:
        projection.project(x, **call)
    assert str(caught.value) == f"project: {message}"
    assert (target == 7).all()


def test_out_in_the_memory_of_x():
    for make in (sp.csc_array, sp.csr_array):
        x = make(np.arange(1.0, 13).reshape(3, 4))
        out = x.data[:6].reshape(3, 2)
        with pytest.raises(ValueError, match=r"^project: `out` must share no memory with `x`"):
            projection.project(x, 2, out=out)
        np.testing.assert_array_equal(x.toarray(), np.arange(1.0, 13).reshape(3, 4))
