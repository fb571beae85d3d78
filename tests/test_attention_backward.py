"""`slipstick.attention_backward` against its formulas in extended precision."""

from __future__ import annotations

import doctest
import functools

import numpy as np
import pytest

import slipstick
from attention_backward_oracle import Upstream, check, expected, run, upstream_for
from attention_cases import options_for
from attention_oracle import BF16, DTYPES, INF, float_mask, inputs
from peak_memory import bytes_taken
from slipstick.scales import SSMax, Su

# 2 sequences, 4 heads over 2 key heads, 37 queries (74 rows a key head: two row tiles), 161 keys:
# two key tiles at every level and dtype, nothing a multiple of anything.
SHAPE = (2, 4, 2, 37, 161, 13, 9)
OPTIONS = options_for(161)


@functools.cache
def grid_case(name: str, dtype: np.dtype, which="all"):
    arrays = inputs(*SHAPE, dtype)
    upstream = upstream_for(arrays, which)
    return arrays, upstream, expected(arrays, upstream, OPTIONS[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, dtype, isa):
    arrays, upstream, want = grid_case(name, dtype)
    check(arrays, upstream, OPTIONS[name], want=want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("which", ["out", "lse", "entropy"])
@pytest.mark.parametrize("name", ["full", "softcap, causal, float mask", "SSMax a head"])
def test_each_upstream_gradient_alone(name, which, dtype):
    arrays, upstream, want = grid_case(name, dtype, which)
    check(arrays, upstream, OPTIONS[name], want=want)


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
    # Without columns p is 1 / n: of a few rows the naive error would be one rounding of one number.
    (2, 4, 2, 40, 41, 0, 5),
    (1, 1, 1, 7, 3, 4, 4),
    (1, 2, 1, 3, 997, 8, 16),
    (1, 6, 1, 1, 119, 16, 16),
    (1, 6, 6, 5, 120, 7, 3),
    (3, 8, 2, 11, 121, 31, 33),
    (1, 1, 1, 63, 63, 64, 64),
    (1, 1, 1, 64, 64, 65, 63),
    (1, 1, 1, 65, 65, 17, 2),
    (1, 1, 1, 15, 47, 300, 5),
    (1, 1, 1, 16, 48, 5, 300),
    (1, 3, 3, 127, 121, 64, 128),
]


@functools.cache
def size_case(sizes, dtype, causal):
    arrays = inputs(*sizes, dtype)
    upstream = upstream_for(arrays)
    return arrays, upstream, expected(arrays, upstream, {"causal": causal})


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, causal, dtype, isa, threads):
    arrays, upstream, want = size_case(sizes, np.dtype(dtype), causal)
    check(arrays, upstream, {"causal": causal}, want=want)


# --- What must hold to the bit --------------------------------------------------------------------


def bits(grads) -> list[np.ndarray]:
    return [np.asarray(x).view(f"u{x.dtype.itemsize}") for x in grads[:3]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"key_lengths": [300, 7, 150], "mask": float_mask(3, 1, 100, 301)}],
    ids=["full", "causal", "masked"],
)
def test_bits_depend_on_the_sequence_alone(options, dtype, isa):
    """Not on threads, on the run, or on what else is in the batch."""
    arrays = inputs(3, 4, 2, 100, 301, 24, 20, dtype)
    upstream = upstream_for(arrays)
    options = {"scale": SSMax([0.3, 0.2, -0.1, 0.4]), **options}
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(1)
        whole = run(arrays, upstream, options)
        for count in (1, 2, 7, 2, 7):
            slipstick.set_num_threads(count)
            again = run(arrays, upstream, options)
            for a, b in zip(bits(whole), bits(again), strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(whole.scale, again.scale, strict=True):
                np.testing.assert_array_equal(a, b)
        for b in range(3):
            one = slice(b, b + 1)
            own = {
                name: value[one] if name in ("key_lengths", "mask") else value
                for name, value in options.items()
            }
            alone = run([x[one] for x in arrays], Upstream(*(x[one] for x in upstream)), own)
            for part, all_ in zip(bits(alone), bits(whole), strict=True):
                np.testing.assert_array_equal(part[0], all_[b])
            # A key head with its group, without the others.
            parts = [arrays[0][one, 2:], arrays[1][one, 1:], arrays[2][one, 1:]]
            own["scale"] = SSMax([-0.1, 0.4])
            group = run(parts, Upstream(*(x[one, 2:] for x in upstream)), own)
            for part, all_, first in zip(bits(group), bits(whole), (2, 1, 1), strict=True):
                np.testing.assert_array_equal(part[0], all_[b, first:])
    finally:
        slipstick.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_key_gives_exact_gradients(dtype, isa):
    """p = 1 and dS = dL: row 0 of a causal head has lambda 0, and its gradients are 0."""
    arrays = inputs(1, 2, 2, 1, 1, 16, 8, dtype)
    upstream = upstream_for(arrays, "entropy")._replace(out=upstream_for(arrays).out)
    got = run(arrays, upstream, {})
    assert (got.query == 0).all()
    assert (got.key == 0).all()
    np.testing.assert_array_equal(got.value, upstream.out)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_are_those_of_the_forward_pass(dtype, rows, strided, isa):
    """One key: p = e^(s - lse) is exactly 1 where s is added up in the order that lse was made of,
    for a few rows as for many; else it is off by the rounding of s, here about 1e-4."""
    rng = np.random.default_rng(0)
    query = (10 * rng.standard_normal((2 * rows, 77))).astype(dtype)[::2]
    key = (10 * rng.standard_normal((77, 1))).astype(dtype).T
    key = key if strided else np.ascontiguousarray(key)
    value, grad = np.ones((1, 4), dtype), np.ones((rows, 4), dtype)
    out, stats = slipstick.attention(query, key, value, scale=1.0, return_stats=True)
    grads = slipstick.attention_backward(grad, query, key, value, out, stats, scale=np.float64(1.0))
    assert type(grads.scale) is float  # of NumPy's numbers as of Python's
    np.testing.assert_array_equal(grads.value, np.full((1, 4), rows, dtype))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)], ids=str)
@pytest.mark.parametrize("queries", [1, 2, 4])
def test_few_rows_with_sharp_weights(queries, dtype, isa):
    arrays = inputs(2, 4, 2, queries, 130, 64, 9, dtype, spread=4.0)
    check(arrays, upstream_for(arrays), {})


# --- Hidden keys, infinities, NaN -----------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hidden_keys_take_and_give_nothing(dtype, bad, isa):
    q, k, v = inputs(1, 2, 1, 40, 150, 9, 7, dtype)
    upstream = upstream_for((q, k, v))
    mask = np.ones((40, 150), bool)
    mask[:, [3, 130]] = False
    mask[20] = False
    options = {"mask": mask, "key_lengths": [140]}
    want = run((q, k, v), upstream, options)
    k, v = k.copy(), v.copy()
    for x in (k, v):
        x[:, :, [3, 130]] = bad
        x[:, :, 140:] = bad
    got = run((q, k, v), upstream, options)
    assert (got.key[:, :, [3, 130, *range(140, 150)]] == 0).all()
    assert (got.value[:, :, [3, 130, *range(140, 150)]] == 0).all()
    assert (got.query[:, :, 20] == 0).all()
    step = {2: 2.0**-7 if dtype == BF16 else 2.0**-10, 4: 2.0**-20, 8: 2.0**-49}[dtype.itemsize]
    for a, b in zip(got[:3], want[:3], strict=True):
        # Such a tile adds in another order: 150 additions at the most.
        a, b = a.astype(float), b.astype(float)
        np.testing.assert_allclose(a, b, rtol=step, atol=step * np.abs(b).max())


def test_what_is_not_finite_reaches_what_sees_it(isa):
    arrays = inputs(1, 1, 1, 40, 150, 9, 7, np.float32)
    upstream = upstream_for(arrays)
    options = {"causal": True}
    want = run(arrays, upstream, options)
    k = arrays[1].copy()
    k[0, 0, 130, 2] = np.nan  # seen by queries 20 on
    got = run((arrays[0], k, arrays[2]), upstream, options)
    assert np.isnan(got.query[0, 0, 20:]).all()
    np.testing.assert_allclose(got.query[0, 0, :20], want.query[0, 0, :20], rtol=1e-5, atol=1e-6)
    bad = upstream.out.copy()
    bad[0, 0, 0] = np.nan  # query 0 sees keys up to 110
    got = run(arrays, upstream._replace(out=bad), options)
    assert np.isnan(got.value[0, 0, :111]).all()
    np.testing.assert_allclose(got.value[0, 0, 111:], want.value[0, 0, 111:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.key[0, 0, 111:], want.key[0, 0, 111:], rtol=1e-5, atol=1e-6)
    empty = {"key_lengths": [0]}
    for x in run((arrays[0] * np.nan, k, arrays[2]), upstream, {**empty, "scale": 0.5}):
        assert np.all(x == 0)


def test_parts_of_the_keys_add_up_to_the_whole(isa):
    """With the statistics of all keys, as in ring attention."""
    arrays = inputs(1, 4, 2, 50, 210, 16, 16, np.float64)
    q, k, v = arrays
    upstream = upstream_for(arrays)
    options = {"n_keys": 210, "scale": Su(0.8)}
    want = run(arrays, upstream, options)
    out, stats = slipstick.attention(*arrays, return_stats=True, **options)
    parts = [
        slipstick.attention_backward(
            upstream.out,
            q,
            k[:, :, cut],
            v[:, :, cut],
            out,
            stats,
            grad_lse=upstream.lse,
            grad_entropy=upstream.entropy,
            **options,
        )
        for cut in (slice(0, 70), slice(70, 201), slice(201, 210))
    ]
    # 210 additions of float64 numbers of about 1.
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(sum(x.query for x in parts), want.query, **close)
    np.testing.assert_allclose(np.concatenate([x.key for x in parts], 2), want.key, **close)
    np.testing.assert_allclose(np.concatenate([x.value for x in parts], 2), want.value, **close)
    np.testing.assert_allclose(sum(x.scale for x in parts), want.scale, **close)


# --- Layout and frameworks ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(dtype, isa):
    rng = np.random.default_rng(0)
    packed = rng.standard_normal((2, 50, 3, 3, 16)).astype(dtype)
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    q, k, v = q[:, :, ::-1], k[:, :, ::2, ::-1], v[:, :, ::2]
    stats = np.float64 if dtype == np.float64 else np.float32
    upstream = Upstream(
        np.broadcast_to(rng.standard_normal((3, 1, 1)).astype(dtype), q.shape),
        np.broadcast_to(stats(0.5), q.shape[:3]),
        rng.standard_normal((2, 50, 3)).astype(stats).transpose(0, 2, 1),
    )
    got = run((q, k, v), upstream, {"causal": True})
    want = run(
        [np.ascontiguousarray(x) for x in (q, k, v)],
        Upstream(*map(np.ascontiguousarray, upstream)),
        {"causal": True},
    )
    for a, b in zip(bits(got), bits(want), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_axes(isa):
    arrays = inputs(1, 4, 2, 20, 30, 8, 6, np.float32)
    upstream = upstream_for(arrays)
    options = {"causal": True, "scale": SSMax(0.4)}
    whole = run(arrays, upstream, options)
    three = run([x[0] for x in arrays], Upstream(*(x[0] for x in upstream)), options)
    for a, b in zip(three[:3], whole[:3], strict=True):
        np.testing.assert_array_equal(a, b[0])
    assert three.scale == whole.scale
    q, k, v = (x[0, 0] for x in arrays)
    two = run((q, k, v), Upstream(*(x[0, 0] for x in upstream)), options)
    np.testing.assert_array_equal(two.query, whole.query[0, 0])


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_torch_agrees_with_its_own_gradients(name):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    q, k, v, grad = (
        torch.from_numpy(x).to(dtype)
        for x in (*inputs(2, 4, 4, 30, 30, 8, 8, "f4"), inputs(2, 4, 4, 30, 1, 8, 8, "f4", 5)[0])
    )
    lam = torch.full((4, 1), 0.3, dtype=torch.float64)
    out, stats = slipstick.attention(q, k, v, causal=True, scale=lam, return_stats=True)
    got = slipstick.attention_backward(grad, q, k, v, out, stats, causal=True, scale=lam)
    assert all(x.dtype == dtype for x in got[:3])
    assert (got.scale.dtype, got.scale.shape) == (torch.float64, (4, 1))
    wide = [x.to(torch.float64).requires_grad_() for x in (q, k, v, lam)]
    theirs = torch.nn.functional.scaled_dot_product_attention(
        wide[0] * wide[3][..., None], *wide[1:3], is_causal=True, scale=1.0
    )
    theirs.backward(grad.to(torch.float64))
    # Sums of 240 terms of about 1, in units of the dtype.
    step = {"float32": 2.0**-18, "float64": 2.0**-46, "float16": 2.0**-7, "bfloat16": 2.0**-4}[name]
    for a, b in zip(got, wide, strict=True):
        bound = step * b.grad.abs().max().item()
        np.testing.assert_allclose(a.to(torch.float64).numpy(), b.grad.numpy(), rtol=0, atol=bound)


def test_jax():
    jax = pytest.importorskip("jax")
    arrays = inputs(1, 2, 2, 9, 30, 8, 8, np.float32)
    upstream = upstream_for(arrays)
    got = run([jax.numpy.asarray(x) for x in arrays], upstream, {"causal": True})
    want = run(arrays, upstream, {"causal": True})
    assert all(isinstance(x, jax.Array) for x in got[:3])
    for a, b in zip(got[:3], want[:3], strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


# --- Refusals -------------------------------------------------------------------------------------


def refusal_cases():
    q, k, v = inputs(2, 4, 2, 5, 7, 8, 6, np.float32)
    out, stats = slipstick.attention(q, k, v, return_stats=True)
    good = {
        "grad_out": out,
        "query": q,
        "key": k,
        "value": v,
        "out": out,
        "stats": stats,
    }
    like = "like what attention returns"
    wide = np.float64
    return good, [
        (
            {"out": out[:, :, :4]},
            ValueError,
            f"`out` must have shape (2, 4, 5, 6) {like}, got (2, 4, 4, 6)",
        ),
        (
            {"out": out.astype(wide)},
            TypeError,
            f"`out` must have dtype float32 {like}, got float64",
        ),
        (
            {"grad_out": out[..., :5]},
            ValueError,
            "`grad_out` must have shape (2, 4, 5, 6) like `out`, got (2, 4, 5, 5)",
        ),
        (
            {"grad_out": out.astype(np.float16)},
            TypeError,
            "`grad_out` must have dtype float32 like `out`, got float16",
        ),
        (
            {"stats": stats._replace(lse=stats.lse[0])},
            ValueError,
            f"`stats.lse` must have shape (2, 4, 5) {like}, got (4, 5)",
        ),
        (
            {"stats": stats._replace(entropy=stats.entropy.astype(wide))},
            TypeError,
            f"`stats.entropy` must have dtype float32 {like}, got float64",
        ),
        (
            {"stats": None},
            TypeError,
            "`stats` must be the AttentionStats that attention returned, got NoneType",
        ),
        (
            {"grad_lse": stats.lse[:1]},
            ValueError,
            "`grad_lse` must have shape (2, 4, 5) like `stats.lse`, got (1, 4, 5)",
        ),
        (
            {"grad_entropy": stats.lse.astype(wide)},
            TypeError,
            "`grad_entropy` must have dtype float32 like `stats.entropy`, got float64",
        ),
        (
            {"key": k[..., :7]},
            ValueError,
            "`key` must have 8 columns like `query`, got shape (2, 2, 7, 7)",
        ),
        ({"causal": 1}, TypeError, "`causal` must be True or False, got 1"),
        (
            {"window": 3},
            TypeError,
            "`window` must be None or (left, right), each None or an int >= -1, got 3",
        ),
        (
            {"softcap": -1.0},
            ValueError,
            "`softcap` must be None or a finite number above 0, got -1.0",
        ),
        ({"n_keys": -1}, ValueError, f"`n_keys` must be from 0 to {2**53}, got -1"),
        ({"key_lengths": [8, 1]}, ValueError, "`key_lengths` must be from 0 to 7, got 8"),
        (
            {"mask": np.ones((3, 7), bool)},
            ValueError,
            "`mask` must broadcast to (batch, heads, queries, keys), here (2, 4, 5, 7), "
            "got shape (3, 7)",
        ),
        (
            {"scale": "logn"},
            TypeError,
            "`scale` must be an object of slipstick.scales, a number or an array, got 'logn'",
        ),
        (
            {"scale": SSMax([1.0, 2.0])},
            ValueError,
            "`scale` must have one entry for all heads or one for each of the 4 heads, got 2",
        ),
    ]


@pytest.mark.parametrize("case", range(18))
def test_refusals(case):
    good, cases = refusal_cases()
    assert len(cases) == 18
    changes, kind, message = cases[case]
    with pytest.raises(kind) as caught:
        slipstick.attention_backward(**{**good, **changes})
    assert str(caught.value) == f"attention_backward: {message}"


# --- Memory and examples --------------------------------------------------------------------------


def test_memory_grows_linearly():
    """At 16384 keys all scores would be 1 GiB; packed rows are 8 MiB, the sums of dQ 8 x 2 MiB."""
    setup = """
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, 16384, 32), dtype=np.float32)
window = (100, 100)
out, stats = slipstick.attention(q, k, v, window=window, return_stats=True)
"""
    call = "slipstick.attention_backward(q, q, k, v, out, stats, window=window)"
    assert bytes_taken(setup, call) < 48 << 20


def test_examples():
    import slipstick._attention_backward as module

    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
