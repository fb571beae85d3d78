"""Locality-sensitive hashing: near vectors get near codes, or the same key.

`SimHash` packs the signs of a Gaussian projection, and `hamming_topk` finds the nearest of such
codes; `CrossPolytope` hashes to the nearest vertex of a rotated cross-polytope; `Index` looks
vectors up in tables of either's keys. Nothing random is stored: a seed names every matrix, as in
`slipstick.projection`. Of arrays of torch and cupy on a CUDA device `SimHash`,
`hamming_distance` and `hamming_topk` give the same codes, distances and neighbours there;
`CrossPolytope` and `Index` take arrays on the CPU.
"""

from slipstick.lsh._cross_polytope import CrossPolytope
from slipstick.lsh._hamming import hamming_distance, hamming_topk
from slipstick.lsh._index import Index
from slipstick.lsh._simhash import SimHash

__all__ = ["CrossPolytope", "Index", "SimHash", "hamming_distance", "hamming_topk"]
