"""`slipstick.attention_varlen`: packed sequences give the bits of a loop over them."""

from __future__ import annotations

import doctest
import functools
import itertools
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import slipstick
from attention_oracle import BF16, DTYPES, INF, distance, expected, largest, ulp
from slipstick import reference
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature

# Queries and keys of each sequence: one alone, decoding, a chunk, more queries than keys, without
# queries, without keys, without both, more than a tile of either, equal ones.
LENGTHS = [(1, 1), (1, 300), (17, 90), (9, 4), (0, 12), (5, 0), (0, 0), (150, 310), (33, 33)]


def bounds(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def packed(lengths, heads, kv_heads, dim, dim_v, dtype, seed=0):
    """Return query, key, value, cu_seqlens_q, cu_seqlens_k."""
    rng = np.random.default_rng(seed)
    cu_q, cu_k = (bounds([pair[i] for pair in lengths]) for i in range(2))

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    return (
        draw(cu_q[-1], heads, dim),
        draw(cu_k[-1], kv_heads, dim),
        draw(cu_k[-1], kv_heads, dim_v),
        cu_q,
        cu_k,
    )


def sequences(arrays, options, heads):
    """Yield, for each sequence, its queries, and the arguments of `attention` for it alone."""
    q, k, v, cu_q, cu_k = arrays
    pairs = zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True)
    for s, ((start, stop), (first, last)) in enumerate(pairs):
        own = dict(options)
        scale, n_keys = options.get("scale"), options.get("n_keys")
        if isinstance(scale, np.ndarray):
            own["scale"] = np.broadcast_to(scale, (heads, len(q)))[:, start:stop]
        if n_keys is not None and np.ndim(n_keys) > 0:
            n_keys = np.asarray(n_keys)
            by_sequence = n_keys.shape == (len(cu_q) - 1,)
            own["n_keys"] = n_keys[s].item() if by_sequence else n_keys.reshape(-1)[start:stop]
        parts = (q[start:stop], k[first:last], v[first:last])
        yield slice(start, stop), tuple(x.swapaxes(0, 1) for x in parts), own


def bits(array):
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.dtype.itemsize}")


def assert_equal_to_the_loop(arrays, options, heads):
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True, **options)
    assert out.shape == (len(arrays[0]), heads, arrays[2].shape[2])
    assert out.dtype == arrays[0].dtype
    for at, alone, own in sequences(arrays, options, heads):
        one, one_stats = slipstick.attention(*alone, return_stats=True, **own)
        np.testing.assert_array_equal(bits(out[at].swapaxes(0, 1)), bits(one))
        for whole, part in zip(stats, one_stats, strict=True):
            assert whole.shape == (heads, len(out))
            assert whole.dtype == part.dtype
            np.testing.assert_array_equal(bits(whole[:, at]), bits(part))
    np.testing.assert_array_equal(bits(slipstick.attention_varlen(*arrays, **options)), bits(out))
    return out, stats


TOTAL = sum(queries for queries, _ in LENGTHS)
PER_ROW = 0.4 * np.random.default_rng(2).standard_normal((4, TOTAL))
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"causal": True},
    "window": {"window": (5, 3)},
    "window, causal": {"window": (40, 3), "causal": True},
    "window left": {"window": (7, None)},
    "window of one": {"window": (0, 0)},
    "window wide": {"window": (10**9, 2**40)},
    "softcap": {"softcap": 0.7, "causal": True},
    "Su negative": {"scale": Su(-1.3), "causal": True},
    "ClippedLogN": {"scale": ClippedLogN(20), "causal": True},
    "SSMax a head": {"scale": SSMax([0.3, -0.2, 0.0, 0.5], b=0.1), "causal": True},
    "Temperature": {"scale": Temperature(0.4, 50, offset=1), "causal": True},
    "float": {"scale": 0.25},
    "zero": {"scale": 0.0, "causal": True},
    "array": {"scale": PER_ROW, "causal": True},
    "array of queries": {"scale": PER_ROW[0]},
    "array of heads": {"scale": PER_ROW[:, :1].astype(np.float32)},
    "n_keys": {"n_keys": 5000, "causal": True},
    "n_keys a sequence": {"n_keys": np.arange(10, 19, dtype=np.uint8)},
    "n_keys a query": {"n_keys": np.arange(TOTAL)[::-1], "causal": True},
    "n_keys a query, two axes": {"n_keys": np.arange(TOTAL)[np.newaxis], "scale": SSMax(0.2)},
}


@functools.cache
def grid(dtype):
    return packed(LENGTHS, 4, 2, 13, 9, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_equal_to_the_loop(name, dtype, isa):
    assert_equal_to_the_loop(grid(dtype), OPTIONS[name], 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_error(name, dtype):
    """The rules of attention, for the packed tensor: e_ref is that of a naive loop over it."""
    arrays, options = grid(dtype), OPTIONS[name]
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True, **options)
    definition, _ = reference.attention_varlen(*arrays, return_stats=True, **options)
    yardstick, error, size, gaps = 0.0, 0.0, 0.0, []
    for at, alone, own in sequences(arrays, options, 4):
        if out[at].size == 0:
            continue
        exact, errors = expected(*alone, own)
        if dtype != np.float64:  # whose exact values are longdouble
            np.testing.assert_array_equal(definition[at].swapaxes(0, 1), exact.out)
        yardstick, size = max(yardstick, errors.out), max(size, largest(exact.out))
        got = out[at].swapaxes(0, 1).astype(np.longdouble)
        error = max(error, distance(got, exact.out).max(initial=0))
        gaps.append([(distance(a[:, at], b), b) for a, b in zip(stats, exact[1:], strict=True)])
    assert error <= yardstick + 2 * ulp(dtype, size)
    absolute = 2e-14 if dtype == np.float64 else 1e-5
    for gap, right in itertools.chain(*gaps):
        assert gap.max() <= absolute + 2 * ulp(stats.lse.dtype, largest(right))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(1, 1), (6, 1), (3, 3), (8, 2)], ids=str)
@pytest.mark.parametrize("dims", [(64, 64), (1, 3), (128, 20), (300, 5), (8, 0)], ids=str)
def test_sizes(dims, heads, causal, threads):
    lengths = [(3, 250), (200, 200), (1, 1), (64, 0), (65, 500), (1, 479)]
    arrays = packed(lengths, *heads, *dims, np.float32)
    assert_equal_to_the_loop(arrays, {"causal": causal}, heads[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_lengths_are_the_batch(dtype, isa):
    q, k, v, cu_q, cu_k = packed([(70, 130)] * 5, 4, 2, 16, 8, dtype)
    out, stats = slipstick.attention_varlen(q, k, v, cu_q, cu_k, causal=True, return_stats=True)
    batch = (x.reshape(5, -1, *x.shape[1:]).swapaxes(1, 2) for x in (q, k, v))
    want, want_stats = slipstick.attention(*batch, causal=True, return_stats=True)
    np.testing.assert_array_equal(bits(out.reshape(5, 70, 4, 8).swapaxes(1, 2)), bits(want))
    for got, right in zip(stats, want_stats, strict=True):
        np.testing.assert_array_equal(bits(got.reshape(4, 5, 70).swapaxes(0, 1)), bits(right))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_depend_on_the_sequence_alone(dtype, isa):
    """Not on threads, on the run, or on the other sequences and their order."""
    arrays = grid(dtype)
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(1)
        whole = slipstick.attention_varlen(*arrays, causal=True, return_stats=True)
        for count in (1, 2, 7, 7):
            slipstick.set_num_threads(count)
            again = slipstick.attention_varlen(*arrays, causal=True, return_stats=True)
            for a, b in zip((whole[0], *whole[1]), (again[0], *again[1]), strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))
    finally:
        slipstick.set_num_threads(before)
    q, k, v, cu_q, cu_k = arrays
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    tokens_q, tokens_k = (
        np.concatenate([np.arange(cu[s], cu[s + 1]) for s in order]) for cu in (cu_q, cu_k)
    )
    lengths = [LENGTHS[s] for s in order]
    other = slipstick.attention_varlen(
        q[tokens_q],
        k[tokens_k],
        v[tokens_k],
        *(bounds([pair[i] for pair in lengths]) for i in range(2)),
        causal=True,
    )
    np.testing.assert_array_equal(bits(other), bits(whole[0][tokens_q]))


def test_more_packed_keys_than_are_alive_at_once(threads):
    """Packed, the keys and values of one head of the longer ones are 4 MiB: several rounds."""
    lengths = [(80, 6000), (3, 50), (80, 7000), (1, 9000), (70, 6500)]
    arrays = packed(lengths, 2, 2, 64, 64, np.float32)
    assert_equal_to_the_loop(arrays, {}, 2)


def test_many_short_sequences(threads):
    rng = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in rng.integers(0, 9, (700, 2))]
    arrays = packed([*lengths, (300, 900), *lengths], 2, 1, 8, 8, np.float32)
    assert_equal_to_the_loop(arrays, {"causal": True}, 2)


def test_empty_rows():
    q, k, v, cu_q, cu_k = packed([(5, 0), (4, 2), (0, 7)], 2, 2, 8, 8, np.float32)
    for n_keys in (None, 100):
        out, stats = slipstick.attention_varlen(
            q, k, v, cu_q, cu_k, causal=True, n_keys=n_keys, return_stats=True
        )
        empty = slice(0, 7)  # a sequence without keys, two queries before the first key
        np.testing.assert_array_equal(out[empty], 0)
        np.testing.assert_array_equal(stats.lse[:, empty], -INF)
        np.testing.assert_array_equal(stats.entropy[:, empty], 0)
        np.testing.assert_array_equal(stats.max_logit[:, empty], -INF)
        assert np.isfinite(stats.lse[:, 7:]).all()


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_sequences_and_no_tokens(count, sizes):
    if count == 0 and sizes != (0, 0):
        pytest.skip("tokens belong to a sequence")
    arrays = packed([(0, 0), (0, 0), sizes][3 - count :], 2, 1, 4, 6, np.float32)
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True)
    assert (out.shape, stats.lse.shape) == ((sizes[0], 2, 6), (2, sizes[0]))
    np.testing.assert_array_equal(out, 0)
    assert slipstick.attention_varlen(*arrays).shape == out.shape


def test_no_heads():
    arrays = packed([(3, 4)], 0, 0, 4, 6, np.float32)
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True)
    assert (out.shape, stats.lse.shape) == ((3, 0, 6), (0, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_another_sequence_holds_does_no_harm(bad, isa):
    arrays = grid(np.dtype(np.float32))
    q, k, v, cu_q, cu_k = (x.copy() for x in arrays)
    clean = slipstick.attention_varlen(*arrays)
    for x, cu in ((q, cu_q), (k, cu_k), (v, cu_k)):
        x[cu[2] : cu[3]] = bad
    spoilt = slipstick.attention_varlen(q, k, v, cu_q, cu_k)
    assert np.isnan(spoilt[cu_q[2] : cu_q[3]]).all()
    for part in (slice(0, cu_q[2]), slice(cu_q[3], None)):
        np.testing.assert_array_equal(spoilt[part], clean[part])


# --- Layout and frameworks ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(dtype, isa):
    cu = bounds([20, 0, 30])
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


def test_merging_shards_of_packed_keys():
    """The statistics have the heads first, so out is turned."""
    q, k, v, cu_q, cu_k = packed([(9, 40), (4, 30)], 4, 2, 16, 8, np.float32)
    whole, whole_stats = slipstick.attention_varlen(q, k, v, cu_q, cu_k, return_stats=True)
    parts = []
    for take in (lambda a, b: np.arange(a, a + 11), lambda a, b: np.arange(a + 11, b)):
        tokens = [take(a, b) for a, b in itertools.pairwise(cu_k)]
        own, cu = np.concatenate(tokens), bounds([len(x) for x in tokens])
        out, stats = slipstick.attention_varlen(
            q, k[own], v[own], cu_q, cu, n_keys=[40, 30], return_stats=True
        )
        parts.append((out.swapaxes(0, 1), stats))
    out, stats = slipstick.merge_attention(parts)
    # Two float32 computations of values below 4 and scores below 8: some ulps of either.
    assert distance(out.swapaxes(0, 1), whole).max() <= 1e-5
    assert distance(stats.entropy, whole_stats.entropy).max() <= 1e-5


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
        r"`cu_seqlens_k` must be an integer or an array of integers, got \[0.0, 7.0\]",
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
        r"`cu_seqlens_k` must stay within the 7 tokens of `key`, got 9223372036854775807",
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
    ({"n_keys": 2.0}, TypeError, r"`n_keys` must be an integer or an array of integers, got 2.0"),
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


# --- Memory and examples --------------------------------------------------------------------------

MEMORY = """
import resource
import numpy as np
import slipstick

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

slipstick.set_num_threads(2)
q, k, v = np.random.default_rng(0).standard_normal((3, 16384, 1, 32), dtype=np.float32)
cu = np.array([0, 64])
slipstick.attention_varlen(q[:64], k[:64], v[:64], cu, cu)
before = peak()
cu = np.array([0, 100, 15000, 16384])
slipstick.attention_varlen(q, k, v, cu, cu, causal=True, return_stats=True)
print(peak() - before)
"""


def test_memory_grows_linearly():
    """All scores would be 0.9 GiB; keys and values packed are 4 MiB, out 2 MiB."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer keeps freed memory")
    run = [sys.executable, "-c", MEMORY]
    used = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert used < 24 << 20


def test_the_count_restarts_in_each_sequence():
    """Where query and key are 1 in one column, max_logit is lambda: it tells n."""
    x = np.zeros((9, 1, 64), np.float32)
    x[..., 0] = 1
    cu = [0, 4, 9]
    _, stats = slipstick.attention_varlen(x, x, x, cu, cu, causal=True, return_stats=True)
    counts = [1, 2, 3, 4, 1, 2, 3, 4, 5]
    want = np.float32([math.log(n) / (math.log(512) * 8) for n in counts])
    assert distance(stats.max_logit[0], want).max() <= ulp(want.dtype, want.max())


def test_examples():
    import slipstick._attention_varlen as module
    import slipstick.reference._varlen as definition

    for each in (module, definition):
        result = doctest.testmod(each)
        assert result.attempted > 0
        assert result.failed == 0
