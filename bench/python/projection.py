"""Random projection of dense and sparse input beside its peers, in one process.

    python bench/python/projection.py [--only SUBSTRING] [--rounds N] [--json FILE]

Needs torch, scipy and scikit-learn. A peer that stores its matrix is timed with the drawing of it,
"fit + transform", and without. A case's peers are those with the drawing, where there are any: our
calls have nothing to prepare; the others stand beside them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from contest import Contender, Quantity, Task, main, random
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from slipstick import projection

DENSE_KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "rademacher"},
    {"kind": "gaussian"},
    {"kind": "sparse", "density": 1 / 3},
)
HASHED_KINDS: tuple[dict[str, Any], ...] = ({"kind": "sjlt"}, {"kind": "countsketch"})


def estimators(x: Any, k: int, *, sparse: bool) -> dict[str, Contender]:
    """Scikit-learn's, with the drawing of the matrix and without."""
    made: dict[str, Any] = {"scikit-learn Gaussian": GaussianRandomProjection}
    if sparse:
        made["scikit-learn Sparse"] = partial(SparseRandomProjection, dense_output=True)
    contenders = {}
    for name, make in made.items():

        def fit_transform(make: Callable[..., Any] = make) -> Any:
            return make(k, random_state=0).fit_transform(x)

        fitted = make(k, random_state=0).fit(x)
        contenders[f"{name}, fit + transform"] = Contender(fit_transform)
        contenders[f"{name}, transform"] = Contender(partial(fitted.transform, x), peer=False)
    return contenders


def named(law: dict[str, Any]) -> str:
    return f"slipstick {law['kind']}"


def dense_tasks() -> Iterator[Task]:
    def make(law: dict[str, Any], rows: int, k: int, dtype: str) -> dict[str, Contender]:
        x = random(dtype, rows, 10_000)
        matrix = random(dtype, 10_000, k, seed=1)
        contenders = {named(law): Contender(partial(projection.project, x, k, **law))}
        contenders |= estimators(x, k, sparse=True)
        contenders["numpy, matrix given"] = Contender(partial(np.matmul, x, matrix), peer=False)
        return contenders

    shapes = ((1000, 256, "float32"), (1000, 16, "float32"), (1000, 4096, "float32"))
    for rows, k, dtype in (*shapes, (1, 256, "float32"), (1000, 256, "float64")):
        for law in (*DENSE_KINDS, {"kind": "srht"}, *HASHED_KINDS):
            name = f"{law['kind']} dense {rows}x10000 to {k} {dtype}"
            work = 2 * rows * 10_000 * k
            yield Task(name, work, "FLOP", partial(make, law, rows, k, dtype))


def csr_tasks() -> Iterator[Task]:
    def make(law: dict[str, Any]) -> dict[str, Contender]:
        x = scipy.sparse.random_array(
            (20_000, 100_000), density=1e-3, format="csr", dtype=np.float32, rng=0
        )
        contenders = {named(law): Contender(partial(projection.project, x, 256, **law))}
        return contenders | estimators(x, 256, sparse=True)

    for law in (*DENSE_KINDS, *HASHED_KINDS):
        name = f"{law['kind']} CSR 20000x100000, 2 M nonzeros, to 256 float32"
        yield Task(name, 2_000_000, "nonzero", partial(make, law))


def sketch_tasks() -> Iterator[Task]:
    """SciPy sketches rows, so it gets the transpose."""

    def make(rows: int, columns: int, k: int) -> dict[str, Contender]:
        x = random("float64", rows, columns)
        ours = partial(projection.project, x.T, k, kind="countsketch")
        theirs = partial(scipy.linalg.clarkson_woodruff_transform, x, k, rng=0)
        return {"slipstick countsketch": Contender(ours), "scipy": Contender(theirs)}

    for rows, columns, k in ((4000, 3000, 256), (100_000, 100, 1000)):
        name = f"countsketch of {rows} rows of {columns} to {k} float64"
        yield Task(name, rows * columns, "element", partial(make, rows, columns, k))


MEMORY = """
import numpy as np, slipstick
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
x = np.broadcast_to(np.ones(2**20, np.float32), (1000, 2**20))
out = np.zeros((1000, 512), np.float32)
slipstick.projection.project(x[:1, :8], 512, out=out[:1])  # threads, imports
before = peak()
slipstick.projection.project(x, 512, out=out)
print((peak() - before) / 1024)
"""


def peak_memory() -> float:
    """MiB beyond input and output: a process of its own."""
    run = [sys.executable, "-c", MEMORY]
    return float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def tasks() -> Iterator[Task | Quantity]:
    yield from dense_tasks()
    yield from csr_tasks()
    yield from sketch_tasks()
    yield Quantity("memory of 1000x2^20 to 512 float32", "MiB", peak_memory)


if __name__ == "__main__":
    main(__doc__, tasks, packages=("scipy", "scikit-learn"))
