"""The transforms of the projection family, as explicit matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._philox import philox4x32

Array = NDArray[Any]

_ROTATE_TAG = 0x524F5400
_INPUT_SIGN_TAG = 0x53524400
_ROW_TAG = 0x53525200
_OUTPUT_SIGN_TAG = 0x53524F00
SRHT_BLOCK = 4096


def hadamard_matrix(n: int) -> NDArray[np.float64]:
    """Return Sylvester's matrix of n = 2^p rows: the p-fold Kronecker product of [[1, 1], [1, -1]].

    >>> hadamard_matrix(4)[3].tolist()
    [1.0, -1.0, -1.0, 1.0]
    """
    matrix: NDArray[np.float64] = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.kron([[1.0, 1.0], [1.0, -1.0]], matrix).astype(np.float64)
    return matrix


def hadamard(x: ArrayLike, *, axis: int = -1) -> NDArray[np.float64]:
    """Multiply an axis by the orthonormal Sylvester matrix.

    >>> hadamard([4.0, 2.0, 0.0, 0.0]).tolist()
    [3.0, 1.0, 3.0, 1.0]
    """
    moved = np.moveaxis(np.asarray(x).astype(np.float64), axis, -1)
    n = moved.shape[-1]
    return np.moveaxis(moved @ hadamard_matrix(n) / math.sqrt(n), -1, axis)


def mixing_matrix(order: int) -> NDArray[np.float64]:
    """Return a Hadamard matrix of order 12, 20 or 28 by Paley's constructions (1933).

    With Q[i, j] = character of (i - j) modulo a prime: 1 for squares, -1 for the others, 0 at 0.
    Orders 12 and 20, primes 11 and 19: I + [[0, 1], [-1, Q]], with ones in the border. Order 28,
    prime 13: every entry s of C = [[0, 1], [1, Q]] becomes s [[1, 1], [1, -1]], and each 0 of its
    diagonal [[1, -1], [-1, -1]].

    >>> h = mixing_matrix(12)
    >>> bool((h @ h.T == 12 * np.eye(12)).all())
    True
    """
    prime = 13 if order == 28 else order - 1
    squares = {root * root % prime for root in range(1, prime)}
    character = np.array([0.0] + [1.0 if v in squares else -1.0 for v in range(1, prime)])
    residue = np.arange(prime)
    bordered = np.ones((prime + 1, prime + 1))
    bordered[0, 0] = 0
    bordered[1:, 1:] = character[(residue[:, np.newaxis] - residue) % prime]
    if order == 28:
        twice = np.kron(bordered, [[1.0, 1.0], [1.0, -1.0]])
        return np.asarray(twice + np.kron(np.eye(prime + 1), [[1.0, -1.0], [-1.0, -1.0]]))
    bordered[1:, 0] = -1
    return np.asarray(np.eye(order) + bordered)


def rotation_matrix(d: int, seed: int = 0, rounds: int = 3) -> NDArray[np.float64]:
    """Return the matrix of `rotate` on d features: the product of H D over the rounds.

    >>> r = rotation_matrix(6, seed=7)
    >>> bool(np.allclose(r @ r.T, np.eye(6)))
    True
    """
    h = _round_matrix(d)
    result = np.eye(d)
    for round_number in range(rounds):
        j = np.arange(d, dtype=np.uint64)
        signs = 1.0 - 2.0 * _column_bits(_ROTATE_TAG, seed, round_number, j)
        result = h @ (signs[:, np.newaxis] * result)
    return result


def rotate(
    x: ArrayLike, *, seed: int = 0, rounds: int = 3, inverse: bool = False
) -> NDArray[np.float64]:
    """Multiply the last axis by `rotation_matrix`, or by its transpose.

    >>> x = np.arange(6.0)
    >>> bool(np.allclose(rotate(rotate(x), inverse=True), x))
    True
    """
    vectors = np.asarray(x).astype(np.float64)
    matrix = rotation_matrix(vectors.shape[-1], seed, rounds)
    return np.asarray(vectors @ (matrix if inverse else matrix.T))


def _round_matrix(d: int) -> Array:
    """H of one round: orthogonal, of any order."""
    power = d & -d
    odd = d // power
    if odd == 1:
        return hadamard_matrix(d) / math.sqrt(d)
    if odd <= 7 and power >= 4:
        return np.kron(mixing_matrix(4 * odd), hadamard_matrix(power // 4)) / math.sqrt(d)
    m = 1 << (d.bit_length() - 1)
    first, last = np.eye(d), np.eye(d)
    first[:m, :m] = hadamard_matrix(m) / math.sqrt(m)
    last[d - m :, d - m :] = first[:m, :m]
    return last @ first


def _column_bits(tag: int, seed: int, number: int, j: Array) -> Array:
    """Bit j & 127 of the block at counter (number, lo(j >> 7), hi(j >> 7), tag)."""
    high = j >> np.uint64(7)
    counter = np.zeros((len(j), 4), np.uint64)
    counter[:, 0] = number
    counter[:, 1] = high & np.uint64(0xFFFFFFFF)
    counter[:, 2] = high >> np.uint64(32)
    counter[:, 3] = tag
    return _bit(philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32]), j)


def _bit(words: Array, n: Array) -> Array:
    """Bit n & 127 of each block of four words."""
    which = (n >> np.uint64(5) & np.uint64(3)).astype(np.intp)
    word = np.take_along_axis(words, which[..., np.newaxis], -1)[..., 0]
    return (word >> (n & np.uint64(31)).astype(np.uint32)) & 1


def _parity(n: Array) -> Array:
    """Return popcount(n) & 1 for n below 2^16."""
    for shift in (8, 4, 2, 1):
        n = n ^ (n >> np.uint64(shift))
    return (n & np.uint64(1)).astype(np.uint32)


def srht_rows(seed: int, group: int, count: int = SRHT_BLOCK) -> NDArray[np.int64]:
    """Return the first rows of a group's order of 0..4095: Fisher and Yates from the front.

    Step t exchanges positions t and t + ((u (4096 - t)) >> 32), with u word t & 3 of the block at
    counter (t >> 2, group, 0, tag).

    >>> srht_rows(7, 0, 8).tolist()
    [2093, 848, 3455, 2448, 3072, 739, 4052, 2507]
    """
    t = np.arange(SRHT_BLOCK // 4, dtype=np.uint64)
    counter = np.stack(np.broadcast_arrays(t, np.uint64(group), 0, _ROW_TAG), -1)
    words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32]).ravel()
    order = list(range(SRHT_BLOCK))
    for step in range(count):
        other = step + (int(words[step]) * (SRHT_BLOCK - step) >> 32)
        order[step], order[other] = order[other], order[step]
    return np.array(order[:count])


def srht_block(seed: int, i: Array, j: Array) -> NDArray[np.float64]:
    """Return the entries +1 and -1 of the block-SRHT for components i and features j (uint64).

    D~[i, B] (-1)^popcount(r_i & (j mod 4096)) D[g, j], with block B = j div 4096, group g = i div
    4096.
    """
    entries = np.empty((len(i), len(j)))
    b = np.uint64(SRHT_BLOCK)
    for group in np.unique(i // b):
        rows = np.nonzero(i // b == group)[0]
        r = srht_rows(seed, int(group))[(i[rows] % b).astype(np.intp)].astype(np.uint64)
        bits = _parity(r[:, np.newaxis] & (j % b)) ^ _column_bits(
            _INPUT_SIGN_TAG, seed, int(group), j
        )
        for block in np.unique(j // b):
            columns = np.nonzero(j // b == block)[0]
            counter = np.zeros((len(rows), 4), np.uint64)
            counter[:, 0] = i[rows] >> np.uint64(7)
            counter[:, 1] = block & np.uint64(0xFFFFFFFF)
            counter[:, 2] = block >> np.uint64(32)
            counter[:, 3] = _OUTPUT_SIGN_TAG
            out = _bit(philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32]), i[rows])
            entries[np.ix_(rows, columns)] = 1.0 - 2.0 * (bits[:, columns] ^ out[:, np.newaxis])
    return entries
