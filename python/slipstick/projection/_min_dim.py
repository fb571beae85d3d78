"""How many components keep distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._chi2 import smallest_k
from slipstick.projection._arguments import numbers


def min_dim(
    n_samples: ArrayLike,
    eps: ArrayLike,
    *,
    delta: ArrayLike | None = None,
    guarantee: str = "all_pairs",
    on: str = "squared",
) -> Any:
    """Return how many components keep distances within a factor 1 +- `eps`.

    Parameters
    ----------
    n_samples : int or array of ints
        The number N of points, at least 1.
    eps : float or array of floats
        The distortion allowed, between 0 and 1.
    delta : float or array of floats, optional
        The probability of failure allowed, between 0 and 1. None gives the classical bound ``4 ln N
        / (eps**2 / 2 - eps**3 / 3)``, rounded down, the integers of scikit-learn; its proof leaves
        a probability of failure of up to 1 - 1/N.
    guarantee : {"all_pairs", "each_pair"}
        Whether all N (N - 1) / 2 distances hold together, or each one by itself.
    on : {"squared", "distance"}
        Whether `eps` bounds squared distances or distances themselves; the latter needs a quarter
        of k.

    Returns
    -------
    int, or ndarray of int64
        An array where an argument is one; arguments broadcast.

    Raises
    ------
    TypeError, ValueError
        For arguments outside these bounds; delta=None knows "all_pairs" and "squared" alone.

    Notes
    -----
    With `delta` the result is the smallest k for which the union bound over the pairs holds with
    the chi-square law of ``k |y|**2 / |x|**2``, exact for "gaussian" and an approximation for other
    kinds. Source of the classical bound: S. Dasgupta and A. Gupta, "An elementary proof of a
    theorem of Johnson and Lindenstrauss", 2003.

    Examples
    --------
    >>> import slipstick
    >>> slipstick.projection.min_dim(1000, 0.1)
    5920
    >>> slipstick.projection.min_dim(1000, 0.1, delta=0.05)
    5806
    >>> slipstick.projection.min_dim(1000, 0.1, delta=0.05, guarantee="each_pair")
    768
    """
    samples = numbers("min_dim", "n_samples", n_samples, "iu", "an int")
    if np.any(samples < 1):
        raise ValueError(f"min_dim: `n_samples` must be at least 1, got {samples[samples < 1][0]}")
    epsilon = _fractions("eps", eps)
    _check_choice("guarantee", guarantee, ("all_pairs", "each_pair"))
    _check_choice("on", on, ("squared", "distance"))
    if delta is None:
        for name, chosen, needed in (
            ("guarantee", guarantee, "all_pairs"),
            ("on", on, "squared"),
        ):
            if chosen != needed:
                raise ValueError(
                    f"min_dim: `{name}` must be {needed!r} while `delta` is None, got {chosen!r}"
                )
        samples, epsilon = _broadcast(n_samples=samples, eps=epsilon)
        real = 4 * np.log(samples) / ((epsilon**2 / 2) - (epsilon**3 / 3))
        _check_size(epsilon, real)
        result = real.astype(np.int64)
    else:
        samples, epsilon, failure = _broadcast(
            n_samples=samples, eps=epsilon, delta=_fractions("delta", delta)
        )
        # The classical bound on k for `failure`, which the exact k does not pass.
        _check_size(epsilon, (4 * np.log(samples) - 2 * np.log(failure) + 2) / (epsilon**2 / 6))
        result = np.empty(samples.shape, np.int64)
        for index in np.ndindex(samples.shape):
            n, e = int(samples[index]), float(epsilon[index])
            pairs = n * (n - 1) / 2 if guarantee == "all_pairs" else 1.0
            low, high = (-e, e) if on == "squared" else (-e * (2 - e), e * (2 + e))
            # One point has no distances to keep.
            result[index] = smallest_k(low, high, float(failure[index]) / pairs) if pairs else 1
    return result if result.ndim else int(result)


def _fractions(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = numbers("min_dim", name, values, "fiu", "a float").astype(np.float64)
    inside = (array > 0) & (array < 1)
    if not np.all(inside):
        raise ValueError(
            f"min_dim: `{name}` must be greater than 0 and less than 1, got {array[~inside][0]}"
        )
    return array


def _broadcast(**arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        names = ", ".join(f"`{name}`" for name in arrays)
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(
            f"min_dim: {names} must broadcast with each other, got shapes {shapes}"
        ) from None


def _check_size(epsilon: NDArray[np.float64], components: NDArray[np.float64]) -> None:
    too_many = components >= 2.0**63
    if np.any(too_many):
        raise ValueError(
            f"min_dim: `eps` must be large enough for fewer than 2**63 components, "
            f"got {epsilon[too_many][0]}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        message = f"min_dim: `{name}` must be {expected}, got {value!r}"
        raise ValueError(message) if isinstance(value, str) else TypeError(message)
