r"""
How well do distances survive?
==============================

The lemma of Johnson and Lindenstrauss (1984) promises that :math:`N` points keep all their
distances within a factor :math:`1 \pm \varepsilon` in some

.. math:: \frac{4 \ln N}{\varepsilon^2 / 2 - \varepsilon^3 / 3}

dimensions, whatever the dimension that they come from. This example compares the promise with what
happens.
"""

# %%
# The points: 500 of them, in 5000 dimensions. They need not be random for the lemma; the matrix is.

import matplotlib.pyplot as plt
import numpy as np

from slipstick import projection

N, DIM = 500, 5000
rng = np.random.default_rng(0)
points = rng.standard_normal((N, DIM), np.float32) * np.geomspace(1, 0.01, DIM, dtype=np.float32)

# %%
# Squared distances after the projection divided by those before, over 4000 random pairs. The
# distribution is that of a chi-square variable divided by its mean: its width is
# :math:`\sqrt{2/k}`, and nothing else matters.

figure, ax = plt.subplots()
for k in (64, 256, 1024):
    projected = projection.project(points, k, seed=1)
    report = projection.distortion(points, projected, n_pairs=4000)
    ax.hist(report.ratios, bins=60, histtype="step", density=True, linewidth=1.5, label=f"k = {k}")
    print(f"k = {k:4}: deviation {report.ratios.std():.4f}, theory {np.sqrt(2 / k):.4f}")
ax.set_xlabel("squared distance after / before")
ax.set_ylabel("density")
ax.legend()

# %%
# The bound asks for more dimensions than these points need: it has to cover all pairs of any
# :math:`N` points. Below, the worst of 4000 pairs for each :math:`k`, and the distortion that the
# bound allows at that :math:`k`.

figure, ax = plt.subplots(figsize=(6.4, 4))
components = 2 ** np.arange(5, 12)
worst = []
for k in components:
    report = projection.distortion(points, projection.project(points, int(k)), n_pairs=4000)
    worst.append(max(1 - report.min, report.max - 1))
allowed = np.linspace(0.12, 0.9, 80)
ax.loglog(components, worst, "o-", label="worst pair")
ax.loglog(projection.min_dim(N, allowed), allowed, label="min_dim(500, eps)")
exact = [projection.min_dim(N, eps, delta=0.05) for eps in allowed[::8]]
ax.loglog(exact, allowed[::8], "--", label="min_dim(500, eps, delta=0.05)")
ax.set_xticks([32, 128, 512, 2048], ["32", "128", "512", "2048"])
ax.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
ax.minorticks_off()
ax.set_xlabel("components k")
ax.set_ylabel("distortion eps")
ax.legend()

# %%
# Six kinds of matrices keep the promise at different prices. Here each with 256 components.

for kind in ("rademacher", "gaussian", "sparse", "srht", "sjlt", "countsketch"):
    report = projection.distortion(points, projection.project(points, 256, kind=kind), n_pairs=4000)
    ends = f"from {report.min:.3f} to {report.max:.3f}"
    print(f"{kind:12} deviation {report.ratios.std():.4f}, {ends}")
plt.show()
