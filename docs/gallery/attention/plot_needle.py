r"""
Finding one key among many
==========================

Why does the entropy matter? Suppose that one key fits the query and all others do not. This example
hides such a key among more and more others and measures the weight that it still gets.
"""

# %%
# The needle's logit is 8, the others are Gaussian of deviation 1. With a fixed scale the weight of
# the needle is about :math:`e^8 / (e^8 + n e^{1/2})`: from some length on it fades like
# :math:`1/n`, however well the key fits. A factor of :math:`\ln n / \ln 512` turns :math:`e^8` into
# :math:`n^{8 / \ln 512} = n^{1.28}`, which outgrows :math:`n`.

import math

import matplotlib.pyplot as plt
import numpy as np

import slipstick
from slipstick import scales

DIM = 64
NEEDLE = 8.0
LENGTHS = 2 ** np.arange(4, 16)
rng = np.random.default_rng(1)


def weight_of_needle(length, scale):
    """Return the mean weight, over 32 queries, of the one key that fits."""
    query = np.zeros((1, 1, 32, DIM), np.float32)
    query[..., 0] = math.sqrt(DIM)  # so that key[0] is the logit of ordinary attention
    key = rng.standard_normal((1, 1, length, DIM), np.float32)
    key[..., length // 3, 0] = NEEDLE
    value = np.zeros((1, 1, length, 1), np.float32)
    value[..., length // 3, 0] = 1  # what arrives at the output is the weight itself
    return float(slipstick.attention(query, key, value, scale=scale).mean())


laws = {
    "fixed, 1 / sqrt(d)": 1 / math.sqrt(DIM),
    "LogN(512)": scales.LogN(512),
    "ClippedLogN(512)": scales.ClippedLogN(512),
    "Temperature(0.1, 512)": scales.Temperature(0.1, 512),
}
figure, ax = plt.subplots()
for (name, scale), style in zip(laws.items(), ("o-", "s-", "^--", "d:"), strict=True):
    ax.plot(LENGTHS, [weight_of_needle(n, scale) for n in LENGTHS], style, ms=4, label=name)
ax.axvline(512, color="grey", linestyle=":", linewidth=0.8)
ax.set_xscale("log", base=2)
ax.set_xticks([16, 128, 512, 4096, 32768], ["16", "128", "512", "4096", "32768"])
ax.minorticks_off()
ax.set_xlabel("keys")
ax.set_ylabel("weight of the key that fits")
ax.legend()

# %%
# Below 512 keys `LogN` is softer than ordinary attention and `ClippedLogN` is not: that is the
# whole difference between them. `Temperature` grows by steps, one every 512 keys here, and with a
# slope of 0.1 too slowly to keep the needle.
#
# The kernel counts the keys itself. Padding must not count, and a causal row sees only what lies
# before it; both are told by arguments, and the factor of every row follows.

query, key, value = rng.standard_normal((3, 1, 1, 6, DIM), np.float32)
for options in ({}, {"causal": True}, {"causal": True, "key_lengths": [4]}):
    _, stats = slipstick.attention(query, key, value, scale=0.0, return_stats=True, **options)
    # With a factor of 0 all visible keys have one weight: the entropy is the logarithm of n.
    print(f"{options!s:42} n = {np.exp(stats.entropy).round().astype(int).ravel()}")
plt.show()
