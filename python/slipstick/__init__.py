"""Numeric kernels that run on logarithms.

`slipstick.mitchell` multiplies by adding piecewise-linear logarithms; `slipstick.attention` and
`slipstick.softmax` keep the entropy of attention where it is when the length changes.
"""

from slipstick import mitchell, scales
from slipstick._attention import AttentionStats, attention, softmax
from slipstick._runtime import get_isa, get_num_threads, set_isa, set_num_threads
from slipstick._version import __version__

__all__ = [
    "AttentionStats",
    "__version__",
    "attention",
    "get_isa",
    "get_num_threads",
    "mitchell",
    "scales",
    "set_isa",
    "set_num_threads",
    "softmax",
]
