"""The peers of attention on a CUDA device: torch's backends of SDPA, and FlexAttention.

None of them knows n. For a factor of ln n they are given what users of them do: queries multiplied
by the factor of their row beforehand, in their own dtype, or a score_mod that looks it up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

Tensors = tuple[torch.Tensor, ...]
# (query, key, value, factors) to out; factors are those of the rows, or a number for all of them.
Attention = Callable[..., torch.Tensor]

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def compiled() -> Any:
    """Return FlexAttention for one case: the compiler gives up after eight shapes."""
    torch._dynamo.reset()
    return torch.compile(flex_attention, dynamic=False)


def sdpa(
    backend: Any, causal: bool, query: Any, key: Any, value: Any, factors: Any
) -> torch.Tensor:
    """torch's SDPA by one backend; a tensor of factors is multiplied onto the queries."""
    scale = factors
    if isinstance(factors, torch.Tensor):
        query, scale = query * factors.unsqueeze(-1), 1.0
    with sdpa_kernel(backend):
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )


class Flex:
    """FlexAttention, compiled; factors of rows are looked up in float32."""

    def __init__(self, causal: bool) -> None:
        self.causal = causal
        self.attention = compiled()
        self.mask: Any = None

    def __call__(self, query: Any, key: Any, value: Any, factors: Any) -> torch.Tensor:
        if self.causal and self.mask is None:
            tokens = query.shape[2], key.shape[2]
            self.mask = create_block_mask(_is_seen, None, None, *tokens, device=query.device)
        options: dict[str, Any] = {"scale": factors}
        if isinstance(factors, torch.Tensor):

            def multiplied(score: Any, batch: Any, head: Any, row: Any, column: Any) -> Any:
                return score * factors[head, row]

            options = {"scale": 1.0, "score_mod": multiplied}
        shared = query.shape[1] != key.shape[1]
        out = self.attention(query, key, value, block_mask=self.mask, enable_gqa=shared, **options)
        assert isinstance(out, torch.Tensor)
        return out


def _is_seen(batch: Any, head: Any, row: Any, column: Any) -> Any:
    return column <= row


def peers(causal: bool) -> dict[str, Attention]:
    """Of attention with as many queries as keys, where torch aligns causal order as we do."""
    found: dict[str, Attention] = {
        f"SDPA {name}": partial(sdpa, backend, causal) for name, backend in BACKENDS.items()
    }
    return found | {"FlexAttention": Flex(causal)}


def runs(call: Callable[[], Any]) -> bool:
    """Whether this card and this torch have what the call needs."""
    try:
        call()
    except (RuntimeError, NotImplementedError):
        return False
    return True
