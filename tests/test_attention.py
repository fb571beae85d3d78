"""`slipstick.attention` against the reference, and what it promises beyond numbers."""

from __future__ import annotations

import doctest
import functools
import itertools
import math
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slipstick
from slipstick import _cpu, reference
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature

ml_dtypes = pytest.importorskip("ml_dtypes")

DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)]
DTYPES += [np.dtype(ml_dtypes.bfloat16)]
LEVELS = _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]
INF = math.inf


# --- What is right, and how far off is allowed ----------------------------------------------------


class Rows(NamedTuple):
    out: np.ndarray
    lse: np.ndarray
    entropy: np.ndarray
    max_logit: np.ndarray


def product(a, b, work):
    """a @ b; but for longdouble with sums from left to right, as a plain loop has them."""
    if work == np.longdouble:
        return a @ b
    total = np.zeros((*a.shape[:-1], b.shape[-1]), work)
    for k in range(a.shape[-1]):
        total += a[..., k : k + 1] * b[..., k : k + 1, :]
    return total


def weighted_values(weights, value, visible, work):
    """weights @ value, where a key that a row does not see adds nothing, not even 0 * NaN."""
    finite = np.isfinite(value).all(axis=-1, keepdims=True)
    out = product(weights, np.where(finite, value, work(0)), work)
    for j in np.flatnonzero(~finite.all(axis=(0, 1, 3))):
        more = weights[..., j, np.newaxis] * value[:, :, j, np.newaxis]
        use = visible[..., j, np.newaxis] & ~finite[:, :, j, np.newaxis]
        out = np.where(use, out + more, out)
    return out


def visible_and_bias(query, key, options):
    """Return (batch, heads, queries, keys) arrays: which keys are seen, and what is added."""
    query, key = (np.expand_dims(x, tuple(range(4 - x.ndim))) for x in (query, key))
    shape = (*query.shape[:3], key.shape[2])
    bias = np.asarray(options.get("mask") if options.get("mask") is not None else 0.0)
    if bias.dtype == bool:
        bias = np.where(bias, 0.0, -INF)
    bias = np.broadcast_to(bias.astype(np.float64), shape)
    seen = reference._positions_seen(
        shape[0],
        *shape[2:],
        options.get("causal", False),
        options.get("window"),
        options.get("key_lengths"),
    )
    return np.broadcast_to(seen & (bias != -INF), shape), bias


def row_factors(query, visible, options):
    """Return lambda of every row, (batch, heads, queries, 1)."""
    counts = visible.sum(axis=-1)
    if options.get("n_keys") is not None:
        counts = np.asarray(options["n_keys"])
        if counts.ndim == 1 and query.ndim == 4:
            counts = counts[:, np.newaxis]
        counts = counts[..., np.newaxis, :] if counts.ndim == 2 else counts
    wide = query.dtype == np.float64
    factor = reference._lambda(
        options.get("scale", LogN()),
        np.broadcast_to(counts, visible.shape[:3]),
        max(1, query.shape[-1]),
        wide,
    )
    return np.broadcast_to(factor, visible.shape[:3])[..., np.newaxis]


def direct(query, key, value, options, *, work, stored=None, order=None) -> Rows:
    """Attention from the full score matrix, every step in `work` and rounded to `stored`.

    With the dtype of the inputs it is the naive implementation whose error is the yardstick; with
    longdouble it is the reference for float64, which `slipstick.reference` computes in float64.
    `order` is a seed for the order in which columns and keys are summed.
    """

    def step(x):
        return x if stored is None else x.astype(stored).astype(work)

    visible, bias = visible_and_bias(query, key, options)
    factor = row_factors(query, visible, options).astype(work)
    missing = tuple(range(4 - query.ndim))
    q, k, v = (np.expand_dims(x, missing).astype(work) for x in (query, key, value))
    k, v = (np.repeat(x, q.shape[1] // max(1, x.shape[1]), axis=1) for x in (k, v))
    if order is not None:
        rng = np.random.default_rng(order)
        columns, keys = rng.permutation(q.shape[3]), rng.permutation(k.shape[2])
        q, k, v = q[..., columns], k[:, :, keys][..., columns], v[:, :, keys]
        visible, bias = visible[..., keys], bias[..., keys]
    scores = step(factor * step(product(q, np.swapaxes(k, -1, -2), work)))
    cap = options.get("softcap")
    if cap is not None:
        scores = step(work(cap) * np.tanh(scores / work(cap)))
    if bias.any():
        scores = step(scores + np.where(visible, bias, 0.0).astype(work))
    scores = np.where(visible, scores, work(-INF))
    empty = ~visible.any(axis=-1, keepdims=True)
    top = np.where(empty, work(0), scores.max(axis=-1, keepdims=True, initial=-INF))
    t = np.where(visible, scores - top, work(-INF))
    weights = step(np.exp(t))
    ones = np.ones((weights.shape[-1], 1), work)
    total = np.where(empty, work(1), step(product(weights, ones, work)))
    out = step(weighted_values(step(weights / total), v, visible, work))
    t = np.where(weights > 0, t, work(0))
    moment = product(weights * t, ones, work)
    rows = [
        np.where(empty, -INF, top + np.log(total)),
        np.where(empty, 0.0, np.log(total) - moment / total),
        np.where(empty, -INF, top),
    ]
    return Rows(np.squeeze(out, missing), *(np.squeeze(x[..., 0], missing) for x in rows))


def ulp(dtype: np.dtype, at: float) -> float:
    """The step of `dtype` at the magnitude of `at`."""
    digits = {2: 8 if dtype.name == "bfloat16" else 11, 4: 24, 8: 53}[dtype.itemsize]
    return 2.0 ** (math.frexp(at)[1] - digits) if at > 0 else 0.0


def distance(a, b) -> np.ndarray:
    """|a - b|, where equal infinities and two NaNs are 0 apart and one of them infinitely far."""
    a, b = np.asarray(a), np.asarray(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0, np.abs(a - b))
    return np.where(np.isnan(gap), INF, gap)


def largest(x) -> float:
    return float(np.max(np.abs(x), initial=0, where=np.isfinite(x)))


class Expected(NamedTuple):
    exact: Rows
    errors: Rows  # e_ref of each: the error of the naive implementation


def exact_rows(query, key, value, options) -> Rows:
    if query.dtype == np.float64:
        return direct(query, key, value, options, work=np.longdouble)
    out, stats = reference.attention(query, key, value, return_stats=True, **options)
    return Rows(out, *stats)


@np.errstate(invalid="ignore", over="ignore")
def expected(query, key, value, options) -> Expected:
    dtype = query.dtype
    work = np.float64 if dtype == np.float64 else np.float32
    exact = exact_rows(query, key, value, options)
    # The order of a sum is no part of what "naive" means, and its error depends on it by chance:
    # the yardstick is the largest over eight orders.
    errors = [
        [largest(distance(a, b)) for a, b in zip(naive, exact, strict=True)]
        for naive in (
            direct(
                query,
                key,
                value,
                options,
                work=work,
                stored=dtype if dtype.itemsize == 2 else None,
                order=order,
            )
            for order in (None, *range(7))
        )
    ]
    return Expected(exact, Rows(*np.max(errors, axis=0)))


def bounds(query, key, value, options, exact: Rows) -> Rows:
    """How far rounding can carry each result, to first order; the second order gets a tenth more.

    u is half an ulp of the accumulator. A chain of n additions is off by n u of the sum of
    magnitudes; the kernel adds chains of up to 128 columns and 60 keys. exp is off by 2 u, tanh by
    6 u.
    """
    u = 2.0 ** (-53 if query.dtype == np.float64 else -24)
    visible, bias = visible_and_bias(query, key, options)
    factor = np.abs(row_factors(query, visible, options))
    missing = tuple(range(4 - query.ndim))
    q, k, v = (np.abs(np.expand_dims(x, missing).astype(float)) for x in (query, key, value))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    dim, keys = q.shape[3], k.shape[2]
    size = factor * (q @ np.swapaxes(k, -1, -2))  # of the score's terms
    # The sum over columns, lambda's product, cap, bias; the cap only shrinks what comes before it.
    score = u * ((min(dim, 128) + dim / 128 + 2) * size + 8 * size)
    score += u * (size + np.where(visible, np.abs(bias), 0.0))
    lse, entropy, top = (
        np.expand_dims(x, missing)[..., np.newaxis].astype(float) for x in exact[1:]
    )
    finite = np.isfinite(lse)
    lse, top = np.where(finite, lse, 0.0), np.where(finite, top, 0.0)
    worst = np.max(np.where(visible, score, 0.0), axis=-1, keepdims=True, initial=0.0)
    # p: the error of s and of m, of s - m, of exp; then l: a chain, and a factor alpha a tile.
    spread = np.where(visible, size + np.abs(bias), 0.0).max(axis=-1, keepdims=True, initial=0.0)
    spread = spread + np.abs(top)
    chain = u * (min(keys, 60) + keys / 60 + 3 * (keys / 48 + 1))
    weight = 2 * worst + u * (spread + 2)
    out = np.expand_dims(exact.out, missing)
    largest_value = np.where(visible[..., np.newaxis], v[:, :, np.newaxis], 0.0)
    largest_value = largest_value.max(axis=(-1, -2), keepdims=True, initial=0.0)[..., 0]
    stored = ulp(query.dtype, 1.0) * np.abs(out) + 2.0**-24  # of a 16-bit result; subnormal ones
    out_bound = 2 * largest_value * (weight + chain) + (stored if query.dtype.itemsize == 2 else 0)
    lse_bound = weight + chain + 2 * u * np.abs(lse)
    # H = ln l - a / l: terms p t with |t| <= spread.
    entropy_bound = 2 * (weight + chain) * (1 + spread) + 4 * u * entropy
    rows = [1.1 * x[..., 0] + 1e-300 for x in (lse_bound, entropy_bound, worst + u * np.abs(top))]
    return Rows(
        np.squeeze(np.broadcast_to(1.1 * out_bound, out.shape), missing),
        *(np.squeeze(x, missing) for x in rows),
    )


def check(query, key, value, options, *, want: Expected | None = None, large=False) -> Rows:
    """Run the kernel and compare: the rules of the specification, written once.

    out: error <= that of the naive implementation in the same dtype + 2 ulp at the largest value.
    lse, entropy, max_logit: absolute 1e-5 (float64: 2e-14, the same number of ulp) + 2 ulp of the
    value; with `large` scores, where one ulp of a score is more than that, the rule of out.
    """
    out, stats = slipstick.attention(query, key, value, return_stats=True, **options)
    exact, errors = want or expected(query, key, value, options)
    dtype = query.dtype
    assert out.dtype == dtype
    assert out.shape == exact.out.shape
    got = out.astype(np.longdouble)
    allowed = errors.out + 2 * ulp(dtype, largest(exact.out))
    assert distance(got, exact.out).max(initial=0) <= allowed
    stats_dtype = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    absolute = 2e-14 if dtype == np.float64 else 1e-5
    for name in ("lse", "entropy", "max_logit"):
        value_, right = getattr(stats, name), getattr(exact, name)
        assert value_.dtype == stats_dtype
        assert value_.shape == right.shape
        step = ulp(stats_dtype, largest(right))
        bound = absolute + 2 * step
        if large:
            bound = getattr(errors, name) + 2 * step
        assert distance(value_.astype(np.longdouble), right).max(initial=0) <= bound, name
    assert (np.isnan(stats.entropy) | (stats.entropy >= 0)).all()
    return Rows(out, *stats)


def inputs(batch, heads, kv_heads, queries, keys, dim, dim_v, dtype, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (spread * rng.standard_normal(shape)).astype(dtype)

    return (
        draw(batch, heads, queries, dim),
        draw(batch, kv_heads, keys, dim),
        draw(batch, kv_heads, keys, dim_v),
    )


# --- The edge grid --------------------------------------------------------------------------------


def bool_mask(*shape, seed=1, density=0.6):
    return np.random.default_rng(seed).random(shape) < density


def float_mask(*shape, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.6, rng.standard_normal(shape), -INF).astype(dtype)


def rows_hidden(mask, *rows):
    mask = mask.copy()
    mask[..., list(rows), :] = False if mask.dtype == bool else -INF
    return mask


# 2 sequences, 4 heads over 2 key heads, 37 queries, 301 keys: more than one key tile at every level
# and dtype, panels that are not full, lengths that are no multiple of anything.
SHAPE = (2, 4, 2, 37, 301, 13, 9)
PER_ROW = 0.4 * np.random.default_rng(2).standard_normal((2, 4, 37))
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"causal": True},
    "window": {"window": (5, 3)},
    "window narrower than a tile, causal": {"window": (5, 3), "causal": True},
    "window left": {"window": (7, None)},
    "window right": {"window": (-1, 2)},
    "window of one": {"window": (0, 0)},
    "window wide": {"window": (10**9, 2**40)},
    "lengths": {"key_lengths": [300, 7]},
    "lengths 0 and 1": {"key_lengths": np.int32([0, 1])},
    "lengths, causal": {"key_lengths": [290, 270], "causal": True},
    "lengths, window beyond them": {"key_lengths": [301, 20], "window": (3, 3)},
    "bool mask": {"mask": bool_mask(2, 4, 37, 301)},
    "bool mask over heads": {"mask": bool_mask(2, 1, 37, 301), "causal": True},
    "bool mask of keys": {"mask": bool_mask(2, 1, 1, 301)},
    "bool mask of keys, causal, lengths": {
        "mask": bool_mask(301),
        "causal": True,
        "key_lengths": [290, 280],
    },
    "left padding": {"mask": np.arange(301) >= np.array([0, 280])[:, None, None, None]},
    "middle padding": {"mask": (np.arange(301) < 20) | (np.arange(301) >= 290)},
    "mask with empty rows": {"mask": rows_hidden(bool_mask(2, 1, 37, 301), 0, 5, 36)},
    "mask of rows": {"mask": bool_mask(37, 1)},
    "nothing visible": {"mask": np.zeros((1, 1), bool)},
    "float mask": {"mask": float_mask(2, 4, 37, 301)},
    "float mask, causal, window": {"mask": float_mask(37, 301), "causal": True, "window": (40, 1)},
    "float64 mask with huge numbers": {
        "mask": np.where(bool_mask(37, 301), 0.0, np.finfo(np.float64).min)
    },
    "float32 lowest number hides nothing": {
        "mask": np.where(bool_mask(37, 301), 0.0, np.finfo(np.float32).min).astype(np.float32)
    },
    "float16 mask": {"mask": float_mask(1, 4, 37, 301, dtype=np.float16)},
    "softcap": {"softcap": 0.7},
    "softcap, causal, float mask": {
        "softcap": 3,
        "causal": True,
        "mask": float_mask(2, 4, 37, 301),
    },
    "Su": {"scale": Su(1.3), "causal": True},
    "Su negative": {"scale": Su(-1.3), "causal": True, "mask": bool_mask(2, 4, 37, 301)},
    "ClippedLogN": {"scale": ClippedLogN(100), "causal": True},
    "SSMax": {"scale": SSMax(0.3), "causal": True},
    "SSMax a head": {"scale": SSMax([0.3, -0.2, 0.0, 0.5], b=0.1), "causal": True},
    "SSMax b a head": {"scale": SSMax(0.2, b=[0.3, -0.2, 0.0, 0.5])},
    "Temperature": {"scale": Temperature(0.4, 50, offset=1), "causal": True},
    "float": {"scale": 0.25},
    "int": {"scale": 1},
    "zero": {"scale": 0.0, "causal": True},
    "negative": {"scale": -0.4, "mask": bool_mask(2, 4, 37, 301)},
    "tiny": {"scale": 1e-30},
    "array": {"scale": PER_ROW, "causal": True},
    "array of a head": {"scale": PER_ROW[0, :, :1].astype(np.float32)},
    "array, masked": {"scale": PER_ROW[:, :1], "mask": float_mask(2, 4, 37, 301)},
    "n_keys": {"n_keys": 5000, "causal": True},
    "n_keys 0": {"n_keys": 0},
    "n_keys 1": {"n_keys": 1, "causal": True},
    "n_keys a batch": {"n_keys": np.int64([17, 5000]), "causal": True},
    "n_keys a row": {
        "n_keys": np.arange(74, dtype=np.uint16).reshape(2, 37),
        "window": (9, 0),
        "scale": SSMax(0.4),
    },
    "n_keys, empty rows": {"n_keys": 100, "mask": rows_hidden(bool_mask(2, 1, 37, 301), 3)},
}


@functools.cache
def grid_case(name: str, dtype: np.dtype):
    q, k, v = inputs(*SHAPE, dtype)
    return (q, k, v), expected(q, k, v, OPTIONS[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, dtype, isa):
    arrays, want = grid_case(name, dtype)
    check(*arrays, OPTIONS[name], want=want)


SIZES = [
    # batch, heads, kv_heads, queries, keys, dim, dim_v
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 2, 8, 8),
    (1, 1, 1, 2, 1, 3, 5),
    (0, 2, 2, 3, 4, 5, 6),
    (2, 0, 1, 3, 4, 5, 6),
    (2, 2, 2, 0, 4, 5, 6),
    (2, 2, 1, 3, 0, 5, 6),
    (2, 2, 1, 3, 4, 5, 0),
    (1, 1, 1, 7, 3, 4, 4),
    (1, 1, 1, 97, 13, 8, 16),
    (1, 2, 1, 3, 997, 8, 16),
    (1, 6, 1, 1, 479, 16, 16),
    (1, 6, 6, 5, 480, 7, 3),
    (3, 8, 2, 11, 481, 31, 33),
    (1, 1, 1, 239, 239, 64, 64),
    (1, 1, 1, 240, 240, 65, 63),
    (1, 1, 1, 241, 241, 17, 2),
    (1, 1, 1, 15, 47, 300, 5),
    (1, 1, 1, 16, 48, 5, 300),
    (1, 1, 1, 17, 49, 1100, 7),
    (2, 2, 2, 64, 128, 128, 128),
    (1, 2, 2, 65, 119, 128, 64),
    (1, 3, 3, 127, 121, 64, 128),
]


@functools.cache
def size_case(sizes, dtype, causal):
    q, k, v = inputs(*sizes, dtype)
    return (q, k, v), expected(q, k, v, {"causal": causal})


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, causal, dtype, isa, threads):
    arrays, want = size_case(sizes, np.dtype(dtype), causal)
    check(*arrays, {"causal": causal}, want=want)


def test_no_heads_and_no_end_of_a_window():
    out, stats = slipstick.attention(
        *inputs(2, 0, 0, 3, 4, 5, 6, np.float32), window=(2**70, None), return_stats=True
    )
    assert (out.shape, stats.lse.shape) == ((2, 0, 3, 6), (2, 0, 3))
    q, k, v = inputs(1, 1, 1, 3, 4, 5, 6, np.float32)
    np.testing.assert_array_equal(
        slipstick.attention(q, k, v, window=(2**70, 2**63)), slipstick.attention(q, k, v)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_columns_weigh_all_keys_alike(dtype, isa):
    q, k, v = inputs(1, 2, 2, 3, 5, 0, 4, dtype)
    out, stats = slipstick.attention(q, k, v, return_stats=True)
    check(q, k, v, {"scale": 1.0}, want=expected(q, k, v, {"scale": 1.0}))
    np.testing.assert_array_equal(out, slipstick.attention(q, k, v, scale=1.0))
    assert distance(stats.entropy, math.log(5)).max() <= 1e-6


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_calls(data):
    group, kv_heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    batch, queries = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 40))
    keys, dim, dim_v = (
        data.draw(st.integers(low, high)) for low, high in ((0, 300), (1, 70), (0, 40))
    )
    dtype = data.draw(st.sampled_from(DTYPES))
    side = st.one_of(st.none(), st.integers(-1, 40))
    options: dict[str, Any] = {
        "causal": data.draw(st.booleans()),
        "window": data.draw(st.one_of(st.none(), st.tuples(side, side))),
        "softcap": data.draw(st.sampled_from([None, 0.5, 5.0])),
        "scale": data.draw(st.sampled_from([LogN(), Su(-0.7), SSMax(0.2, b=0.1), 0.1])),
        "n_keys": data.draw(st.one_of(st.none(), st.integers(0, 10**6))),
        "key_lengths": data.draw(
            st.one_of(st.none(), st.lists(st.integers(0, keys), min_size=batch, max_size=batch))
        ),
    }
    heads = group * kv_heads
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in (batch, heads, queries, keys))
    seed = data.draw(st.integers(0, 2**16))
    make = data.draw(st.sampled_from([None, bool_mask, float_mask]))
    options["mask"] = None if make is None else make(*shape, seed=seed)
    arrays = inputs(batch, heads, kv_heads, queries, keys, dim, dim_v, dtype, seed)
    before = slipstick.get_isa(), slipstick.get_num_threads()
    slipstick.set_isa(data.draw(st.sampled_from(LEVELS)))
    slipstick.set_num_threads(data.draw(st.sampled_from([1, 2, 7])))
    try:
        out, stats = slipstick.attention(*arrays, return_stats=True, **options)
    finally:
        slipstick.set_isa(before[0])
        slipstick.set_num_threads(before[1])
    exact = exact_rows(*arrays, options)
    allowed = bounds(*arrays, options, exact)
    for name in Rows._fields:
        got, right = out if name == "out" else getattr(stats, name), getattr(exact, name)
        gap = distance(got.astype(np.longdouble), right)
        assert (gap <= getattr(allowed, name)).all(), name


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
def test_what_is_not_finite_in_query_or_key_propagates(bad, isa):
    q, k, v = inputs(1, 1, 1, 5, 300, 4, 4, np.float32)
    q[0, 0, 1, 2] = bad
    check(q, k, v, {})
    q, k, v = inputs(1, 1, 1, 5, 300, 4, 4, np.float32)
    k[0, 0, 280, 1] = bad
    check(q, k, v, {"causal": True})
    q, k, v = inputs(1, 1, 1, 5, 300, 4, 4, np.float32)
    k[0, 0, :, :] = bad
    q[:] = np.abs(q)
    check(q, k, v, {"scale": 1.0})


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


# --- Determinism ----------------------------------------------------------------------------------


def bits(result) -> list[np.ndarray]:
    out, stats = result
    return [np.asarray(x).view(f"u{x.dtype.itemsize}") for x in (out, *stats)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"key_lengths": [300, 7, 150], "mask": float_mask(3, 1, 200, 301)}],
    ids=["full", "causal", "masked"],
)
def test_bits_depend_on_the_sequence_alone(options, dtype, isa):
    """Not on threads, on the run, or on what else is in the batch."""
    q, k, v = inputs(3, 4, 2, 200, 301, 24, 24, dtype)
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(1)
        whole = bits(slipstick.attention(q, k, v, return_stats=True, **options))
        for count in (1, 2, 7, 2, 7):
            slipstick.set_num_threads(count)
            again = bits(slipstick.attention(q, k, v, return_stats=True, **options))
            for a, b in zip(whole, again, strict=True):
                np.testing.assert_array_equal(a, b)
        for b in range(3):
            own = {
                name: value[b : b + 1] if name in ("key_lengths", "mask") else value
                for name, value in options.items()
            }
            one = slice(b, b + 1)
            alone = bits(slipstick.attention(q[one], k[one], v[one], return_stats=True, **own))
            for part, all_ in zip(alone, whole, strict=True):
                np.testing.assert_array_equal(part[0], all_[b])
            # One query head without the others of its group.
            head = bits(
                slipstick.attention(q[one, 3:], k[one, 1:], v[one, 1:], return_stats=True, **own)
            )
            for part, all_ in zip(head, whole, strict=True):
                np.testing.assert_array_equal(part[0, 0], all_[b, 3])
    finally:
        slipstick.set_num_threads(before)


def test_stats_do_not_change_the_output(isa):
    q, k, v = inputs(1, 2, 2, 50, 300, 16, 16, np.float32)
    with_stats, _ = slipstick.attention(q, k, v, causal=True, return_stats=True)
    np.testing.assert_array_equal(with_stats, slipstick.attention(q, k, v, causal=True))


# --- Layout and frameworks ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(dtype, isa):
    batch, queries, heads, dim = 2, 50, 3, 16
    rng = np.random.default_rng(0)
    packed = rng.standard_normal((batch, queries, 3, heads, dim)).astype(dtype)
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))  # (batch, heads, ...)
    q, k, v = q[:, :, ::-1], k[:, :, ::2, ::-1], v[:, :, ::2]
    want = slipstick.attention(*map(np.ascontiguousarray, (q, k, v)), causal=True)
    got = slipstick.attention(q, k, v, causal=True)
    np.testing.assert_array_equal(got.view(f"u{dtype.itemsize}"), want.view(f"u{dtype.itemsize}"))
    # A key that is broadcast over the heads, a transposed mask, a transposed result.
    shared = np.broadcast_to(k[:, :1], k.shape)
    mask = bool_mask(25, 50).T
    out = np.empty((batch, queries, heads, dim), dtype).transpose(0, 2, 1, 3)
    result = slipstick.attention(q, shared, v, mask=mask, out=out)
    assert result is out
    want = slipstick.attention(
        np.ascontiguousarray(q),
        np.ascontiguousarray(shared),
        np.ascontiguousarray(v),
        mask=np.ascontiguousarray(mask),
    )
    np.testing.assert_array_equal(
        np.ascontiguousarray(out).view(f"u{dtype.itemsize}"), want.view(f"u{dtype.itemsize}")
    )


def test_fewer_axes(isa):
    q, k, v = inputs(1, 4, 2, 20, 30, 8, 6, np.float32)
    options = {
        "causal": True,
        "key_lengths": 28,
        "n_keys": np.arange(20),
        "mask": bool_mask(20, 30),
    }
    full = {**options, "n_keys": np.arange(20)[np.newaxis]}
    out, stats = slipstick.attention(q, k, v, return_stats=True, **full)
    three, three_stats = slipstick.attention(q[0], k[0], v[0], return_stats=True, **options)
    assert (three.shape, three_stats.lse.shape) == ((4, 20, 6), (4, 20))
    np.testing.assert_array_equal(three, out[0])
    np.testing.assert_array_equal(three_stats.entropy, stats.entropy[0])
    two, two_stats = slipstick.attention(q[0, 3], k[0, 1], v[0, 1], return_stats=True, **options)
    assert (two.shape, two_stats.lse.shape) == ((20, 6), (20,))
    np.testing.assert_array_equal(two, out[0, 3])
    np.testing.assert_array_equal(two_stats.max_logit, stats.max_logit[0, 3])
    check(q[0], k[0], v[0], options)


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_torch(name):
    torch = pytest.importorskip("torch")
    q, k, v = (
        torch.from_numpy(x).to(getattr(torch, name)) for x in inputs(2, 4, 2, 9, 30, 8, 8, "f4")
    )
    mask = torch.from_numpy(bool_mask(9, 30))
    out, stats = slipstick.attention(
        q,
        k,
        v,
        mask=mask,
        key_lengths=torch.tensor([30, 4]),
        n_keys=torch.tensor([99, 98]),
        scale=SSMax(0.4),
        return_stats=True,
    )
    assert isinstance(out, torch.Tensor)
    assert out.dtype == q.dtype
    for part in stats:
        assert isinstance(part, torch.Tensor)
        assert part.dtype == (torch.float64 if name == "float64" else torch.float32)
    arrays = [
        x.to(torch.float64 if name == "float64" else torch.float32).numpy() for x in (q, k, v)
    ]
    if name in ("float16", "bfloat16"):
        arrays = [x.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name) for x in arrays]
    want, want_stats = slipstick.attention(
        *arrays,
        mask=mask.numpy(),
        key_lengths=[30, 4],
        n_keys=[99, 98],
        scale=SSMax(0.4),
        return_stats=True,
    )
    np.testing.assert_array_equal(out.to(torch.float64).numpy(), want.astype(np.float64))
    np.testing.assert_array_equal(stats.entropy.numpy(), want_stats.entropy)
    target = torch.empty_like(out)
    assert slipstick.attention(q, k, v, out=target) is target


def test_jax():
    jax = pytest.importorskip("jax")
    q, k, v = (jax.numpy.asarray(x) for x in inputs(1, 2, 2, 9, 30, 8, 8, np.float32))
    out, stats = slipstick.attention(q, k, v, causal=True, return_stats=True)
    assert all(isinstance(x, jax.Array) for x in (out, *stats))
    want, _ = slipstick.attention(*map(np.asarray, (q, k, v)), causal=True, return_stats=True)
    np.testing.assert_array_equal(np.asarray(out), want)


def test_agrees_with_torch_where_torch_has_the_same():
    torch = pytest.importorskip("torch")
    arrays = inputs(2, 4, 4, 70, 70, 32, 32, np.float32)
    q, k, v = map(torch.from_numpy, arrays)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).numpy()
    ours = slipstick.attention(*arrays, causal=True, scale=1 / math.sqrt(32))
    # Two float32 implementations: each within 1e-6 of the truth for values of size 1.
    assert distance(ours, theirs).max() <= 2e-6


# --- Refusals -------------------------------------------------------------------------------------

Q = np.zeros((2, 4, 5, 8), np.float32)
K = np.zeros((2, 2, 7, 8), np.float32)
V = np.zeros((2, 2, 7, 6), np.float32)

REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"query": [[1.0]]}, TypeError, r"attention: `query` must be an array .*, got list"),
    ({"query": None}, TypeError, r"attention: `query` must be an array"),
    ({"query": Q.astype(int)}, TypeError, r"attention: `query` must be float32, .* got int64"),
    ({"key": K.astype(np.float64)}, TypeError, r"`key` must have dtype float32 like `query`, got"),
    ({"value": V.astype(np.float16)}, TypeError, r"`value` must have dtype float32 like `query`"),
    ({"query": Q[0, 0, 0]}, ValueError, r"`query` must have 2, 3 or 4 axes, got shape \(8,\)"),
    ({"query": Q[None]}, ValueError, r"`query` must have 2, 3 or 4 axes"),
    ({"key": K[0]}, ValueError, r"`key` must have 4 axes like `query`, got shape \(2, 7, 8\)"),
    ({"value": V[0]}, ValueError, r"`value` must have 4 axes like `query`"),
    (
        {"key": K[:1]},
        ValueError,
        r"`key` must have 2 batches like `query`, got shape \(1, 2, 7, 8\)",
    ),
    ({"value": V[:1]}, ValueError, r"`value` must have 2 batches like `query`"),
    (
        {"key": K[..., :6]},
        ValueError,
        r"`key` must have 8 columns like `query`, got shape \(2, 2, 7, 6\)",
    ),
    (
        {"value": V[:, :1]},
        ValueError,
        r"`value` must have 2 heads like `key`, got shape \(2, 1, 7, 6\)",
    ),
    ({"value": V[:, :, :6]}, ValueError, r"`value` must have 7 rows like `key`, got shape"),
    ({"query": Q[:, :3]}, ValueError, r"`query` must have a multiple of the 2 heads of `key`, got"),
    ({"key": K[:, :0], "value": V[:, :0]}, ValueError, r"a multiple of the 0 heads of `key`"),
    (
        {"scale": None},
        TypeError,
        r"attention: `scale` must be an object of slipstick.scales, a number or .* got NoneType",
    ),
    ({"scale": "logn"}, TypeError, r"`scale` must be .* got 'logn'"),
    ({"scale": True}, TypeError, r"`scale` must be .* got True"),
    ({"scale": LogN}, TypeError, r"`scale` must be .* got the class LogN"),
    ({"scale": [0.1]}, TypeError, r"`scale` must be .* got list"),
    ({"scale": object()}, TypeError, r"`scale` must be an array"),
    ({"scale": np.ones(5, int)}, TypeError, r"`scale` must be float32, .* got int64"),
    (
        {"scale": np.ones(4)},
        ValueError,
        r"`scale` must broadcast to \(batch, heads, queries\), here \(2, 4, 5\), got",
    ),
    (
        {"scale": SSMax([1.0, 2.0])},
        ValueError,
        r"`scale` must have one entry for all heads or one for each of the 4 heads, got 2",
    ),
    ({"causal": 1}, TypeError, r"attention: `causal` must be True or False, got 1"),
    ({"causal": None}, TypeError, r"`causal` must be True or False"),
    ({"return_stats": "yes"}, TypeError, r"`return_stats` must be True or False, got 'yes'"),
    (
        {"window": 3},
        TypeError,
        r"`window` must be None or \(left, right\), each None or an int >= -1, got 3",
    ),
    ({"window": (1, 2, 3)}, ValueError, r"`window` must be .* got \(1, 2, 3\)"),
    ({"window": (1.5, 0)}, TypeError, r"`window` must be .* got \(1.5, 0\)"),
    ({"window": (True, 0)}, TypeError, r"`window` must be .* got \(True, 0\)"),
    ({"window": (-2, 0)}, ValueError, r"`window` must be .* got \(-2, 0\)"),
    ({"softcap": 0}, ValueError, r"`softcap` must be None or a finite number above 0, got 0"),
    ({"softcap": -1.0}, ValueError, r"`softcap` must be None or a finite number above 0, got -1.0"),
    ({"softcap": math.nan}, ValueError, r"`softcap` must be .* got nan"),
    ({"softcap": math.inf}, ValueError, r"`softcap` must be .* got inf"),
    ({"softcap": "1"}, TypeError, r"`softcap` must be .* got '1'"),
    ({"softcap": True}, TypeError, r"`softcap` must be .* got True"),
    ({"mask": [True]}, TypeError, r"`mask` must be an array"),
    (
        {"mask": np.ones((5, 7), int)},
        TypeError,
        r"`mask` must be bool .* or a float type, got int64",
    ),
    (
        {"mask": np.ones((7, 5), bool)},
        ValueError,
        r"`mask` must broadcast to \(batch, .*\), here \(2, 4, 5, 7\), got shape \(7, 5\)",
    ),
    ({"mask": np.ones((1, 2, 4, 5, 7), bool)}, ValueError, r"`mask` must broadcast to"),
    (
        {"key_lengths": 1.5},
        TypeError,
        r"`key_lengths` must be an integer or an array of integers, got 1.5",
    ),
    (
        {"key_lengths": True},
        TypeError,
        r"`key_lengths` must be an integer or an array of integers, got True",
    ),
    ({"key_lengths": [1.0, 2.0]}, TypeError, r"`key_lengths` must be an integer or an array"),
    ({"key_lengths": [[1], [2, 3]]}, TypeError, r"`key_lengths` must be an integer or an array"),
    ({"key_lengths": np.ones(2)}, TypeError, r"`key_lengths` must be integer, got float64"),
    ({"key_lengths": np.ones(2, bool)}, TypeError, r"`key_lengths` must be integer, got bool"),
    (
        {"key_lengths": [1, 2, 3]},
        ValueError,
        r"`key_lengths` must be an integer or of shape \(batch,\), here \(2,\), got shape",
    ),
    ({"key_lengths": [[1, 2]]}, ValueError, r"`key_lengths` must be an integer or of shape"),
    ({"key_lengths": [1, 8]}, ValueError, r"`key_lengths` must be from 0 to 7, got 8"),
    ({"key_lengths": [-1, 3]}, ValueError, r"`key_lengths` must be from 0 to 7, got -1"),
    ({"n_keys": -1}, ValueError, r"`n_keys` must be from 0 to 9007199254740992, got -1"),
    ({"n_keys": 2**53 + 1}, ValueError, r"`n_keys` must be from 0 to 9007199254740992, got"),
    ({"n_keys": 2**64 - 1}, ValueError, r"`n_keys` must be from 0 to 9007199254740992, got"),
    ({"n_keys": 2**70}, TypeError, r"`n_keys` must be an integer"),
    ({"n_keys": 2.0}, TypeError, r"`n_keys` must be an integer or an array of integers, got 2.0"),
    ({"n_keys": np.ones(2, np.float32)}, TypeError, r"`n_keys` must be integer, got float32"),
    (
        {"n_keys": [1, 2, 3]},
        ValueError,
        r"`n_keys` must be an integer or of shape .*, here \(2, 5\), got shape \(3,\)",
    ),
    ({"n_keys": np.ones((1, 5), int)}, ValueError, r"`n_keys` must be an integer or of shape"),
    ({"n_keys": np.ones((2, 7), int)}, ValueError, r"`n_keys` must be an integer or of shape"),
    (
        {"n_keys": np.array([[1] * 5, [1] * 4 + [-7]])},
        ValueError,
        r"`n_keys` must be from 0 .* got -7",
    ),
]


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(bad, error, match):
    out = np.full((2, 4, 5, 6), 7, np.float32)
    arguments = {"query": Q, "key": K, "value": V, "out": out} | bad
    with pytest.raises(error, match=match) as caught:
        slipstick.attention(**arguments)
    assert str(caught.value).startswith("attention: `")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(out, 7)


def read_only(array):
    array.flags.writeable = False
    return array


OUTS: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: np.empty((2, 4, 5, 8), np.float32),
        ValueError,
        r"`out` must have shape \(2, 4, 5, 6\), got \(2, 4, 5, 8\)",
    ),
    (
        lambda: np.empty((2, 4, 5, 6), np.float64),
        TypeError,
        r"`out` must have dtype float32, got float64",
    ),
    (lambda: read_only(np.empty((2, 4, 5, 6), np.float32)), ValueError, r"`out` must be writable"),
    (
        lambda: np.broadcast_to(np.empty(6, np.float32), (2, 4, 5, 6)),
        ValueError,
        r"`out` must be writable",
    ),
    (lambda: [[0.0]], TypeError, r"`out` must be an array"),
]


@pytest.mark.parametrize(("make", "error", "match"), OUTS)
def test_refused_outs(make, error, match):
    with pytest.raises(error, match=match):
        slipstick.attention(Q, K, V, out=make())


@pytest.mark.parametrize("name", ["query", "key", "value", "mask", "scale"])
def test_out_shares_no_memory_with_an_input(name):
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(4 * 4 * 4 * 8).astype(np.float32)
    out = pool[:256].reshape(2, 4, 4, 8)
    arrays: dict[str, Any] = dict(
        zip(("query", "key", "value"), inputs(2, 4, 4, 4, 8, 8, 8, "f4"), strict=True)
    )
    arrays["mask"], arrays["scale"] = None, 1.0
    shape = {"mask": (2, 4, 4, 8), "scale": (2, 4, 4), "query": (2, 4, 4, 8)}.get(
        name, (2, 4, 8, 8)
    )
    size = math.prod(shape)
    arrays[name] = (
        pool[255 : 255 + size].reshape(shape) if size + 255 <= pool.size else pool.reshape(shape)
    )
    before = pool.copy()
    with pytest.raises(ValueError, match=f"attention: `out` must not overlap `{name}`"):
        slipstick.attention(**arrays, out=out)
    np.testing.assert_array_equal(pool, before)


def test_fewer_axes_refusals():
    with pytest.raises(
        ValueError, match=r"`n_keys` must be an integer or of shape \(queries,\), here \(5,\)"
    ):
        slipstick.attention(Q[0], K[0], V[0], n_keys=[3, 4])
    with pytest.raises(ValueError, match=r"`key` must have 8 columns"):
        slipstick.attention(Q[0, 0], K[0, 0, :, :3], V[0, 0])


# --- Memory and examples --------------------------------------------------------------------------

MEMORY = """
import resource
import numpy as np
import slipstick

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

slipstick.set_num_threads(2)
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, {n}, 32), dtype=np.float32)
slipstick.attention(q[:, :, :64], k, v)
before = peak()
slipstick.attention(q, k, v, causal=True, return_stats=True)
print(peak() - before)
"""


def test_memory_grows_linearly():
    """At 16384 keys all scores would be 1 GiB; keys and values packed are 4 MiB, out 2 MiB."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer keeps freed memory")
    run = [sys.executable, "-c", MEMORY.format(n=16384)]
    used = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert used < 24 << 20


def test_examples():
    import slipstick._attention as module

    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
