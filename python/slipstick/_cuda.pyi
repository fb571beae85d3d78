from typing import Any, Protocol

runtime_version: int

def device_count() -> int: ...
def device_name(device: int) -> str: ...
def device_memory(device: int) -> int: ...
def compute_capability(device: int) -> tuple[int, int]: ...
def attention_kernels(device: int) -> list[str]: ...

class Empty(Protocol):
    """Makes arrays on a device, whose memory is used in the order of a stream."""

    @property
    def device(self) -> int: ...
    @property
    def stream(self) -> int: ...
    def __call__(self, shape: tuple[int, ...], dtype: str, /) -> Any: ...

class MitchellMethod:
    def __init__(
        self,
        kind: str,
        width: int = 0,
        bias: float = 0.0,
        mode: str = "",
        table: Any = None,
    ) -> None: ...

def multiply(a: Any, b: Any, method: MitchellMethod, out: Any, empty: Empty) -> Any: ...
def square(a: Any, method: MitchellMethod, out: Any, empty: Empty) -> Any: ...
def divide(a: Any, b: Any, method: MitchellMethod, out: Any, empty: Empty) -> Any: ...
def reciprocal(a: Any, method: MitchellMethod, out: Any, empty: Empty) -> Any: ...
def sqrt(a: Any, out: Any, empty: Empty) -> Any: ...
def log2(a: Any, out: Any, empty: Empty) -> Any: ...
def exp2(a: Any, out: Any, empty: Empty) -> Any: ...
def power(a: Any, p: Any, out: Any, empty: Empty) -> Any: ...
def matmul(
    a: Any,
    b: Any,
    method: MitchellMethod,
    multiplier: float,
    out: Any,
    empty: Empty,
    path: str = "auto",
) -> Any: ...
def conv2d(
    x: Any,
    weight: Any,
    stride: tuple[int, int],
    padding: tuple[int, int],
    same_padding: bool,
    dilation: tuple[int, int],
    groups: int,
    method: MitchellMethod,
    out: Any,
    empty: Empty,
    form: str = "auto",
    path: str = "auto",
) -> Any: ...
def matmul_backward(
    grad: Any,
    a: Any,
    b: Any,
    method: MitchellMethod,
    gradient: str,
    derivative: str,
    offset: float,
    terms: int,
    empty: Empty,
) -> tuple[Any, Any]: ...
def attention(
    query: Any,
    key: Any,
    value: Any,
    law: str,
    scale: Any,
    causal: bool,
    left: int,
    right: int,
    key_lengths: Any,
    mask: Any,
    softcap: float,
    n_keys: Any,
    return_stats: bool,
    out: Any,
    empty: Empty,
) -> tuple[Any, Any, Any, Any]: ...
def attention_backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    entropy: Any,
    grad_lse: Any,
    grad_entropy: Any,
    law: str,
    scale: Any,
    causal: bool,
    left: int,
    right: int,
    key_lengths: Any,
    mask: Any,
    softcap: float,
    n_keys: Any,
    with_scale: bool,
    empty: Empty,
    empty_scale: Empty,
) -> tuple[Any, Any, Any, Any]: ...
def attention_varlen(
    query: Any,
    key: Any,
    value: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    law: str,
    scale: Any,
    causal: bool,
    left: int,
    right: int,
    softcap: float,
    n_keys: Any,
    return_stats: bool,
    out: Any,
    empty: Empty,
) -> tuple[Any, Any, Any, Any]: ...
def project(
    x: Any,
    n_components: int,
    law: tuple[str, int, int, float, int, int],
    first_feature: int,
    fast: bool,
    out: Any,
    empty: Empty,
) -> Any: ...
def back_project(
    y: Any,
    n_features: int,
    law: tuple[str, int, int, float, int, int],
    first_feature: int,
    out: Any,
    empty: Empty,
) -> Any: ...
def projection_block(
    law: tuple[str, int, int, float, int, int],
    first_row: int,
    rows: int,
    first_column: int,
    columns: int,
    out: Any,
    empty: Empty,
) -> Any: ...
def merge_attention(
    parts: list[tuple[Any, Any, Any, Any]], empty: Empty
) -> tuple[Any, Any, Any, Any]: ...
def softmax(scores: Any, law: str, scale: Any, axis: int, out: Any, empty: Empty) -> Any: ...
def simhash(x: Any, n_bits: int, seed: int, empty: Empty) -> Any: ...
def project_csr(
    data: Any,
    indices: Any,
    indptr: Any,
    rows: int,
    features: int,
    n_components: int,
    law: tuple[str, int, int, float, int, int],
    first_feature: int,
    out: Any,
    empty: Empty,
) -> Any: ...
def hadamard(x: Any, axis: int, out: Any, empty: Empty) -> Any: ...
def rotate(x: Any, seed: int, rounds: int, inverse: bool, out: Any, empty: Empty) -> Any: ...
def hamming_distance(a: Any, b: Any, empty: Empty) -> Any: ...
def hamming_topk(queries: Any, codes: Any, k: int, empty: Empty) -> tuple[Any, Any]: ...
