"""The estimators: a kind of matrix each."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import scipy.sparse
from sklearn.utils._param_validation import Interval, StrOptions

from slipstick.projection._law import law_of
from slipstick.sklearn._base import RandomProjection
from slipstick.sklearn._matrices import check_density, in_configured_interface, sparse_block


class GaussianRandomProjection(RandomProjection):
    """Project by a matrix of independent N(0, 1 / n_components).

    In place of the class of that name in ``sklearn.random_projection``.

    Parameters
    ----------
    n_components : int or "auto"
        The number of components k; "auto" takes `johnson_lindenstrauss_min_dim` of the number of
        samples and `eps`.
    eps : float
        The distortion of squared distances that "auto" allows.
    compute_inverse_components : bool
        Whether `fit` computes the dense pseudo-inverse that `inverse_transform` needs.
    random_state : int, RandomState instance or None
        An int, up to 2**64 - 1, is the seed of the matrix; anything else draws 64 bits in `fit`.

    Attributes
    ----------
    n_components_ : int
    seed_ : int
        With `n_components_` it names the matrix, as in `slipstick.projection.project`.
    components_ : ndarray of shape (n_components, n_features)
        The matrix, made anew whenever it is read.
    inverse_components_ : ndarray of shape (n_features, n_components)
        If `compute_inverse_components` is True.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Where the columns of the data have names.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.sklearn import GaussianRandomProjection
    >>> X = np.random.default_rng(0).random((25, 3000), np.float32)
    >>> GaussianRandomProjection(random_state=0).fit_transform(X).shape
    (25, 2759)
    """

    _kind = "gaussian"


class RademacherRandomProjection(RandomProjection):
    """Project by a matrix of random signs, divided by the square root of n_components.

    Squared norms vary less than with Gaussian entries, and the signs cost a twentieth of the time.

    Parameters
    ----------
    n_components : int or "auto"
        The number of components k; "auto" takes `johnson_lindenstrauss_min_dim` of the number of
        samples and `eps`.
    eps : float
        The distortion of squared distances that "auto" allows.
    compute_inverse_components : bool
        Whether `fit` computes the dense pseudo-inverse that `inverse_transform` needs.
    random_state : int, RandomState instance or None
        An int, up to 2**64 - 1, is the seed of the matrix; anything else draws 64 bits in `fit`.

    Attributes
    ----------
    n_components_ : int
    seed_ : int
        With `n_components_` it names the matrix, as in `slipstick.projection.project`.
    components_ : ndarray of shape (n_components, n_features)
        The matrix, made anew whenever it is read.
    inverse_components_ : ndarray of shape (n_features, n_components)
        If `compute_inverse_components` is True.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Where the columns of the data have names.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.sklearn import RademacherRandomProjection
    >>> X = np.random.default_rng(0).random((25, 3000), np.float32)
    >>> RademacherRandomProjection(random_state=0).fit_transform(X).shape
    (25, 2759)
    """

    _kind = "rademacher"


class HadamardRandomProjection(RandomProjection):
    """Project by a subsampled randomized Hadamard transform, in blocks of 4096 features.

    The fastest on dense data: its time hardly depends on n_components. Where n_features is near
    n_components or below, the matrix loses rank; `RademacherRandomProjection` does not.

    Parameters
    ----------
    n_components : int or "auto"
        The number of components k; "auto" takes `johnson_lindenstrauss_min_dim` of the number of
        samples and `eps`.
    eps : float
        The distortion of squared distances that "auto" allows.
    compute_inverse_components : bool
        Whether `fit` computes the dense pseudo-inverse that `inverse_transform` needs.
    random_state : int, RandomState instance or None
        An int, up to 2**64 - 1, is the seed of the matrix; anything else draws 64 bits in `fit`.

    Attributes
    ----------
    n_components_ : int
    seed_ : int
        With `n_components_` it names the matrix, as in `slipstick.projection.project`.
    components_ : ndarray of shape (n_components, n_features)
        The matrix, made anew whenever it is read.
    inverse_components_ : ndarray of shape (n_features, n_components)
        If `compute_inverse_components` is True.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Where the columns of the data have names.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.sklearn import HadamardRandomProjection
    >>> X = np.random.default_rng(0).random((25, 3000), np.float32)
    >>> HadamardRandomProjection(random_state=0).fit_transform(X).shape
    (25, 2759)
    """

    _kind = "srht"


class SparseRandomProjection(RandomProjection):
    """Project by a matrix with entries 0 and +-1 / sqrt(density n_components).

    In place of the class of that name in ``sklearn.random_projection``.

    Parameters
    ----------
    n_components : int or "auto"
        The number of components k; "auto" takes `johnson_lindenstrauss_min_dim` of the number of
        samples and `eps`.
    density : float or "auto"
        The probability that an entry is not 0; "auto" is ``1 / sqrt(n_features)``.
    eps : float
        The distortion of squared distances that "auto" allows.
    dense_output : bool
        Whether the projection of sparse data is dense. It is made dense in either case.
    compute_inverse_components : bool
        Whether `fit` computes the dense pseudo-inverse that `inverse_transform` needs.
    random_state : int, RandomState instance or None
        An int, up to 2**64 - 1, is the seed of the matrix; anything else draws 64 bits in `fit`.

    Attributes
    ----------
    n_components_ : int
    seed_ : int
        With `n_components_` it names the matrix, as in `slipstick.projection.project`.
    density_ : float
    components_ : sparse matrix or array of shape (n_components, n_features), CSR
        The matrix, made anew whenever it is read.
    inverse_components_ : ndarray of shape (n_features, n_components)
        If `compute_inverse_components` is True.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Where the columns of the data have names.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.sklearn import SparseRandomProjection
    >>> X = np.random.default_rng(0).random((25, 3000), np.float32)
    >>> SparseRandomProjection(random_state=0).fit_transform(X).shape
    (25, 2759)
    """

    _kind = "sparse"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **RandomProjection._parameter_constraints,
        "density": [Interval(Real, 0.0, 1.0, closed="right"), StrOptions({"auto"})],
        "dense_output": ["boolean"],
    }

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        density: float | str = "auto",
        eps: float = 0.1,
        dense_output: bool = False,
        compute_inverse_components: bool = False,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            n_components=n_components,
            eps=eps,
            compute_inverse_components=compute_inverse_components,
            random_state=random_state,
        )
        self.density = density
        self.dense_output = dense_output

    def _settle_density(self, n_features: int) -> None:
        self.density_ = check_density(self.density, n_features)
        law_of("SparseRandomProjection.fit", "sparse", 0, None, self.density_, None)

    def _law(self) -> dict[str, Any]:
        return super()._law() | {"density": float(self.density_)}

    def _components(self) -> Any:
        if self.density_ == 1:
            return super()._components()
        shape = (self.n_components_, self.n_features_in_)
        return in_configured_interface(sparse_block(shape=shape, **self._law()))

    def _project(self, X: Any) -> Any:
        projected = super()._project(X)
        if scipy.sparse.issparse(X) and not self.dense_output:
            return in_configured_interface(projected)
        return projected


class SJLTRandomProjection(RandomProjection):
    """Project by a matrix with `n_nonzeros` random signs in each column, suitably scaled.

    Fast on sparse data, and on dense data of many components.

    Parameters
    ----------
    n_components : int or "auto"
        The number of components k; "auto" takes `johnson_lindenstrauss_min_dim` of the number of
        samples and `eps`.
    n_nonzeros : int or "auto"
        From 1 (a CountSketch) to n_components; "auto" is 8, or n_components where that is smaller.
    eps : float
        The distortion of squared distances that "auto" allows.
    compute_inverse_components : bool
        Whether `fit` computes the dense pseudo-inverse that `inverse_transform` needs.
    random_state : int, RandomState instance or None
        An int, up to 2**64 - 1, is the seed of the matrix; anything else draws 64 bits in `fit`.

    Attributes
    ----------
    n_components_ : int
    seed_ : int
        With `n_components_` it names the matrix, as in `slipstick.projection.project`.
    components_ : sparse matrix or array of shape (n_components, n_features), CSR
        The matrix, made anew whenever it is read.
    inverse_components_ : ndarray of shape (n_features, n_components)
        If `compute_inverse_components` is True.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Where the columns of the data have names.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.sklearn import SJLTRandomProjection
    >>> X = np.random.default_rng(0).random((25, 3000), np.float32)
    >>> SJLTRandomProjection(random_state=0).fit_transform(X).shape
    (25, 2759)
    """

    _kind = "sjlt"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **RandomProjection._parameter_constraints,
        "n_nonzeros": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        n_nonzeros: int | str = "auto",
        eps: float = 0.1,
        compute_inverse_components: bool = False,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            n_components=n_components,
            eps=eps,
            compute_inverse_components=compute_inverse_components,
            random_state=random_state,
        )
        self.n_nonzeros = n_nonzeros

    def _settle_density(self, n_features: int) -> None:
        limit = self.n_components_
        if not isinstance(self.n_nonzeros, str) and self.n_nonzeros > limit:
            raise ValueError(
                f"n_nonzeros must be at most n_components={limit}, got {self.n_nonzeros}"
            )
        chosen = None if isinstance(self.n_nonzeros, str) else int(self.n_nonzeros) / limit
        self._density = chosen

    def _law(self) -> dict[str, Any]:
        return super()._law() | {"density": self._density}

    def _components(self) -> Any:
        shape = (self.n_components_, self.n_features_in_)
        return in_configured_interface(sparse_block(shape=shape, **self._law()))
