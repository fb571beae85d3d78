"""The peers of random projection on a CUDA device: matrices that are drawn, stored and multiplied.

cuML's estimators do just that: they draw a Gaussian matrix, or a sparse one in compressed rows, in
`fit` and multiply by it in `transform`. Here torch does both, and cupy where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

try:
    import cupy
except ImportError:
    cupy = None

Calls = dict[str, Callable[[], Any]]


def matmul_tf32(x: Any, matrix: Any, out: Any) -> Any:
    """A product whose operands are cut to 11 bits."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return torch.matmul(x, matrix, out=out)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def drawn_and_multiplied(x: Any, k: int, out: Any) -> Any:
    """cuML's `fit` and `transform`, Gaussian."""
    matrix = torch.randn((x.shape[-1], k), dtype=x.dtype, device=x.device)
    return torch.matmul(x, matrix.mul_(1 / math.sqrt(k)), out=out)


def stored(x: Any, matrix: Any) -> Calls:
    """Products with a matrix of (features, k) that is there already."""
    out = torch.empty((len(x), matrix.shape[1]), dtype=x.dtype, device=x.device)
    calls: Calls = {"torch, stored": partial(torch.matmul, x, matrix, out=out)}
    if cupy is not None and x.is_cuda and x.dtype != torch.bfloat16:
        own = [cupy.from_dlpack(array) for array in (x, matrix, out)]

        def by_cupy() -> Any:
            cupy.matmul(*own[:2], out=own[2])
            return out

        # On torch's stream, whose events take the time.
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)

        def on_stream() -> Any:
            with stream:
                return by_cupy()

        calls["cupy, stored"] = on_stream
    return calls


def sparse_matrix(k: int, features: int, density: float, like: Any) -> Any:
    """Of (k, features) in compressed rows, +-1 by `density` and scaled, as cuML's sparse one is."""
    filled = torch.rand((k, features), device=like.device) < density
    signs = torch.randint(0, 2, (k, features), device=like.device) * 2 - 1
    entries = (filled * signs).to(like.dtype) / math.sqrt(density * k)
    return entries.to_sparse_csr()


def hadamard_matrix(size: int, like: Any) -> Any:
    """The orthonormal one, of a power of two."""
    matrix = torch.ones((1, 1), dtype=torch.float64, device=like.device)
    turned = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64, device=like.device)
    while len(matrix) < size:
        matrix = torch.kron(matrix, turned)
    return (matrix / math.sqrt(size)).to(like.dtype)


def hadamard_factors(size: int, like: Any) -> tuple[Any, Any]:
    """Two matrices whose Kronecker product transforms vectors of that size."""
    columns = 1 << (size.bit_length() - 1) // 2
    return hadamard_matrix(size // columns, like), hadamard_matrix(columns, like)


def two_products(x: Any, left: Any, right: Any) -> Any:
    """The Walsh-Hadamard transform as products with two stored matrices, one an axis."""
    return (left @ (x.reshape(-1, len(left), len(right)) @ right)).reshape(x.shape)


def signs_of(codes: Any, dtype: Any) -> Any:
    """+-1 for every bit of packed codes."""
    places = torch.arange(8, device=codes.device, dtype=torch.uint8)
    bits = (codes[:, :, None] >> places) & 1
    return bits.reshape(len(codes), -1).to(dtype) * 2 - 1


def nearest_by_products(queries: Any, codes: Any, k: int) -> Any:
    """Distances of the k nearest, by inner products of signs: exact up to 2048 bits."""
    products = queries @ codes.T
    largest = products.topk(k, dim=1).values
    return (queries.shape[1] - largest.float()) / 2
