"""What the tests of projection share: laws, dtypes, an input, and known answers."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from slipstick import projection, reference

# What names a matrix beside its seed, as keyword arguments.
LAWS: list[dict[str, Any]] = [
    {"kind": "rademacher"},
    {"kind": "gaussian"},
    {"kind": "sparse", "density": 1 / 3},
]
# Those whose matrix depends on the number of components; None is s = 8, or all components.
HASHED_LAWS: list[dict[str, Any]] = [{"kind": "sjlt"}, {"kind": "countsketch"}]
# Those whose outputs are chains over blocks of 256.
CHAINED_LAWS = LAWS + HASHED_LAWS
EVERY_LAW = [*CHAINED_LAWS, {"kind": "srht"}]
BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in ("float32", "float64", "float16")] + [BF16]


def matrix(law: dict[str, Any], seed: int, rows: slice, cols: slice, **more: Any) -> np.ndarray:
    return projection.block(seed=seed, rows=rows, cols=cols, **law, **more)


def reference_matrix(
    law: dict[str, Any], seed: int, rows: slice, cols: slice, **more: Any
) -> np.ndarray:
    return reference.block(seed=seed, rows=rows, cols=cols, **law, **more)


def nonzeros(law: dict[str, Any], k: int) -> int:
    """Return the entries of a column of a hashed kind that are not 0."""
    if law["kind"] == "countsketch":
        return 1
    return round(law["density"] * k) if "density" in law else min(8, k)


def unscaled(law: dict[str, Any], seed: int, k: int, cols: slice) -> np.ndarray:
    """Return the whole columns of the matrix for k components: 0, +-1 and z."""
    if law["kind"] not in ("sjlt", "countsketch"):
        return matrix(law, seed, slice(k), cols)
    return np.sign(matrix(law, seed, slice(k), cols, n_components=k))


def scale(law: dict[str, Any], k: int) -> float:
    """Return what the kernels multiply the sums of 0, +-1 and z by."""
    if law["kind"] in ("sjlt", "countsketch"):
        return 1 / math.sqrt(nonzeros(law, k))
    return math.sqrt(1 / law.get("density", 1)) / math.sqrt(k)


def exactly_scaled(law: dict[str, Any]) -> dict[str, Any]:
    """Return the law with a density, if any, whose scale is a power of 2 for 64 components."""
    return {**law, "density": 1 / 4} if law["kind"] in ("sparse", "sjlt") else law


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

# At seed 7, rows 0..3 of column 0, and the entries at density 1/3.
SPARSE_WORDS = "59277686 dab1d735 0b4956c5 248aeae4"
SPARSE_ENTRIES = [0, 0, -1, 1]

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
    ({"kind": "rademacher"}, "5255f76fcd6a5cb8adda73e20a012aaa57baf21339aaa6acbad80f52f0a9d495"),
    ({"kind": "gaussian"}, "fa82b069304844f0673bdddff0bf1350ee0bf0e1c59a3c3a36782401eca68971"),
    (
        {"kind": "sparse", "density": 1 / 3},
        "296f66ffffe930357a47e93c080a3cda019b4526f61dbecf3ed738a856f4f691",
    ),
    ({"kind": "srht"}, "de7fa5af026ef6c993c734cdbe357bb2d30307a22e4b4742910540945bc2dfd0"),
]

# At seed 7, block 0 of column 0.
HASHED_WORDS = "2c7e5917 ce800d43 6939d944 765085cc"
# Kind, density, column; the components of the nonzeros of 256 with their signs, at seed 7.
SKETCHED_COLUMNS = [
    ("sjlt", None, 0, [-5, 50, -67, -118, 154, -163, -199, -253]),
    ("sjlt", 8 / 256, 5, [31, -51, 95, 122, -152, -188, 200, -240]),
    ("countsketch", None, 5, [250]),
]
# As MILLION_ENTRIES, for 1024 components, unscaled.
MILLION_HASHED_ENTRIES = [
    ("sjlt", "b62fc131bbbdeb72c8fb945713f42b3858c5ff7a6e56ed5808f307071b993e30"),
    ("countsketch", "d97b4876f09e05bf7b23434e08b855a4f38933137e055b3b1a921a6d4ef79e07"),
]


def pieces(count: int, first: int, size: int) -> list[tuple[int, int]]:
    """Where 0 ... count is cut at multiples of size, 0 being the number `first`."""
    edges = [j for j in range(count) if j == 0 or (first + j) % size == 0]
    return list(zip(edges, [*edges[1:], count], strict=True))


def chains(
    x: np.ndarray, matrix: np.ndarray, first: int, *, grouped: bool, fma=reference.fma
) -> np.ndarray:
    """The sums of the contract over the last axis of x and of the matrix: blocks of 256 in order.

    A block is an fma chain, or, of signs, the chain of the sums of its groups of four.
    """
    products = x[:, np.newaxis], matrix[np.newaxis]
    total = np.zeros((x.shape[0], matrix.shape[0]), x.dtype)

    def chain(begin: int, end: int) -> np.ndarray:
        value = np.zeros_like(total)
        for j in range(begin, end):
            value = fma(products[0][..., j], products[1][..., j], value)
        return value

    for begin, end in pieces(x.shape[1], first, 256):
        if grouped:
            block = np.zeros_like(total)
            for left, right in pieces(end - begin, first + begin, 4):
                block = block + chain(begin + left, begin + right)
        else:
            block = chain(begin, end)
        total = total + block
    return total
