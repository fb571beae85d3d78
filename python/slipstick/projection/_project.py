"""The product with a random matrix, and the matrix itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from slipstick import _cpu
from slipstick._arrays import Framework, framework_of
from slipstick._numbers import given
from slipstick.projection._arguments import index, integer
from slipstick.projection._law import COMPONENT_BITS, check_kind, components, law_of
from slipstick.projection._sparse_input import (
    Rows,
    canonical,
    check_no_overlap,
    framework_rows,
    is_sparse,
    rows_of,
)

__all__ = ["back_project", "block", "project"]


def project(
    x: Any,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
    mode: str = "exact",
    out: Any = None,
) -> Any:
    """Project the last axis of an array onto `n_components` random directions.

    Parameters
    ----------
    x : array of shape (..., n_features)
        Floats (float32, float64, float16, bfloat16), integers or bools, of any strides, read in
        place. Or a sparse matrix or array of SciPy's, CSR or CSC, of float32, float64, integers or
        bools, or a CSR matrix of torch or cupy, of float32 or float64: the same bits as for the
        dense array, where all elements are finite. Column indices on a device are not looked at
        before: a row where they do not increase becomes NaN.
    n_components : int
        The number of components k, at least 1.
    kind : str
        "rademacher": entries +1 or -1; the variance of ``|y|**2 / |x|**2`` is at most 2/k.
        "gaussian": standard normal entries of 24 bits with ``|z| <= 6.34``; the variance is 2/k.
        "sparse": entries +1 or -1 with probability `density`, else 0, divided by the square root of
        `density`; on spiky vectors the variance is up to ``(1 / density - 1) / k``.
        "srht": entries +1 or -1 by random signs and a sampled Walsh-Hadamard transform of each
        block of 4096 features; by far the fastest, with a variance of at most 2/k. With d
        far below 4096 features sampled rows repeat modulo the power of two that holds d, and y
        spans fewer than n_components directions as n_components nears d.
        "sjlt": s entries +-1 a column, one in each of s blocks of components, divided by the square
        root of s; the variance is as for "rademacher" where s divides k, with a heavier tail.
        "countsketch": the same with s = 1, the cheapest.
    seed : int
        From 0 to 2**64 - 1. It names the matrix; a larger k appends rows to it ("sjlt" and
        "countsketch": it makes another matrix).
    density : float, optional
        For "sparse", where None means ``1 / sqrt(n_features)``, as in scikit-learn, and is refused
        unless `first_feature` is 0: a chunk is not as wide as the whole. For "sjlt", ``s / k`` with
        an int s, where None means ``s = min(8, k)``.
    first_feature : int
        The global index of column 0 of `x`: projections of column chunks add up to that of the
        whole, to rounding. ``first_feature + n_features`` may reach 2**64.
    mode : str
        "exact": the same bits on every device. "fast": on a CUDA device the sums of "rademacher" of
        float32, float16 and bfloat16 run on tensor cores, with an error of at most twice that of a
        float32 product with the stored matrix, but with bits of their own; elsewhere the same as
        "exact".
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `x`.

    Returns
    -------
    array of shape (..., n_components)
        ``A x``, scaled, in the framework and dtype of `x` (float64 for integers), or `out`. Sums
        are float32 (float64 for float64), scaled and rounded once; a sum beyond the float range is
        infinite. Infinities and NaNs propagate, but not through the zeros of "sjlt" and
        "countsketch", which are skipped (as those of "sparse" are at a density below 1/8 where `x`
        is sparse). For a sparse `x` of SciPy's a NumPy array.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    A result depends on neither threads, instruction set, CUDA device nor batch, to the last bit
    (but for ``mode="fast"`` on such a device): within each block of 256 features (by global index)
    a sum is one chain of fused multiply-adds, of "rademacher" the chain of the sums of four
    features each, and the blocks are added in order. For "srht" the butterflies of a block of 4096
    features run at strides 1, 2, 4, ..., and the blocks are added in order. Sources: D. Achlioptas,
    "Database-friendly random projections", 2003, for random signs; O. Balabanov et al., arXiv
    2210.11295, 2023, for "srht".

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.zeros(1000, np.float32)
    >>> x[3] = 2
    >>> y = slipstick.projection.project(x, 16, seed=7)
    >>> y[:4]
    array([ 0.5,  0.5,  0.5, -0.5], dtype=float32)
    >>> float(np.linalg.norm(y))  # signs keep the norm of a vector with one nonzero
    2.0
    """
    n_components = components("project", kind, n_components)
    first_feature = integer("project", "first_feature", first_feature, 0, 64)
    if not isinstance(mode, str):
        raise TypeError(f"project: `mode` must be a str, got {type(mode).__name__}")
    if mode not in ("exact", "fast"):
        raise ValueError(f"project: `mode` must be 'exact' or 'fast', got {given(mode)}")
    stored = framework_rows("project", x)
    framework = framework_of("project", x if stored is None else stored.data, out)
    width = None
    sparse = is_sparse(x)
    if kind == "sparse" and density is None and first_feature == 0:
        # Arrays without axes or features are refused below.
        dense = stored is None and not sparse
        shape = _shape("project", "x", x, framework) if dense else x.shape
        width = max([1, *shape[-1:]])
    law = law_of("project", kind, seed, n_components, density, width)
    if stored is not None and framework.kernels is _cpu:
        data, indices, indptr = (part.detach().numpy() for part in stored[:3])
        stored = Rows(data, indices, indptr, stored.shape)
    elif sparse:
        stored = rows_of("project", x)
        check_no_overlap("project", x, out)
    if stored is not None:
        for attempt in (stored, None):
            data, indices, indptr, shape = attempt or canonical(stored)
            result = framework.kernels.project_csr(
                data,
                indices,
                indptr,
                *shape,
                n_components,
                law,
                first_feature,
                out,
                framework.empty,
            )
            if result is not None:  # else a row's indices did not increase
                return framework.finish(result)
    return framework.finish(
        framework.kernels.project(
            x, n_components, law, first_feature, mode == "fast", out, framework.empty
        )
    )


def back_project(
    y: Any,
    n_features: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
    out: Any = None,
) -> Any:
    """Apply the transpose of the matrix of `project`: the adjoint map, not an inverse.

    With equal arguments ``<project(x), y> = <x, back_project(y)>`` to rounding, and on average over
    seeds ``back_project(project(x)) = x``.

    Parameters
    ----------
    y : array of shape (..., n_components)
        As `x` of `project`.
    n_features : int
        The number of features d of the result, at least 1.
    kind, seed, density
        As for `project`; None as the density of "sparse" means ``1 / sqrt(n_features)`` and is
        refused unless `first_feature` is 0.
    first_feature : int
        The global index of column 0 of the result. ``first_feature + n_features`` may reach 2**64.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `y`.

    Returns
    -------
    array of shape (..., n_features)
        ``A^T y`` with the scale, the dtypes and the precision of `project`, where `y` is.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    A result depends on neither threads, instruction set, CUDA device, batch nor the features beside
    it, to the last bit: within each block of 256 components a sum is one chain of fused
    multiply-adds, of "rademacher" the chain of the sums of four components each, and the blocks are
    added in order.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> y = slipstick.projection.project(np.array([0.0, 2.0, 0.0]), 16)
    >>> float(slipstick.projection.back_project(y, 3)[1])
    2.0
    """
    check_kind("back_project", kind)
    framework = framework_of("back_project", y, out)
    shape = _shape("back_project", "y", y, framework)
    if not shape:
        raise ValueError("back_project: `y` must have at least one axis, got shape ()")
    limit = COMPONENT_BITS[kind]
    if not 1 <= shape[-1] <= 1 << limit:
        raise ValueError(
            f"back_project: `y` must have from 1 to 2**{limit} components, got shape {shape}"
        )
    n_features = integer("back_project", "n_features", n_features, 1, 62)
    first_feature = integer("back_project", "first_feature", first_feature, 0, 64)
    width = n_features if first_feature == 0 else None
    law = law_of("back_project", kind, seed, shape[-1], density, width)
    return framework.finish(
        framework.kernels.back_project(y, n_features, law, first_feature, out, framework.empty)
    )


def block(
    kind: str,
    seed: int,
    rows: slice,
    cols: slice,
    *,
    n_components: int | None = None,
    density: float | None = None,
    out: Any = None,
) -> Any:
    """Return a part of the random matrix behind `project`.

    Parameters
    ----------
    kind, seed, density
        As for `project`; "sparse" needs a density, "sjlt" and "countsketch" `n_components`.
    rows, cols : slice
        Components and features, without a step; a start that is None means 0. A stop is needed, but
        for rows when `n_components` is given.
    n_components : int, optional
        If given, the entries are scaled as `project` scales, and rows end there. If not, they are
        +-1, 0 or standard normal.
    out : array, optional
        Where to write, on the CPU or a CUDA device; of shape (rows, columns), float64 or float32.

    Returns
    -------
    array of shape (rows, columns)
        Equal to the same part of any larger block, on every device: an ndarray of float64, or
        `out`, where entries of float32 are those of float64, rounded.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import slipstick
    >>> slipstick.projection.block("rademacher", 7, slice(4), slice(2**40, 2**40 + 2))
    array([[ 1.,  1.],
           [ 1.,  1.],
           [-1., -1.],
           [-1.,  1.]])
    """
    if n_components is not None:
        n_components = components("block", kind, n_components)
    law = law_of("block", kind, seed, n_components, density, None)
    row, n_rows = _range("rows", rows, COMPONENT_BITS[law.kind], n_components)
    col, n_cols = _range("cols", cols, 64, None)
    if n_rows * n_cols >= 1 << 60:
        raise ValueError(
            "block: `rows` and `cols` must name fewer than 2**60 entries, got "
            f"{n_rows} times {n_cols}"
        )
    entries = np.empty((n_rows, n_cols)) if out is None else out
    framework = framework_of("block", entries, out)
    return framework.kernels.projection_block(
        law, row, n_rows, col, n_cols, entries, framework.empty
    )


def _shape(function: str, name: str, array: Any, framework: Framework) -> tuple[int, ...]:
    """Return the shape of anybody's array; of what lies on a device its framework knows it."""
    if framework.kernels is not _cpu:
        return tuple(array.shape)
    return _cpu.shape(function, name, array)


def _range(name: str, part: slice, bits: int, length: int | None) -> tuple[int, int]:
    """Return the first index and the number of indices of a slice."""
    if not isinstance(part, slice):
        raise TypeError(f"block: `{name}` must be a slice, got {type(part).__name__}")
    if part.step is not None and part.step != 1:
        raise ValueError(f"block: `{name}` must have no step, got {part}")
    stop = length if part.stop is None else part.stop
    if stop is None:
        raise ValueError(f"block: `{name}` must have a stop, got {part}")
    first, end = index(0 if part.start is None else part.start), index(stop)
    if first is None or end is None:
        raise TypeError(f"block: `{name}` must be a slice of ints, got {part}")
    last, text = (1 << bits, f"2**{bits}") if length is None else (length, f"n_components={length}")
    if not (0 <= first <= last and 0 <= end <= last):
        raise ValueError(f"block: `{name}` must lie between 0 and {text}, got {part}")
    # An empty slice may start at the end, which is no index.
    return (first, end - first) if end > first else (0, 0)
