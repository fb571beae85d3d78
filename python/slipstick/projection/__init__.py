"""Random projection by a matrix that is never stored.

``y = A x / sqrt(k)`` with a random k x d matrix A keeps squared norms on average, and by the lemma
of Johnson and Lindenstrauss (1984) k of order ``ln N / eps**2`` keeps all distances among N points
within a factor 1 +- eps. Every entry of A is a pure function of (kind, seed, component, feature),
made from the counter-based generator Philox4x32-10 inside the kernel that uses it: the matrix takes
no memory, and it is the same for every thread count, instruction set, batch, chunk and CUDA device.

Arrays of torch and cupy on a CUDA device are projected, transformed and factorised there, where
slipstick was built with CUDA; `distortion` and `StreamingSVD` take arrays on the CPU.
"""

from slipstick.projection._distortion import DistortionReport, distortion
from slipstick.projection._hadamard import hadamard
from slipstick.projection._min_dim import min_dim
from slipstick.projection._project import back_project, block, project
from slipstick.projection._rotate import rotate
from slipstick.projection._streaming import StreamingSVD
from slipstick.projection._svd import randomized_svd

__all__ = [
    "DistortionReport",
    "StreamingSVD",
    "back_project",
    "block",
    "distortion",
    "hadamard",
    "min_dim",
    "project",
    "randomized_svd",
    "rotate",
]
