"""What the gradients of attention have to be, and how far off they may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import slipstick
from attention_oracle import (
    INF,
    direct,
    distance,
    largest,
    product,
    row_factors,
    visible_and_bias,
)
from remembered import remembered
from slipstick.scales import LogN, Scale, SSMax, Su


class Upstream(NamedTuple):
    out: np.ndarray
    lse: np.ndarray | None
    entropy: np.ndarray | None


class Grads(NamedTuple):
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    factor: np.ndarray  # dlambda, (batch, heads, queries)


def upstream_for(arrays, which="all", seed=9) -> Upstream:
    """Gradients that arrive at out, lse and entropy; only those that `which` names are not 0."""
    query, _, value = arrays
    rng = np.random.default_rng(seed)
    rows = query.shape[:-1]
    stats = np.dtype(np.float64 if query.dtype == np.float64 else np.float32)
    out = rng.standard_normal((*rows, value.shape[-1])).astype(query.dtype)
    lse, entropy = (rng.standard_normal(rows).astype(stats) for _ in range(2))
    return Upstream(
        out if which in ("out", "all") else np.zeros_like(out),
        lse if which in ("lse", "all") else None,
        entropy if which in ("entropy", "all") else None,
    )


def sum_over_group(x, kv_heads, work, order):
    """(batch, heads, ...) to (batch, kv_heads, ...), a head after the other."""
    group = x.shape[1] // max(1, kv_heads)
    parts = x.reshape(x.shape[0], kv_heads, group, *x.shape[2:])
    total = np.zeros((x.shape[0], kv_heads, *x.shape[2:]), work)
    for i in range(parts.shape[2]) if order is None else order.permutation(parts.shape[2]):
        total += parts[:, :, i]
    return total


def direct_backward(arrays, upstream, options, *, work, stored=None, order=None) -> Grads:
    """The formulas on the full score matrix, every step in `work` and rounded to `stored`.

    out and the statistics are those of the naive forward function, as a caller would hand them on.
    `order` is a seed for the order of the sums. Finite inputs only.
    """

    def step(x):
        return x if stored is None else x.astype(stored).astype(work)

    def times(a, b):  # a @ b with a shuffled sum
        if rng is not None:
            shuffle = rng.permutation(a.shape[-1])
            a, b = a[..., shuffle], b[..., shuffle, :]
        return step(product(a, b, work))

    rng = None if order is None else np.random.default_rng(order)
    forward = direct(*arrays, options, work=work, stored=stored, order=order)
    missing = tuple(range(4 - arrays[0].ndim))
    q, k, v, d_out, out = (
        np.expand_dims(x, missing).astype(work) for x in (*arrays, upstream.out, forward.out)
    )
    kv_heads = k.shape[1]
    k, v = (np.repeat(x, q.shape[1] // max(1, kv_heads), axis=1) for x in (k, v))
    lse, entropy, d_lse, d_entropy = (
        np.expand_dims(np.zeros(forward.lse.shape) if x is None else x, missing)[
            ..., np.newaxis
        ].astype(work)
        for x in (forward.lse, forward.entropy, upstream.lse, upstream.entropy)
    )
    visible, bias = visible_and_bias(arrays[0], arrays[1], options)
    factor = row_factors(arrays[0], visible, options).astype(work)
    factor = np.where(visible.any(axis=-1, keepdims=True), factor, work(0))
    products = times(q, np.swapaxes(k, -1, -2))
    scores = step(factor * products)
    slope = np.ones(scores.shape, work)
    cap = options.get("softcap")
    if cap is not None:
        t = step(np.tanh(scores / work(cap)))
        slope, scores = step(work(1) - t * t), step(work(cap) * t)
    if bias.any():
        scores = step(scores + np.where(visible, bias, 0.0).astype(work))
    u = np.where(visible, step(scores - np.where(np.isfinite(lse), lse, work(0))), work(-INF))
    p = step(np.exp(u))
    constant = step(times(d_out[..., np.newaxis, :], out[..., np.newaxis])[..., 0])
    constant = step(constant - d_lse + d_entropy * entropy)
    inner = step(times(d_out, np.swapaxes(v, -1, -2)) - constant)
    inner = step(inner - d_entropy * np.where(p > 0, u, work(0)))
    d_products = step(p * inner * slope)
    turned = times(d_products, k)
    d_key = times(np.swapaxes(d_products, -1, -2), step(factor * q))
    d_value = times(np.swapaxes(p, -1, -2), d_out)
    grads = (
        step(factor * turned),
        step(sum_over_group(d_key, kv_heads, work, rng)),
        step(sum_over_group(d_value, kv_heads, work, rng)),
        (q * turned).sum(axis=-1),
    )
    return Grads(*(np.squeeze(x, missing) for x in grads))


class Expected(NamedTuple):
    exact: Grads
    errors: Grads  # e_ref of each


@remembered
@np.errstate(invalid="ignore", over="ignore", under="ignore")
def expected(arrays, upstream, options) -> Expected:
    """The gradients in extended precision, and the errors of the naive implementation."""
    dtype = arrays[0].dtype
    work = np.float64 if dtype == np.float64 else np.float32
    exact = direct_backward(arrays, upstream, options, work=np.longdouble)
    # As in the forward rule: the largest over eight orders of the sums.
    errors = [
        [largest(distance(a, b)) for a, b in zip(naive, exact, strict=True)]
        for naive in (
            direct_backward(
                arrays,
                upstream,
                options,
                work=work,
                stored=dtype if dtype.itemsize == 2 else None,
                order=order,
            )
            for order in (None, *range(7))
        )
    ]
    return Expected(exact, Grads(*np.max(errors, axis=0)))


def run(arrays, upstream, options):
    out, stats = slipstick.attention(*arrays, return_stats=True, **options)
    return slipstick.attention_backward(
        upstream.out,
        *arrays,
        out,
        stats,
        grad_lse=upstream.lse,
        grad_entropy=upstream.entropy,
        **options,
    )


def scale_gradient(factor, arrays, options) -> Any:
    """What dlambda of every row comes to in the scale's own parameters."""
    query, key, _ = arrays
    scale = options.get("scale", LogN())
    visible, _ = visible_and_bias(query, key, options)
    counts = visible.sum(axis=-1)
    if options.get("n_keys") is not None:
        counts = np.asarray(options["n_keys"])
        counts = counts[:, np.newaxis] if counts.ndim == 1 else counts
        counts = counts[:, np.newaxis, :] if counts.ndim == 2 else counts
    counts = np.broadcast_to(counts, visible.shape[:3])
    logs = factor * np.log(np.maximum(counts, 1).astype(np.longdouble))
    root = np.sqrt(np.longdouble(max(1, query.shape[-1])))
    if isinstance(scale, Su):
        return logs.sum() / root**2
    if isinstance(scale, SSMax):
        return tuple(
            (x.sum(axis=(0, 2)) if isinstance(given, tuple) else x.sum()) / root
            for given, x in ((scale.s, logs), (scale.b, factor))
        )
    if isinstance(scale, Scale):
        return None
    shape = np.shape(scale)
    axes = tuple(i for i, size in enumerate((1,) * (3 - len(shape)) + shape) if size == 1)
    return factor.sum(axis=axes, keepdims=True).reshape(shape)


def check(arrays, upstream, options, *, want: Expected | None = None):
    """Run the kernels and compare."""
    return compare(run(arrays, upstream, options), arrays, upstream, options, want=want)


def compare(got, arrays, upstream, options, *, want: Expected | None = None):
    """Compare what the kernels gave by the rules of the specification.

    dQ, dK, dV, dlambda: error <= 1.5 times that of a naive implementation in the same dtype, plus
    2.5 steps of the work's dtype at the largest gradient: a weight exp(score - lse) may be off by
    half a step for each of the three roundings in its exponent and one for its exp, and a naive
    implementation of seven rows and three keys is sometimes lucky in all of its weights.
    dkappa, ds, db: relative 1e-4 of the sum of magnitudes of what is added up; for 16-bit inputs,
    where `out` itself is rounded to 2^-9 or 2^-12, the first rule on those sums.
    """
    exact, errors = want or expected(arrays, upstream, options)
    dtype = arrays[0].dtype
    for name in ("query", "key", "value"):
        gradient, right = getattr(got, name), getattr(exact, name)
        assert gradient.dtype == dtype
        assert gradient.shape == right.shape
        error = distance(gradient.astype(np.longdouble), right).max(initial=0)
        step = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
        assert error <= 1.5 * getattr(errors, name) + 2.5 * step * largest(right), name
    check_scale(got.scale, arrays, options, exact, errors)
    return got


def check_scale(got, arrays, options, exact, errors):
    scale = options.get("scale", LogN())
    want = scale_gradient(exact.factor, arrays, options)
    if want is None:
        assert got is None
        return
    if isinstance(scale, SSMax):
        assert isinstance(got, tuple)
    sizes = scale_gradient(np.abs(exact.factor), arrays, options)
    rows = scale_gradient(np.ones_like(exact.factor), arrays, options)
    parts = zip(
        *(x if isinstance(x, tuple) else (x,) for x in (got, want, sizes, rows)), strict=True
    )
    for gradient, right, size, weight in parts:
        assert np.shape(gradient) == np.shape(right)
        # Every row's dlambda may be off by the rule; in a sum these errors add at most.
        allowed = 1.5 * errors.factor * weight
        if isinstance(scale, Scale) and arrays[0].dtype.itemsize > 2:
            allowed = 1e-4 * size
        elif isinstance(gradient, np.ndarray):
            allowed = allowed + np.abs(right) * np.finfo(np.float32).eps
        gap = distance(np.asarray(gradient).astype(np.longdouble), right)
        assert (gap <= allowed).all()
