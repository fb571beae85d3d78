"""Locality-sensitive hashing by its definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._philox import philox4x32
from slipstick.reference._projection import block

_CROSS_POLYTOPE_TAG = 0x58504C00


def simhash(x: ArrayLike, n_bits: int, seed: int) -> NDArray[np.uint8]:
    """Return packed codes (..., bytes) of x (..., features): bit i is 1 iff (A x)_i >= 0.

    A is the Gaussian law; bit i is bit i & 7 of byte i >> 3.

    >>> simhash([[1.0, 0.0], [-1.0, 0.0]], 4, 7).tolist()
    [[0], [15]]
    """
    rows = np.asarray(x).astype(np.float64)
    entries = block("gaussian", seed, slice(0, n_bits), slice(0, rows.shape[-1]))
    return np.packbits(rows @ entries.T >= 0, axis=-1, bitorder="little")


def hamming_distance(a: ArrayLike, b: ArrayLike) -> NDArray[np.int32]:
    """Return in how many bits uint8 codes (..., bytes) differ; leading axes broadcast.

    >>> int(hamming_distance(np.uint8([3, 255]), np.uint8([0, 0])))
    10
    """
    bits = np.unpackbits(np.bitwise_xor(a, b), axis=-1)
    return np.asarray(bits.sum(axis=-1, dtype=np.int32))


def hamming_topk(queries: ArrayLike, codes: ArrayLike, k: int) -> tuple[Any, Any]:
    """Return distances and indices of the k smallest (distance, index) of each query.

    >>> hamming_topk(np.uint8([[0]]), np.uint8([[3], [1], [2]]), 2)[1].tolist()
    [[1, 2]]
    """
    distances = np.stack(
        [hamming_distance(query, codes) for query in np.asarray(queries)]  # one row at a time
    )
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices


def cross_polytope(x: ArrayLike, n_hashes: int, seed: int) -> tuple[Any, Any]:
    """Return the vertices (..., n_hashes) and the rotated vectors (..., n_hashes, m).

    Hash h rotates x, padded with zeros to the power of two m, by H D2 H D1 H D0; the sign of
    feature j in round r is bit j & 127 of Philox at (3 h + r, j >> 7, 0, tag). Vertex 2 i is +e_i,
    2 i + 1 is -e_i, the nearest, of equals the least.

    >>> cross_polytope([0.0, 0.0, 0.0], 2, 7)[0].tolist()
    [0, 0]
    """
    rows = np.asarray(x).astype(np.float64)
    order = int(np.ceil(np.log2(rows.shape[-1])))
    matrix = np.ones((1, 1))
    for _ in range(order):
        matrix = np.kron(matrix, [[1, 1], [1, -1]]) / np.sqrt(2)
    m = 1 << order
    padded = np.zeros((*rows.shape[:-1], m))
    padded[..., : rows.shape[-1]] = rows
    j = np.arange(m)
    rotated = []
    for h in range(n_hashes):
        vector = padded
        for r in range(3):
            counter = np.zeros((m, 4), np.uint64)
            counter[:, 0], counter[:, 1], counter[:, 3] = 3 * h + r, j >> 7, _CROSS_POLYTOPE_TAG
            words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32])
            bits = words[j, j >> 5 & 3] >> (j & 31).astype(np.uint32) & 1
            vector = (vector * (1.0 - 2.0 * bits)) @ matrix
        rotated.append(vector)
    result = np.stack(rotated, axis=-2)
    reach = np.stack([result, -result], axis=-1).reshape(*result.shape[:-1], 2 * m)
    return reach.argmax(axis=-1), result
