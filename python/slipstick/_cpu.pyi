from typing import Any

from slipstick._arrays import Empty

version: str
compiler: str
levels: tuple[str, ...]
best_isa: str
max_threads: int
error_bins: int
error_bins_per_unit: int

class MitchellMethod:
    def __init__(
        self,
        kind: str,
        width: int = 0,
        bias: float = 0.0,
        mode: str = "",
        table: Any = None,
    ) -> None: ...

def shape(function: str, argument: str, array: Any) -> tuple[int, ...]: ...
def get_isa() -> str: ...
def set_isa(level: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
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
def is_commutative(method: MitchellMethod) -> bool: ...
def error_rows(
    method: MitchellMethod,
    bits: int,
    signed: bool,
    a: Any,
    b: Any,
    weight_a: Any,
    weight_b: Any,
    symmetric: bool,
    begin: int,
    end: int,
    histogram: Any,
) -> tuple[Any, Any]: ...
def worst_pairs(
    method: MitchellMethod,
    bits: int,
    signed: bool,
    a: Any,
    b: Any,
    symmetric: bool,
    rows: Any,
    largest: float,
    multiplicity_a: Any,
    multiplicity_b: Any,
    limit: int,
) -> tuple[int, int, int, Any, Any]: ...
def products_of_bits(method: MitchellMethod, bits: int, signed: bool, a: Any, b: Any) -> Any: ...
def project(
    x: Any,
    n_components: int,
    law: tuple[str, int, int, float, int, int],
    first_feature: int,
    fast: bool,
    out: Any,
    empty: Empty,
) -> Any: ...
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
def back_project(
    y: Any,
    n_features: int,
    law: tuple[str, int, int, float, int, int],
    first_feature: int,
    out: Any,
    empty: Empty,
) -> Any: ...
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
def merge_attention(
    parts: list[tuple[Any, Any, Any, Any]], empty: Empty
) -> tuple[Any, Any, Any, Any]: ...
def softmax(scores: Any, law: str, scale: Any, axis: int, out: Any, empty: Empty) -> Any: ...
def skinny_times(a: Any, factor: Any, out: Any) -> None: ...
def skinny_transposed(a: Any, factor: Any, out: Any) -> None: ...
def projection_block(
    law: tuple[str, int, int, float, int, int],
    first_row: int,
    rows: int,
    first_column: int,
    columns: int,
    out: Any,
    empty: Empty,
) -> Any: ...
def hadamard(x: Any, axis: int, out: Any, empty: Empty) -> Any: ...
def rotate(x: Any, seed: int, rounds: int, inverse: bool, out: Any, empty: Empty) -> Any: ...
def philox4x32(c0: int, c1: int, c2: int, c3: int, seed: int) -> tuple[int, int, int, int]: ...
def gaussian_from_bits(word: int) -> float: ...
def simhash(x: Any, n_bits: int, seed: int, empty: Empty) -> Any: ...
def hamming_distance(a: Any, b: Any, empty: Empty) -> Any: ...
def hamming_topk(queries: Any, codes: Any, k: int, empty: Empty) -> tuple[Any, Any]: ...
def probe_ranks(penalties: Any, probes: int) -> Any: ...
def rank_candidates(
    vectors: Any, rows: Any, queries: Any, begin: Any, end: Any, euclidean: bool, k: int
) -> tuple[Any, Any] | None: ...
