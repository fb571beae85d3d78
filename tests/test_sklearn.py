"""The estimators: scikit-learn's own checks, and what its classes do not offer."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import slipstick
from slipstick import projection

sklearn = pytest.importorskip("sklearn", minversion="1.6")
import scipy.sparse  # noqa: E402
from sklearn import random_projection  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import DataDimensionalityWarning, NotFittedError  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from slipstick import sklearn as estimators  # noqa: E402

CLASSES = [getattr(estimators, name) for name in estimators.__all__ if name.endswith("Projection")]
WITH_PEERS = ["GaussianRandomProjection", "SparseRandomProjection"]


@parametrize_with_checks([cls(n_components=2) for cls in CLASSES])
@pytest.mark.filterwarnings("ignore")  # the checks project 2 features onto more components
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(rows=25, columns=3000, dtype=np.float64):
    return np.random.default_rng(0).random((rows, columns)).astype(dtype)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transform_is_project(cls, dtype):
    x = data(dtype=dtype)
    estimator = cls(n_components=64, random_state=7).fit(x)
    assert estimator.seed_ == 7
    y = estimator.transform(x)
    law = estimator._law()
    np.testing.assert_array_equal(y, projection.project(x, 64, **law))
    # Against the matrix it claims to be: 3000 products of numbers up to 1, each sum rounded.
    matrix = estimator.components_
    assert matrix.dtype == dtype
    assert matrix.shape == (64, 3000)
    dense = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
    bound = 4 * np.sqrt(3000) * np.finfo(dtype).eps * np.linalg.norm(x[0]) * np.abs(dense).max()
    np.testing.assert_allclose(y, x.astype(np.float64) @ dense.T.astype(np.float64), atol=bound)


@pytest.mark.parametrize("cls", CLASSES)
def test_components_are_made_on_demand_and_pickles_are_small(cls):
    x = data()
    estimator = cls(n_components=64, random_state=2**64 - 1).fit(x)
    assert not any(np.size(value) > 8 for value in vars(estimator).values())
    text = pickle.dumps(estimator)
    assert len(text) < 2000
    again = pickle.loads(text)
    np.testing.assert_array_equal(again.transform(x), estimator.transform(x))
    np.testing.assert_array_equal(clone(estimator).fit(x).transform(x), estimator.transform(x))
    with pytest.raises(AttributeError, match="components_"):
        _ = cls().components_


@pytest.mark.parametrize("cls", CLASSES)
def test_random_state(cls):
    x = data(5, 300)
    drawn = [
        cls(8, random_state=state).fit(x).seed_
        for state in (np.random.RandomState(3), np.random.RandomState(3), None, None)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[3]
    assert max(drawn) >= 2**32
    generator = np.random.RandomState(3)
    assert cls(8, random_state=generator).fit(x).seed_ == drawn[0]
    assert cls(8, random_state=generator).fit(x).seed_ != drawn[0]
    with pytest.raises(ValueError, match="random_state"):
        cls(8, random_state=-1).fit(x)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("container", ["csr_matrix", "csr_array", "csc_matrix", "csc_array"])
def test_sparse_data(cls, container):
    x = scipy.sparse.random_array((30, 500), density=0.05, rng=np.random.default_rng(1))
    dense = x.toarray()
    matrix = getattr(scipy.sparse, container)(x)
    estimator = cls(n_components=20, random_state=1).fit(matrix)
    y = estimator.transform(matrix)
    if scipy.sparse.issparse(y):
        assert cls is estimators.SparseRandomProjection
        y = cls(20, random_state=1, dense_output=True).fit(matrix).transform(matrix)
    np.testing.assert_array_equal(y, cls(20, random_state=1).fit(dense).transform(dense))


@pytest.mark.parametrize(("interface", "array"), [("spmatrix", False), ("sparray", True)])
def test_sparse_interface(interface, array):
    if "sparse_interface" not in sklearn.get_config():
        pytest.skip("scikit-learn has one sparse interface")
    x = scipy.sparse.random_array((30, 500), density=0.05, rng=np.random.default_rng(1)).tocsr()
    with sklearn.config_context(sparse_interface=interface):
        estimator = estimators.SparseRandomProjection(20, random_state=0).fit(x)
        for matrix in (
            estimator.transform(x),
            estimator.components_,
            estimators.SJLTRandomProjection(20).fit(x).components_,
            estimators._sparse_random_matrix(5, 50),
        ):
            assert scipy.sparse.issparse(matrix)
            assert isinstance(matrix, scipy.sparse.sparray) == array
            assert matrix.format == "csr"


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_with_auto(cls, library):
    """scikit-learn's own raise a TypeError here (its issue 34993)."""
    pytest.importorskip(library)
    estimator = cls(eps=0.5, random_state=0).set_output(transform=library)
    frame = estimator.fit_transform(data(10, 1000))
    names = [f"{cls.__name__.lower()}{i}" for i in range(110)]
    assert list(frame.columns) == names
    assert list(estimator.get_feature_names_out()) == names


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("n_features", [3, 200])
def test_inverse_transform(cls, stored, n_features):
    x = data(6, n_features)
    estimator = cls(8, random_state=0, compute_inverse_components=stored)
    if n_features < 8:
        with pytest.warns(DataDimensionalityWarning):
            y = estimator.fit_transform(x)
    else:
        y = estimator.fit_transform(x)
    back = estimator.inverse_transform(y)
    np.testing.assert_allclose(estimator.transform(back), y, rtol=1e-7, atol=1e-10)
    assert hasattr(estimator, "inverse_components_") == stored


@pytest.mark.parametrize("name", WITH_PEERS)
def test_parameters_and_messages_are_those_of_scikit_learn(name):
    ours, theirs = getattr(estimators, name), getattr(random_projection, name)
    assert ours().get_params() == theirs().get_params()
    x = data(4, 10)
    for parameters in (
        {},
        {"eps": 0.9, "n_components": 0},
        {"n_components": 2.5},
        {"eps": 0.0},
        {"eps": 1.5},
        {"compute_inverse_components": 1},
        *([{"density": 0.0, "n_components": 2}] if "Sparse" in name else []),
        *([{"density": "low", "n_components": 2}] if "Sparse" in name else []),
        *([{"dense_output": 1, "n_components": 2}] if "Sparse" in name else []),
    ):
        with pytest.raises(ValueError) as expected:  # noqa: PT011
            theirs(**parameters).fit(x)
        with pytest.raises(ValueError, match=re.escape(str(expected.value))):
            ours(**parameters).fit(x)
    with pytest.raises(ValueError, match="target dimension of 0 which is invalid"):
        ours().fit(x[:1])
    with pytest.raises(NotFittedError):
        ours().transform(x)
    with pytest.raises(NotFittedError):
        ours().inverse_transform(x)
    with pytest.raises(ValueError, match="NaN"):
        ours(2).fit(np.full((2, 3), np.nan))
    assert set(vars(theirs(2).fit(x))) - {"components_"} <= set(vars(ours(2).fit(x)))


def test_johnson_lindenstrauss_min_dim():
    theirs = random_projection.johnson_lindenstrauss_min_dim
    ours = estimators.johnson_lindenstrauss_min_dim
    assert ours(100, eps=1e-5) == 368416070986
    samples, eps = np.array([[1], [10], [10**6]]), np.array([0.01, 0.1, 0.5, 0.99])
    np.testing.assert_array_equal(ours(samples, eps=eps), theirs(samples, eps=eps))
    assert ours(1e6, eps=0.5) == theirs(1e6, eps=0.5) == slipstick.projection.min_dim(10**6, 0.5)
    for arguments in ((0,), ([0, 1],), (5, 1.0), ([5], [0.0]), ("a",)):
        with pytest.raises(ValueError) as expected:  # noqa: PT011
            theirs(arguments[0], eps=arguments[-1] if len(arguments) > 1 else 0.1)
        with pytest.raises(ValueError, match=re.escape(str(expected.value))):
            ours(arguments[0], eps=arguments[-1] if len(arguments) > 1 else 0.1)


def test_random_matrices():
    dense = estimators._gaussian_random_matrix(5, 40, random_state=3)
    whole = projection.block("gaussian", 3, slice(0, 5), slice(0, 40), n_components=5)
    np.testing.assert_array_equal(dense, whole)
    sparse = estimators._sparse_random_matrix(50, 40, density=0.25, random_state=3)
    whole = projection.block("sparse", 3, slice(50), slice(40), n_components=50, density=0.25)
    np.testing.assert_array_equal(sparse.toarray(), whole)
    assert sparse.nnz == np.count_nonzero(whole)
    full = estimators._sparse_random_matrix(5, 40, density=1, random_state=3)
    assert isinstance(full, np.ndarray)
    np.testing.assert_array_equal(np.abs(full), 1 / np.sqrt(5))
    for shape in ((0, 1), (1, 0), (-1, 1), (1, -1)):
        for function in (estimators._gaussian_random_matrix, estimators._sparse_random_matrix):
            with pytest.raises(ValueError, match="strictly positive"):
                function(*shape)
    for density in (-1.0, 0.0, 1.1):
        with pytest.raises(ValueError, match=r"Expected density in range \]0, 1\]"):
            estimators._sparse_random_matrix(5, 40, density=density)


def test_density_below_the_entries_resolution():
    expected = r"^SparseRandomProjection.fit: `density` must be .* from 2\*\*-32 on.*, got 1e-10$"
    with pytest.raises(ValueError, match=expected):
        estimators.SparseRandomProjection(3, density=1e-10).fit(data(5, 30))


def test_sjlt_nonzeros():
    x = data(5, 300)
    columns = estimators.SJLTRandomProjection(30, n_nonzeros=3, random_state=0).fit(x)
    np.testing.assert_array_equal(np.count_nonzero(columns.components_.toarray(), axis=0), 3)
    with pytest.raises(ValueError, match="n_nonzeros must be at most n_components=2, got 3"):
        estimators.SJLTRandomProjection(2, n_nonzeros=3).fit(x)


def test_a_fitted_matrix_stays():
    x = np.random.default_rng(0).standard_normal((5, 100))
    estimator = estimators.SJLTRandomProjection(7, n_nonzeros=2, random_state=0).fit(x)
    before = estimator.transform(x)
    np.testing.assert_array_equal(estimator.set_params(n_nonzeros=30).transform(x), before)
