r"""
Neighbours from bits
====================

The sign of a random projection is one bit. Two vectors at the angle :math:`\theta` differ in it
with probability :math:`\theta / \pi` (Charikar 2002), so that the number of different bits measures
their angle: a search among long vectors becomes a search among short codes.
"""

# %%
# First the law: pairs of vectors at known angles, and the share of 4096 bits in which they differ.

import matplotlib.pyplot as plt
import numpy as np

from slipstick import lsh

rng = np.random.default_rng(0)
angles = np.linspace(0, np.pi, 40)
start, other = np.linalg.qr(rng.standard_normal((128, 2)))[0].T
vectors = np.cos(angles)[:, np.newaxis] * start + np.sin(angles)[:, np.newaxis] * other
hasher = lsh.SimHash(4096, seed=0)
codes = hasher.hash(vectors)
share = lsh.hamming_distance(codes, codes[:1]) / hasher.n_bits

figure, ax = plt.subplots(figsize=(5.4, 3.6))
ax.plot(angles, share, "o", ms=4, label="measured")
ax.plot(angles, angles / np.pi, color="grey", label="angle / pi")
ax.set_xlabel("angle")
ax.set_ylabel("share of different bits")
ax.legend()

# %%
# Now a search: 20,000 vectors of 128 numbers in clusters, and 200 queries beside some of them. How
# many of the ten nearest by angle does a search by codes find, if it hands on 10, 50 or 200
# candidates for an exact comparison?

centres = rng.standard_normal((200, 128), np.float32)
noise = rng.standard_normal((20_000, 128), np.float32)
data = centres[rng.integers(200, size=20_000)] + 0.7 * noise
queries = data[:200] + 0.3 * rng.standard_normal((200, 128), np.float32)
unit = data / np.linalg.norm(data, axis=1, keepdims=True)
nearest = np.argpartition(-(queries @ unit.T), 10, axis=1)[:, :10]


def recall(found):
    """Return the mean share of the true neighbours among those found."""
    return np.mean([np.isin(true, some).mean() for true, some in zip(nearest, found, strict=True)])


figure, ax = plt.subplots(figsize=(6.4, 3.8))
sizes = (64, 128, 256, 512, 1024)
for candidates in (10, 50, 200):
    found = []
    for n_bits in sizes:
        hasher = lsh.SimHash(n_bits, seed=0)
        _, indices = lsh.hamming_topk(hasher.hash(queries), hasher.hash(data), candidates)
        found.append(recall(indices))
    ax.plot(sizes, found, "o-", label=f"{candidates} candidates")
ax.set_xscale("log", base=2)
ax.set_xticks(sizes, map(str, sizes))
ax.set_ylim(0, 1.02)
ax.set_xlabel("bits of a code (the vectors have 4096)")
ax.set_ylabel("true neighbours found")
ax.legend()

# %%
# `hamming_topk` looks at every code. An `Index` looks into a few buckets of hash tables instead,
# and into the neighbouring buckets that are most probable next, as many as ``n_probes`` says.

index = lsh.Index(128, n_tables=8, n_hashes=14)
index.add(data)
for n_probes in (1, 4, 16, 64):
    _, indices = index.query(queries, 10, n_probes=n_probes)
    print(f"n_probes={n_probes:3}: {100 * recall(indices):5.1f} % of the true neighbours")
plt.show()
