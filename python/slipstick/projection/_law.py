"""Which random matrix: what `kind`, `seed` and `density` mean to the kernels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from slipstick._numbers import given, is_number, to_float
from slipstick.projection._arguments import integer

# How many components each kind has at most, as a power of two: what its counter tells apart, and
# for the hashed ones what a number of 32 bits holds beside a sign.
COMPONENT_BITS = {
    "rademacher": 39,
    "gaussian": 34,
    "sparse": 34,
    "srht": 39,
    "sjlt": 31,
    "countsketch": 31,
}
# Kinds whose nonzeros depend on the number of components.
HASHED = ("sjlt", "countsketch")


class Law(NamedTuple):
    """A random matrix, as the kernels take it.

    Attributes
    ----------
    kind : str
        A key of `COMPONENT_BITS`.
    seed : int
        From 0 to 2**64 - 1.
    threshold : int
        "sparse": an entry is not 0 iff the upper 31 bits of its word are below this; else 0.
    scale : float
        What the entries 0, +-1 and z are multiplied by.
    nonzeros : int
        "sjlt", "countsketch": the entries of a column that are not 0; else 0.
    n_components : int
        "sjlt", "countsketch": the rows of the matrix; else 0.
    """

    kind: str
    seed: int
    threshold: int
    scale: float
    nonzeros: int = 0
    n_components: int = 0


def check_kind(function: str, kind: Any) -> str:
    """Return `kind` if it is one; TypeError or ValueError otherwise."""
    if not isinstance(kind, str):
        raise TypeError(f"{function}: `kind` must be a str, got {type(kind).__name__}")
    if kind not in COMPONENT_BITS:
        *names, last = (repr(name) for name in COMPONENT_BITS)
        raise ValueError(
            f"{function}: `kind` must be {', '.join(names)} or {last}, got {given(kind)}"
        )
    return kind


def components(function: str, kind: Any, n_components: Any) -> int:
    """Return the number of components if `kind` has as many."""
    check_kind(function, kind)
    return integer(function, "n_components", n_components, 1, COMPONENT_BITS[kind])


def law_of(
    function: str,
    kind: Any,
    seed: Any,
    n_components: int | None,
    density: Any,
    n_features: int | None,
) -> Law:
    """Check the arguments that name a matrix, `n_components` excepted, and return it.

    Without `n_components` the entries are unscaled. `n_features`, where it is the width of the
    whole input, is what density=None of kind "sparse" goes by.
    """
    check_kind(function, kind)
    seed = integer(function, "seed", seed, 0, 64)
    if kind == "sparse":
        return _sparse_law(function, seed, n_components, density, n_features)
    if kind == "sjlt" and n_components is not None:
        nonzeros = _nonzeros(function, density, n_components)
        return Law(kind, seed, 0, 1 / math.sqrt(nonzeros), nonzeros, n_components)
    if density is not None and kind != "sjlt":
        raise ValueError(
            f"{function}: `density` must be None for kind {kind!r}, got {given(density)}"
        )
    if kind in HASHED:
        if n_components is None:
            raise ValueError(
                f"{function}: `n_components` must be given for kind {kind!r}, got None"
            )
        return Law(kind, seed, 0, 1.0, 1, n_components)
    return Law(kind, seed, 0, 1 / math.sqrt(n_components) if n_components is not None else 1.0)


def _sparse_law(
    function: str, seed: int, n_components: int | None, density: Any, n_features: int | None
) -> Law:
    if density is None:
        if n_features is None:
            raise ValueError(
                f"{function}: `density` must be a number where the number of all features is not "
                "known, got None"
            )
        density = 1 / math.sqrt(n_features)
    expected = f"{function}: `density` must be a number above 0, from 2**-32 on, and at most 1"
    fraction = _number(expected, density)
    if not 2.0**-32 <= fraction <= 1:
        raise ValueError(f"{expected}, got {given(density)}")
    scale = 1.0
    if n_components is not None:
        # As scikit-learn computes it: the square root of the quotient can be another number.
        scale = math.sqrt(1 / fraction) / math.sqrt(n_components)
    return Law("sparse", seed, math.floor(fraction * 2**31 + 0.5), scale)


def _nonzeros(function: str, density: Any, n_components: int) -> int:
    """Return how many entries of a column of kind "sjlt" are not 0."""
    if density is None:
        return min(8, n_components)
    expected = (
        f"{function}: `density` must be s / n_components with an int s from 1 to {n_components}"
    )
    fraction = _number(expected, density)
    if not 0 < fraction <= 1:
        raise ValueError(f"{expected}, got {given(density)}")
    nonzeros = round(fraction * n_components)
    if nonzeros < 1 or nonzeros / n_components != fraction:
        raise ValueError(f"{expected}, got {given(density)}")
    return nonzeros


def _number(expected: str, density: Any) -> float:
    if not is_number(density):
        raise TypeError(f"{expected}, got {given(density)}")
    return to_float(density)
