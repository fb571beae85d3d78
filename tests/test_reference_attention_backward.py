"""The gradients of the attention reference against finite differences of its forward function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slipstick import reference
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature

SHAPES = ((2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 2))  # query, key and value
UPSTREAM = ["out", "lse", "entropy", "all"]
MASK = np.where(np.random.default_rng(5).random((2, 1, 5, 7)) < 0.7, 0.3, -np.inf)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window": (2, 1), "softcap": 0.8},
    "bias": {"mask": MASK, "key_lengths": [7, 4], "scale": SSMax(-0.5, b=0.2)},
    "n_keys": {"n_keys": [20, 30], "causal": True, "softcap": 2.0},
    "nothing visible": {"key_lengths": [0, 7]},
}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(shape) for shape in SHAPES]
    upstream = [rng.standard_normal(shape) for shape in ((2, 4, 5, 2), (2, 4, 5), (2, 4, 5))]
    return inputs, upstream


def upstream_of(which, grads):
    out, lse, entropy = grads
    return [
        out if which in ("out", "all") else np.zeros_like(out),
        lse if which in ("lse", "all") else None,
        entropy if which in ("entropy", "all") else None,
    ]


def objective(inputs, upstream, options):
    out, stats = reference.attention(*inputs, return_stats=True, **options)
    total = float((upstream[0] * out).sum())
    for grad, part in zip(upstream[1:], (stats.lse, stats.entropy), strict=True):
        if grad is not None:
            total += float((grad * np.where(np.isinf(part), 0.0, part)).sum())
    return total


def gradients(inputs, upstream, options):
    out, stats = reference.attention(*inputs, return_stats=True, **options)
    return reference.attention_backward(
        upstream[0], *inputs, out, stats, grad_lse=upstream[1], grad_entropy=upstream[2], **options
    )


def slope(function, step=1e-5):
    """f'(0) by central differences of fourth order: error step^4 and 1e-16 |f| / step."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


# Rounding of differences: |f| is below 100, so 1e-14 of it over 12e-5 is 1e-9.
CLOSE = {"rtol": 1e-7, "atol": 1e-8}


@pytest.mark.parametrize("which", UPSTREAM)
@pytest.mark.parametrize("name", OPTIONS)
def test_inputs(name, which):
    inputs, grads = arrays()
    upstream, options = upstream_of(which, grads), OPTIONS[name]
    got = gradients(inputs, upstream, options)
    for position, gradient in enumerate(got[:3]):
        want = np.zeros(SHAPES[position])
        for index in np.ndindex(SHAPES[position]):

            def moved(step, position=position, index=index):
                changed = [x.copy() for x in inputs]
                changed[position][index] += step
                return objective(changed, upstream, options)

            want[index] = slope(moved)
        np.testing.assert_allclose(gradient, want, **CLOSE)


@pytest.mark.parametrize("which", UPSTREAM)
@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda x: Su(x[0]), [0.7]),
        (lambda x: Su(x[0]), [0.0]),
        (lambda x: SSMax(x[0], b=x[1]), [0.4, -0.3]),
        (lambda x: SSMax(x[:4], b=x[4:]), [0.4, -0.2, 0.0, 0.5, 0.1, 0.0, -0.3, 0.2]),
        (lambda x: SSMax(x[:4], b=x[4]), [0.4, -0.2, 0.0, 0.5, 0.1]),
        (lambda x: float(x[0]), [0.3]),
        (lambda x: np.array(x).reshape(4, 1), [0.3, -0.1, 0.0, 0.8]),
        (lambda x: np.array(x).reshape(2, 1, 5), np.linspace(-1, 1, 10).tolist()),
    ],
)
def test_scale(make, at, softcap, which):
    inputs, grads = arrays(1)
    upstream = upstream_of(which, grads)
    options = {"causal": True, "softcap": softcap}
    got = gradients(inputs, upstream, {"scale": make(at), **options}).scale
    if not isinstance(make(at), (Su, SSMax)):
        assert np.shape(got) == np.shape(make(at))
    got = np.concatenate([np.ravel(x) for x in got]) if isinstance(got, tuple) else np.ravel(got)
    for i, value in enumerate(got):

        def moved(step, i=i):
            changed = [x + (step if i == j else 0.0) for j, x in enumerate(at)]
            return objective(inputs, upstream, {"scale": make(changed), **options})

        np.testing.assert_allclose(value, slope(moved), **CLOSE)


@pytest.mark.parametrize("scale", [LogN(), ClippedLogN(4), Temperature(0.5, 2)], ids=repr)
def test_scales_without_a_parameter_to_learn(scale):
    inputs, grads = arrays()
    assert gradients(inputs, upstream_of("all", grads), {"scale": scale}).scale is None


def test_one_key_moves_the_log_sum_exp_alone():
    """p = 1 whatever the score: dS = dL."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 1, 1, 4))
    got = gradients(
        [q, k, v], [np.ones((1, 1, 1, 4)), np.full((1, 1, 1), 2.0), np.ones((1, 1, 1))], {}
    )
    np.testing.assert_array_equal(got.query, 0)  # lambda is 0
    np.testing.assert_array_equal(got.key, 0)
    np.testing.assert_array_equal(got.value, 1)
    got = gradients(
        [q, k, v], [np.ones((1, 1, 1, 4)), np.full((1, 1, 1), 2.0), None], {"scale": 0.5}
    )
    np.testing.assert_allclose(got.query, k, rtol=1e-15)
    np.testing.assert_allclose(got.scale, 2 * (q * k).sum(), rtol=1e-14)


def test_entropy_falls_with_lambda():
    """dH / dlambda = -lambda Var_p(r)."""
    inputs, (out, _, _) = arrays(2)
    upstream = [np.zeros_like(out), None, np.ones((2, 4, 5))]
    got = gradients(inputs, upstream, {"scale": np.full((2, 4, 5), 0.6)}).scale
    q, k, _ = inputs
    r = q @ np.swapaxes(np.repeat(k, 2, axis=1), -1, -2)
    p = np.exp(0.6 * r)
    p /= p.sum(axis=-1, keepdims=True)
    mean = (p * r).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(got, -0.6 * (p * (r - mean) ** 2).sum(axis=-1), rtol=1e-12)


def test_hidden_keys_give_and_take_nothing():
    inputs, grads = arrays()
    options = {"key_lengths": [4, 5], "causal": True}
    want = gradients(inputs, grads, options)
    q, k, v = (x.copy() for x in inputs)
    for x in (k, v):
        x[0, :, 4:] = np.nan
        x[1, :, 5:] = np.inf
    got = gradients([q, k, v], grads, options)
    for a, b in zip(got[:3], want[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (got.key[0, :, 4:] == 0).all()
    # A row's own NaN stays its own: key 6 is seen by the last query alone.
    q[:, :, -1] = np.nan
    got = gradients([q, *inputs[1:]], grads, {"causal": True})
    assert np.isfinite(got.query[:, :, :-1]).all()
    assert np.isnan(got.query[:, :, -1]).all()
