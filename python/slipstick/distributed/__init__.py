"""Attention and projection over several processes, by `torch.distributed`.

Sequences (for attention) or features (for projection) are cut into shards, one a rank. Every rank
of the group calls the same function with the same options; a call whose arguments do not fit
together is refused with the same error on all of them, before anything is computed.
"""

import slipstick.torch as _torch  # noqa: F401  (says so where torch is missing)

# isort: split
import torch.distributed as _distributed

if not _distributed.is_available():
    raise ImportError(
        "slipstick.distributed: torch must be built with torch.distributed, got one without it"
    )

from slipstick.distributed._attention import ring_attention
from slipstick.distributed._layout import shard, unshard
from slipstick.distributed._projection import project

__all__ = ["project", "ring_attention", "shard", "unshard"]
