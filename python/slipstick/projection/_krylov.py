"""Orthonormal bases of tall blocks, and the singular vectors that a block Krylov space holds.

Everything here works alike on NumPy's arrays, on Dask's whose rows are chunked, and on blocks on a
device: products with small matrices stay there, inner products of two tall blocks are small and are
NumPy's.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slipstick.projection._products import Tall, inner, times

Array = NDArray[Any]


class NotFiniteError(ArithmeticError):
    """A product with the matrix has infinities or NaNs."""


class Matrix(Protocol):
    """What is to be factorised, seen through its products."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def times(self, right: Array) -> Tall:
        """Return the product with (columns, width)."""

    def transposed_times(self, left: Tall) -> Tall:
        """Return the transpose's product with (rows, width)."""

    def settle(self, left: Tall) -> Tall:
        """Return (rows, width) computed, where it is a promise so far."""


def passes_for(n_iter: int) -> int:
    """Return how often the matrix is read to be as accurate as after `n_iter` power iterations.

    Power iterations end with the monomial of degree ``2 n_iter + 1`` of the matrix, applied to the
    sketch; a Krylov space holds every polynomial up to its degree d, and the best of them, that of
    Chebyshev, grows as d**2 where the monomial grows as its degree (Musco and Musco 2015). A third
    of d**2 is asked for, so that gaps which are not small are served too.
    """
    degree = 2 * n_iter + 1
    return 1 + min(degree, math.ceil(math.sqrt(3 * degree)))


def orthonormal(block: Tall, bases: list[Tall]) -> Tall:
    """Return an orthonormal basis of `block` without its part in the orthonormal `bases`.

    Gram-Schmidt twice with CholeskyQR2, the first Gram matrix in float64; Householder where that
    fails. Columns that depend on others, or on the bases, become directions of rounding errors.
    """
    if isinstance(block, np.ndarray) or hasattr(block, "ldexp"):  # not what is a promise so far
        block = near_one(block)[0]
    for first in (True, False):
        for basis in bases:
            block = block - times(basis, inner(basis, block))
        widened = block.astype(np.float64, copy=False) if first else block
        gram = inner(widened, widened)
        inverse = None
        if first or np.abs(gram - np.eye(len(gram), dtype=gram.dtype)).max() < 0.5:
            inverse = _inverse_root(gram)
        if inverse is None:
            together = np.concatenate([*bases, block], axis=1)
            if hasattr(together, "rechunk"):  # Dask's QR wants all columns in one chunk
                together = together.rechunk({1: -1})
            reflected = np.linalg.qr(together)[0]  # orthonormal whatever the rank is
            return reflected[:, -block.shape[1] :]
        block = times(block, inverse)
    return block


def near_one(block: Tall) -> tuple[Tall, int]:
    """Return the block times 2**-exponent, and that: 0 unless squares might leave the range."""
    largest = max(float(block.max(axis=0).max()), -float(block.min(axis=0).min()))
    if not math.isfinite(largest):
        raise NotFiniteError
    exponent = math.frexp(largest)[1]
    if abs(exponent) <= 60:
        return block, 0
    is_array = isinstance(block, np.ndarray)
    return (np.ldexp(block, -exponent) if is_array else block.ldexp(-exponent)), exponent


def _inverse_root(gram: Array) -> Array | None:
    """Return the upper triangular T for which ``T.T @ gram @ T`` is the identity."""
    sizes = np.sqrt(np.diagonal(gram).astype(np.float64))
    if not np.isfinite(sizes).all():
        raise NotFiniteError
    if not np.all(sizes > 0):
        return None
    try:
        lower = np.linalg.cholesky(gram / np.outer(sizes, sizes))
    except np.linalg.LinAlgError:
        return None
    # Beyond this the float64 Gram matrix is noise.
    if np.diagonal(lower).min() < 1e-6:
        return None
    return np.asarray(np.linalg.inv(lower).T / sizes[:, np.newaxis])


def krylov_svd(
    matrix: Matrix, sketch: Array, n_components: int, passes: int
) -> tuple[Tall, Array, Array]:
    """Return (U, S, Vt) of the best approximation within a block Krylov space.

    `sketch` (columns, width) starts the space; the matrix is read `passes` times, at least twice.
    """
    side = min(matrix.shape)
    left = [matrix.settle(orthonormal(matrix.times(sketch), []))]  # A Omega, A (A^T A) Omega, ...
    right: list[Array] = []  # A^T A Omega, (A^T A)^2 Omega, ...
    # A^T times the blocks of `left`, and A times those of `right`.
    from_left: list[Array] = []
    from_right: list[Tall] = []
    for number in range(2, passes + 1):
        if number % 2 == 0:
            image = matrix.transposed_times(left[-1])
            from_left.append(image)
            right.append(orthonormal(image[:, : side - _width(right)], right))
            whole = _width(left) == side
        else:
            image = matrix.times(right[-1])
            from_right.append(image)
            left.append(matrix.settle(orthonormal(image[:, : side - _width(left)], left)))
            whole = _width(right) == side
        if whole:
            break
    # A is close to Q C P^T, where Q and P are the blocks of `left` and `right` side by side.
    if number % 2 == 0:
        core = np.block([[inner(image, p) for p in right] for image in from_left])
    else:
        core = np.block([[inner(q, image) for image in from_right] for q in left])
    if not np.isfinite(core).all():  # LAPACK may search them for ever
        raise NotFiniteError
    small_u, s, small_vt = np.linalg.svd(core, full_matrices=False)
    u = matrix.settle(_combination(left, small_u[:, :n_components]))
    v = _combination(right, small_vt[:n_components].T)
    signs = signs_of(u)
    return u * signs, s[:n_components], (v * signs).T


def _width(bases: list[Tall]) -> int:
    return sum(int(basis.shape[1]) for basis in bases)


def _combination(bases: list[Tall], weights: Array) -> Tall:
    """Return the bases side by side times (their width, columns)."""
    total, row = 0, 0
    for basis in bases:
        width = basis.shape[1]
        total = total + times(basis, weights[row : row + width])
        row += width
    return total


def signs_of(u: Tall) -> Array:
    """Return what makes the entry of largest magnitude positive in each column."""
    largest, smallest = np.asarray(u.max(axis=0)), np.asarray(u.min(axis=0))
    return np.where(largest >= -smallest, 1, -1).astype(u.dtype)
