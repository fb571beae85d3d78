"""Random projection: the matrix bit for bit, products by it within their rounding, hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from slipstick import lsh, projection, reference
from slipstick.selftest._check import Array, Case, Check
from slipstick.selftest._inputs import FLOATS, last_place, ordinary, smallest

Dtype = np.dtype[Any]
Law = dict[str, Any]
LAWS: list[Law] = [
    {"kind": "rademacher"},
    {"kind": "gaussian"},
    {"kind": "sparse", "density": 1 / 3},
    {"kind": "srht"},
    {"kind": "sjlt"},
    {"kind": "countsketch"},
]
HASHED = ("sjlt", "countsketch")

# SHA-256 of rows 0..1023, columns 0..1023 at seed 7, as little-endian float32 by rows; "sjlt" and
# "countsketch" for 1024 components, by their signs.
DIGESTS = {
    "rademacher": "5255f76fcd6a5cb8adda73e20a012aaa57baf21339aaa6acbad80f52f0a9d495",
    "gaussian": "fa82b069304844f0673bdddff0bf1350ee0bf0e1c59a3c3a36782401eca68971",
    "sparse": "296f66ffffe930357a47e93c080a3cda019b4526f61dbecf3ed738a856f4f691",
    "srht": "de7fa5af026ef6c993c734cdbe357bb2d30307a22e4b4742910540945bc2dfd0",
    "sjlt": "b62fc131bbbdeb72c8fb945713f42b3858c5ff7a6e56ed5808f307071b993e30",
    "countsketch": "d97b4876f09e05bf7b23434e08b855a4f38933137e055b3b1a921a6d4ef79e07",
}


def _entries(law: Law) -> Array:
    whole = slice(1024)
    components: dict[str, Any] = {"n_components": 1024} if law["kind"] in HASHED else {}
    entries: Array = projection.block(seed=7, rows=whole, cols=whole, **components, **law)
    return entries


def _digest(law: Law) -> Array:
    entries = _entries(law)
    if law["kind"] in HASHED:
        entries = np.sign(entries)
    digest = hashlib.sha256(entries.astype("<f4").tobytes()).digest()
    return np.frombuffer(digest, np.uint8)


def known_block(law: Law) -> Array:
    """Return the entries that have the digest, as the CPU makes them.

    Raises
    ------
    ArithmeticError
        If the CPU makes others.
    """
    if _digest(law).tobytes().hex() != DIGESTS[law["kind"]]:
        raise ArithmeticError(f"the CPU's matrix of kind {law['kind']!r} is not the known one")
    return _entries(law)


def _known_answers() -> Iterator[Case]:
    for law in LAWS:
        expected = np.frombuffer(bytes.fromhex(DIGESTS[law["kind"]]), np.uint8)
        yield Case(law["kind"], partial(_digest, law), (), expected)


def _blocks() -> Iterator[Case]:
    for law in LAWS:
        for row, column in ((0, 0), (127, 3), (300, 2**32 - 20), (5, 2**64 - 300)):
            where: dict[str, Any] = {
                "rows": slice(row, row + 150),
                "cols": slice(column, column + 200),
            }
            for components in (None, 700):
                if law["kind"] in HASHED and components is None:
                    continue
                for seed in (0, 2**64 - 1):
                    options = {**law, **where, "seed": seed, "n_components": components}
                    title = f"{law['kind']}, seed {seed}, from row {row}, column {column}"
                    call = partial(projection.block, **options)
                    yield Case(title, call, (), reference.block(**options))


def product_bound(x: Array, matrix: Array) -> Array:
    """Bound the rounding of x @ matrix.T: depth additions in float32 or float64, and the result.

    The transform behind "srht" adds in another order and not more often; its entries +-1 take the
    sums of magnitudes of all features through it.
    """
    unit = 2.0**-53 if x.dtype == np.float64 else 2.0**-24
    magnitudes = np.abs(x.astype(np.float64)) @ np.abs(matrix).T
    depth = x.shape[-1] + 16
    stored = magnitudes * last_place(x.dtype) / 2 + smallest(x.dtype) * last_place(x.dtype)
    return np.asarray(1.01 * magnitudes * depth * (unit + 2.0**-53) + stored)


def _project() -> Iterator[Case]:
    features, components, first = 600, 37, 200
    for law in LAWS:
        columns = slice(first, first + features)
        matrix = projection.block(
            seed=2, rows=slice(components), cols=columns, n_components=components, **law
        )
        options = {**law, "seed": 2, "first_feature": first}
        for dtype in FLOATS:
            x = ordinary(dtype, 45, features)
            call = partial(projection.project, n_components=components, **options)
            bound = product_bound(x, matrix)
            expected = x.astype(np.float64) @ matrix.T
            yield Case(f"{dtype}, {law['kind']}", call, (x,), expected, bound)
            y = ordinary(dtype, 21, components)
            call = partial(projection.back_project, n_features=features, **options)
            bound = product_bound(y, matrix.T)
            expected = y.astype(np.float64) @ matrix
            title = f"back_project, {dtype}, {law['kind']}"
            yield Case(title, call, (y,), expected, bound)


def _transforms() -> Iterator[Case]:
    """Each of log2 d additions of a number rounds by half a last place of the norm at most.

    A round of `rotate` has two transforms of the largest power of two, or one and a mixing matrix
    of up to 28 terms, and two products by signs.
    """
    for dtype in FLOATS:
        work = 2.0**-52 if dtype == np.float64 else 2.0**-23
        for size in (1, 8, 64, 256):
            x = ordinary(dtype, 70, size)
            norm = np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
            stored = last_place(dtype) * norm
            bound = size.bit_length() * work * norm + stored
            yield Case(
                f"hadamard, {dtype}, {size}",
                projection.hadamard,
                (x,),
                reference.hadamard(x),
                np.broadcast_to(bound, x.shape),
            )
        for size in (1, 7, 12, 40, 100):
            x = ordinary(dtype, 7, size)
            norm = np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
            bound = 3 * (2 * size.bit_length() + 30) * work * norm + last_place(dtype) * norm
            for inverse in (False, True):
                options: dict[str, Any] = {"seed": 5, "inverse": inverse}
                call = partial(projection.rotate, **options)
                title = f"rotate, {dtype}, {size}{', inverse' if inverse else ''}"
                expected = reference.rotate(x, **options)
                yield Case(title, call, (x,), expected, np.broadcast_to(bound, x.shape))


def _values_and_bases(x: Array, **options: Any) -> tuple[Array, ...]:
    """Return the singular values, and how far the bases are from orthonormal."""
    u, s, vt = projection.randomized_svd(x, **options)
    return s, u.T @ u, vt @ vt.T


def _svd() -> Iterator[Case]:
    """Nine products at most, each off by at most 20 last places of the largest singular value, 1.

    The inner products of the bases are off by a few last places each, more for the rows of a block.
    """
    rng = np.random.default_rng(0)
    for shape in ((70, 50), (31, 150)):
        side = min(shape)
        u, v = (np.linalg.qr(rng.standard_normal((n, side)))[0] for n in shape)
        exact = (u / np.arange(1.0, side + 1)) @ v.T
        for dtype in FLOATS[:2]:
            x = exact.astype(dtype)
            for n_iter in (0, 1, 7):
                options: dict[str, Any] = {"n_components": 5, "n_iter": n_iter, "seed": 3}
                _, s, _ = reference.randomized_svd(x, **options)
                places = last_place(dtype)
                bounds = (180 * places, 60 * places, 60 * places)
                title = f"{dtype}, {shape[0]} x {shape[1]}, {n_iter} iterations"
                exact_values = (s, np.eye(5), np.eye(5))
                call = partial(_values_and_bases, **options)
                yield Case(title, call, (x,), exact_values, bounds, portable=False)


def hamming() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for n_bytes in (1, 7, 8, 16, 31, 32, 33, 100):
        a, b = (rng.integers(0, 256, (n, n_bytes), np.uint8) for n in (5, 300))
        expected = reference.hamming_distance(a[:, np.newaxis], b)
        operands = a[:, np.newaxis], b
        yield Case(f"distances, {n_bytes} bytes", lsh.hamming_distance, operands, expected)
    for queries, codes, n_bytes, k in ((1, 1, 1, 1), (3, 300, 8, 255), (7, 1000, 32, 10)):
        a, b = (rng.integers(0, 256, (n, n_bytes), np.uint8) for n in (queries, codes))
        call = partial(lsh.hamming_topk, k=k)
        nearest = tuple(map(np.asarray, reference.hamming_topk(a, b, k)))
        yield Case(f"{k} nearest of {codes}, {n_bytes} bytes", call, (a, b), nearest)


def _hashes() -> Iterator[Case]:
    # Nine significant bits: no sum comes so near to 0 that a rounding decides its sign.
    x = ((np.arange(40 * 300) * 7919 % 1021 - 510) / 64).reshape(40, 300).astype(np.float32)
    yield Case("SimHash", lsh.SimHash(256, seed=7).hash, (x,), reference.simhash(x, 256, 7))
    call = lsh.CrossPolytope(8, seed=7).hash
    expected = np.asarray(reference.cross_polytope(x, 8, 7)[0], np.int32)
    yield Case("CrossPolytope", call, (x,), expected)


CHECKS = [
    Check("projection", "matrices, known answers", _known_answers),
    Check("projection", "block", _blocks),
    Check("projection", "project, back_project", _project),
    Check("projection", "hadamard, rotate", _transforms),
    Check("projection", "randomized_svd", _svd),
    Check("lsh", "Hamming distances", hamming),
    Check("lsh", "SimHash, CrossPolytope", _hashes),
]
