"""Random rotations of vectors of any length."""

from __future__ import annotations

from typing import Any

import numpy as np

from slipstick._arrays import framework_of
from slipstick.projection._arguments import integer


def rotate(
    x: Any, *, seed: int = 0, rounds: int = 3, inverse: bool = False, out: Any = None
) -> Any:
    """Rotate the last axis of an array at random, without padding.

    Parameters
    ----------
    x : array of shape (..., n_features)
        Floats (float32, float64, float16, bfloat16), integers or bools, of any strides; any number
        of features from 1 on.
    seed : int
        From 0 to 2**64 - 1. It names the rotation of each length.
    rounds : int
        Rounds of signs and transform, from 1 to 1024. One round is far from a random rotation;
        three are common.
    inverse : bool
        Undo the rotation of the same seed and rounds.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `x`, or `x` itself.

    Returns
    -------
    array of the shape of x
        In the framework and dtype of `x` (float64 for integers), or `out`; norms, inner products
        and distances are kept, to rounding. Sums are float32 (float64 for float64 and integers),
        rounded once for 16-bit floats. Infinities and NaNs propagate.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    A round turns x into ``H D x`` with signs D and an orthogonal H that goes by the number of
    features d:

    - d = 2**p: the matrix of `hadamard`;
    - d = c 2**p with c = 12, 20 or 28 (768 and 1536, for example): on the d numbers as c rows of
      2**p, `hadamard` of every row, then a Hadamard matrix of order c down the columns, divided by
      ``sqrt(c)``;
    - other d: `hadamard` of the first m numbers, then of the last m, where m is the largest power
      of two up to d.

    With bit j & 127 of the Philox block at counter (round, (j >> 7) mod 2**32, j >> 39, 0x524F5400)
    feature j changes its sign where the bit is 1. A result depends on neither threads, instruction
    set, CUDA device nor batch, to the last bit, and nothing on the way is larger than the norm of
    the vector.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.arange(768.0)
    >>> y = slipstick.projection.rotate(x, seed=7)
    >>> bool(np.isclose(np.linalg.norm(y), np.linalg.norm(x)))
    True
    >>> np.allclose(slipstick.projection.rotate(y, seed=7, inverse=True), x)
    True
    """
    seed = integer("rotate", "seed", seed, 0, 64)
    rounds = integer("rotate", "rounds", rounds, 1, 10)
    if not isinstance(inverse, (bool, np.bool_)):
        raise TypeError(f"rotate: `inverse` must be a bool, got {type(inverse).__name__}")
    framework = framework_of("rotate", x, out)
    return framework.finish(
        framework.kernels.rotate(x, seed, rounds, bool(inverse), out, framework.empty)
    )
