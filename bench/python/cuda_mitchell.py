"""Mitchell's family on a CUDA device, beside torch's exact operations on the same arrays.

    python bench/python/cuda_mitchell.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs a build of slipstick with CUDA, torch with CUDA, ml_dtypes and threadpoolctl. Shares of the
peak are of the card's bandwidth, by torch's copy, for bytes, and of its FFMA rate, by torch's
float32 matmul without TF32, for operations; both are measured first. A product counts as two
operations, also where it is an integer addition and a float one, so that half of the FFMA rate is
the limit of approximate float products. Tensor cores, on which torch multiplies bfloat16, float16
and int8, go beyond that rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from contest import Contender, Task, main
from cuda_clock import CUDA

from slipstick import mitchell
from slipstick._arrays import framework_of

ELEMENTS = 1 << 26
FLOATS = ("float32", "float16", "bfloat16")


def random(dtype: str, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, or every integer of the dtype alike, on the device."""
    generator = torch.Generator("cuda").manual_seed(seed)
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator, device="cuda").to(kind)
    limits = torch.iinfo(kind)
    options: dict[str, Any] = {"generator": generator, "device": "cuda", "dtype": kind}
    return torch.randint(limits.min, limits.max + 1, shape, **options)


def table(dtype: str) -> mitchell.Table:
    """Arbitrary products: of bytes, or a carry and a fraction of 7 bits."""
    if "int" in dtype:
        words = torch.randint(0, 1 << 16, (256, 256), dtype=torch.int32).numpy()
        return mitchell.Table(words.astype(f"{'u' if dtype[0] == 'u' else ''}int16"))
    return mitchell.Table(torch.randint(0, 256, (128, 128), dtype=torch.uint8).numpy())


def rate(dtype: str, products: float) -> tuple[float, str]:
    """The work of so many products and sums, and its unit."""
    return (products, "MAC") if "int" in dtype else (2 * products, "FLOP")


# --- Elements -------------------------------------------------------------------------------------


def element_contenders(
    call: Callable[..., Any], exact: Callable[..., Any] | None, *operands: torch.Tensor
) -> dict[str, Contender]:
    """slipstick, torch's exact operation, and a copy of as many bytes."""
    out = call(*operands)
    contenders = {"slipstick": Contender(partial(call, *operands, out=out), peer=False)}
    if exact is not None:
        result = torch.empty_like(operands[0])
        name = "torch" if out.dtype == result.dtype else f"torch to {str(result.dtype)[6:]}"
        contenders[name] = Contender(partial(exact, *operands, out=result))
    half = sum(x.nbytes for x in (*operands, out)) // 2
    source, target = torch.zeros((2, half), dtype=torch.uint8, device=out.device)
    contenders["torch copy"] = Contender(partial(target.copy_, source), peer=False)
    return contenders


def multiply_tasks() -> Iterator[Task]:
    def make(dtype: str, method: Any) -> dict[str, Contender]:
        operands = (random(dtype, ELEMENTS, seed=seed) for seed in (0, 1))
        chosen = table(dtype) if method == "table" else method
        call = partial(mitchell.multiply, method=chosen)
        return element_contenders(call, torch.mul, *operands)

    bytes_of = {"float32": 12, "float16": 6, "bfloat16": 6, "int8": 4, "uint8": 4}
    kinds = [(dtype, "mitchell") for dtype in bytes_of]
    others = [name for name in mitchell.methods() if name != "mitchell"] + ["table"]
    kinds += [("float32", name) for name in others if name != "operand-decomposition"]
    kinds += [("uint8", name) for name in others]
    for dtype, method in kinds:
        name = f"multiply {dtype} 2^26, {method}"
        yield Task(name, ELEMENTS * bytes_of[dtype], "B", partial(make, dtype, method))

    def make_layout(transposed: bool) -> dict[str, Contender]:
        size = 1 << 13
        a, b = random("float32", size, size), random("float32", size, size, seed=1)
        if transposed:
            return element_contenders(mitchell.multiply, torch.mul, a, b.T)
        return element_contenders(mitchell.multiply, torch.mul, a, b[:1])

    work = (1 << 26) * 12
    yield Task("multiply float32 8192^2, transposed", work, "B", partial(make_layout, True))
    work = (1 << 26) * 8 + (1 << 13) * 4
    yield Task("multiply float32 8192^2, by a row", work, "B", partial(make_layout, False))


def function_tasks() -> Iterator[Task]:
    def make(name: str, dtype: str, count: int) -> dict[str, Contender]:
        operands = [random(dtype, ELEMENTS, seed=seed).abs_() for seed in range(count)]
        exact = {"divide": torch.div, "power": torch.pow}.get(name) or getattr(torch, name)
        return element_contenders(getattr(mitchell, name), exact, *operands)

    functions = {
        "divide": 2,
        "power": 2,
        **dict.fromkeys(("reciprocal", "square", "sqrt", "log2", "exp2"), 1),
    }
    for name, count in functions.items():
        for dtype, item in (("float32", 4), ("bfloat16", 2)):
            work = ELEMENTS * item * (count + 1)
            yield Task(f"{name} {dtype} 2^26", work, "B", partial(make, name, dtype, count))


# --- Matrix products ------------------------------------------------------------------------------


def matmul_contenders(
    a: torch.Tensor, b: torch.Tensor, path: str = "", **keywords: Any
) -> dict[str, Contender]:
    """slipstick, on a path of its choice or a given one, and torch's exact product."""
    out = mitchell.matmul(a, b, **keywords)
    own: Callable[[], Any] = partial(mitchell.matmul, a, b, out=out, **keywords)
    if path:
        framework = framework_of("bench", a)
        method = mitchell.Mitchell()._in(framework.kernels)
        own = partial(framework.kernels.matmul, a, b, method, 1.0, out, framework.empty, path)
    contenders = {"slipstick": Contender(own, peer=False)}
    if a.dtype.is_floating_point:
        result = torch.empty_like(out)
        contenders["torch"] = Contender(partial(torch.matmul, a, b, out=result))
    else:  # torch multiplies matrices of int8 alone, and those of more than 16 rows
        words = a.view(torch.int8), b.view(torch.int8)
        if a.ndim == 2 and a.shape[0] > 16:
            contenders["torch._int_mm"] = Contender(partial(torch._int_mm, *words))
    return contenders


def shape_tasks() -> Iterator[Task]:
    def make(dtype: str, rows: int, depth: int, columns: int) -> dict[str, Contender]:
        a, b = random(dtype, rows, depth), random(dtype, depth, columns, seed=1)
        return matmul_contenders(a, b)

    shapes = [(dtype, (n,) * 3) for dtype in (*FLOATS, "uint8", "int8") for n in (8192, 4096)]
    shapes += [("float32", (1024,) * 3), ("float32", (256,) * 3), ("uint8", (1024,) * 3)]
    for dtype in ("float32", "bfloat16"):
        thin = ((1, 8192, 8192), (8, 8192, 8192), (8192, 8192, 1), (8192, 8192, 8))
        shapes += [(dtype, shape) for shape in (*thin, (8192, 8, 8192), (64, 1 << 20, 64))]
    for dtype, (rows, depth, columns) in shapes:
        work, unit = rate(dtype, rows * depth * columns)
        name = f"matmul {dtype} {rows} x {depth} x {columns}"
        yield Task(name, work, unit, partial(make, dtype, rows, depth, columns))

    def make_batch(dtype: str) -> dict[str, Contender]:
        return matmul_contenders(random(dtype, 64, 512, 512), random(dtype, 64, 512, 512, seed=1))

    for dtype in ("float32", "bfloat16"):
        name = f"matmul {dtype} 64 x (512 x 512 x 512)"
        yield Task(name, *rate(dtype, 64 * 512**3), partial(make_batch, dtype))

    def make_transposed() -> dict[str, Contender]:
        a, b = random("float32", 4096, 4096), random("float32", 4096, 4096, seed=1)
        return matmul_contenders(a.T, b.T)

    yield Task("matmul float32 4096^3, transposed", 2 * 4096**3, "FLOP", make_transposed)


def path_tasks() -> Iterator[Task]:
    size = 4096

    def make(dtype: str, path: str) -> dict[str, Contender]:
        # From 1 to 2 every path is allowed, float16's too; one that is not would be another one.
        operands = [random(dtype, size, size, seed=seed) for seed in (0, 1)]
        if operands[0].dtype.is_floating_point:
            operands = [x.abs().clamp(1, 2) for x in operands]
        return matmul_contenders(*operands, path)

    for dtype in (*FLOATS, "uint8"):
        for path in ("sums", "flushed", "general"):
            if dtype == "uint8" and path == "flushed":
                continue  # integers have no range to leave
            name = f"matmul {dtype} {size}^3, path {path}"
            yield Task(name, *rate(dtype, size**3), partial(make, dtype, path))

    def make_data(change: Callable[[torch.Tensor], object]) -> dict[str, Contender]:
        a, b = random("float32", size, size), random("float32", size, size, seed=1)
        change(a)
        return matmul_contenders(a, b)

    def tiny(a: torch.Tensor) -> None:
        # The smallest numbers beside zeros: products may fall below the normal range.
        a[::2] *= 2.0**-120
        a[0, 0] = 0

    def infinite(a: torch.Tensor) -> None:
        a[0, 0] = float("inf")

    kinds: tuple[tuple[str, Callable[[torch.Tensor], object]], ...] = (
        ("half of a zero", lambda a: a.relu_()),
        ("range too wide", tiny),
        ("an infinity", infinite),
    )
    for name, change in kinds:
        title = f"matmul float32 {size}^3, {name}"
        yield Task(title, 2 * size**3, "FLOP", partial(make_data, change))


def method_tasks() -> Iterator[Task]:
    size = 2048

    def make(dtype: str, method: str) -> dict[str, Contender]:
        operands = (random(dtype, size, size, seed=seed) for seed in (0, 1))
        chosen = table(dtype) if method == "table" else method
        return matmul_contenders(*operands, method=chosen)

    for method in (*mitchell.methods(), "table"):
        for dtype in ("float32", "bfloat16", "uint8"):
            if method == "operand-decomposition" and dtype != "uint8":
                continue
            name = f"matmul {dtype} {size}^3, {method}"
            yield Task(name, *rate(dtype, size**3), partial(make, dtype, method))


# --- Convolutions, gradients ----------------------------------------------------------------------


def conv_tasks() -> Iterator[Task]:
    def make(channels: int, outputs: int, kernel: int, groups: int) -> dict[str, Contender]:
        x = random("float32", 64, channels, 56, 56)
        weight = random("float32", outputs, channels // groups, kernel, kernel, seed=1)
        options: dict[str, Any] = {"padding": kernel // 2, "groups": groups}
        out = mitchell.conv2d(x, weight, **options)
        own = partial(mitchell.conv2d, x, weight, out=out, **options)
        exact = partial(torch.nn.functional.conv2d, x, weight, **options)
        return {"slipstick": Contender(own, peer=False), "torch": Contender(exact)}

    kinds = (
        ("3x3 depthwise, 64", 64, 64, 3, 64),
        ("3x3, 64 to 64", 64, 64, 3, 1),
        ("3x3, 256 to 256", 256, 256, 3, 1),
        ("1x1, 64 to 256", 64, 256, 1, 1),
    )
    for name, channels, outputs, kernel, groups in kinds:
        work = 2 * 64 * 56 * 56 * outputs * channels // groups * kernel**2
        make_kind = partial(make, channels, outputs, kernel, groups)
        yield Task(f"conv2d float32 {name}, 64 images of 56 x 56", work, "FLOP", make_kind)


def gradient_tasks() -> Iterator[Task]:
    size = 4096

    def make(gradient: str) -> dict[str, Contender]:
        arrays = [random("float32", size, size, seed=seed) for seed in range(3)]
        own = partial(mitchell.matmul_backward, *arrays, gradient=gradient)

        def exact(grad: Any, a: Any, b: Any) -> tuple[Any, Any]:
            return grad @ b.T, a.T @ grad

        return {
            "slipstick": Contender(own, peer=False),
            "torch": Contender(partial(exact, *arrays)),
        }

    for gradient in ("mimic", "exact", "straight-through"):
        name = f"matmul_backward float32 {size}^3, {gradient}"
        yield Task(name, 4 * size**3, "FLOP", partial(make, gradient))


def tasks() -> Iterator[Task]:
    yield from multiply_tasks()
    yield from function_tasks()
    yield from shape_tasks()
    yield from path_tasks()
    yield from method_tasks()
    yield from conv_tasks()
    yield from gradient_tasks()


if __name__ == "__main__":
    main(__doc__, tasks, clock=CUDA)
