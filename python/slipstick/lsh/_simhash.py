"""Signs of a Gaussian projection: M. Charikar, STOC 2002."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slipstick._arrays import framework_of
from slipstick._numbers import given
from slipstick.projection._arguments import integer, numbers
from slipstick.projection._law import COMPONENT_BITS

__all__ = ["SimHash"]


class SimHash:
    """Binary codes whose bits differ with a probability proportional to the angle.

    Bit i is 1 iff ``(A x)_i >= 0`` for the matrix A of kind "gaussian" of `slipstick.projection` at
    the same seed. Vectors at the angle theta differ in a bit with probability theta / pi, exactly:
    the law of the rows is rotation-invariant. More bits append to a code and change none.

    Parameters
    ----------
    n_bits : int
        At least 1, at most 2**34.
    seed : int
        From 0 to 2**64 - 1.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick import lsh
    >>> hasher = lsh.SimHash(64, seed=7)
    >>> x = np.cos(np.arange(30.0).reshape(3, 10))
    >>> codes = hasher.hash(x)
    >>> codes.shape
    (3, 8)
    >>> lsh.hamming_distance(hasher.hash(-x), codes)
    array([64, 64, 64], dtype=int32)
    >>> hasher.collision_probability(np.pi / 4)
    0.75
    """

    def __init__(self, n_bits: int, seed: int = 0) -> None:
        self._n_bits = integer("SimHash", "n_bits", n_bits, 1, COMPONENT_BITS["gaussian"])
        self._seed = integer("SimHash", "seed", seed, 0, 64)

    @property
    def n_bits(self) -> int:
        """The number of bits of a code."""
        return self._n_bits

    @property
    def seed(self) -> int:
        """The seed of the matrix."""
        return self._seed

    @property
    def n_bytes(self) -> int:
        """The number of bytes of a code."""
        return -(-self._n_bits // 8)

    def hash(self, x: Any) -> Any:
        """Return the packed codes of vectors.

        Parameters
        ----------
        x : array of shape (..., n_features)
            Of any dtype and strides that `slipstick.projection.project` takes.

        Returns
        -------
        array of shape (..., n_bytes), uint8
            Bit i is bit ``i & 7`` of byte ``i >> 3``; bits past `n_bits` are 0. In the framework of
            `x`. The same for every thread count, instruction set, batch and CUDA device.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, and for a row whose projection is NaN: one with a NaN, or
            with infinities that cancel. (On a CUDA device, for which nothing waits, such a
            projection gives the bit 0.)
        """
        framework = framework_of("SimHash.hash", x)
        return framework.finish(
            framework.kernels.simhash(x, self._n_bits, self._seed, framework.empty)
        )

    def collision_probability(self, angle: ArrayLike) -> Any:
        """Return the probability that a bit is the same for two vectors at an angle.

        Parameters
        ----------
        angle : float or array of floats
            In radians, from 0 to pi.

        Returns
        -------
        float or ndarray
            ``1 - angle / pi``.

        Raises
        ------
        ValueError
            For angles outside [0, pi].
        """
        theta = numbers("SimHash.collision_probability", "angle", angle, "iuf", "a number").astype(
            float
        )
        inside = (theta >= 0) & (theta <= math.pi)
        if not np.all(inside):
            raise ValueError(
                "SimHash.collision_probability: `angle` must be between 0 and pi, got "
                f"{given(float(theta[~inside][0]))}"
            )
        probability = 1 - theta / math.pi
        return probability if probability.ndim else float(probability)

    def angle(self, distance: ArrayLike) -> Any:
        """Estimate the angle between two vectors from the Hamming distance of their codes.

        Parameters
        ----------
        distance : int or array of ints
            From 0 to `n_bits`.

        Returns
        -------
        float or ndarray
            ``pi * distance / n_bits``, in radians; unbiased, with the standard deviation
            ``pi * sqrt(p * (1 - p) / n_bits)`` for vectors at the angle ``pi * p``.

        Raises
        ------
        ValueError
            For distances outside [0, n_bits].
        """
        count = numbers("SimHash.angle", "distance", distance, "iuf", "a number")
        inside = (count >= 0) & (count <= self._n_bits)
        if not np.all(inside):
            raise ValueError(
                f"SimHash.angle: `distance` must be between 0 and {self._n_bits}, got "
                f"{given(count[~inside][0].item())}"
            )
        theta = math.pi * count.astype(np.float64) / self._n_bits
        return theta if theta.ndim else float(theta)

    def __repr__(self) -> str:
        return f"SimHash(n_bits={self._n_bits}, seed={self._seed})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SimHash):
            return NotImplemented
        return (self._n_bits, self._seed) == (other._n_bits, other._seed)

    def __hash__(self) -> int:
        return hash((SimHash, self._n_bits, self._seed))
