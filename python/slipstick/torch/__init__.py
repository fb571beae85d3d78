"""Operators, functions and modules for torch: the kernels with gradients, in compiled graphs too.

Every function gives the bits of its namesake in `slipstick`, takes part in autograd, torch.compile,
torch.export, torch.func and autocast, and runs on the CPU and, where slipstick was built with CUDA,
on CUDA devices.
"""

try:
    import torch as _torch
except ImportError as error:
    message = "slipstick.torch: torch of at least version 2.13 must be installed, got none"
    raise ImportError(message) from error

# The oldest that the tests have run with. Before DLPack's exchange of tensors in C (2.8, for one),
# kernels refuse those that require a gradient even where gradients are off.
if tuple(int(part) for part in _torch.__version__.split("+")[0].split(".")[:2]) < (2, 13):
    raise ImportError(
        f"slipstick.torch: torch must have at least version 2.13, got {_torch.__version__}"
    )

from slipstick.torch._approximate import ApproximationReport, approximate, restore
from slipstick.torch._attention import attention
from slipstick.torch._convolution import mitchell_conv2d
from slipstick.torch._layers import MitchellConv2d, MitchellLinear
from slipstick.torch._products import mitchell_linear, mitchell_matmul
from slipstick.torch._projection import project
from slipstick.torch._scales import LogNScale, SSMaxScale

__all__ = [
    "ApproximationReport",
    "LogNScale",
    "MitchellConv2d",
    "MitchellLinear",
    "SSMaxScale",
    "approximate",
    "attention",
    "mitchell_conv2d",
    "mitchell_linear",
    "mitchell_matmul",
    "project",
    "restore",
]
