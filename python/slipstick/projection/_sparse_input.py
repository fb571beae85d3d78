"""Sparse matrices of SciPy, cupy and torch as rows of nonzeros; none of them is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """A matrix in compressed rows: row r holds elements indptr[r] to indptr[r + 1]."""

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]


def is_sparse(x: Any) -> bool:
    """Tell whether `x` is a sparse matrix or array of SciPy's, whose module it then names."""
    named = any(str(base.__module__).startswith("scipy.sparse") for base in type(x).__mro__)
    return named and hasattr(x, "format")  # linear operators have none


def _of_cupy(function: str, x: Any) -> Rows | None:
    if not hasattr(x, "format"):
        return None
    if x.format != "csr":
        raise TypeError(f"{function}: a sparse `x` of cupy must be CSR, got format {x.format!r}")
    return Rows(x.data, x.indices, x.indptr, x.shape)


def _of_torch(function: str, x: Any) -> Rows | None:
    layout = str(getattr(x, "layout", "torch.strided"))
    if layout == "torch.strided":
        return None
    if layout != "torch.sparse_csr" or x.ndim != 2:
        raise TypeError(
            f"{function}: a sparse `x` of torch must be CSR with two axes, got layout {layout} and "
            f"shape {tuple(x.shape)}"
        )
    return Rows(x.values(), x.col_indices(), x.crow_indices(), tuple(x.shape))


# By the first part of the name of the module that defines the matrix's type.
_FRAMEWORKS: dict[str, Callable[[str, Any], Rows | None]] = {
    "cupyx": _of_cupy,
    "torch": _of_torch,
}


def framework_rows(function: str, x: Any) -> Rows | None:
    """Return the parts of a CSR matrix of cupy or torch, where they lie; None for what is none."""
    for base in type(x).__mro__:
        rows = _FRAMEWORKS.get(str(base.__module__).partition(".")[0])
        if rows is not None:
            return rows(function, x)
    return None


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
        check_indices(function, "x", x)
        x = x.tocsr()
    _check_integers(function, "x", x)
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


def check_no_overlap(function: str, x: Any, out: Any) -> None:
    """Refuse an `out` in memory of the argument itself, of which a copy may be what is read."""
    if out is None:
        return
    for part in (x.data, x.indices, x.indptr):
        if np.may_share_memory(np.asarray(out), part):
            raise ValueError(f"{function}: `out` must share no memory with `x`, got a view of it")


def check_indices(function: str, name: str, x: Any) -> None:
    """Refuse a sparse argument that SciPy could not read without leaving its memory.

    CSR, CSC and COO alone are taken: what other formats hold is not looked at.
    """
    if x.format not in ("csr", "csc", "coo"):
        raise TypeError(
            f"{function}: a sparse `{name}` must be CSR, CSC or COO, got format {x.format!r}"
        )
    if x.ndim != 2:
        raise ValueError(f"{function}: a sparse `{name}` must have two axes, got shape {x.shape}")
    if x.format == "coo":
        for axis, (indices, size) in enumerate(zip(x.coords, x.shape, strict=True)):
            _check_range(function, name, np.asarray(indices), size, f"indices on axis {axis}")
        return
    _check_integers(function, name, x)
    of, other = ("row", "column") if x.format == "csr" else ("column", "row")
    major, minor = x.shape if x.format == "csr" else x.shape[::-1]
    indptr, indices = np.asarray(x.indptr), np.asarray(x.indices)
    stored = min(len(indices), len(x.data))
    if (
        indptr.shape != (major + 1,)
        or indptr[0] < 0
        or np.any(indptr[1:] < indptr[:-1])
        or indptr[-1] > stored
    ):
        raise ValueError(
            f"{function}: `{name}` must have {of} starts (indptr) that do not decrease and stay "
            f"within its {stored} elements, got others"
        )
    used = indices[indptr[0] : indptr[-1]]
    _check_range(function, name, used, minor, f"{other} indices")


def _check_integers(function: str, name: str, x: Any) -> None:
    for part in (x.indptr, x.indices):
        dtype = np.asarray(part).dtype
        if dtype.kind not in "iu":
            raise TypeError(
                f"{function}: `{name}` must have integers for indptr and indices, got {dtype}"
            )


def _check_range(function: str, name: str, indices: NDArray[Any], size: int, what: str) -> None:
    if indices.size and not (indices.min() >= 0 and indices.max() < size):
        bad = indices[(indices < 0) | (indices >= size)][0]
        raise ValueError(f"{function}: `{name}` must have {what} from 0 to {size - 1}, got {bad}")


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
