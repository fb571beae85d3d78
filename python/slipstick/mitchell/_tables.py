"""Tables of multipliers, read and written in the formats of other simulators."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slipstick._numbers import given
from slipstick.mitchell._elementwise import multiply
from slipstick.mitchell._methods import MBM, Method, Table, as_method

__all__ = ["load_table", "save_table"]

_FRACTION = 23  # bits of a float32


def load_table(path: str | os.PathLike[str], *, format: str = "tfapprox") -> Table:
    """Read the table of a multiplier.

    Parameters
    ----------
    path : path
        The file.
    format : str
        "tfapprox" (github.com/ehw-fit/tf-approximate): 256 x 256 products of unsigned 8-bit
        operands, uint16, little-endian, at index ``256 * a + b``; 131072 bytes.

        "torchapprox" (github.com/etrommer/torch-approx): that project takes a table as a NumPy
        array and fixes no file, so it is a .npy file of its integers. The shape is 256 x 256, the
        first operand (the activation) is the row, and both axes run over the operands as unsigned
        bytes: 0, 1, ..., 127, -128, ..., -1 for signed ones. A table with a negative entry is one
        of signed operands, any other one of unsigned.

        "approxtrain" (github.com/AaronJing/ApproxTrain): a mantissa table, ``4**m`` bytes for m
        from 1 to 7, at index ``i * 2**m + j``; a byte is ``carry << 7 | mantissa``. m comes from
        the size of the file.

    Returns
    -------
    Table
        For `method=`. Its repr has the SHA-256 of the entries, which is that of the whole file in
        the formats "tfapprox" and "approxtrain".

    Raises
    ------
    TypeError, ValueError
        For arguments or a file that do not fit, OSError for one that cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from slipstick.mitchell import load_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "exact.bin")
    ...     _ = path.write_bytes(bytes([0, 1, 1, 128]))
    ...     load_table(path, format="approxtrain").array.tolist()
    [[0, 1], [1, 128]]
    """
    return _format("load_table", format).load(_path("load_table", path))


def save_table(
    method: str | Method,
    path: str | os.PathLike[str],
    *,
    format: str = "tfapprox",
    bits: int = 8,
    signed: bool | None = None,
) -> None:
    """Write the table of a method.

    Parameters
    ----------
    method : str or Method
        One of `methods()`, or an object. A `Table` is written as it is.
    path : path
        The file, which is replaced if it exists.
    format : str
        "tfapprox", "torchapprox" (int32 entries) or "approxtrain", as in `load_table`.
    bits : int
        8 for tables of 8-bit operands. For "approxtrain" the mantissa bits m, 1 to 7: the table is
        that of float32 products whose mantissas have m bits, the product's mantissa truncated to m
        bits. `MBM` sets the last bit of the mantissas there, as ApproxTrain does: it truncates
        23 - m bits, or more if it is told to.
    signed : bool, optional
        Signedness of 8-bit operands. None, the default, means that of a `Table`, else unsigned for
        "tfapprox" and signed for "torchapprox".

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; no file is written then. OSError for one that cannot be
        written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from slipstick.mitchell import load_table, save_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mitchell.bin")
    ...     save_table("mitchell", path)
    ...     load_table(path)
    Table(256x256 uint16, sha256=a11b4b5726f98c07449de9f768a303c15b4e9434a40a680afa342bdae92003b4)
    """
    target, chosen = _path("save_table", path), as_method("save_table", method)
    file_format = _format("save_table", format)
    low, high = file_format.bits
    if not isinstance(bits, int | np.integer) or isinstance(bits, bool):
        raise TypeError(f"save_table: `bits` must be an int, got {type(bits).__name__}")
    if not low <= bits <= high:
        allowed = str(low) if low == high else f"from {low} to {high}"
        raise ValueError(
            f"save_table: `bits` must be {allowed} for {format!r}, got {given(bits, str)}"
        )
    if signed is not None and not isinstance(signed, bool):
        raise TypeError(f"save_table: `signed` must be a bool or None, got {type(signed).__name__}")
    if isinstance(chosen, Table) and signed is None:
        signed = chosen.signed
    if signed and not file_format.may_be_signed:
        raise ValueError(f"save_table: `signed` must be False for {format!r}, got True")
    entries = _mantissas(chosen, int(bits)) if high < 8 else _products(chosen, file_format, signed)
    file_format.save(target, entries)


def _products(method: Method, file_format: _Format, signed: bool | None) -> NDArray[Any]:
    """All products of 8-bit operands, at [a & 0xFF, b & 0xFF]."""
    if isinstance(method, Table):
        if method.signed is None or method.signed is not signed:
            expected = "signed" if signed else "unsigned"
            raise ValueError(
                f"save_table: `method` must be a table of {expected} 8-bit operands, got {method!r}"
            )
        return method.array
    if signed is None:
        signed = file_format.may_be_signed
    operands = np.arange(256, dtype=np.uint8).view(np.int8 if signed else np.uint8)
    return np.asarray(multiply(operands[:, np.newaxis], operands, method=method))


def _mantissas(method: Method, bits: int) -> NDArray[Any]:
    """Carry and mantissa of all products of significands with `bits` bits."""
    if isinstance(method, Table):
        if len(method.array) != 2**bits:
            raise ValueError(
                f"save_table: `method` must be a table of {bits} mantissa bits, got {method!r}"
            )
        return method.array
    if isinstance(method, MBM):
        method = MBM(truncate=max(method.truncate, _FRACTION - bits))
    significands = (1 + np.arange(2**bits) / 2**bits).astype(np.float32)
    products = np.asarray(multiply(significands[:, np.newaxis], significands, method=method))
    above_one = products.view(np.int32) - 0x3F800000
    carry = above_one >> _FRACTION
    if carry.min() < 0 or carry.max() > 1:
        raise ValueError(
            "save_table: `method` must have products from 1 to less than 4 of numbers from 1 to "
            f"less than 2 for 'approxtrain', got {method!r}"
        )
    mantissa = (above_one & (2**_FRACTION - 1)) >> (_FRACTION - bits)
    return np.asarray(carry << 7 | mantissa).astype(np.uint8)


def _load_tfapprox(path: Path) -> Table:
    content = path.read_bytes()
    if len(content) != 2 * 256 * 256:
        raise ValueError(f"load_table: `path` must hold 131072 bytes, got {len(content)} in {path}")
    return Table(np.frombuffer(content, dtype="<u2").reshape(256, 256))


def _load_torchapprox(path: Path) -> Table:
    expected = "load_table: `path` must be a .npy file of 256 x 256 integers"
    with path.open("rb") as file:
        try:
            array = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{expected}, got {path}, which NumPy cannot read") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{expected}, got an archive in {path}")
    if array.shape != (256, 256) or array.dtype.kind not in "iu":
        raise ValueError(f"{expected}, got shape {array.shape} and dtype {array.dtype} in {path}")
    signed = bool((array < 0).any())
    info = np.iinfo(np.int16 if signed else np.uint16)
    wrong = array[(array < info.min) | (array > info.max)]
    if wrong.size:
        raise ValueError(
            f"load_table: `path` must hold entries from {info.min} to {info.max}, "
            f"got {wrong[0]} in {path}"
        )
    return Table(array, signed=signed)


def _load_approxtrain(path: Path) -> Table:
    content = path.read_bytes()
    sizes = {4**m: m for m in range(1, 8)}
    if len(content) not in sizes:
        raise ValueError(
            "load_table: `path` must hold 4**m bytes with m from 1 to 7, "
            f"got {len(content)} in {path}"
        )
    size = 2 ** sizes[len(content)]
    table = np.frombuffer(content, dtype=np.uint8).reshape(size, size)
    wrong = table[(table & 0x7F) >= size]
    if wrong.size:
        raise ValueError(
            f"load_table: `path` must hold mantissas below {size}, got {wrong[0] & 0x7F} in {path}"
        )
    return Table(table)


def _save_torchapprox(path: Path, entries: NDArray[Any]) -> None:
    with path.open("wb") as file:  # np.save would add a suffix to the name
        np.save(file, entries.astype("<i4"))


class _Format(NamedTuple):
    load: Callable[[Path], Table]
    save: Callable[[Path, NDArray[Any]], Any]
    bits: tuple[int, int]
    may_be_signed: bool


_FORMATS = {
    "tfapprox": _Format(
        _load_tfapprox, lambda path, x: path.write_bytes(x.astype("<u2").tobytes()), (8, 8), False
    ),
    "torchapprox": _Format(_load_torchapprox, _save_torchapprox, (8, 8), True),
    "approxtrain": _Format(
        _load_approxtrain, lambda path, x: path.write_bytes(x.tobytes()), (1, 7), False
    ),
}


def _format(function: str, name: object) -> _Format:
    if isinstance(name, str) and name in _FORMATS:
        return _FORMATS[name]
    expected = ", ".join(repr(known) for known in _FORMATS)
    message = f"{function}: `format` must be one of {expected}, got {name!r}"
    raise ValueError(message) if isinstance(name, str) else TypeError(message)


def _path(function: str, path: object) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise TypeError(f"{function}: `path` must be a path, got {type(path).__name__}")
