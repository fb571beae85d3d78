"""Randomized SVD beside torch and scikit-learn, with the error beside the time.

The figures of error are |A - U S Vt|_F over the best of that rank, minus 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from contest import Contender, Quantity, Task, main, tensor
from sklearn.utils.extmath import randomized_svd as sklearn_svd

from slipstick.projection import StreamingSVD, randomized_svd

SHAPE, K, WIDTH = (4000, 3000), 50, 60

SPECTRA: dict[str, Callable[[Any], Any]] = {
    "1/j": lambda j: 1 / j,
    "1/sqrt(j)": lambda j: 1 / np.sqrt(j),
}


@cache
def problem(name: str) -> tuple[Any, float]:
    """Values of that decay to 400, noise of 2e-4 an entry, and the best error squared."""
    rng = np.random.default_rng(0)
    j = np.arange(1.0, 401)
    u, v = (np.linalg.qr(rng.standard_normal((n, len(j))))[0] for n in SHAPE)
    a = ((u * SPECTRA[name](j)) @ v.T + 2e-4 * rng.standard_normal(SHAPE)).astype(np.float32)
    squares = np.linalg.eigvalsh(a.T.astype(np.float64) @ a.astype(np.float64))
    return a, float(squares[:-K].sum())


def torch_svd(a: Any, n_iter: int) -> Any:
    u, s, v = torch.svd_lowrank(tensor(a), q=WIDTH, niter=n_iter)
    return u[:, :K].numpy(), s[:K].numpy(), v[:, :K].numpy().T


def excess(name: str, solve: Callable[[Any], Any]) -> float:
    a, best = problem(name)
    u, s, vt = (np.asarray(part, np.float64) for part in solve(a))
    return float(np.sqrt(np.sum((a - (u * s) @ vt) ** 2) / best) - 1)


def streaming(a: Any) -> Any:
    svd = StreamingSVD(K, n_oversamples=WIDTH - K)
    for first in range(0, len(a), 500):
        svd.partial_fit(a[first : first + 500])
    return svd.result()


# Equal n_iter means equal accuracy, or better: the errors say so.
SOLVERS: dict[str, dict[str, Callable[[Any], Any]]] = {
    f"{n_iter} iterations": {
        "slipstick": lambda a, n_iter=n_iter: randomized_svd(a, K, n_iter=n_iter),
        "torch": lambda a, n_iter=n_iter: torch_svd(a, n_iter),
        "scikit-learn": lambda a, n_iter=n_iter: sklearn_svd(a, K, n_iter=n_iter, random_state=0),
    }
    for n_iter in (2, 7)
} | {"one pass": {"slipstick": streaming}}


def tasks() -> Iterator[Task | Quantity]:
    def make(name: str, solvers: dict[str, Callable[[Any], Any]]) -> dict[str, Contender]:
        a, _ = problem(name)
        return {who: Contender(partial(solve, a)) for who, solve in solvers.items()}

    for name in SPECTRA:
        for case, solvers in SOLVERS.items():
            title = f"svd {SHAPE[0]}x{SHAPE[1]} float32, {name}, {case}"
            work = 2.0 * SHAPE[0] * SHAPE[1] * WIDTH  # of one pass
            for threads in (1, 0):
                suffix = ", 1 thread" if threads else ""
                yield Task(title + suffix, work, "flop", partial(make, name, solvers), threads)
            for who, solve in solvers.items():
                yield Quantity(
                    f"{title}, {who}, error over the best, times 1e6",
                    "",
                    lambda name=name, solve=solve: 1e6 * excess(name, solve),
                )


if __name__ == "__main__":
    main(__doc__ or "", tasks, ("torch", "scikit-learn", "numpy", "scipy"))
