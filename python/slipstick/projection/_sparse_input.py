"""SciPy's sparse matrices and arrays as rows of nonzeros; SciPy itself is not imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """A matrix in compressed rows: row r holds elements indptr[r] to indptr[r + 1]."""

    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[Any]
    shape: tuple[int, int]


def is_sparse(x: Any) -> bool:
    """Tell whether `x` is a sparse matrix or array of SciPy's, whose module it then names."""
    return any(str(base.__module__).startswith("scipy.sparse") for base in type(x).__mro__)


def rows_of(function: str, x: Any) -> Rows:
    """Return the rows of a sparse matrix or array, as they are stored where that is by rows.

    float32 and float64 stay; integers and bools become float64.
    """
    if x.ndim != 2:
        raise ValueError(f"{function}: a sparse `x` must have two axes, got shape {x.shape}")
    dtype = x.dtype
    if dtype.kind not in "biuf" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise TypeError(
            f"{function}: a sparse `x` must hold float32, float64, integers or bools, got {dtype}"
        )
    if x.format not in ("csr", "csc"):
        raise TypeError(f"{function}: a sparse `x` must be CSR or CSC, got format {x.format!r}")
    if x.format == "csc":
        _check_columns(function, x)
        x = x.tocsr()
    width = x.indices.dtype
    if width not in (np.int32, np.int64) or x.indptr.dtype != width:
        width = np.dtype(np.int64)
    indptr = np.ascontiguousarray(x.indptr, width)
    if indptr.shape != (x.shape[0] + 1,):
        raise ValueError(
            f"{function}: `x` must have {x.shape[0] + 1} row starts (indptr), got shape "
            f"{indptr.shape}"
        )
    data = np.ascontiguousarray(x.data, dtype.newbyteorder("=") if dtype.kind == "f" else "f8")
    return Rows(data, np.ascontiguousarray(x.indices, width), indptr, x.shape)


def _check_columns(function: str, x: Any) -> None:
    """Refuse a CSC matrix that SciPy could not read without leaving its memory."""
    indptr, indices = np.asarray(x.indptr), np.asarray(x.indices)
    if (
        indptr.shape != (x.shape[1] + 1,)
        or indptr[0] < 0
        or np.any(indptr[1:] < indptr[:-1])
        or indptr[-1] > min(len(indices), len(x.data))
    ):
        raise ValueError(
            f"{function}: `x` must have column starts (indptr) that do not decrease and stay "
            f"within its {len(indices)} elements, got others"
        )
    used = indices[indptr[0] : indptr[-1]]
    if used.size and not (used.min() >= 0 and used.max() < x.shape[0]):
        bad = used[(used < 0) | (used >= x.shape[0])][0]
        raise ValueError(
            f"{function}: `x` must have row indices from 0 to {x.shape[0] - 1}, got {bad}"
        )


def canonical(rows: Rows) -> Rows:
    """Return a copy whose indices increase in each row, duplicates added in the order stored."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    stored = slice(int(rows.indptr[0]), int(rows.indptr[-1]))
    indices, data = rows.indices[stored], rows.data[stored]
    order = np.lexsort((indices, row))  # stable
    row, indices, data = row[order], indices[order], data[order]
    first = np.ones(len(order), bool)
    first[1:] = (row[1:] != row[:-1]) | (indices[1:] != indices[:-1])
    sums = np.zeros(np.count_nonzero(first), data.dtype)
    np.add.at(sums, np.cumsum(first) - 1, data)
    counts = np.bincount(row[first], minlength=rows.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(rows.indptr.dtype)
    return Rows(sums, indices[first], indptr, rows.shape)
