"""The file of an index: a header, then arrays that are mapped, not read.

All numbers are little-endian. Bytes 0..7: ``SLIPLSH`` and a line feed; 8..11: the version of the
format; 12..15: the length of the header's text; 16..19: CRC-32 of bytes 0..15 and of the text. The
text, JSON padded with spaces, ends at a multiple of 64: ``{"config": ..., "sections": {name:
{"dtype", "shape", "offset", "crc32"}}, "size": bytes of the file}``. Sections begin at multiples of
64; the CRC-32 of one includes the zeros up to the next.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import uuid
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slipstick._numbers import given

Array = NDArray[Any]

MAGIC = b"SLIPLSH\n"
VERSION = 1
_ALIGNMENT = 64
_PREFIX = struct.Struct("<8sIII")
_CHECKED = _PREFIX.size - 4  # what the checksum covers of it
_PIECE = 1 << 24  # bytes that are written or checked at once


class Section(NamedTuple):
    """An array to be written, as parts that follow each other along its first axis."""

    dtype: str
    shape: tuple[int, ...]
    parts: Iterable[Array]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _prefix(text: bytes) -> bytes:
    head = _PREFIX.pack(MAGIC, VERSION, len(text), 0)[:_CHECKED]
    return head + struct.pack("<I", zlib.crc32(text, zlib.crc32(head)))


def write(path: str | os.PathLike[str], config: dict[str, Any], arrays: dict[str, Section]) -> None:
    """Write a file whole or not at all: beside its place first, then renamed."""
    target = Path(path)
    sections = {
        name: {"dtype": array.dtype, "shape": list(array.shape), "offset": 0, "crc32": "0" * 8}
        for name, array in arrays.items()
    }
    header = {"config": config, "sections": sections, "size": 0}
    # Numbers in the text grow: room for 20 digits each.
    room = _aligned(_PREFIX.size + len(json.dumps(header)) + 20 * (len(sections) + 1))
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(b"\0" * room)
            for name, array in arrays.items():
                sections[name]["offset"] = file.tell()
                sections[name]["crc32"] = f"{_write_section(file, array):08x}"
            header["size"] = file.tell()
            text = json.dumps(header).encode().ljust(room - _PREFIX.size)
            file.seek(0)
            file.write(_prefix(text) + text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _write_section(file: BinaryIO, section: Section) -> int:
    checksum = 0
    for part in section.parts:
        data = np.ascontiguousarray(part, section.dtype).reshape(-1).view(np.uint8).data
        for first in range(0, len(data), _PIECE):
            piece = data[first : first + _PIECE]
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
    end = file.tell()
    padding = b"\0" * (_aligned(end) - end)
    file.write(padding)
    return zlib.crc32(padding, checksum)


def read(
    function: str, path: str | os.PathLike[str], verify: bool
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the configuration and the arrays, read-only views of the mapped file.

    Raises
    ------
    ValueError
        If the file is no index, of another version, cut off or damaged. Without `verify` damage of
        the arrays is not looked for.
    """

    def refuse(expected: str, got: str) -> ValueError:
        where = given(os.fspath(path))
        return ValueError(f"{function}: `path` must be {expected}, got {where} {got}")

    size = os.path.getsize(path)
    if size < _PREFIX.size:
        raise refuse("an index file", f"of {size} bytes")
    data = np.memmap(path, np.uint8, "r")
    magic, version, length, checksum = _PREFIX.unpack(data[: _PREFIX.size].tobytes())
    if magic != MAGIC:
        raise refuse("an index file", "with another beginning")
    if version != VERSION:
        raise refuse(f"an index file of version {VERSION}", f"of version {version}")
    text = data[_PREFIX.size : _PREFIX.size + length].tobytes()
    if zlib.crc32(text, zlib.crc32(data[:_CHECKED].tobytes())) != checksum:
        raise refuse("an undamaged index file", "with a wrong checksum of its header")
    try:
        header = json.loads(text)
        config, expected_size = dict(header["config"]), int(header["size"])
        sections = {
            str(name): (
                np.dtype(section["dtype"]),
                tuple(int(length) for length in section["shape"]),
                int(section["offset"]),
                int(section["crc32"], 16),
            )
            for name, section in header["sections"].items()
        }
        if any(dtype.kind not in "fiu" for dtype, *_ in sections.values()):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise refuse("an undamaged index file", "with a header of another form") from error
    if size != expected_size:
        raise refuse(f"an index file of {expected_size} bytes", f"of {size} bytes")
    arrays: dict[str, Array] = {}
    for name, (dtype, shape, offset, expected) in sections.items():
        n_bytes = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not 0 <= offset <= offset + n_bytes <= size:
            raise refuse("an undamaged index file", f"with {name!r} beyond its end")
        if verify and _checksum(data[offset : _aligned(offset + n_bytes)]) != expected:
            raise refuse("an undamaged index file", f"with a wrong checksum of {name!r}")
        arrays[name] = np.asarray(data[offset : offset + n_bytes]).view(dtype).reshape(shape)
    return config, arrays


def _checksum(data: Array) -> int:
    checksum = 0
    for first in range(0, len(data), _PIECE):
        checksum = zlib.crc32(data[first : first + _PIECE].data, checksum)
    return checksum
