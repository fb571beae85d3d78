"""
A photograph from a few singular values
=======================================

A picture is a matrix, and most of it lies in a few directions. The randomised SVD finds them by
looking at the matrix through a random projection a few times, instead of decomposing it.
"""

# %%
# One of scikit-learn's two sample photographs, in grey: 427 x 640 pixels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from slipstick import projection

photograph = load_sample_image("china.jpg").astype(np.float32).mean(axis=2)
ranks = (5, 20, 80)
u, s, vt = projection.randomized_svd(photograph, max(ranks))

figure, axes = plt.subplots(2, 2, figsize=(8.4, 6))
for ax, rank in zip(axes.flat, (*ranks, None), strict=True):
    shown = photograph if rank is None else (u[:, :rank] * s[:rank]) @ vt[:rank]
    ax.imshow(shown, cmap="gray", vmin=0, vmax=255)
    numbers = (sum(photograph.shape) + 1) * (rank or 0) or photograph.size
    ax.set_title(f"rank {rank}: {numbers:,} numbers" if rank else f"original: {numbers:,} numbers")
    ax.axis("off")

# %%
# How good is it? No matrix of rank 80 comes closer than the exact SVD's. The error beyond that:

exact = np.linalg.svd(photograph.astype(np.float64), compute_uv=False)
best = np.sqrt((exact[80:] ** 2).sum())
for iterations in (0, 1, 2, "auto"):
    u, s, vt = projection.randomized_svd(photograph, 80, n_iter=iterations)
    error = np.linalg.norm(photograph - (u * s) @ vt)
    print(f"n_iter={iterations!s:5} error {100 * (error / best - 1):7.4f} % above the best")

# %%
# `StreamingSVD` sees every row once and keeps none: for a matrix that arrives in pieces or does not
# fit into memory. It gives the accuracy of ``n_iter=0``.

stream = projection.StreamingSVD(80)
for first in range(0, len(photograph), 100):
    stream.partial_fit(photograph[first : first + 100])
_, s, _ = stream.result()
print(f"first singular values {s[:3].round(0)}, exact {exact[:3].round(0)}")
figure, ax = plt.subplots()
ax.semilogy(exact[:80], label="exact")
ax.semilogy(s, "--", label="one pass over the rows")
ax.set_xlabel("number")
ax.set_ylabel("singular value")
ax.legend()
plt.show()
