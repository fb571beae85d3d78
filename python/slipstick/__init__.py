"""Numeric kernels that run on logarithms.

`slipstick.mitchell` multiplies by adding piecewise-linear logarithms.
`slipstick.projection` projects by a random matrix that is never stored.
"""

from slipstick import mitchell, projection
from slipstick._runtime import get_isa, get_num_threads, set_isa, set_num_threads
from slipstick._version import __version__

__all__ = [
    "__version__",
    "get_isa",
    "get_num_threads",
    "mitchell",
    "projection",
    "set_isa",
    "set_num_threads",
]
