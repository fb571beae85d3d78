"""Hamming distances and SimHash beside faiss and NumPy.

    python bench/python/lsh.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs torch, ml_dtypes and threadpoolctl (for the machinery that the benchmarks share); faiss takes
part where it is installed. Of faiss.IndexBinaryFlat both ways of selection are run, by a heap and
by counting. A search counts the pairs of codes that it compares. NumPy's part, a distance matrix
and a partial sort, is done for a few queries and scaled.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning.
os.environ["OMP_WAIT_POLICY"] = "passive"

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from contest import Contender, Task, main, random

from slipstick import lsh

faiss: Any = None
with contextlib.suppress(ImportError):
    import faiss  # type: ignore[no-redef]

N_CODES = 1_000_000


def numpy_topk(queries: Any, codes: Any, k: int) -> object:
    words = np.uint64 if codes.shape[1] % 8 == 0 else np.uint8
    result = []
    for query in queries.view(words):
        distances = np.bitwise_count(codes.view(words) ^ query).sum(axis=1, dtype=np.int32)
        nearest = np.argpartition(distances, k)[:k]
        result.append(nearest[np.argsort(distances[nearest], kind="stable")])
    return result


def search_tasks() -> Iterator[Task]:
    def make(bits: int, n_queries: int, k: int) -> dict[str, Contender]:
        codes = random("uint8", N_CODES, bits // 8)
        queries = random("uint8", n_queries, bits // 8, seed=1)
        own = Contender(partial(lsh.hamming_topk, queries, codes, k), peer=False)
        contenders = {"slipstick": own}
        if faiss is not None:
            for name, use_heap in (("faiss, heap", True), ("faiss, counting", False)):
                index = faiss.IndexBinaryFlat(bits)
                index.add(codes)
                index.use_heap = use_heap
                contenders[name] = Contender(partial(index.search, queries, k))
        few = min(n_queries, 5)
        call = partial(numpy_topk, queries[:few], codes, k)
        contenders["numpy, scaled"] = Contender(call, n_queries / few)
        return contenders

    for bits, n_queries, k, threads in (
        (256, 1000, 10, 1),
        (256, 1000, 10, 0),
        (256, 1000, 100, 1),
        (256, 1000, 100, 0),
        (256, 1, 10, 0),
        (256, 16, 10, 0),
        (64, 1000, 10, 0),
        (128, 1000, 10, 0),
        (512, 1000, 10, 0),
        (1024, 200, 10, 0),
    ):
        name = f"top {k} of 1 M codes of {bits} bits, {n_queries} queries"
        name += ", one thread" if threads == 1 else ""
        work = n_queries * N_CODES
        yield Task(name, work, "pair", partial(make, bits, n_queries, k), threads=threads)


def distance_tasks() -> Iterator[Task]:
    def make(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> dict[str, Contender]:
        a, b = random("uint8", *a_shape, 32), random("uint8", *b_shape, 32, seed=1)
        a_words, b_words = a.view(np.uint64), b.view(np.uint64)

        def by_numpy() -> object:
            return np.bitwise_count(a_words ^ b_words).sum(axis=-1, dtype=np.int32)

        return {
            "slipstick": Contender(partial(lsh.hamming_distance, a, b), peer=False),
            "numpy": Contender(by_numpy),
        }

    yield Task("distances of 1 M pairs", 1e6, "pair", partial(make, (N_CODES,), (N_CODES,)))
    yield Task("distances of 1000 x 1000", 1e6, "pair", partial(make, (1000, 1), (1000,)))


def hash_tasks() -> Iterator[Task]:
    def make(n: int, d: int, bits: int) -> dict[str, Contender]:
        x = random("float32", n, d)
        contenders = {"slipstick": Contender(partial(lsh.SimHash(bits).hash, x), peer=False)}
        if faiss is not None:
            index = faiss.IndexLSH(d, bits)
            contenders["faiss.IndexLSH"] = Contender(partial(index.sa_encode, x))
        matrix = random("float32", bits, d, seed=1)

        def by_numpy() -> object:
            return np.packbits(x @ matrix.T >= 0, axis=1, bitorder="little")

        contenders["numpy, matrix given"] = Contender(by_numpy)
        return contenders

    for n, d, bits in ((100_000, 128, 256), (10_000, 1024, 256), (1, 1024, 256)):
        name = f"SimHash of {n} x {d} to {bits} bits"
        yield Task(name, 2 * n * d * bits, "FLOP", partial(make, n, d, bits))


def tasks() -> Iterator[Task]:
    yield from search_tasks()
    yield from distance_tasks()
    yield from hash_tasks()


if __name__ == "__main__":
    main(__doc__, tasks, ("faiss-cpu",))
