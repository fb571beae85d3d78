"""What `slipstick.transformers` refuses, and what it says then."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys

import pytest

from slipstick.scales import LogN, SSMax

pytest.importorskip("transformers")
import torch
import transformers
from transformers import AttentionInterface

import slipstick.transformers
from slipstick.transformers import _registry as registry
from slipstick.transformers import register, unregister, use
from transformers_models import batch, build


@pytest.fixture(autouse=True)
def _registered():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of what is too small to share
    register()
    yield
    unregister()
    torch.set_num_threads(before)


def refused(error, message, function, *args, **kwargs):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(*args, **kwargs)


# --- Names and scales -----------------------------------------------------------------------------

NAME = "register: `name` must consist of letters, digits, '_', '-' and '.', and not contain "


@pytest.mark.parametrize(
    ("error", "message", "name"),
    [
        (TypeError, "register: `name` must be a str, got int", 3),
        (TypeError, "register: `name` must be a str, got NoneType", None),
        (ValueError, f"{NAME}flash, flex or sdpa, got ''", ""),
        (ValueError, f"{NAME}flash, flex or sdpa, got 'a/b'", "a/b"),
        (ValueError, f"{NAME}flash, flex or sdpa, got 'paged|slipstick'", "paged|slipstick"),
        (ValueError, f"{NAME}flash, flex or sdpa, got 'my_flash'", "my_flash"),
        (ValueError, f"{NAME}flash, flex or sdpa, got 'sdpa'", "sdpa"),
        (ValueError, f"{NAME}flash, flex or sdpa, got 'rechenstäbchen'", "rechenstäbchen"),
        *(
            (
                ValueError,
                f"register: `name` must be one that is not registered, got '{name}', which is",
                name,
            )
            for name in ("slipstick", "eager")
        ),
    ],
)
def test_names(error, message, name):
    known = list(AttentionInterface())
    refused(error, message, register, name)
    assert list(AttentionInterface()) == known


SCALE = (
    "register: `scale` must be None, an object of slipstick.scales, a LogNScale or an SSMaxScale, "
)


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (0.125, "0.125"),
        ("LogN", "'LogN'"),
        (LogN, "the class LogN"),
        (torch.nn.ReLU(), "ReLU()"),
    ],
)
def test_scales(scale, shown):
    refused(TypeError, f"{SCALE}got {shown}", register, "other", scale=scale)
    assert "other" not in AttentionInterface()


def test_scales_go_by_name():
    with pytest.raises(TypeError, match="takes from 0 to 1 positional arguments"):
        register("other", LogN(512))


@pytest.mark.parametrize("function", ["unregister", "use"])
def test_unknown_names(function):
    call = (
        unregister if function == "unregister" else lambda name: use(build("bert", "eager"), name)
    )
    expected = f"{function}: `name` must be one that `register` was given, got "
    for name in ("slipstik", "sdpa", ""):
        refused(ValueError, f"{expected}{name!r}", call, name)
    refused(TypeError, f"{function}: `name` must be a str, got int", call, 1)


def test_transformers_refuses_names_that_are_not_registered():
    with pytest.raises(ValueError, match="slipstik"):
        build("bert", "slipstik")


# --- Models ---------------------------------------------------------------------------------------

INTERFACE = "must look its attention up in transformers' interface, got"


def bloom(attention="eager"):
    config = transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)
    config._attn_implementation = attention
    return transformers.BloomModel(config).eval()


def test_models_without_the_interface():
    model = bloom()
    message = f"use: `model` {INTERFACE} BloomModel, whose BloomAttention computes its own"
    refused(ValueError, message, use, model)
    refused(ValueError, message, use, torch.nn.Sequential(build("bert", "eager"), model))
    assert model.config._attn_implementation == "eager"
    convolutions = transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    )
    message = f"use: `model` {INTERFACE} ResNetModel, which has no such layer"
    refused(ValueError, message, use, convolutions)


def test_models_without_the_interface_that_were_loaded_with_the_name():
    """transformers lets them pass; they would misread the masks, if not ignore the name."""
    tokens = torch.arange(5)[None]
    message = (
        f"attention: the model {INTERFACE} one of a BloomConfig, whose BloomAttention computes its "
        "own"
    )
    refused(ValueError, message, bloom("slipstick"), tokens)


def test_what_is_no_model():
    refused(TypeError, "use: `model` must be a torch.nn.Module, got str", use, "bert")
    expected = "use: `model` must be or hold a model of transformers, got Linear"
    refused(ValueError, expected, use, torch.nn.Linear(2, 2))


def test_use_switches_parts():
    model = torch.nn.Sequential(build("bert", "eager"), torch.nn.ReLU(), build("bart", "eager"))
    use(model)
    assert model[0].config._attn_implementation == "slipstick"
    assert model[2].config._attn_implementation == "slipstick"


# --- What the kernel does not compute -------------------------------------------------------------


class Layer(torch.nn.Module):
    is_causal = False


def call(mask=None, module=None, **kwargs):
    query = torch.ones(2, 2, 3, 4)
    return AttentionInterface()["slipstick"](module or Layer(), query, query, query, mask, **kwargs)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("position_bias", torch.zeros(1, 2, 3, 3), "a bias on the scores has no gradient here"),
        ("s_aux", torch.zeros(2), "there are no attention sinks here"),
        ("sinks", torch.zeros(2), "there are no attention sinks here"),
        ("cache", object(), "there are no paged caches here"),
        ("indices", torch.zeros(1), "there is no sparse choice of keys here"),
        ("block_indices", torch.zeros(1), "there is no sparse choice of keys here"),
    ],
)
def test_options_that_are_not_honoured(option, value, reason):
    shown = type(value).__name__
    expected = f"attention: `{option}` must be None, since {reason}, got {shown}"
    refused(ValueError, expected, call, **{option: value})
    call(**{option: None})


def test_dropout():
    expected = (
        "attention: `dropout` must be 0, since the weights are never stored, got 0.1 (a setting of "
        "the model's config)"
    )
    refused(ValueError, expected, call, dropout=0.1)
    model = build("bert", "slipstick", attention_probs_dropout_prob=0.1).train()
    tokens, mask = batch([4, 2], "right")
    refused(ValueError, expected, model, tokens, attention_mask=mask)
    model.eval()(tokens, attention_mask=mask)


def test_weights():
    expected = (
        "attention: `output_attentions` must be False, since the weights are never stored, got True"
    )
    refused(ValueError, expected, call, output_attentions=True)
    call(output_attentions=False)


def test_packed_sequences_without_positions():
    ends = torch.tensor([0, 2, 3])
    expected = (
        "attention: `cu_seq_lens_q` must come with `position_ids`, from which the mask of packed "
        "sequences is made, got 2 sequences and no mask"
    )
    refused(ValueError, expected, call, cu_seq_lens_q=ends)
    call(cu_seq_lens_q=ends[:2])
    call(torch.ones(2, 1, 3, 3, dtype=torch.bool), cu_seq_lens_q=ends)
    model = build("llama", "slipstick")
    tokens, _ = batch([3], "none")
    refused(ValueError, expected, model, tokens, cu_seq_lens_q=ends, use_cache=False)
    model(tokens, cu_seq_lens_q=ends, position_ids=torch.tensor([[0, 1, 0]]), use_cache=False)


def test_models_with_sinks_and_biases():
    tokens = torch.arange(5)[None]
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    config._attn_implementation = "slipstick"
    with pytest.raises(ValueError, match=r"^attention: `position_bias` must be None, since a bias"):
        transformers.T5EncoderModel(config)(tokens)
    config = transformers.GptOssConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    config._attn_implementation = "slipstick"
    with pytest.raises(ValueError, match=r"^attention: `s_aux` must be None, since there are no"):
        transformers.GptOssModel(config)(tokens)


@pytest.mark.parametrize(
    ("error", "message", "mask"),
    [
        (TypeError, "must be a tensor, got list", [[1, 1, 1]]),
        (
            ValueError,
            "must have 4 axes (batch, heads, queries, keys), got shape (2, 3)",
            torch.ones(2, 3, dtype=torch.bool),
        ),
        (
            TypeError,
            "must be bool or floating point, got dtype int64",
            torch.ones(2, 1, 3, 3, dtype=torch.int64),
        ),
    ],
)
def test_masks(error, message, mask):
    refused(error, f"attention: `attention_mask` {message}", call, mask)


def test_masks_that_do_not_fit():
    with pytest.raises(ValueError, match=r"^attention: `mask` must broadcast"):
        call(torch.ones(2, 1, 3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^attention: `mask` must not require a gradient"):
        call(torch.zeros(2, 1, 3, 3, requires_grad=True))


def test_what_is_no_scale_in_a_layer():
    layer = Layer()
    layer.slipstick_scale = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"^attention: `scale` must be an object of .* got Linear$"):
        call(module=layer)


def test_scales_with_a_parameter_for_each_head():
    register("heads", scale=SSMax([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"^attention: `scale` "):
        AttentionInterface()["heads"](Layer(), *torch.ones(3, 1, 2, 3, 4), None)
    unregister("heads")


# --- The module -----------------------------------------------------------------------------------


def test_examples():
    unregister()
    results = doctest.testmod(registry, extraglobs={"slipstick": slipstick})
    register()
    assert results.attempted > 0
    assert results.failed == 0


def test_slipstick_does_not_import_transformers():
    code = "import sys, slipstick; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        (
            "sys.modules['transformers'] = None",
            "transformers of at least version 5.4 must be installed, got none or an older one",
        ),
        (
            "old = sys.modules['transformers'] = types.ModuleType('transformers')\n"
            "old.__version__ = '5.3.0'\n"
            "masks = sys.modules['transformers.masking_utils'] = types.ModuleType('masks')\n"
            "masks.sdpa_mask = lambda batch_size, cache_position: None",
            "transformers must have at least version 5.4, got 5.3.0",
        ),
    ],
)
def test_without_a_fitting_transformers(stub, message):
    code = f"import sys, types\n{stub}\nimport slipstick.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: slipstick.transformers: {message}" in done.stderr
