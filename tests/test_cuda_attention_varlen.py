"""`slipstick.attention_varlen` on CUDA devices: each sequence by the rules of attention alone.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import numpy as np
import pytest

import slipstick
from attention_cases import LENGTHS, packed, starts
from attention_on_device import attend, attend_packed, with_dtypes
from attention_oracle import BF16, DTYPES, INF, Rows, bits, distance, expected, largest, ulp
from test_attention_varlen import OPTIONS, sequences
from test_attention_varlen_arguments import GOOD, REFUSALS

FLOAT32 = np.dtype(np.float32)


def compare(rows: Rows, arrays, options, heads):
    """The rules of attention, for the packed tensor: e_ref is that of a naive loop over it."""
    dtype = arrays[0].dtype
    yardstick, error, size = 0.0, 0.0, 0.0
    absolute = 2e-14 if dtype == np.float64 else 1e-5
    for at, alone, own in sequences(arrays, options, heads):
        if rows.out[at].size == 0:
            continue
        exact, errors = expected(*alone, own)
        yardstick, size = max(yardstick, errors.out), max(size, largest(exact.out))
        got = rows.out[at].swapaxes(0, 1).astype(np.longdouble)
        error = max(error, distance(got, exact.out).max(initial=0))
        for stats, right in zip(rows[1:], exact[1:], strict=True):
            bound = absolute + 2 * ulp(stats.dtype, largest(right))
            assert distance(stats[:, at].astype(np.longdouble), right).max() <= bound
    assert error <= yardstick + 2 * ulp(dtype, size)


@pytest.mark.parametrize(("name", "dtype"), with_dtypes(OPTIONS))
def test_options(device, name, dtype):
    arrays = packed(LENGTHS, 4, 2, 13, 9, dtype)
    compare(attend_packed(device, arrays, OPTIONS[name]), arrays, OPTIONS[name], 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["causal", "SSMax a head"])
def test_bits_are_those_of_a_loop(device, name, dtype):
    arrays, options = packed(LENGTHS, 4, 2, 16, 16, dtype), OPTIONS[name]
    rows = attend_packed(device, arrays, options, integers=name == "causal")
    for at, alone, own in sequences(arrays, options, 4):
        one = attend(device, [np.ascontiguousarray(x) for x in alone], own)
        np.testing.assert_array_equal(bits(rows.out[at].swapaxes(0, 1)), bits(one.out))
        for whole, part in zip(rows[1:], one[1:], strict=True):
            np.testing.assert_array_equal(bits(whole[:, at]), bits(part))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [(1, 1), (6, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("dims", [(64, 64), (1, 3), (128, 20), (256, 250)], ids=str)
def test_sizes(device, dims, heads, dtype):
    lengths = [(3, 150), (129, 70), (1, 1), (64, 0), (22, 128), (1, 200)]
    arrays = packed(lengths, *heads, *dims, dtype)
    compare(attend_packed(device, arrays, {"causal": True}), arrays, {"causal": True}, heads[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_depend_on_the_sequence_alone(device, dtype):
    """Not on the run, on where the bounds lie, or on the other sequences and their order."""
    arrays = packed(LENGTHS, 4, 2, 13, 9, dtype)
    options = {"causal": True}
    whole = attend_packed(device, arrays, options)
    for integers in (False, True):
        again = attend_packed(device, arrays, options, integers=integers)
        for a, b in zip(whole, again, strict=True):
            np.testing.assert_array_equal(bits(a), bits(b))
    q, k, v, cu_q, cu_k = arrays
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    tokens_q, tokens_k = (
        np.concatenate([np.arange(cu[s], cu[s + 1]) for s in order]) for cu in (cu_q, cu_k)
    )
    bounds = (starts([LENGTHS[s][i] for s in order]) for i in range(2))
    other = attend_packed(device, (q[tokens_q], k[tokens_k], v[tokens_k], *bounds), options)
    np.testing.assert_array_equal(bits(other.out), bits(whole.out[tokens_q]))
    np.testing.assert_array_equal(bits(other.lse), bits(whole.lse[:, tokens_q]))


@pytest.mark.parametrize("dtype", [FLOAT32, BF16], ids=str)
def test_many_short_sequences(device, dtype):
    lengths = [(int(a), int(b)) for a, b in np.random.default_rng(0).integers(0, 9, (200, 2))]
    arrays = packed([*lengths, (70, 140), *lengths], 2, 1, 8, 8, dtype)
    compare(attend_packed(device, arrays, {"causal": True}), arrays, {"causal": True}, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_query_in_each_sequence(device, dtype):
    """Decoding of a packed cache."""
    arrays = packed([(1, 300), (1, 1), (1, 0), (1, 129)], 8, 2, 16, 8, dtype)
    for options in ({}, {"n_keys": np.array([[30, 50, 2, 7]])}):
        compare(attend_packed(device, arrays, options), arrays, options, 8)


def test_empty_rows(device):
    arrays = packed([(5, 0), (4, 2), (0, 7)], 2, 2, 8, 8, np.float32)
    for n_keys in (None, 100):
        rows = attend_packed(device, arrays, {"causal": True, "n_keys": n_keys})
        empty = slice(0, 7)  # a sequence without keys, two queries before the first key
        np.testing.assert_array_equal(rows.out[empty], 0)
        np.testing.assert_array_equal(rows.lse[:, empty], -INF)
        np.testing.assert_array_equal(rows.entropy[:, empty], 0)
        np.testing.assert_array_equal(rows.max_logit[:, empty], -INF)
        assert np.isfinite(rows.lse[:, 7:]).all()


@pytest.mark.parametrize("integers", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_no_tokens(device, count, sizes, integers):
    arrays = packed([(0, 0), (0, 0), sizes][3 - count :], 2, 1, 4, 6, np.float32)
    rows = attend_packed(device, arrays, {}, integers=integers)
    assert (rows.out.shape, rows.lse.shape) == ((sizes[0], 2, 6), (2, sizes[0]))
    np.testing.assert_array_equal(rows.out, 0)


WRONG = {
    "do not start at 0": ([1, 20, 40], [0, 20, 70]),
    "fall": ([0, 30, 40], [0, 75, 70]),
    "end early": ([0, 20, 39], [0, 20, 70]),
    "end late": ([0, 20, 40], [0, 20, 71]),
    "negative": ([0, -20, 40], [0, 20, 70]),
    "huge": ([0, 20, 40], [0, 2**62, 70]),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("dtype", [FLOAT32, BF16], ids=str)
def test_bounds_that_do_not_fit_on_the_device_give_nan(device, dtype, wrong):
    arrays = packed([(20, 20), (20, 50)], 4, 2, 16, 8, dtype)
    bounds = [np.array(x) for x in WRONG[wrong]]
    with pytest.raises(ValueError, match=r"^attention_varlen: `cu_seqlens_[qk]` must "):
        attend_packed(device, (*arrays[:3], *bounds), {})
    rows = attend_packed(device, (*arrays[:3], *bounds), {}, integers=True)
    for array in rows:
        assert np.isnan(array.astype(float)).all()


def test_out_streams_graphs_and_devices(device):
    arrays = packed([(20, 20), (3, 50)], 4, 2, 16, 8, BF16)
    want = attend_packed(device, arrays, {"causal": True}).out
    *inputs, cu_q, cu_k = (device.array(x) for x in arrays)
    out = device.array(np.zeros((4, 8, 23), BF16)).permute(2, 0, 1)
    result = slipstick.attention_varlen(*inputs, cu_q, arrays[4], causal=True, out=out)
    assert result is out
    np.testing.assert_array_equal(bits(device.numpy(out)), bits(want))
    with device.capture() as graph:
        out = slipstick.attention_varlen(*inputs, cu_q, cu_k, causal=True)
        second = slipstick.attention_varlen(*inputs, *arrays[3:], causal=True)
    graph.replay()
    for got in (out, second):
        np.testing.assert_array_equal(bits(device.numpy(got)), bits(want))
    # Other lengths in the same graph.
    other = packed([(9, 60), (14, 10)], 4, 2, 16, 8, BF16)
    cu_q, cu_k = (device.array(x) for x in other[3:])
    with device.capture() as graph:
        out = slipstick.attention_varlen(*inputs, cu_q, cu_k, causal=True)
    graph.replay()
    want = attend_packed(device, (*arrays[:3], *other[3:]), {"causal": True}).out
    np.testing.assert_array_equal(bits(device.numpy(out)), bits(want))
    if device.count > 1:
        message = r"^attention_varlen: `cu_seqlens_q` must be .* got .* CUDA device 1$"
        with pytest.raises(ValueError, match=message):
            slipstick.attention_varlen(*inputs, device.array(arrays[3], 1), cu_k)


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(device, bad, error, match):
    """Those of the CPU, word for word; `out` is left alone."""
    out = device.array(np.full((5, 4, 6), 7, np.float32))
    integers = ("cu_seqlens_q", "cu_seqlens_k", "n_keys")
    there = {
        name: device.array(value)
        if isinstance(value, np.ndarray) and name not in integers
        else value
        for name, value in (GOOD | {"out": None} | bad).items()
    }
    there["out"] = out if there["out"] is None else there["out"]
    with pytest.raises(error, match=match) as caught:
        slipstick.attention_varlen(**there)
    assert str(caught.value).startswith("attention_varlen: `")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(device.numpy(out), 7)
