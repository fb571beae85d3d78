"""The forward kernel for compute capability 9.0: what it serves, and that it is right there."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import slipstick
from attention_cases import options_for, packed
from attention_on_device import attend, attend_packed
from attention_oracle import BF16, bits, compare, expected, inputs

HALVES = [np.dtype(np.float16), BF16]

# 64 columns: three warpgroups, tiles of 192 rows; 128: two, tiles of 128. Tiles of 128 keys.
KEYS = 300
OPTIONS = {
    name: options
    for name, options in options_for(KEYS).items()
    if "mask" not in options and "softcap" not in options
}


def kernels(device):
    return [launch["kernel"] for launch in device.control.take_launches()]


@functools.cache
def grid_case(name, dtype, dim):
    arrays = inputs(2, 4, 2, 37, KEYS, dim, dim, dtype)
    return arrays, expected(*arrays, OPTIONS[name])


@pytest.mark.parametrize(("dtype", "dim"), [(BF16, 64), (np.dtype(np.float16), 128)], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(device, name, dtype, dim):
    arrays, want = grid_case(name, dtype, dim)
    compare(attend(device, arrays, OPTIONS[name]), *arrays, OPTIONS[name], want=want)


SIZES = [
    # queries, keys, dim, dim_v
    (191, 127, 64, 64),
    (192, 128, 64, 64),
    (193, 129, 64, 64),
    (128, 384, 128, 128),
    (129, 390, 128, 128),
    (400, 30, 128, 64),
    (17, 1, 8, 8),
    (40, 140, 72, 16),
    (40, 140, 56, 120),
]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(device, sizes, dtype):
    arrays = inputs(1, 1, 1, *sizes, dtype)
    for options in ({"causal": True}, {"window": (150, 20), "scale": -0.2}):
        compare(attend(device, arrays, options), *arrays, options)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_many_tiles(device, dtype):
    """Stages are used again and again, maxima grow and stay."""
    q, k, v = inputs(1, 1, 1, 70, 1100, 64, 64, dtype)
    k *= np.linspace(0.1, 3, 1100)[:, np.newaxis].astype(dtype)
    for keys in (k, k[:, :, ::-1]):
        for options in ({"scale": 0.3}, {"scale": -0.3, "window": (None, 3)}):
            compare(attend(device, (q, keys, v), options), q, keys, v, options)


def test_the_device_and_the_problem_choose_the_kernel(emulated_cuda):
    arrays = inputs(1, 2, 2, 40, 50, 64, 64, BF16)
    wide = inputs(1, 2, 2, 40, 50, 72, 72, BF16)

    def runs_on_hopper(arrays, device=0, view=lambda x: x, **options):
        kernels(emulated_cuda)
        with emulated_cuda.current_device(device):
            there = [view(emulated_cuda.array(x, device)) for x in arrays]
            options = {
                name: emulated_cuda.array(x, device) if isinstance(x, np.ndarray) else x
                for name, x in options.items()
            }
            slipstick.attention(*there, **options)
        return any("attention::Maps" in kernel for kernel in kernels(emulated_cuda))

    assert runs_on_hopper(arrays, causal=True, window=(7, 3), key_lengths=[33], n_keys=9)
    assert runs_on_hopper(arrays, view=lambda x: x.permute(0, 2, 1, 3).permute(0, 2, 1, 3))
    assert runs_on_hopper(wide, view=lambda x: x[..., :64])
    assert runs_on_hopper(wide, view=lambda x: x[..., 8:])
    assert not runs_on_hopper(arrays, device=1)
    assert not runs_on_hopper([x.astype(np.float32) for x in arrays])
    assert not runs_on_hopper(arrays, softcap=2.0)
    assert not runs_on_hopper(arrays, mask=np.ones(50, bool))
    assert not runs_on_hopper(wide, view=lambda x: x[..., 4:68])  # no multiple of 16 bytes
    assert not runs_on_hopper(arrays, view=lambda x: x[..., ::2])
    assert not runs_on_hopper([x[:, :, :17] for x in arrays], view=lambda x: x[..., :60])
    assert not runs_on_hopper(
        [x[:, :, :1].repeat(17, 2) for x in inputs(1, 2, 2, 1, 1, 136, 8, BF16)]
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_layouts(device, dtype):
    """Steps of every kind that boxes can have give the bits of arrays that lie side by side."""
    q, k, v = inputs(2, 2, 2, 33, 150, 64, 64, dtype)
    one = np.s_[:1, :1]
    views = {
        "tokens before heads": lambda x: device.array(
            np.ascontiguousarray(x.transpose(0, 2, 1, 3))
        ).permute(0, 2, 1, 3),
        "columns of something wider": lambda x: device.array(np.concatenate([x, x], axis=-1))[
            ..., 64:
        ],
        "every second row": lambda x: device.array(np.repeat(x, 2, axis=2))[:, :, ::2],
    }
    want = attend(device, (q, k, v), {"causal": True})
    for name, view in views.items():
        out = slipstick.attention(view(q), view(k), view(v), causal=True)
        np.testing.assert_array_equal(bits(device.numpy(out)), bits(want.out), err_msg=name)
    shared = [np.broadcast_to(x[one], x.shape) for x in (k, v)]
    want = attend(device, (q, *map(np.ascontiguousarray, shared)), {})
    repeated = [device.array(x[one]).broadcast_to(x.shape) for x in (k, v)]
    out = slipstick.attention(device.array(q), *repeated)
    np.testing.assert_array_equal(bits(device.numpy(out)), bits(want.out))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_what_is_not_finite_reaches_the_rows_that_see_it_alone(device, dtype):
    q, k, v = inputs(1, 1, 1, 30, 150, 64, 64, dtype)
    clean = attend(device, (q, k, v), {"causal": True, "key_lengths": [140]})
    k[:, :, 140:], v[:, :, 140:] = np.nan, np.inf
    spoilt = attend(device, (q, k, v), {"causal": True, "key_lengths": [140]})
    for got, want in zip(spoilt[1:], clean[1:], strict=True):
        np.testing.assert_array_equal(got, want)
    for bad in (np.nan, np.inf, -np.inf):
        q, k, v = inputs(1, 1, 1, 40, 150, 64, 64, dtype)
        v[0, 0, 140, 3], v[0, 0, 145, 40] = bad, -bad
        options = {"causal": True, "scale": -0.1}
        rows = compare(attend(device, (q, k, v), options), q, k, v, options)
        # Query i stands at key i + 110.
        assert not np.isfinite(rows.out[0, 0, 30:, 3].astype(np.float32)).any()
        assert np.isfinite(np.delete(rows.out.astype(np.float32), [3, 40], axis=-1)).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_bits_depend_on_the_sequence_alone(device, dtype):
    lengths = [(150, 310), (17, 90), (0, 12), (200, 200), (40, 0)]
    arrays = packed(lengths, 2, 1, 64, 64, dtype)
    together = attend_packed(device, arrays, {"causal": True})
    q, k, v, cu_q, cu_k = arrays
    for i, (queries, _) in enumerate(lengths):
        rows, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        if queries == 0:
            continue
        one = [x.swapaxes(0, 1)[np.newaxis] for x in (q[rows], k[keys], v[keys])]
        for arrays in (one, [np.repeat(x, 2, axis=0) for x in one]):
            alone = attend(device, arrays, {"causal": True})
            for a, b in zip(alone[1:], together[1:], strict=True):
                np.testing.assert_array_equal(bits(a[-1]), bits(b[:, rows]))
            out = alone.out[-1].swapaxes(0, 1)
            np.testing.assert_array_equal(bits(out), bits(together.out[rows]))


def test_the_order_of_threads_changes_no_bit(emulated_cuda):
    arrays = inputs(1, 1, 1, 140, 700, 128, 128, BF16)
    results = []
    for seed in range(4):
        emulated_cuda.control.set_seed(seed)
        results.append(bits(attend(emulated_cuda, arrays, {"window": (400, 5)}).out))
    assert all((result == results[0]).all() for result in results)
