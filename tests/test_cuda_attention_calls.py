"""What a call of attention on CUDA devices keeps to: bits, layouts, streams, memory, refusals."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import slipstick
from attention_on_device import attend, moved
from attention_oracle import BF16, DTYPES, Rows, bits, bool_mask, compare, float_mask, inputs
from slipstick import AttentionStats
from slipstick._arrays import framework_of
from slipstick.scales import SSMax
from test_attention_arguments import REFUSALS, K, Q, V

FLOAT32 = np.dtype(np.float32)


def assert_same_rows(first: Rows, second: Rows, at: Any = ...) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(bits(a), bits(b[at]))


# --- Bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [2, 40], ids=["few rows", "rows"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["full", "causal", "masked"])
def test_bits_depend_on_the_sequence_alone(device, name, dtype, queries):
    """Not on the run, nor on what else is in the batch or among the heads."""
    keys = 270
    q, k, v = inputs(3, 4, 2, queries, keys, 24, 20, dtype)
    options = {
        "full": {},
        "causal": {"causal": True},
        "masked": {
            "key_lengths": np.array([269, 7, 150]),
            "mask": float_mask(3, 1, queries, keys),
        },
    }[name]
    whole = attend(device, (q, k, v), options)
    assert_same_rows(attend(device, (q, k, v), options, integers=True), whole)
    for b in range(3):
        one = slice(b, b + 1)
        own = {
            name: value[one] if name in ("key_lengths", "mask") else value
            for name, value in options.items()
        }
        assert_same_rows(attend(device, (q[one], k[one], v[one]), own), whole, np.s_[one])
        # A key head with its group, without the others.
        group = (q[one, 2:], k[one, 1:], v[one, 1:])
        assert_same_rows(attend(device, group, own), whole, np.s_[one, 2:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_asked_for_does_not_change_the_result(device, dtype):
    for queries in (3, 40):
        arrays = inputs(1, 2, 2, queries, 150, 16, 16, dtype)
        there = [device.array(x) for x in arrays]
        out = device.numpy(slipstick.attention(*there, causal=True))
        rows = attend(device, arrays, {"causal": True})
        np.testing.assert_array_equal(bits(out), bits(rows.out))


# --- Layouts --------------------------------------------------------------------------------------


def assert_layout_is_none(device, index, dtype, got: Rows, want: Rows, arrays, options) -> None:
    """The same bits, but where 16-bit arrays of whole packs go to a kernel of their own (9.0)."""
    if dtype.itemsize == 2 and device.capability(index) == (9, 0):
        compare(got, *arrays, options)
    else:
        assert_same_rows(got, want)


LAYOUTS = {
    "heads behind tokens": lambda x: x.permute(0, 2, 1, 3),
    "columns first": lambda x: x.permute(0, 1, 3, 2),
    "every second column": lambda x: x[..., ::2],
    "one element further": lambda x: x[..., 1:],
    "four elements further": lambda x: x[..., 4:],
    "eight elements further": lambda x: x[..., 8:],
    "every second row": lambda x: x[:, :, ::2],
    "one head for all": lambda x: x[:, :1].broadcast_to(x.shape),
    "three axes": lambda x: x[0],
    "two axes": lambda x: x[0, 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_input_is_read_in_place(device, dtype, layout):
    """As from the same numbers side by side."""
    heads, tokens = (24, 3) if "heads" in layout else (3, 24)
    numbers, options = inputs(1, heads, heads, tokens, tokens, 32, 32, dtype), {"causal": True}
    for index in range(device.count):
        query, key, value = (LAYOUTS[layout](device.array(x, index)) for x in numbers)
        for rows in (2, 24):
            views = query[..., :rows, :], key, value
            arrays = [np.ascontiguousarray(device.numpy(x)) for x in views]
            copies = [device.array(x, index) for x in arrays]
            got, want = (
                Rows(*map(device.numpy, (out, *stats)))
                for out, stats in (
                    slipstick.attention(*x, return_stats=True, **options) for x in (views, copies)
                )
            )
            assert_layout_is_none(device, index, dtype, got, want, arrays, options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_negative_steps(emulated_cuda, dtype):
    arrays = inputs(2, 4, 2, 40, 70, 16, 16, dtype)
    turned = [np.ascontiguousarray(x[:, ::-1, ::-1, ::-1]) for x in arrays]
    rows = attend(emulated_cuda, turned, {}, view=lambda x: x[:, ::-1, ::-1, ::-1])
    want = attend(emulated_cuda, arrays, {})
    assert_layout_is_none(emulated_cuda, 0, dtype, rows, want, arrays, {})


@pytest.mark.parametrize("dtype", [FLOAT32, BF16], ids=str)
def test_masks_of_any_layout(device, dtype):
    for queries in (4, 40):
        arrays = inputs(2, 4, 2, queries, 70, 16, 16, dtype)
        for mask in (bool_mask(2, 4, queries, 70), float_mask(2, 4, queries, 70)):
            want = attend(device, arrays, {"mask": mask})
            turned = device.array(np.ascontiguousarray(mask.transpose(3, 2, 1, 0)))
            there = [device.array(x) for x in arrays]
            out = slipstick.attention(*there, mask=turned.permute(3, 2, 1, 0))
            np.testing.assert_array_equal(bits(device.numpy(out)), bits(want.out))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out(device, dtype):
    for queries in (3, 40):
        arrays = inputs(2, 4, 2, queries, 70, 16, 24, dtype)
        there = [device.array(x) for x in arrays]
        want = attend(device, arrays, {})
        for shape, view in (
            ((2, 4, queries, 24), lambda x: x),
            ((2, queries, 4, 24), lambda x: x.permute(0, 2, 1, 3)),
            ((24, queries, 4, 2), lambda x: x.permute(3, 2, 1, 0)),
            ((2, 4, queries, 25), lambda x: x[..., 1:]),
        ):
            whole = device.array(np.full(shape, 7, dtype))
            out = view(whole)
            assert slipstick.attention(*there, out=out) is out
            got = want._replace(out=device.numpy(out))
            assert_layout_is_none(device, 0, dtype, got, want, arrays, {})
            if shape[-1] == 25:
                np.testing.assert_array_equal(device.numpy(whole)[..., 0].astype(float), 7)


# --- Where and when -------------------------------------------------------------------------------


def test_numbers_of_keys_there_or_on_the_host(device):
    arrays = inputs(3, 4, 2, 20, 50, 16, 16, FLOAT32)
    for options in (
        {"key_lengths": np.array([50, 7, 0])},
        {"key_lengths": np.uint8([50, 7, 0])},
        {"key_lengths": 33},
        {"n_keys": np.int32([5, 0, 2])},
        {"n_keys": np.arange(60).reshape(3, 20)},
        {"n_keys": np.int16(77)},
    ):
        rows = compare(attend(device, arrays, options), *arrays, options)
        assert_same_rows(attend(device, arrays, options, integers=True), rows)


@pytest.mark.parametrize("scale", [SSMax(0.3, b=0.1), SSMax([0.3, -0.2, 0.0, 0.5])], ids=repr)
def test_numbers_of_a_law_there_or_on_the_host(device, scale):
    """Those of a scale that torch learns lie there, and are not looked at."""
    for queries in (2, 40):
        arrays = inputs(2, 4, 2, queries, 70, 16, 16, FLOAT32)
        want = attend(device, arrays, {"causal": True, "scale": scale})
        query, *rest = (device.array(x) for x in arrays)
        framework = framework_of("attention", query)
        law, numbers = scale._lower(16)
        options = (True, -1, -1, None, None, 0.0, None)  # causal, then nothing

        def run(numbers, *more):
            there = query, *rest, law, device.array(numbers), *options  # noqa: B023
            return framework.kernels.attention(*there, *more, framework.empty)  # noqa: B023

        results = run(numbers, True, None)
        assert_same_rows(Rows(*map(device.numpy, results)), want)
        grads = framework.kernels.attention_backward(
            *(results[0], query, *rest, *results[:3], None, None, law, device.array(numbers)),
            *(*options, True, framework.empty, framework.empty),
        )
        stats = AttentionStats(*results[1:])
        host = slipstick.attention_backward(
            results[0], query, *rest, results[0], stats, causal=True, scale=scale
        )
        for a, b in zip(grads[:3], host[:3], strict=True):
            np.testing.assert_array_equal(bits(device.numpy(a)), bits(device.numpy(b)))
        assert device.numpy(grads[3]).shape == (4, 2)
        bad = run(np.full_like(numbers, np.nan), False, None)
        assert np.isnan(device.numpy(bad[0])).all()


@pytest.mark.parametrize("queries", [2, 40], ids=["few rows", "rows"])
@pytest.mark.parametrize("dtype", [FLOAT32, BF16], ids=str)
def test_what_does_not_fit_on_the_device_is_nan(device, dtype, queries):
    """Nobody has looked at it: rows become NaN, and only those."""
    arrays = inputs(3, 4, 2, queries, 50, 16, 16, dtype)
    good = attend(device, arrays, {"key_lengths": np.array([50, 7, 9])})
    for wrong in (51, -1, 2**62, -(2**63)):
        rows = attend(device, arrays, {"key_lengths": np.array([50, wrong, 9])}, integers=True)
        for got, right in zip(rows, good, strict=True):
            assert np.isnan(got[1]).all()
            np.testing.assert_array_equal(bits(got[::2]), bits(right[::2]))
    counts = np.full((3, queries), 50)
    good = attend(device, arrays, {"n_keys": counts})
    counts[2, 1] = -1
    rows = attend(device, arrays, {"n_keys": counts}, integers=True)
    for got, right in zip(rows, good, strict=True):
        assert np.isnan(got[2, :, 1]).all()
        got[2, :, 1] = right[2, :, 1]
        np.testing.assert_array_equal(bits(got), bits(right))


def test_devices(device):
    if device.count < 2:
        pytest.skip("the machine has one CUDA device")
    arrays = inputs(2, 4, 2, 20, 70, 16, 16, BF16)
    want = attend(device, arrays, {"causal": True}).out
    there = [device.array(x, 1) for x in arrays]
    with device.current_device(0):
        out = slipstick.attention(*there, causal=True)
    np.testing.assert_array_equal(bits(device.numpy(out)), bits(want))
    here = [device.array(x) for x in arrays]
    for name, arguments in (("key", (0, 1, 0)), ("value", (0, 0, 1))):
        mixed = [(here, there)[place][i] for i, place in enumerate(arguments)]
        message = rf"^attention: `{name}` must be on CUDA device 0 like `query`, got .* device 1$"
        with pytest.raises(ValueError, match=message):
            slipstick.attention(*mixed)
    for name in ("mask", "scale", "key_lengths", "n_keys"):
        kind = {"mask": bool, "scale": np.float32}.get(name, int)
        option = device.array(np.ones((2,) if kind is int else (70, 1)[kind is not bool], kind), 1)
        with pytest.raises(ValueError, match=rf"^attention: `{name}` must be .* CUDA device 1$"):
            slipstick.attention(*here, **{name: option})


def test_streams(device):
    arrays = inputs(2, 4, 2, 20, 70, 16, 16, BF16)
    options = {"mask": bool_mask(20, 70), "key_lengths": [70, 3]}
    want = attend(device, arrays, options)
    with device.stream() as stream:
        if device.emulated:
            device.control.take_launches()
        rows = attend(device, arrays, options)
        if device.emulated:
            launches = device.control.take_launches()
            assert {launch["stream"] for launch in launches} == {stream}
    assert_same_rows(rows, want)


@pytest.mark.parametrize("queries", [1, 40], ids=["few rows", "rows"])
def test_graphs(device, queries):
    """Nothing waits, and nothing is read from the host when the graph runs."""
    q, k, v = inputs(2, 4, 2, queries, 70, 16, 16, BF16)
    options = {"mask": bool_mask(2, 1, queries, 70), "scale": SSMax([0.3, 0.2, 0.1, 0.0])}
    lengths = np.array([70, 9])
    there = [device.array(x) for x in (q, k, v)]
    on_host, on_device = moved(device, options), device.array(lengths)
    slipstick.attention(*there, key_lengths=lengths, **on_host)  # what is loaded once
    with device.capture() as graph:
        first = slipstick.attention(*there, key_lengths=lengths, **on_host)
        second, stats = slipstick.attention(
            *there, key_lengths=on_device, return_stats=True, n_keys=5000
        )
    want = attend(device, (q, k, v), options | {"key_lengths": lengths})
    want_second = attend(device, (q, k, v), {"key_lengths": np.array([70, 9]), "n_keys": 5000})
    lengths[:] = 1
    for _ in range(2):
        graph.replay()
        np.testing.assert_array_equal(bits(device.numpy(first)), bits(want.out))
        rows = Rows(*map(device.numpy, (second, *stats)))
        assert_same_rows(rows, want_second)


def test_no_memory(device):
    used = device.used_bytes(0)
    one = device.array(np.ones((1, 1, 1, 1), np.float32))
    query, key = one.broadcast_to((1 << 20, 1, 1 << 17, 8)), one.broadcast_to((1 << 20, 1, 1, 8))
    message = rf"^attention: CUDA device 0 must have memory for {32 << 37} bytes more, got: "
    with pytest.raises(RuntimeError, match=message):
        slipstick.attention(query, key, key)
    del one, query, key
    assert device.used_bytes(0) == used


def test_no_memory_for_what_a_call_works_with(emulated_cuda):
    """A few rows leave parts of their sums, a mask is counted first."""
    arrays = inputs(1, 4, 2, 2, 1500, 16, 16, BF16)
    mask = bool_mask(2, 1500)
    want = attend(emulated_cuda, arrays, {"mask": mask}).out
    there = [emulated_cuda.array(x) for x in arrays]
    out, mask = emulated_cuda.array(np.zeros((1, 4, 2, 16), BF16)), emulated_cuda.array(mask)
    filling = []
    for power in range(29, 1, -1):
        with contextlib.suppress(RuntimeError):
            filling.append(emulated_cuda.empty((1 << power,), "uint8"))
    used = emulated_cuda.used_bytes(0)
    message = r"^attention: CUDA device 0 must have memory for \d+ bytes more, got: "
    with pytest.raises(RuntimeError, match=message):
        slipstick.attention(*there, mask=mask, out=out)
    assert emulated_cuda.used_bytes(0) == used
    del filling
    slipstick.attention(*there, mask=mask, out=out)
    np.testing.assert_array_equal(bits(out.numpy()), bits(want))


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(device, bad, error, match):
    """Those of the CPU, word for word; `out` is left alone."""
    out = device.array(np.full((2, 4, 5, 6), 7, np.float32))
    arguments = {"query": Q, "key": K, "value": V} | bad
    arrays = ("query", "key", "value", "mask", "scale")
    there = {
        name: device.array(value) if name in arrays and isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    with pytest.raises(error, match=match) as caught:
        slipstick.attention(**there, out=out)
    assert str(caught.value).startswith("attention: `")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(device.numpy(out), 7)


def test_refused_outs(device):
    there = [device.array(x) for x in (Q, K, V)]
    for out, error, match in (
        (np.empty((2, 4, 5, 8), np.float32), ValueError, r"`out` must have shape \(2, 4, 5, 6\)"),
        (np.empty((2, 4, 5, 6), np.float64), TypeError, r"`out` must have dtype float32, got"),
    ):
        with pytest.raises(error, match=match):
            slipstick.attention(*there, out=device.array(out))
    with pytest.raises(ValueError, match=r"^attention: `out` must not overlap `query`"):
        slipstick.attention(there[0], there[0], there[0], out=there[0])
    with pytest.raises(ValueError, match=r"^attention: `out` must be on CUDA device 0 like "):
        slipstick.attention(*there, out=np.empty((2, 4, 5, 6), np.float32))


def test_arrays_on_the_host_are_refused(device):
    there = {name: device.array(x) for name, x in (("query", Q), ("key", K), ("value", V))}
    for name, bad in (("key", K), ("value", V), ("mask", np.ones((5, 7), bool))):
        message = rf"^attention: `{name}` must be on CUDA device 0 like `query`, got .* the CPU$"
        with pytest.raises(ValueError, match=message):
            slipstick.attention(**(there | {name: bad}))
    with pytest.raises(ValueError, match=r"^attention: `key` must be on the CPU.*got .* device 0$"):
        slipstick.attention(Q, there["key"], there["value"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_columns_than_a_device_serves(device, dtype):
    for name, dims in (("query", (257, 8)), ("value", (8, 300))):
        q, k, v = (device.array(x) for x in inputs(1, 2, 2, 5, 7, *dims, dtype))
        message = (
            rf"^attention: `{name}` must have at most 256 columns on CUDA, got shape .*{max(dims)}"
        )
        with pytest.raises(ValueError, match=message):
            slipstick.attention(q, k, v)
