r"""
The scales beside each other
============================

A scale is a law from the number of visible keys :math:`n` to the factor on the logits. Models in
use have chosen several; this picture shows them relative to the usual :math:`1/\sqrt d`.
"""

import matplotlib.pyplot as plt
import numpy as np

from slipstick import scales

n = np.unique(np.geomspace(1, 1 << 17, 400).astype(int))
laws = {
    "LogN(512): Su 2021, softmax_plus": scales.LogN(512),
    "ClippedLogN(2048): Qwen-1": scales.ClippedLogN(2048),
    "SSMax(0.168): scalable softmax, s = 1.05 / ln 512": scales.SSMax(1.05 / np.log(512)),
    "Temperature(0.1, 8192, offset=1): Llama-4": scales.Temperature(0.1, 8192, offset=1),
}
figure, ax = plt.subplots(figsize=(7.6, 4.2))
for (name, law), style in zip(laws.items(), ("-", "--", "-.", "-"), strict=True):
    ax.plot(n, law.factor(n), style, label=name)
ax.axhline(1, color="grey", linewidth=0.8)
ax.set_xscale("log", base=2)
ax.set_xticks([1, 64, 512, 2048, 8192, 131072], ["1", "64", "512", "2048", "8192", "131072"])
ax.minorticks_off()
ax.set_xlabel("visible keys n")
ax.set_ylabel("factor relative to fixed attention")
ax.legend()
plt.show()

# %%
# A row that sees one key has a logarithm of 0, which does no harm: its only weight is 1 whatever
# the factor is.
#
# :meth:`slipstick.scales.Scale.factor` gives the number that the kernels use, in float64, with the
# head dimension for attention or without it for :func:`slipstick.softmax`.

for law in laws.values():
    print(law, law.factor([1, 512, 8192, 131072], dim=64).round(4))
