"""Mitchell's family beside its peers: exact products of NumPy, torch and slipstick's own tile.

    python bench/python/mitchell.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs torch, ml_dtypes and threadpoolctl. The contenders of a case take turns in one process, each
after a pause in which the threads of the one before fall asleep; figures are medians. A product
counts as two operations of floats, as one MAC of integers. `time` beside a peer is the peer's
seconds over slipstick's; the share of the best peer is the smallest of these.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning.
os.environ["OMP_WAIT_POLICY"] = "passive"

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from contest import Contender, Task, main, random, tensor

from slipstick import _cpu, mitchell
from slipstick._arrays import framework_of

MITCHELL = mitchell.Mitchell()._native


# --- Matrix products ---


def exact_tile(a: Any, b: Any, out: Any) -> Contender:
    """Ordinary products by slipstick's own kernel: what the approximate ones differ from."""
    empty = framework_of("bench", a).empty
    return Contender(partial(_cpu.matmul, a, b, MITCHELL, 1.0, out, empty, "exact"))


def add_square(
    contenders: dict[str, Contender],
    name: str,
    call: Callable[..., object],
    a: Any,
    b: Any,
    **keywords: Any,
) -> None:
    """Add call(a, b), or a part of it scaled, where there may be no blocked kernel behind it.

    torch runs bfloat16 at 0.3 GFLOP/s on a machine without instructions for it: a minute a call.
    """
    size = 256
    part = (a[:size, :size].copy(), b[:size, :size].copy())
    wrap = tensor if call in (torch.matmul, torch._int_mm) else np.asarray
    small = partial(call, *map(wrap, part), **keywords)
    small()
    start = time.perf_counter()
    small()
    scale = a.shape[0] * a.shape[1] * b.shape[1] / size**3
    if (time.perf_counter() - start) * scale > 1:
        contenders[f"{name}, scaled"] = Contender(small, scale)
    else:
        contenders[name] = Contender(partial(call, wrap(a), wrap(b), **keywords))


def matmul_contenders(a: Any, b: Any, **keywords: Any) -> dict[str, Contender]:
    """slipstick, its exact tile, and NumPy and torch where they have a kernel for the dtype."""
    out = mitchell.matmul(a, b, **keywords)
    own = Contender(partial(mitchell.matmul, a, b, out=out, **keywords), peer=False)
    contenders = {"slipstick": own, "slipstick exact": exact_tile(a, b, out.copy())}
    if a.dtype in (np.float32, np.float64):
        contenders["numpy"] = Contender(partial(np.matmul, a, b, out=np.empty_like(out)))
        result = tensor(np.empty_like(out))
        contenders["torch"] = Contender(partial(torch.matmul, tensor(a), tensor(b), out=result))
    elif out.dtype == a.dtype:
        add_square(contenders, "torch", torch.matmul, a, b)
    else:
        add_square(contenders, "numpy", np.matmul, a, b, dtype=out.dtype)
    if a.dtype == np.int8:
        add_square(contenders, "torch._int_mm", torch._int_mm, a, b)
    return contenders


SHAPES = (
    (2048, 2048, 2048),
    (512, 512, 512),
    (1, 4096, 4096),
    (4096, 4096, 1),
    (1, 512, 512),
    (8, 4096, 4096),
    (2048, 7, 2048),
    (7, 2048, 2048),
    (2048, 2048, 7),
    (100_000, 64, 16),
    (16, 100_000, 16),
    (32, 32, 32),
)


def shape_tasks() -> Iterator[Task]:
    def make(rows: int, depth: int, columns: int) -> dict[str, Contender]:
        return matmul_contenders(
            random("float32", rows, depth), random("float32", depth, columns, seed=1)
        )

    for rows, depth, columns in SHAPES:
        name = f"matmul float32 {rows} x {depth} x {columns}"
        work = 2 * rows * depth * columns
        yield Task(name, work, "FLOP", partial(make, rows, depth, columns))
    size = SHAPES[0][0]
    name = f"matmul float32 {size} x {size} x {size}, one thread"
    yield Task(name, 2 * size**3, "FLOP", partial(make, size, size, size), threads=1)

    def make_batch() -> dict[str, Contender]:
        return matmul_contenders(*random("float32", 2, 64, 128, 128))

    yield Task("matmul float32 64 x (128 x 128 x 128)", 2 * 64 * 128**3, "FLOP", make_batch)


def data_tasks() -> Iterator[Task]:
    """Data that choose the kernel, and what is done beyond the product."""
    size = 2048

    def make(change: Callable[[Any], object], **keywords: Any) -> dict[str, Contender]:
        a, b = random("float32", 2, size, size)
        change(a)
        return matmul_contenders(a, b, **keywords)

    def relu(a: Any) -> None:
        np.maximum(a, 0, out=a)

    def tiny(a: Any) -> None:
        # The smallest numbers beside zeros: products may fall below the normal range.
        a[::2] *= np.float32(2.0**-120)
        a[0, 0] = 0

    def infinite(a: Any) -> None:
        a[0, 0] = np.inf

    kinds = (
        ("half of a zero", relu),
        ("range too wide, masked kernel", tiny),
        ("an infinity, general kernel", infinite),
    )
    for name, change in kinds:
        title = f"matmul float32 {size}^3, {name}"
        yield Task(title, 2 * size**3, "FLOP", partial(make, change))
    gain = partial(make, lambda a: None, correction="gain")
    yield Task(f"matmul float32 {size}^3, gain corrected", 2 * size**3, "FLOP", gain)


def dtype_tasks() -> Iterator[Task]:
    size = 2048

    def make(dtype: str) -> dict[str, Contender]:
        return matmul_contenders(*random(dtype, 2, size, size))

    for dtype in ("bfloat16", "float16", "float64", "uint8", "int8"):
        work, unit = (size**3, "MAC") if "int" in dtype else (2 * size**3, "FLOP")
        yield Task(f"matmul {dtype} {size}^3", work, unit, partial(make, dtype))
        name = f"matmul {dtype} {size}^3, one thread"
        yield Task(name, work, unit, partial(make, dtype), threads=1)


def gather(table: Any, a: Any, b: Any) -> Any:
    """The table in NumPy: one indexed load a product."""
    sums = np.zeros((a.shape[0], b.shape[1]), np.uint32)
    for k in range(a.shape[1]):
        sums += table[a[:, k, np.newaxis], b[np.newaxis, k]]
    return sums


def table_tasks() -> Iterator[Task]:
    size, small = 2048, 256

    def make() -> dict[str, Contender]:
        table = random("uint16", 256, 256)
        a, b = random("uint8", 2, size, size)
        contenders = matmul_contenders(a, b, method=mitchell.Table(table))
        loop = partial(gather, table, a[:small, :small], b[:small, :small])
        contenders["numpy gather, scaled"] = Contender(loop, (size / small) ** 3, peer=False)
        return contenders

    for threads, suffix in ((0, ""), (1, ", one thread")):
        yield Task(f"matmul uint8 {size}^3, Table{suffix}", size**3, "MAC", make, threads)


def method_tasks() -> Iterator[Task]:
    size = 1024

    def make(method: str, dtype: str) -> dict[str, Contender]:
        return matmul_contenders(*random(dtype, 2, size, size), method=method)

    for method in ("drum", "ilm", "lmul", "mitch-w", "alm-soa", "mbm", "realm"):
        for dtype, work, unit in (("float32", 2 * size**3, "FLOP"), ("uint8", size**3, "MAC")):
            name = f"matmul {dtype} {size}^3, {method}"
            yield Task(name, work, unit, partial(make, method, dtype))


# --- Elements ---


def multiply_tasks() -> Iterator[Task]:
    def make(dtype: str, count: int) -> dict[str, Contender]:
        a, b = random(dtype, 2, count)
        out = mitchell.multiply(a, b)
        own = Contender(partial(mitchell.multiply, a, b, out=out), peer=False)
        # The dtype of the operands; for integers also that of slipstick's products.
        contenders = {"slipstick": own}
        for result in dict.fromkeys((a.dtype, out.dtype)):
            name = "numpy" if result == out.dtype else f"numpy to {result}"
            call = partial(np.multiply, a, b, out=np.empty(count, result), dtype=result)
            contenders[name] = Contender(call)
        left, right, result = tensor(a), tensor(b), tensor(np.empty_like(a))
        name = "torch" if a.dtype == out.dtype else f"torch to {a.dtype}"
        contenders[name] = Contender(partial(torch.mul, left, right, out=result))
        # As many bytes read and written as the product's.
        source = np.zeros((2 * a.nbytes + out.nbytes) // 2, np.uint8)
        target = np.zeros_like(source)
        copy = partial(np.copyto, target, source)
        contenders["numpy copy"] = Contender(copy, peer=False)
        copy = partial(tensor(target).copy_, tensor(source))
        contenders["torch copy"] = Contender(copy, peer=False)
        return contenders

    for dtype in ("float32", "bfloat16", "float16", "int8", "uint8"):
        item = {"float32": 12, "bfloat16": 6, "float16": 6}.get(dtype, 4)
        for exponent in (12, 24):
            count = 1 << exponent
            name = f"multiply {dtype} 2^{exponent}"
            yield Task(name, count * item, "B", partial(make, dtype, count))


# --- Error reports, convolutions, gradients ---


def report_tasks() -> Iterator[Task]:
    def statistics() -> Any:
        values = np.arange(1, 256, dtype=np.uint8)
        products = mitchell.multiply(values[:, np.newaxis], values).astype(np.float64)
        true = np.multiply.outer(values.astype(np.float64), values)
        error = (products - true) / true
        return error.mean(), np.abs(error).mean(), error.var(), np.quantile(error, 0.5)

    def eight() -> dict[str, Contender]:
        own = Contender(partial(mitchell.error_report, "mitchell", 8), peer=False)
        return {"slipstick": own, "multiply and NumPy": Contender(statistics, peer=False)}

    def sixteen() -> dict[str, Contender]:
        report = partial(mitchell.error_report, "mitchell", 16)
        return {"slipstick": Contender(report, peer=False)}

    yield Task("error_report 8 bits", 4.0**8, "pair", eight)
    yield Task("error_report 16 bits, all pairs", 4.0**16, "pair", sixteen, once=True)


def conv_tasks() -> Iterator[Task]:
    def make(channels: int, outputs: int, kernel: int, groups: int) -> dict[str, Contender]:
        x = random("float32", 8, channels, 56, 56)
        weight = random("float32", outputs, channels // groups, kernel, kernel)
        options = {"padding": kernel // 2, "groups": groups}
        out = mitchell.conv2d(x, weight, **options)
        own = partial(mitchell.conv2d, x, weight, out=out, **options)
        peer = partial(torch.nn.functional.conv2d, tensor(x), tensor(weight), **options)
        return {"slipstick": Contender(own, peer=False), "torch": Contender(peer)}

    kinds = (
        ("3x3 depthwise, 64", 64, 64, 3, 64),
        ("3x3, 64 to 64", 64, 64, 3, 1),
        ("1x1, 64 to 64", 64, 64, 1, 1),
    )
    for name, channels, outputs, kernel, groups in kinds:
        work = 2 * 8 * 56 * 56 * outputs * channels // groups * kernel**2
        make_kind = partial(make, channels, outputs, kernel, groups)
        yield Task(f"conv2d float32 {name}, 8 images of 56 x 56", work, "FLOP", make_kind)


def gradient_tasks() -> Iterator[Task]:
    size = 768

    def make(gradient: str) -> dict[str, Contender]:
        arrays = random("float32", 3, size, size)
        own = partial(mitchell.matmul_backward, *arrays, gradient=gradient)

        def of(grad: Any, a: Any, b: Any) -> tuple[Any, Any]:
            return grad @ b.T, a.T @ grad

        return {
            "slipstick": Contender(own, peer=False),
            "numpy": Contender(partial(of, *arrays)),
            "torch": Contender(partial(of, *map(tensor, arrays))),
        }

    for gradient in ("mimic", "exact", "straight-through"):
        name = f"matmul_backward float32 {size}^3, {gradient}"
        yield Task(name, 4 * size**3, "FLOP", partial(make, gradient))


def tasks() -> Iterator[Task]:
    yield from shape_tasks()
    yield from data_tasks()
    yield from dtype_tasks()
    yield from table_tasks()
    yield from method_tasks()
    yield from multiply_tasks()
    yield from report_tasks()
    yield from conv_tasks()
    yield from gradient_tasks()


if __name__ == "__main__":
    main(__doc__, tasks)
