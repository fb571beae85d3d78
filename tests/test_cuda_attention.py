"""`slipstick.attention` on CUDA devices, by the rules that the CPU is tested with.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import slipstick
from attention_cases import options_for
from attention_on_device import attend, with_dtypes
from attention_oracle import (
    BF16,
    DTYPES,
    INF,
    bits,
    bool_mask,
    compare,
    distance,
    expected,
    float_mask,
    inputs,
    largest,
    ulp,
)
from slipstick.scales import LogN, SSMax, Su

HALVES = [np.dtype(np.float16), BF16]

# 2 sequences, 4 heads over 2 key heads, 37 queries (74 rows a key head), 133 keys: two tiles either
# way or more, nothing a multiple of anything.
SHAPE = (2, 4, 2, 37, 133, 13, 9)
OPTIONS = options_for(133)


@functools.cache
def grid_case(name, dtype):
    arrays = inputs(*SHAPE, dtype)
    return arrays, expected(*arrays, OPTIONS[name])


@pytest.mark.parametrize(("name", "dtype"), with_dtypes(OPTIONS))
def test_options(device, name, dtype):
    arrays, want = grid_case(name, dtype)
    compare(attend(device, arrays, OPTIONS[name]), *arrays, OPTIONS[name], want=want)


SIZES = [
    # batch, heads, kv_heads, queries, keys, dim, dim_v
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 17, 1, 3, 5),
    (0, 2, 2, 3, 4, 5, 6),
    (2, 0, 1, 3, 4, 5, 6),
    (2, 2, 2, 0, 4, 5, 6),
    (2, 2, 1, 20, 0, 5, 6),
    (2, 2, 1, 20, 4, 5, 0),
    (1, 1, 1, 27, 3, 4, 4),
    (1, 1, 1, 97, 13, 8, 16),
    (3, 8, 2, 11, 65, 31, 33),
    (1, 1, 1, 63, 63, 64, 64),
    (1, 1, 1, 64, 64, 65, 63),
    (1, 1, 1, 65, 129, 64, 128),
    (1, 2, 2, 128, 128, 128, 64),
    (1, 1, 1, 129, 193, 17, 2),
    (1, 3, 3, 18, 67, 128, 128),
    (1, 1, 1, 35, 70, 256, 256),
    (1, 1, 1, 33, 66, 129, 250),
    (1, 1, 1, 40, 300, 192, 40),
]


@functools.cache
def size_case(sizes, dtype, causal):
    arrays = inputs(*sizes, dtype)
    return arrays, expected(*arrays, {"causal": causal})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("sizes", "dtype"), with_dtypes(SIZES))
def test_sizes(device, sizes, causal, dtype):
    arrays, want = size_case(sizes, dtype, causal)
    options = {"causal": causal}
    compare(attend(device, arrays, options), *arrays, options, want=want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_columns_weigh_all_keys_alike(device, dtype):
    for queries in (3, 40):
        arrays = inputs(1, 2, 2, queries, 70, 0, 4, dtype)
        options = {"scale": 1.0}
        rows = compare(attend(device, arrays, options), *arrays, options)
        assert distance(rows.entropy, math.log(70)).max() <= 1e-6


# --- Few rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [1, 3, 63, 64, 65, 255, 513, 1100])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_query(device, dtype, keys):
    arrays = inputs(2, 4, 2, 1, keys, 24, 9, dtype, seed=keys)
    compare(attend(device, arrays, {}), *arrays, {})


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "queries"), [(8, 1, 1), (3, 1, 2), (16, 2, 2)])
@pytest.mark.parametrize("dim", [1, 7, 64, 130, 256])
def test_rows_of_a_group(device, heads, kv_heads, queries, dim, dtype):
    arrays = inputs(1, heads, kv_heads, queries, 300, dim, min(dim + 3, 256), dtype)
    for options in ({}, {"causal": True, "window": (70, 5)}, {"softcap": 3.0}):
        compare(attend(device, arrays, options), *arrays, options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_few_rows_with_masks_and_lengths(device, dtype):
    arrays = inputs(3, 4, 2, 2, 700, 24, 16, dtype)
    first_part = np.ones((1, 1, 1, 700), bool)
    first_part[..., :530] = False
    for options in (
        {"mask": bool_mask(3, 4, 2, 700)},
        {"mask": float_mask(1, 1, 2, 700)},
        {"mask": first_part},
        {"mask": ~first_part, "causal": True},
        {"key_lengths": np.array([0, 64, 699])},
        {"key_lengths": np.array([1, 256, 257]), "n_keys": np.array([5, 7, 5000])},
        {"scale": SSMax(0.3, -0.1)},
        {"scale": SSMax([0.3, -0.2, 0.0, 0.5], b=0.1), "causal": True},
        {"scale": -0.2},
        {"scale": np.random.default_rng(2).standard_normal((3, 4, 2))},
    ):
        compare(attend(device, arrays, options), *arrays, options)


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [2, 40], ids=["few rows", "rows"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_logits_up_to_1e5(device, dtype, queries):
    for size in (1e3, 1e5, -1e5):
        # Of many rows: of a few the naive error would be that of some lucky numbers.
        q, k, v = inputs(4, 8, 2, queries, 150, 16, 8, dtype)
        q[..., 0], k[..., 0] = 1.0, size
        for causal in (False, True):
            options = {"scale": 1.0, "causal": causal}
            compare(attend(device, (q, k, v), options), q, k, v, options, large=True)


@pytest.mark.parametrize("queries", [2, 40], ids=["few rows", "rows"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_large_logits_of_halves(device, dtype, queries):
    q, k, v = inputs(4, 8, 2, queries, 150, 16, 8, dtype)
    q[..., 0], k[..., 0] = 16.0, 1024.0
    for options in ({"scale": 1.0}, {"scale": -1.0, "causal": True}):
        compare(attend(device, (q, k, v), options), q, k, v, options, large=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [1, 40], ids=["few rows", "rows"])
def test_all_masked_tiles_before_negative_scores(device, queries, dtype):
    q, k, v = inputs(1, 1, 1, queries, 400, 8, 8, dtype)
    q[..., 0], k[..., 0] = 1.0, -500.0
    options = {"scale": 1.0, "mask": np.arange(400) >= 350}
    rows = compare(attend(device, (q, k, v), options), q, k, v, options, large=True)
    assert (rows.max_logit < -400).all()


@pytest.mark.parametrize("queries", [4, 40], ids=["few rows", "rows"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_scores_have_the_entropy_of_their_number(device, dtype, queries):
    n = 300
    q, k, v = inputs(1, 2, 2, queries, n, 8, 8, dtype)
    k[:] = k[:, :, :1]
    options = {"scale": 1.0}
    rows = compare(attend(device, (q, k, v), options), q, k, v, options)
    # l = n and a = 0, so that the logarithm rounds, and n exp2(0)s.
    assert distance(rows.entropy, math.log(n)).max() <= 4 * ulp(rows.entropy.dtype, math.log(n))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_dominant_score_has_no_entropy(device, dtype):
    q, k, v = inputs(1, 1, 1, 20, 300, 8, 8, dtype)
    q[:], k[:] = 1.0, 0.0
    k[:, :, 123] = 100.0
    rows = attend(device, (q, k, v), {"scale": 1.0})
    np.testing.assert_array_equal(rows.entropy, 0)
    np.testing.assert_array_equal(rows.out[0, 0], np.broadcast_to(v[0, 0, 123], (20, 8)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "scale", [LogN(), Su(-3.0), SSMax(2.0), SSMax(1.0, b=2.0), -7.0, 0.0, 1e20]
)
def test_a_row_with_one_key_is_its_value(device, scale, dtype):
    arrays = inputs(2, 2, 2, 1, 1, 8, 8, dtype)
    rows = attend(device, arrays, {"scale": scale})
    np.testing.assert_array_equal(rows.out, arrays[2])
    np.testing.assert_array_equal(rows.entropy, 0)
    np.testing.assert_array_equal(rows.lse, rows.max_logit)
    arrays = inputs(1, 2, 2, 25, 25, 8, 8, dtype)
    rows = attend(device, arrays, {"scale": scale, "causal": True})
    np.testing.assert_array_equal(rows.out[:, :, 0], arrays[2][:, :, 0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_lambda_near_the_largest_float(device, dtype):
    """Times log2 e it is beyond float32; the scores are not."""
    for rows, dim in ((2, 8), (25, 8), (25, 9)):
        query, key, value = inputs(1, 2, 2, rows, 1, dim, 8, dtype)
        query = (0.01 * query.astype(np.float32)).astype(dtype)
        got = attend(device, (query, key, value), {"scale": -3.4e38})
        np.testing.assert_array_equal(got.out, np.broadcast_to(value, got.out.shape))
        np.testing.assert_array_equal(got.entropy, 0)
        np.testing.assert_array_equal(got.lse, got.max_logit)
        assert np.isfinite(got.lse).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_rows(device, dtype):
    for queries in (5, 30):
        arrays = inputs(2, 2, 1, queries, 3, 8, 8, dtype)
        rows = attend(device, arrays, {"causal": True, "key_lengths": [3, 0]})
        for empty in (np.s_[0, :, : queries - 3], np.s_[1]):
            np.testing.assert_array_equal(rows.out[empty], 0)
            np.testing.assert_array_equal(rows.lse[empty], -INF)
            np.testing.assert_array_equal(rows.entropy[empty], 0)
            np.testing.assert_array_equal(rows.max_logit[empty], -INF)
        assert np.isfinite(rows.lse[0, :, queries - 3 :]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [4, 40], ids=["few rows", "rows"])
def test_what_is_hidden_does_no_harm(device, bad, dtype, queries):
    q, k, v = inputs(1, 2, 1, queries, 140, 8, 8, dtype)
    mask = bool_mask(queries, 140)
    mask[:, 7] = False
    options = {"mask": mask, "key_lengths": [130], "causal": True}
    clean = attend(device, (q, k, v), options)
    for array in (k, v):
        array[:, :, [7, 130, 139]] = bad
    spoilt = attend(device, (q, k, v), options)
    for got, right in zip(spoilt, clean, strict=True):
        # A tile with a value that is not finite may add in another order.
        eps = ulp(q.dtype if got is spoilt.out else got.dtype, largest(right))
        assert distance(got.astype(np.float64), right.astype(np.float64)).max() <= 4 * eps
    v[:, :, 125] = bad  # a key that some rows see
    options = options | {"scale": 0.3}
    compare(attend(device, (q, k, v), options), q, k, v, options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("queries", [6, 40], ids=["few rows", "rows"])
def test_infinite_and_nan_lambda_propagate_in_their_row_only(device, queries, bad, dtype):
    arrays = inputs(1, 1, 1, queries, 20, 8, 8, dtype)
    scale = np.full(queries, 0.3)
    clean = attend(device, arrays, {"scale": scale})
    scale[2] = bad
    options = {"scale": scale}
    rows = compare(attend(device, arrays, options), *arrays, options)
    assert np.isnan(rows.out[0, 0, 2]).all()
    rest = np.arange(queries) != 2
    np.testing.assert_array_equal(bits(rows.out[0, 0, rest]), bits(clean.out[0, 0, rest]))
    options = {"scale": scale, "mask": np.zeros(20, bool)}
    np.testing.assert_array_equal(attend(device, arrays, options).out, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [5, 40], ids=["few rows", "rows"])
def test_what_is_not_finite_in_query_or_key_propagates(device, queries, dtype, bad):
    q, k, v = inputs(1, 1, 1, queries, 140, 5, 4, dtype)
    q[0, 0, 1, -1] = bad
    compare(attend(device, (q, k, v), {}), q, k, v, {})
    q, k, v = inputs(1, 1, 1, queries, 140, 5, 4, dtype)
    k[0, 0, 120, 1] = bad
    compare(attend(device, (q, k, v), {"causal": True}), q, k, v, {"causal": True})
    q, k, v = inputs(1, 1, 1, queries, 140, 5, 4, dtype)
    k[0, 0, :, :] = bad
    q[:] = np.abs(q)
    compare(attend(device, (q, k, v), {"scale": 1.0}), q, k, v, {"scale": 1.0})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_inf_in_an_additive_mask(device, dtype):
    for queries in (4, 40):
        arrays = inputs(1, 1, 1, queries, 9, 4, 4, dtype)
        mask = np.zeros((queries, 9), np.float32)
        mask[1, 3], mask[2, 4] = np.nan, np.inf
        options = {"mask": mask, "scale": 0.5}
        rows = compare(attend(device, arrays, options), *arrays, options)
        assert np.isnan(rows.out[0, 0, 1:3]).all()


# --- The rule for n -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=str)
def test_lambda_is_the_cpus_on_every_path(device, dtype):
    """Where query and key are 1 in one column, max_logit is lambda: it tells n and the rounding."""
    for n in (1, 2, 3, 17, 130):
        want = np.float32(LogN().factor(n, dim=64))
        q = np.zeros((1, 1, max(n, 20), 64), dtype)
        q[..., 0] = 1
        k = q[:, :, :n]
        long = np.ones((1, 1, n + 3, 64), dtype)
        long[:, :, 3:] = k
        mask = np.arange(n + 3) >= 3
        for arrays, options in (
            ((q, k, k), {"causal": True}),  # prefill, last row
            ((q[:, :, -1:], k, k), {}),  # decoding
            ((q[:, :, -1:], long, long), {"mask": mask}),
            ((q, long[:, :, ::-1], long), {"key_lengths": [n]}),
            ((q, k[:, :, :1], k[:, :, :1]), {"n_keys": n}),
        ):
            for integers in (False, True):
                rows = attend(device, arrays, options, integers=integers)
                assert rows.max_logit[0, 0, -1] == want


def test_lambda_of_every_law_is_the_cpus(device):
    """A few last places of float32 at the most: logarithms of a device are its own."""
    q = np.zeros((2, 4, 37, 8), np.float32)
    q[..., 0] = 1
    for name, options in OPTIONS.items():
        if "softcap" in options or np.asarray(options.get("mask", True)).dtype != bool:
            continue  # max_logit is more than lambda
        k = np.ones((2, 2, 133, 8), np.float32)
        got = attend(device, (q, k, k), options).max_logit
        want = slipstick.attention(q, k, k, return_stats=True, **options)[1].max_logit
        assert distance(got, want).max() <= ulp(np.dtype(np.float32), largest(want)), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_prefill_in_chunks_and_decode_agree_with_one_prefill(device, dtype):
    q, k, v = inputs(1, 4, 2, 150, 150, 16, 16, dtype)
    want = expected(q, k, v, {"causal": True})
    parts = [
        attend(device, (q[:, :, i:j], k[:, :, :j], v[:, :, :j]), {"causal": True}).out
        for i, j in ((0, 1), (1, 70), (70, 149), (149, 150))
    ]
    allowed = want.errors.out + 2 * ulp(q.dtype, largest(want.exact.out))
    whole = np.concatenate(parts, axis=2).astype(np.longdouble)
    assert distance(whole, want.exact.out).max() <= allowed
