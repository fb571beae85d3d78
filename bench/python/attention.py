"""Attention beside its peers on the CPU: torch, onnxruntime and OpenVINO.

    python bench/python/attention.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs torch, ml_dtypes and threadpoolctl; onnxruntime (with onnx) and OpenVINO take part where they
are installed. A forward pass counts 4 batch heads queries keys dim operations, a causal one
half of that; decoding counts the bytes of keys and values. "multiply-add peak" and "read" are
what the machine gives at best, measured in the same run.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning.
os.environ["OMP_WAIT_POLICY"] = "passive"

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from contest import Contender, Task, main, random, tensor

import slipstick
from slipstick import _cpu, mitchell
from slipstick._arrays import framework_of
from slipstick.scales import LogN

DTYPES = ("float32", "bfloat16")
SLOWEST = 2.0  # seconds; a peer that would take longer runs on a part, scaled


def sdpa(query: Any, key: Any, value: Any, causal: bool) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal, enable_gqa=query.shape[1] != key.shape[1]
    )


def add_scaled(
    contenders: dict[str, Contender],
    name: str,
    call: Callable[..., Any],
    arrays: tuple[Any, ...],
    causal: bool,
) -> None:
    """Add call(*arrays, causal), or the time of shorter sequences scaled by their work."""
    length = arrays[0].shape[2]
    short = min(length, 256)
    part = tuple(array[:, :1, :short] for array in arrays)
    call(*part, causal)
    start = time.perf_counter()
    call(*part, causal)
    scale = (length / short) ** 2 * arrays[0].shape[0] * arrays[0].shape[1]
    if (time.perf_counter() - start) * scale > SLOWEST:
        contenders[f"{name}, scaled"] = Contender(partial(call, *part, causal), scale)
    else:
        contenders[name] = Contender(partial(call, *arrays, causal))


def onnx_attention(heads: int, dim: int) -> Callable[..., Any] | None:
    """onnxruntime's MultiHeadAttention, float32, on (batch, length, heads dim); None without it."""
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        return None
    import onnx
    import onnxruntime

    def session(causal: bool) -> Any:
        node = onnx.helper.make_node(
            "MultiHeadAttention",
            ["q", "k", "v"],
            ["out"],
            domain="com.microsoft",
            num_heads=heads,
            unidirectional=int(causal),
        )
        names = [("q", ["b", "n", heads * dim]), ("k", ["b", "m", heads * dim])]
        names += [("v", ["b", "m", heads * dim])]
        ends = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in (*names, ("out", ["b", "n", heads * dim]))
        ]
        graph = onnx.helper.make_graph([node], "attention", ends[:3], ends[3:])
        model = onnx.helper.make_model(
            graph,
            opset_imports=[
                onnx.helper.make_opsetid("", 17),
                onnx.helper.make_opsetid("com.microsoft", 1),
            ],
        )
        model.ir_version = 8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = slipstick.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(model.SerializeToString(), options)

    sessions = {causal: session(causal) for causal in (False, True)}

    def call(query: Any, key: Any, value: Any, causal: bool) -> Any:
        return sessions[causal].run(None, {"q": query, "k": key, "v": value})

    return call


def openvino_attention(shape: tuple[int, ...], causal: bool) -> Callable[..., Any] | None:
    """OpenVINO's ScaledDotProductAttention, float32; None without it."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    inputs = [openvino.opset13.parameter(shape, np.float32) for _ in range(3)]
    node = openvino.opset13.scaled_dot_product_attention(*inputs, causal=causal)
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": slipstick.get_num_threads()}
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    model = core.compile_model(openvino.Model([node], inputs), "CPU", settings)
    request = model.create_infer_request()

    def call(*arrays: Any) -> Any:
        return request.infer(dict(enumerate(arrays)), share_inputs=True, share_outputs=True)

    return call


def peak() -> Contender:
    """The same number of operations as a matrix product in the second cache, by our exact tile."""
    a = random("float32", 240, 240)
    native = mitchell.Mitchell()._native
    out = np.empty((240, 240), np.float32)
    call = partial(_cpu.matmul, a, a, native, 1.0, out, framework_of("bench", a).empty, "exact")
    return Contender(call, peer=False)


def forward_tasks() -> Iterator[Task]:
    def make(dtype: str, length: int, dim: int, causal: bool) -> dict[str, Contender]:
        heads = max(1, min(64, 16384 // length))
        arrays = tuple(random(dtype, 1, heads, length, dim, seed=i) for i in range(3))
        out = np.empty_like(arrays[0])
        own = partial(slipstick.attention, *arrays, causal=causal, out=out)
        contenders = {"slipstick": Contender(own, peer=False)}
        add_scaled(contenders, "torch", sdpa, tuple(map(tensor, arrays)), causal)
        if dtype == "float32":
            by_token = [
                np.ascontiguousarray(array.swapaxes(1, 2)).reshape(1, length, heads * dim)
                for array in arrays
            ]
            if (call := onnx_attention(heads, dim)) is not None:
                contenders["onnxruntime"] = Contender(partial(call, *by_token, causal))
            if (call := openvino_attention(arrays[0].shape, causal)) is not None:
                contenders["openvino"] = Contender(partial(call, *arrays))
        return contenders

    for dtype in DTYPES:
        for dim in (64, 128):
            for length in (128, 512, 1024, 2048, 4096, 8192):
                for causal in (False, True):
                    heads = max(1, min(64, 16384 // length))
                    work = 4 * heads * length**2 * dim / (2 if causal else 1)
                    name = f"attention {dtype} d{dim} N{length} {'causal' if causal else 'full'}"
                    yield Task(name, work, "FLOP", partial(make, dtype, length, dim, causal))


def decode_tasks() -> Iterator[Task]:
    def make(dtype: str, batch: int, heads: int, kv_heads: int) -> dict[str, Contender]:
        query = random(dtype, batch, heads, 1, 128)
        key, value = (random(dtype, batch, kv_heads, 4096, 128, seed=i) for i in (1, 2))
        both = np.concatenate([x.reshape(-1).view(np.uint8) for x in (key, value)])
        words = torch.from_numpy(both).view(torch.int64)
        tensors = tuple(map(tensor, (query, key, value)))
        return {
            "slipstick": Contender(partial(slipstick.attention, query, key, value), peer=False),
            "torch": Contender(partial(sdpa, *tensors, False)),
            "read": Contender(partial(torch.sum, words), peer=False),
        }

    for dtype in DTYPES:
        for batch, heads, kv_heads in ((8, 32, 8), (1, 32, 8), (1, 1, 1)):
            item = 4 if dtype == "float32" else 2
            work = 2 * batch * kv_heads * 4096 * 128 * item
            name = f"decode {dtype} batch {batch} heads {heads}/{kv_heads} N4096 d128"
            yield Task(name, work, "B", partial(make, dtype, batch, heads, kv_heads))


def option_tasks() -> Iterator[Task]:
    """What statistics and the scale cost, beside the same call without."""

    def make(first: dict[str, Any]) -> dict[str, Contender]:
        arrays = [random("float32", 1, 8, 2048, 64, seed=i) for i in range(3)]
        call = partial(slipstick.attention, *arrays)
        return {
            "slipstick": Contender(partial(call, **first), peer=False),
            "without": Contender(partial(call, scale=1 / math.sqrt(64))),
        }

    work = 4 * 8 * 2048**2 * 64
    plain = {"scale": 1 / math.sqrt(64)}
    for name, options in (
        ("statistics", plain | {"return_stats": True}),
        ("LogN", {"scale": LogN()}),
    ):
        yield Task(f"attention float32 d64 N2048, {name}", work, "FLOP", partial(make, options))


def small_tasks() -> Iterator[Task]:
    def make(*shape: int) -> dict[str, Contender]:
        arrays = tuple(random("float32", *shape, seed=i) for i in range(3))
        return {
            "slipstick": Contender(partial(slipstick.attention, *arrays), peer=False),
            "torch": Contender(partial(sdpa, *map(tensor, arrays), False)),
        }

    for shape in ((32, 12, 128, 64), (1, 1, 16, 32)):
        work = 4 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
        yield Task(f"attention float32 {shape}", work, "FLOP", partial(make, *shape))


def peak_tasks() -> Iterator[Task]:
    yield Task("multiply-add peak", 2 * 240**3, "FLOP", lambda: {"slipstick exact": peak()})


def tasks() -> Iterator[Task]:
    yield from peak_tasks()
    yield from forward_tasks()
    yield from decode_tasks()
    yield from option_tasks()
    yield from small_tasks()


if __name__ == "__main__":
    main(__doc__, tasks)
