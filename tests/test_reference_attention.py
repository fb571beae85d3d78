"""The attention reference against a definition spelt out key by key, and the table of n_i."""

import math

import numpy as np
import pytest

from slipstick import reference
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature

ml_dtypes = pytest.importorskip("ml_dtypes")


def brute_force(q, k, v, factor, visible, bias, softcap):
    """One head, row by row and key by key, on Python floats; `factor` is lambda of every row."""
    rows = []
    for i in range(len(q)):
        scores, seen = [], [j for j in range(len(k)) if visible[i][j]]
        for j in seen:
            x = factor[i] * math.fsum(float(a) * float(b) for a, b in zip(q[i], k[j], strict=True))
            if softcap is not None:
                x = softcap * math.tanh(x / softcap)
            scores.append(x + bias[i][j])
        if not seen:
            rows.append(([0.0] * v.shape[1], -math.inf, 0.0, -math.inf))
            continue
        top = max(scores)
        lse = top + math.log(math.fsum(math.exp(s - top) for s in scores))
        p = [math.exp(s - lse) for s in scores]
        out = [
            math.fsum(w * float(v[j][c]) for w, j in zip(p, seen, strict=True))
            for c in range(v.shape[1])
        ]
        rows.append(
            (out, lse, -math.fsum(w * (s - lse) for w, s in zip(p, scores, strict=True)), top)
        )
    return [np.array(column) for column in zip(*rows, strict=True)]


def sees(i, j, queries, keys, causal, window, length):
    """In words: keys up to i + keys - queries, and a window inclusive around that."""
    at = i + keys - queries
    left, right = window or (None, None)
    return (
        j < length
        and (not causal or j <= at)
        and (left in (None, -1) or j >= at - left)
        and (right in (None, -1) or j <= at + right)
    )


def documented_count(i, queries, keys, causal, window, length):
    """n_i by the closed formulas of the documentation."""
    off = keys - queries
    left, right = (None if side == -1 else side for side in window or (None, None))
    if causal:
        right = 0 if right is None else min(right, 0)
    end = length if right is None else min(length, i + off + right + 1)
    return max(0, end - (0 if left is None else max(0, i + off - left)))


WINDOWS = [None, (None, None), (-1, -1), (0, 0), (2, 1), (1, None), (None, 2), (3, -1), (-1, 0)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (1, 7), (5, 5), (3, 7), (7, 3), (4, 0), (0, 4)]
)
def test_counts_follow_the_table(queries, keys, window, causal):
    lengths = sorted({0, 1, keys // 2, keys} & set(range(keys + 1)))
    query = np.ones((len(lengths), 1, queries, 1))
    key, value = np.ones((2, len(lengths), 1, keys, 1))
    options = {"causal": causal, "window": window, "key_lengths": lengths}
    _, stats = reference.attention(
        query, key, value, scale=SSMax(1.0, b=1.0), return_stats=True, **options
    )
    for b, length in enumerate(lengths):
        for i in range(queries):
            n = documented_count(i, queries, keys, causal, window, length)
            assert n == sum(sees(i, j, queries, keys, causal, window, length) for j in range(keys))
            # All scores are lambda = ln n + 1, so the statistics tell n twice.
            logit, lse, entropy = (
                stats.max_logit[b, 0, i],
                stats.lse[b, 0, i],
                stats.entropy[b, 0, i],
            )
            if n == 0:
                assert (logit, lse, entropy) == (-math.inf, -math.inf, 0)
            else:
                assert logit == pytest.approx(math.log(n) + 1, rel=1e-15)
                assert lse == pytest.approx(2 * math.log(n) + 1, rel=1e-15)
                assert entropy == pytest.approx(math.log(n), rel=1e-15, abs=1e-15)


def test_counts_under_causal_are_the_clamp_of_the_table():
    for queries, keys in [(1, 5), (5, 5), (3, 7), (7, 3)]:
        for length in range(keys + 1):
            for i in range(queries):
                clamp = min(max(i + 1 + keys - queries, 0), length)
                assert clamp == documented_count(i, queries, keys, True, None, length)


SCALES = [
    LogN(),
    Su(0.8),
    Su(-0.8),
    ClippedLogN(3),
    SSMax([0.4, -0.7, 1.1, 0.0], b=0.3),
    Temperature(0.5, 2, offset=1),
    0.31,
    -0.31,
    0.0,
]


@pytest.mark.parametrize("scale", SCALES, ids=repr)
@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"causal": True, "window": (2, None)}], ids=str
)
@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_attention_equals_the_literal_definition(scale, options, softcap, dtype):
    batch, heads, kv_heads, queries, keys, dim, dim_v = 2, 4, 2, 5, 7, 3, 2
    rng = np.random.default_rng(0)
    q = rng.standard_normal((batch, heads, queries, dim)).astype(dtype)
    k = rng.standard_normal((batch, kv_heads, keys, dim)).astype(dtype)
    v = rng.standard_normal((batch, kv_heads, keys, dim_v)).astype(dtype)
    mask = rng.standard_normal((batch, 1, queries, keys))
    mask[rng.random(mask.shape) < 0.2] = -np.inf
    mask[1, 0, 2] = -np.inf
    lengths = [7, 4]
    out, stats = reference.attention(
        q,
        k,
        v,
        scale=scale,
        mask=mask,
        key_lengths=lengths,
        softcap=softcap,
        return_stats=True,
        **options,
    )
    assert out.shape == (batch, heads, queries, dim_v)
    assert (
        stats.lse.shape == stats.entropy.shape == stats.max_logit.shape == (batch, heads, queries)
    )
    for b in range(batch):
        visible = [
            [
                sees(i, j, queries, keys, options.get("causal"), options.get("window"), lengths[b])
                and mask[b, 0, i, j] > -np.inf
                for j in range(keys)
            ]
            for i in range(queries)
        ]
        counts = [sum(row) for row in visible]
        for h in range(heads):
            if isinstance(scale, float):
                factor = np.full(queries, scale)
            elif isinstance(scale, SSMax):
                factor = SSMax(scale.s[h], scale.b).factor(counts, dim=dim)
            else:
                factor = scale.factor(counts, dim=dim)
            if dtype != np.float64:
                factor = factor.astype(np.float32).astype(np.float64)
            expected = brute_force(
                q[b, h], k[b, h // 2], v[b, h // 2], factor, visible, mask[b, 0], softcap
            )
            got = [out[b, h], stats.lse[b, h], stats.entropy[b, h], stats.max_logit[b, h]]
            # Scores are below 10 and sums have at most 7 terms: 1e-14 is 4 ulp of 10.
            for x, y in zip(got, expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-14, atol=1e-14)


def test_uniform_scores_have_the_entropy_of_the_count():
    for n in (1, 2, 3, 512, 1000):
        q, k = np.zeros((1, 8)), np.ones((n, 8))
        v = np.random.default_rng(n).standard_normal((n, 3))
        out, stats = reference.attention(q, k, v, return_stats=True)
        assert stats.entropy[0] == pytest.approx(math.log(n), abs=1e-14)
        np.testing.assert_allclose(out[0], v.mean(axis=0), rtol=0, atol=1e-14)


def test_one_dominant_score_has_no_entropy():
    k = np.zeros((5, 1))
    k[3] = 1e5
    out, stats = reference.attention(np.ones((1, 1)), k, np.eye(5), scale=1.0, return_stats=True)
    assert np.array_equal(out[0], np.eye(5)[3])
    assert (stats.entropy[0], stats.lse[0], stats.max_logit[0]) == (0, 1e5, 1e5)


@pytest.mark.parametrize("scale", [*SCALES[:4], Temperature(0.5, 2), 0.31, 1e30], ids=repr)
def test_one_key_gives_its_value(scale):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 4))
    out, stats = reference.attention(q, k, v, scale=scale, return_stats=True)
    assert np.array_equal(out, v)
    assert stats.entropy[0] == 0
    assert stats.lse[0] == stats.max_logit[0]
    if isinstance(scale, (LogN, Su)):
        assert stats.lse[0] == 0


def test_rows_without_a_key_are_empty():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 3, 6, 4))
    lengths = [0, 6]
    mask = np.ones((6, 6), dtype=bool)
    mask[2] = False
    out, stats = reference.attention(
        q, k, v, key_lengths=lengths, mask=mask, n_keys=9, return_stats=True
    )
    empty = np.zeros((2, 3, 6), dtype=bool)
    empty[0], empty[:, :, 2] = True, True
    assert np.all(out[empty] == 0)
    assert np.all(stats.lse[empty] == -np.inf)
    assert np.all(stats.max_logit[empty] == -np.inf)
    assert np.all(stats.entropy[empty] == 0)
    assert np.isfinite(stats.lse[~empty]).all()
    # More queries than keys: the first rows of a causal call come before the first key.
    out = reference.attention(q, k[:, :, :2], v[:, :, :2], causal=True)
    assert np.all(out[:, :, :4] == 0)
    assert np.array_equal(out[:, :, 4], v[:, :, 0])


def test_shapes_without_content():
    for queries, keys, dim_v in [(0, 3, 2), (3, 0, 2), (3, 3, 0)]:
        q, k, v = (
            np.ones((2, 1, queries, 4)),
            np.ones((2, 1, keys, 4)),
            np.ones((2, 1, keys, dim_v)),
        )
        assert reference.attention(q, k, v).shape == (2, 1, queries, dim_v)
    assert reference.attention(*np.ones((3, 0, 2, 3, 4))).shape == (0, 2, 3, 4)


def test_hidden_keys_add_nothing_even_as_nan():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 1, 6, 4))
    dirty_k, dirty_v = k.copy(), v.copy()
    dirty_k[..., 4:, :], dirty_v[..., 4:, :] = np.nan, np.inf
    clean = reference.attention(q, k, v, key_lengths=[4])
    assert np.array_equal(reference.attention(q, dirty_k, dirty_v, key_lengths=[4]), clean)
    clean_causal = reference.attention(q, k, v, causal=True)
    late = reference.attention(q, dirty_k, dirty_v, causal=True)
    assert np.array_equal(late[..., :4, :], clean_causal[..., :4, :])
    assert np.isnan(late[..., 4:, :]).all()
    late = reference.attention(q, k, dirty_v, causal=True)
    assert np.array_equal(late[..., :4, :], clean_causal[..., :4, :])
    assert np.all(late[..., 4:, :] == np.inf)


def test_a_finite_bias_hides_nothing():
    q, k, v = np.ones((3, 1, 1))
    _, stats = reference.attention(q, k, v, mask=[[-1e300]], scale=1.0, return_stats=True)
    assert stats.lse[0] == -1e300
    keys = np.ones((4, 1))
    mask = np.array([[0.0, -1e30, 0.0, -np.inf]])
    _, stats = reference.attention(q, keys, keys, mask=mask, scale=SSMax(1.0), return_stats=True)
    assert stats.max_logit[0] == pytest.approx(math.log(3), rel=1e-15)


def test_bool_and_additive_masks_agree():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 3, 5, 4))
    mask = rng.random((2, 1, 5, 5)) < 0.5
    additive = np.where(mask, 0.0, -np.inf)
    assert np.array_equal(
        reference.attention(q, k, v, mask=mask), reference.attention(q, k, v, mask=additive)
    )


def test_n_keys_changes_the_scale_alone():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 2, 4, 3))
    per_row = np.array([[1, 2, 3, 4], [10, 0, 30, 40]])
    per_batch = np.array([[[5]], [[9]]])
    for n_keys, n in [(7, 7), ([5, 9], per_batch), (per_row, per_row[:, np.newaxis])]:
        got = reference.attention(q, k, v, causal=True, n_keys=n_keys)
        factor = LogN().factor(np.broadcast_to(n, (2, 2, 4)), dim=3)
        assert np.array_equal(got, reference.attention(q, k, v, causal=True, scale=factor))
    # A count of 0 that meets visible keys is taken as 1: lambda is 0 and the row is a mean.
    out = reference.attention(q[0, 0], k[0, 0], v[0, 0], n_keys=0)
    np.testing.assert_allclose(out, np.tile(v[0, 0].mean(axis=0), (4, 1)), atol=1e-15)
    rows = reference.attention(q[0], k[0], v[0], n_keys=per_row[0])
    assert np.array_equal(rows, reference.attention(q[:1], k[:1], v[:1], n_keys=per_row[:1])[0])


def test_leading_axes_may_be_left_out():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, 4, 5, 3))
    k, v = rng.standard_normal((2, 1, 2, 6, 3))
    out, stats = reference.attention(q, k, v, causal=True, return_stats=True)
    out3, stats3 = reference.attention(q[0], k[0], v[0], causal=True, return_stats=True)
    assert np.array_equal(out3, out[0])
    assert all(np.array_equal(x, y[0]) for x, y in zip(stats3, stats, strict=True))
    out2, stats2 = reference.attention(q[0, 3], k[0, 1], v[0, 1], causal=True, return_stats=True)
    assert np.array_equal(out2, out[0, 3])
    assert all(np.array_equal(x, y[0, 3]) for x, y in zip(stats2, stats, strict=True))


def test_chunked_prefill_and_decode_give_the_rows_of_one_call():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 9, 4)).astype(np.float32)
    whole = reference.attention(q, k, v, causal=True)
    for start, stop in [(0, 4), (4, 9), (8, 9)]:
        part = reference.attention(q[start:stop], k[:stop], v[:stop], causal=True)
        # The products may be summed in another order: dims of 4, scores below 10.
        np.testing.assert_allclose(part, whole[start:stop], rtol=1e-14, atol=1e-14)
    decode = reference.attention(q[8:], k, v)
    np.testing.assert_allclose(decode, whole[8:], rtol=1e-14, atol=1e-14)


def test_lambda_is_rounded_once_to_float32():
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        q, k, v = np.ones((3, 3, 1)).astype(dtype)
        _, stats = reference.attention(q, k, v, scale=SSMax(1.0), return_stats=True)
        exact = math.log(3)
        assert stats.max_logit[0] == (exact if dtype == np.float64 else float(np.float32(exact)))


def test_scale_arrays_broadcast_to_rows():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 3, 4, 5))
    factor = rng.standard_normal((3, 1))
    got = reference.attention(q, k, v, scale=factor)
    for h in range(3):
        one = reference.attention(
            q[:, h : h + 1], k[:, h : h + 1], v[:, h : h + 1], scale=factor[h, 0]
        )
        assert np.array_equal(got[:, h : h + 1], one)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_lambda_propagates_in_its_row_alone(bad):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 4, 5))
    factor = np.array([0.5, bad, 0.5, 0.5])
    out, stats = reference.attention(q, k, v, scale=factor, causal=True, return_stats=True)
    assert np.isnan(out[1]).all()
    assert np.isnan(stats.lse[1])
    assert np.isfinite(out[[0, 2, 3]]).all()


def test_softmax_equals_the_attention_weights():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((3, 6, 9))
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[1, 2] = -np.inf
    for scale in (
        LogN(8),
        Su(0.5),
        Su(-0.5),
        ClippedLogN(4),
        SSMax(0.5, b=0.1),
        Temperature(0.5, 3),
        0.7,
    ):
        got = reference.softmax(scores, scale=scale)
        n = (scores > -np.inf).sum(axis=-1)
        factor = scale if isinstance(scale, float) else scale.factor(n)[..., np.newaxis]
        with np.errstate(invalid="ignore"):
            weights = np.where(scores > -np.inf, np.exp(factor * scores), 0)
            expected = np.nan_to_num(weights / weights.sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(got, expected, rtol=1e-14, atol=0)
        assert np.all(got[1, 2] == 0)
        moved = reference.softmax(np.moveaxis(scores, -1, 1), scale=scale, axis=1)
        assert np.array_equal(np.moveaxis(moved, 1, -1), got)


def test_softmax_is_ordinary_at_the_base_length():
    scores = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    plain = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(reference.softmax(scores), plain / plain.sum(), rtol=1e-14)
    assert np.isnan(reference.softmax([1.0, math.nan, -math.inf])).all()
