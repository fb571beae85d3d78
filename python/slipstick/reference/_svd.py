"""The randomized SVD, and the pairs that distortion draws, by their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._philox import philox4x32
from slipstick.reference._projection import block

Array = NDArray[Any]


def randomized_svd(
    x: ArrayLike,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int = 7,
    center: bool = False,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    """Return U, S and Vt of the best approximation of x (m, n) within a block Krylov space.

    With Omega (n, k + p) the transposed Gaussian matrix of the seed, d = 2 n_iter + 1, and t the
    smaller of d and ceil(sqrt(3 d)): if t is odd, x is projected onto the range of
    ``[x Omega, (x x^T) x Omega, ..., (x x^T)^((t - 1) / 2) x Omega]``; if t is even, its rows onto
    that of ``[x^T x Omega, ..., (x^T x)^(t / 2) Omega]``. Signs as in scikit-learn.

    >>> x = np.diag([5.0, 4.0, 3.0, 2.0, 1.0])
    >>> randomized_svd(x, 2, n_oversamples=1)[1].round(6).tolist()
    [5.0, 4.0]
    """
    a = np.asarray(x).astype(np.float64)
    if center:
        a = a - a.mean(axis=0)
    width = min(n_components + n_oversamples, *a.shape)
    omega = block("gaussian", seed, slice(0, width), slice(0, a.shape[1])).T
    degree = min(2 * n_iter + 1, math.ceil(math.sqrt(3 * (2 * n_iter + 1))))
    first = a @ omega
    b = a if degree % 2 else a.T
    current = first if degree % 2 else a.T @ first
    basis = np.linalg.qr(current)[0]
    newest = basis
    while degree > 2:
        # Orthonormal at every step: powers themselves would all point to the largest values.
        newest = b @ (b.T @ newest)
        basis = np.linalg.qr(np.concatenate([basis, newest], axis=1))[0][:, : min(a.shape)]
        newest = basis[:, -width:]
        degree -= 2
    small_u, s, vt = np.linalg.svd(basis.T @ b, full_matrices=False)
    u = basis @ small_u
    if degree == 2:
        u, vt = vt.T, u.T
    u, s, vt = u[:, :n_components], s[:n_components], vt[:n_components]
    signs = np.sign(u[np.argmax(np.abs(u), axis=0), np.arange(n_components)])
    return u * signs, s, vt * signs[:, np.newaxis]


def pairs(seed: int, count: int, n: int) -> list[tuple[int, int]]:
    """Return the pairs of points 0, ..., count - 1 that distortion compares, of n points.

    >>> pairs(7, 3, 10)
    [(5, 6), (3, 1), (6, 1)]
    """
    result = []
    for number in range(count):
        counter = [number & 0xFFFFFFFF, number >> 32, 0, 0x50414900]
        words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32])
        one = int(words[0]) * n >> 32
        two = int(words[1]) * (n - 1) >> 32
        result.append((one, two + (two >= one)))
    return result
