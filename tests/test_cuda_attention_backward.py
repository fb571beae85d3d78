"""`slipstick.attention_backward` on CUDA devices, by the rules that the CPU is tested with.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import slipstick
from attention_backward_oracle import Upstream, compare, expected, upstream_for
from attention_cases import options_for
from attention_on_device import differentiate, moved, with_dtypes
from attention_oracle import BF16, DTYPES, INF, bits, float_mask, inputs
from slipstick.scales import LogN, SSMax, Su
from test_attention_backward import refusal_cases

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

# As forward: 74 rows a key head, 133 keys.
SHAPE = (2, 4, 2, 37, 133, 13, 9)
OPTIONS = options_for(133)


@functools.cache
def grid_case(name, dtype, which="all"):
    arrays = inputs(*SHAPE, dtype)
    upstream = upstream_for(arrays, which)
    return arrays, upstream, expected(arrays, upstream, OPTIONS[name])


def check(device, arrays, upstream, options, *, want=None):
    grads = differentiate(device, arrays, upstream, options)
    return compare(grads, arrays, upstream, options, want=want)


@pytest.mark.parametrize(("name", "dtype"), with_dtypes(OPTIONS))
def test_options(device, name, dtype):
    arrays, upstream, want = grid_case(name, dtype)
    check(device, arrays, upstream, OPTIONS[name], want=want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("which", ["out", "lse", "entropy"])
@pytest.mark.parametrize("name", ["full", "softcap, causal, float mask", "SSMax a head"])
def test_each_upstream_gradient_alone(device, name, which, dtype):
    arrays, upstream, want = grid_case(name, dtype, which)
    check(device, arrays, upstream, OPTIONS[name], want=want)


SIZES = [
    # batch, heads, kv_heads, queries, keys, dim, dim_v
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 2, 8, 8),
    (0, 2, 2, 3, 4, 5, 6),
    (2, 0, 1, 3, 4, 5, 6),
    (2, 2, 2, 0, 4, 5, 6),
    (2, 2, 1, 3, 0, 5, 6),
    (2, 2, 1, 3, 4, 5, 0),
    (2, 4, 2, 40, 41, 0, 5),
    (1, 1, 1, 7, 3, 4, 4),
    (1, 2, 1, 3, 300, 8, 16),
    (1, 6, 1, 1, 119, 16, 16),
    (3, 8, 2, 11, 65, 31, 33),
    (1, 1, 1, 63, 63, 64, 64),
    (1, 1, 1, 64, 64, 65, 63),
    (1, 1, 1, 65, 129, 64, 128),
    (1, 1, 1, 129, 65, 17, 2),
    (1, 1, 1, 35, 66, 256, 256),
    (1, 1, 1, 33, 65, 129, 250),
    (1, 3, 3, 67, 70, 128, 128),
]


@functools.cache
def size_case(sizes, dtype, causal):
    arrays = inputs(*sizes, dtype)
    upstream = upstream_for(arrays)
    return arrays, upstream, expected(arrays, upstream, {"causal": causal})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("sizes", "dtype"), with_dtypes(SIZES))
def test_sizes(device, sizes, causal, dtype):
    arrays, upstream, want = size_case(sizes, dtype, causal)
    check(device, arrays, upstream, {"causal": causal}, want=want)


# --- What must hold to the bit --------------------------------------------------------------------


def assert_same_bits(first, second, at=...):
    for a, b in zip(first[:3], second[:3], strict=True):
        np.testing.assert_array_equal(bits(a), bits(b[at]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["full", "causal", "masked"])
def test_bits_depend_on_the_sequence_alone(device, name, dtype):
    """Not on the run, nor on what else is in the batch or among the heads."""
    arrays = inputs(3, 4, 2, 40, 150, 24, 20, dtype)
    upstream = upstream_for(arrays)
    options = {"scale": SSMax([0.3, 0.2, -0.1, 0.4]), "causal": name == "causal"}
    if name == "masked":
        options |= {"key_lengths": np.array([149, 7, 80]), "mask": float_mask(3, 1, 40, 150)}
    whole = differentiate(device, arrays, upstream, options)
    again = differentiate(device, arrays, upstream, options)
    assert_same_bits(again, whole)
    for a, b in zip(whole.scale, again.scale, strict=True):
        np.testing.assert_array_equal(a, b)
    for b in range(3):
        one = slice(b, b + 1)
        own = {
            name: value[one] if name in ("key_lengths", "mask") else value
            for name, value in options.items()
        }
        alone = [x[one] for x in arrays], Upstream(*(x[one] for x in upstream))
        assert_same_bits(differentiate(device, *alone, own), whole, np.s_[one])
        # A key head with its group, without the others.
        own["scale"] = SSMax([-0.1, 0.4])
        parts = [arrays[0][one, 2:], arrays[1][one, 1:], arrays[2][one, 1:]]
        group = differentiate(device, parts, Upstream(*(x[one, 2:] for x in upstream)), own)
        for part, all_, first in zip(group[:3], whole[:3], (2, 1, 1), strict=True):
            np.testing.assert_array_equal(bits(part), bits(all_[one, first:]))


@pytest.mark.parametrize("dim", [64, 128, 256])
def test_less_shared_memory_gives_the_same_bits(device, dim):
    """The second emulated device has room for one tile at a time where the first has two."""
    if not device.emulated:
        pytest.skip("devices of the machine may add up in other orders")
    arrays = inputs(1, 2, 1, 70, 150, dim, dim, BF16)
    upstream = upstream_for(arrays)
    options = {"causal": True, "softcap": 2.0}
    out, stats = slipstick.attention(*map(device.array, arrays), return_stats=True, **options)
    results = [device.numpy(x) for x in (out, *stats)]
    grads = []
    for number in range(2):
        grad_out, grad_lse, grad_entropy, *there, out, lse, entropy, top = (
            device.array(x, number) for x in (*upstream, *arrays, *results)
        )
        got = slipstick.attention_backward(
            grad_out,
            *there,
            out,
            slipstick.AttentionStats(lse, entropy, top),
            grad_lse=grad_lse,
            grad_entropy=grad_entropy,
            **options,
        )
        grads.append([device.numpy(x) for x in got[:3]])
    assert_same_bits(*grads)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_key_gives_exact_gradients(device, dtype):
    """p = 1 and dS = dL: row 0 of a causal head has lambda 0, and its gradients are 0."""
    arrays = inputs(1, 2, 2, 1, 1, 16, 8, dtype)
    upstream = upstream_for(arrays, "entropy")._replace(out=upstream_for(arrays).out)
    got = differentiate(device, arrays, upstream, {})
    assert (got.query == 0).all()
    assert (got.key == 0).all()
    np.testing.assert_array_equal(got.value, upstream.out)


@pytest.mark.parametrize("rows", [1, 9, 40])
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_large_scores_are_those_of_the_forward_pass(device, dtype, rows):
    """One key: p = e^(s - lse) is exactly 1 where s is added up in the order that lse was made of;
    else it is off by the rounding of s, here about 1e-4."""
    rng = np.random.default_rng(0)
    query = (10 * rng.standard_normal((rows, 77))).astype(dtype)
    key = (10 * rng.standard_normal((1, 77))).astype(dtype)
    arrays = query, key, np.ones((1, 4), dtype)
    upstream = Upstream(np.ones((rows, 4), dtype), None, None)
    grads = differentiate(device, arrays, upstream, {"scale": 1.0})
    np.testing.assert_array_equal(grads.value, np.full((1, 4), rows, dtype))


@pytest.mark.parametrize("scale", [1e4, 1e20])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_weight_of_one_key_is_1_however_large_its_score(device, dtype, scale):
    """Integers add up alike in every order; s and lse are rounded alike."""
    rng = np.random.default_rng(0)
    for rows in (3, 40):
        query = rng.integers(-4, 5, (rows, 64)).astype(dtype)
        key = rng.integers(-4, 5, (1, 64)).astype(dtype)
        arrays = query, key, np.ones((1, 8), dtype)
        upstream = Upstream(np.ones((rows, 8), dtype), None, None)
        grads = differentiate(device, arrays, upstream, {"scale": scale})
        np.testing.assert_array_equal(grads.value, np.full((1, 8), rows, dtype))
        assert (grads.query == 0).all()
        assert (grads.key == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sharp_weights(device, dtype):
    for queries in (2, 30):
        arrays = inputs(2, 4, 2, queries, 130, 64, 9, dtype, spread=4.0)
        check(device, arrays, upstream_for(arrays), {})


# --- Hidden keys, infinities, NaN -----------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, INF])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hidden_keys_take_and_give_nothing(device, dtype, bad):
    q, k, v = inputs(1, 2, 1, 40, 150, 9, 7, dtype)
    upstream = upstream_for((q, k, v))
    mask = np.ones((40, 150), bool)
    mask[:, [3, 130]] = False
    mask[20] = False
    options = {"mask": mask, "key_lengths": [140]}
    want = differentiate(device, (q, k, v), upstream, options)
    k, v = k.copy(), v.copy()
    for x in (k, v):
        x[:, :, [3, 130]] = bad
        x[:, :, 140:] = bad
    got = differentiate(device, (q, k, v), upstream, options)
    assert (got.key[:, :, [3, 130, *range(140, 150)]] == 0).all()
    assert (got.value[:, :, [3, 130, *range(140, 150)]] == 0).all()
    assert (got.query[:, :, 20] == 0).all()
    step = {2: 2.0**-7 if dtype == BF16 else 2.0**-10, 4: 2.0**-20, 8: 2.0**-49}[dtype.itemsize]
    for a, b in zip(got[:3], want[:3], strict=True):
        # Such a tile may add in another order: 150 additions at the most.
        a, b = a.astype(float), b.astype(float)
        np.testing.assert_allclose(a, b, rtol=step, atol=step * np.abs(b).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_reaches_what_sees_it(device, dtype):
    arrays = inputs(1, 1, 1, 40, 150, 9, 7, dtype)
    upstream = upstream_for(arrays)
    options = {"causal": True}
    want = differentiate(device, arrays, upstream, options)
    step = {2: 2.0**-7 if dtype == BF16 else 2.0**-10, 4: 1e-5, 8: 1e-13}[dtype.itemsize]

    def assert_close(a, b):
        a, b = a.astype(float), b.astype(float)
        np.testing.assert_allclose(a, b, rtol=step, atol=step * np.abs(b).max())

    k = arrays[1].copy()
    k[0, 0, 130, 2] = np.nan  # seen by queries 20 on
    got = differentiate(device, (arrays[0], k, arrays[2]), upstream, options)
    assert np.isnan(got.query[0, 0, 20:].astype(float)).all()
    assert_close(got.query[0, 0, :20], want.query[0, 0, :20])
    bad = upstream.out.copy()
    bad[0, 0, 0] = np.nan  # query 0 sees keys up to 110
    got = differentiate(device, arrays, upstream._replace(out=bad), options)
    assert np.isnan(got.value[0, 0, :111].astype(float)).all()
    assert_close(got.value[0, 0, 111:], want.value[0, 0, 111:])
    assert_close(got.key[0, 0, 111:], want.key[0, 0, 111:])
    empty = {"key_lengths": [0], "scale": 0.5}
    nans = np.full_like(arrays[0], np.nan)
    for x in differentiate(device, (nans, k, arrays[2]), upstream, empty):
        assert np.all(x == 0)


@pytest.mark.parametrize("dtype", [FLOAT64, BF16], ids=str)
def test_parts_of_the_keys_add_up_to_the_whole(device, dtype):
    """With the statistics of all keys, as in ring attention."""
    arrays = inputs(1, 4, 2, 50, 140, 16, 16, dtype)
    upstream = upstream_for(arrays)
    options = {"n_keys": 140, "scale": Su(0.8)}
    want = differentiate(device, arrays, upstream, options)
    q, k, v = (device.array(x) for x in arrays)
    out, stats = slipstick.attention(q, k, v, return_stats=True, **options)
    grad_out, grad_lse, grad_entropy = map(device.array, upstream)
    parts = [
        slipstick.attention_backward(
            grad_out,
            q,
            k[:, :, cut],
            v[:, :, cut],
            out,
            stats,
            grad_lse=grad_lse,
            grad_entropy=grad_entropy,
            **options,
        )
        for cut in (slice(0, 70), slice(70, 131), slice(131, 140))
    ]
    query, key, value, scale = (
        [device.numpy(getattr(x, name)).astype(float) for x in parts] for name in parts[0]._fields
    )
    # 140 additions of numbers of about 1 in float64, or three roundings to bfloat16.
    step = 1e-12 if dtype == FLOAT64 else 2.0**-7
    for got, right in (
        (sum(query), want.query),
        (np.concatenate(key, 2), want.key),
        (np.concatenate(value, 2), want.value),
        (sum(scale), want.scale),
    ):
        right = np.asarray(right).astype(float)
        np.testing.assert_allclose(got, right, rtol=step, atol=step * np.abs(right).max())


# --- Calls ----------------------------------------------------------------------------------------

LAYOUTS = {
    "heads behind tokens": lambda x: x.permute(0, 2, 1, 3),
    "columns first": lambda x: x.permute(0, 1, 3, 2),
    "one element further": lambda x: x[:, :, :, 1:],
    "eight elements further": lambda x: x[:, :, :, 8:],
    "every second column": lambda x: x[:, :, :, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(device, dtype, layout):
    """The same bits as from the same numbers side by side."""
    view = LAYOUTS[layout]
    heads, tokens = (20, 3) if "heads" in layout else (3, 24)
    numbers = inputs(1, heads, heads, tokens, tokens, 32, 32, dtype)
    grad = inputs(1, heads, heads, tokens, 1, 32, 1, dtype, seed=1)[0]
    views = [view(device.array(x)) for x in (grad, *numbers)]
    copies = [device.array(np.ascontiguousarray(device.numpy(x))) for x in views]
    # Of one forward pass, which may take another kernel for other strides.
    results = slipstick.attention(*copies[1:], causal=True, return_stats=True)
    got, want = (
        slipstick.attention_backward(*arrays, *results, causal=True) for arrays in (views, copies)
    )
    for a, b in zip(got[:3], want[:3], strict=True):
        np.testing.assert_array_equal(bits(device.numpy(a)), bits(device.numpy(b)))


@pytest.mark.parametrize("dtype", [FLOAT32, BF16], ids=str)
def test_fewer_axes(device, dtype):
    arrays = inputs(1, 4, 2, 20, 30, 8, 6, dtype)
    upstream = upstream_for(arrays)
    options = {"causal": True, "scale": SSMax(0.4)}
    whole = differentiate(device, arrays, upstream, options)
    three = [x[0] for x in arrays], Upstream(*(x[0] for x in upstream))
    got = differentiate(device, *three, options)
    for a, b in zip(got[:3], whole[:3], strict=True):
        np.testing.assert_array_equal(bits(a), bits(b[0]))
    assert got.scale == whole.scale
    two = [x[0, 0] for x in arrays], Upstream(*(x[0, 0] for x in upstream))
    np.testing.assert_array_equal(
        bits(differentiate(device, *two, options).query), bits(whole.query[0, 0])
    )


SCALES = {
    "none": (LogN(), None),
    "float": (0.25, ((), np.float64)),
    "Su": (Su(1.3), ((), np.float64)),
    "SSMax": (SSMax(0.2, b=0.1), (((), np.float64), ((), np.float64))),
    "SSMax a head": (SSMax([0.3, -0.2, 0.0, 0.5]), (((4,), np.float64), ((), np.float64))),
    "a head": (np.full((4, 1), 0.3, np.float32), ((4, 1), np.float32)),
    "a row": (np.full((2, 4, 20), 0.3, np.float16), ((2, 4, 20), np.float16)),
}


@pytest.mark.parametrize("name", SCALES)
def test_gradients_of_scales_stay_on_the_device(device, name):
    """So that a call with them can be captured: to read a number would wait."""
    scale, kinds = SCALES[name]
    q, k, v = (device.array(x) for x in inputs(2, 4, 2, 20, 50, 16, 16, BF16))
    there = moved(device, {"scale": scale})
    out, stats = slipstick.attention(q, k, v, return_stats=True, **there)
    grads = slipstick.attention_backward(out, q, k, v, out, stats, **there)
    if kinds is None:
        assert grads.scale is None
        return
    several = isinstance(grads.scale, tuple)
    parts, kinds = (grads.scale, kinds) if several else ((grads.scale,), (kinds,))
    for part, (shape, dtype) in zip(parts, kinds, strict=True):
        assert type(part) is type(q)
        array = device.numpy(part)
        assert (array.shape, array.dtype) == (shape, dtype)


def test_streams_graphs_and_devices(device):
    arrays = inputs(2, 4, 2, 20, 70, 16, 16, BF16)
    upstream, options = upstream_for(arrays), {"causal": True, "scale": 0.2}
    want = differentiate(device, arrays, upstream, options)
    with device.stream() as stream:
        if device.emulated:
            device.control.take_launches()
        got = differentiate(device, arrays, upstream, options)
        if device.emulated:
            assert {launch["stream"] for launch in device.control.take_launches()} == {stream}
    assert_same_bits(got, want)
    there, given = [device.array(x) for x in arrays], [device.array(x) for x in upstream]

    def run():
        out, stats = slipstick.attention(*there, return_stats=True, **options)
        return slipstick.attention_backward(
            given[0], *there, out, stats, grad_lse=given[1], grad_entropy=given[2], **options
        )

    run()
    with device.capture() as graph:
        grads = run()
    for _ in range(2):
        graph.replay()
        assert_same_bits([device.numpy(x) for x in grads[:3]], want)
        assert device.numpy(grads.scale) == want.scale
    if device.count > 1:
        there = [device.array(x, 1) for x in arrays]
        out, stats = slipstick.attention(*there, return_stats=True)
        message = r"^attention_backward: `grad_out` must be on CUDA device 1.*, got .* device 0$"
        with pytest.raises(ValueError, match=message):
            slipstick.attention_backward(given[0], *there, out, stats)


@pytest.mark.parametrize("case", range(18))
def test_refusals(device, case):
    """Those of the CPU, word for word."""
    good, cases = refusal_cases()
    changes, kind, message = cases[case]

    def there(value):
        if isinstance(value, slipstick.AttentionStats):
            return slipstick.AttentionStats(*map(device.array, value))
        return device.array(value) if isinstance(value, np.ndarray) else value

    arguments = {name: there(value) for name, value in {**good, **changes}.items()}
    with pytest.raises(kind) as caught:
        slipstick.attention_backward(**arguments)
    assert str(caught.value) == f"attention_backward: {message}"
