r"""
Entropy against length
======================

Attention spreads over more keys as the sequence grows: its entropy rises, and what was sharp at 512
tokens is blurred at 8192. Su Jianlin's remedy (2021) multiplies the logits by a factor that grows
with :math:`\ln n`. Here both are measured on random heads, where we know how sharp a head is.
"""

# %%
# A head is a set of Gaussian queries and keys. The logits of ordinary attention,
# :math:`\langle q, k\rangle / \sqrt d`, then have a standard deviation :math:`\sigma` that we
# choose: 1 is a head that hardly prefers any key, 3 one that has found something.

import math

import matplotlib.pyplot as plt
import numpy as np

import slipstick

DIM = 64
LENGTHS = 2 ** np.arange(5, 14)
rng = np.random.default_rng(0)


def entropy(length, sigma, scale):
    """Return the mean entropy, in nats, of 64 queries over `length` keys."""
    query = sigma * rng.standard_normal((1, 1, 64, DIM), np.float32)
    key = rng.standard_normal((1, 1, length, DIM), np.float32)
    value = np.zeros((1, 1, length, 1), np.float32)
    _, stats = slipstick.attention(query, key, value, scale=scale, return_stats=True)
    return float(stats.entropy.mean())


# %%
# The two laws agree at 512 keys, where the logarithmic one is told to be ordinary attention.

laws = {"fixed": 1 / math.sqrt(DIM), "LogN(512)": slipstick.scales.LogN(512)}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True)
for ax, sigma in zip(axes, (1, 2, 3), strict=True):
    for name, scale in laws.items():
        ax.plot(LENGTHS, [entropy(n, sigma, scale) for n in LENGTHS], "o-", ms=4, label=name)
    ax.plot(LENGTHS, np.log(LENGTHS), color="grey", linewidth=0.8, label="ln n: all keys alike")
    ax.axvline(512, color="grey", linestyle=":", linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_xticks([32, 512, 8192], ["32", "512", "8192"])
    ax.minorticks_off()
    ax.set_title(f"logits of deviation {sigma}")
    ax.set_xlabel("keys")
axes[0].set_ylabel("entropy, nats")
axes[0].legend()

# %%
# With a fixed scale the entropy runs nearly parallel to :math:`\ln n`, up to 0.69 nats for every
# doubling of the keys, however sharp the head is. With the logarithmic one it grows more slowly,
# and for a sharp head (right) it stays put. A head that prefers nothing (left) becomes only a
# little sharper: there is nothing to find.
#
# What an entropy means is easier to see as the number of keys that a query really looks at,
# :math:`e^H`.

for sigma in (1, 2, 3):
    for name, scale in laws.items():
        short, long = (math.exp(entropy(n, sigma, scale)) for n in (512, 8192))
        print(f"deviation {sigma}, {name:9}: {short:6.1f} keys of 512, {long:7.1f} of 8192")
plt.show()
