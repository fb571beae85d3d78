"""The peers of attention on the CPU, each in the layout that it likes best.

A peer is given NumPy arrays of shape (batch, heads, length, dim), brings them into its own form and
returns the call to time; None where it is not installed or does not take the dtype.
"""

from __future__ import annotations

import importlib.util
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from contest import Contender, tensor

import slipstick
from slipstick.bench import Call

Arrays = tuple[Any, ...]
Peer = Callable[[Arrays, bool], Call | None]

SLOWEST = 2.0  # seconds; a peer that would take longer runs on a part, scaled


def add_peer(
    contenders: dict[str, Contender], name: str, peer: Peer, arrays: Arrays, causal: bool
) -> None:
    """Add the peer, or its time on a head a thread and shorter sequences, scaled by their work."""
    batch, heads, length, _ = arrays[0].shape
    some, short = min(heads, slipstick.get_num_threads()), min(length, 1024)
    part = tuple(np.ascontiguousarray(array[:1, :some, :short]) for array in arrays)
    call = peer(part, causal)
    if call is None:
        return
    call()
    scale = (length / short) ** 2 * batch * heads / some
    if min(timeit.repeat(call, number=1, repeat=2)) * scale > SLOWEST:
        contenders[f"{name}, scaled"] = Contender(call, scale)
    elif (whole := peer(arrays, causal)) is not None:
        contenders[name] = Contender(whole)


def are_installed(*packages: str) -> bool:
    return all(map(importlib.util.find_spec, packages))


def sdpa(query: Any, key: Any, value: Any, causal: bool = False) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal, enable_gqa=query.shape[1] != key.shape[1]
    )


def torch_forward(arrays: Arrays, causal: bool) -> Call:
    return partial(sdpa, *map(tensor, arrays), causal)


def torch_forward_backward(arrays: Arrays, causal: bool) -> Call:
    """Of (query, key, value, gradient that arrives at the output)."""
    *inputs, grad = map(tensor, arrays)
    inputs = [x.requires_grad_() for x in inputs]
    return lambda: torch.autograd.grad(sdpa(*inputs, causal), inputs, grad)


def zentorch_forward(arrays: Arrays, causal: bool) -> Call | None:
    """The operator itself; importing zentorch leaves torch's own attention as it is."""
    if not are_installed("zentorch"):
        return None
    import zentorch  # noqa: F401

    return partial(torch.ops.zentorch.zentorch_sdpa, *map(tensor, arrays), is_causal=causal)


def jax_forward(arrays: Arrays, causal: bool) -> Call | None:
    """jax.nn.dot_product_attention, compiled, on (batch, length, heads, dim)."""
    if not are_installed("jax"):
        return None
    import jax

    cpu = jax.devices("cpu")[0]
    by_token = [jax.device_put(array.swapaxes(1, 2), cpu) for array in arrays]
    compiled = jax.jit(partial(jax.nn.dot_product_attention, is_causal=causal))
    return lambda: compiled(*by_token).block_until_ready()


def onnx_forward(arrays: Arrays, causal: bool) -> Call | None:
    """onnxruntime's MultiHeadAttention, float32, on (batch, length, heads dim)."""
    if arrays[0].dtype != np.float32 or not are_installed("onnx", "onnxruntime"):
        return None
    import onnx
    import onnxruntime

    batch, heads, length, dim = arrays[0].shape
    shape = (batch, length, heads * dim)
    node = onnx.helper.make_node(
        "MultiHeadAttention",
        ["q", "k", "v"],
        ["out"],
        domain="com.microsoft",
        num_heads=heads,
        unidirectional=int(causal),
    )
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("q", "k", "v", "out")
    ]
    graph = onnx.helper.make_graph([node], "attention", ends[:3], ends[3:])
    opsets = [onnx.helper.make_opsetid(*opset) for opset in (("", 17), ("com.microsoft", 1))]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = slipstick.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    by_token = [np.ascontiguousarray(array.swapaxes(1, 2)).reshape(shape) for array in arrays]
    return partial(session.run, None, dict(zip("qkv", by_token, strict=True)))


def openvino_forward(arrays: Arrays, causal: bool) -> Call | None:
    """OpenVINO's ScaledDotProductAttention; it computes bfloat16 in float32 on a CPU without."""
    if not are_installed("openvino"):
        return None
    import openvino

    shape = arrays[0].shape
    wide = arrays[0].dtype == np.float32
    dtype = openvino.Type.f32 if wide else openvino.Type.bf16
    inputs = [openvino.opset13.parameter(shape, dtype) for _ in arrays]
    node = openvino.opset13.scaled_dot_product_attention(*inputs, causal=causal)
    settings = {"INFERENCE_NUM_THREADS": slipstick.get_num_threads()}
    settings["INFERENCE_PRECISION_HINT"] = "f32" if wide else "bf16"
    model = openvino.Core().compile_model(openvino.Model([node], inputs), "CPU", settings)
    request = model.create_infer_request()
    if not wide:  # whose dtype OpenVINO does not know
        arrays = tuple(openvino.Tensor(x.view(np.int16), shape, dtype) for x in arrays)
    return partial(request.infer, dict(enumerate(arrays)), share_inputs=True, share_outputs=True)


FORWARD: dict[str, Peer] = {
    "torch": torch_forward,
    "onnxruntime": onnx_forward,
    "openvino": openvino_forward,
    "zentorch": zentorch_forward,
    "jax": jax_forward,
}
