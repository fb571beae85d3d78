"""Random projection on a CUDA device: the bits that the CPU gives, and fast sums near to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from slipstick import lsh, projection
from slipstick._arrays import framework_of
from slipstick.projection._law import law_of
from slipstick.selftest import _projection
from slipstick.selftest._check import Array, Case, Check
from slipstick.selftest._inputs import FLOATS, ordinary
from slipstick.selftest._projection import HASHED, LAWS, Law, product_bound

_SEED = 7


def _block(out: Any, **options: Any) -> Any:
    return projection.block(out=out, **options)


def _matrices() -> Iterator[Case]:
    """2^20 entries of each kind that the CPU has to know too, and parts far out."""
    for law in LAWS:
        entries = _projection.known_block(law)
        out = np.zeros(entries.shape, np.float32)
        options = {"seed": _SEED, "rows": slice(1024), "cols": slice(1024), **law}
        if law["kind"] in HASHED:
            options["n_components"] = 1024
        call = partial(_block, **options)
        yield Case(law["kind"], call, (out,), entries.astype(np.float32))
        for row, column in ((127, 3), (300, 2**32 - 20), (5, 2**64 - 300)):
            options |= {
                "seed": 2**64 - 1,
                "rows": slice(row, row + 150),
                "cols": slice(column, column + 200),
                "n_components": 700,
            }
            title = f"{law['kind']}, scaled, from row {row}, column {column}"
            yield Case(title, partial(_block, **options), (np.zeros((150, 200)),))


def _products() -> Iterator[Case]:
    features, first = 600, 200
    for law in LAWS:
        options = {**law, "seed": 2, "first_feature": first}
        for dtype in FLOATS:
            for rows, components in ((45, 37), (1, 300)):
                x, y = ordinary(dtype, rows, features), ordinary(dtype, rows, components)
                call = partial(projection.project, n_components=components, **options)
                title = f"{dtype}, {law['kind']}, {rows} x {features} to {components}"
                yield Case(title, call, (x,))
                call = partial(projection.back_project, n_features=features, **options)
                yield Case(f"back_project, {title}", call, (y,))


def _project_csr(data: Any, indices: Any, indptr: Any, law: Law, features: int) -> Any:
    """`project` of a matrix in compressed rows, whose parts may be any framework's arrays."""
    framework = framework_of("project", data)
    made = law_of("project", law["kind"], _SEED, 70, law.get("density"), features)
    shape = indptr.shape[0] - 1, features
    result = framework.kernels.project_csr(
        data, indices, indptr, *shape, 70, made, 0, None, framework.empty
    )
    return framework.finish(result)


def _sparse_rows() -> Iterator[Case]:
    """Every row has as many nonzeros as its number says, from none to 39."""
    rows, features = 40, 5000
    rng = np.random.default_rng(0)
    columns = [np.sort(rng.choice(features, count, replace=False)) for count in range(rows)]
    starts = np.cumsum([0, *map(len, columns)])
    for law in LAWS:
        for dtype in FLOATS[:2]:
            for index in (np.int32, np.int64):
                parts = np.concatenate(columns).astype(index), starts.astype(index)
                values = ordinary(dtype, int(starts[-1]))
                call = partial(_project_csr, law=law, features=features)
                title = f"{law['kind']}, {dtype}, {np.dtype(index)}"
                yield Case(title, call, (values, *parts))


def _fast_products() -> Iterator[Case]:
    features = 300
    for rows, components in ((2000, 64), (45, 37)):  # the second has too little for tensor cores
        options: dict[str, Any] = {"kind": "rademacher", "seed": 2}
        whole = slice(components), slice(features)
        matrix = projection.block("rademacher", 2, *whole, n_components=components)
        for dtype in FLOATS:
            x = ordinary(dtype, rows, features)
            call = partial(projection.project, n_components=components, mode="fast", **options)
            expected = x.astype(np.float64) @ matrix.T
            title = f"{dtype}, {rows} x {features} to {components}"
            yield Case(title, call, (x,), expected, product_bound(x, matrix))


def _transforms() -> Iterator[Case]:
    for dtype in FLOATS:
        for rows, size in ((70, 1), (70, 8), (70, 256), (5, 4096), (2, 1 << 15), (1, 1 << 17)):
            x = ordinary(dtype, rows, size)
            yield Case(f"hadamard, {dtype}, {size}", projection.hadamard, (x,))
        x = ordinary(dtype, 3, 512, 40)
        call = partial(projection.hadamard, axis=1)
        yield Case(f"hadamard, {dtype}, another axis", call, (x,))
        for rows, size in ((7, 1), (7, 7), (7, 12), (7, 768), (3, 1000), (2, 7168), (1, 40000)):
            x = ordinary(dtype, rows, size)
            for inverse in (False, True):
                rotate = partial(projection.rotate, seed=5, inverse=inverse)
                title = f"rotate, {dtype}, {size}{', inverse' if inverse else ''}"
                yield Case(title, rotate, (x,))


def _hashes() -> Iterator[Case]:
    for dtype in FLOATS:
        x: Array = ordinary(dtype, 40, 300)
        for bits in (1, 70, 256):
            call = lsh.SimHash(bits, seed=_SEED).hash
            yield Case(f"{dtype}, {bits} bits", call, (x,))


CHECKS = [
    Check("projection", "matrices, known answers", _matrices),
    Check("projection", "project, back_project", _products),
    Check("projection", "project of CSR", _sparse_rows),
    Check("projection", "hadamard, rotate", _transforms),
    Check("projection", 'project(mode="fast")', _fast_products),
    Check("lsh", "Hamming distances", _projection.hamming),
    Check("lsh", "SimHash", _hashes),
]
