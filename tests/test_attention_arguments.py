"""What attention takes and refuses: strides, fewer axes, other frameworks, bad arguments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import slipstick
from attention_oracle import BF16, DTYPES, bool_mask, check, distance, inputs
from slipstick.scales import LogN, SSMax, Su

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
        arrays = [x.astype(BF16 if name == "bfloat16" else name) for x in arrays]
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


def test_jax_refuses_statistics_before_out_is_written():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        wide = jax.numpy.asarray(inputs(1, 2, 2, 9, 9, 8, 8, np.float64)[0])
    out = np.full(wide.shape, 7.0)
    with pytest.raises(TypeError, match="must have dtype float64, which jax gives only with"):
        slipstick.attention(wide, wide, wide, out=out, return_stats=True)
    np.testing.assert_array_equal(out, 7)


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
        r"`key_lengths` must be an integer or an array of integers, of at most 64 bits, got 1.5",
    ),
    (
        {"key_lengths": True},
        TypeError,
        r"`key_lengths` must be an integer or an array of integers, of at most 64 bits, got True",
    ),
    (
        {"key_lengths": 2**63},
        ValueError,
        r"`key_lengths` must be from 0 to 7, got 9223372036854775808",
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
    (
        {"causal": 10**5000},
        TypeError,
        r"`causal` must be True or False, got int of too many digits",
    ),
    ({"window": (-(10**5000), 0)}, ValueError, r"`window` must be .* got tuple of too many digits"),
    (
        {"softcap": np.zeros((30, 30))},
        TypeError,
        r"`softcap` must be .* got array\(\[\[0., .*\.\.\.$",
    ),
    ({"key_lengths": [10**5000]}, TypeError, r"`key_lengths` must be .* got list of too many"),
    ({"n_keys": 2**70}, TypeError, r"`n_keys` must be an integer"),
    (
        {"n_keys": 2.0},
        TypeError,
        r"`n_keys` must be an integer or an array of integers, of at most 64 bits, got 2.0",
    ),
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


class OnlyDlpack:
    """An array without a shape that Python could ask for."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("scale", [LogN(), Su(0.4), 0.1], ids=str)
def test_the_head_dimension_of_an_array_without_a_shape(scale):
    query, key, value = inputs(1, 2, 2, 9, 9, 64, 4, np.float32)
    want = slipstick.attention(query, key, value, scale=scale)
    np.testing.assert_array_equal(
        slipstick.attention(OnlyDlpack(query), key, value, scale=scale), want
    )


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
