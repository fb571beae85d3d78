"""Attention, its gradients and the softmax, within what rounding can do to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import slipstick
from slipstick import reference
from slipstick.scales import LogN, SSMax, Su
from slipstick.selftest._check import Array, Case, Check
from slipstick.selftest._inputs import FLOATS, last_place, ordinary

Dtype = np.dtype[Any]
Options = dict[str, Any]


def _unit(dtype: Dtype) -> float:
    """Return half a last place of what sums run in: float32, or float64."""
    return 2.0**-53 if dtype == np.float64 else 2.0**-24


def _inputs(dtype: Dtype, heads: int, kv_heads: int, queries: int, keys: int) -> tuple[Array, ...]:
    return (
        ordinary(dtype, 2, heads, queries, 24),
        ordinary(dtype, 2, kv_heads, keys, 24, seed=1),
        ordinary(dtype, 2, kv_heads, keys, 17, seed=2),
    )


# --- Bounds ---------------------------------------------------------------------------------------


def _weight_error(arrays: tuple[Array, ...], options: Options) -> tuple[Array, Array, Array]:
    """Return per row the relative errors of a weight and of a sum of them, and that of a score.

    u is half a last place. A score is a chain of dim products, then lambda, the cap, the bias: off
    by u (dim + 10) of the sum of magnitudes, whose largest in a row is what the definition gives as
    max_logit for |q| and |k|. A weight feels that of its own score and of the maximum, the rounding
    of their difference, at most twice the magnitudes, and exp, 2 u. Chains of keys run over 60 of
    them and are rescaled once a tile, 48 at least.
    """
    query, key, value = arrays
    u, keys, dim = _unit(query.dtype), key.shape[-2], query.shape[-1]
    positive = {name: value for name, value in options.items() if name != "softcap"}
    mask = positive.get("mask")
    if mask is not None and mask.dtype != bool:
        positive["mask"] = np.where(np.isinf(mask), mask, np.abs(mask))
    if "scale" in positive and isinstance(positive["scale"], float):
        positive["scale"] = abs(positive["scale"])
    _, stats = reference.attention(np.abs(query), np.abs(key), value, return_stats=True, **positive)
    size = np.where(np.isfinite(stats.max_logit), stats.max_logit, 0.0)
    score = u * (dim + 10) * size
    weight = 2 * score + u * (2 * size + 2)
    chain = u * (min(keys, 60) + keys / 60 + 3 * (keys / 48 + 1))
    return weight, np.full_like(weight, chain), score


def _forward_bounds(arrays: tuple[Array, ...], options: Options, expected: Any) -> Any:
    """Bound out, lse, entropy and max_logit to first order, with a tenth more for the second."""
    out, stats = expected
    dtype = arrays[0].dtype
    weight, chain, score = _weight_error(arrays, options)
    u, error = _unit(dtype), weight + chain
    top = float(np.abs(arrays[2].astype(np.float64)).max())
    out_bound = np.broadcast_to(2 * top * error[..., np.newaxis], out.shape)
    if dtype.itemsize == 2:  # stored, and subnormal; weights, at most 1, may be rounded to it
        place = last_place(dtype)
        out_bound = out_bound + place * (np.abs(out) + top / 4) + 2.0**-24
    lse, entropy, largest = (np.where(np.isfinite(x), np.abs(x), 0.0) for x in stats)
    spread = weight / u + largest  # more than any |score - maximum| in the row
    lse_bound = error + 2 * u * lse
    entropy_bound = 2 * error * (1 + spread) + 4 * u * entropy
    bounds = out_bound, lse_bound, entropy_bound, score + u * largest
    return tuple(1.1 * bound + 1e-300 for bound in bounds)


def _backward_bounds(
    arrays: tuple[Array, ...], grad_out: Array, options: Options, expected: tuple[Array, ...]
) -> Any:
    """Bound the gradients of query, key and value to first order, with a tenth more.

    With A the largest sum of |grad_out| |value| of a row, a term p (dP - D) is off by
    p A (4 weight + 4 u (dim_v + keys)): p's error on |dP - D| <= 2 A, D's through out, and the
    chains of both. The sums over keys and queries then add a chain of their own. With 16 bits out,
    p, the term and lambda q are rounded too, by half a last place each, and so is the result.
    """
    query, key, value = (np.abs(x.astype(np.float64)) for x in arrays)
    given = np.abs(grad_out.astype(np.float64))
    u, (queries, dim), keys = _unit(grad_out.dtype), query.shape[-2:], key.shape[-2]
    weight, chain, _ = _weight_error(arrays, options)
    # The weights themselves: attention to the unit vectors.
    units = np.broadcast_to(np.eye(keys), (*key.shape[:-1], keys))
    p = np.asarray(reference.attention(arrays[0], arrays[1], units, **options))
    group = query.shape[1] // key.shape[1]
    wide_key, wide_value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    a = (given @ np.swapaxes(wide_value, -1, -2)).max(axis=-1)
    dtype = grad_out.dtype
    place = last_place(dtype) if dtype.itemsize == 2 else 0.0
    error = 4 * (weight + chain) + 4 * u * (value.shape[-1] + keys) + 4 * place
    sums = u * (queries + keys + dim)
    term = p * (a * (error + 2 * sums))[..., np.newaxis]  # of one d score
    factor = np.abs(options["scale"])
    d_key = factor * np.swapaxes(term, -1, -2) @ query
    d_value = np.swapaxes(p * (weight + chain + sums + place)[..., np.newaxis], -1, -2) @ given

    def over_group(x: Array) -> Array:
        parts = x.reshape(len(x), key.shape[1], group, *x.shape[2:])
        return np.asarray(parts.sum(axis=2))

    bounds = factor * term @ wide_key, over_group(d_key), over_group(d_value)
    stored = (place * np.abs(x) + (2.0**-24 if place else 1e-300) for x in expected)
    return tuple(1.1 * bound + more for bound, more in zip(bounds, stored, strict=True))


def _softmax_bound(scores: Array, weights: Array, factor: float) -> Array:
    """Bound a softmax whose lambda is at most `factor`.

    s = lambda x is off by u |s|, s - m by u |s - m|, e^t by 2 u, the sum by 67 u (chains of 64,
    their lanes, then float64), the quotient by u; rounding to 16 bits adds half a last place. The
    float64 reference errs as much again as the float64 kernel.
    """
    u = _unit(scores.dtype) * (2 if scores.dtype == np.float64 else 1)
    wide = scores.astype(np.float64)
    size = factor * np.abs(np.where(np.isfinite(wide), wide, 0.0)).max(axis=-1, keepdims=True)
    bound = 1.1 * weights * (2 * u * (4 * size + 3) + 70 * u) + _smallest_result(scores.dtype)
    if scores.dtype.itemsize == 2:
        bound = bound + 1.1 * last_place(scores.dtype) / 2 * weights
    return np.asarray(bound)


def _smallest_result(dtype: Dtype) -> float:
    """Return what may be lost below the normal range: results there may be 0."""
    return {"float64": 2.0**-1022, "float16": 2.0**-25}.get(dtype.name, 2.0**-126)


# --- Cases ----------------------------------------------------------------------------------------


def _with_statistics(
    query: Array, key: Array, value: Array, mask: Array | None = None, **options: Any
) -> Any:
    out, stats = slipstick.attention(query, key, value, mask=mask, return_stats=True, **options)
    return out, *stats


def _masks(queries: int, keys: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    seen = rng.random((2, 1, queries, keys)) < 0.6
    seen[:, :, :2] = False  # rows that see nothing
    return seen, np.where(seen, rng.standard_normal(seen.shape), -np.inf).astype(np.float32)


def _forward() -> Iterator[Case]:
    queries, keys = 37, 149
    seen, bias = _masks(queries, keys)
    kinds: dict[str, Options] = {
        "full": {},
        "causal": {"causal": True},
        "window": {"window": (20, 3)},
        "causal window, Su": {"window": (40, 3), "causal": True, "scale": Su(1.3)},
        "bool mask": {"mask": seen},
        "float mask, SSMax": {"mask": bias, "scale": SSMax(0.3, b=0.1)},
        "key lengths": {"key_lengths": [keys - 1, 7]},
        "softcap": {"softcap": 0.7, "scale": 0.5},
    }
    for dtype in FLOATS:
        for heads, kv_heads in ((2, 2), (4, 1)):
            arrays = _inputs(dtype, heads, kv_heads, queries, keys)
            for name, options in kinds.items():
                out, stats = reference.attention(*arrays, return_stats=True, **options)
                assert isinstance(stats, reference.AttentionStats)
                bounds = _forward_bounds(arrays, options, (out, stats))
                rest = {name: value for name, value in options.items() if name != "mask"}
                call = partial(_with_statistics, **rest)
                # A mask is an operand: on a device it has to lie there.
                operands = (*arrays, options["mask"]) if "mask" in options else arrays
                title = f"{dtype}, {heads} heads on {kv_heads}, {name}"
                yield Case(title, call, operands, (out, *stats), bounds, portable=False)


def _few_rows() -> Iterator[Case]:
    """One query a head, as while a model writes."""
    for dtype in FLOATS:
        arrays = _inputs(dtype, 4, 2, 1, 700)
        out, stats = reference.attention(*arrays, return_stats=True)
        bounds = _forward_bounds(arrays, {}, (out, stats))
        yield Case(f"{dtype}", _with_statistics, arrays, (out, *stats), bounds, portable=False)


def _gradients(
    grad_out: Array, query: Array, key: Array, value: Array, **options: Any
) -> tuple[Array, ...]:
    out, stats = slipstick.attention(query, key, value, return_stats=True, **options)
    grads = slipstick.attention_backward(grad_out, query, key, value, out, stats, **options)
    return grads.query, grads.key, grads.value


def _backward() -> Iterator[Case]:
    kinds: dict[str, Options] = {
        "full": {"scale": 0.3},
        "causal": {"scale": 0.3, "causal": True},
        "window": {"scale": -0.3, "window": (20, 3)},
    }
    for dtype in FLOATS:
        for heads, kv_heads in ((2, 2), (4, 2)):
            arrays = _inputs(dtype, heads, kv_heads, 37, 101)
            grad_out = ordinary(dtype, 2, heads, 37, 17, seed=3)
            for name, options in kinds.items():
                query, key, value = arrays
                out, stats = reference.attention(query, key, value, return_stats=True, **options)
                grads = reference.attention_backward(
                    grad_out, query, key, value, out, stats, **options
                )
                bounds = _backward_bounds(arrays, grad_out, options, tuple(grads[:3]))
                call = partial(_gradients, **options)
                title = f"{dtype}, {heads} heads on {kv_heads}, {name}"
                operands = (grad_out, *arrays)
                yield Case(title, call, operands, tuple(grads[:3]), bounds, portable=False)


_PACKED: tuple[Options, ...] = ({}, {"causal": True})
_STARTS = np.array([0, 5, 5, 38, 60])  # four sequences, one of them empty


def _packed(query: Array, key: Array, value: Array, **options: Any) -> tuple[Array, ...]:
    out, stats = slipstick.attention_varlen(
        query, key, value, _STARTS, _STARTS, return_stats=True, **options
    )
    return out, *stats


def _varlen() -> Iterator[Case]:
    for dtype in FLOATS:
        shapes = ((60, 4, 24), (60, 2, 24), (60, 2, 17))
        arrays = tuple(ordinary(dtype, *shape, seed=seed) for seed, shape in enumerate(shapes))
        for options in _PACKED:
            parts, limits = [], []
            for start, stop in itertools.pairwise(_STARTS):
                alone = tuple(x[start:stop].swapaxes(0, 1)[np.newaxis] for x in arrays)
                if start == stop:
                    continue
                out, stats = reference.attention(*alone, return_stats=True, **options)
                bounds = _forward_bounds(alone, options, (out, stats))
                parts.append((out[0].swapaxes(0, 1), *(x[0] for x in stats)))
                limits.append((bounds[0][0].swapaxes(0, 1), *(x[0] for x in bounds[1:])))
            axes = (0, 1, 1, 1)
            whole, bound = (
                tuple(
                    np.concatenate(x, axis)
                    for x, axis in zip(zip(*y, strict=True), axes, strict=True)
                )
                for y in (parts, limits)
            )
            title = f"{dtype}, {'causal' if options else 'full'}"
            call = partial(_packed, **options)
            yield Case(title, call, arrays, whole, bound, portable=False)


def _halves(query: Array, key: Array, value: Array) -> tuple[Array, ...]:
    keys = key.shape[-2]
    parts = [
        slipstick.attention(query, key[:, :, at], value[:, :, at], n_keys=keys, return_stats=True)
        for at in (slice(keys // 2), slice(keys // 2, keys))
    ]
    out, stats = slipstick.merge_attention(parts)
    return out, *stats


def _merged() -> Iterator[Case]:
    """Bound what merging two halves of the keys adds to their own errors.

    An error e of their lse moves their weights by 2 e and the entropy by 2 e (H + ln 2 + 1); their
    out has been rounded before, and four more roundings follow.
    """
    for dtype in FLOATS:
        for heads, queries in ((2, 37), (4, 1)):
            arrays = _inputs(dtype, heads, 2, queries, 149)
            out, stats = reference.attention(*arrays, return_stats=True)
            own, lse, entropy, largest = _forward_bounds(arrays, {}, (out, stats))
            top = float(np.abs(arrays[2].astype(np.float64)).max())
            place = last_place(dtype) if dtype.itemsize == 2 else 0.0
            rounding = (place + 4 * _unit(dtype)) * top
            bounds = (
                own + 2 * lse[..., np.newaxis] * top + rounding,
                2 * lse,
                2 * lse * (np.asarray(stats.entropy) + 2) + 2 * entropy,
                largest,
            )
            title = f"{dtype}, {queries} queries"
            yield Case(title, _halves, arrays, (out, *stats), bounds, portable=False)


def _softmax() -> Iterator[Case]:
    for dtype in FLOATS:
        for rows, n in ((5, 1), (7, 64), (6, 501), (300, 200)):
            scores = ordinary(dtype, rows, n) * dtype.type(3)
            scores[np.random.default_rng(1).random(scores.shape) < 0.2] = -np.inf
            # The second is the largest lambda: LogN's is ln n / ln 512, and n is 501 at most.
            scales: tuple[tuple[Any, float], ...] = ((LogN(), 1.0), (-2.0, 2.0))
            for scale, factor in scales:
                weights = reference.softmax(scores, scale=scale)
                bound = _softmax_bound(scores, weights, factor)
                call = partial(slipstick.softmax, scale=scale)
                title = f"{dtype}, {rows} x {n}, scale {scale}"
                yield Case(title, call, (scores,), weights, bound, portable=False)


CHECKS = [
    Check("attention", "attention, statistics", _forward),
    Check("attention", "attention of single queries", _few_rows),
    Check("attention", "attention_backward", _backward),
    Check("attention", "attention_varlen", _varlen),
    Check("attention", "merge_attention", _merged),
    Check("attention", "softmax", _softmax),
]
