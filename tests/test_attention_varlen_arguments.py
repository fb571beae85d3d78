"""What attention_varlen takes and refuses: strides, other frameworks, bad arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import slipstick
from attention_cases import LENGTHS, packed, starts
from attention_oracle import BF16, DTYPES, bits
from slipstick.scales import LogN, SSMax

# --- Layout and frameworks ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(dtype, isa):
    cu = starts([20, 0, 30])
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((50, 3, 4, 2, 8)).astype(dtype)
    q, k, v = (pool[::-1, i, :, 1, ::-1] for i in range(3))
    want = slipstick.attention_varlen(*map(np.ascontiguousarray, (q, k, v)), cu, cu, causal=True)
    np.testing.assert_array_equal(
        bits(slipstick.attention_varlen(q, k, v, cu, cu, causal=True)), bits(want)
    )
    wide = np.repeat(cu.astype(np.int64), 3)[::3]
    out = np.empty((4, 8, 50), dtype).transpose(2, 0, 1)
    result = slipstick.attention_varlen(q, k, v, wide, cu.tolist(), causal=True, out=out)
    assert result is out
    np.testing.assert_array_equal(bits(out), bits(want))


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_torch(name):
    torch = pytest.importorskip("torch")
    q, k, v, cu_q, cu_k = packed(LENGTHS, 4, 2, 8, 8, np.float32)
    tensors = [torch.from_numpy(x).to(getattr(torch, name)) for x in (q, k, v)]
    cu = [torch.from_numpy(x) for x in (cu_q, cu_k)]
    out, stats = slipstick.attention_varlen(
        *tensors, *cu, n_keys=torch.arange(5, 14), causal=True, return_stats=True
    )
    assert all(isinstance(x, torch.Tensor) for x in (out, *stats))
    assert out.dtype == tensors[0].dtype
    dtype = BF16 if name == "bfloat16" else np.dtype(name)
    arrays = [x.double().numpy().astype(dtype) for x in tensors]
    want, want_stats = slipstick.attention_varlen(
        *arrays, cu_q, cu_k, n_keys=np.arange(5, 14), causal=True, return_stats=True
    )
    np.testing.assert_array_equal(out.double().numpy(), want.astype(np.float64))
    np.testing.assert_array_equal(stats.entropy.numpy(), want_stats.entropy)


def test_jax():
    jax = pytest.importorskip("jax")
    arrays = packed(LENGTHS, 4, 2, 8, 8, np.float32)
    out, stats = slipstick.attention_varlen(*map(jax.numpy.asarray, arrays), return_stats=True)
    assert all(isinstance(x, jax.Array) for x in (out, *stats))
    np.testing.assert_array_equal(np.asarray(out), slipstick.attention_varlen(*arrays))


# --- Refusals -------------------------------------------------------------------------------------

Q = np.zeros((5, 4, 8), np.float32)
K = np.zeros((7, 2, 8), np.float32)
V = np.zeros((7, 2, 6), np.float32)
GOOD: dict[str, Any] = {
    "query": Q,
    "key": K,
    "value": V,
    "cu_seqlens_q": [0, 2, 5],
    "cu_seqlens_k": [0, 4, 7],
}
SQUARE: dict[str, Any] = {"cu_seqlens_q": [0, 2, 2, 3, 4, 5], "cu_seqlens_k": [0, 1, 2, 3, 4, 7]}

REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"query": None}, TypeError, r"`query` must be an array .*, got NoneType"),
    ({"query": Q.astype(int)}, TypeError, r"`query` must be float32, .* got int64"),
    ({"key": K.astype(np.float64)}, TypeError, r"`key` must have dtype float32 like `query`, got"),
    ({"value": V.astype(np.float16)}, TypeError, r"`value` must have dtype float32 like `query`"),
    (
        {"query": Q[None]},
        ValueError,
        r"`query` must have 3 axes, \(tokens, heads, columns\), got shape \(1, 5, 4, 8\)",
    ),
    ({"key": K[0]}, ValueError, r"`key` must have 3 axes, .*, got shape \(2, 8\)"),
    ({"value": V[0]}, ValueError, r"`value` must have 3 axes, .*, got shape \(2, 6\)"),
    (
        {"key": K[..., :6]},
        ValueError,
        r"`key` must have 8 columns like `query`, got shape \(7, 2, 6\)",
    ),
    ({"value": V[:6]}, ValueError, r"`value` must have 7 tokens like `key`, got shape \(6, 2, 6\)"),
    ({"value": V[:, :1]}, ValueError, r"`value` must have 2 heads like `key`, got shape"),
    ({"query": Q[:, :3]}, ValueError, r"`query` must have a multiple of the 2 heads of `key`, got"),
    ({"key": K[:, :0], "value": V[:, :0]}, ValueError, r"a multiple of the 0 heads of `key`"),
    (
        {"cu_seqlens_q": None},
        TypeError,
        r"`cu_seqlens_q` must be an array of integers, got None",
    ),
    (
        {"cu_seqlens_k": [0.0, 7.0]},
        TypeError,
        r"`cu_seqlens_k` must be an integer or an array of integers, of .*, got \[0.0, 7.0\]",
    ),
    ({"cu_seqlens_k": np.ones(3)}, TypeError, r"`cu_seqlens_k` must be integer, got float64"),
    (
        {"cu_seqlens_q": 5},
        ValueError,
        r"`cu_seqlens_q` must be of shape \(sequences \+ 1,\), got shape \(\)",
    ),
    ({"cu_seqlens_q": []}, ValueError, r"`cu_seqlens_q` must be of shape .*, got shape \(0,\)"),
    ({"cu_seqlens_q": [[0, 5]]}, ValueError, r"`cu_seqlens_q` must be .*, got shape \(1, 2\)"),
    ({"cu_seqlens_q": [1, 2, 5]}, ValueError, r"`cu_seqlens_q` must start at 0, got 1"),
    ({"cu_seqlens_k": [-1, 2, 7]}, ValueError, r"`cu_seqlens_k` must start at 0, got -1"),
    ({"cu_seqlens_k": [0, 5, 4, 7]}, ValueError, r"`cu_seqlens_k` must not fall, got 4 after 5"),
    ({"cu_seqlens_k": [0, -1, 7]}, ValueError, r"`cu_seqlens_k` must not fall, got -1 after 0"),
    (
        {"cu_seqlens_q": [0, 2, 6]},
        ValueError,
        r"`cu_seqlens_q` must stay within the 5 tokens of `query`, got 6",
    ),
    (
        {"cu_seqlens_k": np.array([0, 2**64 - 1, 7], np.uint64)},
        ValueError,
        r"`cu_seqlens_k` must stay within the 7 tokens of `key`, got 18446744073709551615",
    ),
    (
        {"cu_seqlens_k": [0, 3, 6]},
        ValueError,
        r"`cu_seqlens_k` must end at 7, the number of tokens of `key`, got 6",
    ),
    (
        {"cu_seqlens_k": [0, 7]},
        ValueError,
        r"`cu_seqlens_k` must have 3 entries like `cu_seqlens_q`, got 2",
    ),
    ({"scale": None}, TypeError, r"`scale` must be an object of slipstick.scales, .* got NoneType"),
    ({"scale": LogN}, TypeError, r"`scale` must be .* got the class LogN"),
    (
        {"scale": np.ones((5, 4))},
        ValueError,
        r"`scale` must broadcast to \(heads, queries\), here \(4, 5\), got shape \(5, 4\)",
    ),
    ({"scale": np.ones((1, 4, 5))}, ValueError, r"`scale` must broadcast to \(heads, queries\)"),
    ({"scale": np.ones(5, int)}, TypeError, r"`scale` must be float32, .* got int64"),
    ({"scale": SSMax([1.0, 2.0])}, ValueError, r"`scale` must have one entry .* the 4 heads, got"),
    ({"causal": 1}, TypeError, r"`causal` must be True or False, got 1"),
    ({"return_stats": None}, TypeError, r"`return_stats` must be True or False, got None"),
    ({"window": 3}, TypeError, r"`window` must be None or \(left, right\), .*, got 3"),
    ({"window": (-2, 0)}, ValueError, r"`window` must be .* got \(-2, 0\)"),
    ({"softcap": 0}, ValueError, r"`softcap` must be None or a finite number above 0, got 0"),
    ({"softcap": "1"}, TypeError, r"`softcap` must be .* got '1'"),
    ({"softcap": 1e-50}, ValueError, r"`softcap` must be above 0 and finite in float32, got 1e-50"),
    (
        {"n_keys": 2.0},
        TypeError,
        r"`n_keys` must be an integer or an array of integers, of at most 64 bits, got 2.0",
    ),
    ({"n_keys": np.ones(2)}, TypeError, r"`n_keys` must be integer, got float64"),
    ({"n_keys": -1}, ValueError, r"`n_keys` must be from 0 to 9007199254740992, got -1"),
    (
        {"n_keys": [1, 2, 3]},
        ValueError,
        r"`n_keys` must be an integer or of shape \(sequences,\) or \(queries,\), here \(2,\) or "
        r"\(5,\), got shape \(3,\)",
    ),
    ({"n_keys": [[1], [2]]}, ValueError, r"`n_keys` must be .*, got shape \(2, 1\)"),
    (
        SQUARE | {"n_keys": [1, 2, 3, 4, 5]},
        ValueError,
        r"`n_keys` must be of shape \(1, 5\) for one number a query where there are as many "
        r"sequences as queries, got shape \(5,\)",
    ),
    ({"out": np.empty((4, 5, 6), np.float32)}, ValueError, r"`out` must have shape \(5, 4, 6\)"),
    ({"out": np.empty((5, 4, 6))}, TypeError, r"`out` must have dtype float32, got float64"),
]


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(bad, error, match):
    out = np.full((5, 4, 6), 7, np.float32)
    with pytest.raises(error, match=match) as caught:
        slipstick.attention_varlen(**(GOOD | {"out": out} | bad))
    assert str(caught.value).startswith("attention_varlen: `")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(out, 7)


def test_more_bounds_than_fit_the_memory():
    """A broadcast view holds them in 8 bytes."""
    empty = np.zeros((0, 1, 8), np.float32)
    bounds = np.broadcast_to(np.int64(0), (2**56,))
    with pytest.raises(MemoryError):
        slipstick.attention_varlen(empty, empty, empty, bounds, bounds)


def test_one_query_in_each_sequence_is_not_ambiguous():
    arrays = packed([(1, 3), (1, 5)], 2, 1, 4, 4, np.float32)
    np.testing.assert_array_equal(
        slipstick.attention_varlen(*arrays, n_keys=[30, 50]),
        slipstick.attention_varlen(*arrays, n_keys=[[30, 50]]),
    )


@pytest.mark.parametrize("name", ["query", "key", "value", "cu_seqlens_k", "n_keys"])
def test_out_shares_no_memory_with_an_input(name):
    pool = np.zeros(4096, np.float32)
    out = pool[:120].reshape(5, 4, 6)
    arrays: dict[str, Any] = GOOD | {"n_keys": np.ones(5, np.int32)}
    if name in ("query", "key", "value"):
        array = arrays[name]
        arrays[name] = pool[119 : 119 + array.size].reshape(array.shape)
    else:
        numbers = pool[:120].view(np.int32)
        numbers[:3] = [0, 4, 7]
        arrays[name] = numbers[:3] if name == "cu_seqlens_k" else numbers[5:10]
    before = pool.copy()
    with pytest.raises(ValueError, match=f"attention_varlen: `out` must not overlap `{name}`"):
        slipstick.attention_varlen(**arrays, out=out)
    np.testing.assert_array_equal(pool, before)


def test_bounds_that_change_after_they_were_checked():
    x = np.ones((6, 1, 4), np.float32)
    cu = np.array([0, 2, 6])
    out = np.empty_like(x)

    class Changing:
        def __dlpack__(self, **options):
            cu[:] = 2**40
            return out.__dlpack__(**options)

    slipstick.attention_varlen(x, x, x, cu, np.array([0, 2, 6]), out=Changing())
    np.testing.assert_array_equal(out, x)
