"""Small random models of transformers, and batches with padding, for the tests of the bridge."""

from __future__ import annotations

import torch
import transformers

VOCABULARY = 61
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
# Weights large enough for attention to prefer some keys: with 0.02 it would be nearly uniform.
_SPREAD = {"initializer_range": 0.3}

CONFIGS = {
    "bert": lambda: transformers.BertConfig(
        **_SIZES, **_SPREAD, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ),
    "llama": lambda: transformers.LlamaConfig(**_GROUPED, **_SPREAD),
    "mistral": lambda: transformers.MistralConfig(**_GROUPED, **_SPREAD, sliding_window=4),
    "gemma2": lambda: transformers.Gemma2Config(
        **_GROUPED,
        **_SPREAD,
        sliding_window=4,
        query_pre_attn_scalar=5,
        attn_logit_softcapping=2.0,
        tie_word_embeddings=False,  # tied ones repeat the last token for ever
        layer_types=["sliding_attention", "full_attention"],
    ),
    "llama4": lambda: transformers.Llama4TextConfig(
        **_GROUPED,
        **_SPREAD,
        intermediate_size_mlp=48,
        num_local_experts=2,
        attention_chunk_size=4,
        layer_types=["chunked_attention", "full_attention"],
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_SIZES,
        **_SPREAD,
        local_attention=4,  # two tokens to each side, in the second layer
        cls_token_id=1,
        bos_token_id=1,
        sep_token_id=2,
        eos_token_id=2,
    ),
    "bart": lambda: transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        dropout=0.0,
        init_std=0.3,
        forced_eos_token_id=None,
    ),
}
_CLASSES = {
    "bert": transformers.BertModel,
    "llama": transformers.LlamaForCausalLM,
    "mistral": transformers.MistralForCausalLM,
    "gemma2": transformers.Gemma2ForCausalLM,
    "llama4": transformers.Llama4ForCausalLM,
    "modernbert": transformers.ModernBertModel,
    "bart": transformers.BartForConditionalGeneration,
}


def build(kind, attention, seed=0, **settings):
    """Return a model of a kind; the same weights for the same seed, whatever the attention."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    for name, value in settings.items():
        setattr(config, name, value)
    config._attn_implementation = attention
    return _CLASSES[kind](config).eval()


def batch(lengths, side, seed=0):
    """Return tokens and their mask, padded to the longest on a side; no mask for "none"."""
    width = max(lengths)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (len(lengths), width), generator=generator)
    place = torch.arange(width)
    if side == "none":
        return tokens, None
    if side == "left":
        place = place.flip(0)
    mask = place < torch.tensor(lengths)[:, None]
    if side == "holes":
        mask = mask & (place % 3 != 1)
    return tokens.where(mask, 0), mask.long()
