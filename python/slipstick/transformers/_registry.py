"""Names under which transformers finds the kernels."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from slipstick._numbers import given
from slipstick.scales import Scale
from slipstick.torch import LogNScale, SSMaxScale
from slipstick.transformers._attention import attention_function
from slipstick.transformers._interface import check_model, models_in
from slipstick.transformers._masks import visible_keys

__all__ = ["register", "unregister", "use"]

# transformers reads meaning into these, wherever in a name they stand.
_READ = ("flash", "flex", "sdpa")
_registered: set[str] = set()


def register(
    name: str = "slipstick", *, scale: Scale | LogNScale | SSMaxScale | None = None
) -> None:
    """Let transformers know the attention of this package under a name.

    From then on models take it as ``attn_implementation=name``.

    Parameters
    ----------
    name : str, optional
        Letters, digits, ``_``, ``-`` and ``.``; none that is registered.
    scale : Scale, LogNScale or SSMaxScale, optional
        The law from n, the number of keys that a query sees, to the factor of its scores; see
        `slipstick.scales`. None, the default, takes the factor of the model's own layers, so that a
        pretrained model gives its own results. A law gives the model's own factor at its reference
        length, such as the length that the model was trained at: ``LogN(512)``.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, and for a name that is registered. In a model's forward pass
        for what the kernel does not compute: dropout, a bias on the scores, attention sinks, paged
        caches, returned weights.

    Notes
    -----
    It registers an attention function and the mask function that belongs to it; without the second
    a model would attend padding in silence. n counts what causal order, sliding windows, padding
    and masks leave; queries without a key, such as left padding, give 0. Heads of keys and values
    are not repeated. A soft cap is applied as the model asks for it.

    Names are those of a process; one that is spawned has to register for itself.

    With scaling, what a layer would multiply the scores with, and d, the columns of a head, the
    factor is ``scaling * sqrt(d)`` times that of the law, which is 1 for most models.

    The parameters of a LogNScale or SSMaxScale given here, shared by all layers, belong to no
    model: they have to be handed to the optimizer, and saved. A scale set as the submodule
    ``slipstick_scale`` of an attention layer belongs to the model, and comes before the one given
    here.

    Source: Su Jianlin, kexue.fm/archives/8823 (2021), for the laws.

    Examples
    --------
    >>> import slipstick.transformers
    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> slipstick.transformers.register()
    >>> slipstick.transformers.register("slipstick-512", scale=slipstick.scales.LogN(512))
    >>> sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = BertConfig(**sizes, num_hidden_layers=1, attn_implementation="slipstick")
    >>> model = BertModel(config).eval()
    >>> model(torch.arange(6)[None]).last_hidden_state.shape
    torch.Size([1, 6, 64])
    >>> slipstick.transformers.unregister("slipstick")
    >>> slipstick.transformers.unregister("slipstick-512")
    """
    if not isinstance(name, str):
        raise TypeError(f"register: `name` must be a str, got {type(name).__name__}")
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII) or any(part in name for part in _READ):
        raise ValueError(
            "register: `name` must consist of letters, digits, '_', '-' and '.', and not contain "
            f"{', '.join(_READ[:-1])} or {_READ[-1]}, got {name!r}"
        )
    if name in _registered or name in AttentionInterface() or name in AttentionMaskInterface():
        raise ValueError(
            f"register: `name` must be one that is not registered, got {name!r}, which is"
        )
    if scale is not None and not isinstance(scale, (Scale, LogNScale, SSMaxScale)):
        shown = f"the class {scale.__name__}" if isinstance(scale, type) else given(scale)
        raise TypeError(
            "register: `scale` must be None, an object of slipstick.scales, a LogNScale or an "
            f"SSMaxScale, got {shown}"
        )
    AttentionInterface.register(name, attention_function(scale))
    AttentionMaskInterface.register(name, visible_keys)
    _registered.add(name)


def unregister(name: str = "slipstick") -> None:
    """Take a name of `register` away; models that use it can no longer run.

    Parameters
    ----------
    name : str, optional
        A name that `register` was given.

    Raises
    ------
    TypeError, ValueError
        For what is no such name.
    """
    _check_name("unregister", name)
    for interface in (AttentionInterface, AttentionMaskInterface):
        del interface._global_mapping[name]
    _registered.remove(name)


def use(model: nn.Module, name: str = "slipstick") -> None:
    """Switch a model that is there, in place.

    Parameters
    ----------
    model : torch.nn.Module
        A model of transformers, or a module with some inside, as a SentenceTransformer is.
    name : str, optional
        A name that `register` was given.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, among them models of which a part computes its own attention
        instead of looking it up in transformers' interface; nothing is switched then. To those
        models ``attn_implementation=name`` may mean nothing, in silence.

    Examples
    --------
    >>> import slipstick.transformers
    >>> from transformers import BertConfig, BertModel
    >>> sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = BertModel(BertConfig(**sizes, num_hidden_layers=1))
    >>> slipstick.transformers.register()
    >>> slipstick.transformers.use(model)
    >>> model.config._attn_implementation
    'slipstick'
    >>> slipstick.transformers.unregister()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"use: `model` must be a torch.nn.Module, got {type(model).__name__}")
    _check_name("use", name)
    models = list(models_in(model))
    if not models:
        raise ValueError(
            f"use: `model` must be or hold a model of transformers, got {type(model).__name__}"
        )
    for part in models:
        check_model("use", part)
    for part in models:
        part.set_attn_implementation(name)


def _check_name(function: str, name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{function}: `name` must be a str, got {type(name).__name__}")
    if name not in _registered:
        raise ValueError(f"{function}: `name` must be one that `register` was given, got {name!r}")
