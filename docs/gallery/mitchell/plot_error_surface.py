"""
Where Mitchell's product goes wrong
===================================

A floating-point number :math:`2^k (1 + x)` has the bit pattern of :math:`k + x`, which is close to
its logarithm. Mitchell's product adds the patterns. How wrong it is depends on the two fractions
:math:`x` and :math:`y` alone, so that one picture shows everything.
"""

# %%
# First the logarithm itself: the straight pieces :math:`k + x` beside :math:`\log_2`.

import matplotlib.pyplot as plt
import numpy as np

from slipstick import mitchell

values = np.linspace(1, 8, 1000, dtype=np.float32)
exact = np.log2(values)
pieces = mitchell.log2(values)

figure, (top, bottom) = plt.subplots(2, 1, sharex=True, height_ratios=[2, 1])
top.plot(values, exact, label="log2")
top.plot(values, pieces, label="mitchell.log2")
top.legend()
bottom.plot(values, exact - pieces, color="C3")
bottom.set_ylabel("too low by")
bottom.set_xlabel("value")
print(f"largest difference {np.max(exact - pieces):.4f}")

# %%
# Now all products of :math:`1 + x` and :math:`1 + y`. The relative error is 0 on the edges, where
# one operand is a power of two, and reaches :math:`-1/9` in the middle. The fold runs along
# :math:`x + y = 1`, where the sum of the fractions begins to carry into the exponent.

side = (np.arange(512, dtype=np.float32) + 0.5) / 512
a = (1 + side)[:, np.newaxis]
b = (1 + side)[np.newaxis, :]


def relative_error(method):
    """Return the error in percent over the unit square of fractions."""
    product = mitchell.multiply(a, b, method=method).astype(np.float64)
    return 100 * (product / (a.astype(np.float64) * b) - 1)


figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), sharey=True)
for ax, method in zip(axes, ("mitchell", "minimax", "drum"), strict=True):
    error = relative_error(method)
    picture = ax.imshow(
        error, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r", vmin=-11.2, vmax=11.2
    )
    ax.set_title(f"{method}: {error.min():.1f} to {round(error.max(), 1) + 0:.1f} %")
    ax.set_xlabel("y")
    ax.grid(False)
axes[0].set_ylabel("x")
figure.colorbar(picture, ax=axes, label="relative error, %", shrink=0.9)

# %%
# "minimax" adds a constant to the sum of the fractions, so that the largest errors of both signs
# balance. "drum" multiplies exactly, but only the six leading bits of each operand: its error is a
# pattern of small cells without a bias.
#
# The mean of each picture is what a long sum keeps of the errors: single errors cancel, their mean
# does not.

for method in ("mitchell", "zero-bias", "minimax", "drum"):
    error = relative_error(method)
    print(f"{method:10} mean {error.mean():+.2f} %   mean magnitude {np.abs(error).mean():.2f} %")

# sphinx_gallery_thumbnail_number = 2
plt.show()
