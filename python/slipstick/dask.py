"""Projection and randomized SVD of Dask arrays, chunked in both axes.

A task makes the part of the random matrix that it needs from a few integers: no matrix is sent
anywhere, and chunks, workers and scheduling do not change which matrix it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import dask.array
import numpy as np
from numpy.typing import NDArray

from slipstick import projection
from slipstick.projection._arguments import integer
from slipstick.projection._krylov import NotFiniteError
from slipstick.projection._law import components, law_of
from slipstick.projection._svd import check_matrix, plan_of

__all__ = ["project", "randomized_svd"]

Array = NDArray[Any]

_DTYPES = {
    *("float16", "bfloat16", "float32", "float64", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


class _Projection(NamedTuple):
    """What a task needs beside its chunk and the chunk's place."""

    n_components: int
    kind: str
    seed: int
    density: float | None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # The last number is the version of the laws: the last byte of their tags.
        return ("slipstick.projection", *self, 0)

    def __call__(self, chunk: Any, first: Array) -> Array:
        dtype = getattr(chunk, "dtype", None)
        if dtype is not None and dtype.itemsize == 2 and dtype.kind not in "iu":
            chunk = chunk.astype(np.float32)  # rounded once, after the sum of the chunks
        if isinstance(chunk, np.ndarray) and not chunk.flags.aligned:
            chunk = chunk.copy()  # as it came off the wire
        part = projection.project(
            chunk,
            self.n_components,
            kind=self.kind,
            seed=self.seed,
            density=self.density,
            first_feature=int(first[0]),
        )
        return np.asarray(part)[..., np.newaxis, :]


def project(
    x: Any,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> Any:
    """Project the last axis of a Dask array.

    Parameters
    ----------
    x : dask.array.Array of shape (..., n_features)
        Chunked in any way, of chunks that `slipstick.projection.project` takes; the sizes of the
        chunks of the last axis must be known.
    n_components, kind, seed, density, first_feature
        As for `slipstick.projection.project`.

    Returns
    -------
    dask.array.Array of shape (..., n_components)
        Not computed yet; chunked like `x` but for the last axis, which is one chunk.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    The projections of the chunks of the last axis are added in a fixed tree. Chunks of other axes,
    workers and scheduling change no bit; other chunks of the last axis change the rounding alone,
    and one chunk gives the bits of `slipstick.projection.project`.

    Examples
    --------
    >>> import dask.array
    >>> import numpy as np
    >>> import slipstick.dask
    >>> x = np.random.default_rng(0).standard_normal((100, 5000), np.float32)
    >>> chunked = dask.array.from_array(x, chunks=(30, 1024))
    >>> y = slipstick.dask.project(chunked, 64).compute()
    >>> bool(np.allclose(y, slipstick.projection.project(x, 64), atol=1e-4))
    True
    """
    _check_array("project", x, x.ndim - 1 if isinstance(x, dask.array.Array) else 0)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"project: `x` must have at least one feature, got shape {x.shape}")
    if x.dtype.name not in _DTYPES:
        raise TypeError(f"project: `x` must have a real numeric dtype, got {x.dtype}")
    x = _without_empty_chunks(x)
    n_components = components("project", kind, n_components)
    first_feature = integer("project", "first_feature", first_feature, 0, 64)
    if first_feature + x.shape[-1] > 1 << 64:
        raise ValueError(
            f"project: `first_feature` must be at most 2**64 - {x.shape[-1]} for `x` with "
            f"{x.shape[-1]} features, got {first_feature}"
        )
    width = x.shape[-1] if first_feature == 0 else None
    seed = law_of("project", kind, seed, n_components, density, width).seed
    if kind == "sparse" and density is None:
        density = 1 / math.sqrt(x.shape[-1])
    dtype = x.dtype if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else np.dtype(np.float64)
    rows = tuple(range(x.ndim - 1))
    partial = dask.array.blockwise(
        _Projection(n_components, kind, seed, density),
        (*rows, x.ndim - 1, x.ndim),
        x,
        (*rows, x.ndim - 1),
        _starts(x.chunks[-1], first_feature),
        (x.ndim - 1,),
        new_axes={x.ndim: n_components},
        adjust_chunks={x.ndim - 1: lambda _: 1},
        align_arrays=False,
        meta=np.empty((0,) * (x.ndim + 1), np.float32 if dtype.itemsize == 2 else dtype),
    )
    if x.numblocks[-1] == 1:
        return partial[..., 0, :].astype(dtype)
    return partial.sum(axis=-2).astype(dtype)


def _check_array(function: str, x: Any, axis: int) -> None:
    if not isinstance(x, dask.array.Array):
        raise TypeError(f"{function}: `x` must be a dask array, got {type(x).__name__}")
    if x.ndim and any(math.isnan(size) for size in x.chunks[axis]):
        raise ValueError(
            f"{function}: `x` must have chunks of known sizes, got unknown ones on axis {axis}"
        )


def _without_empty_chunks(x: Any) -> Any:
    """Return the array without chunks of no elements, but for axes that have none."""
    chunks = tuple(tuple(size for size in sizes if size != 0) or (0,) for sizes in x.chunks)
    if all(len(kept) == len(sizes) for kept, sizes in zip(chunks, x.chunks, strict=True)):
        return x
    unknown = any(math.isnan(size) for sizes in chunks for size in sizes)
    return x if unknown else x.rechunk(chunks)


def _starts(sizes: tuple[int, ...], first: int) -> Any:
    """Return the index of the first element of each chunk, one in a chunk."""
    starts = [first]
    for size in sizes[:-1]:
        starts.append(starts[-1] + size)
    return dask.array.from_array(np.array(starts, np.uint64), chunks=1)


def randomized_svd(
    x: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    center: bool = False,
    seed: int = 0,
) -> tuple[Any, Array, Array]:
    """Return the largest singular values of a Dask array with their vectors, by a random sketch.

    Parameters
    ----------
    x : dask.array.Array of shape (n_samples, n_features)
        Chunked in any way into parts of known sizes.
    n_components, n_oversamples, n_iter, center, seed
        As for `slipstick.projection.randomized_svd`.

    Returns
    -------
    U : dask.array.Array of shape (n_samples, n_components)
        In memory (of the workers), chunked like the rows of `x`.
    S : ndarray of shape (n_components,)
    Vt : ndarray of shape (n_components, n_features)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, infinities and NaNs.

    Notes
    -----
    Computes at once: `x` is read from its source for every pass, 8 at n_iter=7, and only blocks of
    n_components + n_oversamples columns are kept, those of length n_samples where the chunks are.
    The result is that of `slipstick.projection.randomized_svd` to rounding.

    Examples
    --------
    >>> import dask.array
    >>> import numpy as np
    >>> import slipstick.dask
    >>> x = np.outer(np.arange(1000.0), np.ones(80)) + np.eye(1000, 80)
    >>> u, s, vt = slipstick.dask.randomized_svd(dask.array.from_array(x, chunks=(300, 50)), 1)
    >>> s.round(1)
    array([163176.9])
    """
    function = "randomized_svd"
    for axis in range(getattr(x, "ndim", 1)):
        _check_array(function, x, axis)
    dtype = check_matrix(function, x.shape, x.dtype)
    x = _without_empty_chunks(x)
    plan = plan_of(function, x.shape, n_components, n_oversamples, n_iter, center, seed)
    u, s, vt = plan.factorise(function, _Chunked(x, dtype, plan.center))
    return u, s, vt


class _Chunked:
    """Products of a Dask array with tall blocks; those as long as its rows stay chunked."""

    def __init__(self, array: Any, dtype: np.dtype[Any], center: bool) -> None:
        self.shape: tuple[int, int] = array.shape
        self.dtype = dtype
        self._array = array
        self._means: Array | None = None
        if center:
            ones = dask.array.ones((self.shape[0], 1), chunks=(array.chunks[0], 1))
            total = self._sum_over(0, _transposed_product, np.dtype(np.float64), ones)
            self._means = np.asarray(total)[:, 0].astype(dtype) / dtype.type(self.shape[0])

    def times(self, right: Array) -> Any:
        """Return the product with (columns, width)."""
        # Tasks get slices of `right`, not the whole.
        chunked = dask.array.from_array(right, chunks=(self._array.chunks[1], -1))
        product = self._sum_over(1, _product, self.dtype, chunked)
        if self._means is not None:
            product = product - self._means @ right
        product = product.persist()
        if not bool(dask.array.isfinite(product).all()):
            raise NotFiniteError
        return product

    def transposed_times(self, left: Any) -> Array:
        """Return the transpose's product with (rows, width)."""
        product = np.asarray(self._sum_over(0, _transposed_product, self.dtype, left))
        if self._means is not None:
            product = product - np.outer(self._means, np.asarray(left.sum(axis=0)))
        return product

    def settle(self, left: Any) -> Any:
        """Return (rows, width) computed, where the chunks are."""
        return left.persist()

    def _sum_over(
        self, axis: int, function: Callable[..., Array], dtype: np.dtype[Any], tall: Any
    ) -> Any:
        """Return the sum over the chunks of `axis` of what a chunk and its part of `tall` give."""
        partial = dask.array.blockwise(
            function,
            (0, 1, 2),
            self._array,
            (0, 1),
            tall,
            (axis, 2),
            dtype=dtype,
            adjust_chunks={axis: lambda _: 1},
            align_arrays=False,
            meta=np.empty((0, 0, 0), dtype),
        )
        return partial.sum(axis=axis)


def _product(chunk: Any, right: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # refused where the sums have come together
        return np.asarray(chunk.astype(right.dtype, copy=False) @ right)[:, np.newaxis]


def _transposed_product(chunk: Any, left: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(chunk.astype(left.dtype, copy=False).T @ left)[np.newaxis]
