"""What attention has to give, how far off it may be, and the inputs to try it on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

import slipstick
from remembered import remembered
from slipstick import reference
from slipstick.scales import LogN

ml_dtypes = pytest.importorskip("ml_dtypes")

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BF16]
INF = math.inf


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
    terms = np.empty_like(total)  # new memory in each round would take most of the time
    for k in range(a.shape[-1]):
        total += np.multiply(a[..., k : k + 1], b[..., k : k + 1, :], out=terms)
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
    seen = reference._attention._positions_seen(
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
    factor = reference._attention._lambda(
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


def bits(array) -> np.ndarray:
    """The bytes of its numbers as integers: equal where not even the sign of a zero differs."""
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.dtype.itemsize}")


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


@remembered
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
    if query.dtype == BF16:  # a level may round the weights to it: by half of a last place, 2^-8
        out_bound += largest_value * 2.0**-9
    lse_bound = weight + chain + 2 * u * np.abs(lse)
    # H = ln l - a / l: terms p t with |t| <= spread.
    entropy_bound = 2 * (weight + chain) * (1 + spread) + 4 * u * entropy
    rows = [1.1 * x[..., 0] + 1e-300 for x in (lse_bound, entropy_bound, worst + u * np.abs(top))]
    return Rows(
        np.squeeze(np.broadcast_to(1.1 * out_bound, out.shape), missing),
        *(np.squeeze(x, missing) for x in rows),
    )


def check(query, key, value, options, *, want: Expected | None = None, large=False) -> Rows:
    """Run the kernel and compare."""
    out, stats = slipstick.attention(query, key, value, return_stats=True, **options)
    return compare(Rows(out, *stats), query, key, value, options, want=want, large=large)


def compare(
    rows: Rows, query, key, value, options, *, want: Expected | None = None, large=False
) -> Rows:
    """Compare what a kernel gave: the rules of the specification, written once.

    out: error <= that of the naive implementation in the same dtype + 2 ulp at the largest value.
    lse, entropy, max_logit: absolute 1e-5 (float64: 2e-14, the same number of ulp) + 2 ulp of the
    value; with `large` scores, where one ulp of a score is more than that, the rule of out.
    """
    exact, errors = want or expected(query, key, value, options)
    dtype = query.dtype
    assert rows.out.dtype == dtype
    assert rows.out.shape == exact.out.shape
    got = rows.out.astype(np.longdouble)
    allowed = errors.out + 2 * ulp(dtype, largest(exact.out))
    assert distance(got, exact.out).max(initial=0) <= allowed
    stats_dtype = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    absolute = 2e-14 if dtype == np.float64 else 1e-5
    for name in ("lse", "entropy", "max_logit"):
        value_, right = getattr(rows, name), getattr(exact, name)
        assert value_.dtype == stats_dtype
        assert value_.shape == right.shape
        step = ulp(stats_dtype, largest(right))
        bound = absolute + 2 * step
        if large:
            bound = getattr(errors, name) + 2 * step
        assert distance(value_.astype(np.longdouble), right).max(initial=0) <= bound, name
    assert (np.isnan(rows.entropy) | (rows.entropy >= 0)).all()
    return rows


def inputs(batch, heads, kv_heads, queries, keys, dim, dim_v, dtype, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (spread * rng.standard_normal(shape)).astype(dtype)

    return (
        draw(batch, heads, queries, dim),
        draw(batch, kv_heads, keys, dim),
        draw(batch, kv_heads, keys, dim_v),
    )


def bool_mask(*shape, seed=1, density=0.6):
    return np.random.default_rng(seed).random(shape) < density


def float_mask(*shape, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.6, rng.standard_normal(shape), -INF).astype(dtype)
