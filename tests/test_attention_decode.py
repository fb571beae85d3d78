"""Few query rows against many keys: parts of the keys, rows of a group, layouts."""

import math

import numpy as np
import pytest

import slipstick
from attention_oracle import BF16, DTYPES, INF, bool_mask, check, float_mask, inputs
from slipstick.scales import LogN, SSMax

# Around the ends of a step (64 keys) and of a part (1024).
KEYS = [1, 3, 63, 64, 65, 255, 1023, 1024, 1025, 2049]


def attend(query, key, value, **options):
    out, stats = slipstick.attention(query, key, value, return_stats=True, **options)
    return [out, *stats]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_query(isa, dtype, keys):
    query, key, value = inputs(2, 4, 2, 1, keys, 20, 9, dtype, seed=keys)
    check(query, key, value, {})


@pytest.mark.parametrize(("heads", "kv_heads", "queries"), [(8, 1, 1), (3, 1, 2), (2, 2, 7)])
@pytest.mark.parametrize("dim", [1, 7, 16, 130])
def test_rows_of_a_group(isa, heads, kv_heads, queries, dim):
    query, key, value = inputs(1, heads, kv_heads, queries, 1100, dim, dim + 3, np.float32)
    for options in ({}, {"causal": True}, {"window": (70, 5)}, {"softcap": 3.0}):
        check(query, key, value, options)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16], ids=str)
def test_masks_and_lengths(isa, dtype):
    query, key, value = inputs(3, 4, 2, 2, 1200, 24, 16, dtype)
    first_part = np.ones((1, 1, 1, 1200), bool)
    first_part[..., :1030] = False
    for options in (
        {"mask": bool_mask(3, 4, 2, 1200)},
        {"mask": float_mask(1, 1, 2, 1200)},
        {"mask": first_part},
        {"mask": ~first_part, "causal": True},
        {"key_lengths": np.array([0, 64, 1199])},
        {"key_lengths": np.array([1, 1024, 1025]), "n_keys": np.array([5, 7, 5000])},
        {"scale": SSMax(0.3, -0.1)},
        {"scale": -0.2},
    ):
        check(query, key, value, options)


def test_a_row_does_not_depend_on_what_is_beside_it(isa, threads):
    """Not on other rows of its group, other sequences, keys behind its last, or the threads."""
    query, key, value = inputs(3, 8, 1, 1, 2100, 33, 20, np.float32)
    whole = attend(query, key, value, key_lengths=np.array([2100, 700, 1024]))
    for b, length in enumerate((2100, 700, 1024)):
        for heads in (slice(0, 1), slice(2, 5), slice(0, 8)):
            part = (query[b : b + 1, heads], key[b : b + 1], value[b : b + 1])
            alone = attend(*part, key_lengths=np.array([length]))
            assert_same(alone, [x[b : b + 1, heads] for x in whole])
            shorter = attend(part[0], part[1][:, :, :length], part[2][:, :, :length])
            assert_same(alone, shorter)
    query = np.repeat(query[:1, :1], 5, axis=2) * np.float32([1, 2, 3, 4, 5])[:, np.newaxis]
    causal = attend(query, key[:1], value[:1], causal=True)
    for i in range(5):
        last = 2100 - 4 + i
        alone = attend(query[:, :, i : i + 1], key[:1, :, :last], value[:1, :, :last])
        assert_same(alone, [x[:, :, i : i + 1] for x in causal])


def test_any_number_of_threads_gives_the_same_bits(isa):
    query, key, value = inputs(2, 4, 2, 2, 5000, 40, 40, np.float32)
    before = slipstick.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7):
            slipstick.set_num_threads(count)
            results.append(attend(query, key, value, causal=True))
    finally:
        slipstick.set_num_threads(before)
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_layout(isa, dtype):
    query, key, value = inputs(2, 2, 2, 3, 150, 18, 11, dtype)
    wanted = attend(query, key, value, causal=True)

    def turned(x):  # elements are not side by side
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)

    def spread(x):
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]

    for change in (turned, spread, lambda x: x[:, :, ::-1][:, :, ::-1]):
        assert_same(attend(change(query), change(key), change(value), causal=True), wanted)
    out = np.zeros((2, 3, 2, 11), dtype).swapaxes(1, 2)
    slipstick.attention(query, key, value, causal=True, out=out)
    assert_same([out], wanted[:1])


def test_values_that_nobody_sees(isa):
    """An infinite or NaN value of a hidden key does not reach a row; a visible one does."""
    query, key, value = inputs(1, 4, 1, 2, 130, 8, 6, np.float32)
    value[0, 0, 129] = math.nan
    value[0, 0, 70] = INF
    mask = np.ones((1, 1, 1, 130), bool)
    mask[..., 70] = False
    out = slipstick.attention(query, key, value, causal=True, mask=mask)
    assert np.all(np.isfinite(out[:, :, 0]))
    assert np.all(np.isnan(out[:, :, 1]))
    out = slipstick.attention(query[:, :, :1], key[:, :, :129], value[:, :, :129])
    assert np.all(out == INF)


def test_scores_that_are_not_finite(isa):
    query, key, value = inputs(1, 2, 1, 1, 1030, 8, 6, np.float32)
    for place in (3, 1027):
        for number in (math.nan, INF):
            bad = key.copy()
            bad[0, 0, place] = number
            with np.errstate(all="ignore"):
                out, stats = slipstick.attention(query, bad, value, return_stats=True)
            assert np.all(np.isnan(out))
            assert np.all(np.isnan(stats.lse) | (stats.lse == INF))


def test_parts_at_very_different_heights(isa):
    """One part's scores far below the other's; equal scores have the entropy ln n."""
    query = np.ones((1, 1, 1, 4), np.float32)
    key = np.zeros((1, 1, 2048, 4), np.float32)
    value = np.arange(2048, dtype=np.float32).reshape(1, 1, 2048, 1)
    _, stats = slipstick.attention(query, key, value, scale=LogN(), return_stats=True)
    np.testing.assert_allclose(stats.entropy, math.log(2048), rtol=1e-6)
    for far in (1e3, -1e3, 1e5, -1e5):
        key[0, 0, 1024:] = far
        check(query, key, value, {"scale": 1.0}, large=True)
