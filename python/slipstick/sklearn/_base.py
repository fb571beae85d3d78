"""What the estimators share."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from slipstick.projection import block, project
from slipstick.sklearn._matrices import johnson_lindenstrauss_min_dim, seed_of

_FLOATS = [np.float64, np.float32]
_SPARSE = ["csr", "csc"]


class RandomProjection(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """What the estimators share: a kind of `slipstick.projection.project`."""

    _kind: ClassVar[str]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "eps": [Interval(Real, 0, None, closed="neither")],
        "compute_inverse_components": ["boolean"],
        "random_state": [
            Interval(Integral, 0, 2**64 - 1, closed="both"),
            np.random.RandomState,
            None,
        ],
    }

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        eps: float = 0.1,
        compute_inverse_components: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.eps = eps
        self.compute_inverse_components = compute_inverse_components
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None) -> Any:
        """Choose the number of components and the seed.

        Parameters
        ----------
        X : {ndarray, sparse matrix} of shape (n_samples, n_features)
            Its shape and dtype alone matter.
        y : Ignored
            Not used, present here for API consistency by convention.

        Returns
        -------
        self : object
        """
        X = validate_data(self, X, accept_sparse=_SPARSE, dtype=_FLOATS)
        n_samples, n_features = X.shape
        self.n_components_ = self._number_of_components(n_samples, n_features)
        self.seed_ = seed_of(self.random_state)
        self._settle_density(n_features)
        self._dtype = X.dtype
        self._n_features_out = self.n_components_
        if self.compute_inverse_components:
            self.inverse_components_ = self._pseudo_inverse()
        return self

    def _number_of_components(self, n_samples: int, n_features: int) -> int:
        if not isinstance(self.n_components, str):
            if self.n_components > n_features:
                warnings.warn(
                    "The number of components is higher than the number of features: n_features "
                    f"< n_components ({n_features} < {self.n_components})."
                    "The dimensionality of the problem will not be reduced.",
                    DataDimensionalityWarning,
                    stacklevel=3,
                )
            return int(self.n_components)
        number = int(johnson_lindenstrauss_min_dim(n_samples, eps=self.eps))
        if 0 < number <= n_features:
            return number
        wrong = (
            f"larger than the original space with n_features={n_features}"
            if number > 0
            else "invalid"
        )
        raise ValueError(
            f"eps={self.eps:f} and n_samples={n_samples} lead to a target dimension of {number} "
            f"which is {wrong}"
        )

    def _settle_density(self, n_features: int) -> None:
        """Set `density_`, where the kind has one."""

    def _law(self) -> dict[str, Any]:
        """Return what `project` and `block` take, the number of components excepted."""
        return {"kind": self._kind, "seed": self.seed_}

    @property
    def components_(self) -> Any:
        """The random matrix of `n_components_` rows, made anew whenever it is read."""
        if "seed_" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute 'components_' before `fit`"
            )
        return self._components().astype(self._dtype, copy=False)

    def _components(self) -> Any:
        rows, columns = slice(0, self.n_components_), slice(0, self.n_features_in_)
        return block(**self._law(), rows=rows, cols=columns, n_components=self.n_components_)

    def _pseudo_inverse(self) -> NDArray[Any]:
        matrix = self._components()
        if scipy.sparse.issparse(matrix):
            matrix = matrix.toarray()
        inverse = scipy.linalg.pinv(matrix, check_finite=False)
        return np.asarray(inverse.astype(self._dtype, copy=False))

    def transform(self, X: Any) -> Any:
        """Project the data.

        Parameters
        ----------
        X : {ndarray, sparse matrix} of shape (n_samples, n_features)
            float32 stays float32; other dtypes become float64.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=_SPARSE, dtype=_FLOATS, reset=False)
        return self._project(X)

    def _project(self, X: Any) -> Any:
        return project(X, self.n_components_, **self._law())

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Map components back by the pseudo-inverse of the matrix, so that `transform` gives `X`.

        The pseudo-inverse, computed in float64, is dense: n_features * n_components numbers, made
        in `fit` if `compute_inverse_components` is True and in every call otherwise.
        `slipstick.projection.back_project` multiplies by the transpose instead, without memory.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_components)
            Data to be transformed back.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = check_array(X, dtype=_FLOATS, accept_sparse=_SPARSE)
        stored = self.compute_inverse_components
        inverse = self.inverse_components_ if stored else self._pseudo_inverse()
        return np.asarray(X @ inverse.T)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        return tags
