"""What the tests of projection share: kinds, dtypes, an input, and known answers."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

KINDS = ["rademacher", "gaussian"]
BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in ("float32", "float64", "float16")] + [BF16]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def ramp(*shape: int, dtype: np.dtype = DTYPES[0]) -> np.ndarray:
    """Numbers of both signs with 9 significant bits, the same on every machine."""
    size = math.prod(shape)
    return (((np.arange(size) * 7919) % 1021 - 510) / 64).astype(dtype).reshape(shape)


# --- Known answers; 32-bit numbers in hexadecimal stand in strings, for `words` -------------------

# Counter, key, output.
PHILOX_OF_RANDOM123 = [
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (" ".join(["ffffffff"] * 4), "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]

# Seed, first row, column, output; 128 rows of one column, bit 0 of a word first.
RADEMACHER_COLUMNS = [
    (0, 0, 0, "acffe860 53b0524e 067095a3 8b85b333"),
    (0, 0, 1, "7ebf365e bd4b7c77 0404e93d fb1a5346"),
    (0, 128, 0, "85ba57c5 61f4ded0 50c57d96 36d3f6c5"),
    (7, 0, 0, "daf64fd3 87364e0f f105e632 dd7ea56d"),
    (0x0123456789ABCDEF, 256, 2**32 + 5, "49fc4613 67a62ff3 28117eff bc0969d6"),
]

# At seed 7, rows 0..3 of column 0: the words of the generator and the float32 made of each.
GAUSSIAN_WORDS = "b55b3afb 8582dc1b 79403059 b4825b9b"
GAUSSIAN_ENTRIES = "bebf7994 bf24180a bf377189 bec1c10f"

# A word and its float32: the ends of the law and its middle.
GAUSSIAN_OF_WORD = [
    (0x00000000, 0x40CAD08C),
    (0x00000001, 0xC0CAD08C),
    (0x00000002, 0x40C55364),
    (0xFFFFFFFE, 0x00000000),
    (0xFFFFFFFF, 0x80000000),
    (0x80000000, 0x3F2CAB5D),
]

# SHA-256 of rows 0..1023, columns 0..1023 at seed 7, as little-endian float32 by rows.
MILLION_ENTRIES = [
    ("rademacher", "5255f76fcd6a5cb8adda73e20a012aaa57baf21339aaa6acbad80f52f0a9d495"),
    ("gaussian", "fa82b069304844f0673bdddff0bf1350ee0bf0e1c59a3c3a36782401eca68971"),
    ("srht", "de7fa5af026ef6c993c734cdbe357bb2d30307a22e4b4742910540945bc2dfd0"),
]
