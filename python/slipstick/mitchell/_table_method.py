"""A multiplier given as a table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick._arrays import to_numpy
from slipstick.mitchell._base import Method


@dataclass(frozen=True, repr=False, eq=False)
class Table(Method):
    """Any multiplier, given as a table.

    Parameters
    ----------
    array : array of shape (256, 256), or (2**m, 2**m) with 1 <= m <= 7
        256 x 256, any integer dtype: the products of 8-bit operands, at ``[a & 0xFF, b & 0xFF]``.
        The operands are uint8 and the products uint16, or int8 and int16 where the table is signed.
        2**m x 2**m, uint8: the mantissas of float operands with at least m fraction bits, of which
        the top m are looked up. The low m bits of a byte are the product's top m fraction bits, bit
        7 adds one to its exponent. The array is copied.
    signed : bool, optional
        Signedness of a 256 x 256 table; None, the default, takes that of the dtype.

    Attributes
    ----------
    array : numpy.ndarray
        The entries, read-only: uint16, int16 or uint8.
    signed : bool or None
        Of a 256 x 256 table; None for mantissas.
    sha256 : str
        SHA-256 of the entries, little-endian and row by row; in the repr too.

    Raises
    ------
    TypeError, ValueError
        For a dtype, a shape, entries or a `signed` that do not fit; when the table is used, for
        operands of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import Table
    >>> operand = np.arange(256, dtype=np.uint16)
    >>> Table(np.multiply.outer(operand, operand))
    Table(256x256 uint16, sha256=0c6fd3441f139fb52cb64129eeb8b9cf866d6d095563d74639bd7459d183a8c1)
    """

    array: NDArray[Any]
    signed: bool | None = None

    def __post_init__(self) -> None:
        array, signed = to_numpy("Table", "array", self.array), self.signed
        if signed is not None and not isinstance(signed, bool):
            raise TypeError(f"Table: `signed` must be a bool or None, got {type(signed).__name__}")
        if array.dtype.kind not in "iu":
            raise TypeError(f"Table: `array` must have an integer dtype, got {array.dtype}")
        size = array.shape[0] if array.ndim == 2 else 0
        if array.shape != (size, size) or size < 2 or size & (size - 1) or size > 256:
            raise ValueError(
                "Table: `array` must have shape (256, 256), or (2**m, 2**m) with m from 1 to 7, "
                f"got shape {array.shape}"
            )
        if size == 256:
            signed = array.dtype.kind == "i" if signed is None else signed
            dtype: np.dtype[Any] = np.dtype(np.int16 if signed else np.uint16)
            _expect_range(array, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        else:
            _check_mantissa_table(array, signed)
            signed, dtype = None, np.dtype(np.uint8)
        array = array.astype(dtype, order="C", copy=True)
        array.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "signed", signed)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the entries, little-endian and row by row, in hexadecimal."""
        entries = self.array.astype(self.array.dtype.newbyteorder("<"))
        return hashlib.sha256(entries.tobytes()).hexdigest()

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "table", "table": self.array}

    def __repr__(self) -> str:
        size = len(self.array)
        return f"Table({size}x{size} {self.array.dtype}, sha256={self.sha256})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self.array.dtype == other.array.dtype and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.array.dtype.str, self.sha256))


def _expect_range(array: NDArray[Any], low: int, high: int) -> None:
    smallest, largest = int(array.min()), int(array.max())
    if smallest < low or largest > high:
        wrong = smallest if smallest < low else largest
        raise ValueError(f"Table: `array` must have entries from {low} to {high}, got {wrong}")


def _check_mantissa_table(array: NDArray[Any], signed: bool | None) -> None:
    shape = f"{len(array)} x {len(array)}"
    if array.dtype != np.uint8:
        raise TypeError(f"Table: `array` must have dtype uint8 if {shape}, got {array.dtype}")
    if signed is not None:
        raise ValueError(f"Table: `signed` must be None for a table of {shape}, got {signed}")
    high = len(array) - 1
    if int((array & 0x7F).max()) > high:
        raise ValueError(
            f"Table: `array` must have bytes of a carry in bit 7 and a mantissa of at most {high}, "
            f"got {int(array[(array & 0x7F) > high][0])}"
        )
