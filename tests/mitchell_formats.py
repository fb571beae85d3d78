"""Formats and constants that the tests of the Mitchell reference share."""

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")

# dtype, type of its bits, fraction bits, patterns of 1.0, smallest normal, infinity and quiet NaN
FORMATS = [
    (np.float16, np.uint16, 10, 0x3C00, 0x0400, 0x7C00, 0x7E00),
    (ml_dtypes.bfloat16, np.uint16, 7, 0x3F80, 0x0080, 0x7F80, 0x7FC0),
    (np.float32, np.uint32, 23, 0x3F800000, 0x00800000, 0x7F800000, 0x7FC00000),
    (
        np.float64,
        np.uint64,
        52,
        0x3FF0000000000000,
        0x0010000000000000,
        0x7FF0000000000000,
        0x7FF8000000000000,
    ),
]
FORMAT_IDS = [np.dtype(row[0]).name for row in FORMATS]
INTEGERS = [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32]


def bias_of(c: int) -> float:
    return (0x3F800000 - c) / 2**23


def bits_of(x) -> int:
    return int(np.asarray(x).view(f"u{np.asarray(x).itemsize}"))
