"""Numeric kernels that run on logarithms.

`slipstick.mitchell` multiplies by adding piecewise-linear logarithms.
"""

from slipstick import mitchell
from slipstick._runtime import get_isa, get_num_threads, set_isa, set_num_threads
from slipstick._version import __version__

__all__ = [
    "__version__",
    "get_isa",
    "get_num_threads",
    "mitchell",
    "set_isa",
    "set_num_threads",
]
