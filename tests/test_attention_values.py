"""Values that attention must get right: extreme and hidden ones, and the rule for n."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import slipstick
from attention_oracle import (
    BF16,
    DTYPES,
    INF,
    bool_mask,
    check,
    distance,
    expected,
    inputs,
    largest,
    ulp,
)
from slipstick.scales import LogN, SSMax, Su

# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("size", [1e3, 1e4, 1e5, -1e5])
@pytest.mark.parametrize("causal", [False, True])
def test_logits_up_to_1e5(size, causal, dtype, isa):
    # Scores near +-1e5, apart by what a softmax feels: in one column all keys agree.
    q, k, v = inputs(1, 2, 1, 40, 300, 16, 8, dtype)
    q[..., 0], k[..., 0] = 1.0, size
    check(q, k, v, {"scale": 1.0, "causal": causal}, large=True)


def test_all_masked_tile_before_negative_scores(isa):
    q, k, v = inputs(1, 1, 1, 20, 600, 8, 8, np.float32)
    q[..., 0], k[..., 0] = 1.0, -500.0
    options = {"scale": 1.0, "mask": np.arange(600) >= 550}
    rows = check(q, k, v, options, large=True)
    assert (rows.max_logit < -400).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_scores_have_the_entropy_of_their_number(dtype, isa):
    n = 1000
    q, k, v = inputs(1, 2, 2, 4, n, 8, 8, dtype)
    k[:] = k[:, :, :1]
    rows = check(q, k, v, {"scale": 1.0})
    # l = n exactly and a = 0, so only the logarithm rounds.
    step = ulp(np.dtype(rows.entropy.dtype), math.log(n))
    assert distance(rows.entropy, math.log(n)).max() <= step


def test_one_dominant_score_has_no_entropy(isa):
    q, k, v = inputs(1, 1, 1, 4, 300, 8, 8, np.float32)
    q[:], k[:] = 1.0, 0.0
    k[:, :, 123] = 100.0
    out, stats = slipstick.attention(q, k, v, scale=1.0, return_stats=True)
    np.testing.assert_array_equal(stats.entropy, 0)
    np.testing.assert_array_equal(out[0, 0], np.broadcast_to(v[0, 0, 123], (4, 8)))


@pytest.mark.parametrize(
    "scale", [LogN(), Su(-3.0), SSMax(2.0), SSMax(1.0, b=2.0), -7.0, 0.0, 1e20]
)
def test_a_row_with_one_key_is_its_value(scale, isa):
    q, k, v = inputs(2, 2, 2, 1, 1, 8, 8, np.float32)
    out, stats = slipstick.attention(q, k, v, scale=scale, return_stats=True)
    np.testing.assert_array_equal(out, v)
    np.testing.assert_array_equal(stats.entropy, 0)
    np.testing.assert_array_equal(stats.lse, stats.max_logit)
    first = slipstick.attention(*inputs(1, 2, 2, 5, 5, 8, 8, np.float32), scale=scale, causal=True)
    np.testing.assert_array_equal(
        first[:, :, 0], inputs(1, 2, 2, 5, 5, 8, 8, np.float32)[2][:, :, 0]
    )


def test_empty_rows(isa, threads):
    q, k, v = inputs(2, 2, 1, 5, 3, 8, 8, np.float32)
    out, stats = slipstick.attention(q, k, v, causal=True, return_stats=True, key_lengths=[3, 0])
    for empty in (np.s_[0, :, :2], np.s_[1]):  # queries 0 and 1 stand before key 0
        np.testing.assert_array_equal(out[empty], 0)
        np.testing.assert_array_equal(stats.lse[empty], -INF)
        np.testing.assert_array_equal(stats.entropy[empty], 0)
        np.testing.assert_array_equal(stats.max_logit[empty], -INF)
    assert np.isfinite(stats.lse[0, :, 2:]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [4, 300], ids=["packed here", "packed before"])
def test_what_is_hidden_does_no_harm(bad, dtype, queries, isa):
    """Rows do not change when keys and values that they do not see are not finite."""
    q, k, v = inputs(1, 2, 1, queries, 320, 8, 8, dtype)
    mask = bool_mask(queries, 320)
    mask[:, 7] = False
    options = {"mask": mask, "key_lengths": [310], "causal": True}
    clean = slipstick.attention(q, k, v, return_stats=True, **options)
    for array in (k, v):
        array[:, :, [7, 310, 319]] = bad
    spoilt = slipstick.attention(q, k, v, return_stats=True, **options)
    for got, right in zip((spoilt[0], *spoilt[1]), (clean[0], *clean[1]), strict=True):
        # A tile with a value that is not finite adds in another order.
        eps = ulp(q.dtype if got is spoilt[0] else got.dtype, largest(right))
        assert distance(got.astype(np.float64), right.astype(np.float64)).max() <= 4 * eps
    v[:, :, 305] = bad  # a key that some rows see
    check(q, k, v, options | {"scale": 0.3})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_infinite_and_nan_lambda_propagate_in_their_row_only(bad, isa):
    q, k, v = inputs(1, 1, 1, 6, 20, 8, 8, np.float32)
    scale = np.full(6, 0.3)
    clean = slipstick.attention(q, k, v, scale=scale)
    scale[2] = bad
    rows = check(q, k, v, {"scale": scale})
    assert np.isnan(rows.out[0, 0, 2]).all()
    rest = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(rows.out[0, 0, rest], clean[0, 0, rest])
    hidden = check(q, k, v, {"scale": scale, "mask": np.zeros(20, bool)})
    np.testing.assert_array_equal(hidden.out, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16], ids=str)
@pytest.mark.parametrize("queries", [5, 40])
@pytest.mark.parametrize("dim", [4, 5])
def test_what_is_not_finite_in_query_or_key_propagates(dim, queries, dtype, bad, isa):
    q, k, v = inputs(1, 1, 1, queries, 300, dim, 4, dtype)
    q[0, 0, 1, -1] = bad
    check(q, k, v, {})
    q, k, v = inputs(1, 1, 1, queries, 300, dim, 4, dtype)
    k[0, 0, 280, 1] = bad
    check(q, k, v, {"causal": True})
    q, k, v = inputs(1, 1, 1, queries, 300, dim, 4, dtype)
    k[0, 0, :, :] = bad
    q[:] = np.abs(q)
    check(q, k, v, {"scale": 1.0})


def test_bfloat16_subnormal_numbers(isa):
    """Beside others they do not matter, and alone they give less than the smallest normal number:
    a level that multiplies bfloat16 in pairs takes them for 0."""
    tiny = 2.0**-126
    q, k, v = inputs(1, 2, 1, 40, 61, 5, 13, BF16)
    small = (v.astype(np.float32) * np.float32(tiny / 8)).astype(BF16)
    assert 0 < np.abs(small.astype(float)).max() < tiny
    for array in (q, k, v):
        array[..., ::3] = small[0, 0, 0, 0]
    check(q, k, v, {"scale": 0.5})
    out = slipstick.attention(q, k, small, scale=0.5)
    assert np.abs(out.astype(float)).max() < tiny


def test_nan_and_inf_in_an_additive_mask(isa):
    q, k, v = inputs(1, 1, 1, 4, 9, 4, 4, np.float32)
    mask = np.zeros((4, 9), np.float32)
    mask[1, 3], mask[2, 4] = np.nan, np.inf
    rows = check(q, k, v, {"mask": mask, "scale": 0.5})
    assert np.isnan(rows.out[0, 0, 1:3]).all()


# --- The rule for n: what must agree --------------------------------------------------------------


def test_n_keys_does_what_counting_does(isa):
    q, k, v = inputs(2, 2, 2, 9, 40, 8, 8, np.float32)
    counted = slipstick.attention(q, k, v, causal=True)
    given_ = slipstick.attention(q, k, v, causal=True, n_keys=np.tile(np.arange(32, 41), (2, 1)))
    np.testing.assert_array_equal(counted, given_)


def test_lambda_is_the_same_float_on_every_path(isa):
    """Where query and key are 1 in one column, max_logit is lambda: it tells n and the rounding."""
    for n in (1, 2, 3, 17, 512, 997):
        want = np.float32(LogN().factor(n, dim=64))
        q, k = np.zeros((1, 1, n, 64), np.float32), np.zeros((1, 1, n, 64), np.float32)
        q[..., 0] = k[..., 0] = 1
        mask = np.zeros((1, 1, 1, n + 3), bool)
        mask[..., 3:] = True
        padded = np.concatenate(
            [k[:, :, :3] if n > 3 else np.ones((1, 1, 3, 64), np.float32), k], 2
        )
        calls = [
            slipstick.attention(q, k, k, causal=True, return_stats=True),  # prefill, last row
            slipstick.attention(q[:, :, -1:], k, k, return_stats=True),  # decode
            slipstick.attention(q[:, :, -1:], padded, padded, mask=mask, return_stats=True),
            slipstick.attention(q[:, :, -1:], padded, padded, key_lengths=[n], return_stats=True),
            slipstick.attention(
                q[:, :, -1:], k[:, :, :1], k[:, :, :1], n_keys=n, return_stats=True
            ),
        ]
        for _, stats in calls:
            assert stats.max_logit[0, 0, -1] == want


def test_prefill_in_chunks_and_decode_agree_with_one_prefill(isa):
    q, k, v = inputs(1, 4, 2, 300, 300, 16, 16, np.float32)
    whole = slipstick.attention(q, k, v, causal=True)
    want = expected(q, k, v, {"causal": True})
    parts = [
        slipstick.attention(q[:, :, i:j], k[:, :, :j], v[:, :, :j], causal=True)
        for i, j in ((0, 1), (1, 130), (130, 299), (299, 300))
    ]
    allowed = want.errors.out + 2 * ulp(q.dtype, largest(whole))
    assert distance(np.concatenate(parts, axis=2), want.exact.out).max() <= allowed


def test_entropy_falls_with_lambda(isa):
    q, k, v = inputs(1, 2, 2, 8, 200, 16, 16, np.float32)
    entropy = [
        slipstick.attention(q, k, v, scale=s, return_stats=True)[1].entropy
        for s in (0.0, 0.05, 0.1, 0.5, 2.0)
    ]
    for flat, sharp in itertools.pairwise(entropy):
        assert (sharp < flat).all()


def test_permuting_keys_changes_nothing_but_rounding(isa):
    q, k, v = inputs(1, 2, 2, 8, 300, 16, 16, np.float32)
    order = np.random.default_rng(0).permutation(300)
    want = expected(q, k, v, {})
    check(q, k[:, :, order], v[:, :, order], {}, want=want)
