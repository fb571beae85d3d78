"""Numeric kernels that run on logarithms.

`slipstick.mitchell` multiplies by adding piecewise-linear logarithms.
`slipstick.attention` and `slipstick.softmax` keep the entropy where it is when the length changes.
`slipstick.projection` projects by a random matrix that is never stored.
`slipstick.lsh` finds near vectors by hashing them with it.
"""

from slipstick import lsh, mitchell, projection, scales
from slipstick._attention import AttentionStats, attention, softmax
from slipstick._attention_backward import AttentionGrads, attention_backward
from slipstick._attention_merge import merge_attention
from slipstick._attention_varlen import attention_varlen
from slipstick._cmake import cmake_dir
from slipstick._runtime import get_isa, get_num_threads, set_isa, set_num_threads
from slipstick._version import __version__

__all__ = [
    "AttentionGrads",
    "AttentionStats",
    "__version__",
    "attention",
    "attention_backward",
    "attention_varlen",
    "cmake_dir",
    "get_isa",
    "get_num_threads",
    "lsh",
    "merge_attention",
    "mitchell",
    "projection",
    "scales",
    "set_isa",
    "set_num_threads",
    "softmax",
]
