"""`slipstick.torch.attention`: values, and what it refuses."""

from __future__ import annotations

import pytest

import slipstick
from slipstick.scales import ClippedLogN, LogN

pytest.importorskip("torch")
import torch

from slipstick.torch import SSMaxScale, attention
from torch_inputs import OPTIONS, inputs

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ATTENTION = torch.ops.slipstick.attention.default


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_bits_are_those_of_the_function(name, dtype):
    options = OPTIONS[name]
    arrays = inputs(dtype)
    out = attention(*arrays, **options)
    assert torch.equal(out, slipstick.attention(*arrays, **options))
    out, stats = attention(*arrays, return_stats=True, **options)
    expected, expected_stats = slipstick.attention(*arrays, return_stats=True, **options)
    assert torch.equal(out, expected)
    for one, other in zip(stats, expected_stats, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rank", [2, 3])
def test_without_batch_and_heads(rank):
    arrays = [x[(0,) * (4 - rank)] for x in (inputs()[0][:, :2], *inputs()[1:])]
    assert torch.equal(attention(*arrays), slipstick.attention(*arrays))


def test_strides_and_empty_inputs():
    query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(grad=True))
    assert not query.is_contiguous()
    out = attention(query, key, value, causal=True)
    assert torch.equal(out, attention(*inputs(), causal=True))
    out.sum().backward()
    empty = attention(query[:0], key[:0], value[:0])
    assert empty.shape == (0, 4, 5, 3)
    empty.sum().backward()


def test_grad_mode_changes_no_bit():
    arrays = inputs(torch.float32, grad=True)
    out = attention(*arrays)
    assert out.requires_grad
    with torch.no_grad():
        plain = attention(*arrays)
    assert not plain.requires_grad
    with torch.inference_mode():
        inferred = attention(*arrays)
    assert torch.equal(out, plain)
    assert torch.equal(out, inferred)


def test_meta_and_fake_tensors_have_shapes():
    meta = [x.to("meta") for x in inputs()]
    out, stats = attention(*meta, causal=True, return_stats=True)
    assert out.shape == (2, 4, 5, 3)
    assert out.device.type == "meta"
    assert stats.lse.shape == (2, 4, 5)


# --- Refusals -------------------------------------------------------------------------------------

Q, K, V = inputs(torch.float32)
REFUSED = {
    "not a tensor": ((Q.numpy(), K, V), {}, TypeError, "`query` must be a torch.Tensor, got ndarr"),
    "sparse": (
        (Q, K.to_sparse(), V),
        {},
        TypeError,
        "`key` must be a dense tensor, got layout tor",
    ),
    "devices": ((Q, K.to("meta"), V), {}, ValueError, "`key` must be on device cpu like `query`, "),
    "mask device": (
        (Q, K, V),
        {"mask": torch.ones(7, device="meta")},
        ValueError,
        "`mask` must be on device cpu like `query`, got device meta",
    ),
    "dtypes": ((Q, K.double(), V), {}, TypeError, "`key` must have dtype float32 like `query`, "),
    "complex": ((Q.cfloat(), K, V), {}, TypeError, "`query` must have a real numeric dtype"),
    "integers": ((Q.int(), K.int(), V.int()), {}, TypeError, "`query` must be float32, float64"),
    "ranks": ((Q, K[0], V), {}, ValueError, "`query`, `key` and `value` must have|`key` must"),
    "columns": ((Q, K[..., 1:], V), {}, ValueError, "`key` must have 6 columns like `query`"),
    "scale": ((Q, K, V), {"scale": "LogN"}, TypeError, "`scale` must be an object of slipstick.s"),
    "scale class": ((Q, K, V), {"scale": LogN}, TypeError, "`scale` .*got the class LogN"),
    "scale None": ((Q, K, V), {"scale": None}, TypeError, "`scale` must be .*got NoneType"),
    "scale shape": ((Q, K, V), {"scale": torch.ones(3)}, ValueError, "`scale` must"),
    "heads of a scale": ((Q, K, V), {"scale": SSMaxScale(heads=3)}, ValueError, "`scale`"),
    "causal": ((Q, K, V), {"causal": 1}, TypeError, "`causal` must be True or False, got 1"),
    "window": ((Q, K, V), {"window": 3}, TypeError, "`window` must be None or"),
    "softcap": ((Q, K, V), {"softcap": -1}, ValueError, "`softcap` must be None or a finite numb"),
    "stats": ((Q, K, V), {"return_stats": None}, TypeError, "`return_stats` must be True or F"),
    "n_keys": ((Q, K, V), {"n_keys": 1.5}, TypeError, "`n_keys` must be an int, ints or a tens"),
    "n_keys floats": ((Q, K, V), {"n_keys": torch.ones(2)}, TypeError, "`n_keys` must"),
    "lengths": ((Q, K, V), {"key_lengths": [1, "a"]}, TypeError, "`key_lengths` must be an int"),
    "too long": ((Q, K, V), {"key_lengths": 8}, ValueError, "`key_lengths` must"),
    "mask type": (
        (Q, K, V),
        {"mask": [True]},
        TypeError,
        "`mask` must be a torch.Tensor, got list",
    ),
    "mask grad": (
        (Q, K, V),
        {"mask": torch.ones(5, 7, requires_grad=True)},
        ValueError,
        "`mask` must not require a gradient",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arrays, options, error, message = REFUSED[name]
    with pytest.raises(error, match=f"^attention: ({message})") as caught:
        attention(*arrays, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["a nested", "a quantized", "an uninitialized"])
def test_refusals_of_tensors_that_look_dense(kind):
    if kind == "a nested":
        x = torch.nested.nested_tensor([Q[0], Q[0]])
    elif kind == "a quantized":
        x = torch.quantize_per_tensor(Q, 0.1, 0, torch.qint8)
    else:
        x = torch.nn.UninitializedBuffer()
    for name, arrays, options in (
        ("query", (x, K, V), {}),
        ("value", (Q, K, x), {"return_stats": True}),
        ("mask", (Q, K, V), {"mask": x}),
        ("scale", (Q, K, V), {"scale": x}),
    ):
        message = rf"^attention: `{name}` must be a dense tensor, got {kind} one$"
        with pytest.raises(TypeError, match=message):
            attention(*arrays, **options)
        with pytest.raises(Exception, match="slipstick"):  # in the dispatcher's words
            ATTENTION(*arrays, **options)


def test_tensors_whose_elements_lie_in_no_memory():
    """The dispatcher lays them out, so they are as good as any."""
    query, key, value = inputs(torch.float32)
    negative = torch._neg_view(query)
    assert negative.is_neg()
    assert torch.equal(attention(negative, key, value), attention(-query, key, value))
    zeros = torch._efficientzerotensor(query.shape)
    assert torch.equal(attention(zeros, key, value), attention(query * 0, key, value))


def test_refusals_of_raw_operators():
    for options in ((False, None, "LogN", [1.0, 2.0]), (False, None, "os.system", [3.0])):
        with pytest.raises(ValueError, match=r"^attention: `law` must be LogN"):
            ATTENTION(Q, K, V, *options)
    with pytest.raises(ValueError, match=r"^attention: `window` must be None or"):
        ATTENTION(Q, K, V, left=-2)
    with pytest.raises(ValueError, match=r"^attention: `softcap` must be above 0"):
        ATTENTION(Q, K, V, softcap=-1.0)
    with pytest.raises(ValueError, match=r"^attention: `key` must be on device meta like `query`"):
        ATTENTION(Q.to("meta"), K, V)


def test_raw_operators_have_the_numbers_of_any_law_by_default():
    expected = attention(Q, K, V, scale=ClippedLogN(512))
    assert torch.equal(ATTENTION(Q, K, V, law="ClippedLogN"), expected)
