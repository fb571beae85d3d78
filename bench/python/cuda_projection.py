"""Random projection on a CUDA device, beside matrices that are drawn, stored and multiplied.

    python bench/python/cuda_projection.py [--divide N] [--only SUBSTRING] [--rounds N] [--list]
        [--json FILE]

Needs a build of slipstick with CUDA, torch with CUDA, ml_dtypes and threadpoolctl; cupy takes part
where it is installed. The largest case holds 42 GB; `--divide 8` leaves an eighth of the rows.
Shares of the peak are of torch's copy for bytes (input and result, each once), of torch's float32
matmul without TF32 for operations, and for distances of 16 population counts of 32 bits a clock and
multiprocessor. A peer with "stored" has its matrix already, one with "drawn" draws it in the call.
An error is the largest difference of some rows from float64, in units of the result's root mean
square; of singular values, relative to each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cuda_clock
import cuda_projection_peers as peers
import torch
from contest import Contender, Task, main

from slipstick import lsh, projection

DEVICE = "cuda"
FEATURES = 10_000
ROWS = 16  # that an error is taken from
SEED = 7
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
Sizes = Callable[[int], int]


def random(dtype: str, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers on the device, or every byte alike."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    kind = getattr(torch, dtype)
    if not kind.is_floating_point:
        return torch.randint(0, 256, shape, generator=generator, device=DEVICE, dtype=kind)
    # In the dtype itself: the largest array has no room beside it for another one.
    return torch.randn(shape, generator=generator, device=DEVICE, dtype=kind)


def empty(dtype: str, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype), device=DEVICE)


def matrix_of(law: dict[str, Any], k: int, features: int) -> torch.Tensor:
    """The whole matrix of `project`, (k, features), for its error."""
    given = dict(law)
    if given["kind"] == "sparse":
        given.setdefault("density", 1 / math.sqrt(features))
    out = empty("float64", k, features)
    rows, columns = slice(k), slice(features)
    entries: torch.Tensor = projection.block(
        seed=SEED, rows=rows, cols=columns, n_components=k, out=out, **given
    )
    return entries


def error_of(call: Callable[[], Any], rows: Any, right: torch.Tensor) -> float:
    difference = (call()[rows].double() - right).abs().max()
    return float(difference / right.square().mean().sqrt())


def mapped(
    call: Callable[[], Any], x: Any, exact: Callable[[Any], Any], peer: bool = False
) -> Contender:
    """A linear map of x, with its error against what `exact` makes of float64 rows."""
    rows = torch.linspace(0, len(x) - 1, min(ROWS, len(x)), device=x.device).long()
    right = exact(x[rows].double())
    return Contender(call, peer=peer, error=partial(error_of, call, rows, right))


def checked(call: Callable[[], Any], x: Any, matrix: Any, peer: bool = False) -> Contender:
    """The product of x and a matrix of (features, k)."""
    return mapped(call, x, lambda rows: rows @ matrix.double(), peer)


def copy_of(*arrays: torch.Tensor) -> dict[str, Contender]:
    """A copy that reads and writes as many bytes as these arrays have."""
    half = max(1, sum(x.nbytes for x in arrays) // 2)
    source, target = torch.zeros((2, half), dtype=torch.uint8, device=arrays[0].device)
    return {"torch copy": Contender(partial(target.copy_, source), peer=False)}


# --- Products -------------------------------------------------------------------------------------


def own_products(x: Any, k: int, law: dict[str, Any]) -> tuple[dict[str, Contender], Any]:
    """slipstick's exact product, its fast one where there is one, and the result's memory."""
    out = torch.empty((len(x), k), dtype=x.dtype, device=x.device)
    matrix = matrix_of(law, k, x.shape[-1]).T
    call = partial(projection.project, x, k, seed=SEED, out=out, **law)
    contenders = {"slipstick": checked(call, x, matrix)}
    if law["kind"] == "rademacher" and x.dtype != torch.float64:
        contenders["slipstick, fast"] = checked(partial(call, mode="fast"), x, matrix)
    return contenders, out


def stored_products(x: Any, k: int) -> dict[str, Contender]:
    matrix = torch.randn((x.shape[-1], k), dtype=x.dtype, device=x.device) / math.sqrt(k)
    calls = peers.stored(x, matrix)
    contenders = {name: checked(call, x, matrix, peer=True) for name, call in calls.items()}
    out = torch.empty((len(x), k), dtype=x.dtype, device=x.device)
    if x.dtype == torch.float32:
        cut = partial(peers.matmul_tf32, x, matrix, out)
        contenders["torch TF32, stored"] = checked(cut, x, matrix)
    drawn = partial(peers.drawn_and_multiplied, x, k, out)
    contenders["torch, drawn"] = Contender(drawn, peer=False)
    return contenders


def product_tasks(rows_of: Sizes) -> Iterator[Task]:
    """Many components: arithmetic is the limit."""

    def make(law: dict[str, Any], dtype: str, rows: int, k: int) -> dict[str, Contender]:
        x = random(dtype, rows, FEATURES)
        contenders = own_products(x, k, law)[0] | stored_products(x, k)
        if law["kind"] == "sparse":
            density = law.get("density", 1 / math.sqrt(FEATURES))
            matrix = peers.sparse_matrix(k, FEATURES, density, x)
            call = partial(torch.sparse.mm, matrix, x.T)
            contenders["torch CSR, stored"] = Contender(lambda: call().T)
        return contenders

    signs, gaussian = {"kind": "rademacher"}, {"kind": "gaussian"}
    kinds: list[tuple[dict[str, Any], str, int, int]] = [
        (signs, "float32", 20, 256),
        (signs, "bfloat16", 20, 256),
        (signs, "float32", 17, 1024),
        (signs, "float64", 17, 256),
        (signs, "float32", 6, 256),
        (signs, "float32", 0, 256),
        (gaussian, "float32", 18, 256),
        (gaussian, "bfloat16", 18, 256),
        (gaussian, "float64", 16, 256),
        ({"kind": "sparse"}, "float32", 18, 256),
        ({"kind": "sparse", "density": 1 / 3}, "float32", 18, 256),
    ]
    for law, dtype, power, k in kinds:
        rows = rows_of(1 << power)
        name = " ".join(
            [
                law["kind"],
                *(["1/3"] if "density" in law else []),
                dtype,
                f"{rows}x{FEATURES} to {k}",
            ]
        )
        yield Task(name, 2 * rows * FEATURES * k, "FLOP", partial(make, law, dtype, rows, k))

    def make_adjoint(kind: str, rows: int, k: int) -> dict[str, Contender]:
        y = random("float32", rows, k)
        out = empty("float32", rows, FEATURES)
        call = partial(projection.back_project, y, FEATURES, kind=kind, seed=SEED, out=out)
        contenders = {"slipstick": checked(call, y, matrix_of({"kind": kind}, k, FEATURES))}
        matrix = random("float32", k, FEATURES, seed=1)
        product = partial(torch.matmul, y, matrix, out=torch.empty_like(out))
        return contenders | {"torch, stored": checked(product, y, matrix, peer=True)}

    rows = rows_of(1 << 18)
    for kind in ("rademacher", "gaussian"):
        name = f"back_project {kind} float32 {rows}x256 to {FEATURES}"
        work = 2 * rows * FEATURES * 256
        yield Task(name, work, "FLOP", partial(make_adjoint, kind, rows, 256))


def stream_tasks(rows_of: Sizes) -> Iterator[Task]:
    """Few components, and the kinds whose arithmetic is small: bytes are the limit."""

    def make(law: dict[str, Any], dtype: str, rows: int, features: int, k: int) -> Any:
        x = random(dtype, rows, features)
        own, out = own_products(x, k, law)
        contenders = own | stored_products(x, k)
        if law["kind"] == "countsketch":
            buckets = torch.randint(0, k, (features,), device=x.device)
            signs = (torch.randint(0, 2, (features,), device=x.device) * 2 - 1).to(x.dtype)
            result = torch.zeros_like(out)

            def added() -> Any:
                return result.zero_().index_add_(1, buckets, x * signs)

            contenders["torch index_add, stored"] = Contender(added)
        return contenders | copy_of(x, out)

    cases: list[tuple[str, str, int, int]] = [
        *(("rademacher", dtype, 1024, k) for k in (16, 32, 64) for dtype in ("float32", "float16")),
        ("gaussian", "float32", 1024, 16),
        *((kind, "float32", FEATURES, 256) for kind in ("sjlt", "countsketch", "srht")),
        *(("srht", dtype, 4096, 256) for dtype in ("float32", "bfloat16")),
        ("srht", "float32", 32768, 1024),
    ]
    for kind, dtype, features, k in cases:
        rows = rows_of((1 << 30) // features)
        name = f"{kind} {dtype} {rows}x{features} to {k}"
        work = rows * (features + k) * BYTES[dtype]
        yield Task(name, work, "B", partial(make, {"kind": kind}, dtype, rows, features, k))


def sparse_input_tasks(rows_of: Sizes) -> Iterator[Task]:
    features, stored, k = 100_000, 100, 256

    def make(kind: str, rows: int) -> dict[str, Contender]:
        step = features // stored  # one nonzero in each of so many ranges: columns increase
        columns = torch.arange(stored, device=DEVICE) * step
        generator = torch.Generator(DEVICE).manual_seed(0)
        options: dict[str, Any] = {"generator": generator, "device": DEVICE}
        columns = columns + torch.randint(0, step, (rows, stored), **options)
        starts = torch.arange(rows + 1, device=DEVICE) * stored
        values = random("float32", rows * stored)
        parts = starts, columns.flatten(), values
        x = torch.sparse_csr_tensor(*parts, (rows, features), check_invariants=True)
        out = empty("float32", rows, k)
        call = partial(projection.project, x, k, kind=kind, seed=SEED, out=out)
        matrix = random("float32", features, k, seed=1)
        contenders = {
            "slipstick": Contender(call, peer=False),
            "torch CSR by stored": Contender(partial(torch.sparse.mm, x, matrix)),
        }
        if peers.cupy is not None and x.is_cuda:
            starts, columns, values = map(peers.cupy.from_dlpack, parts)
            from cupyx.scipy.sparse import csr_matrix

            other = csr_matrix((values, columns, starts), shape=(rows, features))
            right = peers.cupy.from_dlpack(matrix)
            contenders["cupy CSR by stored"] = Contender(partial(other.__matmul__, right))
        return contenders

    rows = rows_of(1 << 17)
    for kind in ("rademacher", "gaussian", "sparse", "sjlt", "countsketch", "srht"):
        name = f"{kind} CSR float32 {rows}x{features}, {stored} nonzeros a row, to {k}"
        yield Task(name, 2 * rows * stored * k, "FLOP", partial(make, kind, rows))


# --- Transforms, hashes, factors ------------------------------------------------------------------


def transform_tasks(rows_of: Sizes) -> Iterator[Task]:
    def make_hadamard(dtype: str, rows: int, size: int) -> dict[str, Contender]:
        x = random(dtype, rows, size)
        out = torch.empty_like(x)
        own = partial(projection.hadamard, x, out=out)
        factors = peers.hadamard_factors(size, x)
        other = partial(peers.two_products, x, *factors)

        def exact(rows: torch.Tensor) -> torch.Tensor:
            return peers.two_products(rows, *peers.hadamard_factors(size, rows))

        contenders = {"slipstick": mapped(own, x, exact)}
        contenders["torch, two products"] = mapped(other, x, exact, peer=True)
        return contenders | copy_of(x, out)

    for dtype, power in itertools.product(("float32", "bfloat16", "float64"), range(10, 16)):
        if dtype == "float64" and power not in (10, 13):
            continue
        rows = rows_of(1 << (28 - power))
        work = 2 * (rows << power) * BYTES[dtype]
        name = f"hadamard {dtype} {rows}x{1 << power}"
        yield Task(name, work, "B", partial(make_hadamard, dtype, rows, 1 << power))

    def make_rotate(dtype: str, rows: int, size: int) -> dict[str, Contender]:
        x = random(dtype, rows, size)
        out = torch.empty_like(x)
        own = partial(projection.rotate, x, seed=SEED, out=out)
        contenders = {"slipstick": mapped(own, x, partial(projection.rotate, seed=SEED))}
        matrix = random(dtype, size, size, seed=1)
        product = partial(torch.matmul, x, matrix, out=torch.empty_like(x))
        contenders["torch, stored"] = checked(product, x, matrix, peer=True)
        return contenders | copy_of(x, out)

    for dtype, size in itertools.product(("float32", "bfloat16"), (768, 1000, 3584, 4096)):
        rows = rows_of((1 << 27) // size)
        work = 2 * rows * size * BYTES[dtype]
        name = f"rotate {dtype} {rows}x{size}"
        yield Task(name, work, "B", partial(make_rotate, dtype, rows, size))


def entry_tasks(rows_of: Sizes) -> Iterator[Task]:
    """Entries alone, written to memory, beside torch's own."""

    def make(kind: str, rows: int, columns: int) -> dict[str, Contender]:
        out = empty("float32", rows, columns)
        part = slice(rows), slice(columns)
        own = partial(projection.block, kind, SEED, *part, out=out)
        return {"slipstick": Contender(own, peer=False), "torch": Contender(out.normal_)}

    rows = rows_of(1 << 14)
    for kind in ("rademacher", "gaussian"):
        name = f"block {kind} float32 {rows}x16384"
        yield Task(name, 4 * rows * 16384, "B", partial(make, kind, rows, 16384))


def hash_tasks(rows_of: Sizes) -> Iterator[Task]:
    def make_codes(rows: int, features: int, bits: int) -> dict[str, Contender]:
        x = random("float32", rows, features)
        matrix = random("float32", features, bits, seed=1)

        def signs() -> Any:
            return x @ matrix >= 0

        own = partial(lsh.SimHash(bits, seed=SEED).hash, x)
        return {"slipstick": Contender(own, peer=False), "torch, unpacked": Contender(signs)}

    rows = rows_of(1 << 20)
    for bits in (64, 256):
        name = f"SimHash float32 {rows}x768 to {bits} bits"
        yield Task(name, 2 * rows * 768 * bits, "FLOP", partial(make_codes, rows, 768, bits))

    def make_nearest(queries: int, codes: int, n_bytes: int) -> dict[str, Contender]:
        a, b = random("uint8", queries, n_bytes), random("uint8", codes, n_bytes, seed=1)
        own = partial(lsh.hamming_topk, a, b, 10)
        right = own()[0].double()
        signs = [peers.signs_of(x, torch.float16) for x in (a, b)]

        def off(call: Callable[[], Any]) -> float:
            return float((call().double() - right).abs().max())

        other = partial(peers.nearest_by_products, *signs, 10)
        contenders = {"slipstick": Contender(own, peer=False)}
        return contenders | {"torch, signs": Contender(other, error=partial(off, other))}

    for queries, n_bytes in ((1, 32), (1024, 8), (1024, 32), (1024, 128)):
        codes = rows_of(1 << 20)
        name = f"hamming top-10 of {codes}, {queries} queries, {8 * n_bytes} bits"
        work = queries * codes * n_bytes // 4
        yield Task(name, work, "popcount", partial(make_nearest, queries, codes, n_bytes))


def factor_tasks(rows_of: Sizes) -> Iterator[Task]:
    k, oversamples = 64, 10
    rows = max(rows_of(1 << 18), 2 * (k + oversamples))
    columns = min(rows, 2048)

    def make(dtype: str) -> dict[str, Contender]:
        falling = torch.arange(1, columns + 1, device=DEVICE) ** -0.5
        x = random(dtype, rows, columns).mul_(falling)
        wide = x.double()
        right = torch.linalg.eigvalsh(wide.T @ wide).flip(0)[:k].sqrt()
        del wide

        def off(call: Callable[[], Any]) -> float:
            return float(((call()[1][:k].double() - right) / right).abs().max())

        def contender(call: Callable[[], Any], peer: bool) -> Contender:
            return Contender(call, peer=peer, error=partial(off, call))

        own = partial(projection.randomized_svd, x, k, n_oversamples=oversamples, seed=SEED)
        contenders = {"slipstick": contender(partial(own, n_iter=7), False)}
        for n_iter in (7, 2):
            other = partial(torch.svd_lowrank, x, k + oversamples, niter=n_iter)
            contenders[f"torch, niter {n_iter}"] = contender(other, n_iter == 7)
        return contenders

    for dtype in ("float32", "float64"):
        name = f"randomized_svd {dtype} {rows}x{columns}, {k} values"
        work = 2 * rows * columns * (k + oversamples) * 8
        yield Task(name, work, "FLOP", partial(make, dtype))


def tasks(divide: int = 1) -> Iterator[Task]:
    def rows_of(rows: int) -> int:
        """A share of the rows of a full-size case; one row stays one."""
        return rows if rows == 1 else max(16, rows // divide)

    for group in (
        product_tasks,
        stream_tasks,
        sparse_input_tasks,
        transform_tasks,
        entry_tasks,
        hash_tasks,
        factor_tasks,
    ):
        yield from group(rows_of)


if __name__ == "__main__":
    cupys = ("cupy", "cupy-cuda12x", "cupy-cuda13x")
    main(__doc__, tasks, packages=cupys, clock=cuda_clock.POPULATION_COUNTS, divides=True)
