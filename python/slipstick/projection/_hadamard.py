"""The fast Walsh-Hadamard transform."""

from __future__ import annotations

from typing import Any

from slipstick._arrays import framework_of
from slipstick.projection._arguments import index

_MOST_AXES = 64  # of an array of any framework


def hadamard(x: Any, *, axis: int = -1, out: Any = None) -> Any:
    """Transform an axis by the orthonormal Walsh-Hadamard matrix.

    Parameters
    ----------
    x : array
        Floats (float32, float64, float16, bfloat16), integers or bools, of any strides. The axis
        has a power of two as its length; `rotate` takes other lengths.
    axis : int
        The axis of the vectors.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `x`, or `x` itself.

    Returns
    -------
    array of the shape of x
        ``H x / sqrt(n)`` in the framework and dtype of `x` (float64 for integers), or `out`, with
        ``H[i, j] = (-1) ** popcount(i & j)``. Sums are float32 (float64 for float64 and integers),
        rounded once for 16-bit floats. Infinities and NaNs propagate.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    The transform is its own inverse, up to rounding. A result depends on neither threads,
    instruction set, CUDA device nor batch, to the last bit: with n = 2**p the butterflies
    ``(a, b) -> (a + b, a - b)`` run at strides 1, 2, 4, ..., n / 2 in that order, and before the
    stages 0, 4, 8, ... all numbers are multiplied by 1/4 (by 1/2 where two or three stages are
    left, by nothing where one is). For odd p the first factor has the square root of 1/2, rounded
    to the type of the sums, in it. Nothing on the way is larger than the norm of the vector: large
    numbers do not overflow.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.projection.hadamard(np.array([4.0, 2.0, 0.0, 0.0]))
    array([3., 1., 3., 1.])
    """
    number = index(axis)
    if number is None:
        raise TypeError(f"hadamard: `axis` must be an int, got {type(axis).__name__}")
    if not -_MOST_AXES <= number < _MOST_AXES:
        raise ValueError(f"hadamard: `axis` must be one of the axes of `x`, got {number}")
    framework = framework_of("hadamard", x, out)
    return framework.finish(framework.kernels.hadamard(x, number, out, framework.empty))
