"""The transforms of the projection family: hadamard, rotate and the block SRHT.

    python bench/python/projection_transforms.py [--only SUBSTRING] [--rounds N] [--list]
        [--json FILE]

Needs torch, ml_dtypes, threadpoolctl and scipy; scikit-learn takes part where it is installed.
Batches count bytes read and written, so that "copy" of the same bytes is the limit; torch's copy
uses all threads, numpy's one. "matrix" is a product with scipy.linalg.hadamard, given beforehand.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning.
os.environ["OMP_WAIT_POLICY"] = "passive"

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
from contest import Contender, Quantity, Task, main, random, tensor
from scipy.linalg import hadamard as hadamard_matrix

from slipstick.projection import hadamard, project, rotate

BATCH = 1 << 25  # numbers: 128 MiB of float32, beyond the caches


def batch_tasks() -> Iterator[Task]:
    def make(log2n: int) -> dict[str, Contender]:
        n = 1 << log2n
        x = random("float32", BATCH >> log2n, n)
        out = np.empty_like(x)
        source, target = tensor(x), tensor(out)
        contenders = {
            "hadamard": Contender(lambda: hadamard(x, out=out)),
            "in place": Contender(lambda: hadamard(out, out=out), peer=False),
            "copy, torch": Contender(lambda: target.copy_(source)),
            "copy, numpy": Contender(lambda: np.copyto(out, x)),
        }
        if log2n <= 10:
            matrix = (hadamard_matrix(n) / np.sqrt(n)).astype(np.float32)
            contenders["matrix"] = Contender(lambda: np.matmul(x, matrix, out=out))
        return contenders

    for log2n in (3, 6, 8, 10, 12, 14, 16, 20):
        yield Task(f"hadamard batch of 2^{log2n}", 8 * BATCH, "B", partial(make, log2n))


def single_tasks() -> Iterator[Task]:
    def make(log2n: int) -> dict[str, Contender]:
        x = random("float32", 1 << log2n)
        out = np.empty_like(x)
        contenders = {
            "hadamard": Contender(lambda: hadamard(x, out=out)),
            "copy": Contender(lambda: np.copyto(out, x)),
        }
        if log2n <= 12:
            matrix = (hadamard_matrix(1 << log2n) / 2 ** (log2n / 2)).astype(np.float32)
            contenders["matrix"] = Contender(lambda: np.matmul(matrix, x, out=out))
        return contenders

    for log2n in (8, 10, 12, 14, 16, 20, 24):
        work = log2n << log2n
        yield Task(f"hadamard of one 2^{log2n}, additions", work, "add", partial(make, log2n))


def column_tasks() -> Iterator[Task]:
    def make() -> dict[str, Contender]:
        x = random("float32", 1024, BATCH >> 10)
        out = np.empty_like(x)
        return {
            "hadamard": Contender(lambda: hadamard(x, axis=0, out=out)),
            "copy": Contender(lambda: np.copyto(out, x)),
        }

    yield Task("hadamard of axis 0, 1024 long", 8 * BATCH, "B", make)


def rotate_tasks() -> Iterator[Task]:
    def make(d: int) -> dict[str, Contender]:
        x = random("float32", (1 << 23) // d, d)
        out = np.empty_like(x)
        matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
        matrix = matrix.astype(np.float32)
        return {
            "rotate": Contender(lambda: rotate(x, out=out)),
            "matrix": Contender(lambda: np.matmul(x, matrix, out=out)),
            "copy": Contender(lambda: np.copyto(out, x), peer=False),
        }

    for d in (128, 768, 960, 1024, 1536):
        yield Task(f"rotate {d}", (1 << 23) // d * d * 8, "B", partial(make, d))


def srht_tasks() -> Iterator[Task]:
    def make(rows: int, features: int, components: int) -> dict[str, Contender]:
        x = random("float32", rows, features)
        contenders = {
            kind: Contender(partial(project, x, components, kind=kind), peer=False)
            for kind in ("srht", "rademacher")
        }
        with contextlib.suppress(ImportError):
            from sklearn.random_projection import GaussianRandomProjection

            def fit_transform() -> None:
                GaussianRandomProjection(components, random_state=0).fit_transform(x)

            contenders["scikit-learn"] = Contender(fit_transform)
        contenders["read"] = Contender(x.sum, peer=False)
        return contenders

    for rows, features, components in ((1000, 10_000, 256), (1, 10_000, 256), (1000, 4096, 64)):
        name = f"srht {rows} x {features} to {components}"
        yield Task(name, 4 * rows * features, "B", partial(make, rows, features, components))


def tasks() -> Iterator[Task | Quantity]:
    yield from batch_tasks()
    yield from single_tasks()
    yield from column_tasks()
    yield from rotate_tasks()
    yield from srht_tasks()


if __name__ == "__main__":
    main(__doc__, tasks, packages=("scipy", "scikit-learn"))
