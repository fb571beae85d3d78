"""The mask function, and how a mask says in few words what it hides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    prepare_padding_mask,
    sdpa_mask,
)
from transformers.utils.import_utils import is_tracing

from slipstick.transformers._interface import check_config

__all__ = ["options_of", "visible_keys"]

# The attribute of a mask that says the same as options of `slipstick.torch.attention`, which cost
# the kernel less than queries x keys bits. It is an attribute because models may cut, join or
# repeat the masks they are given: what they make of one is a tensor without it.
_OPTIONS = "_slipstick_options"


def visible_keys(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    config: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return which keys each query sees, (batch, 1, queries, keys) of bool.

    None stands for all keys, or for causal order where the layer's own `is_causal` says so.

    The parameters are those that transformers hands to every mask function.
    """
    if not torch.compiler.is_compiling():
        check_config(config)
    options = None
    if allow_is_causal_skip or allow_is_bidirectional_skip:  # the pattern, and nothing on top
        # Static caches count in tensors, so that a graph holds for every position.
        static = isinstance(q_offset, Tensor) or isinstance(kv_offset, Tensor)
        options = _pattern(
            aligned=not static and q_offset + q_length == kv_offset + kv_length,
            keys=kv_length,
            function=mask_function,
            local_size=local_size,
            causal=allow_is_causal_skip,
            config=config,
        )
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if options is not None and padding is not None:
        if is_tracing(padding):  # a graph cannot hold what depends on the values
            options = None
        else:
            rows = padding[:, kv_offset : kv_offset + kv_length]
            options |= _padded(rows)
            if options.keys() <= {"mask", "key_lengths"} and options:  # the same for all queries
                same: Tensor = rows[:, None, None, :].expand(batch_size, 1, q_length, kv_length)
                setattr(same, _OPTIONS, options)
                return same
    if options is not None and options.keys() <= {"causal"}:
        return None
    mask: Tensor = sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        **kwargs,
    )
    if options is not None and not torch.compiler.is_compiling():
        setattr(mask, _OPTIONS, options)
    return mask


def _pattern(
    *, aligned: bool, keys: int, function: Any, local_size: int | None, causal: bool, config: Any
) -> dict[str, Any] | None:
    """Return the options of a pattern without padding, or None where options cannot say it.

    `aligned`: the last query stands at the last key, from where slipstick counts.
    """
    if local_size is None:
        if causal:
            return {"causal": True} if aligned and function is causal_mask_function else None
        return {} if function is bidirectional_mask_function else None
    # Functions of windows and of chunks are made anew for each call; the config tells which.
    window = getattr(config, "sliding_window", None)
    if not aligned or window != local_size or window == _chunk_size(config):
        return None
    options: dict[str, Any] = {"causal": True} if causal else {}
    if keys > local_size:
        options["window"] = (local_size - 1, None) if causal else (local_size, local_size)
    return options


def _chunk_size(config: Any) -> Any:
    return getattr(config, "attention_chunk_size", None)


def _padded(rows: Tensor) -> dict[str, Any]:
    """Return the options of (batch, keys) of bool; lengths let the kernel skip what is behind."""
    if rows.all():
        return {}
    lengths = rows.sum(-1)
    positions = torch.arange(rows.shape[1], device=rows.device)
    if torch.equal(rows, positions < lengths[:, None]):
        return {"key_lengths": lengths}
    return {"mask": rows[:, None, None, :]}


def options_of(mask: Tensor, query: Tensor, key: Tensor) -> dict[str, Any]:
    """Return a mask as options of `slipstick.torch.attention`.

    Besides its own masks, those that models and users make: bool, or floating point to be added.
    """
    if not torch.compiler.is_compiling():
        options = getattr(mask, _OPTIONS, None)
        # A layer whose keys are others than those the mask was made for gets what it was given.
        if options is not None and mask.shape[2:] == (query.shape[2], key.shape[2]):
            known: dict[str, Any] = options
            return known
    if not isinstance(mask, Tensor):
        raise TypeError(f"attention: `attention_mask` must be a tensor, got {type(mask).__name__}")
    if mask.ndim != 4:
        raise ValueError(
            "attention: `attention_mask` must have 4 axes (batch, heads, queries, keys), got shape "
            f"{tuple(mask.shape)}"
        )
    if mask.dtype is torch.bool:
        return {"mask": mask}
    if not mask.dtype.is_floating_point:
        raise TypeError(
            "attention: `attention_mask` must be bool or floating point, got dtype "
            f"{str(mask.dtype).removeprefix('torch.')}"
        )
    # transformers hides keys by the least number of a dtype, and adds several such; for slipstick
    # only -inf hides, and a key that is not hidden counts.
    least = torch.finfo(mask.dtype).min / 2
    return {"mask": mask.masked_fill(mask <= least, -torch.inf)}
