"""A randomized SVD that reads its matrix once, a few rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick.projection._arguments import integer
from slipstick.projection._krylov import NotFiniteError, near_one, orthonormal, signs_of
from slipstick.projection._matrices import of_array
from slipstick.projection._products import inner
from slipstick.projection._svd import Plan, as_matrix, check_matrix, normal_entries, plan_of

Array = NDArray[Any]

# Directions of the sketch below this part of the largest drown in what float64 sums lose.
_RANK = 1.5e-8  # the square root of its precision
_ENDLESS = 1 << 62
_NO_EXPONENT = -10_000  # of zeros: below that of every float64


class StreamingSVD:
    """Randomized SVD of a matrix that arrives in chunks of rows, each seen once and not kept.

    Parameters
    ----------
    n_components : int
        The number of singular values k.
    n_oversamples : int, optional
        How many columns more than k the sketch has; k, but at least 10, if None.
    center : bool
        Whether to subtract the mean of each column.
    seed : int
        From 0 to 2**64 - 1. It names the sketch, that of `randomized_svd`.

    Attributes
    ----------
    n_samples_seen_ : int
    n_features_in_ : int

    Notes
    -----
    With the sketch ``Y = A Omega`` and ``H = A^T Y``, both sums over the rows of A, an orthonormal
    basis ``Q = Y R^-1`` has ``Q^T A = R^-T H^T``: one pass gives what `randomized_svd` needs two
    for with n_iter=0, and its error. Products with chunks are float64, since R^-T amplifies what
    they lose; memory is (n_samples + 2 n_features) times the sketch's width, in float64.
    Source: W. Yu et al., "Single-pass PCA of large high-dimensional data", 2017, after N. Halko,
    P. Martinsson, J. Tropp, "Finding structure with randomness", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.outer(np.arange(1000.0), np.ones(80)) + np.eye(1000, 80)
    >>> svd = slipstick.projection.StreamingSVD(1)
    >>> for first in range(0, 1000, 100):
    ...     svd = svd.partial_fit(x[first : first + 100])
    >>> u, s, vt = svd.result()
    >>> s.round(1)
    array([163176.9])
    """

    def __init__(
        self,
        n_components: int,
        *,
        n_oversamples: int | None = None,
        center: bool = False,
        seed: int = 0,
    ) -> None:
        self.n_components = n_components
        self.n_oversamples = n_oversamples
        self.center = center
        self.seed = seed
        self.n_samples_seen_ = 0
        self.n_features_in_ = 0
        self._omega: Array = np.empty((0, 0))
        self._image: Array = self._omega  # A^T Y, times 2**-exponent
        self._exponent = _NO_EXPONENT
        self._total: Array = self._omega
        # The means of the first chunk, from which all rows are measured: sums of squares of what is
        # far from 0 would leave no digits for its spread.
        self._shift: Array | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._sketches: list[Array] = []
        # Sizes that no chunk exceeds: the arguments are checked before the first one comes.
        self._plan(_ENDLESS, _ENDLESS)

    def _plan(self, n_samples: int, n_features: int) -> Plan:
        extra = self.n_oversamples
        if extra is None:
            extra = max(10, integer("StreamingSVD", "n_components", self.n_components, 1, 63))
        shape = (n_samples, n_features)
        return plan_of("StreamingSVD", shape, self.n_components, extra, 0, self.center, self.seed)

    def partial_fit(self, x: Any) -> StreamingSVD:
        """Take in more rows.

        Parameters
        ----------
        x : array of shape (rows, n_features), or sparse matrix or array of SciPy
            As for `randomized_svd`; every chunk as wide as the first.

        Returns
        -------
        StreamingSVD
            Itself.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, infinities and NaNs; nothing is taken in then.
        """
        function = "StreamingSVD.partial_fit"
        array = as_matrix(function, x)
        dtype = check_matrix(function, array.shape, array.dtype)
        rows, features = int(array.shape[0]), int(array.shape[1])
        started = self.n_samples_seen_ > 0
        if started and features != self.n_features_in_:
            raise ValueError(
                f"{function}: `x` must have {self.n_features_in_} columns like the rows before, "
                f"got shape {tuple(array.shape)}"
            )
        omega = (
            self._omega
            if started
            else normal_entries(
                self.seed, self._plan(_ENDLESS, features).width, features, np.dtype(np.float64)
            )
        )
        chunk = of_array(array, np.dtype(np.float64), self.center and not started)
        if started:
            chunk.means = self._shift
        shift = chunk.means
        with np.errstate(over="ignore", invalid="ignore"):
            sketch = chunk.times(omega)
            total = chunk.transposed_times(np.ones((rows, 1)))[:, 0]
            try:
                near, exponent = near_one(sketch)
                image = chunk.transposed_times(near)
                finite = np.isfinite(image).all()
            except NotFiniteError:
                finite = np.False_
        if not finite:
            raise ValueError(
                f"{function}: `x` must be finite and its products too, got infinities or NaNs"
            )
        if not near.any():
            exponent = _NO_EXPONENT
        if exponent < self._exponent:
            image = np.ldexp(image, exponent - self._exponent)
        elif exponent > self._exponent:
            self._image = np.ldexp(self._image, self._exponent - exponent)
            self._exponent = exponent
        if started:
            self._image = self._image + image
            self._total = self._total + total
            self._dtype = np.promote_types(self._dtype, dtype)
        else:
            self.n_features_in_, self._omega, self._shift = features, omega, shift
            self._image, self._total, self._dtype = image, total, dtype
        self._sketches.append(sketch)
        self.n_samples_seen_ += rows
        return self

    def result(self) -> tuple[Array, Array, Array]:
        """Return (U, S, Vt) of the rows so far, as `randomized_svd` does.

        Raises
        ------
        ValueError
            Before the first rows, and while they are fewer than `n_components`.
        """
        n = self.n_samples_seen_
        if n == 0:
            raise ValueError("StreamingSVD.result: `partial_fit` must come first, got no rows")
        plan = self._plan(n, self.n_features_in_)
        # The sketch's first columns are those of a narrower one.
        sketch = np.ldexp(np.concatenate(self._sketches)[:, : plan.width], -self._exponent)
        image = self._image[:, : plan.width]
        if plan.center:
            means = self._total / n
            shift = np.ldexp(means @ self._omega[:, : plan.width], -self._exponent)
            sketch = sketch - shift
            image = image - n * np.outer(means, shift)
        try:
            q = orthonormal(sketch, [])
        except NotFiniteError:
            raise ValueError(
                "StreamingSVD.result: the rows must be smaller, got an overflow"
            ) from None
        # image = B^T R with R = Q^T Y; a direction that the sketch lacks says nothing about B.
        root = inner(q, sketch)
        rows = np.linalg.pinv(root.T, rcond=_RANK) @ image.T
        small_u, s, vt = np.linalg.svd(rows, full_matrices=False)
        u = q @ small_u[:, : plan.n_components]
        signs = signs_of(u)
        vt = vt[: plan.n_components] * signs[:, np.newaxis]
        dtype = self._dtype
        if s[0] > np.finfo(dtype).max:
            raise ValueError(
                f"StreamingSVD.result: the rows must have singular values within {dtype}, got "
                f"{s[0]:.3g}"
            )
        return (
            (u * signs).astype(dtype, copy=False),
            s[: plan.n_components].astype(dtype, copy=False),
            vt.astype(dtype, copy=False),
        )
