"""Which models look their attention up in transformers' interface, and which compute their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

__all__ = ["check_config", "check_model", "models_in"]

# What a Python module that follows the interface imports.
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
_MASKS = {
    "create_bidirectional_mask",
    "create_bidirectional_sliding_window_mask",
    "create_causal_mask",
    "create_chunked_causal_mask",
    "create_masks_for_generate",
    "create_sliding_window_causal_mask",
}


def check_config(config: Any) -> None:
    """Refuse to make masks for a model with an attention of its own, which may misread them."""
    kind: Any = type(config)
    own = None if config is None else _own_attention_beside(kind)
    if own is not None:
        raise ValueError(
            "attention: the model must look its attention up in transformers' interface, got one "
            f"of a {kind.__name__}, whose {own} computes its own"
        )


@cache
def _own_attention_beside(config_class: type) -> str | None:
    """Return an attention of its own among the modules that stand beside a configuration."""
    package = config_class.__module__.rpartition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.modeling_") and not _MASKS.isdisjoint(vars(module)):
            own = _own_attention(module)
            if own is not None:
                return own
    return None


def _own_attention(module: ModuleType) -> str | None:
    """Return the name of an attention layer that a module defines without the interface."""
    if hasattr(module, _INTERFACE):
        return None
    for name, value in vars(module).items():
        if "Attention" not in name or not isinstance(value, type):
            continue
        if issubclass(value, nn.Module) and value.__module__ == module.__name__:
            return name
    return None


def models_in(module: nn.Module) -> Iterator[PreTrainedModel]:
    """Yield the models of transformers in a module, those inside another one left out."""
    if isinstance(module, PreTrainedModel):
        yield module
    else:
        for child in module.children():
            yield from models_in(child)


def check_model(function: str, model: PreTrainedModel) -> None:
    """Refuse a model of which a part computes its own attention, and one without attention."""
    expected = f"{function}: `model` must look its attention up in transformers' interface"
    owner = type(model).__name__
    homes = {type(part).__module__ for part in model.modules() if isinstance(part, PreTrainedModel)}
    follows = False
    for part in model.modules():
        name, home = type(part).__name__, type(part).__module__
        if "Attention" not in name:
            continue
        if hasattr(sys.modules.get(home), _INTERFACE):
            follows = True
        elif home in homes:
            raise ValueError(f"{expected}, got {owner}, whose {name} computes its own")
    if not follows:
        raise ValueError(f"{expected}, got {owner}, which has no such layer")
