"""The attention function: what a layer of transformers hands over, as slipstick takes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slipstick.torch import attention
from slipstick.transformers._masks import options_of

__all__ = ["LAYER_SCALE", "attention_function"]

# A layer's own scale: a submodule of this name, so that the model has its parameters.
LAYER_SCALE = "slipstick_scale"

# What other functions honour and this one does not, by its name among the arguments. Left out of
# the computation, each would change the result in silence.
_NOT_HONOURED = {
    "position_bias": "a bias on the scores has no gradient here",
    "s_aux": "there are no attention sinks here",
    "sinks": "there are no attention sinks here",
    "cache": "there are no paged caches here",
    "indices": "there is no sparse choice of keys here",
    "block_indices": "there is no sparse choice of keys here",
}
_PACKED = "cu_seq_lens_q"
_CHECKED = {*_NOT_HONOURED, _PACKED, "output_attentions"}

# How far the model's own scale may be from 1 / sqrt(dim) and count as it: float32's precision.
_SAME_SCALE = 2.0**-23

Attention = Callable[..., tuple[Tensor, None]]


def attention_function(scale: Any) -> Attention:
    """Return an attention function of the interface; `scale` as for `register`."""

    def slipstick_attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        # A sliding window, among `kwargs`, is part of the mask, as for "eager" and "sdpa".
        if dropout:
            raise ValueError(
                "attention: `dropout` must be 0, since the weights are never stored, got "
                f"{dropout:.4g} (a setting of the model's config)"
            )
        if not _CHECKED.isdisjoint(kwargs):
            _refuse(attention_mask, kwargs)
        if attention_mask is None:
            causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
            seen: dict[str, Any] = {"causal": causal}
        else:
            seen = options_of(attention_mask, query, key)
        dim = query.shape[-1]
        law = module._modules.get(LAYER_SCALE, scale)
        if law is None:
            law = dim**-0.5 if scaling is None else scaling
        elif scaling is not None:
            # The law is made for 1 / sqrt(dim); a model with another scale of its own keeps it.
            ratio = scaling * math.sqrt(dim)
            if abs(ratio - 1.0) > _SAME_SCALE:
                query = query * ratio
        out = attention(query, key, value, scale=law, softcap=softcap, **seen)
        return out.transpose(1, 2).contiguous(), None

    return slipstick_attention


def _refuse(attention_mask: Tensor | None, options: dict[str, Any]) -> None:
    """Refuse what would be left out of the computation; None and False ask for nothing."""
    for name, reason in _NOT_HONOURED.items():
        if options.get(name) is not None:
            raise ValueError(
                f"attention: `{name}` must be None, since {reason}, got "
                f"{type(options[name]).__name__}"
            )
    if options.get("output_attentions"):
        raise ValueError(
            "attention: `output_attentions` must be False, since the weights are never stored, got "
            f"{options['output_attentions']!r}"
        )
    packed = options.get(_PACKED)
    if attention_mask is None and isinstance(packed, torch.Tensor) and packed.shape[0] > 2:
        raise ValueError(
            f"attention: `{_PACKED}` must come with `position_ids`, from which the mask of packed "
            f"sequences is made, got {packed.shape[0] - 1} sequences and no mask"
        )
